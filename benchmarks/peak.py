"""What this CPU's registers can multiply and add: the limit of any convolution on it, in fp32 and in bf16.

    python benchmarks/peak.py --out results/bench/peak.json

Twenty-four independent sums in registers of 512 bits, no memory, one thread and all of them; the best of ten rounds,
since others can only slow this down. For CPUs with AVX-512, its instructions for bf16, and a C++ compiler.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment

SUMS = 24
# instruction, operations of one: each of 16 lanes multiplies and adds, in bf16 two numbers of it
KINDS = {"fp32": ("vfmadd231ps", 32), "bf16": ("vdpbf16ps", 64)}


def source() -> str:
    """A loop for each kind, written out: a compiler would find nothing to do here and do it."""
    clobbered = ", ".join(f'"zmm{k}"' for k in range(32))
    functions = []
    for name, (instruction, _) in KINDS.items():
        body = r"\n".join(f"{instruction} %%zmm30, %%zmm31, %%zmm{k}" for k in range(SUMS))
        functions.append(
            f'extern "C" void {name}(long n) {{ for (long i = 0; i < n; ++i) asm volatile("{body}" ::: {clobbered}); }}'
        )
    return "\n".join(functions)


def built(folder: Path) -> ctypes.CDLL:
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
    """GFLOP/s of so many threads together; a call lets the others go on."""
    found = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            begun = time.perf_counter()
            list(pool.map(run, [steps] * threads))
            found = max(found, threads * steps * SUMS * operations / (time.perf_counter() - begun) / 1e9)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        library = built(Path(folder))
        peak = {
            name: {f"{n} threads": best(getattr(library, name), operations, n) for n in sorted({1, threads})}
            for name, (_, operations) in KINDS.items()
        }
    for name, measured in peak.items():
        print(f"{name:<6}" + "  ".join(f"{n}: {value:.0f} GFLOP/s" for n, value in measured.items()))
    if given.out:
        write_results(given.out, {"gflops": peak, "environment": environment(device="cpu", threads=threads)})


if __name__ == "__main__":
    main()
