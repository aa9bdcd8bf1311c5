"""Read and write weights in the safetensors format, and load them into networks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import InputError
from ..utils.console import escape
from .registry import create_model, model_info

HEAD = ("fc.weight", "fc.bias")  # the last layer of every network of this package
STEM = "stem.conv.weight"
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def weights_as_bytes(network: nn.Module, *, half: bool = False) -> bytes:
    """Serialize the network's parameters and buffers in the safetensors format.

    Args:
        network: The network.
        half: Whether to store floats as float16, which halves the size.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    return save(state)


def sha256(content: bytes) -> str:
    """Return the SHA-256 as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read a safetensors file.

    No other format is read: files of torch.save can execute code when they are opened.

    Returns:
        The tensors, floats as float32, and the SHA-256 of the file.

    Raises:
        InputError: If the file is missing, damaged, in another format, or has values that are not finite.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"weights: {escape(path)} cannot be read: {error.strerror or error}") from None
    try:
        tensors = parse(content)
    except (SafetensorError, KeyError, ValueError) as error:
        pickled = content[:4] == b"PK\x03\x04" or content[:1] == b"\x80"
        reason = "a file of torch.save" if pickled else escape(error)
        raise InputError(f"weights: {escape(path)} is not a whole safetensors file ({reason})") from None
    other = next((v.dtype for v in tensors.values() if v.is_floating_point() and v.dtype not in _FLOATS), None)
    if other is not None:
        raise InputError(f"weights: {escape(path)} has {other}, expected floats of 16 bits or more")
    floats = {name: value.float() if value.dtype in _FLOATS else value for name, value in tensors.items()}
    bad = next((name for name, value in floats.items() if not torch.isfinite(value).all()), None)
    if bad is not None:
        raise InputError(f"weights: {escape(path)} has values in {escape(bad)} that are not finite")
    return floats, sha256(content)


def network_of(tensors: Mapping[str, Tensor], model: str, source: object, **options: Any) -> nn.Module:
    """Build a network with these tensors as its weights.

    A network of this package takes no memory beyond the tensors, whatever its name specifies.

    Args:
        tensors: All parameters and buffers.
        model: Name of the network.
        source: Where the tensors come from, for error messages.
        **options: Arguments of create_model.

    Raises:
        InputError: If the tensors belong to another network; names the first one that differs.
    """
    info = model_info(model)
    if max(info.numbers.get("depth", 1), info.branches or 1) > len(tensors):
        raise InputError(f"weights: {escape(source)} has {len(tensors)} tensors, too few for a {model}")
    if info.library:  # before memory is taken for it
        with torch.device("meta"):
            check_same(tensors, create_model(model, **options), source, model)
    with torch.device("meta" if info.family else "cpu"):  # a user's factory may need values
        network = create_model(model, **options).float()  # whatever torch's default dtype is
    check_same(tensors, network, source, model)
    network.load_state_dict(dict(tensors), assign=True)
    return network


def load_for_finetuning(
    network: nn.Module, tensors: Mapping[str, Tensor], source: object, model: str, *, other_classes: bool = False
) -> bool:
    """Load weights into an existing network, except its last layer ``fc`` if the classes differ.

    Args:
        network: The network to change.
        tensors: The weights.
        source: Where they come from, for error messages.
        model: The network's name, for error messages.
        other_classes: Whether the weights distinguish other classes. A different number is noticed without it.

    Returns:
        Whether the last layer kept its own weights.

    Raises:
        InputError: If the weights belong to another network, which then stays unchanged.
    """
    own = network.state_dict()
    _check_images(tensors, own, source)
    theirs = [tensors[name].shape for name in HEAD if name in tensors and name in own]
    fits = len(theirs) == len(HEAD) and theirs[0][1:] == own[HEAD[0]].shape[1:]
    new_head = fits and (other_classes or theirs[1] != own[HEAD[1]].shape)
    found = {**tensors, **{name: own[name] for name in HEAD}} if new_head else dict(tensors)
    check_same(found, network, source, model)
    network.load_state_dict(found)
    return new_head


def _check_images(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: object) -> None:
    """Check what depends on the images and not on the network's name: their channels and the stride of the stem."""
    if STEM not in own or STEM not in tensors or tensors[STEM].dim() != 4:
        return  # check_same() reports it
    (_, channels, *kernel), (_, wanted, *expected) = tensors[STEM].shape, own[STEM].shape
    if channels != wanted:
        kinds = {1: "grey", 3: "colour"}
        raise InputError(
            f"weights: {escape(source)} was trained on images of {channels} channels, expected {wanted} "
            f"({kinds[wanted]}), as these images have"
        )
    if kernel != expected:
        raise InputError(
            f"weights: {escape(source)} was trained on images of another size, with a stem of {kernel[0]} x "
            f"{kernel[1]} pixels, expected {expected[0]} x {expected[1]} as for these images"
        )


def check_same(tensors: Mapping[str, Tensor], network: nn.Module, source: object, model: str) -> None:
    """Raise InputError unless the tensors have the names, shapes and dtypes of the network's."""
    wanted = network.state_dict()
    where = f"weights: {escape(source)} belongs to another network than {model}"
    for name, value in wanted.items():
        if name not in tensors:
            raise InputError(f"{where}: it has no {name}")
        if tensors[name].shape != value.shape:
            raise InputError(
                f"{where}: {name} has the shape {tuple(tensors[name].shape)}, expected {tuple(value.shape)}"
            )
        if tensors[name].dtype != value.dtype:
            raise InputError(f"{where}: {name} is {tensors[name].dtype}, expected {value.dtype}")
    if left := [name for name in tensors if name not in wanted]:
        raise InputError(f"{where}, which has no {escape(left[0])}")
