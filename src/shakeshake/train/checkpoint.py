"""Checkpoint files: written atomically, with a checksum; the last two are kept."""

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

FORMAT = 2  # format 1 had torch.optim's layout of the momentum
NAME, PREVIOUS, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"

# torch.save writes a zip file, which may end with a comment: here, the SHA-256 of everything before it. So
# torch.load(path, weights_only=True) can still read the file.
_PREFIX = b"sha256:"
_COMMENT = len(_PREFIX) + 64


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint and keep the previous one.

    Args:
        folder: The run directory.
        state: Tensors and plain Python values.

    Raises:
        OSError: The file cannot be written. Existing checkpoints are kept.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    body = buffer.getvalue()[:-2] + struct.pack("<H", _COMMENT)  # the comment's length is the last field of a zip
    comment = _PREFIX + hashlib.sha256(body).hexdigest().encode()

    def keep_previous() -> None:
        if (folder / NAME).exists():
            os.replace(folder / NAME, folder / PREVIOUS)

    atomic_write(folder / NAME, body + comment, before_rename=keep_previous)


def load(
    folder: Path, penalty: Callable[[dict[str, Any]], int] = lambda state: 0, *, set_aside: bool = False
) -> dict[str, Any] | None:
    """Load the newest valid checkpoint to the CPU. A damaged one is skipped with a warning.

    Args:
        folder: The run directory.
        penalty: Rates a state, 0 being best. The previous checkpoint is used if it has a lower penalty.
        set_aside: Rename a damaged newest checkpoint, so that ``save`` does not keep it in place of the valid one.

    Returns:
        The state, or None if there is no checkpoint.

    Raises:
        RunError: All checkpoints are damaged.
    """
    best: tuple[int, dict[str, Any]] | None = None
    for path, state in _valid_checkpoints(folder):
        if path.name == PREVIOUS and best is None and set_aside:
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder / NAME, folder / DAMAGED)
        current = penalty(state)
        if best is not None and current < best[0]:
            warnings.warn(
                f"{folder / NAME} has epochs that metrics.jsonl lacks; using {path.name}, which is older", stacklevel=2
            )
        if best is None or current < best[0]:
            best = current, state
        if not current:
            break
    return None if best is None else best[1]


def _valid_checkpoints(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Path and state of valid checkpoints, newest first."""
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
            for message in broken:
                warnings.warn(f"{message}; using {name}, which is older", stacklevel=3)
        found = True
        yield path, state
    if broken and not found:
        raise RunError(f"no checkpoint can be read ({'; '.join(broken)}); train again in a new folder")


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    body, comment = content[:-_COMMENT], content[-_COMMENT:]
    if comment != _PREFIX + hashlib.sha256(body).hexdigest().encode():
        raise ValueError("checksum mismatch, the file is damaged or truncated")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if state["format"] != FORMAT:
        raise ValueError(f"got format {state['format']}, expected {FORMAT}; another version of shakeshake wrote it")
    return state
