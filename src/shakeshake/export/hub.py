"""Models from the Hugging Face hub and to it, by huggingface_hub's mixin. The extra ``hub``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..utils.console import escape

if TYPE_CHECKING:
    from .hub_model import HubModel


def from_pretrained(name: str | Path, **options: Any) -> HubModel:
    """A trained model from a repository of the hub, ``user/name``, or from a folder that `shakeshake export` wrote.

    options: of huggingface_hub's from_pretrained (revision, token, cache_dir, force_download, local_files_only) and
    map_location. What comes is checked as ss.load() does; weights are safetensors alone. Returned in evaluation mode,
    with ``save_pretrained`` and ``push_to_hub`` of its own. Raises InputError when it cannot be had or is not ours.
    """
    return _told(f"model: {escape(name)} cannot be loaded", lambda: _class().from_pretrained(str(name), **options))


def push_to_hub(run: str | Path, name: str, *, licence: str = "unknown", **options: Any) -> str:
    """Export a finished run in the hub's layout, model card included, and push it to the repository ``user/name``.

    options: of huggingface_hub's push_to_hub (private, token, branch, commit_message, create_pr). Returns the address
    of the commit. Raises InputError as export_run() does, and when the hub does not take it.
    """
    hub_model = _class()
    from .export_run import export_run

    with tempfile.TemporaryDirectory() as folder:
        export_run(run, "safetensors", Path(folder) / "model", licence=licence, say=lambda _: None)
        model = hub_model.from_pretrained(str(Path(folder) / "model"))
        return str(_told(f"model: {escape(name)} cannot be pushed", lambda: model.push_to_hub(name, **options)))


def _class() -> type[HubModel]:
    try:
        from .hub_model import HubModel
    except ImportError as error:
        if "huggingface_hub" not in str(error):
            raise
        raise InputError("hub: huggingface_hub is not installed, expected: pip install 'shakeshake[hub]'") from None
    return HubModel


def _told(what: str, ask: Any) -> Any:
    """What the hub and the network have against it, in one sentence."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return ask()
    except InputError:
        raise
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = escape(" ".join(str(error).split()))[:300] or type(error).__name__
        raise InputError(f"{what}: {reason}") from None
