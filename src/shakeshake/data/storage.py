"""Knows where a loader's images lie: on the device, or in a file of which the next batches are read ahead."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .memmap_rows import Rows

AHEAD = 4  # batches that the system is asked for before they are needed


class Pixels(Protocol):
    """shape: (N, C, H, W)."""

    shape: tuple[int, ...]

    def batches(self, order: np.ndarray | None, pieces: Iterable[slice]) -> Iterator[Tensor]:
        """The images of each piece of an order, by default their own: (n, C, H, W) uint8 on the device.

        Once the first batch is there, no other waits for what a CUDA device was asked to do before.
        """


def pixels_of(images: np.ndarray | Rows, device: torch.device | str) -> Pixels:
    """Rows stay in their file; arrays go to the device as a whole."""
    return InFile(images, device) if isinstance(images, Rows) else OnDevice(images, device)


class OnDevice:
    def __init__(self, images: np.ndarray, device: torch.device | str) -> None:
        self.images = torch.from_numpy(images).to(device)
        self.shape = tuple(images.shape)

    def batches(self, order: np.ndarray | None, pieces: Iterable[slice]) -> Iterator[Tensor]:
        chosen = None if order is None else torch.from_numpy(order).to(self.images.device)
        for piece in pieces:
            yield self.images[piece if chosen is None else chosen[piece]]


class InFile:
    """The system reads the pages of the next batches while this one is computed with, and keeps what fits.

    It is told which pages, and not to read others around them: the order is random, and an image has a few pages.
    """

    def __init__(self, images: Rows, device: torch.device | str) -> None:
        self.images, self.device, self.shape = images, torch.device(device), images.shape
        self._file = getattr(images.array, "_mmap", None) if hasattr(mmap, "MADV_WILLNEED") else None
        if self._file is not None:
            self._file.madvise(mmap.MADV_RANDOM)

    def batches(self, order: np.ndarray | None, pieces: Iterable[slice]) -> Iterator[Tensor]:
        asked: deque[np.ndarray | slice] = deque()
        for piece in pieces:
            at = piece if order is None else order[piece]
            self._ask_for(at)
            asked.append(at)
            if len(asked) > AHEAD:
                yield self._read(asked.popleft())
        while asked:
            yield self._read(asked.popleft())

    def _read(self, at: np.ndarray | slice) -> Tensor:
        images = torch.from_numpy(self.images[at])
        if self.device.type == "cuda":  # from pinned memory it is copied while the device computes
            return images.pin_memory().to(self.device, non_blocking=True)
        return images.to(self.device)

    def _ask_for(self, at: np.ndarray | slice) -> None:
        if self._file is None:
            return
        bytes_each = self.images.array[:1].nbytes
        for row in self.images.rows[at].tolist():
            first = row * bytes_each // mmap.PAGESIZE * mmap.PAGESIZE
            self._file.madvise(mmap.MADV_WILLNEED, first, (row + 1) * bytes_each - first)
