"""Time the import, the help of the command line, and the first training step.

    python -m benchmarks start --out results/bench/start.json

Seconds of whole processes, interleaved: importing torch, with and without this package; `shakeshake
--help`; a process that makes one training step (S-S-I, batch 64, precision auto) with compiled
kernels in the cache, and with an empty cache.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from shakeshake.kernels import build

from ._common import parser, save

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


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=10)
    args = options.parse_args(argv)
    measured: dict[str, list[float]] = {name: [] for name in (*COMMANDS, COMPILED)}
    for number in range(-1, args.rounds):  # the first round warms up
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
        "rounds": args.rounds,
        "kernels": build.unavailable_reason() or "available",
        "medians": medians,
        "seconds": measured,
    }
    save(args.out, result, device="cpu")
