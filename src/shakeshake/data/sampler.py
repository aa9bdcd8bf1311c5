"""What is done about uneven classes: an order that shows each class as often, weights that count each as much."""

from __future__ import annotations

import numpy as np

_STREAM = 1  # apart from the other random numbers of an epoch, which stay as they are without balance


def even_order(labels: np.ndarray, seed: tuple[int, int]) -> np.ndarray:
    """As many indices into ``labels`` as it has, every class that is there as often as any other, give or take one.

    labels: (N,) whole numbers from 0. seed: (seed, epoch), which alone decide the order. A small class comes round
    several times, all its images before any of them again; of a large one some images wait for another epoch.
    """
    random = np.random.default_rng((*seed, _STREAM))
    classes = random.permutation(np.unique(labels))  # which ones get one more is drawn, too
    share, more = divmod(len(labels), len(classes))
    drawn = []
    for place, label in enumerate(classes):
        images, wanted = np.flatnonzero(labels == label), share + (place < more)
        rounds = [random.permutation(images) for _ in range(-(-wanted // len(images)))]
        drawn.append(np.concatenate(rounds)[:wanted])
    return random.permutation(np.concatenate(drawn))


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """(classes,) float32: N / (classes that are there * images of the class), 0 for one that is not.

    Their mean over the images is 1, so a balanced loss is of the size of a plain one.
    """
    counts = np.bincount(labels, minlength=classes)
    there = counts > 0
    return np.where(there, len(labels) / (there.sum() * np.maximum(counts, 1)), 0.0).astype(np.float32)
