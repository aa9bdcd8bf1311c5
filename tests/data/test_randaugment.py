"""RandAugment depends only on (seed, epoch, step) and leaves torch's generators unchanged."""

import sys

import numpy as np
import pytest
import torch

from shakeshake.data.dataset import Split
from shakeshake.data.loader import Augmentation, Loader
from shakeshake.errors import InputError

pytest.importorskip("kornia")


def split(channels: int = 3) -> Split:
    images = np.random.default_rng(1).integers(0, 256, (50, channels, 16, 16), dtype=np.uint8)
    return Split(images, np.arange(50) % 5)


def batches(first: int = 0, channels: int = 3, magnitude: int = 9, **more) -> list:
    how = Augmentation(flip=True, crop_padding=2, randaugment=magnitude)
    mean = (100.0,) * channels
    return list(Loader(split(channels), mean, mean, batch_size=20, augmentation=how, **more).epoch(2, first))


def test_randaugment_depends_only_on_seed_epoch_and_step():
    torch.manual_seed(1)
    whole = batches()
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again = batches(1)
    assert torch.equal(torch.random.get_rng_state(), before), "torch's generator is as it was"
    for batch, other in zip(whole[1:], again, strict=True):
        assert torch.equal(batch.images, other.images)
    assert not torch.equal(whole[0].images, batches(seed=1)[0].images)
    plain = batches(magnitude=0)
    for batch, other in zip(whole, plain, strict=True):
        assert torch.equal(batch.labels, other.labels)
        assert not torch.equal(batch.images, other.images)
        assert batch.images.shape == other.images.shape
    changed = (whole[0].images - plain[0].images).abs().flatten(1).amax(1) > 0
    assert changed.float().mean() > 0.5
    assert float(whole[0].images.min()) >= -1.0 - 1e-6, "still between 0 and 255 before it was normalised"
    assert float(whole[0].images.max()) <= 1.55 + 1e-6


def test_shards_of_processes_make_up_the_batch():
    for batch, one, other in zip(batches(), batches(rank=0, size=2), batches(rank=1, size=2), strict=True):
        assert torch.equal(batch.images, torch.cat([one.images, other.images]))
        assert one.total == len(batch.labels)


@pytest.mark.parametrize("magnitude", [1, 29])
def test_every_operation_accepts_grey_images(magnitude):
    for epoch in range(6):
        loader = Loader(split(1), (100.0,), (100.0,), batch_size=50, augmentation=Augmentation(randaugment=magnitude))
        for batch in loader.epoch(epoch):
            assert batch.images.shape == (50, 1, 16, 16)
            assert torch.isfinite(batch.images).all()


def test_missing_kornia_is_reported_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.augmentation.auto", None)
    with pytest.raises(InputError, match=r"kornia is not installed; .*shakeshake\[augment\]"):
        batches()
