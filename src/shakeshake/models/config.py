"""config.json, the file beside the weights: written, read and checked. Its content is never trusted. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..utils.console import escape
from .origin import Origin, public_name
from .registry import current_name, model_info

FORMAT = "shakeshake/1"
MAX_BYTES = 10_000_000  # a thousand classes need about 20,000
_OPTIONS = {"skip_shift", "activation"}
Config = dict[str, Any]


def make_config(
    model: str,
    rule: str,
    *,
    classes: Sequence[str],
    in_channels: int,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    options: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
    **more: Any,
) -> Config:
    """Return the content of config.json: what is needed to rebuild a network and to preprocess its input.

    Args:
        model: Name of the network.
        rule: Its rule, or ``none``.
        classes: Names of the outputs, in order.
        in_channels: 1 or 3.
        image_size: Side of the input in pixels.
        mean: Of each channel, subtracted from pixels in 0..255.
        std: Of each channel, by which the difference is divided.
        options: Further arguments of create_model, such as ``{"skip_shift": "mirrored"}``.
        origin: Of a network of transformers or timm.
        **more: Further entries. ``weights_sha256`` and ``temperature`` have a meaning for load().
    """
    source = model_info(model).source
    return {
        "format": FORMAT,
        "model": public_name(model),
        **({"model_source": source} if source and source != model else {}),
        "rule": rule,
        "classes": list(classes),
        "in_channels": in_channels,
        "image_size": image_size,
        "mean": list(mean),
        "std": list(std),
        **({"options": dict(options)} if options else {}),
        **({"origin": origin.to_dict()} if origin else {}),
        **more,
    }


def read_config(path: Path, *, registered: bool = True) -> Config:
    """Read and check a config.json.

    Args:
        path: The file.
        registered: Whether the network's name must be known.

    Raises:
        InputError: If the file cannot be read, is damaged, has another format or invalid entries.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        config = check_config(json.loads(content))
    except OSError as error:
        raise InputError(f"run: {escape(path)} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"run: {escape(path)} is damaged or has another format: {escape(error)}") from None
    if registered:
        _check_model(config, path)
    return config


def check_config(config: Any) -> Config:
    """Check all entries but the network's name, which registered networks extend.

    Raises:
        ValueError: Names the entry, its value and what was expected.
    """
    if not isinstance(config, dict):
        raise ValueError(f"got {type(config).__name__}, expected an object")
    if config.get("format") != FORMAT:
        raise ValueError(f"format is {_short(config.get('format'))}, expected {FORMAT!r}")
    _expect(config, "model", _is_label, "the name of a network")
    config["model"] = current_name(config["model"])
    if "model_source" in config:
        _expect(config, "model_source", _is_label, "where the network is defined")
    _expect(config, "rule", _text, "a rule such as S-S-I")
    _expect(config, "classes", _names, "a list of two different names or more")
    _expect(config, "in_channels", lambda n: n in (1, 3) and _whole(n), "1 or 3")
    _expect(config, "image_size", lambda n: _whole(n) and 8 <= n <= 224, "a whole number from 8 to 224")
    channels = config["in_channels"]
    _expect(config, "mean", lambda m: _numbers(m, channels, -1e6), f"{channels} numbers from -1e6 to 1e6")
    _expect(config, "std", lambda s: _numbers(s, channels, 1e-6), f"{channels} numbers from 1e-6 to 1e6")
    if "options" in config:
        _expect(config, "options", _known_options, f"some of {', '.join(sorted(_OPTIONS))}")
    if "origin" in config:
        Origin.from_dict(config["origin"])
    if "temperature" in config:
        _expect(config, "temperature", lambda t: _number(t) and 0.01 <= t <= 100, "a number from 0.01 to 100")
    if "weights_sha256" in config:
        _expect(config, "weights_sha256", lambda s: _text(s) and re.fullmatch("[0-9a-f]{64}", s), "64 hex digits")
    return config


def _check_model(config: Config, path: Path) -> None:
    try:
        model_info(config["model"])
    except InputError as error:
        source = config.get("model_source")
        hint = f" (its network was defined in {escape(source)})" if source else ""
        raise InputError(f"run: {escape(path)} cannot be used: {escape(error)}{hint}") from None


def _expect(config: Config, name: str, fits: Any, expected: str) -> None:
    if name not in config:
        raise ValueError(f"{name} is missing, expected {expected}")
    if not fits(config[name]):
        raise ValueError(f"{name} is {_short(config[name])}, expected {expected}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308  # an int may be larger


def _numbers(values: Any, many: int, least: float) -> bool:
    found = isinstance(values, list) and len(values) == many and all(map(_number, values))
    return found and min(values) >= least and max(values) <= 1e6


def _names(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) >= 2
        and all(map(_text, values))
        and all(name.strip() for name in values)
        and len(set(values)) == len(values)
    )


def _known_options(options: Any) -> bool:
    return isinstance(options, dict) and set(options) <= _OPTIONS and all(map(_text, options.values()))
