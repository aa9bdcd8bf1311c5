"""Good defaults for somebody's own images, each with its reason: a pure function of stats, speeds and a budget.

What was tried to find them is in docs/log.md and results/small-folders. Loads no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..data.dataset import ImageData
from ..errors import InputError
from ..models.registry import model_info
from .recipe import Recipe

NETWORKS = (  # each about twice the work of the one before
    "shake_resnet8_2x16d",
    "shake_resnet14_2x16d",
    "shake_resnet20_2x16d",
    "shake_resnet14_2x32d",
    "shake_resnet26_2x32d",
    "shake_resnet26_2x64d",
    "shake_resnet26_2x96d",
)
UNMEASURED = "shake_resnet14_2x16d"  # where nobody says how fast the machine is or how long it may take
ENOUGH = 5  # times the least epochs: beyond, a larger network is the better use of time
UNEVEN = 1.5  # times as many images in the largest class as in the smallest: something is done about it
HEAVIEST = 10  # weight of an image in the loss: beyond, rare classes come oftener instead, which upsets no single step
TESTS = 20  # in a run at most; more would only draw a finer curve
SPARE = 0.9  # of the budget is planned for: machines are not as steady as a measurement
FEW = 1000  # images: up to here RandAugment was measured, and did better than mixtures (results/small-folders)
NARROW = 32  # width: shaking makes narrower networks worse
SHAKEN_FROM = 3  # times the least epochs: before, shaking has cost more than it gave


class Measured(Protocol):
    """train.speed.Speed, which this file does not import because it loads torch."""

    def seconds(self, steps: int, tested: int) -> float: ...


@dataclass(frozen=True)
class DatasetStats:
    """What the defaults depend on: numbers of images, of classes, of channels, pixels of a side, images by class."""

    images: int
    test_images: int
    classes: int
    channels: int
    side: int
    smallest: int
    largest: int

    @classmethod
    def of(cls, data: ImageData) -> DatasetStats:
        counts = np.bincount(data.train.labels, minlength=data.num_classes)
        return cls(
            len(data.train.labels),
            len(data.test.labels),
            data.num_classes,
            data.channels,
            data.image_size,
            int(counts.min()),
            int(counts.max()),
        )

    @property
    def least_epochs(self) -> int:
        """Passes after which a network of ours has learnt most of what it will: 200 for 200 images, 60 for 4,000."""
        return max(15, round(60 * (4000 / self.images) ** 0.4))


@dataclass
class Suggestions:
    """Fields of a recipe, and why each has its value: (field, value, reason), in the order they were picked."""

    fields: dict[str, Any]
    user_overrides: Mapping[str, Any]
    reasons: list[tuple[str, Any, str]] = field(default_factory=list)

    def pick(self, name: str, value: Any, reason: str) -> None:
        """Unless it was user_overrides: what was user_overrides is not argued with."""
        if name not in self.user_overrides:
            self.fields[name] = value
            self.reasons.append((name, value, reason))

    def lines(self) -> list[str]:
        """For a terminal, as options that can be user_overrides."""
        told = [(_option(name, value), reason) for name, value, reason in self.reasons]
        width = max((len(option) for option, _ in told), default=0)
        return [f"  {option:<{width}}  {reason}" for option, reason in told]


def suggest_recipe(
    data: str,
    stats: DatasetStats,
    user_overrides: Mapping[str, Any],
    budget: float | None,
    speed: Callable[[Recipe], Measured] | None,
) -> tuple[Recipe, Suggestions]:
    """The recipe for these images, and what was picked and why.

    user_overrides: fields that somebody gave, which are kept. budget: seconds that a run may take, None for no limit.
    speed: measures a recipe on this machine; asked for as few networks as will do, and never where network and epochs
    are user_overrides. Raises InputError for a budget that is none and for what Recipe refuses.
    """
    if budget is not None and not 0 < budget < math.inf:
        raise InputError(f"budget: got {budget:g} s, expected a time above 0")
    suggestions = Suggestions({}, user_overrides)
    _steps(suggestions, stats)
    _augmentation(suggestions, stats)
    start = Recipe(data=data).replace(**suggestions.fields, **user_overrides)
    epochs = _network_and_epochs(suggestions, start, stats, budget, speed)
    _mixup(suggestions, epochs, stats)
    _rule(suggestions, {**start.to_dict(), **suggestions.fields}["model"], epochs, stats)
    return start.replace(**suggestions.fields), suggestions


def _steps(suggestions: Suggestions, stats: DatasetStats) -> None:
    batch = min(32 if stats.images < 2000 else 64, stats.images)
    few = "few images: smaller batches make more steps of an epoch" if batch < 64 else "as in the paper, on one device"
    suggestions.pick("batch_size", batch, few)
    batch = suggestions.user_overrides.get("batch_size", batch)
    if isinstance(batch, int) and batch > 0:
        suggestions.pick("lr", round(0.1 * batch / 64, 6), f"0.1 for 64 images in a batch, so this for {batch}")


def _augmentation(suggestions: Suggestions, stats: DatasetStats) -> None:
    if stats.channels == 1:
        suggestions.pick("flip", False, "grey images are often signs, and a mirrored sign is another one")
    else:
        suggestions.pick(
            "flip", True, "mirrored photographs are photographs; --no-flip where a class has a left and a right"
        )
    suggestions.pick(
        "crop_padding", max(1, stats.side // 8), f"an eighth of {stats.side} pixels, as 4 of 32 in the paper"
    )
    if stats.largest >= UNEVEN * stats.smallest:
        times = stats.largest / max(1, stats.smallest)
        uneven = f"the largest class has {times:.1f} times as many images as the smallest"
        if stats.images / stats.classes / max(1, stats.smallest) <= HEAVIEST:
            suggestions.pick("balance", "weight", uneven)
        else:
            suggestions.pick("balance", "sample", f"{uneven}, more than weights can make up for in a batch")


def _network_and_epochs(
    suggestions: Suggestions,
    start: Recipe,
    stats: DatasetStats,
    budget: float | None,
    speed: Callable[[Recipe], Measured] | None,
) -> int:
    """Pick both, and how often is tested; returns the epochs. The larger network, as long as it can learn in the time.

    Small networks are measured first: where there is time for no more than twice the least epochs of one, the next,
    of about twice the work, is not tried.
    """
    user_overrides, least = suggestions.user_overrides, stats.least_epochs
    if budget is None or speed is None or ("model" in user_overrides and "epochs" in user_overrides):
        suggestions.pick(
            "model", UNMEASURED, "small enough for any machine; --budget 1h picks one for the time there is"
        )
        why = f"twice what {stats.images:,} images take at least; --budget 1h fits them to the time there is"
        suggestions.pick("epochs", 2 * least, why)
        return _tests(suggestions, user_overrides.get("epochs", 2 * least), TESTS)
    wanted = user_overrides.get("epochs", least)
    picked: tuple[str, int, int] | None = None
    for model in (user_overrides["model"],) if "model" in user_overrides else NETWORKS:
        measured = speed(start.replace(model=model))
        possible, tests = epochs_within(budget * SPARE, measured, start, stats, user_overrides.get("eval_every"))
        if picked is None or possible >= wanted:
            picked = model, possible, tests
        if possible < 2 * wanted:
            break
    assert picked is not None
    model, possible, tests = picked
    time = in_words(budget)
    if possible < wanted:
        better = in_words(60.0 * math.ceil(budget * wanted / max(1, possible) / 60))
        suggestions.pick("model", model, f"the smallest network, because even it has too few epochs in {time}")
        why = f"all that {time} are enough for; {wanted} would be better, for which --budget {better}"
    else:
        suggestions.pick(
            "model", model, f"the largest network that gets through {wanted} epochs or more in {time} here"
        )
        why = f"as many as {time} are enough for on this machine, measured by a few steps"
        if possible >= ENOUGH * least:
            why = f"{ENOUGH} times what {stats.images:,} images take at least; more has little to give"
    epochs = user_overrides.get("epochs", max(1, min(possible, ENOUGH * least)))
    suggestions.pick("epochs", epochs, why)
    return _tests(suggestions, epochs, tests)


def _tests(suggestions: Suggestions, epochs: int, tests: int) -> int:
    every = -(-epochs // tests)
    suggestions.pick(
        "eval_every", every, f"{-(-epochs // every)} tests in a run, which take a tenth of its time or less"
    )
    return epochs


def epochs_within(
    seconds: float, measured: Measured, recipe: Recipe, stats: DatasetStats, eval_every: int | None = None
) -> tuple[int, int]:
    """Return how many epochs fit into the time, 0 if none, and how many evaluations (unless the user set those)."""
    start = measured.seconds(0, 0)
    epoch = measured.seconds(-(-stats.images // recipe.batch_size), 0) - start
    test = measured.seconds(0, stats.test_images) - start
    tests = max(1, min(TESTS, int((seconds - start) / 10 / test) if test > 0 else TESTS))
    if eval_every is not None:
        return max(0, int((seconds - start) / (epoch + test / eval_every))), tests
    return max(0, int((seconds - start - tests * test) / epoch)), tests


def _mixup(suggestions: Suggestions, epochs: int, stats: DatasetStats) -> None:
    if suggestions.user_overrides.get("randaugment"):
        suggestions.pick("mixup_alpha", 0.0, "RandAugment does better without mixtures")
    elif epochs >= stats.least_epochs:
        why = f"keeps {stats.images:,} images from being learnt by heart, and {epochs} epochs are time enough for it"
        if stats.images <= FEW:
            why += "; where kornia is installed --randaugment 9 does better with so few"
        suggestions.pick("mixup_alpha", 1.0, why)
    else:
        suggestions.pick("mixup_alpha", 0.0, f"{epochs} epochs are too few to learn from mixtures")


def _rule(suggestions: Suggestions, model: str, epochs: int, stats: DatasetStats) -> None:
    info = model_info(model)
    if not info.branched:
        return
    width = info.width or NARROW
    if epochs >= SHAKEN_FROM * stats.least_epochs and width >= NARROW:
        suggestions.pick("rule", "S-E-I", "time enough for shaking to pay; `shakeshake compare` tells whether it does")
    else:
        why = "narrow" if width < NARROW else "trained briefly"
        suggestions.pick(
            "rule", "E-E-B", f"not shaken: {why}, networks lose by it; `shakeshake compare` tells for yours"
        )


def seconds_of(text: str) -> float | None:
    """``90s``, ``10m``, ``1.5h`` in seconds; None for ``none``, which is no limit. Raises InputError for others."""
    if text.strip().lower() == "none":
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h)\s*", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise InputError(f"budget: got {text!r}, expected a time such as 90s, 10m or 2h, or none")
    return seconds


def in_words(seconds: float) -> str:
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.4g}{unit}"
    return f"{seconds:.4g}s"


def _option(name: str, value: Any) -> str:
    option = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return option if value else f"--no-{option[2:]}"
    return f"{option} {value:g}" if isinstance(value, float) else f"{option} {value}"
