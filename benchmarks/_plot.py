"""Line charts as small SVG files that can be read on a light and on a dark background."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from shakeshake.utils.files import atomic_write

INK = "#7a7a7a"
STYLES = (("#2f7ed8", "-", "o"), ("#d9730d", "--", "s"), ("#2e9e5b", "-.", "^"), ("#a34fc4", ":", "D"))
SETTINGS = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **{"svg.fonttype": "none", "svg.hashsalt": "shakeshake", "font.family": "sans-serif", "font.size": 12},
    **{"axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 2.2},
}


@dataclass
class Panel:
    """One set of axes: ``lines`` maps a label to its x and y values."""

    x_label: str
    y_label: str
    lines: dict[str, tuple[Sequence[float], Sequence[float]]]
    log2: bool = False
    markers: bool = False
    direct_labels: bool = False  # a label at the end of each line in place of a legend


def line_chart(path: Path, panels: list[Panel], description: str, *, size: tuple[float, float] = (8.0, 3.6)) -> None:
    """Draw the panels side by side and write them to ``path``. ``size`` is in inches."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for (label, (xs, ys)), (colour, dashes, marker) in zip(panel.lines.items(), STYLES, strict=False):
                shape = marker if panel.markers else None
                axes.plot(xs, ys, color=colour, linestyle=dashes, marker=shape, markersize=5, label=label)
                if panel.direct_labels:
                    place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
                    axes.annotate(label, (xs[-1], ys[-1]), color=colour, weight="bold", annotation_clip=False, **place)
            if panel.markers:
                ticks = next(iter(panel.lines.values()))[0]
                if panel.log2:
                    axes.set_xscale("log", base=2)
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
            lowest = min(0.0, *(y for _, ys in panel.lines.values() for y in ys))
            axes.set(xlabel=panel.x_label, ylim=(lowest, None))
            axes.set_title(panel.y_label, loc="left", fontsize=12)
            axes.grid(axis="y", color=INK, alpha=0.25)
            axes.set_axisbelow(True)
        if not panels[0].direct_labels:
            figure.axes[0].legend(frameon=False)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    start = svg.index(">", svg.index("<svg")) + 1
    atomic_write(path, f"{svg[:start]}<title>{escape(description)}</title>{svg[start:]}")
