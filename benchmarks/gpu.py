"""Measure on a GPU in ten minutes: tests, steps, memory, a profile, paired trainings.

    python -m benchmarks gpu OUT
    python -m benchmarks gpu OUT --device cpu       # or DEVICE=cpu: tries every command at a tiny size

OUT gets the JSON and the log of each measurement, and OUT.tgz, rewritten after each one, all of
them: a machine that disappears costs only the measurement in progress. A failed or slow measurement
does not stop the next ones. The last measurement trains pairs of runs, without and with shaking,
one seed after the other, until the time is used up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from ._common import ROOT, command, parser

SHAKESHAKE = [sys.executable, "-m", "shakeshake"]
RESERVE = 15  # seconds that are left unused at the end


def measurements(out: Path, device: str) -> Iterator[tuple[str, int, list[str]]]:
    """Name, time limit in seconds and command of each measurement."""
    tiny = device == "cpu"
    first, *wider = ["shake_resnet8_2x4d"] if tiny else [f"shake_resnet26_2x{width}d" for width in (32, 64, 96)]
    size = ["--rounds=1", "--steps=1", "--batch-size=16", "--ghost-batch-size=8"] if tiny else []
    graph = [] if tiny else ["--graph"]

    def steps(name: str, limit: int, *options: str, model: str = first) -> tuple[str, int, list[str]]:
        shared = ["--device", device, "--model", model, "--layouts", "parallel", "--out", out / f"{name}.json"]
        return name, limit, command("launch_overhead", *shared, *size, *options)

    marked = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    yield "tests", 90, [sys.executable, "-m", "pytest", "-v", "-n0", "-W", "default", "-m", "gpu", *marked]
    for model in (first, *wider):
        yield steps(f"eager-{model}", 60, "--modes=none", "--no-peer", model=model)
    yield steps("compiled", 150, f"--modes=none,default{'' if tiny else ',reduce-overhead'}", "--no-peer")
    yield steps("graph", 60, "--modes=none", "--no-peer", *graph)
    yield steps("peer", 60, "--modes=none", "--peer")
    batch = ["--batch-size", "16" if tiny else "128", "--device", device, "--model", first]
    yield "profile", 60, command("profile", *batch, "--steps", 3, "--out", out / "profile.json")
    yield (
        "bench",
        60,
        [*SHAKESHAKE, "bench", *batch, "--rounds", "1" if tiny else "10", "--out", str(out / "bench.json")],
    )


def archive(out: Path) -> None:
    """Write OUT.tgz with the small files: JSON, metrics and logs, no weights and checkpoints."""
    new = out.with_suffix(".tgz.new")
    with tarfile.open(new, "w:gz") as tar:
        for path in sorted(path for path in out.rglob("*") if path.suffix in (".json", ".jsonl", ".log")):
            tar.add(path, path.relative_to(out.parent))
    new.replace(out.with_suffix(".tgz"))


def measure(out: Path, name: str, limit: float, line: list[str]) -> int:
    """Run one measurement with its log in ``out``, then rewrite the archive. Returns the exit status."""
    begun = time.monotonic()
    with open(out / f"{name}.log", "w") as log:
        try:
            status = subprocess.run(line, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            status = 124
    tail = "\n".join((out / f"{name}.log").read_text().splitlines()[-12:])
    print(f"{tail}\n== {name}: exit status {status} after {time.monotonic() - begun:.0f} s", flush=True)
    archive(out)
    return status


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, out=False)
    options.add_argument("folder", type=Path, metavar="OUT")
    options.add_argument("--device", default=os.environ.get("DEVICE", "cuda"))
    options.add_argument("--seconds", type=int, default=580, help="time limit for everything (default %(default)s)")
    options.add_argument("--data", default="cifar10", help="data set of the trainings (default %(default)s)")
    options.add_argument("--epochs", type=int, default=30, help="of each training (default %(default)s)")
    options.add_argument("--seeds", type=int, default=5, help="largest number of pairs (default %(default)s)")
    args = options.parse_args(argv)
    out: Path = args.folder.resolve()
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + args.seconds - RESERVE
    for name, limit, line in measurements(out, args.device):
        if (left := end - time.monotonic()) > 5:
            measure(out, name, min(limit, left), line)
    recipe = ["--recipe", "paper_cifar10", "--epochs", args.epochs, "--device", args.device]
    if args.device == "cpu":
        recipe += ["--model", "shake_resnet8_2x4d", "--train-size", 64, "--batch-size", 16, "--ghost-batch-size", 8]
    for seed in range(args.seeds):
        for rule in ("E-E-B", "S-S-I"):
            if (left := end - time.monotonic()) > 20:
                name = f"{rule}-seed{seed}"
                which = ["--rule", rule, "--seed", seed, "--minutes", round((left - 10) / 60, 2), "--out", out / name]
                line = [*SHAKESHAKE, "train", args.data, *map(str, [*recipe, *which])]
                measure(out, f"train-{name}", left, line)
