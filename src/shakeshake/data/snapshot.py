"""Knows how images that a caller gave are kept in a file of the run, so that it finds the very same ones again."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from pathlib import Path

import numpy as np

from ..errors import InputError
from .dataset import ImageData, Split, from_arrays, read_npz
from .memmap_rows import MemmapRows

_FACTS = ("mean", "std", "name")  # what from_arrays would not find again


def in_memory(data: ImageData) -> ImageData:
    """The same images as plain arrays, known by their pixels: what a file can hold.

    Raises InputError for what is no ImageData, and for images that are too many for memory.
    """
    if not isinstance(data, ImageData):
        raise InputError(
            f"data: got {type(data).__name__}, expected what from_arrays, from_datasets or load_data returns"
        )
    for split in (data.train, data.test, data.val):
        if split is not None and isinstance(split.images, MemmapRows):
            raise InputError(
                f"data: {data.name} is larger than memory may be, expected its folder as the recipe's data"
            )
    train, test = Split(data.train.images, data.train.labels), Split(data.test.images, data.test.labels)
    val = None if data.val is None else Split(data.val.images, data.val.labels)
    return dataclasses.replace(data, train=train, test=test, val=val, record=None)


def to_bytes(data: ImageData) -> memoryview:
    """The images as an .npz, which load_data reads as well; not compressed, for photographs hardly become smaller."""
    splits = {"train": data.train, "test": data.test, "val": data.val}
    there = {which: split for which, split in splits.items() if split is not None}
    content = BytesIO()
    np.savez(
        content,
        allow_pickle=False,
        **{f"x_{which}": split.images for which, split in there.items()},
        **{f"y_{which}": split.labels for which, split in there.items()},
        **{key: np.array(getattr(data, key)) for key in ("classes", *_FACTS)},
    )
    return content.getbuffer()


def load_kept(path: Path) -> ImageData:
    """The images of to_bytes. Raises InputError when the file is gone or is no such file."""
    arrays = read_npz(path, ("classes", "x_val", "y_val", *_FACTS))
    missing = [name for name in _FACTS if name not in arrays]
    if missing:
        raise InputError(f"data: {path} has no {', '.join(missing)}, expected the images that the run was given")
    mean, std = (tuple(arrays.pop(key).astype(np.float64).tolist()) for key in ("mean", "std"))
    data = from_arrays(**arrays | {"name": str(arrays["name"])}, source=str(path))  # type: ignore[arg-type]
    if not len(mean) == len(std) == data.channels:
        raise InputError(f"data: mean and std in {path} are not of {data.channels} channels, expected one for each")
    return dataclasses.replace(data, mean=mean, std=std)
