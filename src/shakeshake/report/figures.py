"""The figures: error, loss and learning rate by epoch, drawn by matplotlib into SVG that follows the page's colours."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from ..errors import InputError
from ..train.record import write_atomically
from .read import RunRecord, read_runs

WIDE = (1080, 400)
NARROW = (460, 330)

# One hue per run: train and test on white (3:1 or close to it even for the lighter one), then both on near-black.
PALETTE = (
    ("#174a85", "#5394d6", "#4f86c6", "#a8d0f5"),
    ("#94400a", "#d97b27", "#c9742f", "#f7c38d"),
    ("#0b5f52", "#2a9e89", "#2e9a86", "#8fdfcf"),
    ("#5b2f86", "#a67fd0", "#9067c4", "#d4bdf0"),
    ("#8c1d3b", "#db6a86", "#cc5574", "#f5b3c3"),
    ("#515f0c", "#889a25", "#8a9a35", "#d3de8b"),
    ("#0e5a75", "#3a99b9", "#358ca8", "#9bd9ec"),
    ("#45474d", "#878a92", "#7f838c", "#c6c9d0"),
)
INK, GRID = "#1d1f24", "#e3e4e8"
TONES = {"train": 0, "test": 1}
# The test curve is what counts: broader as well as lighter, so that the two also differ in black and white.
WIDTHS = {"train": 1.4, "test": 2.4}
MARGINS = {"left": 54, "right": 14, "top": 14, "bottom": 46}
LEGEND_ROW = 19
ERROR_TICKS = (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 100)

SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shakeshake",  # otherwise the ids, and so the bytes, are random
    "path.simplify": True,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12.5,
    "text.usetex": False,
    "text.parse_math": False,
}


def curves(runs: Sequence[RunRecord], *, size: tuple[int, int] = WIDE, legend: bool = True) -> str:
    """Error by epoch as SVG: one hue per run, train dark, test light."""
    with mpl.rc_context(SETTINGS):
        return _svg(_errors(runs, size, legend), f"errors{size}", "Error by epoch", _told(runs, "error", "%", ".2f"))


def losses(runs: Sequence[RunRecord]) -> str:
    """Loss by epoch as SVG, in the same colours."""
    with mpl.rc_context(SETTINGS):
        figure, axes = _axes(NARROW, "loss")
        for column in ("train_loss", "test_loss"):
            _lines(axes, runs, column)
        _limits(axes, runs)
        return _svg(figure, "losses", "Loss by epoch", _told(runs, "loss", "", ".4f"))


def learning_rates(runs: Sequence[RunRecord]) -> str:
    """Learning rate at the end of each epoch as SVG; equal curves are seen through each other's dashes."""
    with mpl.rc_context(SETTINGS):
        figure, axes = _axes(NARROW, "learning rate")
        for i, run in enumerate(runs):
            epochs, values = run.series("lr")
            dashes = "-" if i == 0 else (4 * i, (4, 4 * len(runs) - 4))
            axes.plot(epochs, values, color=_colour(i, "train"), linewidth=2, linestyle=dashes, marker=_dot(epochs))
        _limits(axes, runs)
        told = " ".join(f"{run.short}: from {v[0]:.4g} to {v[-1]:.4g}." for run in runs if (v := run.series("lr")[1]))
        return _svg(figure, "rates", "Learning rate by epoch", told)


def write_curves(runs: Sequence[Path], out: Path) -> Path:
    """The error curves of run directories as a file, .svg (follows light and dark) or .png.

    Raises InputError when no run is readable, or the file is of another kind or cannot be written.
    """
    if out.suffix.lower() not in (".svg", ".png"):
        raise InputError(f"figure: got {out}, expected a name that ends in .svg or .png")
    records, _ = read_runs(runs)
    content = _standalone(records) if out.suffix.lower() == ".svg" else _png(records)
    try:
        write_atomically(out, content)
    except OSError as error:
        raise InputError(f"figure: {out} cannot be written: {error.strerror or error}") from None
    return out


def variables(*, dark: bool) -> str:
    """The colours as CSS custom properties."""
    pairs = enumerate(
        (dark_pair if dark else light) for *light, dark_pair in ((a, b, (c, d)) for a, b, c, d in PALETTE)
    )
    named = [f"--train{i}:{train};--test{i}:{test}" for i, (train, test) in pairs]
    return ";".join([*named, f"--grid:{'#33363d' if dark else GRID}"])


def _errors(runs: Sequence[RunRecord], size: tuple[int, int], legend: bool) -> Figure:
    extra = LEGEND_ROW * math.ceil(len(runs) / (2 if size == WIDE else 1)) if legend else 0
    figure, axes = _axes((size[0], size[1] + extra), "error (%), square-root scale", top=extra)
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
            Line2D([], [], color=_colour(i, tone), linewidth=WIDTHS[tone], label=f"{run.short} {tone}")
            for i, run in enumerate(runs)
            for tone in TONES
        ]
        columns = 2 if size != WIDE else min(4, 2 * len(runs))
        place = (MARGINS["left"] / size[0], 1)
        look: Any = {"ncols": columns, "bbox_to_anchor": place, "frameon": False, "labelcolor": INK}
        figure.legend(handles=handles, loc="upper left", **look)
    return figure


def _axes(size: tuple[int, int], label: str, top: int = 0) -> tuple[Figure, Axes]:
    width, height = size
    figure = Figure(figsize=(width / 72, height / 72), facecolor="none")  # 72: a unit of the viewBox is a pixel
    axes = figure.add_axes(
        (
            MARGINS["left"] / width,
            MARGINS["bottom"] / height,
            1 - (MARGINS["left"] + MARGINS["right"]) / width,
            1 - (MARGINS["top"] + MARGINS["bottom"] + top) / height,
        ),
        facecolor="none",
    )
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.tick_params(length=0, pad=7, colors=INK)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel("epoch", color=INK, labelpad=4)
    axes.set_ylabel(label, color=INK, labelpad=6)
    return figure, axes


def _lines(axes: Axes, runs: Sequence[RunRecord], column: str) -> None:
    tone = column.split("_")[0]
    for i, run in enumerate(runs):
        epochs, values = _thinned(*run.series(column))
        style = "-" if i < len(PALETTE) else "--"
        # Not clipped: an error of 0 lies on the frame.
        look: Any = {"color": _colour(i, tone), "linewidth": WIDTHS[tone], "linestyle": style, "clip_on": False}
        axes.plot(epochs, values, marker=_dot(epochs), **look)


def _thinned(epochs: list[int], values: list[float], stretches: int = 200) -> tuple[list[int], list[float]]:
    """A long curve as the lowest and highest point of each stretch: what the eye sees at this width."""
    length = math.ceil(len(epochs) / stretches)
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


def _colour(run: int, tone: str) -> str:
    return PALETTE[run % len(PALETTE)][TONES[tone]]


def _told(runs: Sequence[RunRecord], what: str, unit: str, form: str) -> str:
    """The values a reader of the figure would take from it, in words."""
    told = []
    for run in runs:
        for tone in TONES:
            epochs, values = run.series(f"{tone}_{what}")
            if not values:
                continue
            low = min(range(len(values)), key=lambda i: values[i])
            points = dict.fromkeys([0, len(values) // 4, len(values) // 2, low, len(values) - 1])
            listed = ", ".join(f"{values[i]:{form}} {unit}".strip() + f" at epoch {epochs[i]}" for i in sorted(points))
            told.append(f"{run.short}, {tone} {what}: {listed}; lowest {values[low]:{form}} {unit}".strip() + ".")
    return " ".join(told) or "There are no values yet."


def _svg(figure: Figure, salt: str, label: str, told: str) -> str:
    """The figure as an element for a page: coloured by CSS, readable to a screen reader and to the hover script."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has a font for it
        FigureCanvasSVG(figure).print_svg(buffer)
    svg = buffer.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    # The metadata hold the date, the ids of artists come again in every figure of a page.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[a-z0-9.]+_\d+"| transform="rotate\(-0 [^"]*"', "", svg)
    svg = svg.replace("'DejaVu Sans', sans-serif", "system-ui, sans-serif")
    svg = re.sub(r'(?<= d=")[^"]+', _tenths, svg)
    for i, pair in enumerate(PALETTE):
        for tone, colour in zip(TONES, pair[:2], strict=True):
            svg = re.sub(rf"(stroke|fill): {colour}", rf"\1: var(--{tone}{i}, {colour})", svg)
    svg = re.sub(rf"(stroke|fill): {GRID}", rf"\1: var(--grid, {GRID})", svg)
    svg = re.sub(rf"(stroke|fill): {INK}", r"\1: currentColor", svg)
    width, height = figure.get_size_inches() * 72
    axes = figure.axes[0]
    box, (first, last) = axes.get_position(), axes.get_xlim()
    frame = [box.x0 * width, box.x1 * width, (1 - box.y1) * height, (1 - box.y0) * height, first, last]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'stroke-linejoin="round" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'data-frame="{" ".join(f"{value:g}" for value in frame)}" aria-label="{label}. {escape(told)}">'
    )
    return head + svg[svg.index(">") + 1 :].strip()


def _tenths(path: re.Match[str]) -> str:
    """A path's points to a tenth of a pixel: more is only bytes."""
    return re.sub(r"\d+\.\d+", lambda n: f"{float(n[0]):.1f}".removesuffix(".0"), " ".join(path[0].split()))


def _standalone(runs: Sequence[RunRecord]) -> str:
    style = (
        f"<title>Error by epoch</title><style>svg{{color:{INK};{variables(dark=False)}}}"
        f"@media(prefers-color-scheme:dark){{svg{{color:#e8e9ec;{variables(dark=True)}}}}}</style>"
    )
    head, tail = curves(runs).split(">", 1)  # escaped: the first > ends the opening tag
    return f"{head}>{style}{tail}\n"


def _png(runs: Sequence[RunRecord]) -> bytes:
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = _errors(runs, WIDE, legend=True)
        figure.set_facecolor("white")
        buffer = io.BytesIO()
        figure.set_dpi(144)
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
