"""Choice and setup of device and precision."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from contextlib import AbstractContextManager

import torch

from ..errors import InputError


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """Return the device with this name.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``auto``, the first available of CUDA, MPS and CPU.
        local_rank: Index of this process among several on the machine, and of the GPU that it uses.

    Raises:
        InputError: The device is unknown or not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device: {name!r} is unknown, expected auto, cpu, cuda, cuda:1 or mps") from None
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if device.type not in count:
        raise InputError(f"device: {name!r} is not supported, expected auto, cpu, cuda, cuda:1 or mps")
    if (device.index or 0) >= count[device.type]:
        found = f"{count[device.type] or 'no'} {device.type} device" + ("s" if count[device.type] > 1 else "")
        raise InputError(f"device: {name!r} is not available, this machine has {found}; use auto or cpu")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve ``auto``: bf16 if the hardware computes in it (AVX512-BF16, AMX, CUDA 8.0 or later), else fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_computes_in_bf16() else "fp32"


def _cpu_computes_in_bf16() -> bool:
    if not hasattr(torch.cpu, "get_capabilities"):  # older torch
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the autocast context of the forward pass."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the default generators of the CPU and of this device's type only."""
    torch.random.default_generator.manual_seed(seed)
    if device.type != "cpu":
        module = torch.get_device_module(device)
        getattr(module, "manual_seed_all", module.manual_seed)(seed)


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory in this process; does nothing with another C library.

    By default, glibc returns blocks of 32 MiB and more to the system, so that every training step must page them in
    again.
    """
    mmap_max, trim_threshold = -4, -1  # malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def describe_device(device: torch.device) -> str:
    """Return the name of a GPU or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else device.type


def peak_memory(device: torch.device) -> int | None:
    """Return the peak of allocated CUDA memory, or on other devices of this process's resident set, in bytes.

    None if the system does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ModuleNotFoundError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
