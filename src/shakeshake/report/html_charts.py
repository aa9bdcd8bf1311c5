"""What the page's own charts need: positions in percent of an axis, shares of a colour, and what is said on hover."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from . import beta_regions
from .analysis import Analysis, Calibration, Pair, Strength
from .experiment import ExperimentRecord
from .load_run import RunRecord
from .narrative import decimal, percent, signed

MATRIX_CLASSES = 20
CONFUSIONS = 12
LEVELS = 4


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, 0 among them where it lies between."""
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 10) + 0.0 for i in range(first, last + 1)]


class Axis:
    """A scale from values to percent of a track's width."""

    def __init__(self, low: float, high: float) -> None:
        marks = ticks(low, high)
        self.low, self.high = marks[0], marks[-1]
        self.ticks = [(self.place(mark), f"{mark:g}".replace("-", "−")) for mark in marks]
        self.zero = self.place(0.0) if self.low <= 0 <= self.high else None

    def place(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)


def block_label(pair: Pair, several: bool = False) -> str:
    """``stages.0.blocks.1`` as a reader counts; with more than two branches, which ones."""
    match = re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)", pair.block)
    named = f"stage {int(match[1]) + 1} · block {int(match[2]) + 1}" if match else pair.block
    return f"{named}, branches {pair.branches[0] + 1} and {pair.branches[1] + 1}" if several else named


def correlations(groups: Sequence[tuple[str, Sequence[RunRecord]]]) -> dict[str, Any] | None:
    """A lane per group and block: each run a small mark, their mean a large one."""
    blocks: dict[tuple[str, tuple[int, int]], dict[int, list[tuple[str, float]]]] = {}
    shown: dict[tuple[str, tuple[int, int]], Pair] = {}
    for i, (_, records) in enumerate(groups):
        for record in records:
            for pair in record.analysis.correlation:
                key = (pair.block, pair.branches)
                shown.setdefault(key, pair)
                if pair.correlation is not None:
                    blocks.setdefault(key, {}).setdefault(i, []).append((record.short, pair.correlation))
    if not blocks:
        return None
    values = [value for found in blocks.values() for runs in found.values() for _, value in runs]
    axis = Axis(min(0.0, *values), max(0.0, *values))
    several = len({pair.branches for pair in shown.values()}) > 1
    used = sorted({i for found in blocks.values() for i in found})
    rows = []
    for key, found in blocks.items():
        label = block_label(shown[key], several)
        lanes, tip = [], [label]
        for i in used:
            runs = found.get(i, [])
            mean = sum(value for _, value in runs) / len(runs) if runs else None
            places = [axis.place(value) for _, value in runs]
            lanes.append(
                {
                    "i": i,
                    "runs": places if len(places) > 1 else [],
                    "mean": None if mean is None else axis.place(mean),
                    "span": (min(places), round(max(places) - min(places), 2)) if len(places) > 1 else None,
                    "value": decimal(mean),
                }
            )
            known = [value for _, value in runs]
            spread = f" ({decimal(min(known), 3)} to {decimal(max(known), 3)})" if len(known) > 1 else ""
            tip.append(f"{groups[i][0]}\t{decimal(mean, 3)}{spread}")
        rows.append({"label": label, "lanes": lanes, "tip": "\n".join(tip)})
    return {"axis": axis, "rows": rows, "groups": [(i, groups[i][0], len(groups[i][1])) for i in used]}


def forest(experiment: ExperimentRecord) -> dict[str, Any] | None:
    """A line per difference, from the lower to the upper end of its interval."""
    found = experiment.differences
    if not found:
        return None
    axis = Axis(min(0.0, *(one.low for one in found)), max(0.0, *(one.high for one in found)))
    rows = []
    for one in found:
        verdict = "can't tell" if not one.tells else "lower error" if one.high < 0 else "higher error"
        column = experiment.columns.get(one.column, one.column) if len(experiment.columns) > 1 else ""
        interval = f"{signed(one.low)} to {signed(one.high)}"
        label = f"{one.row} against {one.against}"
        tip = [
            label + (f", {column}" if column else ""),
            f"difference\t{signed(one.difference)} points",
            f"{one.level:.0%} interval\t{interval}",
            f"runs\t{one.n[0]} and {one.n[1]}",
            f"covers\t{one.covers}",
            f"reading\t{verdict}",
        ]
        rows.append(
            {
                "label": label,
                "column": column,
                "left": axis.place(one.low),
                "width": round(axis.place(one.high) - axis.place(one.low), 2),
                "at": axis.place(one.difference),
                "difference": signed(one.difference),
                "interval": interval,
                "verdict": verdict,
                "kind": "open" if not one.tells else "low" if one.high < 0 else "high",
                "tip": "\n".join(tip),
            }
        )
    covers = list(dict.fromkeys(one.covers for one in found if one.covers))
    levels = " and ".join(dict.fromkeys(f"{100 * one.level:g} %" for one in found))
    return {"axis": axis, "rows": rows, "covers": covers, "level": levels}


def layer_maps(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """The matrices of a network, each cell with the share of its colour."""
    several = len({pair.branches for pair in pairs}) > 1
    maps = []
    for pair in pairs:
        label, (one, other) = block_label(pair, several), pair.branches
        cells = [
            [
                {
                    **shade(value),
                    "tip": f"{label}\n{pair.layers[i]} of branch {one + 1}, {pair.layers[j]} of branch {other + 1}"
                    f"\t{decimal(value, 3)}",
                }
                for j, value in enumerate(row)
            ]
            for i, row in enumerate(pair.matrix)
        ]
        maps.append({"label": label, "layers": pair.layers, "cells": cells})
    return maps


def shade(value: float | None) -> dict[str, Any]:
    """A correlation as text and as a share of the colour for its sign."""
    share = round(100 * abs(value or 0))
    sign = "none" if value is None else "neg" if value < 0 else "pos"
    return {"text": decimal(value), "share": share, "sign": sign}


def confusion(analysis: Analysis) -> dict[str, Any] | None:
    """The matrix, for up to 20 classes, and the most frequent confusions."""
    matrix, classes = analysis.confusion, analysis.classes
    if not matrix:
        return None
    sums = [sum(row) for row in matrix]
    pairs = [(matrix[i][j], i, j) for i in range(len(matrix)) for j in range(len(matrix)) if i != j and matrix[i][j]]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    listed = [
        {"truth": classes[i], "predicted": classes[j], "count": count, "share": percent(100 * count / sums[i])}
        for count, i, j in pairs[: CONFUSIONS if len(classes) > MATRIX_CLASSES else 3]
    ]
    rows = []
    for i, row in enumerate(matrix if len(classes) <= MATRIX_CLASSES else ()):
        cells = []
        for j, count in enumerate(row):
            part = count / sums[i] if sums[i] else 0.0
            share = round(100 * math.sqrt(part))  # so that a few in a hundred are seen
            said = f"is {classes[i]}\npredicted {classes[j]}\t{count:,} of {sums[i]:,} ({percent(100 * part)})"
            cells.append({"count": count, "share": share, "right": i == j, "tip": said})
        rows.append({"truth": classes[i], "cells": cells})
    return {"rows": rows, "classes": classes, "listed": listed}


def reliability(found: Calibration | None) -> dict[str, Any] | None:
    """Bars over the unit square of 100 by 100: how often the network is right when it is so sure."""
    if found is None:
        return None
    most = max(one.images for one in found.bins) or 1
    bars = []
    for one in found.bins:
        if not one.images or one.accuracy is None or one.confidence is None:
            continue
        tip = (
            f"probability {one.low:.2f} to {one.high:.2f}\nimages\t{one.images:,}\n"
            f"mean probability\t{percent(100 * one.confidence)}\nright\t{percent(100 * one.accuracy)}"
        )
        bars.append(
            {
                "x": round(100 * one.low, 2),
                "width": round(100 * (one.high - one.low), 2),
                "accuracy": round(100 * one.accuracy, 2),
                "confidence": round(100 * one.confidence, 2),
                "share": round(100 * one.images / most, 2),
                "tip": tip,
            }
        )
    return {
        "bars": bars,
        "ece": f"{100 * found.ece:.1f}",
        "temperature": None if found.temperature is None else f"{found.temperature:.2f}",
        "ece_calibrated": None if found.ece_calibrated is None else f"{100 * found.ece_calibrated:.1f}",
        "confidence": percent(100 * found.mean_confidence),
        "accuracy": percent(100 * found.accuracy),
        "over": found.mean_confidence - found.accuracy,
    }


def square(rule: str, measured: Strength | None = None) -> dict[str, Any]:
    """Where beta lies, over a unit square of 100 by 100 with beta upward: outlines, and counts as cells."""
    outlines = []
    for stretch in beta_regions.where(rule):
        corners = [(round(100 * a, 2), round(100 * (1 - b), 2)) for a, b in stretch.corners]
        outlines.append(corners)
    expected = beta_regions.distance(rule)
    tip = [f"{rule}: {beta_regions.in_words(rule)}", f"E|β − α|\t{expected:.4f}"]
    if measured is not None:
        tip.append(f"measured\t{measured.measured:.4f} over {measured.draws:,} draws")
    return {
        "rule": rule,
        "outlines": [(len(c), " ".join(f"{x:g},{y:g}" for x, y in c), c[0]) for c in outlines],
        "cells": _cells(measured) if measured is not None else [],
        "expected": f"{expected:.3f}",
        "measured": None if measured is None else f"{measured.measured:.3f}",
        "words": beta_regions.in_words(rule),
        "tip": "\n".join(tip),
    }


def _cells(measured: Strength) -> list[tuple[float, str]]:
    """Counts as paths, one per level of opacity, neighbours in a column joined."""
    counts = measured.histogram
    most, size = max(map(max, counts)) or 1, 100 / len(counts)
    paths: dict[int, list[str]] = {}
    for i, column in enumerate(counts):
        levels = [math.ceil(LEVELS * math.sqrt(count / most)) for count in column]
        start = 0
        for j in range(1, len(levels) + 1):
            if j == len(levels) or levels[j] != levels[start]:
                if levels[start]:
                    x, y, height = i * size, 100 - j * size, (j - start) * size
                    paths.setdefault(levels[start], []).append(f"M{x:g} {y:g}h{size:g}v{height:g}h{-size:g}z")
                start = j
    return [(round(level / LEVELS * 0.5, 3), "".join(found)) for level, found in sorted(paths.items())]
