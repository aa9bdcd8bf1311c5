"""Correlation between the branches of each block, and between their layers (paper, Figures 3 and 4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..layers.shake_shake import ShakeShake
from ..utils.modes import eval_mode
from .covariance import CoMoments

LAYERS = 3


@dataclass(frozen=True)
class BlockCorrelation:
    """Pearson correlation between the outputs of a block's branches.

    Attributes:
        block: name of the module that contains the ShakeShake layer.
        matrix: (branches, branches), symmetric; nan where a branch is constant.
    """

    block: str
    matrix: np.ndarray

    def pairs(self) -> Iterator[tuple[int, int, float]]:
        """Yield (branch, other branch, correlation) for every pair."""
        for i, j in itertools.combinations(range(len(self.matrix)), 2):
            yield i, j, float(self.matrix[i, j])


@dataclass(frozen=True)
class LayerCorrelation:
    """LiRj: correlation between layer i of one branch and layer j of another.

    Attributes:
        block: name of the module that contains the ShakeShake layer.
        layers: names of the first three layers of a branch.
        matrices: for each pair of branches a (3, 3) array, row = layer of the first branch; nan where the outputs of
            the two layers differ in shape or one is constant.
    """

    block: str
    layers: tuple[str, ...]
    matrices: dict[tuple[int, int], np.ndarray]


def shaken_blocks(model: nn.Module) -> dict[str, tuple[ShakeShake, nn.Module]]:
    """Find the ShakeShake layers of a model.

    Returns:
        Block name -> (the layer, the module that contains it), in module order. A block is named after the containing
        module, or after the layer itself if that module is the model or contains several such layers.
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, ShakeShake)]
    parents = [name.rpartition(".")[0] for name, _ in layers]
    return {
        (parent if parent and parents.count(parent) == 1 else name): (layer, model.get_submodule(parent))
        for (name, layer), parent in zip(layers, parents, strict=True)
    }


def branch_correlation(model: nn.Module, batches: Iterable[Any]) -> list[BlockCorrelation]:
    """Pearson correlation between the branches of each block (paper, Figure 3).

    Taken over all elements of the branches' outputs times 1/B, in evaluation mode, in one pass and constant memory.
    A module that is called several times gives one correlation over all its calls.

    Args:
        model: any network with ShakeShake modules.
        batches: image tensors (N, ...), or tuples or objects whose first item or ``.images`` is one, on the model's
            device.

    Returns:
        One entry per block, in the order in which the blocks are called.

    Raises:
        InputError: for a model without ShakeShake modules.
    """
    with watch_branches(model) as result:
        forward_all(model, batches)
    return result()


def layerwise_correlation(model: nn.Module, batches: Iterable[Any]) -> list[LayerCorrelation]:
    """Correlation LiRj between layer i of one branch and layer j of another (paper, Figure 4).

    The layers are the first three modules of a branch that have parameters: conv, BN, conv in this package's networks.
    The paper does not say which ones it counts; a ReLU in front of both branches would have correlation 1 by
    construction.

    Args:
        model: a network whose blocks hold their branches as ``.branches``.
        batches: as in branch_correlation().

    Raises:
        InputError: for a model without ShakeShake modules, or with a block that has no ``.branches``.
    """
    with watch_layers(model) as result:
        forward_all(model, batches)
    return result()


@torch.no_grad()
def forward_all(model: nn.Module, batches: Iterable[Any]) -> None:
    """Run all batches through the model in evaluation mode and restore its training mode."""
    with eval_mode(model):
        for batch in batches:
            images = getattr(batch, "images", batch)
            model(images if isinstance(images, Tensor) else images[0])


@contextmanager
def watch_branches(model: nn.Module) -> Iterator[Callable[[], list[BlockCorrelation]]]:
    """Collect correlations from every forward pass in the context; the yielded function returns them."""
    sums: dict[str, CoMoments] = {}

    def hook(block: str) -> Any:
        def update(_: nn.Module, branches: tuple[Tensor, ...]) -> None:
            moments = sums.setdefault(block, CoMoments(len(branches)))
            moments.update([x.detach().float() / len(branches) for x in branches])

        return update

    handles = [layer.register_forward_pre_hook(hook(block)) for block, (layer, _) in _require_blocks(model).items()]
    try:
        yield lambda: [BlockCorrelation(block, moments.correlation()) for block, moments in sums.items()]
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watch_layers(model: nn.Module) -> Iterator[Callable[[], list[LayerCorrelation]]]:
    """As watch_branches(), for the layers of the branches."""
    watched: dict[str, _BlockLayers] = {}
    handles = []
    for block, (layer, parent) in _require_blocks(model).items():
        branches = getattr(parent, "branches", None)
        if branches is None:
            raise InputError(f"model: got block {block} without .branches, expected them to correlate their layers")
        watched[block] = layers = _BlockLayers([_first_layers(branch) for branch in branches])
        for b, branch in enumerate(branches):
            for i, name in enumerate(layers.names[b]):
                handles.append(branch.get_submodule(name).register_forward_hook(layers.store(b, i)))
        handles.append(layer.register_forward_pre_hook(layers.update))
    try:
        yield lambda: [LayerCorrelation(block, of.names[0], of.matrices()) for block, of in watched.items()]
    finally:
        for handle in handles:
            handle.remove()


class _BlockLayers:
    """The layers of one block: their outputs in the current pass, and the moments of all passes."""

    def __init__(self, names: list[tuple[str, ...]]) -> None:
        self.names = names
        self.outputs: dict[tuple[int, int], Tensor] = {}  # by (branch, layer)
        self.groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}  # layers by the shape of their outputs
        self.moments: dict[tuple[int, ...], CoMoments] = {}

    def store(self, branch: int, layer: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            self.outputs[branch, layer] = output.detach().clone()  # a ReLU may overwrite it in place

        return hook

    def update(self, _: nn.Module, __: Any) -> None:
        """Add the outputs of all branches to the moments and release them."""
        if not self.groups:
            for key, output in sorted(self.outputs.items()):
                self.groups.setdefault(tuple(output.shape[1:]), []).append(key)
            self.moments = {shape: CoMoments(len(keys)) for shape, keys in self.groups.items()}
        for shape, keys in self.groups.items():
            self.moments[shape].update([self.outputs[key].float() for key in keys])
        self.outputs.clear()

    def matrices(self) -> dict[tuple[int, int], np.ndarray]:
        layers = len(self.names[0])
        pairs = itertools.combinations(range(len(self.names)), 2)
        matrices = {pair: np.full((layers, layers), np.nan) for pair in pairs}
        for shape, keys in self.groups.items():
            correlation = self.moments[shape].correlation()
            for (left, right), matrix in matrices.items():
                for (b, i), (c, j) in itertools.product(keys, repeat=2):
                    if (b, c) == (left, right):
                        matrix[i, j] = correlation[keys.index((b, i)), keys.index((c, j))]
        return matrices


def _require_blocks(model: nn.Module) -> dict[str, tuple[ShakeShake, nn.Module]]:
    blocks = shaken_blocks(model)
    if not blocks:
        raise InputError(f"model: got {type(model).__name__} without ShakeShake modules, expected at least one")
    return blocks


def _first_layers(branch: nn.Module) -> tuple[str, ...]:
    leaves = [name for name, module in branch.named_modules() if name and list(module.parameters(recurse=False))]
    return tuple(leaves[:LAYERS])
