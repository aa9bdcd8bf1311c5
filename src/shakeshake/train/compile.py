"""torch.compile for training steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import InputError


def compile_network(network: nn.Module, mode: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the network compiled in a mode of torch.compile, or unchanged for ``none``.

    The first call for each input shape takes seconds to minutes; a run has up to two shapes. Compiled code draws other
    shake coefficients than eager code from the same seed.

    Raises:
        InputError: torch.compile does not work on this machine.
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
        # Kernels chosen by timing would add in another order on the next start.
        torch._inductor.config.deterministic = True
    return torch.compile(network, mode=mode, dynamic=False)


def mark_step(mode: str) -> None:
    """Tell CUDA graphs that a step begins, so that they may reuse the memory of the previous one."""
    if mode != "none":
        torch.compiler.cudagraph_mark_step_begin()
