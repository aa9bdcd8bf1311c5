"""Load models from the Hugging Face hub and push them there."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..utils.console import escape
from ..utils.extras import require

if TYPE_CHECKING:
    from .hub_model import HubModel


def from_pretrained(name: str | Path, **options: Any) -> HubModel:
    """Load a trained model from the hub, or from a folder that ``shakeshake export`` wrote.

    Args:
        name: Repository ``user/name``, or a folder.
        options: Of huggingface_hub's ``from_pretrained`` (revision, token, cache_dir, force_download,
            local_files_only), and ``map_location``.

    Returns:
        The model in evaluation mode, with huggingface_hub's ``save_pretrained`` and ``push_to_hub``. Its files are
        checked as by ``load``; weights are read in the safetensors format only.

    Raises:
        InputError: The model cannot be downloaded, or is not one of this package.
    """
    hub_model = _hub_model()
    with _translated_errors(f"model: {escape(name)} cannot be loaded"):
        return hub_model.from_pretrained(str(name), **options)


def push_to_hub(run: str | Path, name: str, *, licence: str = "unknown", **options: Any) -> str:
    """Export a finished run in the hub's layout, with a model card, and push it to a repository.

    Args:
        run: The run directory.
        name: Repository ``user/name``.
        licence: Licence identifier for the model card, such as ``"mit"``.
        options: Of huggingface_hub's ``push_to_hub`` (private, token, branch, commit_message, create_pr).

    Returns:
        The address of the commit.

    Raises:
        InputError: As ``export_run``, or the hub refuses it.
    """
    hub_model = _hub_model()
    from .export_run import export_run

    with tempfile.TemporaryDirectory() as folder:
        exported = export_run(run, "safetensors", Path(folder) / "model", licence=licence)
        model = hub_model.from_pretrained(str(exported))
        with _translated_errors(f"model: {escape(name)} cannot be pushed"):
            return str(model.push_to_hub(name, **options))


def _hub_model() -> type[HubModel]:
    require("huggingface_hub", "hub")
    from .hub_model import HubModel

    return HubModel


@contextlib.contextmanager
def _translated_errors(what: str) -> Iterator[None]:
    """Errors of the hub and the network become one sentence."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except InputError:
        raise
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = escape(" ".join(str(error).split()))[:300] or type(error).__name__
        raise InputError(f"{what}: {reason}") from None
