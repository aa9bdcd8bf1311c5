"""Which device and which precision a run gets, what `auto` means, and what is set on a device."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from contextlib import AbstractContextManager

import torch

from ..errors import InputError


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """``auto``: CUDA, else Apple's GPU, else the CPU. Raises InputError for a device that is not there.

    local_rank: of several processes on this machine, each takes the GPU of its number.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device: {name!r} is not a device, expected auto, cpu, cuda, cuda:1 or mps") from None
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if device.type not in count:
        raise InputError(f"device: {name!r} is not supported, expected auto, cpu, cuda, cuda:1 or mps")
    if (device.index or 0) >= count[device.type]:
        found = f"{count[device.type] or 'no'} {device.type} device" + ("s" if count[device.type] > 1 else "")
        raise InputError(f"device: {name!r} is not there, this machine has {found}; expected auto or cpu")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """``auto``: bf16 where the device computes in it (AVX512-BF16, AMX, CUDA from 8.0 on), else fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_computes_in_bf16() else "fp32"


def _cpu_computes_in_bf16() -> bool:
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context in which the forward pass runs."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the CPU's generator and those of the device's kind, which torch does for every kind that it knows."""
    torch.random.default_generator.manual_seed(seed)
    if device.type != "cpu":
        module = torch.get_device_module(device)
        getattr(module, "manual_seed_all", module.manual_seed)(seed)


def keep_freed_memory() -> None:
    """Let glibc keep what tensors have freed for the next ones, in this process from now on.

    By default it gives blocks of 32 MiB and more back to the system at once, and every step then gets them anew, page
    by page, filled with zeros. Does nothing where the C library is another.
    """
    mmap_max, trim_threshold = -4, -1  # malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else device.type


def peak_memory(device: torch.device) -> int | None:
    """Bytes: what tensors took at most on a CUDA device, on others the largest resident set of this process.

    None where the system doesn't tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ModuleNotFoundError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
