"""Convolution with optional ReLU before, sum and ReLU after, computed as one operation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import convs
from ..kernels.ops import Kernel


class FusedConv(nn.Conv2d):
    """relu(conv(relu(x)) + add); both ReLUs and the sum are optional.

    On a CPU outside of autograd this is one kernel of this package, or else one oneDNN primitive, with the weight
    packed once instead of at every call; ``add`` may then be overwritten. Elsewhere, and while operations are recorded
    or transformed (torch.export, torch.compile, tracing, autocast), it is separate operations.
    """

    _packed_of: Hashable = None
    _packed: Mapping[Hashable, Any] = {}
    _packed_taps = 0
    _packed_memory: Sequence[Tensor | None] = ()

    def forward(self, x: Tensor, add: Tensor | None = None, relu: bool = False, relu_first: bool = False) -> Tensor:
        """Convolve (N, C, H, W), with a ReLU before or after and ``add`` added to the result."""
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None
        if eager := is_eager_cpu(x) and x.dtype == weight.dtype:
            self._drop_stale_packing(weight, bias)
            if self._is_supported(x, add):
                x = x.contiguous(memory_format=torch.channels_last)
                add = None if add is None else add.contiguous(memory_format=torch.channels_last)
                y = torch.empty(self.output_shape(x), dtype=x.dtype, memory_format=torch.channels_last)
                self._kernel(x, y, add, relu, relu_first)()
                return y
        if relu_first:
            x = F.relu(x)
        if not (eager and _onednn_packs(x.dtype)):
            y = super().forward(x)
            y = y if add is None else y + add
            return F.relu(y) if relu else y
        return self._run_onednn(x, weight, bias, add, relu)

    def kernel(
        self, x: Tensor, y: Tensor, add: Tensor | None, relu: bool = False, relu_first: bool = False
    ) -> Kernel | None:
        """A kernel that writes the result to ``y`` at every call, or None if it is not supported.

        x, y, add: channels_last; ``is_eager_cpu(x)`` must be true.
        """
        weight = self._parameters["weight"]
        assert weight is not None
        self._drop_stale_packing(weight, self._parameters["bias"])
        fits = x.dtype == weight.dtype and self._is_supported(x, add)
        return self._kernel(x, y, add, relu, relu_first) if fits else None

    def output_shape(self, x: Tensor) -> tuple[int, int, int, int]:
        """(N, C, H, W) of the result for ``x``."""
        return convs.output_shape(x, self.out_channels, self.stride[0])

    def _is_supported(self, x: Tensor, add: Tensor | None) -> bool:
        return (
            self._parameters["bias"] is not None
            and convs.can_conv_bias_act(x, self, self._packed_taps)
            and (add is None or (add.shape == self.output_shape(x) and add.dtype == x.dtype))
        )

    def _kernel(self, x: Tensor, y: Tensor, add: Tensor | None, relu: bool, relu_first: bool) -> Kernel:
        weight, bias, stride, taps = self.weight, self.bias, self.stride[0], self._packed_taps
        assert bias is not None
        winograd = convs.uses_winograd(x, stride, (taps,))
        packed, floats = self._cached(
            winograd, lambda: (convs.pack_weights(weight, x.dtype, winograd=winograd), bias.detach().float())
        )
        return convs.conv_bias_act(
            x, y, packed, floats, stride, taps, winograd=winograd, relu_first=relu_first, add=add, relu=relu
        )

    def _run_onednn(self, x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None, relu: bool) -> Tensor:
        shape = (self.padding, self.stride, self.dilation, self.groups)
        run, last = torch.ops.mkldnn, "relu" if relu else "none"
        packed = self._cached(x.shape, lambda: run._reorder_convolution_weight(weight.detach(), *shape, list(x.shape)))
        if add is None:
            return run._convolution_pointwise(x, packed, bias, *shape, last, [], None)
        after = "relu" if relu else None
        if add is x:  # still read while the result is written
            return run._convolution_pointwise.binary(x, add, packed, bias, *shape, "add", 1.0, after, [], None)
        return run._convolution_pointwise_.binary(add, x, packed, bias, *shape, "add", 1.0, after, [], None)

    def _drop_stale_packing(self, weight: Tensor, bias: Tensor | None) -> None:
        of = weight.dtype, version_key(weight), version_key(bias)
        if self._packed_of != of:
            self._packed, self._packed_taps = {}, convs.nonzero_taps(weight)
            self._packed_memory = [pin_storage(value) for value in (weight, bias)]
            self._packed_of = of  # last: a thread that sees it finds the rest in place

    def _cached(self, what: Hashable, make: Callable[[], Any]) -> Any:
        """A value derived from weight and bias, from a cache of the last four.

        Threads may use the network at once: the cache is replaced, never changed.
        """
        kept = self._packed
        if what in kept:
            return kept[what]
        made = make()
        self._packed = dict([*kept.items(), (what, made)][-4:])
        return made

    def __getstate__(self) -> dict[str, Any]:
        """A copy packs its own weight."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_packed")}


def is_eager_cpu(x: Tensor) -> bool:
    """Whether ``x`` is on a CPU and its operations are neither recorded, counted nor transformed."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and len(x) > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
    )


def version_key(tensor: Tensor | None) -> tuple[int, int | None] | None:
    """A key that differs whenever the values may have changed, as long as ``pin_storage`` keeps the memory."""
    if tensor is None:
        return None
    return tensor.data_ptr(), None if tensor.is_inference() else tensor._version


def pin_storage(tensor: Tensor | None) -> Tensor | None:
    """A reference that keeps the memory from being reused, even after ``parameter.data = ...``."""
    return None if tensor is None else tensor.detach()


@functools.cache
def _onednn_packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN supports packed weights of this dtype on this machine."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
