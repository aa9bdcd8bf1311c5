"""The pickled ("python") layout of CIFAR, read opcode by opcode without executing the pickle."""

from __future__ import annotations

import pickletools
from typing import Any

import numpy as np

PIXELS = 3 * 32 * 32
_TEXT = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_BYTES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
# In protocols 0 to 2 Python 3 writes bytes as _codecs.encode(text, "latin1"); that string is not a key.
_NOT_A_KEY = "latin1"


def decode(stream: bytes, images: int, label_names: tuple[str, ...]) -> np.ndarray:
    """Convert one pickled batch to the records of the binary layout.

    A batch is a dictionary with ``data``, an array of images * 3072 bytes, and lists of integers under
    ``label_names``. ``pickletools.genops`` only names the opcodes and neither imports nor calls anything. The pixels
    are the one string of the right length; labels are the integers between the name of a list and the next string. The
    caller verifies the records by MD5.

    Args:
        stream: The pickle.
        images: Expected number of images.
        label_names: Keys of the label lists.

    Returns:
        (images, labels + 3072) uint8.

    Raises:
        ValueError: Pixels or labels are missing or have the wrong size.
    """
    pixels: bytes | None = None
    labels: dict[str, list[int]] = {name: [] for name in label_names}
    key = ""
    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in _INTEGERS:
            if key in labels:
                labels[key].append(int(argument))
        elif opcode.name in _TEXT or opcode.name in _BYTES:
            if len(argument) == images * PIXELS:
                pixels = argument.encode("latin-1") if isinstance(argument, str) else bytes(argument)
            elif argument != _NOT_A_KEY:
                key = argument if isinstance(argument, str) else bytes(argument[:64]).decode("latin-1")
    if pixels is None:
        raise ValueError(f"it has no string of {images * PIXELS:,} bytes, expected the pixels")
    columns = [_column(name, labels[name], images) for name in label_names]
    return np.concatenate([*columns, np.frombuffer(pixels, np.uint8).reshape(images, PIXELS)], axis=1)


def _column(name: str, values: list[int], images: int) -> np.ndarray:
    if len(values) != images:
        raise ValueError(f"it has {len(values):,} {name}, expected {images:,}")
    if min(values) < 0 or max(values) > 255:
        raise ValueError(f"its {name} range from {min(values)} to {max(values)}, expected 0 to 255")
    return np.array(values, np.uint8).reshape(images, 1)
