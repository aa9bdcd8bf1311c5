"""What a network's probabilities are worth: confusion, calibration error, the most confident mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Top-label calibration over equal bins of confidence (Guo et al., 2017, equations 2 to 4).

    edges: (bins + 1,). images, confidence, accuracy: (bins,), the last two nan where a bin is empty. ece: the mean of
    |accuracy - confidence| over images, a fraction.
    """

    edges: np.ndarray
    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Reliability of probabilities (N, classes) for labels (N,). A confidence on an edge counts below it."""
    from sklearn.calibration import calibration_curve

    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    images = np.bincount(np.searchsorted(edges[1:-1], confidence), minlength=bins)
    accuracy, mean = np.full(bins, np.nan), np.full(bins, np.nan)
    accuracy[images > 0], mean[images > 0] = calibration_curve(correct, np.clip(confidence, 0, 1), n_bins=bins)
    apart = np.abs(accuracy - mean)[images > 0]
    return Reliability(edges, images, mean, accuracy, float(apart @ images[images > 0] / len(labels)))


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes), row = truth, column = predicted."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predicted, labels=np.arange(classes))


def most_confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, most: int = 12) -> np.ndarray:
    """Indices of wrongly predicted images, the most confident ones first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")[:most]]
