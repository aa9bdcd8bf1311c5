"""Charts by epoch: error, loss and learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from markupsafe import Markup

from . import theme
from .seed_averages import Curve
from .svg import LETTER, Axis, Chart, fit, label, line, number, polyline, tag, ticks

WIDE, NARROW, FILE = (1080, 400), (460, 330), (700, 400)
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 14, 46
WIDTHS = {"train": 1.4, "test": 2.4}
"""The test curve matters more: it is broader and lighter, so the two also differ without colour."""
ERROR_TICKS = (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 100)
BOLD = 1.2 * LETTER
LINE = 16
"""Least distance between the labels of lines in pixels."""
ERRORS, TEST_ERROR = ("train_error", "test_error"), ("test_error",)
LOSSES = ("train_loss", "test_loss")
DESCRIBED = 10
"""Curves that are described in words."""


def errors(curves: Sequence[Curve], size: tuple[int, int] = WIDE) -> Chart:
    """Error by epoch: one colour and dash per curve, train dark and thin, test light and broad."""
    axis, marks, scale = _square_root_axis(max(_values(curves, ERRORS), default=100), size[1])
    return _chart(curves, ERRORS, axis, marks, size, f"error, %{scale}", _describe(curves, ERRORS))


def labelled_errors(curves: Sequence[Curve], columns: Sequence[str] = ERRORS) -> Chart:
    """Error by epoch for a file: each line has its name at its end instead of a legend."""
    ends = [
        (points[-1][1], i, curve.name if len(columns) == 1 else f"{curve.name}, {column[:-6]}")
        for column in columns
        for i, curve in enumerate(curves)
        if (points := curve.series(column))
    ]
    width = FILE[0]
    right = 16 + min(260.0, max(BOLD * len(name) for _, _, name in ends))
    height = max(FILE[1], TOP + BOTTOM + LINE * len(ends))
    values = list(_values(curves, columns))
    if 5 * min(values) < max(values):
        axis, marks, scale = _square_root_axis(max(values), height)
    else:
        axis, scale = Axis.round(min(values), max(values), height - BOTTOM, TOP), ""
        marks = axis.marks()
    what = "test error" if columns == TEST_ERROR else "error"
    described = _describe(curves, columns)
    chart = _chart(curves, columns, axis, marks, (width, height), f"{what}, %{scale}", described, right)
    parts, above = [chart.body], -math.inf
    ends.sort(reverse=True)
    lowest = height - BOTTOM - LINE * (len(ends) - 1)
    for row, (value, i, name) in enumerate(ends):
        above = min(max(axis(value) + 4, above + LINE), lowest + LINE * row)
        text, colour = fit(name, right - 10, BOLD), f"fill:{theme.colour(i, 'train')}"
        parts.append(label(text, width - right + 8, above, class_="strong", style=colour))
    seeds = sorted({curve.runs for curve in curves})
    if seeds[-1] > 1:
        number_of = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        note = f"Mean over {number_of} seeds; the bands are ± one standard deviation of the test error."
        parts.append(label(note, LEFT, height + 16, class_="soft"))
        height += 24
    return Chart(width, height, Markup("").join(parts), chart.description)


def linear(curves: Sequence[Curve], columns: Sequence[str], name: str) -> Chart:
    """Loss or learning rate by epoch; equal curves alternate along one line."""
    highest = max(_values(curves, columns), default=1.0)
    marks = ticks(0, highest)
    axis = Axis(0, max(marks[-1], highest), NARROW[1] - BOTTOM, TOP)
    return _chart(curves, columns, axis, marks, NARROW, name, _describe(curves, columns, name, ".4g"))


def swatch(i: int, tone: str) -> Markup:
    """A short piece of curve i, for a legend."""
    return tag("line", x1=0, x2=30, y1=4, y2=4, **_style(i, tone))


def _chart(
    curves: Sequence[Curve],
    columns: Sequence[str],
    y: Axis,
    marks: Iterable[float],
    size: tuple[int, int],
    name: str,
    described: str,
    right: float = RIGHT,
) -> Chart:
    height, end = size[1], size[0] - right
    epochs = [epoch for curve in curves for epoch in curve.epochs] or [1]
    first, last = float(min(epochs)), float(max(epochs))
    if first == last:
        first, last = first - 0.5, last + 0.5
    x = Axis(first, last, LEFT, end)
    parts = [line(LEFT, y(mark), end, y(mark), "grid") for mark in marks]
    parts += [label(f"{mark:.4g}", LEFT - 7, y(mark) + 4, "end") for mark in marks]
    whole = [tick for tick in ticks(first, last, 6) if first <= tick <= last and tick == int(tick)]
    parts += [label(f"{tick:g}", x(tick), height - BOTTOM + 18, "middle") for tick in whole]
    parts.append(line(LEFT, y.start, end, y.start, "axis"))
    parts.append(label("epoch", (LEFT + end) / 2, height - 6, "middle"))
    middle = (y.start + y.end) / 2
    parts.append(label(name, 0, 0, "middle", transform=f"translate(12 {number(middle)}) rotate(-90)"))
    for column in columns:
        for i, curve in enumerate(curves):
            parts += _lines(curve, i, column, x, y, len(curves))
    return Chart(*size, Markup("").join(parts), described, (LEFT, end, y.end, y.start, first, last))


def _values(curves: Sequence[Curve], columns: Sequence[str]) -> Iterator[float]:
    """All values that a chart draws, with the ends of its bands."""
    for curve in curves:
        for column in columns:
            yield from (value for _, value in curve.series(column))
            if column.startswith("test"):
                yield from (end for band in curve.bands.get(column, ()) if band for end in band)


def _square_root_axis(highest: float, height: float) -> tuple[Axis, list[float], str]:
    """From 90 % in the first epoch to 3 % in the last: a linear axis would hide the end, and a logarithm has no 0."""
    top = 1.06 * highest or 1
    marks = [tick for tick in ERROR_TICKS if tick <= top and (tick == 0 or tick >= top / 80)]
    return Axis(0, top, height - BOTTOM, TOP, power=0.5), marks, ", square-root scale"


def _lines(curve: Curve, i: int, column: str, x: Axis, y: Axis, curves: int) -> Iterable[Markup]:
    tone = "test" if column.startswith("test") else "train"
    band = [(e, *of) for e, of in zip(curve.epochs, curve.bands.get(column, ()), strict=False) if of is not None]
    if tone == "test" and len(band) > 1:
        band = band[:: math.ceil(len(band) / 200)]
        ends = [(x(e), y(high)) for e, _, high in band] + [(x(e), y(low)) for e, low, _ in reversed(band)]
        yield tag("polygon", points=polyline(ends), fill=theme.colour(i, tone), class_=f"band line line{i}")
    points = [(x(epoch), y(value)) for epoch, value in _thin(curve.series(column), curves)]
    if len(points) == 1:
        yield tag("circle", cx=points[0][0], cy=points[0][1], r=3.5, fill=theme.colour(i, tone), class_=f"line line{i}")
    elif points:
        yield tag("polyline", points=polyline(points), class_=f"curve line line{i}", **_style(i, tone))


def _style(i: int, tone: str) -> dict[str, str | None]:
    return {"stroke": theme.colour(i, tone), "stroke_width": str(WIDTHS[tone]), "stroke_dasharray": theme.dash(i)}


def _thin(points: list[tuple[int, float]], curves: int) -> list[tuple[int, float]]:
    """A long curve as the lowest and highest point of each interval, which look the same at this size."""
    length = math.ceil(len(points) / max(40, min(200, 2000 // curves)))
    if length <= 2:
        return points
    kept = {0, len(points) - 1}
    for start in range(0, len(points), length):
        interval = range(start, min(start + length, len(points)))
        kept |= {min(interval, key=lambda i: points[i][1]), max(interval, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def _describe(curves: Sequence[Curve], columns: Sequence[str], what: str = "error", form: str = ".2f") -> str:
    """A few values of each curve, in words."""
    unit = " %" if what == "error" else ""
    told = [f"{what.capitalize()} by epoch."]
    for curve in curves[:DESCRIBED]:
        for column in columns:
            if points := curve.series(column):
                last, lowest = len(points) - 1, min(points, key=lambda point: point[1])
                chosen = dict.fromkeys([*(points[i] for i in sorted({0, len(points) // 2, last})), lowest])
                listed = ", ".join(f"{value:{form}}{unit} at epoch {epoch}" for epoch, value in sorted(chosen))
                told.append(f"{curve.name}, {column.replace('_', ' ')}: {listed}; lowest {lowest[1]:{form}}{unit}.")
    if len(curves) > DESCRIBED:
        told.append(f"{len(curves) - DESCRIBED} more curves are in the table of the runs.")
    return " ".join(told)
