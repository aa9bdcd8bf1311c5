"""Batches of images on the device. Every random number of an epoch is a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import augment
from .randaugment import RandAugment
from .registry import Split
from .sampler import even_order
from .storage import pixels_of


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image, in this order: RandAugment, normalise, flip, crop, Cutout, mixup.

    Fields as in Recipe.
    """

    flip: bool = False
    crop_padding: int = 0
    cutout_size: int = 0
    mixup_alpha: float = 0.0
    randaugment: int = 0


@dataclass(frozen=True)
class Batch:
    """images (N, C, H, W) float32, labels (N,) int64; under mixup also the second labels and the first ones' share.

    total: images of the whole step. More than N where several processes, or parts, have theirs.
    """

    images: Tensor
    labels: Tensor
    total: int
    second: Tensor | None = None
    share: Tensor | None = None

    def parts(self, most: int | None) -> list[Batch]:
        """The batch cut into equal parts of at most ``most`` images."""
        n = len(self.labels)
        if most is None or n <= most:
            return [self]
        count = -(-n // most)
        seconds = self.second.tensor_split(count) if self.second is not None else [None] * count
        pairs = zip(self.images.tensor_split(count), self.labels.tensor_split(count), seconds, strict=True)
        return [Batch(images, labels, self.total, second, self.share) for images, labels, second in pairs]

    def piece(self, at: slice) -> Batch:
        """Some of its images."""
        second = None if self.second is None else self.second[at]
        return Batch(self.images[at], self.labels[at], self.total, second, self.share)


class Loader:
    """The training images, batch by batch on the device.

    The order and the augmentation of an epoch depend on (seed, epoch) alone, not on the device and not on what was
    asked for before: a run can start again at any step. The last batch is as short as it falls.

    rank, size: of several processes, each gets its piece of every batch; the pieces make up what one would get.
    even: as many images of each class in an epoch, and as many images in all as without (see balance.even_order).

    Raises InputError when RandAugment is asked for and kornia is not there.
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
        even: bool = False,
    ) -> None:
        self.rank, self.size = rank, size
        self.pixels = pixels_of(split.images, device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.mean, self.std = (torch.tensor(v, dtype=torch.float32, device=device) for v in (mean, std))
        self.batch_size, self.seed, self.augmentation = batch_size, seed, augmentation or Augmentation()
        self.even, self._labels = even, split.labels
        self.policy = RandAugment(self.augmentation.randaugment) if self.augmentation.randaugment else None
        self.steps_per_epoch = -(-len(self.labels) // batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from ``first_step`` on."""
        n, (height, width), how = len(self.labels), self.pixels.shape[-2:], self.augmentation
        random = np.random.default_rng((self.seed, epoch))

        def on_device(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(self.labels.device)

        shuffled = random.permutation(n)
        order = even_order(self._labels, (self.seed, epoch)) if self.even else shuffled
        # What the steps need of the epoch goes to the device now: a copy at every step would wait for the one before.
        labels = self.labels[on_device(order)]
        # All are drawn whatever is switched on, so that switching one on leaves the others as they were.
        mirrored = on_device(random.random(n) < 0.5)
        corner = on_device(random.integers(0, 2 * how.crop_padding + 1, (2, n)))
        hole = on_device(random.integers(0, (height, width), (n, 2)))
        shares = None
        if how.mixup_alpha:
            shares = on_device(random.beta(how.mixup_alpha, how.mixup_alpha, self.steps_per_epoch).astype(np.float32))

        def cut(step: int) -> tuple[int, slice, slice]:
            """Of a step: images in all, which of them are this process's, which are to be augmented here."""
            first, end = step * self.batch_size, min(n, (step + 1) * self.batch_size)
            mine = self.piece_of(end - first)
            # Mixup's partners and RandAugment's groups may be another process's images: the batch is cut after them.
            return end - first, mine, slice(first, end) if whole else slice(first + mine.start, first + mine.stop)

        whole = shares is not None or self.policy is not None
        steps = range(first_step, self.steps_per_epoch)
        fetched = self.pixels.batches(order, (cut(step)[2] for step in steps))
        for step, images in zip(steps, fetched, strict=True):
            total, mine, at = cut(step)
            if self.policy is not None:
                images = self.policy(images, (self.seed, epoch, step))
            x, y = augment.normalise(images, self.mean, self.std), labels[at]
            if how.flip:
                x = augment.flip(x, mirrored[at])
            if how.crop_padding:
                x = augment.crop(x, corner[0, at], corner[1, at], how.crop_padding)
            if how.cutout_size:
                x = augment.cutout(x, hole[at, 0], hole[at, 1], how.cutout_size)
            batch = Batch(x, y, total)
            if shares is not None:  # the order is random already, so the batch backwards is a random partner
                partner = torch.arange(len(y) - 1, -1, -1, device=y.device)
                batch = Batch(augment.mixup(x, partner, shares[step]), y, total, y[partner], shares[step])
            yield batch.piece(mine) if whole else batch

    def piece_of(self, images: int) -> slice:
        """Which of a batch's images are this process's. Pieces differ by one image at most."""
        least, more = divmod(images, self.size)
        start = self.rank * least + min(self.rank, more)
        return slice(start, start + least + (self.rank < more))

    def plain(self, batch_size: int = 256) -> Iterator[Batch]:
        """All images once in their own order, normalised and not augmented: for evaluation."""
        pieces = [slice(first, first + batch_size) for first in range(0, len(self.labels), batch_size)]
        for at, images in zip(pieces, self.pixels.batches(None, pieces), strict=True):
            y = self.labels[at]
            yield Batch(augment.normalise(images, self.mean, self.std), y, len(y))
