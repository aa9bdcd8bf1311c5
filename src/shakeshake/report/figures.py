"""The report's figures: matplotlib draws them as SVG whose colours a page can set and whose values it can read."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ..errors import InputError
from .read import RunRecord, read_runs

# One hue a run: training dark, test light, as in the paper's figures.
SHADES = (("#17549c", "#6fa8e8"), ("#a4470a", "#ef9a55"), ("#1d6b3d", "#6dbf8b"), ("#5d3b92", "#b091dd"))
INK = "#010203"  # stands for the page's text colour
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shakeshake",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
}
LABELS = {"error": "error, %", "loss": "cross-entropy", "lr": "learning rate"}


@dataclass(frozen=True)
class Chart:
    """svg: the drawing. data: the curves and where the axes lie in it (0 to 1), for values on hover. text: in words."""

    svg: str
    data: dict[str, Any]
    text: str


def chart(runs: Sequence[RunRecord], metric: str, size: tuple[float, float] = (7.2, 3.6)) -> Chart:
    """Curves by epoch: training (dark) and test (light) ``error`` or ``loss`` of each run, or their ``lr``."""
    with matplotlib.rc_context(STYLE):
        figure, series = _draw(runs, metric, size)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    axes = figure.axes[0]
    box = axes.get_position()
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    for k, pair in enumerate(SHADES):
        for shade, role in zip(pair, ("train", "test"), strict=True):
            svg = svg.replace(shade, f"var(--{role}-{k}, {shade})")
    data = {
        "box": [box.x0, 1 - box.y1, box.x1, 1 - box.y0],
        "x": list(axes.get_xlim()),
        "y": list(axes.get_ylim()),
        "unit": " %" if metric == "error" else "",
        "series": series,
    }
    text = "; ".join(f"{s['name']} ends at {s['y'][-1]:.4g}" for s in series if s["y"])
    return Chart(svg, data, f"{LABELS[metric]} by epoch: {text}")


def _draw(runs: Sequence[RunRecord], metric: str, size: tuple[float, float]) -> tuple[Figure, list[dict[str, Any]]]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    series = []
    for k, run in enumerate(runs):
        shades = SHADES[k % len(SHADES)]
        roles = (
            [("lr", shades[0], "")]
            if metric == "lr"
            else [
                (f"train_{metric}", shades[0], " training"),
                (f"test_{metric}", shades[1], " test"),
            ]
        )
        for column, shade, role in roles:
            epochs, values = run.column(column)
            label = (run.name + role).replace("$", r"\$")  # no name is a formula
            axes.plot(epochs, values, color=shade, linewidth=1.6, marker="o" if len(epochs) == 1 else "", label=label)
            colour = f"var(--{'test' if 'test' in role else 'train'}-{k % len(SHADES)})"
            series.append({"name": run.name + role, "x": epochs, "y": values, "colour": colour})
    axes.set_xlabel("epoch")
    axes.set_ylabel(LABELS[metric])
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    if len(series) > 1 and len(runs) <= 8:
        axes.legend(frameon=False, fontsize=9)
    figure.draw_without_rendering()  # settles where the axes lie
    return figure, series


def curves(runs: Sequence[RunRecord]) -> str:
    """SVG of the error curves."""
    return chart(runs, "error").svg


def write_curves(paths: Sequence[Path], out: Path) -> Path:
    """The error curves of some runs as a file of their own, ``.svg`` or ``.png`` by its ending, on white."""
    if out.suffix not in (".svg", ".png"):
        raise InputError(f"figure: {out} has another ending, expected .svg or .png")
    runs, _ = read_runs(paths)
    on_white: Any = {name: "#222222" if value == INK else value for name, value in STYLE.items()}
    with matplotlib.rc_context(on_white):
        figure, _ = _draw(runs, "error", (7.2, 3.8))
        metadata = {"Date": None} if out.suffix == ".svg" else {"Software": None}
        buffer = io.BytesIO()
        figure.savefig(buffer, format=out.suffix[1:], dpi=160, facecolor="white", metadata=metadata)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.write_bytes(buffer.getvalue())
        os.replace(part, out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"figure: {out} cannot be written: {error.strerror}") from None
    return out
