"""Correlations of a table's rows over their seeds: between the branches of each block, between their layers."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def by_block(analyses: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """For every block and row: the mean over seeds, and each seed's value (the mean over pairs of branches).

    analyses: row -> analysis.json of each of its runs. A block that cannot be correlated in a run is left out of it.
    """
    values: dict[tuple[str, str], list[float]] = {}
    for row, runs in analyses.items():
        for block in itertools.chain.from_iterable(run["branch_correlation"] or [] for run in runs):
            pairs = [pair["correlation"] for pair in block["pairs"] if pair["correlation"] is not None]
            if pairs:
                values.setdefault((block["block"], row), []).append(statistics.fmean(pairs))
    return [
        {"block": block, "row": row, "mean": statistics.fmean(seeds), "seeds": seeds}
        for (block, row), seeds in sorted(values.items(), key=lambda item: item[0][0])
    ]


def by_layer(analyses: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """For every row and pair of layers LiRj: the mean over blocks, pairs of branches and seeds, and over how many."""
    found = []
    for row, runs in analyses.items():
        blocks = itertools.chain.from_iterable(run["layerwise"] or [] for run in runs)
        matrices = [pair["matrix"] for block in blocks for pair in block["pairs"]]
        for i, j in itertools.product(range(max(map(len, matrices), default=0)), repeat=2):
            values = [m[i][j] for m in matrices if i < len(m) and m[i][j] is not None]
            if values:
                mean = statistics.fmean(values)
                found.append({"row": row, "layers": f"L{i + 1}R{j + 1}", "mean": mean, "over": len(values)})
    return found


def as_lines(results: dict[str, Any]) -> Iterator[str]:
    """Both as tables for a terminal, where the experiment is about them."""
    rows = [row["key"] for row in results["rows"]]
    for kind, key, title in (
        ("correlation", "block", "mean correlation between the branches, after the factor 1/N"),
        ("layerwise", "layers", "mean correlation between layer i of one branch and layer j of the other, LiRj"),
    ):
        if results["kind"] != kind or not results["correlations"]:
            continue
        means = {(entry[key], entry["row"]): entry["mean"] for entry in results["correlations"]}
        names = list(dict.fromkeys(name for name, _ in means))
        yield ""
        yield title
        yield f"{'':<24}" + "".join(f"{row:>10}" for row in rows)
        for name in names:
            cells = (means.get((name, row)) for row in rows)
            yield f"{name:<24}" + "".join(f"{'–' if value is None else format(value, '.3f'):>10}" for value in cells)
