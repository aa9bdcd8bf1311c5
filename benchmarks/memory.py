"""Peak memory of training 26 2x32d S-S-I: ours beside those of PyPI, each in a process of its own.

    pip install --no-deps pytorchcv archai
    python benchmarks/memory.py --out results/bench/memory.json

What counts is the process's largest resident set after three steps (benchmarks/train_step.py) less that of a process
that has only imported the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from peers import PEERS, versions
from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment

STEP = Path(__file__).with_name("train_step.py")


def peak(arguments: list[str]) -> float:
    """MB of a child's largest resident set."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout) / (1024.0 if sys.platform != "darwin" else 1024.0**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    imports = "import sys; sys.path.insert(0, sys.argv[1]); import train_step, peers; peers.pytorchcv(); peers.archai()"
    base = [peak([sys.executable, "-c", imports, str(STEP.parent)]) for _ in range(given.repeats)]
    result = {
        "batch_size": given.batch_size,
        "repeats": given.repeats,
        "versions": versions(),
        "imports": min(base),
        "peaks": {},
    }
    for name in (*PEERS, "fp32", "bf16"):
        command = [sys.executable, str(STEP), "--only", name, "--rounds", "1", "--batch-size", str(given.batch_size)]
        result["peaks"][name] = [peak(command) for _ in range(given.repeats)]
    least = {name: min(peaks) - min(base) for name, peaks in result["peaks"].items()}
    result["megabytes_beyond_imports"] = least
    result["relative_to_pytorchcv"] = {name: value / least["pytorchcv"] for name, value in least.items()}
    for name, value in least.items():
        print(f"{name:<12}{value:>8.0f} MB  {result['relative_to_pytorchcv'][name]:.2f}")
    result["environment"] = environment(device="cpu")
    if given.out:
        write_results(given.out, result)


if __name__ == "__main__":
    main()
