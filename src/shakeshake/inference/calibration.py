"""Temperature scaling, which calibrates the probabilities of a network (Guo et al., 2017, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError

LOWEST, HIGHEST = 0.1, 10.0
FOLDS = 5


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """softmax(logits / temperature) in float64. logits: (N, classes)."""
    return np.exp(_log_softmax(logits, temperature))


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean cross-entropy of labels (N,)."""
    return -float(_log_softmax(logits, temperature)[np.arange(len(labels)), labels].mean())


def _log_softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fit the temperature with the least cross-entropy on images that were not trained on.

    (log T)^2 / 2 is added to the sum over the images. With hundreds of images it is negligible; with a few, all
    classified correctly, it keeps T from approaching 0. The order of classes and so every prediction stays the same.

    Args:
        logits: (N, classes).
        labels: (N,).

    Raises:
        InputError: If there are no images or a logit is not finite.
    """
    if not len(labels) or not np.isfinite(logits).all():
        raise InputError("logits: expected finite ones, of one image or more")

    def objective(log_temperature: float) -> float:
        return len(labels) * loss(logits, labels, math.exp(log_temperature)) + log_temperature**2 / 2

    return math.exp(_minimize(objective, math.log(LOWEST), math.log(HIGHEST)))


def _minimize(objective: Callable[[float], float], low: float, high: float, tolerance: float = 1e-7) -> float:
    """Minimum of a unimodal function by golden-section search."""
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = objective(left), objective(right)
    while high - low > tolerance:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = objective(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = objective(right)
    return (low + high) / 2.0


def cross_fitted(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) of each fifth of the images by the temperature fitted to the other four.

    This estimates the temperature's effect on images that it was not fitted to. With fewer than ten images no
    temperature is applied.
    """
    if len(labels) < 2 * FOLDS:
        return probabilities(logits)
    fold = np.empty(len(labels), np.int64)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % FOLDS  # every class in all folds
    found = np.empty(logits.shape, np.float64)
    for k in range(FOLDS):
        found[fold == k] = probabilities(logits[fold == k], fit_temperature(logits[fold != k], labels[fold != k]))
    return found


def calibrate(logits: np.ndarray, labels: np.ndarray, split: str) -> dict[str, Any]:
    """Fit the temperature and describe its effect, for the model's config.

    Args:
        logits: (N, classes).
        labels: (N,).
        split: Name of the split that the images come from.

    Returns:
        ``temperature``, and ``calibration`` with the split, the number of images, and their mean cross-entropy without
        (``loss``) and with the temperature, cross-fitted (``loss_calibrated``).
    """
    apart = cross_fitted(logits, labels)
    return {
        "temperature": round(fit_temperature(logits, labels), 6),
        "calibration": {
            "split": split,
            "images": len(labels),
            "loss": loss(logits, labels),
            "loss_calibrated": -float(np.log(apart[np.arange(len(labels)), labels].clip(1e-300)).mean()),
        },
    }
