"""Charts of correlations, differences, coefficients and calibration, for the page and for files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

from ..analysis.schema import Calibration, Strength
from ..experiments.schema import TableDifference
from ..layers.rules import expected_distance
from . import beta_regions, theme
from .format import decimal, percent, signed
from .load import TableRecord
from .runs import RunRecord
from .seed_averages import PairMean, mean
from .svg import LETTER, Axis, Chart, fit, label, line, number, polyline, tag, tip

Group = tuple[str, Sequence[RunRecord]]
WIDE, NARROW = 860, 360
LEVELS = 4
"""Opacities of measured counts."""


def block_name(block: str) -> str:
    """``stages.0.blocks.1`` as "stage 1 · block 2"; other names unchanged."""
    match = re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)", block)
    return f"stage {int(match[1]) + 1} · block {int(match[2]) + 1}" if match else block


def pair_name(block: str, branches: tuple[int, int], several: bool) -> str:
    """The block; with more than two branches also which of them."""
    return block_name(block) + (f", branches {branches[0] + 1} and {branches[1] + 1}" if several else "")


def correlations(groups: Sequence[Group], width: int = WIDE) -> Chart | None:
    """Correlation of the branches: a row per block and a lane per group, with small marks for runs and a large mean."""
    found: dict[tuple[str, tuple[int, int]], dict[int, list[float]]] = {}
    for i, (_, runs) in enumerate(groups):
        for run in runs:
            for block in run.analysis.branch_correlation or ():
                for pair in block.pairs:
                    lanes = found.setdefault((block.block, pair.branches), {})
                    if pair.correlation is not None:
                        lanes.setdefault(i, []).append(pair.correlation)
    values = [value for lanes in found.values() for lane in lanes.values() for value in lane]
    if not values:
        return None
    used = sorted({i for lanes in found.values() for i in lanes})
    several = len({branches for _, branches in found}) > 1
    left, right = (160, 60) if width == WIDE else (134, 48)
    axis = Axis.round(min(0.0, *values), max(0.0, *values), left, width - right)
    lane_height = 11 if len(used) > 4 else 14
    height = max(34, lane_height * len(used) + 12)
    legend, top = _legend([(i, groups[i][0], len(groups[i][1])) for i in used], width)
    parts, told = [legend, _x_axis(axis, top, top + height * len(found))], []
    for row, (key, lanes) in enumerate(found.items()):
        name, y = pair_name(*key, several), top + height * row
        rows = [(groups[i][0], _mean_and_range(lanes.get(i, []))) for i in used]
        drawn = [label(fit(name, left - 14), 2, y + height / 2 + 4)]
        for j, i in enumerate(used):
            middle = y + height / 2 + lane_height * (j - (len(used) - 1) / 2)
            drawn += _lane(lanes.get(i, []), i, axis, middle)
            drawn.append(
                label(decimal(mean(lanes.get(i, []))), width - 2, middle + 4, "end", "minor" if len(used) > 1 else "")
            )
        parts.append(_part(tip(name, *rows), drawn, y, width, height))
        told.append(f"{name}: {'; '.join(' '.join(row) for row in rows)}.")
    bottom = top + height * len(found)
    parts.append(label("correlation of the branches' outputs", (axis.start + axis.end) / 2, bottom + 38, "middle"))
    described = f"Correlation between the branches. {' '.join(told)}"
    return Chart(width, bottom + 46, Markup("").join(parts), described)


LABELS = 220  # pixels left of the differences for their names


def differences(record: TableRecord, width: int = WIDE) -> Chart | None:
    """Differences of the test errors from the baseline with their intervals, beside the line of no difference."""
    listed = record.table.judged_differences
    if not listed:
        return None
    wide = width == WIDE
    several = len(record.columns) > 1
    ends = (min(0.0, *(one.low for one in listed)), max(0.0, *(one.high for one in listed)))
    height = 46 if wide else 68
    axis = Axis.round(*ends, *((LABELS, width - 200) if wide else (14, width - 14)))
    bottom = 4 + height * len(listed)
    parts, told = [_x_axis(axis, 4, bottom)], []
    for row, one in enumerate(listed):
        y = 4 + height * row
        middle = y + height / 2 if wide else y + 34
        name = f"{one.row} against {one.baseline}"
        column = record.columns.get(one.column, one.column) if several else ""
        interval = f"{signed(one.low)} to {signed(one.high)}"
        verdict, kind = verdict_of(one)
        rows = [
            ("difference", f"{signed(one.difference)} points"),
            (f"{one.level:.0%} interval", interval),
            ("runs", f"{one.n[0]} and {one.n[1]}"),
            ("covers", one.covers),
            ("reading", verdict),
        ]
        title = name + (f", {column}" if column else "")
        x = width if not wide else width - 2
        drawn = [
            line(axis(one.low), middle, axis(one.high), middle, f"mark interval {kind}"),
            _difference_mark(axis(one.difference), middle, kind),
            label(fit(name, LABELS - 10 if wide else 155), 2, (middle - (4 if column else -4)) if wide else y + 14),
            label(f"{signed(one.difference)} ({interval})", x, (middle - 4) if wide else y + 14, "end", "strong"),
            label(verdict, x, middle + (12 if wide else 24), "end", f"verdict {kind}"),
        ]
        if column:
            drawn.append(
                label(
                    fit(column, LABELS - 10 if wide else 230), 2, middle + (12 if wide else 24), "start", "soft minor"
                )
            )
        parts.append(_part(tip(title, *rows), drawn, y, width, height, kind))
        told.append(f"{title}: {'; '.join(' '.join(row) for row in rows)}.")
    parts.append(label("difference of the test errors, points", (axis.start + axis.end) / 2, bottom + 38, "middle"))
    described = f"Differences of the test errors. {' '.join(told)}"
    return Chart(width, bottom + 46, Markup("").join(parts), described)


def verdict_of(one: TableDifference) -> tuple[str, str]:
    """What a difference shows, and the CSS class of its mark."""
    if not one.is_significant:
        return "can't tell", "open"
    return ("lower error", "low") if one.high < 0 else ("higher error", "high")


def layer_maps(pairs: Sequence[PairMean], cell: float = 44) -> list[Chart]:
    """A matrix per block: correlation of layer i of one branch (row Li) with layer j of the other (column Rj)."""
    several = len({pair.branches for pair in pairs}) > 1
    maps = []
    for pair in pairs:
        name, (one, other) = pair_name(pair.block, pair.branches, several), pair.branches
        size = len(pair.layers)
        width, left, top, down = 26 + size * cell, 24, 24, 34
        parts = [label(fit(name, width, 6.0), 0, 13, class_="soft minor")]
        for i, row in enumerate(pair.matrix):
            parts.append(label(f"L{i + 1}", left - 5, top + (i + 0.5) * down + 4, "end", "soft minor"))
            parts.append(label(f"R{i + 1}", left + (i + 0.5) * cell, top + size * down + 14, "middle", "soft minor"))
            for j, value in enumerate(row):
                x, y = left + j * cell, top + i * down
                box = {"x": x + 1, "y": y + 1, "width": cell - 2, "height": down - 2, "rx": 3}
                sign = "neg" if value is not None and value < 0 else "pos"
                which = f"{pair.layers[i]} of branch {one + 1}, {pair.layers[j]} of branch {other + 1}"
                shown = tip(name, (which, decimal(value, 3)))
                shade = tag("rect", class_=sign, fill_opacity=f"{abs(value or 0):.2f}", **box)
                text = label(decimal(value), x + cell / 2, y + down / 2 + 4, "middle")
                parts.append(tag("g", tag("rect", class_="cell", **box), shade, text, data_tip=shown, class_="part"))
        rows = "; ".join(f"L{i + 1} " + " ".join(map(decimal, row)) for i, row in enumerate(pair.matrix))
        maps.append(Chart(width, top + size * down + 20, Markup("").join(parts), f"{name}: {rows}."))
    return maps


def beta_square(rule: str, measured: Strength | None = None) -> Chart:
    """Where beta (upward) lies given alpha (across): regions of the rule and, if given, counts over draws."""
    expected, words = expected_distance(rule) or 0.0, beta_regions.describe(rule)
    rows = [("E|β − α|", f"{expected:.4f}")]
    parts = [tag("rect", x=24, y=8, width=120, height=120, class_="frame")]
    if measured is not None:
        rows.append(("measured", f"{measured.measured:.4f} over {measured.draws:,} draws"))
        parts += [tag("path", d=path, class_="count", fill_opacity=f"{level:.3f}") for level, path in _counts(measured)]
    parts.append(tag("path", d="M24 128L144 8M84 8V128M24 68H144", class_="guide"))
    for region in beta_regions.regions(rule):
        corners = [(24 + 120 * a, 128 - 120 * b) for a, b in region.corners]
        if len(corners) > 2:
            parts.append(tag("polygon", points=polyline(corners), class_="region" + (" measured" if measured else "")))
        elif len(corners) == 2:
            parts.append(tag("polyline", points=polyline(corners), class_="along"))
        else:
            parts.append(tag("circle", cx=corners[0][0], cy=corners[0][1], r=4, class_="dot"))
    parts += [label(text, x, 142, "middle", "soft minor") for text, x in (("0", 24), ("α", 84), ("1", 144))]
    parts += [label(text, 17, y, "end", "soft minor") for text, y in (("0", 132), ("β", 72), ("1", 12))]
    parts.append(label(fit(rule, 124), 24, 160, class_="strong"))
    parts.append(label(f"E|β − α| {expected:.3f}", 24, 175, class_="soft minor"))
    body = tag("g", *parts, data_tip=tip(f"{rule}: {words}", *rows), class_="part")
    return Chart(152, 182, body, f"{rule}: {words}, expected distance between α and β {expected:.3f}.")


def reliability(found: Calibration) -> Chart:
    """How often the network is right at each confidence, and below it how many images have that confidence."""
    left, side, top, below = 52, 300, 10, 78
    most = max(one.images for one in found.bins) or 1
    parts = [line(left, top + k * side / 4, left + side, top + k * side / 4, "grid") for k in range(4)]
    for one in found.bins:
        if not one.images or one.accuracy is None or one.confidence is None:
            continue
        shown = tip(
            f"probability {one.low:.2f} to {one.high:.2f}",
            ("images", f"{one.images:,}"),
            ("mean probability", percent(100 * one.confidence)),
            ("right", percent(100 * one.accuracy)),
        )
        x, wide = left + side * one.low + 1, side * (one.high - one.low) - 2
        y, apart = top + side * (1 - max(one.accuracy, one.confidence)), abs(one.accuracy - one.confidence)
        bar = {"x": x, "width": wide}
        images = below * one.images / most
        parts.append(
            tag(
                "g",
                tag("rect", **bar, y=top, height=side + below + 30, class_="hit"),
                tag("rect", **bar, y=top + side * (1 - one.accuracy), height=side * one.accuracy, class_="bar"),
                tag("rect", **bar, y=y, height=side * apart, class_="gap"),
                tag("rect", **bar, y=top + side + 30 + below - images, height=images, class_="images"),
                data_tip=shown,
                class_="part",
            )
        )
    bottom, base = top + side, top + side + 30 + below
    parts += [line(left, bottom, left + side, top, "ideal"), line(left, bottom, left + side, bottom, "axis")]
    parts.append(line(left, base, left + side, base, "axis"))
    for share, text in ((0, "0"), (0.5, "50"), (1, "100 %")):
        parts.append(label(text, left - 7, bottom - side * share + 4, "end", "soft minor"))
        parts.append(label(text, left + side * share, base + 16, "middle", "soft minor"))
    parts.append(label("accuracy", 0, 0, "middle", "soft", transform=f"translate(12 {top + side / 2}) rotate(-90)"))
    parts.append(label("images", left - 7, base - below / 2, "end", "soft minor"))
    parts.append(label("probability of the prediction", left + side / 2, base + 34, "middle", "soft"))
    described = (
        f"Reliability diagram. Mean probability {percent(100 * found.mean_confidence)}, accuracy "
        f"{percent(100 * found.accuracy)}, expected calibration error {100 * found.ece:.1f} points."
    )
    return Chart(left + side + 24, base + 42, Markup("").join(parts), described)


def _part(shown: str, drawn: Sequence[Markup], y: float, width: float, height: float, kind: str = "") -> Markup:
    """A row that can be pointed at."""
    back = tag("rect", x=0, y=y, width=width, height=height, rx=4, class_="hit")
    return tag("g", back, *drawn, data_tip=shown, class_=f"part {kind}".strip())


def _x_axis(axis: Axis, top: float, bottom: float) -> Markup:
    marks = axis.marks()
    every = marks if axis.end - axis.start > 60 * len(marks) else marks[::2]
    parts = [line(axis(mark), top, axis(mark), bottom, "zero" if mark == 0 else "grid") for mark in marks]
    parts += [label(f"{mark:g}".replace("-", "−"), axis(mark), bottom + 18, "middle", "soft tick") for mark in every]
    return Markup("").join(parts)


def _legend(groups: Sequence[tuple[int, str, int]], width: float) -> tuple[Markup, float]:
    """Marks and names in rows, and the height they take."""
    parts, x, row = [], 2.0, 0
    for i, name, runs in groups:
        text = fit(name, width - 40) + (f"  mean of {runs}" if runs > 1 else "")
        wide = 18 + LETTER * len(text) + 24
        if x > 2 and x + wide > width:
            x, row = 2.0, row + 1
        moved = f"translate({number(x + 6)} {row * 22 + 10})"
        mark = tag("path", d=theme.marker(i), fill=theme.colour(i, "train"))
        parts.append(tag("g", mark, label(text, 12, 4), transform=moved))
        x += wide
    return Markup("").join(parts), (row + 1) * 22 + 8


def _lane(values: Sequence[float], i: int, axis: Axis, y: float) -> list[Markup]:
    parts = []
    light, dark = theme.colour(i, "test"), theme.colour(i, "train")
    if len(values) > 1:
        parts.append(line(axis(min(values)), y, axis(max(values)), y, "span", stroke=light))
        parts += [_mark(axis(value), y, i, light, 0.55) for value in values]
    if (middle := mean(values)) is not None:
        parts.append(_mark(axis(middle), y, i, dark, 1.0))
    return parts


def _mark(x: float, y: float, i: int, fill: str, size: float) -> Markup:
    moved = f"translate({number(x)} {number(y)}) scale({size})"
    return tag("path", d=theme.marker(i), fill=fill, transform=moved)


def _difference_mark(x: float, y: float, kind: str) -> Markup:
    shape = theme.MARKERS[1 if kind == "high" else 0]
    return tag("path", d=shape, class_=f"mark {kind}", transform=f"translate({number(x)} {number(y)})")


def _mean_and_range(values: Sequence[float]) -> str:
    spread = f" ({decimal(min(values), 3)} to {decimal(max(values), 3)})" if len(values) > 1 else ""
    return decimal(mean(values), 3) + spread


def _counts(measured: Strength) -> list[tuple[float, str]]:
    """Counts over the unit square as one path per opacity; equal neighbours in a column are joined."""
    counts = measured.histogram
    most, size = max(map(max, counts)) or 1, 120 / len(counts)
    paths: dict[int, list[str]] = {}
    for i, column in enumerate(counts):
        start = 0
        for level, same in groupby(math.ceil(LEVELS * math.sqrt(count / most)) for count in column):
            end = start + len(list(same))
            if level:
                x, y, height = 24 + i * size, 128 - end * size, (end - start) * size
                paths.setdefault(level, []).append(f"M{x:g} {y:g}h{size:g}v{height:g}h{-size:g}z")
            start = end
    return [(0.5 * level / LEVELS, "".join(found)) for level, found in sorted(paths.items())]
