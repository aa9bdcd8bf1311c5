"""Training recipes: the frozen, validated settings of a run. Does not import torch."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InputError
from ..models.registry import current_name, rule_for
from .recipe_fields import FINITE, check_limits, check_type, option, plain
from .schedule import parse_milestones

# Other name -> name, so that recipes written before a field was renamed still load.
RENAMED_FIELDS = {
    "bn_images": "ghost_batch_size",
    "ema": "ema_decay",
    "crop": "crop_padding",
    "cutout": "cutout_size",
    "mixup": "mixup_alpha",
    "clip_norm": "grad_clip_norm",
    "checkpoint_every": "checkpoint_interval_s",
    "compile": "compile_mode",
    "learning_rate": "lr",
}


@dataclass(frozen=True, repr=False)
class Recipe:
    """The settings of a training run.

    Runs of the same recipe on the same machine with the same number of threads end with identical weights.

    Fields take plain values; a ``Path``, ``ShakeRule``, ``torch.device``, numpy scalar, or a sequence of milestones is
    converted to one. ``dataclasses.fields(Recipe)`` describes every field: its ``metadata`` holds ``help``, ``group``,
    ``choices`` and ``metavar``.

    Raises:
        InputError: A value has the wrong type, is out of range, or contradicts another one.
    """

    data: str = option(
        "cifar10",
        "Training data: digits, cifar10, cifar100, a folder of images with one subfolder per class (optionally under "
        "train/, val/ and test/), or an .npz file with x_train, y_train, x_test and y_test",
        group="data",
        metavar="DATA",
    )
    model: str = option(
        "shake_resnet20_2x16d",
        "Network, by its name (see `shakeshake models`), FILE.py:FACTORY for your own, hf/REPO-OR-FOLDER of "
        "transformers or timm/NAME",
        group="network",
        metavar="NAME",
    )
    rule: str = option(
        "S-S-I",
        "Shake rule, forward-backward-level, such as S-S-I, S-E-B, E-E-B, S-M3-I or S-0.7-I, or FILE.py:FUNCTION for "
        "your own. Ignored by networks without branches",
        group="network",
        metavar="RULE",
    )
    epochs: int = option(30, "Passes over the training images", group="optimisation", metavar="N", low=1)
    batch_size: int = option(
        64,
        "Images per optimiser step. The last batch of an epoch may be smaller",
        group="optimisation",
        metavar="IMAGES",
        low=1,
    )
    ghost_batch_size: int | None = option(
        64,
        "Maximum number of images that share batch-norm statistics and shake coefficients. A larger batch is split "
        "into equal microbatches and their gradients are averaged, as on several devices without synchronised batch "
        "norm. none: the whole batch",
        group="optimisation",
        metavar="IMAGES",
        low=1,
    )
    optimizer: str = option(
        "sgd",
        "Optimiser: sgd, adamw, or the name of any class of torch.optim, such as RMSprop. lr, weight_decay and "
        "momentum apply where the class has them",
        group="optimisation",
        metavar="NAME",
    )
    lr: float = option(0.1, "Initial learning rate", group="optimisation", metavar="RATE", above=0, high=FINITE)
    schedule: Literal["cosine", "steps"] = option(
        "cosine",
        "Learning-rate schedule. cosine: half a cosine that reaches 0 at the last step; steps: multiply by gamma at "
        "each milestone",
        group="optimisation",
        choices=("cosine", "steps"),
    )
    milestones: str = option(
        "0.5,0.75", "Milestones of the steps schedule, as fractions of the run", group="optimisation", metavar="F,F,..."
    )
    gamma: float = option(
        0.1,
        "Factor applied to the learning rate at each milestone",
        group="optimisation",
        metavar="FACTOR",
        above=0,
        high=1,
    )
    first_epoch_lr: float = option(
        0.0,
        "Constant learning rate during the first epoch; 0 to follow the schedule",
        group="optimisation",
        metavar="RATE",
        low=0,
        high=FINITE,
    )
    momentum: float = option(0.9, "Momentum", group="optimisation", metavar="M", low=0, below=1)
    nesterov: bool = option(True, "Use Nesterov momentum", group="optimisation")
    weight_decay: float = option(
        1e-4,
        "Weight decay of all parameters, including biases and batch norm",
        group="optimisation",
        metavar="W",
        low=0,
        high=FINITE,
    )
    warmup_epochs: float = option(
        0.0, "Epochs of linear warm-up before the schedule", group="optimisation", metavar="N", low=0, high=FINITE
    )
    grad_clip_norm: float = option(
        0.0, "Maximum norm of the gradient; 0 for no clipping", group="optimisation", metavar="NORM", low=0, high=FINITE
    )
    label_smoothing: float = option(
        0.0,
        "Fraction of the target probability spread evenly over all classes",
        group="optimisation",
        metavar="F",
        low=0,
        below=1,
    )
    ema_decay: float = option(
        0.0,
        "Decay of the exponential moving average of the weights, which is then evaluated and saved; 0 to disable",
        group="optimisation",
        metavar="DECAY",
        low=0,
        below=1,
    )
    flip: bool = option(True, "Flip training images horizontally with probability 0.5", group="augmentation")
    crop_padding: int = option(
        4, "Padding for random crops; 0 to disable", group="augmentation", metavar="PIXELS", low=0
    )
    cutout_size: int = option(
        0, "Side of the Cutout square; 0 to disable", group="augmentation", metavar="PIXELS", low=0
    )
    mixup_alpha: float = option(
        0.0,
        "Parameter of the beta distribution of mixup; 0 to disable",
        group="augmentation",
        metavar="ALPHA",
        low=0,
        high=FINITE,
    )
    randaugment: int = option(
        0,
        "Magnitude of RandAugment, 1 to 29, with two operations per image; 0 to disable. Requires kornia",
        group="augmentation",
        metavar="M",
        low=0,
        high=29,
    )
    balance: Literal["none", "sample", "weight"] = option(
        "none",
        "Handling of class imbalance. sample: draw equally many images per class in each epoch; weight: weight the "
        "loss by inverse class frequency",
        group="optimisation",
        choices=("none", "sample", "weight"),
    )
    image_size: int | None = option(
        None,
        "Size to which images of a folder are resized, 8 to 224. none: chosen from their sizes",
        group="data",
        metavar="PIXELS",
    )
    split_seed: int = option(
        0, "Seed of the train/test split of a folder without test/ or val/", group="data", metavar="SEED", low=0
    )
    train_size: int | None = option(
        None, "Train on a stratified subset of this size", group="data", metavar="IMAGES", low=1
    )
    folds: int = option(
        0,
        "Number of stratified folds of the training images for cross-validation. One fold replaces the test images; "
        "0 to disable",
        group="data",
        metavar="K",
        low=0,
    )
    fold: int = option(
        0, "Index of the fold to test on, from 0; the others are used for training", group="data", metavar="I", low=0
    )
    seed: int = option(
        0,
        "Seed of the subset, initial weights, order of images, augmentation and shaking",
        group="run",
        metavar="SEED",
        low=0,
    )
    eval_every: int = option(
        1, "Epochs between evaluations; the last epoch is always evaluated", group="run", metavar="EPOCHS", low=1
    )
    checkpoint_interval_s: float = option(
        30.0,
        "Seconds between checkpoints. One is also written at the end and when the run is stopped",
        group="run",
        metavar="SECONDS",
        low=0,
        high=FINITE,
    )
    device: str = option("auto", "Device: auto, cpu, cuda, cuda:N or mps", group="run", metavar="DEVICE")
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "Numeric precision. auto: bf16 where the device supports it natively, otherwise fp32",
        group="run",
        choices=("auto", "fp32", "bf16"),
    )
    compile_mode: Literal["none", "default", "reduce-overhead", "max-autotune"] = option(
        "none",
        "Mode of torch.compile for training steps. Useful on GPUs; on CPUs the kernels of this package are faster",
        group="run",
        choices=("none", "default", "reduce-overhead", "max-autotune"),
    )
    pretrained: bool = option(
        True, "Start networks of transformers and timm from their pretrained weights", group="network"
    )
    probe: bool = option(
        False,
        "Start from a linear probe: the last layer is fitted to the features of the initial network by logistic "
        "regression, whose strength is chosen on validation images. Requires scikit-learn",
        group="optimisation",
    )
    freeze: bool = option(
        False, "Train the last layer only; batch norm keeps its statistics, and nothing is shaken", group="optimisation"
    )
    head_lr: float | None = option(
        None,
        "Initial learning rate of the last layer, where it differs from that of the others",
        group="optimisation",
        metavar="RATE",
        above=0,
        high=FINITE,
    )
    init: str | None = option(
        None,
        "Pretrained weights to start from: a finished run or a safetensors file. The last layer is new if the "
        "classes differ",
        group="network",
        metavar="PATH",
    )
    init_sha256: str | None = option(
        None, "Expected SHA-256 of the initial weights; recorded when the run starts", group="network", metavar="HEX"
    )
    data_dir: str | None = option(
        None,
        "Directory of the CIFAR files; for a resumed run on an image folder, its new location",
        group="data",
        metavar="DIR",
    )

    def __new__(cls, *_: Any, **fields: Any) -> Recipe:
        """Check the names of the fields, for which dataclasses would raise TypeError."""
        _check_names(fields)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value = plain(getattr(self, spec.name))
            if spec.name == "milestones" and isinstance(value, list | tuple):
                value = ",".join(map(str, value))
            check_type(spec, value)
            check_limits(spec, value)
            object.__setattr__(self, spec.name, value)
        object.__setattr__(self, "rule", rule_for(self.model, self.rule))
        parse_milestones(self.milestones)
        if self.warmup_epochs > self.epochs:
            raise InputError(f"warmup_epochs: got {self.warmup_epochs}, expected at most epochs, {self.epochs}")
        if self.first_epoch_lr and self.warmup_epochs:
            raise InputError(
                f"first_epoch_lr: got {self.first_epoch_lr} together with warmup_epochs {self.warmup_epochs}, "
                "expected one of the two"
            )
        if self.folds == 1:
            raise InputError("folds: got 1, expected 0 or at least 2")
        if self.fold and self.fold >= self.folds:
            raise InputError(f"fold: got {self.fold} of {self.folds} folds, expected 0 or a number less than folds")

    def __repr__(self) -> str:
        changed = (f for f in dataclasses.fields(self) if getattr(self, f.name) != f.default)
        return f"Recipe({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in changed)})"

    def replace(self, **changes: Any) -> Recipe:
        """Return a validated copy with some fields changed.

        Raises:
            InputError: A field does not exist or its value is invalid.
        """
        _check_names(changes)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the contents of ``recipe.json``."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: Any) -> Recipe:
        """Return the recipe that ``to_dict`` described; missing fields have their defaults.

        Raises:
            InputError: ``values`` is not a mapping, or a field is unknown or invalid.
        """
        if not isinstance(values, dict):
            raise InputError(f"recipe: got {type(values).__name__}, expected an object with the fields of a recipe")
        fields = {RENAMED_FIELDS.get(str(name), str(name)): value for name, value in values.items()}
        if "model" in fields:
            fields["model"] = current_name(fields["model"])
        return cls().replace(**fields)


def _check_names(names: Iterable[str]) -> None:
    """Raise InputError for a name that is not a field of a recipe."""
    known = sorted(spec.name for spec in dataclasses.fields(Recipe))
    for name in names:
        if name not in known:
            similar = RENAMED_FIELDS.get(name) or next(iter(difflib.get_close_matches(name, known, 1)), None)
            expected = f"did you mean {similar}?" if similar else f"expected one of {', '.join(known)}"
            raise InputError(f"{name}: not a field of a recipe, {expected}")
