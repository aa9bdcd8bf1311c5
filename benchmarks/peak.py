"""Measure this CPU's peak multiply-add rate, the limit of any direct convolution.

    python -m benchmarks peak --out results/bench/peak.json

24 independent sums in 512-bit registers, no memory access, with one thread and with all threads.
The best of ten rounds counts, because other work can only slow it down. Needs AVX-512 with its bf16
instructions and a C++ compiler.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from ._common import parser, save

SUMS = 24
# Instruction and its operations: 16 lanes multiply and add, in bf16 two numbers per lane.
KINDS = {"fp32": ("vfmadd231ps", 32), "bf16": ("vdpbf16ps", 64)}


def source() -> str:
    """One loop per kind in assembler, because a compiler would remove loops without a result."""
    clobbered = ", ".join(f'"zmm{k}"' for k in range(32))
    functions = []
    for name, (instruction, _) in KINDS.items():
        body = r"\n".join(f"{instruction} %%zmm30, %%zmm31, %%zmm{k}" for k in range(SUMS))
        functions.append(
            f'extern "C" void {name}(long n) {{ for (long i = 0; i < n; ++i) asm volatile("{body}" ::: {clobbered}); }}'
        )
    return "\n".join(functions)


def build(folder: Path) -> ctypes.CDLL:
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if compiler is None:
        raise SystemExit("no C++ compiler (c++, g++ or clang++)")
    (folder / "peak.cpp").write_text(source())
    command = [
        compiler,
        "-O2",
        "-march=native",
        "-shared",
        "-fPIC",
        str(folder / "peak.cpp"),
        "-o",
        f"{folder}/peak.so",
    ]
    subprocess.run(command, check=True)
    return ctypes.CDLL(f"{folder}/peak.so")


def best(run: Callable[[int], None], operations: int, threads: int, rounds: int = 10, steps: int = 5_000_000) -> float:
    """GFLOP/s of all threads together (calls through ctypes release the GIL)."""
    found = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            begun = time.perf_counter()
            list(pool.map(run, [steps] * threads))
            found = max(found, threads * steps * SUMS * operations / (time.perf_counter() - begun) / 1e9)
    return found


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    args = options.parse_args(argv)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder))
        peak = {
            name: {f"{n} threads": best(getattr(library, name), operations, n) for n in sorted({1, threads})}
            for name, (_, operations) in KINDS.items()
        }
    for name, measured in peak.items():
        print(f"{name:<6}" + "  ".join(f"{n}: {value:.0f} GFLOP/s" for n, value in measured.items()))
    save(args.out, {"gflops": peak}, device="cpu", threads=threads)
