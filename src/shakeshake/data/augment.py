"""Augmentation of whole batches, on any device. The random numbers come in as arguments: see Loader.epoch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(images - mean) / std, per channel.

    images: (N, C, H, W) uint8, or floats from 0 to 255. mean, std: (C,), in units of
    0..255. Returns float32 of the same shape.
    """
    return (images.float() - mean[:, None, None]) / std[:, None, None]


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror those images left to right for which ``mirrored`` (N,), bool, is true."""
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, top: Tensor, left: Tensor, padding: int) -> Tensor:
    """Pad with zeros on every side and cut out windows of the old size, one position for each image.

    images: (N, C, H, W), already normalised, so that the border is the mean colour (as in the author's release).
    top, left: (N,), from 0 to 2 * padding. Returns (N, C, H, W) in channels_last memory format.
    """
    n, _, h, w = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = top[:, None] + torch.arange(h, device=images.device)
    columns = left[:, None] + torch.arange(w, device=images.device)
    which = torch.arange(n, device=images.device)
    # Indices on both sides of the channel axis put the channels last: (N, H, W, C), which is what convolutions want.
    return padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor, row: Tensor, column: Tensor, size: int) -> Tensor:
    """Set a square around (row, column) of each image to 0, the mean colour (DeVries and Taylor, 2017).

    row, column: (N,), the centre; a square at the border is cut off by it.
    """
    _, _, h, w = images.shape

    def inside(centre: Tensor, side: int) -> Tensor:
        first = (centre - size // 2)[:, None]
        at = torch.arange(side, device=images.device)
        return (at >= first) & (at < first + size)

    hole = inside(row, h)[:, :, None] & inside(column, w)[:, None, :]
    return images.masked_fill(hole[:, None], 0.0)


def mixup(images: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """``share * images + (1 - share) * images[partner]`` (Zhang et al., 2018); share: a scalar tensor."""
    return torch.lerp(images[partner], images, share)
