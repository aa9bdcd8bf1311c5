"""Origin: which network of transformers or timm a run uses, as recorded in its files. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARIES = {"hf": "transformers", "timm": "timm"}  # prefix of a name -> library, and the extra that installs it
MAX_NAME = 1000
MAX_ARCHITECTURE = 100_000  # characters of JSON
_NUMBERS = (list, tuple)


@dataclass(frozen=True)
class Origin:
    """A network of another library: enough to build it again without the library's hub.

    Attributes:
        library: ``transformers`` or ``timm``.
        name: ``hf/REPO``, ``hf/FOLDER`` without the folders above it, or ``timm/NAME``.
        architecture: The configuration of transformers, or ``{"architecture": NAME}`` of timm.
        image_size: Side of the images that the network was trained on, in pixels.
        mean: Mean of each colour channel, on the scale 0 to 255; None if the library has none for it.
        std: Standard deviation of each colour channel, on the same scale.
        licence: Licence of the weights, or ``unknown``.
        revision: Commit of the weights' repository, if known.
        weights_sha256: SHA-256 of the weights' files in a folder.
        pretrained: Whether training started from the weights.
    """

    library: str
    name: str
    architecture: Mapping[str, Any]
    image_size: int = 224
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    licence: str = "unknown"
    revision: str | None = None
    weights_sha256: str | None = None
    pretrained: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Any) -> Origin:
        """Return the origin that ``to_dict`` described.

        Raises:
            ValueError: A field is missing, unknown or invalid. The content is never trusted.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, Mapping) or not {"library", "name", "architecture"} <= set(values) <= fields:
            raise ValueError(f"origin has other fields, expected {', '.join(sorted(fields))}")
        for name, fits in _CHECKS.items():
            if name in values and not fits(values[name]):
                raise ValueError(f"origin.{name} is invalid")
        lists = {name: tuple(values[name]) for name in ("mean", "std") if values.get(name) is not None}
        return cls(**{**values, **lists})

    def statistics(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation for images of 1 or 3 channels; None if the library has none."""
        if self.mean is None or self.std is None:
            return None
        if channels == len(self.mean):
            return self.mean, self.std
        return tuple((sum(x) / len(x),) * channels for x in (self.mean, self.std))  # type: ignore[return-value]


def library_of(name: Any) -> str:
    """The library that a network's name belongs to, or an empty string."""
    prefix, slash, rest = name.partition("/") if isinstance(name, str) else ("", "", "")
    valid = bool(slash and rest.strip()) and len(name) <= MAX_NAME and name.isprintable()
    return LIBRARIES.get(prefix, "") if valid else ""


def folder_of(name: str) -> Path | None:
    """The folder that ``hf/FOLDER`` names; None for a repository."""
    reference = name.partition("/")[2]
    folder = Path(reference).expanduser()
    is_path = folder.is_dir() or reference.startswith(("/", ".", "~"))
    return folder if is_path and name.startswith("hf/") else None


def public_name(name: str) -> str:
    """The name without the folders above a checkpoint, so that a run's files do not disclose paths."""
    folder = folder_of(name) if library_of(name) else None
    return name if folder is None else f"hf/{folder.resolve().name[:190] or 'checkpoint'}"


def _is_architecture(value: Any) -> bool:
    return isinstance(value, Mapping) and len(json.dumps(value)) <= MAX_ARCHITECTURE


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= 200


def _is_numbers(least: float) -> Any:
    def fits(value: Any) -> bool:
        return value is None or (
            isinstance(value, _NUMBERS)
            and len(value) in (1, 3)
            and all(isinstance(x, int | float) and not isinstance(x, bool) and least <= x <= 1e6 for x in value)
        )

    return fits


_CHECKS: dict[str, Any] = {
    "library": lambda value: value in LIBRARIES.values(),
    "name": lambda value: _is_text(value) and bool(library_of(value)),
    "architecture": _is_architecture,
    "image_size": lambda value: type(value) is int and 8 <= value <= 10_000,
    "mean": _is_numbers(-1e6),
    "std": _is_numbers(1e-6),
    "licence": _is_text,
    "revision": lambda value: value is None or _is_text(value),
    "pretrained": lambda value: isinstance(value, bool),
    "weights_sha256": lambda value: value is None or (_is_text(value) and bool(re.fullmatch("[0-9a-f]{64}", value))),
}
