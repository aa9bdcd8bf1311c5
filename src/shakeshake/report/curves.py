"""Charts by epoch: error, loss and learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from . import theme
from .seed_averages import Curve
from .svg import LETTER, Axis, Chart, fit, label, line, number, polyline, tag, ticks

WIDE, NARROW = (1080, 400), (460, 330)
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 14, 46
WIDTHS = {"train": 1.4, "test": 2.4}
"""The test curve matters more: it is broader and lighter, so the two also differ without colour."""
ERROR_TICKS = (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 100)
LEGEND_ROW, SWATCH = 20, 34
DESCRIBED = 10
"""Curves that are described in words."""


def errors(curves: Sequence[Curve], size: tuple[int, int] = WIDE, legend: bool = False) -> Chart:
    """Error by epoch: one colour and dash per curve, train dark and thin, test light and broad."""
    columns = ("train_error", "test_error")
    highest = max((v for curve in curves for column in columns for _, v in curve.series(column)), default=100)
    top = 1.06 * highest or 1
    # From 90 % in the first epoch to 3 % in the last: a linear axis would hide the end, and a logarithm has no 0.
    axis = Axis(0, top, size[1] - BOTTOM, TOP, power=0.5)
    marks = [tick for tick in ERROR_TICKS if tick <= top and (tick == 0 or tick >= top / 80)]
    described = _describe(curves, "error", " %", ".2f")
    chart = _chart(curves, columns, axis, marks, size, "error (%), square-root scale", f"Error by epoch. {described}")
    return _with_legend(chart, curves) if legend else chart


def losses(curves: Sequence[Curve]) -> Chart:
    """Loss by epoch."""
    described = _describe(curves, "loss", "", ".4f")
    return _linear(curves, ("train_loss", "test_loss"), "loss", f"Loss by epoch. {described}")


def learning_rates(curves: Sequence[Curve]) -> Chart:
    """Learning rate at the end of each epoch; equal curves alternate along one line."""
    told = []
    for curve in curves[:DESCRIBED]:
        if rates := [v for _, v in curve.series("lr")]:
            told.append(f"{curve.name}: from {rates[0]:.4g} to {rates[-1]:.4g}.")
    return _linear(curves, ("lr",), "learning rate", f"Learning rate by epoch. {' '.join(told)}")


def swatch(i: int, tone: str) -> Markup:
    """A short piece of curve i, for a legend."""
    return tag("line", x1=0, x2=30, y1=4, y2=4, **_style(i, tone))


def _linear(curves: Sequence[Curve], columns: tuple[str, ...], name: str, described: str) -> Chart:
    highest = max((v for curve in curves for column in columns for _, v in curve.series(column)), default=1.0)
    marks = ticks(0, highest)
    axis = Axis(0, max(marks[-1], highest), NARROW[1] - BOTTOM, TOP)
    return _chart(curves, columns, axis, marks, NARROW, name, described)


def _chart(
    curves: Sequence[Curve],
    columns: tuple[str, ...],
    y: Axis,
    marks: Iterable[float],
    size: tuple[int, int],
    name: str,
    described: str,
) -> Chart:
    width, height = size
    epochs = [epoch for curve in curves for epoch in curve.epochs] or [1]
    first, last = float(min(epochs)), float(max(epochs))
    if first == last:
        first, last = first - 0.5, last + 0.5
    x = Axis(first, last, LEFT, width - RIGHT)
    parts = [line(LEFT, y(mark), width - RIGHT, y(mark), "grid") for mark in marks]
    parts += [label(f"{mark:.4g}", LEFT - 7, y(mark) + 4, "end") for mark in marks]
    whole = [tick for tick in ticks(first, last, 6) if first <= tick <= last and tick == int(tick)]
    parts += [label(f"{tick:g}", x(tick), height - BOTTOM + 18, "middle") for tick in whole]
    parts.append(line(LEFT, y.start, width - RIGHT, y.start, "axis"))
    parts.append(label("epoch", (LEFT + width - RIGHT) / 2, height - 6, "middle"))
    middle = (y.start + y.end) / 2
    parts.append(label(name, 0, 0, "middle", transform=f"translate(12 {number(middle)}) rotate(-90)"))
    for column in columns:
        for i, curve in enumerate(curves):
            parts += _lines(curve, i, column, x, y, len(curves))
    return Chart(width, height, Markup("").join(parts), described, (LEFT, width - RIGHT, y.end, y.start, first, last))


def _lines(curve: Curve, i: int, column: str, x: Axis, y: Axis, curves: int) -> Iterable[Markup]:
    tone = "test" if column.startswith("test") else "train"
    band = [(e, *of) for e, of in zip(curve.epochs, curve.ranges.get(column, ()), strict=False) if of is not None]
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


def _with_legend(chart: Chart, curves: Sequence[Curve]) -> Chart:
    """The same chart below a legend that wraps."""
    parts, x, row = [], float(LEFT), 0
    for i, curve in enumerate(curves):
        for tone in theme.TONES:
            text = fit(f"{curve.name} {tone}", chart.width - LEFT - SWATCH - 20)
            wide = SWATCH + LETTER * len(text) + 22
            if x > LEFT and x + wide > chart.width:
                x, row = float(LEFT), row + 1
            moved = f"translate({number(x)} {row * LEGEND_ROW + 6})"
            parts.append(tag("g", swatch(i, tone), label(text, SWATCH, 8), transform=moved))
            x += wide
    above = (row + 1) * LEGEND_ROW + 4
    parts.append(tag("g", chart.body, transform=f"translate(0 {above})"))
    return Chart(chart.width, chart.height + above, Markup("").join(parts), chart.description)


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


def _describe(curves: Sequence[Curve], what: str, unit: str, form: str) -> str:
    """A few values of each curve, in words."""
    told = []
    for curve in curves[:DESCRIBED]:
        for tone in theme.TONES:
            if not (points := curve.series(f"{tone}_{what}")):
                continue
            last = len(points) - 1
            low = min(range(len(points)), key=lambda i: points[i][1])
            chosen = sorted({0, len(points) // 4, len(points) // 2, low, last})
            listed = ", ".join(f"{points[i][1]:{form}}{unit} at epoch {points[i][0]}" for i in chosen)
            told.append(f"{curve.name}, {tone} {what}: {listed}; lowest {points[low][1]:{form}}{unit}.")
    if len(curves) > DESCRIBED:
        told.append(f"{len(curves) - DESCRIBED} more curves are in the table of the runs.")
    return " ".join(told) or "There are no values yet."
