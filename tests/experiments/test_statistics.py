"""Confidence intervals against textbook formulas, and their false positive rate."""

import base64
import math

import numpy as np
import pytest
from scipy import stats

from shakeshake.experiments.statistics import difference, difference_over_folds, paired_difference, unpack


def runs(random, n, images, error, spread=0.0):
    """n runs that get images wrong with probability ``error``, itself spread over runs."""
    rates = error + spread * random.standard_normal(n)
    return dict(enumerate(random.random(images) < rate for rate in rates))


def seeds(*arrays):
    return dict(enumerate(np.asarray(array) for array in arrays))


def test_image_interval_is_that_of_a_paired_difference():
    random = np.random.default_rng(1)
    common = random.random(4000) < 0.2  # images that are hard for both: they must not widen the interval
    row, baseline = (common ^ (random.random(4000) < rate) for rate in (0.02, 0.05))
    found = difference(seeds(row), seeds(baseline))
    by_image = 100.0 * (row.astype(float) - baseline.astype(float))
    half = 1.96 * by_image.std() / math.sqrt(4000)
    assert found.difference == pytest.approx(by_image.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)
    assert found.covers == "test images only (one seed)"
    assert found.paired is found.seeds_needed is None


def test_single_runs_give_no_verdict():
    random = np.random.default_rng(1)
    row, baseline = (random.random(4000) < rate for rate in (0.1, 0.2))
    assert difference(seeds(row), seeds(baseline)).verdict == "can't tell"
    assert difference(seeds(row, row), seeds(baseline, baseline)).verdict == "lower"


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 10)])
def test_seed_interval_is_welchs_t_with_many_images(n, m):
    random = np.random.default_rng(2)
    row, baseline = runs(random, n, 100_000, 0.4, 0.1), runs(random, m, 100_000, 0.4, 0.1)
    found = difference(row, baseline)
    means = [np.array([100.0 * run.mean() for run in some.values()]) for some in (row, baseline)]
    expected = stats.ttest_ind(*means, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.02)
    assert found.covers == "seeds and test images"


def test_verdicts_have_a_false_positive_rate_of_five_percent():
    """Two seeds a row, whose spread is larger than that of the images: a normal interval errs far more often."""
    random = np.random.default_rng(6)
    trials = [difference(*(runs(random, 2, 2000, 0.3, 0.015) for _ in range(2))) for _ in range(600)]
    wrong = sum(found.verdict != "can't tell" for found in trials) / len(trials)
    assert 0.02 < wrong < 0.08, "5 %, whose standard deviation over 600 trials is 0.9 points"


def test_equal_rows_are_not_different():
    random = np.random.default_rng(3)
    row = runs(random, 2, 500, 0.3, 0.02)
    found = difference(row, row)
    assert found.difference == 0.0
    assert found.verdict == "can't tell"
    same = difference({0: row[0]}, {0: row[0]})
    assert (same.low, same.high) == (0.0, 0.0), "nothing differs by image"
    assert same.verdict == "can't tell"


def test_paired_interval_is_students_t_over_common_seeds():
    random = np.random.default_rng(7)
    row, baseline = runs(random, 6, 1000, 0.3, 0.02), runs(random, 8, 1000, 0.35, 0.02)
    row = {seed + 2: run for seed, run in row.items()}  # 2 to 7, in common with 0 to 7
    found = difference(row, baseline).paired
    common = range(2, 8)
    errors = [np.array([100.0 * some[seed].mean() for seed in common]) for some in (row, baseline)]
    expected = stats.ttest_rel(*errors).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.std == pytest.approx((errors[0] - errors[1]).std(ddof=1))
    assert found.n == 6


def test_paired_interval_excludes_variation_shared_by_seeds():
    """Seeds that are hard for both rows widen the independent interval alone."""
    rates = np.linspace(0.2, 0.4, 8)
    row = {i: np.arange(1000) < 1000 * (rate + 0.002 * (i % 2)) for i, rate in enumerate(rates)}
    baseline = {i: np.arange(1000) < 1000 * (rate + 0.02) for i, rate in enumerate(rates)}
    found = difference(row, baseline)
    assert found.verdict == "can't tell"
    assert found.paired.verdict == "lower"
    assert paired_difference({0: row[0]}, {1: baseline[1]}) is None


def power(seeds: int, std: float) -> float:
    """Of a two-sided paired t test at 5 %, for a true difference of one point."""
    bound = stats.t.ppf(0.975, seeds - 1)
    return float(stats.nct.sf(bound, seeds - 1, math.sqrt(seeds) / std))


@pytest.mark.parametrize("std", [0.7, 0.95, 1.2, 2.0])
def test_the_number_of_seeds_needed_has_a_power_of_80_percent(std):
    pairs = np.array([-1.0, 1.0, -1.0, 1.0]) * std * math.sqrt(3 / 4)  # mean 0, standard deviation std
    row = {seed: np.full(100, 0.3 + pair / 100) for seed, pair in enumerate(pairs)}
    found = paired_difference(row, {seed: np.full(100, 0.3) for seed in row})
    assert found.std == pytest.approx(std)
    assert power(found.seeds_needed, std) > 0.78
    assert power(found.seeds_needed - 1, std) < 0.82


def test_no_seeds_are_recommended_for_a_significant_difference():
    row = {seed: np.full(100, value) for seed, value in enumerate((0.30, 0.31, 0.29))}
    baseline = {seed: np.full(100, value) for seed, value in enumerate((0.40, 0.42, 0.41))}
    assert difference(row, baseline).seeds_needed is difference(row, baseline).paired.seeds_needed is None


def test_more_seeds_are_not_recommended_with_too_few_test_images():
    random = np.random.default_rng(8)
    few = difference(runs(random, 3, 200, 0.3, 0.005), runs(random, 3, 200, 0.3, 0.005))
    assert few.verdict == "can't tell"
    assert few.seeds_needed is None


def test_fold_interval_is_students_t_over_fold_differences():
    """Three folds of 4, 3 and 3 images, two seeds: mean +- 4.303 s / sqrt(3) of the folds' differences."""
    row = seeds(np.array([1, 1, 1, 1, 0, 0, 1, 0, 1, 1]) > 0, np.array([1, 1, 0, 0, 0, 1, 1, 0, 0, 1]) > 0)
    baseline = seeds(np.array([0, 0, 1, 0, 0, 0, 1, 0, 1, 0]) > 0, np.array([0, 0, 0, 1, 0, 1, 0, 0, 0, 0]) > 0)
    folds = [6 / 8 - 2 / 8, 3 / 6 - 2 / 6, 3 / 6 - 1 / 6]
    found = difference_over_folds(row, baseline, 3)
    half = 4.302653 * np.std(folds, ddof=1) / np.sqrt(3)
    assert found.difference == pytest.approx(100 * np.mean(folds))
    assert (found.low, found.high) == pytest.approx((100 * (np.mean(folds) - half), 100 * (np.mean(folds) + half)))
    assert found.n == (6, 6)


def test_packed_predictions_round_trip():
    wrong = np.random.default_rng(4).random(1001) < 0.3
    packed = base64.b64encode(np.packbits(wrong).tobytes()).decode()
    assert (unpack(packed, 1001) == wrong).all()
