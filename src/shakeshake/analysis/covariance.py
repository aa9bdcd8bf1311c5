"""Correlations of tensors that come in pieces: one pass, constant memory, stable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Elements of each variable in float64 at a time: on a CPU they stay in the cache, a GPU is waited for after each piece.
PIECE, PIECE_ON_GPU = 1 << 16, 1 << 24


class CoMoments:
    """Means and co-moments of some variables over everything seen, merged piece by piece in float64.

    Within a piece deviations are taken from the piece's own means, and pieces are merged by the formula of Chan, Golub
    and LeVeque (1979). A large common mean therefore costs no digits, as it would with sums of squares.
    """

    def __init__(self, variables: int) -> None:
        self.count = 0
        self.mean = np.zeros(variables)
        self.moments = np.zeros((variables, variables))

    def update(self, tensors: Sequence[Tensor]) -> None:
        """Add one tensor for each variable, all of one shape: corresponding elements are observed together."""
        on = "cpu" if tensors[0].device.type == "mps" else tensors[0].device  # which has no float64
        rows = [x.detach().to(on).reshape(-1) for x in tensors]
        if rows[0].numel() == 0:
            return
        size = PIECE if rows[0].device.type == "cpu" else PIECE_ON_GPU
        for pieces in zip(*(row.split(size) for row in rows), strict=True):
            piece = torch.stack(pieces).double()
            mean = piece.mean(dim=1)
            piece -= mean[:, None]
            self.merge(piece.shape[1], mean.cpu().numpy(), (piece @ piece.T).cpu().numpy())

    def merge(self, count: int, mean: np.ndarray, moments: np.ndarray) -> None:
        """Add a piece by its number of observations, means and co-moments about them."""
        total = self.count + count
        if total == 0:
            return
        apart = mean - self.mean
        self.moments += moments + np.outer(apart, apart) * (self.count * count / total)
        self.mean += apart * (count / total)
        self.count = total

    def correlation(self) -> np.ndarray:
        """Pearson correlation of every pair (variables, variables); nan where a variable is constant."""
        variance = np.diag(self.moments)
        # Rounding leaves a constant variable a variance of its mean's last digits.
        constant = variance <= (1e-14 * self.mean) ** 2 * self.count
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(constant, np.nan, np.sqrt(variance))
            return np.clip(self.moments / np.outer(scale, scale), -1.0, 1.0)
