"""Correlations of tensors that arrive in chunks: one pass, constant memory, numerically stable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Elements of each variable converted to float64 at a time. On a CPU a chunk stays in the cache; on a GPU each chunk
# costs a synchronisation.
CHUNK, GPU_CHUNK = 1 << 16, 1 << 24


class CoMoments:
    """Means and co-moments of several variables over all data seen so far, in float64.

    Deviations are taken from the means of each chunk, and chunks are merged by the formula of Chan, Golub and LeVeque
    (1979). Unlike with sums of squares, a large common mean costs no precision.
    """

    def __init__(self, variables: int) -> None:
        self.count = 0
        self.mean = np.zeros(variables)
        self.moments = np.zeros((variables, variables))

    def update(self, tensors: Sequence[Tensor]) -> None:
        """Add one tensor per variable, all of the same shape: corresponding elements are one observation."""
        device = "cpu" if tensors[0].device.type == "mps" else tensors[0].device  # MPS has no float64
        rows = [x.detach().to(device).reshape(-1) for x in tensors]
        if rows[0].numel() == 0:
            return
        size = CHUNK if rows[0].device.type == "cpu" else GPU_CHUNK
        for chunks in zip(*(row.split(size) for row in rows), strict=True):
            chunk = torch.stack(chunks).double()
            mean = chunk.mean(dim=1)
            chunk -= mean[:, None]
            self.merge(chunk.shape[1], mean.cpu().numpy(), (chunk @ chunk.T).cpu().numpy())

    def merge(self, count: int, mean: np.ndarray, moments: np.ndarray) -> None:
        """Add a chunk, given its number of observations, means and co-moments about them."""
        total = self.count + count
        if total == 0:
            return
        delta = mean - self.mean
        self.moments += moments + np.outer(delta, delta) * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total

    def correlation(self) -> np.ndarray:
        """Pearson correlation (variables, variables); nan where a variable is constant."""
        variance = np.diag(self.moments)
        # Rounding gives a constant variable a variance in the last digits of its mean.
        constant = variance <= (1e-14 * self.mean) ** 2 * self.count
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(constant, np.nan, np.sqrt(variance))
            return np.clip(self.moments / np.outer(scale, scale), -1.0, 1.0)
