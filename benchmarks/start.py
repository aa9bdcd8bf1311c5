"""How long a start takes: the import, the command's help, and the first training step of 26 2x32d.

    python benchmarks/start.py --out results/bench/start.json

Seconds from the start of a process, the interpreter's own included, in turns: importing torch, with and without this
package behind it; `shakeshake --help`; a process until it has made its first training step, S-S-I, batch 64, precision
auto, with the kernels in the cache and, the last row, where they have to be compiled first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shakeshake.kernels import build
from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment

FIRST_STEP = (
    "from shakeshake.bench import trainer_on_noise, training_step; "
    "training_step(trainer_on_noise('shake_resnet26_2x32d', 'S-S-I', 64, 'auto', 'cpu'))()"
)
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import torch, shakeshake": ["-c", "import torch, shakeshake"],
    "shakeshake --help": ["-m", "shakeshake", "--help"],
    "first step": ["-c", FIRST_STEP],
}
COMPILED = "first step, kernels compiled"


def seconds(command: list[str], **variables: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True, env=os.environ | variables)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    measured: dict[str, list[float]] = {name: [] for name in (*COMMANDS, COMPILED)}
    for number in range(-1, given.rounds):  # the first round warms up
        with tempfile.TemporaryDirectory() as empty:
            found = {name: seconds(command) for name, command in COMMANDS.items()}
            found[COMPILED] = seconds(COMMANDS["first step"], XDG_CACHE_HOME=empty)
        for name, spent in found.items() if number >= 0 else ():
            measured[name].append(spent)
    medians = {name: statistics.median(spent) for name, spent in measured.items()}
    medians["import beyond torch's"] = statistics.median(
        b - a for a, b in zip(measured["import torch"], measured["import torch, shakeshake"], strict=True)
    )
    for name, median in medians.items():
        print(f"{name:<32}{median:>7.3f} s")
    result = {
        "rounds": given.rounds,
        "kernels": build.why() or "there",
        "medians": medians,
        "seconds": measured,
        "environment": environment(device="cpu"),
    }
    if given.out:
        write_results(given.out, result)


if __name__ == "__main__":
    main()
