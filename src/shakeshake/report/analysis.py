"""What `shakeshake analyze` wrote into a run, read tolerantly: a broken part is left out and noted, the rest kept."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..utils.console import is_unsafe_char

T = TypeVar("T")
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Pair:
    """Correlation of two branches of a block: one number, or a matrix (layer of the first, layer of the second)."""

    block: str
    branches: tuple[int, int]
    correlation: float | None = None
    layers: tuple[str, ...] = ()
    matrix: tuple[tuple[float | None, ...], ...] = ()


@dataclass(frozen=True)
class Bin:
    """Images whose highest probability lies between low and high, its mean there, and the share that were right."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    ece: float
    temperature: float | None
    ece_calibrated: float | None
    mean_confidence: float
    accuracy: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Mistake:
    """An image that the network was sure of and wrong about. png: base64, checked to be a PNG; "" where it was not."""

    index: int
    truth: str
    predicted: str
    probability: float
    truth_probability: float | None
    png: str


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another: how many, and a few of them."""

    truth: str
    predicted: str
    count: int
    images: tuple[Mistake, ...]


@dataclass(frozen=True)
class Looked:
    """A test image, what was predicted, and a picture of where the network looked. png, heat: as Mistake's."""

    index: int
    truth: str
    predicted: str
    probability: float
    png: str
    heat: str


@dataclass(frozen=True)
class Strength:
    """|beta - alpha|, expected and measured, and counts over the unit square, row = alpha."""

    rule: str
    expected: float | None
    measured: float
    draws: int
    histogram: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Analysis:
    """The parts of analysis.json; empty or None where it has none or none that is whole."""

    split: str = "test"
    images: int | None = None
    train_images: int | None = None
    train_error: float | None = None
    gap: float | None = None
    classes: tuple[str, ...] = ()
    correlation: tuple[Pair, ...] = ()
    layerwise: tuple[Pair, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    calibration: Calibration | None = None
    mistakes: tuple[Mistake, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    gradcam: tuple[Looked, ...] = ()
    strength: Strength | None = None


def number(value: Any) -> float | None:
    """A finite number, or None. The limit keeps a broken file from breaking the axes."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        return None
    return value


def plain(text: object) -> str:
    """One line without control characters: names come from a file system, which lets almost anything through."""
    return " ".join("".join(" " if is_unsafe_char(c) else c for c in str(text)).split())


def parse(found: dict[str, Any], notes: list[str]) -> Analysis:
    """The analysis that a JSON object holds; what is wrong with it goes into the notes."""

    def part(name: str, read: Callable[[Any], T], otherwise: T) -> T:
        if found.get(name) is None:
            return otherwise
        try:
            return read(found[name])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            notes.append(f"analysis.json has a broken part, {name}, which is left out")
            return otherwise

    none: tuple[str, ...] = ()
    notes.extend(part("notes", _texts, none))
    classes = part("classes", _texts, none)
    return Analysis(
        split=part("split", _text, "test"),
        images=part("images", _count, None),
        train_images=part("train_images", _count, None),
        train_error=part("train_error", _number, None),
        gap=part("gap", _number, None),
        classes=classes,
        correlation=part("branch_correlation", _correlation, ()),
        layerwise=part("layerwise", _layerwise, ()),
        confusion=part("confusion", lambda rows: _square(rows, len(classes)), ()),
        calibration=part("calibration", _calibration, None),
        mistakes=part("mistakes", lambda listed: tuple(_mistake(one, classes) for one in listed), ()),
        confusions=part("confusions", lambda listed: tuple(_confusion(one, classes) for one in listed), ()),
        gradcam=part("gradcam", lambda looked: tuple(_looked(one, classes) for one in looked["images"]), ()),
        strength=part("strength", _strength, None),
    )


def _number(value: Any) -> float:
    known = number(value)
    if known is None:
        raise ValueError(value)
    return known


def _share(value: Any) -> float:
    if not 0 <= _number(value) <= 1:
        raise ValueError(value)
    return float(value)


def _maybe(value: Any, read: Callable[[Any], float] = _share) -> float | None:
    return None if value is None else read(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or _number(value) < 0:
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return plain(value) or "–"


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(values)
    return tuple(_text(value) for value in values)


def _coefficient(value: Any) -> float | None:
    if value is None:
        return None
    if not abs(_number(value)) <= 1 + 1e-6:
        raise ValueError(value)
    return max(-1.0, min(1.0, float(value)))


def _branches(pair: dict[str, Any]) -> tuple[int, int]:
    one, other = (_count(branch) for branch in pair["branches"])
    return one, other


def _correlation(blocks: Any) -> tuple[Pair, ...]:
    return tuple(
        Pair(_text(block["block"]), _branches(pair), _coefficient(pair["correlation"]))
        for block in blocks
        for pair in block["pairs"]
    )


def _layerwise(blocks: Any) -> tuple[Pair, ...]:
    pairs = []
    for block in blocks:
        layers = _texts(block["layers"])
        for pair in block["pairs"]:
            matrix = tuple(tuple(_coefficient(value) for value in row) for row in pair["matrix"])
            if not 0 < len(matrix) <= 8 or {len(row) for row in matrix} != {len(layers)} or len(matrix) != len(layers):
                raise ValueError(matrix)
            pairs.append(Pair(_text(block["block"]), _branches(pair), layers=layers, matrix=matrix))
    return tuple(pairs)


def _square(rows: Any, size: int) -> tuple[tuple[int, ...], ...]:
    square = tuple(tuple(_count(value) for value in row) for row in rows)
    if len(square) != size or {len(row) for row in square} != {size}:
        raise ValueError(rows)
    return square


def _calibration(found: dict[str, Any]) -> Calibration:
    bins = tuple(
        Bin(
            _share(one["low"]),
            _share(one["high"]),
            _count(one["images"]),
            _maybe(one["confidence"]),
            _maybe(one["accuracy"]),
        )
        for one in found["bins"]
    )
    if not bins or len(bins) > 200 or any(one.high <= one.low for one in bins):
        raise ValueError(found)
    temperature = _maybe(found.get("temperature"), _number), _maybe(found.get("ece_calibrated"))
    return Calibration(
        _share(found["ece"]), *temperature, _share(found["mean_confidence"]), _share(found["accuracy"]), bins
    )


def _mistake(found: dict[str, Any], classes: Sequence[str]) -> Mistake:
    truth, predicted = classes[_count(found["truth"])], classes[_count(found["predicted"])]
    shares = _share(found["probability"]), _maybe(found.get("truth_probability"))
    return Mistake(_count(found["index"]), truth, predicted, *shares, _png(found.get("png")))


def _confusion(found: dict[str, Any], classes: Sequence[str]) -> Confusion:
    truth, predicted = classes[_count(found["truth"])], classes[_count(found["predicted"])]
    images = tuple(_mistake(one, classes) for one in found["images"])
    return Confusion(truth, predicted, _count(found["count"]), images)


def _looked(found: dict[str, Any], classes: Sequence[str]) -> Looked:
    truth, predicted = classes[_count(found["truth"])], classes[_count(found["predicted"])]
    pictures = _png(found.get("png")), _png(found.get("heat"))
    return Looked(_count(found["index"]), truth, predicted, _share(found["probability"]), *pictures)


def _png(text: Any) -> str:
    """The base64 as it was, or "": nothing but a PNG gets into the page as an image."""
    try:
        return text if base64.b64decode(text, validate=True).startswith(PNG) else ""
    except (TypeError, ValueError):
        return ""


def _strength(found: dict[str, Any]) -> Strength:
    histogram = tuple(tuple(_count(value) for value in row) for row in found["histogram"])
    if not 0 < len(histogram) <= 50 or {len(row) for row in histogram} != {len(histogram)}:
        raise ValueError(histogram)
    expected = _maybe(found["expected"])
    return Strength(_text(found["rule"]), expected, _share(found["measured"]), _count(found["draws"]), histogram)


def finite_mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known, or None."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
