"""Snapshot of in-memory images as a file of the run, so that it resumes with exactly these images."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .dataset import KEYS, ImageData, Split, from_arrays, read_npz
from .memmap_rows import MemmapRows

_FACTS = ("mean", "std", "name")  # what from_arrays would not reproduce


def in_memory(data: ImageData) -> ImageData:
    """Return the data as plain arrays without a record, ready for `to_bytes`.

    Raises:
        InputError: Not an ImageData, or memory-mapped because it is too large for memory.
    """
    if not isinstance(data, ImageData):
        raise InputError(
            f"data: got {type(data).__name__}, expected what from_arrays, from_datasets or load_data returns"
        )
    for split in _splits(data).values():
        if split is not None and isinstance(split.images, MemmapRows):
            raise InputError(
                f"data: {data.name} is too large to copy into the run, expected its folder as the recipe's data"
            )
    splits: Any = {
        which: None if split is None else dataclasses.replace(split, pixels_hash=None)
        for which, split in _splits(data).items()
    }
    return dataclasses.replace(data, **splits, record=None)


def _splits(data: ImageData) -> dict[str, Split | None]:
    return {"train": data.train, "test": data.test, "val": data.val}


def to_bytes(data: ImageData) -> memoryview:
    """Return the images as an uncompressed .npz, which `load_data` reads, too (photographs hardly compress)."""
    present = {which: split for which, split in _splits(data).items() if split is not None}
    content = BytesIO()
    np.savez(
        content,
        allow_pickle=False,
        **{f"x_{which}": split.images for which, split in present.items()},
        **{f"y_{which}": split.labels for which, split in present.items()},
        **{key: np.array(getattr(data, key)) for key in ("classes", *_FACTS)},
    )
    return content.getbuffer()


def load_snapshot(path: Path) -> ImageData:
    """Load a file written from `to_bytes`. Raises InputError if it is missing or damaged."""
    arrays = read_npz(path, ("classes", "x_val", "y_val"), (*KEYS, *_FACTS))
    mean, std = (tuple(arrays.pop(key).astype(np.float64).tolist()) for key in ("mean", "std"))
    data = from_arrays(**arrays | {"name": str(arrays["name"])}, source=str(path))  # type: ignore[arg-type]
    return dataclasses.replace(data, mean=mean, std=std)
