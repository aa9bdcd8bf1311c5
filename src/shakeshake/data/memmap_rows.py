"""Selected rows of a memory-mapped array, for data sets that are larger than memory."""

from __future__ import annotations

from typing import Any

import numpy as np


class MemmapRows:
    """Rows of an array in a file, read when indexed: ``rows[i]``, ``rows[2:5]`` and ``rows[[1, 7]]`` return arrays.

    Args:
        array: Memory-mapped array (N, ...).
        rows: (n,) int64 indices into it.
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows
        self.shape: tuple[int, ...] = (len(rows), *array.shape[1:])
        self.dtype, self.ndim = array.dtype, array.ndim
        self.nbytes = len(rows) * array[:1].nbytes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.array[self.rows[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.array[self.rows], dtype)
