"""Image storage of a loader: on the device, or in a memory-mapped file that is read ahead."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from .memmap_rows import MemmapRows

READ_AHEAD = 4  # batches whose pages are requested before they are needed


def storage_of(images: np.ndarray | MemmapRows, device: torch.device | str) -> MemmapImages | DeviceImages:
    """Return storage for images: memory-mapped rows stay in their file, arrays are copied to the device."""
    return MemmapImages(images, device) if isinstance(images, MemmapRows) else DeviceImages(images, device)


class DeviceImages:
    """All images (N, C, H, W) on the device."""

    def __init__(self, images: np.ndarray, device: torch.device | str) -> None:
        self.images = torch.from_numpy(images).to(device)
        self.shape = tuple(images.shape)

    def batches(self, order: np.ndarray | None, slices: Iterable[slice]) -> Iterator[Tensor]:
        """Yield the images of each slice of ``order`` (None: original order) as (n, C, H, W) uint8."""
        rows = None if order is None else torch.from_numpy(order).to(self.images.device)
        for part in slices:
            yield self.images[part if rows is None else rows[part]]


class MemmapImages:
    """Images in a memory-mapped file. The operating system reads the next batches during the current step."""

    def __init__(self, images: MemmapRows, device: torch.device | str) -> None:
        self.images, self.device, self.shape = images, torch.device(device), images.shape
        self._file = getattr(images.array, "_mmap", None) if hasattr(mmap, "MADV_WILLNEED") else None
        if self._file is not None:
            self._file.madvise(mmap.MADV_RANDOM)  # the order is random: do not read neighbouring pages

    def batches(self, order: np.ndarray | None, slices: Iterable[slice]) -> Iterator[Tensor]:
        """As `DeviceImages.batches`. Only the first batch waits for work queued on a CUDA device."""
        requested: deque[np.ndarray | slice] = deque()
        for part in slices:
            rows = part if order is None else order[part]
            self._prefetch(rows)
            requested.append(rows)
            if len(requested) > READ_AHEAD:
                yield self._read(requested.popleft())
        while requested:
            yield self._read(requested.popleft())

    def _read(self, rows: np.ndarray | slice) -> Tensor:
        images = torch.from_numpy(self.images[rows])
        if self.device.type == "cuda":  # pinned memory is copied while the device computes
            return images.pin_memory().to(self.device, non_blocking=True)
        return images.to(self.device)

    def _prefetch(self, rows: np.ndarray | slice) -> None:
        if self._file is None:
            return
        bytes_per_image = self.images.array[:1].nbytes
        for row in self.images.rows[rows].tolist():
            first = row * bytes_per_image // mmap.PAGESIZE * mmap.PAGESIZE
            self._file.madvise(mmap.MADV_WILLNEED, first, (row + 1) * bytes_per_image - first)
