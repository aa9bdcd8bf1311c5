"""Image classifiers of transformers, from a repository of the Hugging Face hub or a folder. No code of either runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..utils.extras import require
from .origin import Origin, folder_of, public_name

# They load weights by another library, or would download and execute code.
_REFUSED_TYPES = {"timm_wrapper", "shieldgemma2"}
_REFUSED_KEYS = re.compile(
    r"_.*|auto_map|.*backbone.*|quantization_config|.*_implementation.*|.*kernel_config.*|use_kernels"
)
_NOT_ARCHITECTURE = {"architectures", "id2label", "label2id", "dtype", "num_labels", "transformers_version"}


def find_origin(name: str) -> Origin:
    """Read config.json, preprocessor_config.json and the licence of the model card."""
    require("transformers", "hf")
    from transformers import AutoConfig

    reference = _reference(name)
    with _quiet():
        config = AutoConfig.from_pretrained(reference, trust_remote_code=False)
        values = json.loads(config.to_json_string(use_diff=True))
        revision = getattr(config, "_commit_hash", None)
        processor = json.loads(_optional_file(reference, "preprocessor_config.json", revision) or "{}")
        card = _optional_file(reference, "README.md", revision)
    architecture = {key: value for key, value in values.items() if key not in _NOT_ARCHITECTURE}
    mean, std = _statistics(processor)
    origin = Origin(
        library="transformers",
        name=public_name(name),
        architecture=_checked(architecture),
        image_size=_image_size(processor, values),
        mean=mean,
        std=std,
        licence=_licence(card),
        revision=revision,
        weights_sha256=_sha256(Path(reference)),
    )
    return Origin.from_dict(origin.to_dict())


def build(origin: Origin, num_classes: int) -> nn.Module:
    """The architecture with random weights."""
    require("transformers", "hf")
    from transformers import AutoConfig, AutoModelForImageClassification

    values = dict(_checked(origin.architecture))
    kind = values.pop("model_type")
    classes = _known_classes()[kind]  # several for DeiT and LeViT, of which the first has one last layer
    with _quiet():
        config = AutoConfig.for_model(kind, **values, num_labels=num_classes)
        config.architectures = [classes if isinstance(classes, str) else classes[0]]
        return AutoModelForImageClassification.from_config(config, dtype=torch.float32, trust_remote_code=False)


def pretrained(name: str, origin: Origin) -> nn.Module:
    """The network with its weights and its own classes."""
    require("transformers", "hf")
    from transformers import AutoModelForImageClassification

    reference = _reference(name)
    digest = _sha256(Path(reference))
    if digest != origin.weights_sha256:
        raise InputError(f"model: the weights of {name} have changed since the run started, expected the original ones")
    with _quiet():
        network, loaded = AutoModelForImageClassification.from_pretrained(
            reference,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            revision=origin.revision or "main",
            output_loading_info=True,
        )
    head = _head_prefix(network)
    if missing := sorted(key for key in loaded["missing_keys"] if not key.startswith(head)):
        raise InputError(f"model: {name} lacks weights of its network, such as {missing[0]}")
    return network


def _head_prefix(network: nn.Module) -> str:
    """The first part of the names of the last layer's weights: those outside of the base model."""
    outside = [name for name, _ in network.named_children() if name != network.base_model_prefix]
    return outside[-1] if outside else "classifier"


def _reference(name: str) -> str:
    """The folder or repository in a name."""
    folder = folder_of(name)
    if folder is None:
        return name.partition("/")[2]
    if not (folder / "config.json").is_file():
        raise InputError(f"model: {folder} holds no config.json, expected a checkpoint of transformers")
    if not list(folder.glob("*.safetensors")):
        raise InputError(f"model: {folder} holds no weights in the safetensors format, the only one that is read")
    return str(folder)


def _checked(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration, if it builds an image classifier of transformers and nothing else."""
    kind = architecture.get("model_type")
    if kind not in _known_classes() or kind in _REFUSED_TYPES:
        raise InputError(f"model: got a network of type {kind!r}, expected an image classifier of transformers")
    return _without_refused(architecture)


def _known_classes() -> Mapping[Any, Any]:
    """Name or names of the classes of image classifiers, by model type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    return MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES


def _without_refused(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_refused(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if not _REFUSED_KEYS.fullmatch(str(key))
    }


def _optional_file(reference: str, file: str, revision: str | None) -> str | None:
    from transformers.utils import cached_file

    try:
        path = cached_file(
            reference,
            file,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError:
        return None
    return None if path is None else Path(path).read_text(encoding="utf-8", errors="replace")


def _image_size(processor: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    crops = processor.get("do_center_crop", False) and "crop_size" in processor
    for size in (processor.get("crop_size") if crops else None, processor.get("size"), config.get("image_size")):
        if isinstance(size, Mapping):
            size = size.get("height") or size.get("shortest_edge")
        if isinstance(size, list | tuple) and size:
            size = size[0]
        if isinstance(size, int) and size >= 8:
            return size
    return 224


def _statistics(processor: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """Mean and deviation on the scale 0 to 255."""
    if not processor:
        return None, None
    scale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    if not processor.get("do_normalize", True) or "image_mean" not in processor:
        return (0.0,) * 3, (1 / scale,) * 3
    mean, std = ([float(x) / scale for x in processor[key]] for key in ("image_mean", "image_std"))
    return tuple(mean), tuple(std)


def _licence(card: str | None) -> str:
    """The licence in the metadata of a model card."""
    metadata = re.match(r"---\n(.*?)\n---", card or "", re.DOTALL)
    found = re.search(r"^license:\s*[\"']?([\w.+-]+)", metadata[1], re.MULTILINE) if metadata else None
    return found[1] if found else "unknown"


def _sha256(folder: Path) -> str | None:
    """SHA-256 of all weights in a folder; None for a repository, whose revision is recorded."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings and progress bars of transformers, and no conversion of weights on the hub."""
    from transformers.utils import logging

    verbosity, bar, key = logging.get_verbosity(), logging.is_progress_bar_enabled(), "DISABLE_SAFETENSORS_CONVERSION"
    before = os.environ.get(key)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ[key] = "1"
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before
