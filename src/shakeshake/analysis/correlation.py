"""Correlation between the branches of each block, and between their layers (paper, section 3.1)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
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

    block: the name of the module that holds the ShakeShake layer. matrix: (branches, branches), symmetric; nan where a
    branch is constant.
    """

    block: str
    matrix: np.ndarray

    def pairs(self) -> Iterator[tuple[int, int, float]]:
        """(branch, other branch, correlation) of every pair."""
        for i, j in itertools.combinations(range(len(self.matrix)), 2):
            yield i, j, float(self.matrix[i, j])


@dataclass(frozen=True)
class LayerCorrelation:
    """LiRj: correlation between layer i of one branch and layer j of another.

    layers: the names of the first three layers of a branch. matrices: for every pair of branches a (3, 3) array, row =
    layer of the first branch; nan where the two layers' outputs differ in shape or one is constant.
    """

    block: str
    layers: tuple[str, ...]
    matrices: dict[tuple[int, int], np.ndarray]


def shaken_blocks(model: nn.Module) -> dict[str, tuple[ShakeShake, nn.Module]]:
    """Block name -> (its ShakeShake layer, the module that holds it), in the order of the model's modules.

    A block's name is that of the module which holds the layer, or the layer's own where that module is the model
    itself or holds several.
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, ShakeShake)]
    holders = [name.rpartition(".")[0] for name, _ in layers]
    return {
        (holder if holder and holders.count(holder) == 1 else name): (layer, model.get_submodule(holder))
        for (name, layer), holder in zip(layers, holders, strict=True)
    }


def branch_correlation(model: nn.Module, batches: Iterable[Any]) -> list[BlockCorrelation]:
    """One Pearson correlation per block and pair of branches (paper, section 3.1).

    Over all elements of the branches' outputs, after the multiplication by 1/N, in evaluation mode; one pass over
    ``batches``, in memory that does not grow. Works for any network with ShakeShake modules; a module that is called
    several times gives one correlation over all its calls.

    batches: image tensors (N, ...), or tuples or objects whose first item or ``.images`` is one, on the model's device.
    Raises InputError for a model without ShakeShake modules.
    """
    with watch_branches(model) as seen:
        run(model, batches)
    return seen()


def layerwise_correlation(model: nn.Module, batches: Iterable[Any]) -> list[LayerCorrelation]:
    """Correlations LiRj of the first three layers of each block's branches (paper, section 3.1).

    Layers are a branch's modules with parameters, in order: conv, BN, conv in this package's networks. Which ones the
    paper counts it does not say; a ReLU that all branches share would have correlation 1 by construction. Needs blocks
    that hold their branches as ``.branches``. Arguments and errors as in branch_correlation().
    """
    with watch_layers(model) as seen:
        run(model, batches)
    return seen()


@torch.no_grad()
def run(model: nn.Module, batches: Iterable[Any]) -> None:
    """Send batches through the model in evaluation mode, which is left as it was found."""
    with eval_mode(model):
        for batch in batches:
            model(images_of(batch))


def images_of(batch: Any) -> Tensor:
    images = getattr(batch, "images", batch)
    return images if isinstance(images, Tensor) else images[0]


@contextmanager
def watch_branches(model: nn.Module) -> Iterator[Any]:
    """While entered, every pass through the model counts; what is yielded returns the correlations seen so far."""
    blocks = _blocks(model)
    moments: dict[str, CoMoments] = {}

    def hook(block: str) -> Any:
        def before(_: nn.Module, branches: tuple[Tensor, ...]) -> None:
            sums = moments.setdefault(block, CoMoments(len(branches)))
            sums.update([x.detach().float() / len(branches) for x in branches])

        return before

    handles = [layer.register_forward_pre_hook(hook(block)) for block, (layer, _) in blocks.items()]
    try:
        yield lambda: [BlockCorrelation(block, sums.correlation()) for block, sums in moments.items()]
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watch_layers(model: nn.Module) -> Iterator[Any]:
    """As watch_branches(), for the layers of the branches."""
    watched: dict[str, _Layers] = {}
    handles = []
    for block, (layer, holder) in _blocks(model).items():
        branches = getattr(holder, "branches", None)
        if branches is None:
            raise InputError(
                f"model: block {block} has no .branches, expected them for the correlation of their layers"
            )
        watched[block] = layers = _Layers([_first_layers(branch) for branch in branches])
        for b, branch in enumerate(branches):
            for i, name in enumerate(layers.names[b]):
                handles.append(branch.get_submodule(name).register_forward_hook(layers.keep(b, i)))
        handles.append(layer.register_forward_pre_hook(layers.compare))
    try:
        yield lambda: [LayerCorrelation(block, of.names[0], of.matrices()) for block, of in watched.items()]
    finally:
        for handle in handles:
            handle.remove()


class _Layers:
    """One block's layers: what they gave in the pass under way, and the moments of all passes."""

    def __init__(self, names: list[tuple[str, ...]]) -> None:
        self.names = names
        self.outputs: dict[tuple[int, int], Tensor] = {}  # by (branch, layer)
        self.groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}  # layers whose outputs have one shape
        self.moments: dict[tuple[int, ...], CoMoments] = {}

    def keep(self, branch: int, layer: int) -> Any:
        def after(_: nn.Module, __: Any, output: Tensor) -> None:
            self.outputs[branch, layer] = output.detach().clone()  # the ReLU behind it may work in place

        return after

    def compare(self, _: nn.Module, __: Any) -> None:
        """The block's branches meet: take the moments of what their layers gave, and let it go."""
        if not self.groups:
            for place, output in sorted(self.outputs.items()):
                self.groups.setdefault(tuple(output.shape[1:]), []).append(place)
            self.moments = {shape: CoMoments(len(places)) for shape, places in self.groups.items()}
        for shape, places in self.groups.items():
            self.moments[shape].update([self.outputs[place].float() for place in places])
        self.outputs.clear()

    def matrices(self) -> dict[tuple[int, int], np.ndarray]:
        layers = len(self.names[0])
        pairs = itertools.combinations(range(len(self.names)), 2)
        matrices = {pair: np.full((layers, layers), np.nan) for pair in pairs}
        for shape, places in self.groups.items():
            correlation = self.moments[shape].correlation()
            for (left, right), matrix in matrices.items():
                for (b, i), (c, j) in itertools.product(places, repeat=2):
                    if (b, c) == (left, right):
                        matrix[i, j] = correlation[places.index((b, i)), places.index((c, j))]
        return matrices


def _blocks(model: nn.Module) -> dict[str, tuple[ShakeShake, nn.Module]]:
    blocks = shaken_blocks(model)
    if not blocks:
        raise InputError(f"model: {type(model).__name__} has no parallel branches, expected ShakeShake modules in it")
    return blocks


def _first_layers(branch: nn.Module) -> tuple[str, ...]:
    leaves = [name for name, module in branch.named_modules() if name and list(module.parameters(recurse=False))]
    return tuple(leaves[:LAYERS])
