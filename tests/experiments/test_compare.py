"""The intervals: against the formula for large numbers, and what they say when there is nothing to say."""

import base64
import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from shakeshake.experiments.statistics import difference, unpack


def runs(random, n, images, error, spread=0.0):
    """n runs that get images wrong with probability ``error``, itself spread over runs."""
    rates = error + spread * random.standard_normal(n)
    return [random.random(images) < rate for rate in rates]


def test_the_interval_over_images_is_that_of_a_paired_difference():
    random = np.random.default_rng(1)
    common = random.random(4000) < 0.2  # images that are hard for both: they must not widen the interval
    row, against = (common ^ (random.random(4000) < rate) for rate in (0.02, 0.05))
    found = difference([row], [against])
    by_image = 100.0 * (row.astype(float) - against.astype(float))
    half = 1.96 * by_image.std() / math.sqrt(4000)
    assert found.difference == pytest.approx(by_image.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)
    assert found.covers == "test images only (one seed)"
    assert found.verdict == "can't tell", "two networks differ without any reason"
    assert difference([row, row], [against, against]).verdict == "lower"


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 10)])
def test_over_seeds_it_is_welchs_where_images_are_many(n, m):
    random = np.random.default_rng(2)
    row, against = runs(random, n, 100_000, 0.4, 0.1), runs(random, m, 100_000, 0.4, 0.1)
    found = difference(row, against)
    means = [np.array([100.0 * run.mean() for run in some]) for some in (row, against)]
    expected = ttest_ind(*means, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.02)
    assert found.covers == "seeds and test images"


def test_where_there_is_no_difference_one_verdict_in_twenty_says_there_is():
    """Two seeds a row, whose spread is larger than that of the images: a normal interval errs far more often."""
    random = np.random.default_rng(6)
    trials = [difference(*(runs(random, 2, 2000, 0.3, 0.015) for _ in range(2))) for _ in range(600)]
    wrong = sum(found.verdict != "can't tell" for found in trials) / len(trials)
    assert 0.02 < wrong < 0.08, "5 %, whose standard deviation over 600 trials is 0.9 points"


def test_rows_that_are_the_same_cannot_be_told_apart():
    random = np.random.default_rng(3)
    row = runs(random, 2, 500, 0.3, 0.02)
    found = difference(row, row)
    assert found.difference == 0.0
    assert found.verdict == "can't tell"
    same = difference(row[:1], row[:1])
    assert (same.low, same.high) == (0.0, 0.0), "nothing differs by image"
    assert same.verdict == "can't tell"


def test_packed_bits_come_back():
    wrong = np.random.default_rng(4).random(1001) < 0.3
    packed = base64.b64encode(np.packbits(wrong).tobytes()).decode()
    assert (unpack(packed, 1001) == wrong).all()
