"""The blocks of a fused network, and a plan of all their kernels for small inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.ops import Kernel
from .fused_conv import FusedConv, is_eager_cpu, pin_storage, version_key

MAX_BYTES = 2**18  # of an input with a plan: eight images of 16 channels and 32 x 32 pixels in bfloat16
MAX_SHAPES = 8  # with plans


class FusedBlock(nn.Module):
    """skip(x) + convolutions(x), with a ReLU after each convolution but the last.

    Args:
        convs: The chain of convolutions.
        skip: None for the identity.
        relu_before: Whether the convolutions and a skip other than the identity read relu(x).
        relu_after: Whether a ReLU follows the sum.
        adds_skip: Whether there is a skip at all.
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
        """run: Called with each convolution or skip and its arguments, to compute or to plan it."""
        y, first = x, {"relu_first": True} if self.relu_before else {}
        skip = None if not self.adds_skip else x if self.skip is None else run(self.skip, x, **first)
        *firsts, last = self.convs
        for conv in firsts:
            y, first = run(conv, y, relu=True, **first), {}
        return run(last, y, add=skip, relu=self.relu_after, **first)


class FusedStages(nn.Sequential):
    """The stages of a fused network, each a sequence of blocks.

    For a single image, reaching a kernel through the modules takes about as long as the kernel. For small inputs whose
    convolutions are all supported by the kernels, the first call of a shape therefore makes a plan, with the memory for
    intermediate results, and later calls only run its kernels one after another.
    """

    _plans: dict[Hashable, list[KernelPlan]]

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__(*stages)
        self._plans = {}

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the features of the last stage."""
        if (
            not is_eager_cpu(x) or x.numel() * x.itemsize > MAX_BYTES
        ):  # in this order: the number of images may be symbolic in a graph
            return super().forward(x)
        ready = self._take_or_make_plan(x)
        if ready is None:
            return super().forward(x)
        y = ready(x)
        self._plans.setdefault(_plan_key(x), []).append(ready)
        return y

    def _take_or_make_plan(self, x: Tensor) -> KernelPlan | None:
        """A plan that no other thread uses until it is put back."""
        there = self._plans.get(_plan_key(x))
        while there:
            try:
                ready = there.pop()
            except IndexError:  # another thread took it
                break
            if ready.is_valid():
                return ready
        if there is None and len(self._plans) >= MAX_SHAPES:
            self._plans = {}
        return KernelPlan.of(self, x)

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its own plans."""
        return {**self.__dict__, "_plans": {}}


def _plan_key(x: Tensor) -> Hashable:
    return x.shape, x.dtype, torch.get_num_threads()


class KernelPlan:
    """The kernels of all blocks for inputs of one shape, and the memory that they read and write."""

    def __init__(self, stages: nn.Module, x: Tensor, kernels: list[Kernel], y: Tensor) -> None:
        self.x, self.kernels, self.y = x, kernels, y
        self.modules = list(stages.modules())
        self.children = [(module._modules, dict(module._modules)) for module in self.modules if module._modules]
        self.parameters = [module._parameters for module in self.modules if module._parameters]
        self.memory = [pin_storage(value) for parameters in self.parameters for value in parameters.values()]
        self.values = self._values()

    @classmethod
    def of(cls, stages: nn.Module, like: Tensor) -> KernelPlan | None:
        """A plan for inputs like ``like``; None if a part of a block is not supported by the kernels or has hooks."""
        everything = [block for stage in stages.children() for block in stage.children()]
        blocks = [block for block in everything if isinstance(block, FusedBlock)]
        if blocks != everything:
            return None
        memory = _BufferRing(like.dtype, 2 + max(len(block.convs) for block in blocks))
        kernels = []

        def prepare(conv: nn.Module, x: Tensor, add: Tensor | None = None, **relus: bool) -> Tensor:
            if not isinstance(conv, FusedConv):
                raise _UnsupportedError
            y = memory.next(conv.output_shape(x))
            if (kernel := conv.kernel(x, y, add, **relus)) is None:
                raise _UnsupportedError
            kernels.append(kernel)
            return y

        x = y = memory.next(like.shape)
        try:
            for block in blocks:
                y = block.forward(y, prepare)
        except _UnsupportedError:
            return None
        made = cls(stages, x, kernels, y)
        return made if made.is_valid() else None

    def is_valid(self) -> bool:
        """Whether modules, weights and biases are unchanged and no module has hooks."""
        return (
            all(now == then for now, then in self.children)
            and not any(module._forward_hooks or module._forward_pre_hooks for module in self.modules)
            and self._values() == self.values
        )

    def _values(self) -> list[Hashable]:
        return [version_key(value) for parameters in self.parameters for value in parameters.values()]

    def __call__(self, x: Tensor) -> Tensor:
        """Run the kernels on (N, C, H, W)."""
        self.x.copy_(x)
        for kernel in self.kernels:
            kernel()
        return self.y.clone()


class _UnsupportedError(Exception):
    pass


class _BufferRing:
    """Buffers for intermediate results, reused in turn: only the last few results are still read."""

    def __init__(self, dtype: torch.dtype, results: int) -> None:
        with torch.inference_mode(False):  # writable inside and outside of inference mode
            self.results = [torch.empty(0, dtype=dtype)] * results
        self.used = 0

    def next(self, shape: Sequence[int]) -> Tensor:
        """The buffer of the oldest result as (N, C, H, W), channels_last; reallocated if it is too small."""
        n, c, h, w = shape
        at, size = self.used % len(self.results), n * c * h * w
        self.used += 1
        if self.results[at].numel() < size:
            with torch.inference_mode(False):
                self.results[at] = torch.empty(size, dtype=self.results[at].dtype)
        return self.results[at][:size].view(n, h, w, c).permute(0, 3, 1, 2)
