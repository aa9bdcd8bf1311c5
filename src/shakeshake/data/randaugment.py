"""RandAugment (Cubuk et al., 2020) on batches, with kornia."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..utils.extras import require

OPERATIONS = 2  # in sequence, as in the paper for CIFAR-10
GROUP = 8  # images that share their two operations; kornia draws them per batch, the paper per image
_STREAM = 2  # separate random stream, so that the other augmentation stays unchanged


class RandAugment:
    """Two random operations per group of eight images.

    Args:
        magnitude: Strength of the operations, 1 to 29 (of 30).

    Raises:
        InputError: kornia is not installed.
    """

    def __init__(self, magnitude: int) -> None:
        auto = require("kornia.augmentation.auto", "augment")
        self._policy = auto.RandAugment(n=OPERATIONS, m=magnitude)

    @torch.no_grad()
    def __call__(self, images: Tensor, seed: tuple[int, int, int]) -> Tensor:
        """Augment a batch.

        Args:
            images: (N, C, H, W) uint8.
            seed: (seed, epoch, step), which alone determine the operations.

        Returns:
            (N, C, H, W) float32, integers from 0 to 255.
        """
        groups = images.float().div(255.0).split(GROUP)
        seeds = np.random.SeedSequence((*seed, _STREAM)).generate_state(len(groups), np.uint64)
        changed = []
        with torch.random.fork_rng(devices=[]):  # kornia draws from torch's CPU generator
            for group, number in zip(groups, seeds, strict=True):
                torch.random.default_generator.manual_seed(int(number >> np.uint64(1)))
                colours = group.expand(-1, 3, -1, -1)  # some operations need three channels
                changed.append(self._policy(colours)[:, : group.shape[1]])
        return torch.cat(changed).mul(255.0).round_().clamp_(0.0, 255.0)
