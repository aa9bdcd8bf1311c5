"""Augmentation of whole batches as pure functions; `Loader.epoch` draws the random arguments."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror images (N, C, H, W) left to right where ``mirrored`` (N,) bool is true."""
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, top: Tensor, left: Tensor, padding: int) -> Tensor:
    """Pad with zeros on all sides and crop a window of the original size at a position per image.

    Args:
        images: (N, C, H, W), normalised, so that the border has the mean colour (as in the paper's code release).
        top: (N,) int64, from 0 to ``2 * padding``.
        left: (N,) int64, likewise.
        padding: Pixels added on every side.

    Returns:
        (N, C, H, W) in channels_last memory format.
    """
    n, _, h, w = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = top[:, None] + torch.arange(h, device=images.device)
    columns = left[:, None] + torch.arange(w, device=images.device)
    which = torch.arange(n, device=images.device)
    # Indices on both sides of the channel axis put the channels last: (N, H, W, C), the layout convolutions prefer.
    return padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor, row: Tensor, column: Tensor, size: int) -> Tensor:
    """Set a square of each image to 0, the mean colour (Cutout; DeVries and Taylor, 2017).

    Args:
        images: (N, C, H, W), normalised.
        row: (N,) int64, row of the square's centre. Squares are clipped at the border.
        column: (N,) int64, column of the centre.
        size: Side of the square in pixels.
    """
    _, _, h, w = images.shape

    def inside(centre: Tensor, side: int) -> Tensor:
        first = (centre - size // 2)[:, None]
        at = torch.arange(side, device=images.device)
        return (at >= first) & (at < first + size)

    hole = inside(row, h)[:, :, None] & inside(column, w)[:, None, :]
    return images.masked_fill(hole[:, None], 0.0)


def mixup(images: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """Return ``lam * images + (1 - lam) * images[partner]`` for a scalar ``lam`` (Zhang et al., 2018)."""
    return torch.lerp(images[partner], images, lam)
