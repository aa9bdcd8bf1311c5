"""Confusion matrix, reliability of the probabilities and the most confident mistakes of a classifier."""

from __future__ import annotations

import numpy as np

from .schema import Calibration, ReliabilityBin

BINS = 15


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """Top-label calibration over equal bins of confidence (Guo et al., 2017, equations 2 to 4).

    Args:
        probabilities: (N, classes).
        labels: (N,) class indices.
        bins: number of bins. A confidence on an edge belongs to the bin below it.

    Returns:
        The expected calibration error (mean of |accuracy - confidence| over images, a fraction) and the bins.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    which = np.searchsorted(edges[1:-1], confidence)
    images = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        mean = np.bincount(which, confidence, minlength=bins) / images
        accuracy = np.bincount(which, correct, minlength=bins) / images
    filled = images > 0
    error = float(np.abs(accuracy - mean)[filled] @ images[filled] / len(labels))
    return Calibration(
        ece=error,
        mean_confidence=float(confidence.mean()),
        accuracy=float(correct.mean()),
        bins=tuple(
            ReliabilityBin(
                low=float(edges[i]),
                high=float(edges[i + 1]),
                images=int(images[i]),
                confidence=float(mean[i]) if filled[i] else None,
                accuracy=float(accuracy[i]) if filled[i] else None,
            )
            for i in range(bins)
        ),
    )


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes), row = truth, column = prediction."""
    return np.bincount(classes * labels.astype(np.int64) + predicted, minlength=classes**2).reshape(classes, classes)


def most_confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, limit: int = 12) -> np.ndarray:
    """Indices of misclassified images, the most confident first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")[:limit]]
