"""Suggested recipe fields for a dataset and a time budget, each with a reason. Loads no torch.

The experiments behind the constants are in docs/log.md and results/small-folders.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ..data.dataset import ImageData
from ..errors import InputError
from ..models.registry import model_info
from .recipe import Recipe

NETWORKS = (  # each needs about twice the compute of the one before
    "shake_resnet8_2x16d",
    "shake_resnet14_2x16d",
    "shake_resnet20_2x16d",
    "shake_resnet14_2x32d",
    "shake_resnet26_2x32d",
    "shake_resnet26_2x64d",
    "shake_resnet26_2x96d",
)
DEFAULT_NETWORK = "shake_resnet14_2x16d"  # without a budget
MAX_EPOCHS_FACTOR = 5  # times min_epochs: beyond it, a larger network is the better use of time
IMBALANCE_RATIO = 1.5  # largest class / smallest class: above it, classes are balanced
MAX_CLASS_WEIGHT = 10  # above it, rare classes are sampled more often, as a large weight makes single steps unstable
MAX_EVALUATIONS = 20  # per run
BUDGET_FRACTION = 0.9  # of the budget is planned for, because speed varies
GREY_SAMPLE, GREY_TOLERANCE = 200, 8  # images looked at; levels between their channels, as JPEG makes of grey
SMALL_DATASET = 1000  # images: up to here, RandAugment did better than Mixup (results/small-folders)
MIN_SHAKE_WIDTH = 32  # shaking makes narrower networks worse
# The primary comparison of the study, results/augmentation.
UNAUGMENTED_REASON = "no augmentation: on 1,000 CIFAR-10 images, shaking gave 53.4 instead of 56.0 % test error"
SHAKE_EPOCHS_FACTOR = 3  # times min_epochs: in shorter runs, shaking increases the error


class Measured(Protocol):
    """Interface of ``measure_speed.Speed``, which needs torch."""

    def seconds(self, steps: int, tested: int) -> float:
        """Estimate the seconds of ``steps`` steps and of testing ``tested`` images."""


@dataclass(frozen=True)
class DatasetStats:
    """The properties of a dataset that the suggestions depend on.

    Attributes:
        train_images: Number of training images.
        test_images: Number of test images.
        num_classes: Number of classes.
        channels: Number of channels.
        image_size: Height and width in pixels.
        smallest_class: Training images of the smallest class.
        largest_class: Training images of the largest class.
        grey: Whether all three channels are equal, as in photos of characters.
        pretrained: Whether training starts from pretrained weights.
    """

    train_images: int
    test_images: int
    num_classes: int
    channels: int
    image_size: int
    smallest_class: int
    largest_class: int
    grey: bool = False
    pretrained: bool = False

    @classmethod
    def of(cls, data: ImageData) -> DatasetStats:
        """Return the stats of a dataset."""
        counts = np.bincount(data.train.labels, minlength=data.num_classes)
        return cls(
            len(data.train.labels),
            len(data.test.labels),
            data.num_classes,
            data.channels,
            data.image_size,
            int(counts.min()),
            int(counts.max()),
            _is_grey(data),
        )

    @property
    def min_epochs(self) -> int:
        """Epochs after which the network has learned most: 200 for 200 images, 60 for 4,000; pretrained a tenth."""
        epochs = max(15, round(60 * (4000 / self.train_images) ** 0.4))
        return max(3, epochs // 10) if self.pretrained else epochs


def _is_grey(data: ImageData) -> bool:
    every = max(1, len(data.train.labels) // GREY_SAMPLE)
    sample = np.asarray(data.train.images[::every]).astype(np.int16)
    return data.channels == 3 and bool((np.ptp(sample, axis=1) <= GREY_TOLERANCE).all())


@dataclass
class Suggestions:
    """Suggested recipe fields.

    Attributes:
        fields: Suggested values by field name.
        user_overrides: Fields that the user set; they are never suggested.
        reasons: (field, value, reason) in the order of the suggestions.
    """

    fields: dict[str, Any]
    user_overrides: Mapping[str, Any]
    reasons: list[tuple[str, Any, str]] = field(default_factory=list)

    def pick(self, name: str, value: Any, reason: str) -> None:
        """Suggest a value unless the user set the field."""
        if name not in self.user_overrides:
            self.fields[name] = value
            self.reasons.append((name, value, reason))

    def lines(self) -> list[str]:
        """Return one line of text per suggestion: the command-line option and the reason."""
        options = [(_option(name, value), reason) for name, value, reason in self.reasons]
        width = max((len(option) for option, _ in options), default=0)
        return [f"  {option:<{width}}  {reason}" for option, reason in options]


def suggest_recipe(
    data: str,
    stats: DatasetStats,
    user_overrides: Mapping[str, Any],
    budget: float | None,
    speed: Callable[[Recipe], Measured] | None,
    smaller_sizes: Sequence[int] = (),
) -> tuple[Recipe, Suggestions]:
    """Suggest a recipe for a dataset.

    Args:
        data: Training data, as in ``Recipe.data``.
        stats: Properties of the dataset.
        user_overrides: Fields that the user set. They take precedence.
        budget: Time limit of the run in seconds; None for no limit.
        speed: Measures the speed of a recipe, whose ``image_size`` is None for that of the dataset. Called as rarely
            as possible, and never if the user set both network and epochs.
        smaller_sizes: Image sizes to which the images may be shrunk if the budget is short, in falling order.

    Raises:
        InputError: The budget is not positive, or a field has an invalid value.
    """
    if budget is not None and not 0 < budget < math.inf:
        raise InputError(f"budget: got {budget:g} s, expected a time above 0")
    suggestions = Suggestions({}, user_overrides)
    _suggest_batch_size(suggestions, stats)
    if stats.pretrained:
        suggestions.pick("probe", True, "the last layer is new: logistic regression is a better start than noise")
        if not {"rule", "head_lr"} & user_overrides.keys():
            suggestions.pick("freeze", True, "the other layers keep their features; --no-freeze trains them, too")
    start = Recipe(data=data).replace(**suggestions.fields, **user_overrides)
    stats = _suggest_image_size(suggestions, start, stats, budget, speed, smaller_sizes)
    _suggest_augmentation(suggestions, stats)
    start = Recipe(data=data).replace(**suggestions.fields, **user_overrides)
    epochs = _suggest_network_and_epochs(suggestions, start, stats, budget, speed)
    chosen = start.replace(**suggestions.fields)
    shaken = _suggest_rule(suggestions, chosen, epochs, stats)
    _suggest_mixup(suggestions, epochs, stats, shaken=shaken and not _is_augmented(chosen))
    return start.replace(**suggestions.fields), suggestions


def _suggest_batch_size(suggestions: Suggestions, stats: DatasetStats) -> None:
    batch = min(32 if stats.train_images < 2000 else 64, stats.train_images)
    why = "small dataset: smaller batches give more steps per epoch" if batch < 64 else "as in the paper, on one device"
    suggestions.pick("batch_size", batch, why)
    batch = suggestions.user_overrides.get("batch_size", batch)
    if isinstance(batch, int) and batch > 0:
        lr = 0.001 if stats.pretrained else 0.1
        suggestions.pick("lr", round(lr * batch / 64, 6), f"{lr:g} at batch size 64, scaled linearly to {batch}")


def _suggest_image_size(
    suggestions: Suggestions,
    start: Recipe,
    stats: DatasetStats,
    budget: float | None,
    speed: Callable[[Recipe], Measured] | None,
    smaller_sizes: Sequence[int],
) -> DatasetStats:
    """Suggest the largest size at which the smallest network can train long enough; return the stats at that size."""
    user_overrides = suggestions.user_overrides
    sizes = [size for size in smaller_sizes if size < stats.image_size]
    if budget is None or speed is None or not sizes or {"model", "epochs"} <= user_overrides.keys():
        return stats
    start = start.replace(model=user_overrides.get("model", NETWORKS[0]))
    chosen: int | None = None  # the dataset's size
    for smaller in sizes:
        possible, _ = epochs_within(budget * BUDGET_FRACTION, speed(start.replace(image_size=chosen)), start, stats)
        if possible >= stats.min_epochs:
            break
        chosen = smaller
    if chosen is None:
        return stats
    why = (
        f"smaller than the images ({stats.image_size} pixels): more epochs are worth more in {format_duration(budget)}"
    )
    suggestions.pick("image_size", chosen, why)
    return replace(stats, image_size=chosen)


def _suggest_augmentation(suggestions: Suggestions, stats: DatasetStats) -> None:
    if stats.channels == 1 or stats.grey:
        suggestions.pick("flip", False, "grey images are often characters, which change their meaning when mirrored")
    else:
        suggestions.pick("flip", True, "usual for photographs; use --no-flip if left and right distinguish classes")
    size = stats.image_size
    suggestions.pick("crop_padding", max(1, size // 8), f"an eighth of {size} pixels, as 4 of 32 in the paper")
    if stats.largest_class >= IMBALANCE_RATIO * stats.smallest_class:
        smallest = max(1, stats.smallest_class)
        why = f"the largest class has {stats.largest_class / smallest:.1f} times as many images as the smallest"
        if stats.train_images / stats.num_classes / smallest <= MAX_CLASS_WEIGHT:
            suggestions.pick("balance", "weight", why)
        else:
            suggestions.pick("balance", "sample", f"{why}, too many to balance by loss weights")


def _suggest_network_and_epochs(
    suggestions: Suggestions,
    start: Recipe,
    stats: DatasetStats,
    budget: float | None,
    speed: Callable[[Recipe], Measured] | None,
) -> int:
    """Suggest the largest network that can train long enough, its epochs and ``eval_every``; return the epochs.

    Networks are measured from small to large, until one has time for less than twice the required epochs: the next
    takes about twice as long.
    """
    user_overrides, minimum = suggestions.user_overrides, stats.min_epochs
    if budget is None or speed is None or ("model" in user_overrides and "epochs" in user_overrides):
        suggestions.pick("model", DEFAULT_NETWORK, "small enough for any machine; --budget 1h picks one for that time")
        why = f"twice the minimum for {stats.train_images:,} images; --budget 1h picks as many as fit into that time"
        suggestions.pick("epochs", 2 * minimum, why)
        return _suggest_eval_every(suggestions, user_overrides.get("epochs", 2 * minimum), MAX_EVALUATIONS)
    required = max(user_overrides.get("epochs", minimum), minimum)  # a quick check doesn't need the largest network
    picked: tuple[str, int, int] | None = None
    for model in (user_overrides["model"],) if "model" in user_overrides else NETWORKS:
        measured = speed(start.replace(model=model))
        possible, evaluations = epochs_within(
            budget * BUDGET_FRACTION, measured, start, stats, user_overrides.get("eval_every")
        )
        if picked is None or possible >= required:
            picked = model, possible, evaluations
        if possible < 2 * required:
            break
    assert picked is not None
    model, possible, evaluations = picked
    time = format_duration(budget)
    if possible < required and "epochs" not in user_overrides:
        better = format_duration(60.0 * math.ceil(budget * required / max(1, possible) / 60))
        suggestions.pick("model", model, f"the smallest network; {time} is short even for it")
        why = f"as many as fit into {time}; {required} would be better and need --budget {better}"
    else:
        suggestions.pick("model", model, f"the largest network that can train for {required} epochs in {time} here")
        why = f"as many as fit into {time} at the measured speed"
        if possible >= MAX_EPOCHS_FACTOR * minimum:
            why = f"{MAX_EPOCHS_FACTOR} times the minimum for {stats.train_images:,} images; more hardly helps"
    epochs = user_overrides.get("epochs", max(1, min(possible, MAX_EPOCHS_FACTOR * minimum)))
    suggestions.pick("epochs", epochs, why)
    return _suggest_eval_every(suggestions, epochs, evaluations)


def _suggest_eval_every(suggestions: Suggestions, epochs: int, evaluations: int) -> int:
    every = -(-epochs // evaluations)
    suggestions.pick("eval_every", every, f"evaluations: {-(-epochs // every)}, at most a tenth of the time")
    return epochs


def epochs_within(
    seconds: float, measured: Measured, recipe: Recipe, stats: DatasetStats, eval_every: int | None = None
) -> tuple[int, int]:
    """Return how many epochs fit into the time (0 if none) and how many evaluations, unless ``eval_every`` is set."""
    start = measured.seconds(0, 0)
    epoch = measured.seconds(-(-stats.train_images // recipe.batch_size), 0) - start
    test = measured.seconds(0, stats.test_images) - start
    tests = max(1, min(MAX_EVALUATIONS, int((seconds - start) / 10 / test) if test > 0 else MAX_EVALUATIONS))
    if eval_every is not None:
        return max(0, int((seconds - start) / (epoch + test / eval_every))), tests
    return max(0, int((seconds - start - tests * test) / epoch)), tests


def _suggest_mixup(suggestions: Suggestions, epochs: int, stats: DatasetStats, *, shaken: bool) -> None:
    if shaken:
        suggestions.pick("mixup_alpha", 0.0, "shaking replaces it; together they were not tested")
    elif stats.pretrained:
        suggestions.pick("mixup_alpha", 0.0, "few epochs of fine-tuning")
    elif suggestions.user_overrides.get("randaugment"):
        suggestions.pick("mixup_alpha", 0.0, "RandAugment does better without Mixup")
    elif epochs >= stats.min_epochs:
        why = f"Mixup reduces overfitting to {stats.train_images:,} images, and {epochs} epochs are enough for it"
        if stats.train_images <= SMALL_DATASET:
            why += "; with kornia installed, --randaugment 9 does better on small datasets"
        suggestions.pick("mixup_alpha", 1.0, why)
    else:
        suggestions.pick("mixup_alpha", 0.0, f"too few epochs ({epochs}) for mixup")


def _is_augmented(recipe: Recipe) -> bool:
    return recipe.flip or bool(recipe.crop_padding or recipe.cutout_size or recipe.randaugment)


def _suggest_rule(suggestions: Suggestions, recipe: Recipe, epochs: int, stats: DatasetStats) -> bool:
    """Suggest a rule; return whether the network is shaken, by the suggestion or by the user."""
    info = model_info(recipe.model)
    if not info.branched:
        return False
    if stats.pretrained:
        suggestions.pick("rule", "E-E-B", "as the network was pretrained; check others with `shakeshake compare`")
        return {"rule": recipe.rule, **suggestions.fields}["rule"] != "E-E-B"
    width = info.width or MIN_SHAKE_WIDTH
    if not _is_augmented(recipe) and epochs >= stats.min_epochs:
        suggestions.pick("rule", "S-S-I", UNAUGMENTED_REASON)
    elif epochs >= SHAKE_EPOCHS_FACTOR * stats.min_epochs and width >= MIN_SHAKE_WIDTH:
        suggestions.pick("rule", "S-E-I", "the run is long enough for shaking to help; check with `shakeshake compare`")
    else:
        why = "narrow networks" if width < MIN_SHAKE_WIDTH else "short runs"
        suggestions.pick("rule", "E-E-B", f"no shaking: it hurts {why}; check with `shakeshake compare`")
    return {"rule": recipe.rule, **suggestions.fields}["rule"] != "E-E-B"


def parse_duration(text: str) -> float | None:
    """Convert ``90s``, ``10m`` or ``1.5h`` to seconds, and ``none`` to None.

    Raises:
        InputError: The text is not a positive duration.
    """
    if text.strip().lower() == "none":
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h)\s*", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise InputError(f"budget: got {text!r}, expected a time such as 90s, 10m or 2h, or none")
    return seconds


def format_duration(seconds: float) -> str:
    """Format seconds in the largest unit of s, m and h that fits."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.4g}{unit}"
    return f"{seconds:.4g}s"


def _option(name: str, value: Any) -> str:
    option = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return option if value else f"--no-{option[2:]}"
    return f"{option} {value:g}" if isinstance(value, float) else f"{option} {value}"
