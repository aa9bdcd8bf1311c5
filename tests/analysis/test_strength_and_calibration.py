"""Closed-form strengths against draws, and calibration against a plain loop."""

import numpy as np
import pytest

from shakeshake.analysis import calibration
from shakeshake.analysis.strength import coefficients, histogram
from shakeshake.layers.rules import expected_distance

RULES = ["E-E-B", "E-S-I", "S-E-B", "S-S-I", "S-K-I", *(f"S-M{i}-I" for i in range(1, 6)), "S-0.3-I", "S-0.8-B"]
RANGED = ["S-E-I[0.4,0.6]", "S-S-I[0.1,0.7]", "S-0.3-I[0.6,0.9]", "S-M2-I[0.2,0.6]", "S-M3-I[0,0.6]", "S-M5-I[0.1,0.4]"]


@pytest.mark.parametrize(
    ("rule", "branches"), [*((rule, 2) for rule in RULES + RANGED), *((rule, b) for rule in RULES[:5] for b in (3, 5))]
)
def test_expected_distance_matches_draws(rule, branches):
    alpha, beta = coefficients(rule, draws=200_000, seed=3, branches=branches)
    distance = np.abs(beta - alpha)
    within = 4 * distance.std() / 200_000**0.5 + 1e-7
    assert distance.mean() == pytest.approx(expected_distance(rule, branches), abs=within)


def test_strengths_have_the_papers_order():
    """Further from alpha is stronger (Table 4): Keep, M2 = M3, Even, Shake, M4, M1, M5."""
    rules = ("S-K-I", "S-M2-I", "S-E-I", "S-S-I", "S-M4-I", "S-M1-I", "S-M5-I")
    assert [expected_distance(r) for r in rules] == [0, 1 / 8, 1 / 4, pytest.approx(1 / 3), 3 / 8, 1 / 2, 5 / 8]


def test_m3_lies_between_alpha_and_one_half():
    """The histogram has two triangles that meet in the middle."""
    counts = histogram(*coefficients("S-M3-I", draws=20_000), bins=10)
    low, high = counts[:5], counts[5:]
    assert counts.sum() == 20_000
    assert low[:, 5:].sum() == high[:, :5].sum() == 0
    assert np.tril(low[:, :5], -1).sum() == 0, "beta is above alpha where alpha is below one half"


def test_calibration_equals_a_plain_loop():
    random = np.random.default_rng(0)
    logits = 2 * random.standard_normal((500, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = random.integers(0, 4, 500)
    found = calibration.reliability(probabilities, labels)
    ece = 0.0
    for b in range(15):
        inside = [i for i in range(500) if b / 15 < probabilities[i].max() <= (b + 1) / 15]
        assert found.bins[b].images == len(inside)
        if not inside:
            assert found.bins[b].accuracy is None
            continue
        accuracy = sum(probabilities[i].argmax() == labels[i] for i in inside) / len(inside)
        confidence = sum(probabilities[i].max() for i in inside) / len(inside)
        assert (found.bins[b].accuracy, found.bins[b].confidence) == (
            pytest.approx(accuracy),
            pytest.approx(confidence),
        )
        ece += len(inside) / 500 * abs(accuracy - confidence)
    assert found.ece == pytest.approx(ece)
    mistakes = calibration.most_confident_mistakes(probabilities, labels, limit=5)
    wrong = [i for i in range(500) if probabilities[i].argmax() != labels[i]]
    assert list(mistakes) == sorted(wrong, key=lambda i: -probabilities[i].max())[:5]
    matrix = calibration.confusion_matrix(probabilities.argmax(axis=1), labels, 4)
    assert matrix[2, 3] == sum(probabilities[i].argmax() == 3 and labels[i] == 2 for i in range(500))
