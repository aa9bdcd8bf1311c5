"""`shakeshake doctor`: versions, extras, device, precision, data and speed of this installation, and suggestions."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata

from . import __version__
from .utils.environment import cpu_count, cpu_name

# Extra -> what it adds. The packages of each are in the metadata of the installation.
EXTRA_DESCRIPTIONS = {
    "train": "images from files, bundled digits, downloads, progress bars",
    "report": "HTML reports, charts and confidence intervals",
    "tensorboard": "TensorBoard events",
    "sklearn": "ShakeShakeClassifier",
    "onnx": "export to ONNX",
    "hub": "models from and to the Hugging Face hub",
    "hf": "networks of transformers, pretrained (--model hf/NAME)",
    "timm": "networks of timm, pretrained (--model timm/NAME)",
    "datasets": "data sets of Hugging Face, from Python",
    "augment": "RandAugment (--randaugment)",
    "ray": "experiments on a cluster (--engine ray)",
}
BUSY_LOAD = 0.5  # load average per core above which a speed measurement is unreliable
MIN_FREE_BYTES = 2**30


def examine(*, measure: bool = True) -> Iterator[tuple[str, str]]:
    """Examine the installation and the machine.

    Args:
        measure: Also measure training speed, which takes a few seconds.

    Yields:
        Pairs of a name and a finding; the last ones are suggestions, named "suggestion".
    """
    import torch

    from .data.registry import find_data
    from .kernels.build import unavailable_reason
    from .train.device import choose_device, choose_precision, describe_device

    device, cores, threads = choose_device("auto"), cpu_count(), torch.get_num_threads()
    yield "shakeshake", __version__
    yield "python", platform.python_version()
    yield "torch", torch.__version__
    missing_extras = []
    for extra, packages in installed_extras().items():
        missing = [name for name, version in packages.items() if version is None]
        if missing:
            missing_extras.append(extra)
        found = ", ".join(f"{name} {version}" for name, version in packages.items())
        yield f"extra {extra}", f"missing {', '.join(missing)}" if missing else found
    yield "cpu", f"{cpu_name()}, {cores} cores, {threads} threads used by torch"
    yield "device", f"{describe_device(device)} (chosen by --device auto)"
    precision = choose_precision("auto", device)
    reason = "native bf16 instructions" if precision == "bf16" else "no native bf16 instructions"
    yield "precision", f"{precision} (chosen by --precision auto: {reason})"
    no_kernels = unavailable_reason()
    yield "kernels", f"unavailable: {no_kernels}" if no_kernels else "fused CPU kernels"
    for name in ("cifar10", "cifar100"):
        path = find_data(name)
        yield name, str(path) if path else f"not found; `shakeshake data get {name}` downloads it"
    free = shutil.disk_usage(".").free
    yield "disk", f"{free / 2**30:.1f} GiB free in this folder"

    load = os.getloadavg()[0] / cores if hasattr(os, "getloadavg") else 0.0
    speed: dict[str, float] = {}
    if measure:
        from .bench import training_speed

        speed = training_speed()
        rates = ", ".join(f"{rate:,.0f} in {name}" for name, rate in speed.items())
        yield "speed", f"training images/s of shake_resnet20_2x16d, 32 x 32 pixels: {rates}"
    for suggestion in suggestions(
        on_cpu=device.type == "cpu",
        no_kernels=no_kernels,
        precision=precision,
        speed=speed,
        threads=threads,
        cores=cores,
        load=load,
        free=free,
        missing_extras=missing_extras,
    ):
        yield "suggestion", suggestion


def suggestions(
    *,
    on_cpu: bool,
    no_kernels: str,
    precision: str,
    speed: dict[str, float],
    threads: int,
    cores: int,
    load: float,
    free: int,
    missing_extras: list[str],
) -> Iterator[str]:
    """Suggest improvements.

    Args:
        on_cpu: Whether runs use the CPU.
        no_kernels: Why the fused kernels are unavailable; "" if they are available.
        precision: The precision that ``--precision auto`` chooses.
        speed: Training images per second by precision; empty if not measured.
        threads: Threads that torch uses.
        cores: Cores that this process may use.
        load: Load average per core before the measurement.
        free: Free bytes on the disk.
        missing_extras: Extras that are not installed.
    """
    busy = load > BUSY_LOAD
    if speed and busy:
        yield f"measure again when the machine is idle (load average {load:.1f} per core)"
    if on_cpu and no_kernels:
        yield f"enable the fused kernels, which double training speed with AVX-512: {no_kernels}"
    if on_cpu and threads < cores and not busy:
        yield f"use more threads: torch uses {threads} of {cores} cores (set OMP_NUM_THREADS)"
    other = "fp32" if precision == "bf16" else "bf16"
    if speed and not busy and speed[other] > 1.1 * speed[precision]:
        yield f"--precision {other}: {speed[other] / speed[precision]:.1f} times as fast as {precision} here"
    if free < MIN_FREE_BYTES:
        yield "free some disk space: a run keeps two checkpoints"
    for extra in missing_extras:
        yield f"pip install 'shakeshake[{extra}]': {EXTRA_DESCRIPTIONS[extra]}"


def installed_extras() -> dict[str, dict[str, str | None]]:
    """Versions of the packages of each extra, None for a missing package; empty if shakeshake is not installed."""
    found: dict[str, dict[str, str | None]] = {}
    try:
        requirements = metadata.requires("shakeshake") or []
    except metadata.PackageNotFoundError:
        return {}
    for line in requirements:
        entry = re.match(r"([\w.-]+).*;\s*extra == ['\"]([\w-]+)['\"]", line)
        if entry and entry[2] in EXTRA_DESCRIPTIONS:
            found.setdefault(entry[2], {})[entry[1]] = _version(entry[1])
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
