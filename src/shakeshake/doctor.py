"""What `shakeshake doctor` finds: versions, device, precision, data, and what would help."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator

from . import __version__


def examine() -> Iterator[tuple[str, str]]:
    """(name, finding) pairs."""
    import torch

    from .data import sources
    from .kernels import build
    from .train.device import choose_device, choose_precision, describe_device
    from .train.record import cpu_name

    device = choose_device("auto")
    yield "shakeshake", __version__
    yield "python", platform.python_version()
    yield "torch", torch.__version__
    yield "cpu", f"{cpu_name()}, {os.cpu_count()} cores"
    yield "device", f"{describe_device(device)} (what --device auto takes)"
    precision = choose_precision("auto", device)
    why = "the device computes in it" if precision == "bf16" else "the device has no bf16 instructions"
    yield "precision", f"{precision} (what --precision auto takes: {why})"
    lacking = build.why()
    yield (
        "kernels",
        f"none: {lacking}; training on the CPU takes about a tenth longer" if lacking else "fused, for the CPU",
    )
    for name in ("cifar10", "cifar100"):
        found = sources.where(name)
        yield name, str(found) if found else f"not here; `shakeshake data get {name}` downloads it"
    free = shutil.disk_usage(".").free
    yield "disk", f"{free / 2**30:.1f} GiB free in this folder" + ("" if free > 2**30 else ": little for checkpoints")
