"""Knows how to read the pickled ("python") layout of CIFAR without unpickling: opcodes are walked, nothing is run."""

from __future__ import annotations

import pickletools
from typing import Any

import numpy as np

PIXELS = 3 * 32 * 32
_TEXT = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_BYTES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
# Python 3 writes bytes under protocols 0 to 2 as a call of _codecs.encode(text, "latin1"); that word is not a key.
_NOT_A_KEY = "latin1"


def decode(stream: bytes, images: int, label_names: tuple[str, ...]) -> np.ndarray:
    """The records of the binary layout, (images, labels + 3072) uint8, from one pickled batch.

    A batch is a dictionary of ``data``, one string of images * 3072 bytes inside a numpy array, and lists of integers
    under ``label_names``. ``pickletools.genops`` names the opcodes of the stream one by one and neither imports nor
    calls anything, so a stream that would run a command when unpickled is only read. What is picked out is: the one
    string of the right length, and the integers that follow the name of a list until the next string. Whether those are
    the official images is for the md5 of the records to say. Raises ``ValueError`` with what is missing.
    """
    pixels: bytes | None = None
    longest = 0
    labels: dict[str, list[int]] = {name: [] for name in label_names}
    key = ""
    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in _INTEGERS:
            if key in labels:
                labels[key].append(int(argument))
        elif opcode.name in _TEXT or opcode.name in _BYTES:
            longest = max(longest, len(argument))
            if len(argument) == images * PIXELS:
                pixels = argument.encode("latin-1") if isinstance(argument, str) else bytes(argument)
            elif argument != _NOT_A_KEY:
                key = argument if isinstance(argument, str) else bytes(argument[:64]).decode("latin-1")
    if pixels is None:
        raise ValueError(f"its longest string has {longest:,} bytes, expected {images * PIXELS:,} bytes of pixels")
    columns = [_column(name, labels[name], images) for name in label_names]
    return np.concatenate([*columns, np.frombuffer(pixels, np.uint8).reshape(images, PIXELS)], axis=1)


def _column(name: str, values: list[int], images: int) -> np.ndarray:
    if len(values) != images:
        raise ValueError(f"it has {len(values):,} {name}, expected {images:,}")
    if min(values) < 0 or max(values) > 255:
        raise ValueError(f"its {name} reach from {min(values)} to {max(values)}, expected 0 to 255")
    return np.array(values, np.uint8).reshape(images, 1)
