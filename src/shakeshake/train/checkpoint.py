"""Checkpoints that survive anything: written beside and renamed, checksummed, the last two kept."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import RunError
from ..utils.files import atomic_write

FORMAT = 2  # what a state holds; 1 had torch.optim's layout of the momentum
NAME, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"

# torch.save writes a zip file, and a zip file may end in a comment. Ours is the SHA-256 of everything before it, so
# that the file stays one that `torch.load(path, weights_only=True)` reads.
_PREFIX = b"sha256:"
_COMMENT = len(_PREFIX) + 64


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` as the newest checkpoint and keep the one before.

    At every moment at least one whole checkpoint is on disk, once there has been one. Raises OSError when it cannot be
    written; then the checkpoints that were there are still there.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    body = buffer.getvalue()[:-2] + struct.pack("<H", _COMMENT)  # the comment's length is the last field of a zip
    comment = _PREFIX + hashlib.sha256(body).hexdigest().encode()

    def keep_the_one_before() -> None:
        if (folder / NAME).exists():
            os.replace(folder / NAME, folder / PREVIOUS)

    atomic_write(folder / NAME, body + comment, before_rename=keep_the_one_before)


def load(
    folder: Path, lacks: Callable[[dict[str, Any]], int] = lambda state: 0, *, set_aside: bool = False
) -> dict[str, Any] | None:
    """The newest whole checkpoint, on the CPU, or None if none was ever written.

    lacks: what a state is short of; where the newest one is, it is the one before that counts if that is less so.
    A broken one is passed over with a warning; with ``set_aside`` it gets another name, so that save() cannot take it
    for the one to keep. Raises RunError when all there are are broken.
    """
    best: tuple[int, dict[str, Any]] | None = None
    for path, state in _whole(folder):
        if path.name == PREVIOUS and best is None and set_aside:
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder / NAME, folder / DAMAGED)
        short = lacks(state)
        if best is not None and short < best[0]:
            warnings.warn(
                f"{folder / NAME} is ahead of its rows; going on from {path.name}, which is older", stacklevel=2
            )
        if best is None or short < best[0]:
            best = short, state
        if not short:
            break
    return None if best is None else best[1]


def newest(folder: Path) -> Path | None:
    """The file that load() reads."""
    return next((path for path, _ in _whole(folder)), None)


def _whole(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Whole checkpoints, the newest first: the file and what it holds."""
    broken, found = [], False
    for name in (NAME, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = _read(path)
        except (ValueError, OSError) as error:
            broken.append(f"{path}: {error}")
            continue
        if not found:
            for what in broken:
                warnings.warn(f"{what}; going on from {name}, which is older", stacklevel=3)
        found = True
        yield path, state
    if broken and not found:
        raise RunError(f"no checkpoint can be read ({'; '.join(broken)}); start the run anew in another --out")


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    body, comment = content[:-_COMMENT], content[-_COMMENT:]
    if comment != _PREFIX + hashlib.sha256(body).hexdigest().encode():
        raise ValueError("its checksum is wrong, it is damaged or was cut off")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if state["format"] != FORMAT:
        raise ValueError(f"it has format {state['format']}, expected {FORMAT}: another version of shakeshake wrote it")
    return state
