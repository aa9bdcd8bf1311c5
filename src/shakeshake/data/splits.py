"""Cross-validation: stratified folds of the training images."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..errors import InputError
from .dataset import ImageData, Split, channel_statistics


def fold_ids(labels: np.ndarray, folds: int) -> np.ndarray:
    """Assign each image to a fold, stratified by class.

    The result depends only on labels and number of folds, so all runs of a comparison share their folds. Classes that
    do not divide evenly put their extra images into different folds.

    Args:
        labels: (N,) integers.
        folds: Number of folds.

    Returns:
        (N,) int64 from 0 to ``folds - 1``.
    """
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(folds)))
    ids = np.empty(len(labels), np.int64)
    first = 0
    for label in np.unique(labels):
        images = random.permutation(np.flatnonzero(labels == label))
        ids[images] = (first + np.arange(len(images))) % folds
        first += len(images)
    return ids


def with_fold(data: ImageData, folds: int, fold: int) -> ImageData:
    """Return the data with one fold of the training images as test images and the other folds for training.

    The original test images are not used.

    Raises:
        InputError: A class has fewer training images than there are folds.
    """
    labels = np.asarray(data.train.labels)
    counts = np.bincount(labels, minlength=data.num_classes)
    rarest = int(counts.argmin())
    if counts[rarest] < folds:
        raise InputError(
            f"folds: got {folds}, expected at most {counts[rarest]}, the training images of class "
            f"{data.classes[rarest]!r} of {data.name}"
            + (" (too few for cross-validation)" if counts[rarest] < 2 else "")
        )
    is_test = fold_ids(labels, folds) == fold

    def select(mask: np.ndarray) -> Split:
        rows = np.flatnonzero(mask)
        return Split(np.ascontiguousarray(data.train.images[rows]), np.ascontiguousarray(labels[rows]))

    train = select(~is_test)
    mean, std = channel_statistics(train.images)
    return dataclasses.replace(data, train=train, test=select(is_test), mean=mean, std=std)
