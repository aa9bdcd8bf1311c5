"""Correlations of a table's rows over their seeds: between the branches of each block, and between their layers."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .schema import Correlation, Table


def by_block(analyses: Mapping[str, Sequence[dict[str, Any]]]) -> list[Correlation]:
    """Mean correlation between the branches, for every block and row.

    Args:
        analyses: Row -> analysis.json of each of its runs. Blocks without a correlation in a run are left out of it.

    Returns:
        The means over seeds, with each seed's value: the mean over pairs of branches.
    """
    values: dict[tuple[str, str], list[float]] = {}
    for row, runs in analyses.items():
        for block in itertools.chain.from_iterable(run["branch_correlation"] or [] for run in runs):
            pairs = [pair["correlation"] for pair in block["pairs"] if pair["correlation"] is not None]
            if pairs:
                values.setdefault((block["block"], row), []).append(statistics.fmean(pairs))
    return [
        Correlation(row, statistics.fmean(seeds), block=block, seeds=tuple(seeds))
        for (block, row), seeds in sorted(values.items(), key=lambda item: item[0][0])
    ]


def by_layer(analyses: Mapping[str, Sequence[dict[str, Any]]]) -> list[Correlation]:
    """Mean correlation between layer i of one branch and layer j of the other (LiRj), for every row.

    Args:
        analyses: As for ``by_block``.

    Returns:
        The means over blocks, pairs of branches and seeds.
    """
    found = []
    for row, runs in analyses.items():
        blocks = itertools.chain.from_iterable(run["layerwise"] or [] for run in runs)
        matrices = [pair["matrix"] for block in blocks for pair in block["pairs"]]
        for i, j in itertools.product(range(max(map(len, matrices), default=0)), repeat=2):
            values = [m[i][j] for m in matrices if i < len(m) and m[i][j] is not None]
            if values:
                layers = f"L{i + 1}R{j + 1}"
                found.append(Correlation(row, statistics.fmean(values), layers=layers, over=len(values)))
    return found


def format_correlations(table: Table) -> Iterator[str]:
    """The correlations as lines for a terminal, the published ones beside them; nothing for tables without any."""
    if not table.correlations:
        return
    ours, published = (
        {(one.block or one.layers, one.row): one.mean for one in found}
        for found in (table.correlations, table.published_correlations)
    )
    names = sorted({name for name, _ in (*ours, *published)}, key=numbers)
    columns = [(ours, row.key, row.key) for row in table.rows]
    columns += [(published, row.key, f"{row.key} [{table.source}]") for row in table.rows if published]
    what = "the branches" if table.kind == "correlation" else "layer i of one branch and layer j of the other (LiRj)"
    mark = "" if table.meaningful else "   not meaningful"
    yield ""
    yield f"mean correlation between {what}, after the factor 1/N"
    yield f"{'':<24}" + "".join(f"{head:>{_width(head)}}" for _, _, head in columns)
    for name in names:
        values = [(found.get((name, row)), _width(head)) for found, row, head in columns]
        cells = "".join(f"{'–' if value is None else format(value, '.3f'):>{width}}" for value, width in values)
        yield f"{name:<24}{cells}{mark}"


def _width(head: str) -> int:
    return max(10, len(head) + 2)


def numbers(name: str) -> list[int]:
    """The numbers in a name, to sort blocks and layers by."""
    return [int(number) for number in re.findall(r"\d+", name)]
