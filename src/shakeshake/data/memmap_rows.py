"""Rows: images that stay in a file, for sets that are larger than memory."""

from __future__ import annotations

from typing import Any

import numpy as np


class Rows:
    """Some rows of an array in a file, read when they are asked for: ``rows[i]``, ``rows[2:5]`` and ``rows[[1, 7]]``
    are arrays, as of the array that rows stands for."""

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows
        self.shape: tuple[int, ...] = (len(rows), *array.shape[1:])
        self.dtype, self.ndim = array.dtype, array.ndim
        self.nbytes = len(rows) * array[:1].nbytes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> np.ndarray:
        return np.asarray(self.array[self.rows[at]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.array[self.rows], dtype)
