"""A ReLU, a convolution, a sum and a ReLU as one: what fused networks are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import convs


class FusedConv(nn.Conv2d):
    """relu(conv(relu(x)) + add), each of the three if asked for.

    On a CPU outside of autograd it is one kernel of ours, or else one primitive of oneDNN, with the weight rearranged
    once instead of at every call; ``add`` may then be overwritten. Elsewhere, and while a graph is recorded
    (torch.export, torch.compile, tracing, autocast), it is the operations one after the other.
    """

    _packed_of: Hashable = None
    _packed: Mapping[Hashable, tuple[Tensor, ...]] = {}

    def forward(self, x: Tensor, add: Tensor | None = None, relu: bool = False, relu_first: bool = False) -> Tensor:
        alone = self._alone(x)
        if alone and self.bias is not None and convs.fit_inference(x, self):
            how = x.dtype, convs.tiled(x, self.stride[0])
            weight, bias = self._packed_once(how, lambda: self._arrange(x))
            return convs.biased(x, weight, bias, self.stride[0], relu_first=relu_first, add=add, relu=relu)
        if relu_first:
            x = F.relu(x)
        if not (alone and _packs(x.dtype)):
            y = super().forward(x)
            y = y if add is None else y + add
            return F.relu(y) if relu else y
        shape = (self.padding, self.stride, self.dilation, self.groups)
        last = "relu" if relu else "none"
        (weight,) = self._packed_once(x.shape, lambda: self._reorder(x.shape))
        run = torch.ops.mkldnn
        if add is None:
            return run._convolution_pointwise(x, weight, self.bias, *shape, last, [], None)
        after = "relu" if relu else None
        if add is x:  # it is still read while the result is written
            return run._convolution_pointwise.binary(x, add, weight, self.bias, *shape, "add", 1.0, after, [], None)
        return run._convolution_pointwise_.binary(add, x, weight, self.bias, *shape, "add", 1.0, after, [], None)

    def _alone(self, x: Tensor) -> bool:
        """On a CPU, and nobody records what is done."""
        return (
            type(x) is Tensor
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype
            and len(x) > 0
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
        )

    def _packed_once(self, how: Hashable, pack: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """The weight as it is packed in the last two ways, as long as it and the bias stay the same."""
        of = (self.weight.dtype, *(_identity(t) for t in (self.weight, self.bias)))
        if self._packed_of != of:
            self._packed_of, self._packed = of, {}
        if how not in self._packed:
            self._packed = dict([*self._packed.items(), (how, pack())][-2:])
        return self._packed[how]

    def _arrange(self, x: Tensor) -> tuple[Tensor, ...]:
        assert self.bias is not None
        return convs.arranged(self.weight, x, self.stride[0]), self.bias.detach().float()

    def _reorder(self, shape: torch.Size) -> tuple[Tensor, ...]:
        return (
            torch.ops.mkldnn._reorder_convolution_weight(
                self.weight.detach(), self.padding, self.stride, self.dilation, self.groups, list(shape)
            ),
        )

    def __getstate__(self) -> dict[str, Any]:
        """A copy rearranges its weight for itself."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_packed")}


def _identity(tensor: Tensor | None) -> tuple[int, int | None] | None:
    """Another one whenever its values may be others."""
    if tensor is None:
        return None
    return tensor.data_ptr(), None if tensor.is_inference() else tensor._version


@functools.cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN takes packed weights of this type here."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
