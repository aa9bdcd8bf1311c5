"""export_run(): write a finished run in another format, after comparing it with PyTorch on real images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError
from ..models.model import check_finished, load
from ..train.open_run import open_run
from ..train.run_directory import check_target, is_leftover
from ..utils.console import escape
from ..utils.files import atomic_write, atomic_write_all
from . import huggingface, onnx, torch_export  # noqa: F401 - they register their formats
from .model_card import check_licence
from .registry import ExportSource, find_format

logger = logging.getLogger(__name__)


def export_run(
    path: str | Path,
    format: str,
    out: str | Path | None = None,
    *,
    licence: str = "unknown",
    data_dir: str | None = None,
    model: nn.Module | Callable[..., nn.Module] | None = None,
    **options: Any,
) -> Path:
    """Export a finished run.

    The export is read back, run over images of the run's test split and compared with the network in PyTorch. It is
    written only if they agree, and then as a whole. What was compared and measured is logged.

    Args:
        path: The run directory.
        format: ``"onnx"``, ``"torch"`` (a torch.export archive), ``"safetensors"`` (a folder in the layout of the
            Hugging Face hub), or the name of a registered format. onnx and torch take images (batch, H, W, C) uint8
            and return calibrated probabilities (batch, classes).
        out: The file or folder; by default in the run directory.
        licence: Licence identifier for the model card, such as ``"mit"``.
        data_dir: Where the images are, if not where the recipe says.
        model: The network of a run that was trained with your own network, as a module or a factory. Not needed where
            it is registered.
        options: Of the format: ``int8=True`` quantizes onnx and logs the errors of both precisions; ``half=True``
            stores the weights of safetensors in float16.

    Returns:
        The file or folder that was written.

    Raises:
        InputError: An argument is invalid, the run is unfinished, or a dependency is not installed.
        RunError: The export differs from PyTorch.
    """
    options = {name: value for name, value in options.items() if value is not None and value is not False}
    chosen = find_format(format, options)
    check_licence(licence)
    check_finished(Path(path))
    trained = load(path, model=model)
    target = Path(out) if out is not None else Path(path) / chosen.default_name(options)
    _check_writable(target, chosen.files)
    source = ExportSource(open_run(path, data_dir=data_dir, device="cpu"), trained, licence)
    content = chosen.function(source, **options)
    if "temperature" not in trained.config:
        logger.warning("the run has no temperature, so the exported probabilities are not calibrated")
    try:
        if isinstance(content, Mapping):
            atomic_write_all(target, content)
        else:
            atomic_write(target, content)
    except OSError as error:
        raise InputError(f"out: {escape(target)} cannot be written: {error.strerror or error}") from None
    return target


def _check_writable(target: Path, files: Sequence[str]) -> None:
    """Raise InputError before minutes of work where the target cannot be written. files: those of a folder."""
    if files:
        entries = target.iterdir() if target.is_dir() else ()
        other = any(entry.name not in files and not is_leftover(entry) for entry in entries)
        bad = other or (target.exists() and not target.is_dir())
        expected = "a new folder, or one with an earlier export"
    else:
        check_target(target)
        bad = target.is_dir() or not target.parent.is_dir()
        expected = "the name of a file in an existing folder"
    if bad:
        raise InputError(f"out: {escape(target)} cannot be written, expected {expected}")
