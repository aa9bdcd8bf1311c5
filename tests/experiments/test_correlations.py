"""Means over seeds, blocks and pairs, on numbers small enough to do by hand."""

import pytest

from shakeshake.experiments.correlations import by_block, by_layer


def analysis(blocks, matrices=()):
    return {
        "branch_correlation": [
            {"block": name, "pairs": [{"branches": [0, k + 1], "correlation": value} for k, value in enumerate(values)]}
            for name, values in blocks.items()
        ],
        "layerwise": [{"pairs": [{"matrix": matrix}]} for matrix in matrices],
    }


def test_a_block_s_correlation_is_the_mean_over_pairs_then_seeds():
    runs = [analysis({"a": [0.1, 0.3], "b": [None]}), analysis({"a": [0.6], "b": [0.5]})]
    assert by_block({"S-S-I": runs}) == [
        {"block": "a", "row": "S-S-I", "mean": pytest.approx(0.4), "seeds": [pytest.approx(0.2), 0.6]},
        {"block": "b", "row": "S-S-I", "mean": 0.5, "seeds": [0.5]},
    ]


def test_layers_that_cannot_be_compared_are_left_out():
    runs = [analysis({}, [[[0.2, None], [0.0, 0.4]], [[0.4, None], [0.2, 0.8]]])]
    found = {entry["layers"]: (entry["mean"], entry["over"]) for entry in by_layer({"E-E-B": runs})}
    assert found == {"L1R1": (pytest.approx(0.3), 2), "L2R1": (pytest.approx(0.1), 2), "L2R2": (pytest.approx(0.6), 2)}
    assert by_layer({"plain": [{"layerwise": None, "branch_correlation": None}]}) == []
