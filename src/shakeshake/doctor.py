"""What `shakeshake doctor` finds: versions, extras, device, precision, data, speed, and what would help."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from . import __version__

# What an extra is there for. Which packages it has is in the metadata of the installation.
GIVES = {
    "augment": "RandAugment (--randaugment)",
    "datasets": "Hugging Face's data sets, from Python",
    "docs": "these docs as a site (make docs)",
    "hub": "models from and to the Hugging Face hub",
    "onnx": "export to ONNX",
    "ray": "experiments on many machines (--engine ray)",
}
BUSY = 0.25  # of the cores taken by other programs, from which a measurement says little
CROWDED = 0.45  # of them likewise, from which a thread for every core is slower than fewer (docs/log.md)


def examine(*, measure: bool = True) -> Iterator[tuple[str, str]]:
    """(name, finding) pairs, at the end what would help. measure: also how fast this machine trains, for seconds."""
    import torch

    from .data import registry
    from .kernels import build
    from .train.device import choose_device, choose_precision, describe_device
    from .utils.environment import cpu_name

    device, cores = choose_device("auto"), len(os.sched_getaffinity(0)) if _linux() else os.cpu_count() or 1
    yield "shakeshake", __version__
    yield "python", platform.python_version()
    yield "torch", torch.__version__
    absent = []
    for extra, packages in extras().items():
        versions = {name: _version(name) for name in packages}
        missing = [name for name, version in versions.items() if version is None]
        absent += [extra] if missing else []
        found = ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
        yield f"extra {extra}", (f"without {', '.join(missing)}" if missing else found) + f": {GIVES[extra]}"
    yield "cpu", f"{cpu_name()}, {cores} cores"
    yield "device", f"{describe_device(device)} (what --device auto takes)"
    precision = choose_precision("auto", device)
    why = "the device computes in it" if precision == "bf16" else "the device has no bf16 instructions"
    yield "precision", f"{precision} (what --precision auto takes: {why})"
    lacking = build.unavailable_reason()
    yield "kernels", f"none: {lacking}" if lacking else "fused, for the CPU"
    for name in ("cifar10", "cifar100"):
        place = registry.find_data(name)
        yield name, str(place) if place else f"not here; `shakeshake data get {name}` downloads it"
    free = shutil.disk_usage(".").free
    yield "disk", f"{free / 2**30:.1f} GiB free in this folder"

    load = taken_by_others()
    speed: dict[str, float] = {}
    if measure:
        from .bench import training_speed

        speed = training_speed()
        told = ", ".join(f"{number:,.0f} in {name}" for name, number in speed.items())
        yield "speed", f"training images/s of shake_resnet20_2x16d, 32 x 32 pixels: {told}"
    threads = torch.get_num_threads()
    for advice in what_would_help(
        on_cpu=device.type == "cpu",
        kernels=lacking,
        precision=precision,
        speed=speed,
        threads=threads,
        cores=cores,
        load=load,
        free=free,
        absent=absent,
    ):
        yield "would help", advice


def taken_by_others(seconds: float = 0.3) -> float:
    """The part of this process's cores that others use now; where the system does not tell, its load in a minute."""
    try:
        before, own = _busy_seconds(), time.process_time()
        time.sleep(seconds)
        others = _busy_seconds() - before - (time.process_time() - own)
        return max(0.0, others / (len(os.sched_getaffinity(0)) * seconds))
    except (OSError, ValueError, AttributeError):
        return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


def _busy_seconds() -> float:
    """Of these cores since the start: /proc/stat has user, nice, system, idle, iowait, irq, softirq, steal of each."""
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    ticks = [sum(map(int, (*spent[:3], *spent[5:8]))) for core, *spent in filter(None, lines) if core in mine]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def what_would_help(
    *,
    on_cpu: bool,
    kernels: str,
    precision: str,
    speed: dict[str, float],
    threads: int,
    cores: int,
    load: float,
    free: int,
    absent: list[str],
) -> Iterator[str]:
    """Sentences. kernels: why there are none; speed: images/s by precision, if measured; load: by core; free: bytes."""
    taken = f"others keep {load:.0%} of its cores busy"
    if on_cpu and load >= CROWDED and (idle := max(1, round(cores * (1 - load)))) < threads:
        yield f"a quiet machine, or OMP_NUM_THREADS={idle}: {taken}, and a thread that waits for one keeps all waiting"
    elif speed and load > BUSY:
        yield f"a quiet machine to measure on: {taken}"
    if on_cpu and kernels:
        yield f"fused kernels, with AVX-512 twice the speed in training: {kernels}"
    if on_cpu and threads < cores and load < CROWDED:
        yield f"threads: torch uses {threads} of {cores} cores (OMP_NUM_THREADS, or what starts this process)"
    other = "fp32" if precision == "bf16" else "bf16"
    if speed and load <= BUSY and speed[other] > 1.1 * speed[precision]:
        yield f"--precision {other}, {speed[other] / speed[precision]:.1f} times as fast as {precision} here"
    if free < 2**30:
        yield "room on the disk: a run keeps two checkpoints"
    for extra in absent:
        yield f"pip install 'shakeshake[{extra}]': {GIVES[extra]}"


def extras() -> dict[str, list[str]]:
    """Extra -> its packages, for users; empty where shakeshake runs without having been installed."""
    found: dict[str, list[str]] = {}
    try:
        required = metadata.requires("shakeshake") or []
    except metadata.PackageNotFoundError:
        return {}
    for line in required:
        entry = re.match(r"([\w.-]+).*;\s*extra == ['\"]([\w-]+)['\"]", line)
        if entry and entry[2] in GIVES:
            found.setdefault(entry[2], []).append(entry[1])
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _linux() -> bool:
    return hasattr(os, "sched_getaffinity")
