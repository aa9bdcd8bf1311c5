"""matplotlib's figures as SVG that a page can colour, and as files that stand alone."""

from __future__ import annotations

import io
import re
import warnings
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .theme import GRID, INK, PALETTE, PAPER, SOFT, TONES, standalone_style

MARGINS = {"left": 54, "right": 14, "top": 14, "bottom": 46}

SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shakeshake",  # otherwise the ids, and so the bytes, are random
    "path.simplify": True,
    "lines.scale_dashes": False,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12.5,
    "text.usetex": False,
    "text.parse_math": False,
}


LETTER = 6.6
"""Pixels that a letter of a label takes, on average."""


def blank(size: tuple[float, float]) -> Figure:
    """A figure of so many pixels; 72 because a unit of the viewBox is a pixel."""
    return Figure(figsize=(size[0] / 72, size[1] / 72), facecolor="none")


def axes_on(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in pixels from the left and from the top, without a frame."""
    across, down = figure.get_size_inches() * 72
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down), facecolor="none")
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.tick_params(length=0, pad=7, colors=INK)
    axes.set_axisbelow(True)
    return axes


def framed(size: tuple[int, int], label: str, top: int = 0) -> tuple[Figure, Axes]:
    """A figure with one chart by epoch."""
    figure = blank(size)
    width = size[0] - MARGINS["left"] - MARGINS["right"]
    height = size[1] - MARGINS["top"] - MARGINS["bottom"] - top
    axes = axes_on(figure, MARGINS["left"], MARGINS["top"] + top, width, height)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_xlabel("epoch", color=INK, labelpad=4)
    axes.set_ylabel(label, color=INK, labelpad=10)
    return figure, axes


def to_svg(figure: Figure, salt: str, label: str, told: str) -> str:
    """The figure as an element for a page: coloured by CSS, readable to a screen reader and to the hover script."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has a font for it
        FigureCanvasSVG(figure).print_svg(buffer)
    svg = buffer.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    # The metadata hold the date, the ids of artists come again in every figure of a page.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="line-(\d+)"', r' class="line line\1"', svg)
    svg = re.sub(r' id="[a-z0-9.]+_\d+"| transform="rotate\(-0 [^"]*"', "", svg)
    svg = svg.replace("'DejaVu Sans', sans-serif", "system-ui, sans-serif")
    svg = re.sub(r'(?<= d=")[^"]+', _tenths, svg)
    for i, pair in enumerate(PALETTE):
        for tone, colour in zip(TONES, pair[:2], strict=True):
            svg = re.sub(rf"(stroke|fill): {colour}", rf"\1: var(--{tone}{i}, {colour})", svg)
    for name, colour in (("grid", GRID), ("soft", SOFT), ("paper", PAPER)):
        svg = re.sub(rf"(stroke|fill): {colour}", rf"\1: var(--{name}, {colour})", svg)
    svg = re.sub(rf"(stroke|fill): {INK}", r"\1: currentColor", svg)
    width, height = figure.get_size_inches() * 72
    axes = figure.axes[0]
    box, (first, last) = axes.get_position(), axes.get_xlim()
    frame = [box.x0 * width, box.x1 * width, (1 - box.y1) * height, (1 - box.y0) * height, first, last]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'stroke-linejoin="round" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'data-frame="{" ".join(f"{value:g}" for value in frame)}" aria-label="{escape(label)}. {escape(told)}">'
    )
    return head + svg[svg.index(">") + 1 :].strip()


def standalone(svg: str, title: str) -> str:
    """The same element as a file that follows light and dark by itself."""
    head, tail = svg.split(">", 1)  # escaped: the first > ends the opening tag
    return f"{head}><title>{escape(title)}</title>{standalone_style()}{tail}\n"


def to_png(figure: Figure) -> bytes:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.set_facecolor("white")
        buffer = io.BytesIO()
        figure.set_dpi(144)
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _tenths(path: re.Match[str]) -> str:
    """A path's points to a tenth of a pixel: more is only bytes."""
    return re.sub(r"\d+\.\d+", lambda n: f"{float(n[0]):.1f}".removesuffix(".0"), " ".join(path[0].split()))
