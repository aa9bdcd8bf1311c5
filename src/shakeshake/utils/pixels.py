"""Normalisation of pixels, the same in training, evaluation and exported models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def channel_tensor(values: Sequence[float], device: torch.device | str | None = None) -> Tensor:
    """One value per channel as float32 (C, 1, 1), which broadcasts over images (N, C, H, W)."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return ``(images - mean) / std`` per channel.

    Args:
        images: (N, C, H, W), uint8 or floats from 0 to 255.
        mean: (C, 1, 1), on the scale 0 to 255; see `channel_tensor`.
        std: (C, 1, 1), on the same scale.

    Returns:
        (N, C, H, W) float32.
    """
    return (images.float() - mean) / std
