"""Networks of transformers and timm: built from their configuration, with weights in the safetensors format."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..layers.rules import NO_RULE, ShakeRule
from ..utils.console import escape
from ..utils.modes import eval_mode
from ..utils.modules import logits_of
from . import timm_networks, transformers_networks
from .head import find_head
from .origin import Origin, library_of
from .shakeify import NoBranchesError, shakeify

_BUILD_ERRORS = (ValueError, TypeError, RuntimeError, KeyError, AttributeError, IndexError, ImportError, OSError)


class ExternalNetwork(nn.Module):
    """A network of another library behind the interface of this package.

    Images (N, C, H, W) to logits (N, classes). Grey images are repeated for a network that expects colour.

    Args:
        network: The network. It returns a tensor, or an object with ``.logits``.
        grey: Whether images have one channel.
    """

    def __init__(self, network: nn.Module, grey: bool = False) -> None:
        super().__init__()
        self.network = network
        self.grey = grey

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes) of images (N, C, H, W)."""
        return logits_of(self.network(x.expand(-1, 3, -1, -1) if self.grey else x))


def find_origin(name: str) -> Origin:
    """Read the configuration of ``hf/REPO-OR-FOLDER`` or ``timm/NAME`` by the library's own code.

    Raises:
        InputError: The library is not installed, or does not know the name.
    """
    with _one_sentence(f"model: {escape(name)} cannot be used"):
        return _library(library_of(name)).find_origin(name)


def create_external(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | None = None,
    rule: str | ShakeRule = NO_RULE,
    pretrained: bool = False,
    origin: Origin | None = None,
) -> ExternalNetwork:
    """Build a network of another library with a new last layer.

    Under a rule that shakes, ``shakeify`` is applied to a network with grouped convolutions.

    Args:
        name: ``hf/REPO-OR-FOLDER`` or ``timm/NAME``.
        num_classes: Outputs of the last layer.
        in_channels: 1 or 3.
        image_size: Side of the images in pixels, with which the network is tried out; by default the library's.
        rule: A shake rule, or ``none``.
        pretrained: Load the library's weights, but for the last layer. Otherwise all weights are random.
        origin: What a run recorded, in place of the configuration that ``name`` has now.

    Raises:
        InputError: The library is not installed, its weights are not in the safetensors format or have changed, the
            network cannot be shaken (see ``shakeify``) or fails on such images.
    """
    origin = origin or find_origin(name)
    size = image_size or min(origin.image_size, 224)
    with _one_sentence(f"model: {escape(name)} cannot be built"):
        network = _library(origin.library).build(origin, num_classes)
        if pretrained:
            _load_body(network, num_classes, _pretrained(name, origin), name)
    wrapped = ExternalNetwork(network, in_channels == 1 and origin.architecture.get("num_channels", 3) == 3)
    example = None
    if next(wrapped.parameters()).device.type != "meta":
        with torch.random.fork_rng(devices=[]):
            example = torch.randn(2, in_channels, size, size)
        _check_output(wrapped, example, num_classes, name)
    return _shaken(wrapped, rule, example)


def has_branches(name: str, origin: Origin | None = None) -> bool:
    """Whether ``shakeify`` finds grouped convolutions in a network of another library.

    Raises:
        InputError: It finds some that it cannot split.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = create_external(name, num_classes=2, origin=origin)
        try:
            shakeify(network)
        except NoBranchesError:
            return False
    return True


def _shaken(network: ExternalNetwork, rule: str | ShakeRule, example: Tensor | None) -> ExternalNetwork:
    if rule == NO_RULE or is_even(rule):
        return network
    try:
        with torch.random.fork_rng(devices=[]):
            shaken = shakeify(network, rule, example=example)
    except NoBranchesError:
        return network
    except InputError as error:
        raise InputError(f"{error}; the rule E-E-B trains the network unchanged") from None
    assert isinstance(shaken, ExternalNetwork)
    return shaken


def is_even(rule: str | ShakeRule) -> bool:
    """Whether a rule does not shake, so that shakeify is not applied."""
    parsed = ShakeRule.parse(rule)
    return type(parsed) is ShakeRule and (parsed.forward, parsed.backward) == ("Even", "Even")


def _pretrained(name: str, origin: Origin) -> nn.Module:
    """The library's network with its own classes. The random state stays."""
    with torch.random.fork_rng(devices=[]):
        return _library(origin.library).pretrained(name, origin)


def _load_body(network: nn.Module, num_classes: int, source: nn.Module, name: str) -> None:
    """Copy all weights but those of the last layer."""
    head = find_head(network, num_classes) + "."
    theirs = source.state_dict()
    body = {key: value for key, value in network.state_dict().items() if not key.startswith(head)}
    for key, value in body.items():
        if key not in theirs or theirs[key].shape != value.shape:
            raise InputError(f"model: the weights of {escape(name)} have no {key} of shape {tuple(value.shape)}")
    network.load_state_dict({key: copy.deepcopy(theirs[key]) for key in body}, strict=False)


@torch.no_grad()
def _check_output(network: nn.Module, example: Tensor, num_classes: int, name: str) -> None:
    with eval_mode(network), torch.random.fork_rng(devices=[]):
        try:
            logits = network(example)
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"model: {escape(name)} fails on images of shape {tuple(example.shape)}: {reason}"
            ) from None
    if tuple(logits.shape) != (2, num_classes):
        raise InputError(
            f"model: {escape(name)} returns shape {tuple(logits.shape)} for two images, expected logits of shape "
            f"{(2, num_classes)}"
        )


def _library(library: str) -> Any:
    return transformers_networks if library == "transformers" else timm_networks


@contextlib.contextmanager
def _one_sentence(what: str) -> Iterator[None]:
    """Errors of the library become one sentence."""
    try:
        yield
    except InputError:
        raise
    except _BUILD_ERRORS as error:
        reason = escape(" ".join(str(error).split()))[:300] or type(error).__name__
        raise InputError(f"{what}: {reason}") from None
