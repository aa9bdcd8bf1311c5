"""Augmentation against plain loops over pixels, and the order of an epoch as a function of (seed, epoch)."""

import numpy as np
import pytest
import torch

from shakeshake.data import augment
from shakeshake.data.dataset import Split
from shakeshake.data.loader import Augmentation, Batch, Loader
from shakeshake.utils.pixels import channel_tensor, normalize

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 61.0, 62.0)


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (50, 3, 8, 8), dtype=np.uint8), np.arange(50, dtype=np.int64))


def test_augmentation_matches_loops_over_pixels(split):
    """Normalise, flip, then pad with zeros: the border has the mean colour, not black."""
    images = torch.from_numpy(split.images[:4])
    mirrored = torch.tensor([True, False, True, False])
    top, left, pad = torch.tensor([0, 2, 4, 1]), torch.tensor([4, 2, 0, 3]), 2
    x = normalize(images, channel_tensor(MEAN), channel_tensor(STD))
    ours = augment.crop(augment.flip(x, mirrored), top, left, pad)
    for n in range(4):
        for c in range(3):
            for i in range(8):
                for j in range(8):
                    row, column = i + int(top[n]) - pad, j + int(left[n]) - pad
                    expected = 0.0
                    if 0 <= row < 8 and 0 <= column < 8:
                        source = 7 - column if mirrored[n] else column
                        expected = (float(images[n, c, row, source]) - MEAN[c]) / STD[c]
                    assert float(ours[n, c, i, j]) == pytest.approx(expected, abs=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_cutout_removes_a_square_and_mixup_blends():
    x = torch.ones(2, 3, 8, 8)
    cut = augment.cutout(x, torch.tensor([4, 0]), torch.tensor([4, 0]), 4)
    assert (cut[0, :, 2:6, 2:6] == 0).all()
    assert cut[0].sum() == 3 * (64 - 16)
    assert cut[1].sum() == 3 * (64 - 4), "a square at the corner is cut off"
    a = torch.randn(2, 1, 2, 2)
    mixed = augment.mixup(a, torch.tensor([1, 0]), torch.tensor(0.25))
    assert torch.allclose(mixed[0], 0.25 * a[0] + 0.75 * a[1])


def labels(batches: list[Batch]) -> list[int]:
    return [int(label) for batch in batches for label in batch.labels]


def test_epoch_depends_only_on_seed_and_epoch_and_can_start_at_any_step(split):
    how = Augmentation(flip=True, crop_padding=2, cutout_size=3, mixup_alpha=0.5)

    def loader(seed):
        return Loader(split, MEAN, STD, batch_size=16, seed=seed, augmentation=how)

    whole = list(loader(7).epoch(3))
    assert [len(b.labels) for b in whole] == [16, 16, 16, 2], "the short last batch is kept"
    assert sorted(labels(whole)) == list(range(50)), "each image once"
    for batch, again in zip(whole[2:], loader(7).epoch(3, first_step=2), strict=True):
        assert torch.equal(batch.images, again.images), "an epoch can start at any step"
        assert torch.equal(batch.labels_b, again.labels_b)
    assert labels(loader(7).epoch(4)) != labels(whole)
    assert labels(loader(8).epoch(3)) != labels(whole)


def test_flips_and_crops_are_uniformly_random(split):
    big = Split(np.zeros((20_000, 1, 8, 8), np.uint8), np.zeros(20_000, np.int64))
    big.images[:, :, 3, 2] = 255  # one bright pixel tells where each image went
    (batch,) = Loader(
        big, (0.0,), (1.0,), batch_size=20_000, augmentation=Augmentation(flip=True, crop_padding=2)
    ).epoch(0)
    place = batch.images.flatten(1).argmax(dim=1)
    rows, columns = np.unravel_index(place.numpy(), (8, 8))
    assert set(rows) == {1, 2, 3, 4, 5}
    assert set(columns) == {0, 1, 2, 3, 4} | {3, 4, 5, 6, 7}
    counts = np.bincount(rows)[1:6]
    assert abs(counts - 4000).max() < 5 * np.sqrt(4000), "positions are uniform"
    assert abs((columns >= 5).mean() - 0.3) < 0.02, "half of the images are mirrored"


def test_eval_batches_yield_every_image_once_without_augmentation(split):
    batches = list(Loader(split, MEAN, STD, batch_size=16).eval_batches(batch_size=20))
    assert labels(batches) == list(range(50))
    expected = (split.images[0].astype(np.float32) - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert np.allclose(batches[0].images[0], expected, atol=1e-6)


def test_microbatches_are_equal_and_complete(split):
    (batch, *_) = Loader(split, MEAN, STD, batch_size=40).epoch(0)
    parts = batch.microbatches(16)
    assert [len(p.labels) for p in parts] == [14, 13, 13]
    assert torch.equal(torch.cat([p.images for p in parts]), batch.images)
    assert batch.microbatches(None) == [batch]
