"""The charts other than curves as matplotlib figures, for files that stand alone; the page has its own of the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle

from . import beta_regions, html_charts
from .analysis import Pair
from .experiment import ExperimentRecord
from .load_run import RunRecord
from .narrative import ABSENT, decimal, duration
from .svg import LETTER, axes_on, blank
from .theme import GRID, INK, PAPER, SOFT, colour, mark

Group = tuple[str, Sequence[RunRecord]]
ROW = 26


def correlation(groups: Sequence[Group]) -> tuple[Figure, str]:
    """Block by block a lane per group: seeds small, their mean large. Returns the figure and what it says."""
    chart = html_charts.correlations(groups)
    assert chart is not None
    lane, used = 13, len(chart["groups"])
    height = max(ROW, lane * used + 14)
    legend = 24 * math.ceil(used / 4)
    figure = blank((760, legend + height * len(chart["rows"]) + 60))
    axes = axes_on(figure, 150, legend + 8, 580, height * len(chart["rows"]))
    _across(axes, chart["axis"], len(chart["rows"]))
    axes.set_xlabel("correlation of the branches' outputs", color=INK, labelpad=4)
    axes.set_yticks([i + 0.5 for i in range(len(chart["rows"]))], [row["label"] for row in chart["rows"]])
    for i, row in enumerate(chart["rows"]):
        for j, one in enumerate(row["lanes"]):
            y = i + 0.5 + (j - (used - 1) / 2) * lane / height
            dot: Any = {"marker": mark(one["i"]), "linestyle": "none", "markeredgewidth": 0}
            if one["span"]:
                first, width = one["span"]
                axes.plot([first, first + width], [y, y], color=colour(one["i"], "test"), linewidth=2)
                axes.plot(one["runs"], [y] * len(one["runs"]), color=colour(one["i"], "test"), markersize=4, **dot)
            if one["mean"] is not None:
                axes.plot([one["mean"]], [y], color=colour(one["i"], "train"), markersize=8, clip_on=False, **dot)
    handles = [
        Line2D([], [], color=colour(i, "train"), marker=mark(i), linestyle="none", label=name[:32])
        for i, name, _ in chart["groups"]
    ]
    look: Any = {"frameon": False, "labelcolor": INK, "handletextpad": 0.2, "ncols": min(4, used)}
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(140 / 760, 1), **look)
    return figure, " ".join(row["tip"].replace("\n", "; ").replace("\t", " ") + "." for row in chart["rows"])


def layerwise(groups: Sequence[tuple[str, Sequence[Pair]]]) -> tuple[Figure, str]:
    """A row of matrices per group, one for each block, in the colour of the correlation's sign."""
    cell, gap, left = 38, 26, 110
    maps = [(name, html_charts.layer_maps(pairs)) for name, pairs in groups]
    size = max(len(one["layers"]) for _, listed in maps for one in listed)
    across = max(len(listed) for _, listed in maps)
    step, row = size * cell + gap, size * cell + 46
    figure = blank((left + across * step, row * len(maps) + 8))
    told = []
    for i, (name, listed) in enumerate(maps):
        for j, one in enumerate(listed):
            axes = axes_on(figure, left + j * step, i * row + 24, size * cell, size * cell)
            axes.spines["bottom"].set_visible(False)
            axes.set(xlim=(0, size), ylim=(size, 0))
            axes.set_title(one["label"], loc="left", fontsize=10, color=SOFT, pad=5)
            names = [k + 1 for k in range(len(one["layers"]))]
            axes.set_xticks([k - 0.5 for k in names], [f"R{k}" for k in names], fontsize=10)
            axes.set_yticks([k - 0.5 for k in names], [f"L{k}" for k in names] if j == 0 else [""] * len(names))
            axes.tick_params(labelsize=10, pad=3, colors=SOFT)
            for y, line in enumerate(one["cells"]):
                for x, value in enumerate(line):
                    _cell(axes, x, y, value)
            diagonal = ", ".join(one["cells"][k][k]["text"] for k in range(len(one["layers"])))
            told.append(f"{name}, {one['label']}: diagonal {diagonal}.")
        figure.text(4 / (left + across * step), 1 - (i * row + 24 + size * cell / 2) / (row * len(maps) + 8), name[:14])
    return figure, " ".join(told)


def strength(rules: Sequence[str]) -> tuple[Figure, str]:
    """Where beta lies given alpha, a square per rule."""
    side, gap = 120, 44
    across = min(5, len(rules))
    down = math.ceil(len(rules) / across)
    figure = blank((across * (side + gap) + 16, down * (side + 62)))
    told = []
    for i, rule in enumerate(rules):
        axes = axes_on(figure, 36 + (i % across) * (side + gap), 26 + (i // across) * (side + 62), side, side)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_xticks([0, 1], ["0", "1"])
        axes.set_yticks([0, 1], ["0", "1"])
        axes.tick_params(labelsize=10, pad=3, colors=SOFT)
        axes.set_xlabel("α", color=SOFT, labelpad=-9)
        axes.set_ylabel("β", color=SOFT, labelpad=-2, rotation=0)
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.6, linestyle=(0, (2, 3)))
        axes.axvline(0.5, color=GRID, linewidth=1)
        axes.axhline(0.5, color=GRID, linewidth=1)
        distance = beta_regions.distance(rule)
        axes.set_title(f"{rule}   |β − α| {distance:.3f}", loc="left", fontsize=11, color=INK, pad=6)
        for stretch in beta_regions.where(rule):
            corners = stretch.corners
            if len(corners) > 2:
                axes.add_patch(Polygon(corners, facecolor=_sheer(0), edgecolor=colour(0, "train"), linewidth=1.4))
            elif len(corners) == 2:
                axes.plot(*zip(*corners, strict=True), color=colour(0, "train"), linewidth=3, clip_on=False)
            else:
                axes.plot(*corners[0], marker="o", color=colour(0, "train"))
        told.append(f"{rule}: {beta_regions.in_words(rule)}, mean distance of β from α {distance:.3f}.")
    return figure, " ".join(told)


def differences(experiment: ExperimentRecord) -> tuple[Figure, str]:
    """Intervals beside the line of no difference; hollow and dashed where they cross it."""
    chart = html_charts.forest(experiment)
    assert chart is not None
    rows = chart["rows"]
    left = max(190.0, LETTER * max(len(text) for row in rows for text in (row["label"], row["column"])) + 20)
    figure = blank((left + 630, 34 * len(rows) + 66))
    axes = axes_on(figure, left, 10, 400, 34 * len(rows))
    _across(axes, chart["axis"], len(rows))
    axes.set_xlabel("difference of the test errors, points", color=INK, labelpad=4)
    axes.set_yticks(
        [i + 0.5 for i in range(len(rows))],
        [row["label"] + (f"\n{row['column']}" if row["column"] else "") for row in rows],
    )
    for i, row in enumerate(rows):
        y, ends = i + 0.5, (row["left"], row["left"] + row["width"])
        tint = {"open": SOFT, "low": colour(0, "train"), "high": colour(1, "train")}[row["kind"]]
        open_ = row["kind"] == "open"
        axes.plot(ends, (y, y), color=tint, linewidth=1.6 if open_ else 2.4, linestyle=(0, (3, 2)) if open_ else "-")
        look: Any = {"markerfacecolor": PAPER if open_ else tint, "markeredgecolor": tint, "markeredgewidth": 1.6}
        axes.plot([row["at"]], [y], marker="D" if row["kind"] == "high" else "o", markersize=7, clip_on=False, **look)
        said = f"{row['difference']} ({row['interval']})\n{row['verdict']}"
        axes.annotate(said, (1, y), (14, 0), axes.get_yaxis_transform(), "offset points", va="center", color=INK)
    return figure, " ".join(row["tip"].replace("\n", "; ").replace("\t", " ") + "." for row in rows)


def table(experiment: ExperimentRecord) -> tuple[Figure, str]:
    """The table as the page has it."""
    heads: tuple[str, ...] = ("published", "ours, last epoch", "runs", "lowest error", "train error", "time per run")
    places: tuple[int, ...] = (330, 480, 550, 640, 736, 850)
    if not experiment.place:  # a comparison of one's own
        heads, places = ("error, last epoch", *heads[2:]), places[1:]
    lines: list[tuple[str, tuple[str, ...]]] = []
    told = []
    for column, label in experiment.columns.items():
        cells = experiment.of_column(column)
        if not cells:
            continue
        lines.append((label, heads))
        for cell in cells:
            wanted = len(cell.runs) + len(cell.missing) + len(cell.failed)
            ours = decimal(cell.mean) + (f" ± {decimal(cell.std)}" if cell.std is not None else "")
            shown: tuple[str, ...] = (
                *([decimal(cell.published)] if experiment.place else []),
                ours,
                f"{len(cell.runs)}" + (f" of {wanted}" if wanted > len(cell.runs) else ""),
                decimal(cell.best_mean),
                decimal(cell.train_mean),
                duration(cell.seconds_mean),
            )
            name = experiment.rows[cell.row][0]
            lines.append((name if len(name) <= 34 else f"{name[:33]}…", shown))
            said = "; ".join(f"{head} {value}" for head, value in zip(heads, shown, strict=True) if value != ABSENT)
            told.append(f"{label}, {name}: {said}.")
    figure = blank((860, ROW * len(lines) + 16))
    axes = axes_on(figure, 0, 8, 860, ROW * len(lines))
    axes.axis("off")
    axes.set(xlim=(0, 860), ylim=(len(lines), 0))
    for i, (name, values) in enumerate(lines):
        head = values is heads
        axes.text(4, i + 0.5, name, va="center", color=INK, fontweight="bold" if head else "normal")
        for x, value, what in zip(places, values, heads, strict=True):
            tint = SOFT if head or what == "published" else INK
            bold = what.endswith("last epoch") and not head
            look: Any = {"fontsize": 11 if head else 12.5, "fontweight": "bold" if bold else "normal"}
            axes.text(x, i + 0.5, value, va="center", ha="right", color=tint, **look)
        axes.plot((0, 860), (i + 1, i + 1), color=GRID, linewidth=1)
    return figure, " ".join(told)


def _across(axes: Axes, axis: html_charts.Axis, rows: int) -> None:
    """Percent of the axis from left to right, rows from top to bottom."""
    axes.set(xlim=(0, 100), ylim=(rows, 0))
    axes.set_xticks([at for at, _ in axis.ticks], [text for _, text in axis.ticks])
    axes.grid(axis="x", color=GRID, linewidth=1)
    if axis.zero is not None:
        axes.axvline(axis.zero, color=SOFT, linewidth=1)


def _cell(axes: Axes, x: int, y: int, value: dict[str, Any]) -> None:
    tint = to_rgba(colour(1 if value["sign"] == "neg" else 0, "train"))
    fill = (*tint[:3], 0.6 * value["share"] / 100)  # light enough for the text on it
    axes.add_patch(Rectangle((x + 0.03, y + 0.03), 0.94, 0.94, facecolor=fill, edgecolor="none"))
    axes.text(x + 0.5, y + 0.5, value["text"], ha="center", va="center", fontsize=10, color=INK)


def _sheer(i: int) -> tuple[float, ...]:
    return (*to_rgba(colour(i, "train"))[:3], 0.28)
