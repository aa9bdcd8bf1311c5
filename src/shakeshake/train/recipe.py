"""Recipes: everything that decides what a training run does, as one frozen, checked dataclass. Loads no torch."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from ..core.rules import ShakeRule
from ..errors import InputError
from ..models.registry import check_model
from .schedule import parse_milestones


@dataclass(frozen=True)
class Recipe:
    """What a run does. Two runs of one recipe on one machine end with the same weights, bit for bit."""

    data: str = "cifar10"
    """Images to train on: digits, cifar10, cifar100, or the path of an .npz with x_train, y_train, x_test, y_test."""
    model: str = "shake_resnet20_2x16d"
    """Network; its name is its specification (see `shakeshake models`)."""
    rule: str = "S-S-I"
    """How the branches are shaken: forward-backward-level, as S-S-I, S-E-B, E-E-B, S-M3-I or S-0.7-I. A network
    without branches has none, whatever is given here."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 64
    """Images in an optimisation step; the last batch of an epoch is as short as it falls."""
    bn_images: int | None = 64
    """Images over which batch normalisation takes its statistics. A larger batch is cut into equal parts of at most
    this many, whose gradients are averaged: what several devices without synchronised BN do. None: the whole batch."""
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
    clip_norm: float = 0.0
    """Largest norm of the gradient, 0 for no limit."""
    label_smoothing: float = 0.0
    """Part of the target spread evenly over all classes."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which then is what is tested and saved; 0 for none."""
    flip: bool = True
    """Mirror half of the training images."""
    crop: int = 4
    """Pixels of padding for random crops, 0 for none."""
    cutout: int = 0
    """Side of a square set to the mean colour, 0 for none."""
    mixup: float = 0.0
    """Parameter of the beta distribution that mixes pairs of images, 0 for none."""
    train_size: int | None = None
    """Train on a stratified subset of this many images."""
    seed: int = 0
    """Decides the subset, the initial weights, the order, the augmentation and the shaking."""
    eval_every: int = 1
    """Epochs between tests; the last epoch is always tested."""
    checkpoint_every: float = 30.0
    """Seconds between checkpoints (also kept at the end and when the run is stopped)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto takes bf16 where the machine has instructions for it."""
    data_dir: str | None = None
    """Where CIFAR lies or is downloaded to."""

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
            ("crop", 0),
            ("cutout", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name}: got {getattr(self, name)}, expected {least} or more")
        for name in ("bn_images", "train_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, expected 1 or more")
        for name, low, high in (("momentum", 0, 1), ("label_smoothing", 0, 1), ("ema", 0, 1)):
            if not low <= getattr(self, name) < high:
                raise InputError(f"{name}: got {getattr(self, name)}, expected {low} <= {name} < {high}")
        for name in ("weight_decay", "clip_norm", "mixup", "warmup_epochs", "checkpoint_every", "first_epoch_lr"):
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
        if self.precision not in ("auto", "fp32", "bf16"):
            raise InputError(f"precision: got {self.precision!r}, expected auto, fp32 or bf16")

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
        return cls().replace(**values)


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


def quick(data: str = "cifar10") -> Recipe:
    """A start within minutes on a laptop; no paper's recipe.

    A narrow network on a short schedule. S-E-I, because S-S-I is too strong for such networks at such schedules
    (docs/log.md has the measurements).
    """
    if data == "digits":  # mirrored digits are no digits, and 8x8 pixels leave one to spare
        return Recipe(data=data, model="shake_resnet8_2x16d", rule="S-E-I", epochs=20, flip=False, crop=1)
    return Recipe(data=data, rule="S-E-I")


def paper_cifar10(data: str = "cifar10") -> Recipe:
    """The paper's recipe for CIFAR-10.

    X. Gastaldi, Shake-Shake regularization, arXiv 1705.07485, section 2.1 and Table 1.
    Expected: 26 2x32d S-S-I 3.55 % test error at the last epoch, mean of 3 runs; 26 2x96d 2.86 %, mean of 5.
    Hardware there: two GPUs, batch 128, batch normalisation not synchronised. Here the same on one device:
    ``bn_images=64`` cuts the batch in two halves, each with statistics and coefficients of its own.
    (The author's one-device variant is ``batch_size=64, lr=0.1``.)
    1800 epochs, 391 steps each, no warm-up, clipping, label smoothing or Cutout.
    """
    return Recipe(
        data=data,
        model="shake_resnet26_2x32d",
        rule="S-S-I",
        epochs=1800,
        batch_size=128,
        bn_images=64,
        lr=0.2,
        momentum=0.9,
        weight_decay=1e-4,
        flip=True,
        crop=4,
    )


def paper_cifar100(data: str = "cifar100") -> Recipe:
    """The paper's recipe for CIFAR-100.

    X. Gastaldi, Shake-Shake regularization, arXiv 1705.07485, section 2.2 and Table 2.
    Expected: 29 2x4x64d S-E-I 15.85 % test error at the last epoch, E-E-B 16.34 %.
    Start-up check of the author's release for S-E-I: about 84 % error after epoch 1, 76 % after epoch 2.
    Two devices of 16 images each, as in paper_cifar10: ``bn_images=16``.
    """
    return Recipe(
        data=data,
        model="shake_resnext29_2x4x64d",
        rule="S-E-I",
        epochs=1800,
        batch_size=32,
        bn_images=16,
        lr=0.025,
        momentum=0.9,
        weight_decay=5e-4,
        flip=True,
        crop=4,
    )


def paper_architecture_c(data: str = "cifar10") -> Recipe:
    """The paper's recipe for its architecture C, without skip connections and batch normalisation.

    X. Gastaldi, Shake-Shake regularization, arXiv 1705.07485, Table 5: as for CIFAR-10, but with a learning rate of
    0.025 in the first epoch and then 0.05, and alpha between 0.4 and 0.6. Easily diverges, with wider ranges the more.
    """
    return paper_cifar10(data).replace(
        model="shake_resnet14_2x32d_c", rule="S-E-I[0.4,0.6]", lr=0.05, first_epoch_lr=0.025
    )


def paper_resnet(data: str = "cifar10") -> Recipe:
    """ResNet's own recipe for CIFAR-10, without shaking.

    K. He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, section 4.2 and Table 6.
    Expected on CIFAR-10: resnet20 8.75 % test error.
    64,000 steps (here 164 epochs), the rate divided by 10 after half and three quarters; two GPUs of 64 images each;
    momentum not Nesterov's. For resnet110 the paper adds ``first_epoch_lr=0.01``. It trains on 45,000 of the images.
    """
    return Recipe(
        data=data,
        model="resnet20",
        epochs=164,
        batch_size=128,
        bn_images=64,
        lr=0.1,
        schedule="steps",
        milestones="0.5,0.75",
        gamma=0.1,
        momentum=0.9,
        nesterov=False,
        weight_decay=1e-4,
    )


def paper_wrn(data: str = "cifar10") -> Recipe:
    """Wide ResNet's own recipe for CIFAR, without shaking and without dropout.

    S. Zagoruyko, N. Komodakis, Wide Residual Networks, arXiv 1605.07146, section 3, and the authors' release.
    Expected: wrn28_10 4.00 % test error on CIFAR-10, 19.25 % on CIFAR-100, median of 5 runs (release).
    200 epochs, the rate divided by 5 after 60, 120 and 160. There the border of crops is reflected, here it is zero.
    """
    return Recipe(
        data=data,
        model="wrn28_10",
        epochs=200,
        batch_size=128,
        bn_images=None,
        lr=0.1,
        schedule="steps",
        milestones="0.3,0.6,0.8",
        gamma=0.2,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )


def paper_resnext(data: str = "cifar10") -> Recipe:
    """ResNeXt's own recipe for CIFAR, without shaking.

    S. Xie et al., Aggregated Residual Transformations for Deep Neural Networks, arXiv 1611.05431, section 5.3, and the
    authors' release. Expected: resnext29_16x64d 3.58 % test error on CIFAR-10 (Shake-Shake's Table 3).
    300 epochs, the rate divided by 10 after 150 and 225; eight GPUs of 16 images each.
    """
    return Recipe(
        data=data,
        model="resnext29_16x64d",
        epochs=300,
        batch_size=128,
        bn_images=16,
        lr=0.1,
        schedule="steps",
        milestones="0.5,0.75",
        gamma=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )


def paper_densenet(data: str = "cifar10") -> Recipe:
    """DenseNet's own recipe for CIFAR, without shaking.

    G. Huang et al., Densely Connected Convolutional Networks, arXiv 1608.06993, section 4.2, and the authors' release.
    Expected: densenet_bc190_40 3.46 % test error on CIFAR-10 (Shake-Shake's Table 3).
    300 epochs, the rate divided by 10 after half and three quarters.
    """
    return Recipe(
        data=data,
        model="densenet_bc190_40",
        epochs=300,
        batch_size=64,
        bn_images=None,
        lr=0.1,
        schedule="steps",
        milestones="0.5,0.75",
        gamma=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
    )


PRESETS = {
    "quick": quick,
    "paper_cifar10": paper_cifar10,
    "paper_cifar100": paper_cifar100,
    "paper_architecture_c": paper_architecture_c,
    "paper_resnet": paper_resnet,
    "paper_wrn": paper_wrn,
    "paper_resnext": paper_resnext,
    "paper_densenet": paper_densenet,
}


def preset(name: str, data: str | None = None) -> Recipe:
    """The preset of that name, for these data. Raises InputError for a name that is none."""
    if name not in PRESETS:
        raise InputError(f"recipe: {name!r} is not a preset, expected one of {', '.join(PRESETS)}")
    return PRESETS[name](data) if data is not None else PRESETS[name]()
