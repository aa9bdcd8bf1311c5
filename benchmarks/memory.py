"""Measure the peak memory of training 26 2x32d: ours and public implementations.

    pip install --no-deps pytorchcv archai
    python -m benchmarks memory --out results/bench/memory.json

Reported is the peak resident set of a process that runs three training steps (the benchmark
train_step), minus that of a process that only imports the same modules.
"""

from __future__ import annotations

import subprocess
import sys

from ._common import ROOT, command, parser, save
from .peers import PEERS, versions


def peak(arguments: list[str]) -> float:
    """Peak resident set of a child process, in MB."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return int(done.stdout) / (1024.0 if sys.platform != "darwin" else 1024.0**2)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--batch-size", type=int, default=64)
    args = options.parse_args(argv)
    imports = "from benchmarks import peers, train_step; peers.pytorchcv(); peers.archai()"
    base = [peak([sys.executable, "-c", imports]) for _ in range(args.repeats)]
    result = {
        "batch_size": args.batch_size,
        "repeats": args.repeats,
        "versions": versions(),
        "imports": min(base),
        "peaks": {},
    }
    for name in (*PEERS, "fp32", "bf16"):
        step = command("train_step", "--only", name, "--rounds", 1, "--batch-size", args.batch_size)
        result["peaks"][name] = [peak(step) for _ in range(args.repeats)]
    least = {name: min(peaks) - min(base) for name, peaks in result["peaks"].items()}
    result["megabytes_beyond_imports"] = least
    result["relative_to_pytorchcv"] = {name: value / least["pytorchcv"] for name, value in least.items()}
    for name, value in least.items():
        print(f"{name:<12}{value:>8.0f} MB  {result['relative_to_pytorchcv'][name]:.2f}")
    save(args.out, result, device="cpu")
