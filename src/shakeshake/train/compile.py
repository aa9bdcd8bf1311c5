"""torch.compile for the network of a step: where it works, and how it is asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import InputError


def compile_network(network: nn.Module, mode: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The network, to be called with images; compiled in one of torch's modes unless that is ``none``.

    Its first call for a shape takes from seconds to minutes: a run has two shapes, that of a batch and that of
    the last one. Coefficients are drawn by compiled code, so they are others than without it; they still
    depend on the seed alone. Raises InputError where torch.compile does not work: before anything has been trained.
    """
    if mode == "none":
        return network
    try:
        torch.compile(torch.neg)(torch.zeros(2, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        needed = "a C++ compiler" if device.type == "cpu" else "Triton and a C compiler"
        raise InputError(
            f"compile_mode: got {mode!r}, but torch.compile does not work here ({reason}); expected none, or {needed}"
        ) from None
    if device.type == "cuda" and mode != "max-autotune" and hasattr(torch._inductor.config, "deterministic"):
        # Choices by timing would be others on the next machine, and so would the order of sums be.
        torch._inductor.config.deterministic = True
    return torch.compile(network, mode=mode, dynamic=False)


def mark_step(mode: str) -> None:
    """Say so to what records whole graphs: memory that it gave to the step before may be used again."""
    if mode != "none":
        torch.compiler.cudagraph_mark_step_begin()
