"""A ReLU, a convolution, a sum and a ReLU as one: what fused networks are made of."""

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
    """relu(conv(relu(x)) + add), each of the three if asked for.

    On a CPU outside of autograd it is one kernel of ours, or else one primitive of oneDNN, with the weight rearranged
    once instead of at every call; ``add`` may then be overwritten. Elsewhere, and while a graph is recorded
    (torch.export, torch.compile, tracing, autocast), it is the operations one after the other.
    """

    _packed_of: Hashable = None
    _packed: Mapping[Hashable, Any] = {}
    _packed_taps = 0
    _packed_memory: Sequence[Tensor | None] = ()

    def forward(self, x: Tensor, add: Tensor | None = None, relu: bool = False, relu_first: bool = False) -> Tensor:
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None
        if alone := unrecorded(x) and x.dtype == weight.dtype:
            self._forget_if_not_of(weight, bias)
            if self._fits(x, add):
                x = x.contiguous(memory_format=torch.channels_last)
                add = None if add is None else add.contiguous(memory_format=torch.channels_last)
                y = torch.empty(self.output_shape(x), dtype=x.dtype, memory_format=torch.channels_last)
                self._kernel(x, y, add, relu, relu_first)()
                return y
        if relu_first:
            x = F.relu(x)
        if not (alone and _packs(x.dtype)):
            y = super().forward(x)
            y = y if add is None else y + add
            return F.relu(y) if relu else y
        return self._by_primitive(x, weight, bias, add, relu)

    def kernel(
        self, x: Tensor, y: Tensor, add: Tensor | None, relu: bool = False, relu_first: bool = False
    ) -> Kernel | None:
        """What writes the result to ``y``, as often as it is called, or None where that is no kernel of ours.

        x, y, add: channels_last; ``x`` such that unrecorded() is true of it.
        """
        weight = self._parameters["weight"]
        assert weight is not None
        self._forget_if_not_of(weight, self._parameters["bias"])
        fits = x.dtype == weight.dtype and self._fits(x, add)
        return self._kernel(x, y, add, relu, relu_first) if fits else None

    def output_shape(self, x: Tensor) -> tuple[int, int, int, int]:
        """(N, C, H, W) of what a kernel writes for ``x``."""
        return convs.output_shape(x, self.out_channels, self.stride[0])

    def _fits(self, x: Tensor, add: Tensor | None) -> bool:
        return (
            self._parameters["bias"] is not None
            and convs.can_conv_bias_act(x, self, self._packed_taps)
            and (add is None or (add.shape == self.output_shape(x) and add.dtype == x.dtype))
        )

    def _kernel(self, x: Tensor, y: Tensor, add: Tensor | None, relu: bool, relu_first: bool) -> Kernel:
        weight, bias, stride, taps = self.weight, self.bias, self.stride[0], self._packed_taps
        assert bias is not None
        winograd = convs.uses_winograd(x, stride, (taps,))
        words, floats = self._once(
            winograd, lambda: (convs.pack_weights(weight, x.dtype, winograd=winograd), bias.detach().float())
        )
        return convs.conv_bias_act(
            x, y, words, floats, stride, taps, winograd=winograd, relu_first=relu_first, add=add, relu=relu
        )

    def _by_primitive(self, x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None, relu: bool) -> Tensor:
        shape = (self.padding, self.stride, self.dilation, self.groups)
        run, last = torch.ops.mkldnn, "relu" if relu else "none"
        packed = self._once(x.shape, lambda: run._reorder_convolution_weight(weight.detach(), *shape, list(x.shape)))
        if add is None:
            return run._convolution_pointwise(x, packed, bias, *shape, last, [], None)
        after = "relu" if relu else None
        if add is x:  # it is still read while the result is written
            return run._convolution_pointwise.binary(x, add, packed, bias, *shape, "add", 1.0, after, [], None)
        return run._convolution_pointwise_.binary(add, x, packed, bias, *shape, "add", 1.0, after, [], None)

    def _forget_if_not_of(self, weight: Tensor, bias: Tensor | None) -> None:
        of = weight.dtype, identity(weight), identity(bias)
        if self._packed_of != of:
            self._packed, self._packed_taps = {}, convs.nonzero_taps(weight)
            self._packed_memory = [held(value) for value in (weight, bias)]
            self._packed_of = of  # last: another thread that sees it finds the rest

    def _once(self, what: Hashable, make: Callable[[], Any]) -> Any:
        """What was made of the weight and the bias, which are as they were; the last few such things are kept.

        Several threads may use a network: each finds its own, whatever another has put in the place of what was kept.
        """
        kept = self._packed
        if what in kept:
            return kept[what]
        made = make()
        self._packed = dict([*kept.items(), (what, made)][-4:])
        return made

    def __getstate__(self) -> dict[str, Any]:
        """A copy rearranges its weight for itself."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_packed")}


def unrecorded(x: Tensor) -> bool:
    """Whether an input is on a CPU, and nobody records, counts or transforms what is done with it."""
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


def identity(tensor: Tensor | None) -> tuple[int, int | None] | None:
    """Another one whenever its values may be others, for as long as its memory is held()."""
    if tensor is None:
        return None
    return tensor.data_ptr(), None if tensor.is_inference() else tensor._version


def held(tensor: Tensor | None) -> Tensor | None:
    """Its memory: while this is kept, nothing else comes to lie there, not even by ``parameter.data = ...``."""
    return None if tensor is None else tensor.detach()


@functools.cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN takes packed weights of this type here."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
