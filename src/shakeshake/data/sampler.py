"""Class imbalance: a balanced sampling order and class weights for the loss."""

from __future__ import annotations

import numpy as np

_STREAM = 1  # separate random stream, so that balancing leaves the augmentation unchanged


def balanced_order(labels: np.ndarray, seed: tuple[int, int]) -> np.ndarray:
    """Return an epoch's order in which every class is drawn equally often, give or take one image.

    Small classes are cycled through, all images before any image again; large classes are subsampled.

    Args:
        labels: (N,) integers from 0.
        seed: (seed, epoch), which alone determine the order.

    Returns:
        (N,) int64 indices into ``labels``.
    """
    random = np.random.default_rng((*seed, _STREAM))
    classes = random.permutation(np.unique(labels))  # random, because the first classes may get one image more
    per_class, extra = divmod(len(labels), len(classes))
    drawn = []
    for place, label in enumerate(classes):
        images, wanted = np.flatnonzero(labels == label), per_class + (place < extra)
        rounds = [random.permutation(images) for _ in range(-(-wanted // len(images)))]
        drawn.append(np.concatenate(rounds)[:wanted])
    return random.permutation(np.concatenate(drawn))


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return loss weights inversely proportional to class frequency, with mean 1 over the images.

    Args:
        labels: (N,) integers from 0.
        classes: Number of classes.

    Returns:
        (classes,) float32: N / (number of present classes * images of the class); 0 for absent classes.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    return np.where(present, len(labels) / (present.sum() * np.maximum(counts, 1)), 0.0).astype(np.float32)
