"""Image classifiers of timm by name, with weights in the safetensors format from the Hugging Face hub."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from ..errors import InputError
from ..utils.extras import require
from .origin import Origin

_WEIGHTS = "model.safetensors"


def find_origin(name: str) -> Origin:
    """Look up the architecture and the preprocessing of ``timm/NAME``, where NAME may end with ``.TAG``."""
    _, config = _find(name)
    mean, std = ([255 * float(x) for x in getattr(config, key)] for key in ("mean", "std"))
    origin = Origin(
        "timm",
        name,
        {"architecture": name.removeprefix("timm/").partition(".")[0]},
        int(config.input_size[-1]),
        tuple(mean),
        tuple(std),
        str(config.license or "unknown"),
    )
    return Origin.from_dict(origin.to_dict())


def build(origin: Origin, num_classes: int) -> nn.Module:
    """The architecture with random weights."""
    timm = require("timm", "timm")
    architecture = origin.architecture.get("architecture")
    if not isinstance(architecture, str) or not re.fullmatch(r"\w+", architecture) or not timm.is_model(architecture):
        raise InputError(f"model: timm {timm.__version__} has no network {architecture!r}")
    return timm.create_model(architecture, pretrained=False, num_classes=num_classes)


def pretrained(name: str, origin: Origin) -> nn.Module:
    """The network with its weights and its own classes."""
    timm, config = _find(name)
    if not config.hf_hub_id:
        raise InputError(f"model: {name} has no weights in the safetensors format, the only one that is read")
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(config.hf_hub_id, _WEIGHTS)
    overlay = {"file": path, "custom_load": False}
    return timm.create_model(name.removeprefix("timm/"), pretrained=True, pretrained_cfg_overlay=overlay)


def _find(name: str) -> tuple[Any, Any]:
    """timm, and its record of pretrained weights for a name."""
    timm = require("timm", "timm")
    reference = name.removeprefix("timm/")
    if not re.fullmatch(r"\w+(\.\w+)?", reference, re.ASCII) or not timm.is_model(reference):
        close = timm.list_models(f"*{re.sub(r'[^a-z0-9]+', '*', reference.lower())}*")[:3]
        hint = f"; did you mean {' or '.join(f'timm/{one}' for one in close)}?" if close else ""
        raise InputError(f"model: timm has no network {reference!r}{hint}")
    config = timm.get_pretrained_cfg(reference)
    if config is None:
        raise InputError(f"model: timm has no pretrained configuration of {reference!r}")
    return timm, config
