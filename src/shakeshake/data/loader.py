"""Batches of images on the device, reproducible from (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..utils.pixels import channel_tensor, normalize
from . import augment
from .dataset import Split
from .randaugment import RandAugment
from .sampler import balanced_order
from .storage import storage_of


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images, with the fields of `Recipe`.

    Applied in this order: RandAugment, normalisation, flip, crop, Cutout, mixup.
    """

    flip: bool = False
    crop_padding: int = 0
    cutout_size: int = 0
    mixup_alpha: float = 0.0
    randaugment: int = 0


@dataclass(frozen=True)
class Batch:
    """Images and labels of one step, or of a part of it.

    Attributes:
        images: (N, C, H, W) float32, normalised.
        labels: (N,) int64.
        total: Images in the whole step; larger than N for a microbatch or one process's shard.
        labels_b: (N,) int64, labels of the images that mixup blended in, or None without mixup.
        lam: Scalar, weight of ``labels`` under mixup; ``labels_b`` has weight ``1 - lam``.
    """

    images: Tensor
    labels: Tensor
    total: int
    labels_b: Tensor | None = None
    lam: Tensor | None = None

    def microbatches(self, max_size: int | None) -> list[Batch]:
        """Split into the fewest nearly equal microbatches of at most ``max_size`` images (None: do not split)."""
        n = len(self.labels)
        if max_size is None or n <= max_size:
            return [self]
        count = -(-n // max_size)
        labels_b = self.labels_b.tensor_split(count) if self.labels_b is not None else [None] * count
        parts = zip(self.images.tensor_split(count), self.labels.tensor_split(count), labels_b, strict=True)
        return [Batch(images, labels, self.total, b, self.lam) for images, labels, b in parts]

    def shard(self, rows: slice) -> Batch:
        """Return the batch restricted to some of its images."""
        labels_b = None if self.labels_b is None else self.labels_b[rows]
        return Batch(self.images[rows], self.labels[rows], self.total, labels_b, self.lam)


class Loader:
    """Iterates over a split in batches on the device.

    Order and augmentation of an epoch depend only on (seed, epoch), not on the device or on earlier epochs, so an
    interrupted run can continue at any step. The last batch of an epoch may be smaller.

    Args:
        split: Images and labels.
        mean: Mean of each channel, on the scale 0 to 255.
        std: Standard deviation of each channel, on the same scale.
        batch_size: Images per step, over all processes.
        seed: Seed of order and augmentation.
        augmentation: Augmentation of `epoch`; none by default. `eval_batches` never augments.
        device: Device of the batches.
        rank: Index of this process. Each process gets its own shard of every batch.
        size: Number of processes.
        balanced: Draw every class equally often in an epoch of the same length (see `sampler.balanced_order`).

    Raises:
        InputError: RandAugment is requested and kornia is not installed.
    """

    def __init__(
        self,
        split: Split,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        batch_size: int,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        device: torch.device | str = "cpu",
        rank: int = 0,
        size: int = 1,
        balanced: bool = False,
    ) -> None:
        self.rank, self.size = rank, size
        self.images = storage_of(split.images, device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.mean, self.std = channel_tensor(mean, device), channel_tensor(std, device)
        self.batch_size, self.seed, self.augmentation = batch_size, seed, augmentation or Augmentation()
        self.balanced, self._labels = balanced, split.labels
        self.randaugment = RandAugment(self.augmentation.randaugment) if self.augmentation.randaugment else None
        self.steps_per_epoch = -(-len(self.labels) // batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the augmented batches of an epoch, starting at ``first_step``."""
        n, (height, width), config = len(self.labels), self.images.shape[-2:], self.augmentation
        random = np.random.default_rng((self.seed, epoch))

        def on_device(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(self.labels.device)

        shuffled = random.permutation(n)
        order = balanced_order(self._labels, (self.seed, epoch)) if self.balanced else shuffled
        # Everything random is copied to the device once per epoch: a copy per step would wait for the step before.
        labels = self.labels[on_device(order)]
        # All numbers are drawn whatever is enabled, so that enabling one augmentation leaves the others unchanged.
        mirrored = on_device(random.random(n) < 0.5)
        corner = on_device(random.integers(0, 2 * config.crop_padding + 1, (2, n)))
        hole = on_device(random.integers(0, (height, width), (n, 2)))
        lams = None
        if alpha := config.mixup_alpha:
            lams = on_device(random.beta(alpha, alpha, self.steps_per_epoch).astype(np.float32))
        # Mixup partners and RandAugment groups may belong to another process: shard the batch after augmentation then.
        shard_last = lams is not None or self.randaugment is not None

        def rows_of(step: int) -> tuple[int, slice, slice]:
            """Images in the step, this process's shard of them, and the rows of the epoch to augment here."""
            first, end = step * self.batch_size, min(n, (step + 1) * self.batch_size)
            mine = self.rank_slice(end - first)
            rows = slice(first, end) if shard_last else slice(first + mine.start, first + mine.stop)
            return end - first, mine, rows

        steps = range(first_step, self.steps_per_epoch)
        batches = self.images.batches(order, (rows_of(step)[2] for step in steps))
        for step, images in zip(steps, batches, strict=True):
            total, mine, rows = rows_of(step)
            if self.randaugment is not None:
                images = self.randaugment(images, (self.seed, epoch, step))
            x, y = normalize(images, self.mean, self.std), labels[rows]
            if config.flip:
                x = augment.flip(x, mirrored[rows])
            if config.crop_padding:
                x = augment.crop(x, corner[0, rows], corner[1, rows], config.crop_padding)
            if config.cutout_size:
                x = augment.cutout(x, hole[rows, 0], hole[rows, 1], config.cutout_size)
            batch = Batch(x, y, total)
            if lams is not None:  # the order is random, so the reversed batch gives random partners
                partner = torch.arange(len(y) - 1, -1, -1, device=y.device)
                batch = Batch(augment.mixup(x, partner, lams[step]), y, total, y[partner], lams[step])
            yield batch.shard(mine) if shard_last else batch

    def rank_slice(self, images: int) -> slice:
        """Return this process's part of a batch of ``images``; parts differ by at most one image."""
        least, more = divmod(images, self.size)
        start = self.rank * least + min(self.rank, more)
        return slice(start, start + least + (self.rank < more))

    def eval_batches(self, batch_size: int = 256) -> Iterator[Batch]:
        """Yield all images once in their original order, normalised but not augmented."""
        slices = [slice(first, first + batch_size) for first in range(0, len(self.labels), batch_size)]
        for rows, images in zip(slices, self.images.batches(None, slices), strict=True):
            y = self.labels[rows]
            yield Batch(normalize(images, self.mean, self.std), y, len(y))
