"""Global state of the process that training depends on or changes: set for a run, restored afterwards."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def training_process_state() -> Iterator[None]:
    """Give a run the torch defaults it expects, whatever the calling program has set, and restore everything on exit.

    Covers: default dtype and default device, grad and inference mode, autocast, cudnn's ``deterministic`` and
    ``benchmark`` flags, the current CUDA device, inductor's ``deterministic`` option, and torch's global random
    generators on the CPU, CUDA and MPS (CUDA's only where it was initialised before).

    Not restored: on the CPU, glibc's malloc keeps freed memory for later tensors (``keep_freed_memory``).
    """
    dtype, cudnn = torch.get_default_dtype(), torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    generators = _generator_states()
    cuda_device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    inductor = _inductor_deterministic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        cudnn.deterministic, cudnn.benchmark = True, False  # a resumed run has to compute the same bits
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            cudnn.deterministic, cudnn.benchmark = flags
            _restore_generators(generators)
            if cuda_device is not None:
                torch.cuda.set_device(cuda_device)
            config: Any = sys.modules.get("torch._inductor.config")
            if hasattr(config, "deterministic"):
                config.deterministic = inductor


def _inductor_deterministic() -> bool:
    return bool(getattr(sys.modules.get("torch._inductor.config"), "deterministic", False))


def _generator_states() -> dict[str, Any]:
    states: dict[str, Any] = {"cpu": torch.random.default_generator.get_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore_generators(states: dict[str, Any]) -> None:
    torch.random.default_generator.set_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])
    if "mps" in states:
        torch.mps.set_rng_state(states["mps"])
