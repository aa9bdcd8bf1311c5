"""The temperature: one number that makes a network as sure as it is right (Guo et al., 2017, section 4.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError

LOWEST, HIGHEST = 0.1, 10.0
FOLDS = 5


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """softmax(logits / temperature) in float64. logits: (N, classes)."""
    from scipy.special import softmax

    return softmax(logits.astype(np.float64) / temperature, axis=1)


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean cross-entropy of labels (N,)."""
    from scipy.special import log_softmax

    scaled = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -float(scaled[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of least cross-entropy over logits (N, classes) of images that were not trained on.

    (log T)^2 / 2 is added to the sum over the images: among hundreds of images it is nothing, and among a few, all of
    them right, it keeps T from becoming 0 and the network from being certain of everything. The order of classes, and
    so every prediction, stays. Raises InputError for logits that are not finite.
    """
    from scipy.optimize import minimize_scalar

    if not len(labels) or not np.isfinite(logits).all():
        raise InputError("logits: expected finite ones, of one image or more")
    found = minimize_scalar(
        lambda t: len(labels) * loss(logits, labels, np.exp(t)) + t**2 / 2,
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


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
