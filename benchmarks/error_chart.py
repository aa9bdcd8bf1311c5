"""Draw README's chart: test error minus training error, without and with shaking.

python -m benchmarks error_chart results/cifar10-5000/runs.json results/cifar10-5000/gap.svg
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from ._common import parser
from ._plot import Panel, line_chart

LABELS = {"E-E-B": "without shaking", "S-S-I": "with shaking"}


def gaps(runs: list[dict[str, Any]]) -> tuple[list[int], list[float]]:
    """Epochs with a test, and the mean over ``runs`` of test error minus training error, in points."""
    columns = [run["metrics"] for run in runs]
    tested = [k for k, error in enumerate(columns[0]["test_error"]) if error is not None]
    values = [statistics.fmean(m["test_error"][k] - m["train_error"][k] for m in columns) for k in tested]
    return [columns[0]["epoch"][k] for k in tested], values


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, out=False)
    options.add_argument("runs", type=Path, metavar="RUNS.json", help="written by the benchmark collect")
    options.add_argument("figure", type=Path, metavar="FIGURE.svg")
    args = options.parse_args(argv)
    runs = json.loads(args.runs.read_text())["runs"]
    lines = {label: gaps([run for run in runs if run["recipe"]["rule"] == rule]) for rule, label in LABELS.items()}
    ends = ", ".join(f"{label} {values[-1]:.1f} points" for label, (_, values) in lines.items())
    panel = Panel("epoch", "Test error minus training error (points)", lines, direct_labels=True)
    line_chart(args.figure, [panel], f"Gap between test and training error by epoch; at the end {ends}.")
    print(args.figure, ends)
