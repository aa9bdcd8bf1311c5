"""Recipes: everything that decides what a training run does, as one frozen, checked dataclass. Loads no torch."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InputError
from ..layers.rules import ShakeRule
from ..models.registry import check_model
from .schedule import parse_milestones

# Field names of recipes written before they were renamed.
RENAMED_FIELDS = {
    "bn_images": "ghost_batch_size",
    "ema": "ema_decay",
    "crop": "crop_padding",
    "cutout": "cutout_size",
    "mixup": "mixup_alpha",
    "clip_norm": "grad_clip_norm",
    "checkpoint_every": "checkpoint_interval_s",
    "compile": "compile_mode",
}


@dataclass(frozen=True)
class Recipe:
    """What a run does. Two runs of one recipe on one machine, by as many threads, end with the same weights."""

    data: str = "cifar10"
    """Images to train on: digits, cifar10, cifar100, a folder with one of photos for each class (or train/ and perhaps
    val/ and test/ with these), or the path of an .npz with x_train, y_train, x_test, y_test."""
    model: str = "shake_resnet20_2x16d"
    """Network; its name is its specification (see `shakeshake models`)."""
    rule: str = "S-S-I"
    """How the branches are shaken: forward-backward-level, as S-S-I, S-E-B, E-E-B, S-M3-I or S-0.7-I. A network
    without branches has none, whatever is given here."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 64
    """Images in an optimisation step; the last batch of an epoch is as short as it falls."""
    ghost_batch_size: int | None = 64
    """Images over which batch normalisation takes its statistics. A larger batch is cut into equal parts of at most
    this many, whose gradients are averaged: what several devices without synchronised BN do. None: the whole batch.
    On a GPU, and compiled, they go through at once, which takes memory for all of them."""
    lr: float = 0.1
    """Initial learning rate."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """What lowers the learning rate: a cosine, to 0 at the last step, or steps, at the milestones."""
    milestones: str = "0.5,0.75"
    """Parts of the run after which the schedule of steps multiplies the learning rate by gamma."""
    gamma: float = 0.1
    """Factor of the learning rate at each milestone."""
    first_epoch_lr: float = 0.0
    """Learning rate of the first epoch in place of the schedule's, 0 for the schedule's own."""
    momentum: float = 0.9
    """Momentum of the gradients."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: float = 1e-4
    """L2 penalty on every parameter, biases and BN included."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up before the schedule."""
    grad_clip_norm: float = 0.0
    """Largest norm of the gradient, 0 for no limit."""
    label_smoothing: float = 0.0
    """Part of the target spread evenly over all classes."""
    ema_decay: float = 0.0
    """Decay of an exponential moving average of the weights, which then is what is tested and saved; 0 for none."""
    flip: bool = True
    """Mirror half of the training images."""
    crop_padding: int = 4
    """Pixels of padding for random crops, 0 for none."""
    cutout_size: int = 0
    """Side of a square set to the mean colour, 0 for none."""
    mixup_alpha: float = 0.0
    """Parameter of the beta distribution that mixes pairs of images, 0 for none."""
    randaugment: int = 0
    """Magnitude of RandAugment's two operations on every image, 1 to 29, 0 for none; needs kornia."""
    balance: Literal["none", "sample", "weight"] = "none"
    """What is done about uneven classes. none: nothing; sample: as many images of each class in every epoch; weight: a
    loss that weighs an image by how rare its class is."""
    image_size: int | None = None
    """Pixels of a side that photos are resized to, 8 to 224. None: by their own sizes."""
    split_seed: int = 0
    """Decides which photos are held out as test where their folder has neither test/ nor val/."""
    train_size: int | None = None
    """Train on a stratified subset of this many images."""
    folds: int = 0
    """Cut the training images into so many stratified parts and test on one of them in place of the test images, 0
    for the test images."""
    fold: int = 0
    """Which of the parts is tested on, from 0; the others are trained on."""
    seed: int = 0
    """Decides the subset, the initial weights, the order, the augmentation and the shaking."""
    eval_every: int = 1
    """Epochs between tests; the last epoch is always tested."""
    checkpoint_interval_s: float = 30.0
    """Seconds between checkpoints (also kept at the end and when the run is stopped)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """fp32, bf16, or auto, which takes bf16 where the machine has instructions for it."""
    compile_mode: Literal["none", "default", "reduce-overhead", "max-autotune"] = "none"
    """torch.compile for the network of a training step: none, or in its mode default, reduce-overhead or max-autotune.
    For GPUs, whose steps are small; on a CPU the kernels of this package are faster."""
    init: str | None = None
    """Trained weights to start from, with a new last layer where the classes differ in number: a finished run, a
    safetensors file, or weights that have a name."""
    init_sha256: str | None = None
    """SHA-256 of the file that init stands for; filled in when a run begins, and checked where it is given."""
    data_dir: str | None = None
    """Where CIFAR lies or is downloaded to; of a run on photos that is gone on with, where they are now."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), str(field.type))
        branched = check_model(self.model)[0].branched
        # "none": no rule could be taken for shaking where nothing is shaken.
        object.__setattr__(self, "rule", str(ShakeRule.parse(self.rule)) if branched else "none")
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("eval_every", 1),
            ("seed", 0),
            ("split_seed", 0),
            ("crop_padding", 0),
            ("cutout_size", 0),
            ("randaugment", 0),
            ("folds", 0),
            ("fold", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name}: got {getattr(self, name)}, expected {least} or more")
        for name in ("ghost_batch_size", "train_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, expected 1 or more")
        for name, low, high in (("momentum", 0, 1), ("label_smoothing", 0, 1), ("ema_decay", 0, 1)):
            if not low <= getattr(self, name) < high:
                raise InputError(f"{name}: got {getattr(self, name)}, expected {low} <= {name} < {high}")
        for name in (
            "weight_decay",
            "grad_clip_norm",
            "mixup_alpha",
            "warmup_epochs",
            "checkpoint_interval_s",
            "first_epoch_lr",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name}: got {getattr(self, name)}, expected a finite number, 0 or more")
        if not 0 < self.lr < math.inf:
            raise InputError(f"lr: got {self.lr}, expected a finite number above 0")
        if self.warmup_epochs > self.epochs:
            raise InputError(f"warmup_epochs: got {self.warmup_epochs}, expected at most epochs, {self.epochs}")
        if self.first_epoch_lr and self.warmup_epochs:
            raise InputError(
                f"first_epoch_lr: got {self.first_epoch_lr} together with warmup_epochs {self.warmup_epochs}, "
                "expected one of the two"
            )
        if self.schedule not in ("cosine", "steps"):
            raise InputError(f"schedule: got {self.schedule!r}, expected cosine or steps")
        parse_milestones(self.milestones)
        if not 0 < self.gamma <= 1:
            raise InputError(f"gamma: got {self.gamma}, expected 0 < gamma <= 1")
        if self.balance not in ("none", "sample", "weight"):
            raise InputError(f"balance: got {self.balance!r}, expected none, sample or weight")
        if self.folds == 1:
            raise InputError("folds: got 1, expected 2 or more, or 0 for none")
        if self.fold and self.fold >= self.folds:
            raise InputError(f"fold: got {self.fold} of {self.folds} folds, expected one from 0 to less than folds")
        if self.randaugment >= 30:
            raise InputError(f"randaugment: got {self.randaugment}, expected 0 to 29")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise InputError(f"precision: got {self.precision!r}, expected auto, fp32 or bf16")
        if self.compile_mode not in ("none", "default", "reduce-overhead", "max-autotune"):
            raise InputError(
                f"compile_mode: got {self.compile_mode!r}, expected none, default, reduce-overhead or max-autotune"
            )

    def replace(self, **changes: Any) -> Recipe:
        """The recipe with some fields changed, checked anew."""
        known = {field.name for field in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise InputError(f"{name}: no field of a recipe, expected one of {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: Any) -> Recipe:
        """Raises InputError when it is not a recipe, naming the field."""
        if not isinstance(values, dict):
            raise InputError(f"recipe: got {type(values).__name__}, expected an object with the recipe's fields")
        return cls().replace(**{RENAMED_FIELDS.get(str(name), str(name)): value for name, value in values.items()})


def _check_type(name: str, value: Any, annotation: str) -> None:
    """A recipe comes from JSON and from callers, too: say which field has the wrong type."""
    allowed = {part.strip() for part in annotation.split("|")}
    if value is None and "None" in allowed:
        return
    if "float" in allowed and isinstance(value, int | float) and not isinstance(value, bool):
        return
    if "int" in allowed and isinstance(value, int) and not isinstance(value, bool):
        return
    if "bool" in allowed and isinstance(value, bool):
        return
    if ("str" in allowed or annotation.startswith("Literal")) and isinstance(value, str):
        return
    raise InputError(f"{name}: got {value!r}, expected {annotation}")
