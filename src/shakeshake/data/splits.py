"""Cross-validation: the training images cut into stratified parts, always the same ones."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..errors import InputError
from .dataset import ImageData, Split, channel_statistics


def parts(labels: np.ndarray, folds: int) -> np.ndarray:
    """(N,) the part that each image is in, from 0. Of every class each part has as many images, give or take one.

    A function of labels and folds alone: all runs of a comparison are tested on the same parts, and a class that has
    images left over does not always give them to the same part.
    """
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(folds)))
    place = np.empty(len(labels), np.int64)
    first = 0
    for label in np.unique(labels):
        images = random.permutation(np.flatnonzero(labels == label))
        place[images] = (first + np.arange(len(images))) % folds
        first += len(images)
    return place


def with_fold(data: ImageData, folds: int, fold: int) -> ImageData:
    """The data with one part of the training images as its test images, and trained on the others.

    Its own test images are not touched. Raises InputError when a class has fewer images than there are folds.
    """
    labels = np.asarray(data.train.labels)
    counts = np.bincount(labels, minlength=data.num_classes)
    rarest = int(counts.argmin())
    if counts[rarest] < folds:
        raise InputError(
            f"folds: {folds} for {data.name}, whose class {data.classes[rarest]!r} has {counts[rarest]} training "
            f"images, expected at most {counts[rarest]}"
            + (" (which leaves no cross-validation)" if counts[rarest] < 2 else "")
        )
    tested = parts(labels, folds) == fold

    def some(chosen: np.ndarray) -> Split:
        at = np.flatnonzero(chosen)
        return Split(np.ascontiguousarray(data.train.images[at]), np.ascontiguousarray(labels[at]))

    train = some(~tested)
    mean, std = channel_statistics(train.images)
    return dataclasses.replace(data, train=train, test=some(tested), mean=mean, std=std)
