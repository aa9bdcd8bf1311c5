"""The temperature: one number that makes a network as sure as it is right (Guo et al., 2017, section 4.2)."""

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
    """The temperature of least cross-entropy over logits (N, classes) of images that were not trained on.

    (log T)^2 / 2 is added to the sum over the images: among hundreds of images it is nothing, and among a few, all of
    them right, it keeps T from becoming 0 and the network from being certain of everything. The order of classes, and
    so every prediction, stays. Raises InputError for logits that are not finite.
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
    """Probabilities (N, classes), those of each fifth of the images by the temperature of the others.

    What the temperature is worth on images that it was not fitted to. Of fewer than ten images, those as they are.
    """
    if len(labels) < 2 * FOLDS:
        return probabilities(logits)
    fold = np.empty(len(labels), np.int64)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % FOLDS  # every class in all of them
    found = np.empty(logits.shape, np.float64)
    for k in range(FOLDS):
        found[fold == k] = probabilities(logits[fold == k], fit_temperature(logits[fold != k], labels[fold != k]))
    return found


def calibrate(logits: np.ndarray, labels: np.ndarray, split: str) -> dict[str, Any]:
    """What a model's config says of its temperature.

    split: which images these are. loss: their mean cross-entropy without it; loss_calibrated: with it, cross-fitted.
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
