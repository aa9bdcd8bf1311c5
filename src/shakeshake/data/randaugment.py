"""RandAugment (Cubuk et al., 2020) on batches, through kornia: the one file that knows kornia."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

OPERATIONS = 2  # one after the other, as in the paper's recipe for CIFAR-10
GROUP = 8  # images that share their two operations: kornia draws them for a batch, the paper for an image
_STREAM = 2  # apart from the other random numbers of an epoch


class RandAugment:
    """``policy(images, seed)``: two operations for every eight images, of a strength that was given.

    magnitude: 1 to 29, of 30. Raises InputError when kornia is not installed.
    """

    def __init__(self, magnitude: int) -> None:
        try:
            from kornia.augmentation.auto import RandAugment as Policy
        except ImportError:
            raise InputError(
                f"randaugment: kornia is not installed here, expected it for randaugment {magnitude}; "
                "pip install 'shakeshake[augment]'"
            ) from None
        self._policy = Policy(n=OPERATIONS, m=magnitude)

    @torch.no_grad()
    def __call__(self, images: Tensor, seed: tuple[int, int, int]) -> Tensor:
        """images: (N, C, H, W) uint8. seed: (seed, epoch, step), which alone decide what is done.

        Returns (N, C, H, W) float32, from 0 to 255, rounded to whole numbers as files of the images would be.
        """
        groups = images.float().div(255.0).split(GROUP)
        seeds = np.random.SeedSequence((*seed, _STREAM)).generate_state(len(groups), np.uint64)
        changed = []
        with torch.random.fork_rng(devices=[]):  # kornia draws from torch's generator of the CPU
            for group, number in zip(groups, seeds, strict=True):
                torch.random.default_generator.manual_seed(int(number >> np.uint64(1)))
                colours = group.expand(-1, 3, -1, -1)  # grey: some operations know three channels alone
                changed.append(self._policy(colours)[:, : group.shape[1]])
        return torch.cat(changed).mul(255.0).round_().clamp_(0.0, 255.0)
