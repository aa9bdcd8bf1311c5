"""The temperature against known factors, against a grid search, and with very few images."""

import dataclasses

import numpy as np
import pytest

import shakeshake as ss
from shakeshake.errors import InputError
from shakeshake.inference.calibration import FOLDS, calibrate, cross_fitted, fit_temperature, loss, probabilities
from shakeshake.train.calibration_split import calibration_images


def drawn(n: int = 4_000, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from exactly their softmax: a temperature of 1."""
    random = np.random.default_rng(seed)
    logits = 2 * random.standard_normal((n, classes))
    odds = np.exp(logits)
    labels = [random.choice(classes, p=row / row.sum()) for row in odds]
    return logits, np.array(labels)


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_temperature_recovers_a_known_factor(factor):
    logits, labels = drawn()
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.06)


def test_temperature_minimises_the_penalised_loss():
    logits, labels = drawn(200)
    found = fit_temperature(3 * logits, labels)
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 4001))
    slow = []
    for t in grid:
        scaled = 3 * logits / t
        rows = [row[k] - np.log(np.exp(row).sum()) for row, k in zip(scaled, labels, strict=True)]
        slow.append(-np.sum(rows) + np.log(t) ** 2 / 2)
    assert found == pytest.approx(grid[int(np.argmin(slow))], rel=2e-3)
    assert loss(3 * logits, labels, found) < loss(3 * logits, labels)


def test_temperature_stays_moderate_if_all_of_few_images_are_correct():
    logits = 4 * np.eye(3)[[0, 1, 2, 0]]
    found = fit_temperature(logits, np.array([0, 1, 2, 0]))
    assert 0.3 < found < 1
    with pytest.raises(InputError, match="logits"):
        fit_temperature(np.array([[np.nan, 1.0]]), np.array([0]))


def test_cross_fitted_temperature_excludes_the_own_fold():
    """A wrong label never changes the probabilities of images in the same fold."""
    logits, labels = drawn(100)
    before = cross_fitted(logits, labels)
    other = labels.copy()
    other[17] = (labels[17] + 1) % 5
    order = np.argsort(labels, kind="stable")
    fold = np.empty(100, int)
    fold[order] = np.arange(100) % FOLDS
    for k in range(FOLDS):
        apart = fit_temperature(logits[fold != k], labels[fold != k])
        assert np.allclose(before[fold == k], probabilities(logits[fold == k], apart))
    assert (cross_fitted(logits[:9], labels[:9]) == probabilities(logits[:9])).all()
    told = calibrate(3 * logits, labels, "test")["calibration"]
    assert told["loss_calibrated"] < told["loss"]


def test_calibration_prefers_validation_images():
    data = ss.load_data("digits", train_size=50)
    assert calibration_images(data) == (data.test, "test")
    assert calibration_images(dataclasses.replace(data, val=data.train)) == (data.train, "val")
