"""Means over seeds, blocks and pairs, checked against values computed manually."""

import pytest

from shakeshake.experiments.correlations import by_block, by_layer, format_correlations
from shakeshake.experiments.schema import Correlation, Table, TableRow


def analysis(blocks, matrices=()):
    return {
        "branch_correlation": [
            {"block": name, "pairs": [{"branches": [0, k + 1], "correlation": value} for k, value in enumerate(values)]}
            for name, values in blocks.items()
        ],
        "layerwise": [{"pairs": [{"matrix": matrix}]} for matrix in matrices],
    }


def test_the_correlation_of_a_block_is_the_mean_over_pairs_then_seeds():
    runs = [analysis({"a": [0.1, 0.3], "b": [None]}), analysis({"a": [0.6], "b": [0.5]})]
    a, b = by_block({"S-S-I": runs})
    assert (a.block, a.row, a.mean) == ("a", "S-S-I", pytest.approx(0.4))
    assert a.seeds == (pytest.approx(0.2), 0.6)
    assert (b.block, b.mean, b.seeds) == ("b", 0.5, (0.5,))


def test_layers_without_a_correlation_are_left_out():
    runs = [analysis({}, [[[0.2, None], [0.0, 0.4]], [[0.4, None], [0.2, 0.8]]])]
    found = {entry.layers: (entry.mean, entry.over) for entry in by_layer({"E-E-B": runs})}
    assert found == {"L1R1": (pytest.approx(0.3), 2), "L2R1": (pytest.approx(0.1), 2), "L2R2": (pytest.approx(0.6), 2)}
    assert by_layer({"plain": [{"layerwise": None, "branch_correlation": None}]}) == []


def test_published_correlations_are_listed_beside_ours_in_block_order():
    blocks = [f"stages.0.blocks.{i}" for i in (0, 2, 10)]
    table = Table(
        "correlation",
        (),
        kind="correlation",
        source="Figure 3",
        rows=(TableRow("E-E-B", "Even-Even"),),
        correlations=tuple(Correlation("E-E-B", 0.1, block=block) for block in blocks[:2]),
        published_correlations=tuple(Correlation("E-E-B", 0.2, block=block) for block in reversed(blocks)),
    )
    head, *lines = list(format_correlations(table))[2:]
    assert "E-E-B [Figure 3]" in head
    assert [line.split() for line in lines] == [
        [blocks[0], "0.100", "0.200"],
        [blocks[1], "0.100", "0.200"],
        [blocks[2], "–", "0.200"],
    ]
