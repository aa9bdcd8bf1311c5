"""Convert weights of public PyTorch reimplementations of 26 2xWd to this package's state dicts.

    network = create_model("shake_resnet26_2x32d", skip_shift="mirrored")
    load_external_weights(network, torch.load("external.pt", weights_only=True))

Each layout is a table of patterns and is recognised by its keys. Most reimplementations shift the second path of the
skip the other way, and one has its ReLUs elsewhere. Shapes do not show this, so build the network with the layout's
options; load_external_weights refuses other ones.

    layout     public repository             differs from the paper in                         build with
    hysts      hysts/pytorch_shake_shake     the shift                                         skip_shift="mirrored"
    owruby     owruby/shake-shake_pytorch,   the shift; a stem with bias and without BN;       skip_shift="mirrored"
               archai                        unused two-path skips in all blocks
    pytorchcv  osmr/imgclsmob                ReLU after the stem and after every block's sum   activation="post"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InputError
from .shake_resnet import ShakeResNet

_END = r"(weight|bias|running_mean|running_var|num_batches_tracked)"


@dataclass(frozen=True)
class Layout:
    """How one reimplementation names its tensors.

    Args:
        name: Name of the layout.
        rules: Pairs of a pattern for a whole key and its replacement, tried in order. ``{n}`` in a replacement is the
            number in the pattern's group n minus 1, because this package counts from 0.
        options: Arguments of ShakeResNet with which it computes the same.
        idle_skips: Whether blocks with identity skips hold weights of an unused skip.
    """

    name: str
    rules: tuple[tuple[str, str], ...]
    options: Mapping[str, str]
    idle_skips: bool = False

    def rename(self, key: str) -> str | None:
        """Our name of an external parameter, or None if no pattern matches."""
        for pattern, ours in self.rules:
            if match := re.fullmatch(pattern, key):
                return re.sub(r"{(\d)}", lambda n: str(int(match[int(n[1])]) - 1), match.expand(ours))
        return None


LAYOUTS = (
    Layout(
        "hysts",
        (
            (rf"(conv|bn)\.{_END}", r"stem.\1.\2"),
            (
                rf"stage(\d+)\.block(\d+)\.residual_path(\d+)\.(conv[12]|bn[12])\.{_END}",
                r"stages.{1}.blocks.{2}.branches.{3}.\4.\5",
            ),
            (
                rf"stage(\d+)\.block(\d+)\.shortcut\.skip\.(conv[12]|bn)\.{_END}",
                r"stages.{1}.blocks.{2}.skip.\3.\4",
            ),
            (r"fc\.(weight|bias)", r"fc.\1"),
        ),
        {"skip_shift": "mirrored", "activation": "pre"},
    ),
    Layout(
        "owruby",  # layers from 1, blocks from 0; a branch is ReLU, conv, BN, ReLU, conv, BN by number
        (
            (r"c_in\.weight", r"stem.conv.weight"),
            (r"c_in\.bias", r"stem.bn.bias"),
            *(
                (
                    rf"layer(\d+)\.(\d+)\.branch(\d+)\.{at}\.{_END}",
                    rf"stages.{{1}}.blocks.\2.branches.{{3}}.{ours}.\4",
                )
                for at, ours in ((1, "conv1"), (2, "bn1"), (4, "conv2"), (5, "bn2"))
            ),
            (rf"layer(\d+)\.(\d+)\.shortcut\.(conv[12]|bn)\.{_END}", r"stages.{1}.blocks.\2.skip.\3.\4"),
            (r"fc_out\.(weight|bias)", r"fc.\1"),
        ),
        {"skip_shift": "mirrored", "activation": "pre"},
        idle_skips=True,
    ),
    Layout(
        "pytorchcv",
        (
            (rf"features\.init_block\.(conv|bn)\.{_END}", r"stem.\1.\2"),
            *(
                (
                    rf"features\.stage(\d+)\.unit(\d+)\.branch(\d+)\.conv([12])\.{theirs}\.{_END}",
                    rf"stages.{{1}}.blocks.{{2}}.branches.{{3}}.{theirs}\4.\5",
                )
                for theirs in ("conv", "bn")
            ),
            (
                rf"features\.stage(\d+)\.unit(\d+)\.identity_branch\.(conv[12]|bn)\.{_END}",
                r"stages.{1}.blocks.{2}.skip.\3.\4",
            ),
            (r"output\.(weight|bias)", r"fc.\1"),
        ),
        {"skip_shift": "reference", "activation": "post"},
    ),
)


def recognise(state: Mapping[str, Tensor]) -> Layout:
    """Return the layout that matches most keys. Raises InputError if none matches half of them."""
    known = {layout.name: sum(layout.rename(key) is not None for key in _plain(state)) for layout in LAYOUTS}
    best = max(LAYOUTS, key=lambda layout: known[layout.name])
    if not state or 2 * known[best.name] < len(state):
        some = ", ".join(list(state)[:3]) or "none at all"
        raise InputError(
            f"state_dict: its keys ({some}, ...) match no known layout, expected one of "
            + ", ".join(layout.name for layout in LAYOUTS)
        )
    return best


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of an external state dict to this package's; the tensors are shared.

    The prefix ``module.`` of DataParallel and weights of unused skips are dropped. A stem with a bias in place of BN
    (owruby) becomes one with a BN that only adds the bias: exact in evaluation, but in training it normalises.

    Args:
        state: The external state dict.

    Raises:
        InputError: If the layout is unknown, or a key has no counterpart.
    """
    layout, state = recognise(state), _plain(state)
    ours = {key: layout.rename(key) for key in state}
    left = [key for key, name in ours.items() if name is None]
    if left:
        raise InputError(
            f"state_dict: has the {layout.name} layout, but ShakeResNet has no counterpart of {_some(left)}"
        )
    found = {name: state[key] for key, name in ours.items() if name is not None}
    if layout.idle_skips:
        found = _without_idle_skips(found)
    if layout.name == "owruby" and "stem.conv.weight" in found:
        width = found["stem.conv.weight"].shape[0]
        found.setdefault("stem.bn.bias", torch.zeros(width))
        found["stem.bn.num_batches_tracked"] = torch.tensor(0)
        found["stem.bn.weight"] = torch.ones(width)
        found["stem.bn.running_mean"] = torch.zeros(width)
        found["stem.bn.running_var"] = torch.full((width,), 1.0 - 1e-5)  # BN adds its eps of 1e-5
    return found


def load_external_weights(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Load the weights of a public reimplementation into a ShakeResNet, in place.

    A fork with another shift or activation can be loaded with ``network.load_state_dict(translate(state))``.

    Args:
        network: A ShakeResNet built with the options of the layout.
        state: The external state dict. BN's batch counts may be missing, as in files from before PyTorch 0.4.1.

    Returns:
        The network.

    Raises:
        InputError: If the layout is unknown, the network's options differ from the layout's, or keys or shapes do not
            match. The network then stays unchanged.
    """
    if not isinstance(network, ShakeResNet):
        raise InputError(f"network: got {type(network).__name__}, expected a ShakeResNet such as shake_resnet26_2x32d")
    layout, found = recognise(state), translate(state)
    for option, theirs in layout.options.items():
        if getattr(network, option) != theirs:
            raise InputError(
                f"network: built with {option}={getattr(network, option)!r}, but weights of the {layout.name} layout "
                f"expect {option}={theirs!r}"
            )
    own = network.state_dict()
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):
            found.setdefault(name, torch.zeros_like(value))
    if missing := [name for name in own if name not in found]:
        raise InputError(f"state_dict: has the {layout.name} layout, but lacks {_some(missing)} of the network")
    if left := [name for name in found if name not in own]:
        raise InputError(f"state_dict: has the {layout.name} layout, but the network has no {_some(left)}")
    for name, value in own.items():
        if value.shape != found[name].shape:
            raise InputError(
                f"state_dict: {name} has shape {tuple(found[name].shape)} there, expected {tuple(value.shape)}"
            )
    network.load_state_dict(found)
    return network


def _without_idle_skips(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop unused skips, which blocks with as many input as output channels have."""
    skips = {
        name.removesuffix(".conv1.weight"): w.shape for name, w in found.items() if name.endswith("skip.conv1.weight")
    }
    idle = {skip for skip, (half, channels, *_) in skips.items() if channels == 2 * half}
    return {name: value for name, value in found.items() if name.rsplit(".", 2)[0] not in idle}


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("module."): value for key, value in state.items()}


def _some(keys: list[str]) -> str:
    """Format the first three keys and the number of others."""
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
