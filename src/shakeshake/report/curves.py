"""Error, loss and learning rate by epoch, drawn by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from .load_run import RunRecord
from .svg import LETTER, MARGINS, SETTINGS, framed, to_svg
from .theme import INK, TONES, colour, line_style

WIDE = (1080, 400)
NARROW = (460, 330)

# The test curve is what counts: broader as well as lighter, so that the two also differ in black and white.
WIDTHS = {"train": 1.4, "test": 2.4}
LEGEND_ROW, LEGEND_LINE = 19, 56
ERROR_TICKS = (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 100)
TOLD = 10


def curves(runs: Sequence[RunRecord], *, size: tuple[int, int] = WIDE, legend: bool = True) -> str:
    """Error by epoch as SVG: one hue and dash per run, train dark, test light; a band where seeds were averaged."""
    with mpl.rc_context(SETTINGS):
        told = curves_told(runs)
        return to_svg(error_figure(runs, size, legend), f"errors{size}{told}", "Error by epoch", told)


def losses(runs: Sequence[RunRecord]) -> str:
    """Loss by epoch as SVG, in the same colours."""
    with mpl.rc_context(SETTINGS):
        figure, axes = framed(NARROW, "loss")
        for column in ("train_loss", "test_loss"):
            _lines(axes, runs, column)
        _limits(axes, runs)
        return to_svg(figure, "losses", "Loss by epoch", _told(runs, "loss", "", ".4f"))


def learning_rates(runs: Sequence[RunRecord]) -> str:
    """Learning rate at the end of each epoch as SVG; equal curves are seen through each other's dashes."""
    with mpl.rc_context(SETTINGS):
        figure, axes = framed(NARROW, "learning rate")
        for i, run in enumerate(runs):
            epochs, values = _thinned(*run.series("lr"), len(runs))
            dashes: Any = "-" if i == 0 else (4 * i, (4, 4 * len(runs) - 4))
            look: Any = {"color": colour(i, "train"), "linewidth": 2, "linestyle": dashes, "gid": f"line-{i}"}
            axes.plot(epochs, values, marker=_dot(epochs), **look)
        _limits(axes, runs)
        known = [run for run in runs if run.series("lr")[1]]
        told = " ".join(f"{r.short}: from {(v := r.series('lr')[1])[0]:.4g} to {v[-1]:.4g}." for r in known[:TOLD])
        return to_svg(figure, "rates", "Learning rate by epoch", told)


def error_figure(runs: Sequence[RunRecord], size: tuple[int, int], legend: bool) -> Figure:
    longest = max(len(run.short) for run in runs) + len(" train")
    across = int((size[0] - MARGINS["left"]) / (LETTER * longest + LEGEND_LINE))
    columns = 2 if size != WIDE else max(1, min(4, 2 * len(runs), across))
    extra = LEGEND_ROW * math.ceil(2 * len(runs) / columns) if legend else 0
    figure, axes = framed((size[0], size[1] + extra), "error (%), square-root scale", top=extra)
    # From 90 % in the first epoch to 3 % in the last: a linear axis would hide the end, a logarithm has no place for 0.
    axes.set_yscale("function", functions=(lambda y: abs(y) ** 0.5, lambda y: y**2))
    for column in ("train_error", "test_error"):
        _lines(axes, runs, column)
    values = [v for run in runs for column in ("train_error", "test_error") for v in run.series(column)[1]]
    top = max([value for value in values if value <= 100], default=100) * 1.06 or 1
    axes.set_ylim(0, top)
    axes.set_yticks([tick for tick in ERROR_TICKS if tick <= top and (tick == 0 or tick >= top / 80)])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    _limits(axes, runs, bottom=False)
    if legend:
        handles = [
            Line2D([], [], label=f"{run.short} {tone}", **_look(i, tone))
            for i, run in enumerate(runs)
            for tone in TONES
        ]
        place = (MARGINS["left"] / size[0], 1)
        look: Any = {"ncols": columns, "bbox_to_anchor": place, "frameon": False, "labelcolor": INK, "handlelength": 3}
        figure.legend(handles=handles, loc="upper left", **look)
    return figure


def curves_told(runs: Sequence[RunRecord]) -> str:
    return _told(runs, "error", "%", ".2f")


def _look(i: int, tone: str) -> Any:
    return {"color": colour(i, tone), "linewidth": WIDTHS[tone], "linestyle": line_style(i), "dash_capstyle": "butt"}


def _lines(axes: Axes, runs: Sequence[RunRecord], column: str) -> None:
    tone = column.split("_")[0]
    for i, run in enumerate(runs):
        band = [(row["epoch"], *row[name]) for row in run.rows if row.get(name := f"{column}_range")]
        if tone == "test" and len(band) > 1:
            stride = math.ceil(len(band) / 200)
            across, low, high = zip(*band[::stride], strict=True)
            fill: Any = {"color": colour(i, tone), "alpha": 0.16, "linewidth": 0, "gid": f"line-{i}"}
            axes.fill_between(across, low, high, clip_on=False, **fill)
        epochs, values = _thinned(*run.series(column), len(runs))
        # Not clipped: an error of 0 lies on the frame.
        axes.plot(epochs, values, marker=_dot(epochs), clip_on=False, gid=f"line-{i}", **_look(i, tone))


def _thinned(epochs: list[int], values: list[float], curves: int) -> tuple[list[int], list[float]]:
    """A long curve as the lowest and highest point of each stretch: what the eye sees at this width, among so many."""
    length = math.ceil(len(epochs) / max(40, min(200, 2000 // curves)))
    if length <= 2:
        return epochs, values
    kept = {0, len(epochs) - 1}
    for start in range(0, len(epochs), length):
        stretch = range(start, min(start + length, len(epochs)))
        kept |= {min(stretch, key=lambda i: values[i]), max(stretch, key=lambda i: values[i])}
    return [epochs[i] for i in sorted(kept)], [values[i] for i in sorted(kept)]


def _limits(axes: Axes, runs: Sequence[RunRecord], *, bottom: bool = True) -> None:
    epochs = [row["epoch"] for run in runs for row in run.rows] or [1]
    first, last = min(epochs), max(epochs)
    axes.set_xlim((first - 0.5, last + 0.5) if first == last else (first, last))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1))
    if bottom:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.4g}"))


def _dot(epochs: Sequence[int]) -> str:
    return "o" if len(epochs) == 1 else ""  # a line through one point is not seen


def _told(runs: Sequence[RunRecord], what: str, unit: str, form: str) -> str:
    """The values a reader of the figure would take from it, in words."""
    told = []
    for run in runs[:TOLD]:
        for tone in TONES:
            epochs, values = run.series(f"{tone}_{what}")
            if not values:
                continue
            low = min(range(len(values)), key=lambda i: values[i])
            points = dict.fromkeys([0, len(values) // 4, len(values) // 2, low, len(values) - 1])
            listed = ", ".join(f"{values[i]:{form}} {unit}".strip() + f" at epoch {epochs[i]}" for i in sorted(points))
            told.append(f"{run.short}, {tone} {what}: {listed}; lowest {values[low]:{form}} {unit}".strip() + ".")
    if len(runs) > TOLD:
        told.append(f"{len(runs) - TOLD} more curves are in the table of the runs.")
    return " ".join(told) or "There are no values yet."
