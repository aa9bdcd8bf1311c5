"""Stratified, reproducible folds that test each image once."""

import numpy as np
import pytest

from shakeshake.data.dataset import channel_statistics, from_arrays
from shakeshake.data.splits import fold_ids, with_fold
from shakeshake.errors import InputError

LABELS = np.repeat(np.arange(4), (31, 17, 7, 5))[np.random.default_rng(0).permutation(60)]


def test_folds_are_stratified_and_of_equal_size():
    place = fold_ids(LABELS, 5)
    assert (place == fold_ids(LABELS, 5)).all()
    assert set(np.bincount(place)) == {12}
    for label in range(4):
        counts = np.bincount(place[label == LABELS], minlength=5)
        assert np.ptp(counts) <= 1, "of each class as many, give or take one"
    assert (place != np.arange(60) % 5).any(), "not in the order of the files"


def test_each_fold_is_tested_once_and_the_others_are_trained_on():
    images = np.random.default_rng(1).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    data = from_arrays(images, LABELS, images[:4], LABELS[:4] * 0)
    seen = []
    for fold in range(3):
        cut = with_fold(data, 3, fold)
        assert len(cut.train.labels) + len(cut.test.labels) == 60
        both = np.concatenate([cut.train.images, cut.test.images])
        assert {image.tobytes() for image in both} == {image.tobytes() for image in data.train.images}
        assert cut.mean == channel_statistics(cut.train.images)[0], "nothing of the tested images is known"
        seen += [image.tobytes() for image in cut.test.images]
    assert sorted(seen) == sorted(image.tobytes() for image in data.train.images), "each image is tested once"
    with pytest.raises(
        InputError, match=r"folds: got 6, expected at most 5, the training images of class '3' of arrays"
    ):
        with_fold(data, 6, 0)
