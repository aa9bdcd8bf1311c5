"""The blocks of a fused network, and for few images all their kernels, prepared once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.ops import Kernel
from .fused_conv import FusedConv, held, identity, unrecorded

FEW = 2**18  # bytes of an input: eight images of 16 channels and 32 x 32 in bfloat16
SHAPES = 8  # for which kernels are kept


class FusedBlock(nn.Module):
    """skip(x) + convolutions(x), with ReLUs where the block had them.

    relu_before: the block's own ReLU, before branches and a skip that is not the identity. relu_between: after each
    convolution but the last; relu_after: after the sum. adds_skip: whether there is a skip at all.
    """

    def __init__(
        self,
        convs: Sequence[nn.Module],
        skip: nn.Module | None,
        *,
        relu_before: bool,
        relu_after: bool,
        adds_skip: bool = True,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.skip = skip
        self.relu_before, self.relu_after, self.adds_skip = relu_before, relu_after, adds_skip

    def forward(self, x: Tensor, run: Callable[..., Tensor] = nn.Module.__call__) -> Tensor:
        """run: what is done with each convolution, or skip, and its arguments."""
        y, first = x, {"relu_first": True} if self.relu_before else {}
        skip = None if not self.adds_skip else x if self.skip is None else run(self.skip, x, **first)
        *firsts, last = self.convs
        for conv in firsts:
            y, first = run(conv, y, relu=True, **first), {}
        return run(last, y, add=skip, relu=self.relu_after, **first)


class FusedStages(nn.Sequential):
    """The stages of a fused network, each a sequence of blocks.

    For a single image, getting to a kernel through modules takes about as long as the kernel. So where images are few
    and all is done by kernels of ours, these are prepared at the first call for a shape, with the memory in between,
    and from then on only called, one after the other.
    """

    _prepared: dict[Hashable, list[_Prepared]]

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__(*stages)
        self._prepared = {}

    def forward(self, x: Tensor) -> Tensor:
        if not unrecorded(x) or x.numel() * x.itemsize > FEW:  # in this order: a graph takes any number of images
            return super().forward(x)
        ready = self._taken_or_made(x)
        if ready is None:
            return super().forward(x)
        y = ready(x)
        self._prepared.setdefault(_key(x), []).append(ready)
        return y

    def _taken_or_made(self, x: Tensor) -> _Prepared | None:
        """Of one thread only, as long as it has it."""
        there = self._prepared.get(_key(x))
        while there:
            try:
                ready = there.pop()
            except IndexError:  # another thread was faster
                break
            if ready.holds():
                return ready
        if there is None and len(self._prepared) >= SHAPES:
            self._prepared = {}
        return _Prepared.of(self, x)

    def __getstate__(self) -> dict[str, Any]:
        """A copy prepares its own."""
        return {**self.__dict__, "_prepared": {}}


def _key(x: Tensor) -> Hashable:
    return x.shape, x.dtype, torch.get_num_threads()


class _Prepared:
    """The kernels of all blocks for an input of one shape, and the memory that they read and write."""

    def __init__(self, stages: nn.Module, x: Tensor, kernels: list[Kernel], y: Tensor) -> None:
        self.x, self.kernels, self.y = x, kernels, y
        self.modules = list(stages.modules())
        self.children = [(module._modules, dict(module._modules)) for module in self.modules if module._modules]
        self.parameters = [module._parameters for module in self.modules if module._parameters]
        self.memory = [held(value) for parameters in self.parameters for value in parameters.values()]
        self.values = self._values()

    @classmethod
    def of(cls, stages: nn.Module, like: Tensor) -> _Prepared | None:
        """None where something is done by other means than a kernel of ours, or somebody listens."""
        everything = [block for stage in stages.children() for block in stage.children()]
        blocks = [block for block in everything if isinstance(block, FusedBlock)]
        if blocks != everything:
            return None
        memory = _Ring(like.dtype, 2 + max(len(block.convs) for block in blocks))
        kernels = []

        def prepare(conv: nn.Module, x: Tensor, add: Tensor | None = None, **relus: bool) -> Tensor:
            if not isinstance(conv, FusedConv):
                raise _NoKernelError
            y = memory.next(conv.output_shape(x))
            if (kernel := conv.kernel(x, y, add, **relus)) is None:
                raise _NoKernelError
            kernels.append(kernel)
            return y

        x = y = memory.next(like.shape)
        try:
            for block in blocks:
                y = block.forward(y, prepare)
        except _NoKernelError:
            return None
        made = cls(stages, x, kernels, y)
        return made if made.holds() else None

    def holds(self) -> bool:
        """Whether modules, weights and biases are those that were there, and no hook waits for a call."""
        return (
            all(now == then for now, then in self.children)
            and not any(module._forward_hooks or module._forward_pre_hooks for module in self.modules)
            and self._values() == self.values
        )

    def _values(self) -> list[Hashable]:
        return [identity(value) for parameters in self.parameters for value in parameters.values()]

    def __call__(self, x: Tensor) -> Tensor:
        self.x.copy_(x)
        for kernel in self.kernels:
            kernel()
        return self.y.clone()


class _NoKernelError(Exception):
    pass


class _Ring:
    """Memory for results of which only the last few are still read."""

    def __init__(self, dtype: torch.dtype, results: int) -> None:
        with torch.inference_mode(False):  # to be written in inference mode and outside of it
            self.results = [torch.empty(0, dtype=dtype)] * results
        self.used = 0

    def next(self, shape: Sequence[int]) -> Tensor:
        """The memory of the oldest result, as (N, C, H, W), channels_last; it is another one if that is too small."""
        n, c, h, w = shape
        at, size = self.used % len(self.results), n * c * h * w
        self.used += 1
        if self.results[at].numel() < size:
            with torch.inference_mode(False):
                self.results[at] = torch.empty(size, dtype=self.results[at].dtype)
        return self.results[at][:size].view(n, h, w, c).permute(0, 3, 1, 2)
