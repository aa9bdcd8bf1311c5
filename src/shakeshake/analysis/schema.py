"""The contents of analysis.json, as `shakeshake analyze` writes and reports read them. No torch."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from ..errors import InputError
from ..utils.schema import Count, Fraction, JsonSchema, Percent, Range

FILE = "analysis.json"
FORMAT = 1
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Correlation = Annotated[float, Range(-1, 1)]
Matrix = tuple[tuple[Correlation | None, ...], ...]


def _png_or_empty(text: str) -> str:
    try:
        return text if base64.b64decode(text, validate=True).startswith(PNG_SIGNATURE) else ""
    except ValueError:
        return ""


Png = Annotated[str, _png_or_empty]
"""Base64 of a PNG; anything else is read as ""."""


@dataclass(frozen=True)
class BranchPair(JsonSchema):
    """Correlation between the outputs of two branches; None where one is constant."""

    branches: tuple[Count, Count]
    correlation: Correlation | None


@dataclass(frozen=True)
class BranchCorrelation(JsonSchema):
    """Correlation between the branches of one block."""

    block: str
    pairs: tuple[BranchPair, ...]


@dataclass(frozen=True)
class LayerPair(JsonSchema):
    """Correlation between layer i of one branch (row) and layer j of another (column); None where undefined."""

    branches: tuple[Count, Count]
    matrix: Matrix


@dataclass(frozen=True)
class LayerCorrelation(JsonSchema):
    """Correlation between the layers of one block's branches."""

    block: str
    layers: tuple[str, ...]
    pairs: tuple[LayerPair, ...]

    def __post_init__(self) -> None:
        for pair in self.pairs:
            if len(pair.matrix) != len(self.layers) or not _is_square(pair.matrix, limit=8):
                raise InputError(f"layerwise: got a matrix that does not fit its {len(self.layers)} layers")


@dataclass(frozen=True)
class ReliabilityBin(JsonSchema):
    """Images with a confidence between low and high: their mean confidence and accuracy, as fractions."""

    low: Fraction
    high: Fraction
    images: Count
    confidence: Fraction | None
    accuracy: Fraction | None


@dataclass(frozen=True)
class Calibration(JsonSchema):
    """Reliability of the probabilities. ece, ece_calibrated: expected calibration error, a fraction."""

    ece: Fraction
    mean_confidence: Fraction
    accuracy: Fraction
    bins: tuple[ReliabilityBin, ...]
    temperature: float | None = None
    ece_calibrated: Fraction | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.bins) <= 200 or any(one.high <= one.low for one in self.bins):
            raise InputError("calibration.bins: expected 1 to 200 bins, each with low < high")


@dataclass(frozen=True)
class Example(JsonSchema):
    """An image with its prediction. truth, predicted: class indices. heat: a Grad-CAM picture, "" without one."""

    index: Count
    truth: Count
    predicted: Count
    probability: Fraction
    png: Png | None = ""
    truth_probability: Fraction | None = None
    heat: Png | None = ""


@dataclass(frozen=True)
class Confusion(JsonSchema):
    """Images of class ``truth`` that were predicted as ``predicted``: how many, and some of them."""

    truth: Count
    predicted: Count
    count: Count
    images: tuple[Example, ...]


@dataclass(frozen=True)
class GradCam(JsonSchema):
    """Grad-CAM pictures at the output of ``layer``."""

    layer: str
    images: tuple[Example, ...]


@dataclass(frozen=True)
class Strength(JsonSchema):
    """E|beta - alpha| of a rule: expected in closed form, measured over draws; counts over the unit square."""

    rule: str
    expected: Fraction | None
    measured: Fraction
    draws: Count
    histogram: tuple[tuple[Count, ...], ...]  # row = alpha
    branches: Count = 2

    def __post_init__(self) -> None:
        if not _is_square(self.histogram, limit=50):
            raise InputError("strength.histogram: expected a square of 1 to 50 rows")


@dataclass(frozen=True)
class Analysis(JsonSchema):
    """What one pass over the images of a run showed. Parts that were not asked for are None.

    Attributes:
        error: in %, in evaluation mode and fp32.
        train_error: the same over the training images, without augmentation.
        gap: error minus train_error, in percentage points; None unless ``split`` is "test".
        loss: mean cross-entropy.
        confusion: counts (classes, classes), row = truth, column = prediction.
        wrong: base64 of the packed bits "image i was predicted wrongly".
    """

    keep_whole = True

    format: int = FORMAT
    model: str = ""
    rule: str = ""
    data: str = ""
    seed: int | None = None
    finished: bool = True
    epoch: Count | None = None
    epochs: Count | None = None
    split: str = "test"
    images: Count | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: Percent | None = None
    loss: float | None = None
    train_error: Percent | None = None
    train_images: Count | None = None
    gap: float | None = None
    branch_correlation: tuple[BranchCorrelation, ...] | None = None
    layerwise: tuple[LayerCorrelation, ...] | None = None
    strength: Strength | None = None
    confusion: tuple[tuple[Count, ...], ...] | None = None
    calibration: Calibration | None = None
    confusions: tuple[Confusion, ...] | None = None
    mistakes: tuple[Example, ...] | None = None
    gradcam: GradCam | None = None
    wrong: str = ""
    environment: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, name: str = "", problems: list[str] | None = None) -> Self:
        """Read the JSON object. With ``problems``, a broken part is left out and a sentence about it appended."""
        analysis = super().from_dict(values, name=name, problems=problems)
        for part in list(analysis._parts_that_do_not_fit()):
            problem = f"{name}.{part}".lstrip(".") + f": does not fit its {len(analysis.classes)} classes"
            if problems is None:
                raise InputError(problem)
            problems.append(problem)
            object.__setattr__(analysis, part, None)
        return analysis

    def _parts_that_do_not_fit(self) -> Iterator[str]:
        """Names of the parts whose class indices or size do not fit ``classes``."""
        classes = len(self.classes)
        if self.confusion is not None and (len(self.confusion) != classes or not _is_square(self.confusion)):
            yield "confusion"
        listed: dict[str, Any] = {"mistakes": self.mistakes, "confusions": self.confusions}
        listed["gradcam"] = self.gradcam and self.gradcam.images
        for name, examples in listed.items():
            every = [inner for one in examples or () for inner in (one, *getattr(one, "images", ()))]
            if any(max(one.truth, one.predicted) >= classes for one in every):
                yield name


def _is_square(rows: tuple[tuple[Any, ...], ...], limit: int | None = None) -> bool:
    return 0 < len(rows) <= (limit or len(rows)) and {len(row) for row in rows} == {len(rows)}
