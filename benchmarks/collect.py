"""Copy an experiment's tables and figures, or the records of runs, to results/.

    python -m benchmarks collect runs/paper results/small           # written by `shakeshake reproduce` or `compare`
    python -m benchmarks collect runs/cifar10-5000 results/cifar10-5000 --name runs

An experiment's table gets the machines of its runs: versions, device and commit. A folder of plain
runs becomes one file with the recipe, the environment, the result and the metrics of each run.
Weights, checkpoints and images stay.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from shakeshake.train.run_directory import write_results

from ._common import parser

# Fields of an environment that differ between runs on one machine.
VARIES = ("started", "command", "seconds", "resumed")


def machines(environments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The distinct environments, each with the number of its runs."""
    counts: dict[str, int] = {}
    for record in environments:
        for one in record if isinstance(record, list) else [record]:
            key = json.dumps({name: value for name, value in one.items() if name not in VARIES}, sort_keys=True)
            counts[key] = counts.get(key, 0) + 1
    return [{**json.loads(key), "runs": count} for key, count in counts.items()]


def load(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def run_record(run: Path) -> dict[str, Any]:
    """A run as one object; the metrics as columns."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = {name: [row.get(name) for row in rows] for name in rows[0]}
    parts = {name: load(run / f"{name}.json") for name in ("recipe", "environment", "result")}
    return {"name": run.name, **parts, "metrics": metrics}


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, out=False)
    options.add_argument("runs", type=Path, metavar="RUNS", help="an experiment, or a folder of runs")
    options.add_argument("out", type=Path, metavar="OUT", help="a folder of results/")
    options.add_argument("--name", help="name of the file (default: as in RUNS)")
    args = options.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.runs / "cells").is_dir():
        records = [run_record(path.parent) for path in sorted(args.runs.glob("*/recipe.json"))]
        print(write_results(args.out / f"{args.name or args.runs.name}.json", {"runs": records}))
        return
    for table in sorted(path for path in args.runs.glob("*.json") if path.name != "settings.json"):
        measured = load(table)
        measured.get("environment", {}).pop("command", None)  # it names folders of this machine
        paths = [run["path"] for cell in measured["cells"] for run in cell["runs"]]
        measured["machines"] = machines([load(args.runs / path / "environment.json") for path in paths])
        print(write_results(args.out / f"{args.name or table.stem}.json", measured))
    for figure in sorted(args.runs.glob("*.svg")):
        shutil.copy(figure, args.out / (f"{args.name}-{figure.name}" if args.name else figure.name))
