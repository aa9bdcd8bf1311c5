"""compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..utils.console import EXIT_FAILURE, EXIT_OK
from .options import (
    DATA_HELP,
    PATH,
    argument,
    command,
    data_names,
    engine_options,
    explicit_fields,
    option,
    recipe_options,
    rule_names,
    suggest,
)


@command(
    help="Does shaking help on your images? Trains one network with one budget under E-E-B (no shaking), S-S-I and "
    "S-E-I, over several seeds or folds, and prints errors with confidence intervals and a verdict.\n\n"
    "Run again with the same --out, it skips finished runs and resumes interrupted ones; more --seeds are added.",
    examples=(
        "shakeshake compare mine.npz --budget 5m --out runs/mine",
        "shakeshake compare mine.npz --folds 5 --seeds 1 --json",
        "shakeshake compare cifar10 --train-size 1000 --model shake_resnet14_2x16d --epochs 100",
    ),
)
@argument("data", metavar="DATA", shell_complete=suggest(data_names, files=True), help=DATA_HELP + ".")
@option(
    "--rules",
    default="S-S-I,S-E-I",
    metavar="RULE,...",
    shell_complete=suggest(rule_names),
    help="Rules to compare with E-E-B, by name or FILE.py:FUNCTION.  [default: S-S-I,S-E-I]",
)
@option("--seeds", type=int, default=3, metavar="N", help="Number of runs per rule.  [default: 3]")
@option("--folds", type=int, default=0, metavar="K", help="Folds for cross-validation; 0 for none.  [default: 0]")
@option(
    "--budget",
    metavar="TIME",
    help="Training time of each run, as for `shakeshake train`. Default: 10m for your own images; none for no limit.",
)
@option("--out", type=PATH, metavar="DIR", help="Output directory. Default: runs/compare-DATA-N, a new one.")
@option("--dry-run", is_flag=True, help="Print the plan and its estimated time, and train nothing.")
@option("--json", "as_json", is_flag=True, help="Print the results as JSON and everything else on stderr.")
@engine_options
@recipe_options(exclude=("data", "rule", "seed", "folds", "fold"))
@click.pass_context
def compare(
    ctx: click.Context,
    data: str,
    rules: str,
    seeds: int,
    folds: int,
    budget: str | None,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    engine: str,
    jobs: int | None,
    address: str | None,
    cpus: int,
    gpus: float,
    **_: Any,
) -> int:
    overrides = explicit_fields(ctx)
    stream = sys.stderr if as_json else sys.stdout

    def log(line: str) -> None:
        print(line, file=stream, flush=True)

    from ..experiments.compare import plan_comparison, run_comparison
    from ..experiments.format import format_table
    from ..experiments.plan import Engine, describe_plan
    from ..experiments.run import require_extras
    from ..report.page import write_report

    if not dry_run:
        require_extras(engine)

    plan, images = plan_comparison(
        data,
        overrides,
        rules=rules.split(","),
        seeds=seeds,
        folds=folds,
        budget=budget,
        out=out,
        engine=Engine(engine=engine, jobs=jobs, address=address, cpus=cpus, gpus=gpus),
        log=log,
    )
    for line in describe_plan(plan, cells=dry_run):
        log(line)
    if dry_run:
        return EXIT_OK
    table = run_comparison(plan, images, log=log)
    page = write_report([plan.folder], plan.folder / "report.html")
    if as_json:
        print(table.to_json(), end="")
    else:
        print("\n" + "\n".join(format_table(table)))
    log(f"\nresults {plan.folder / 'compare.json'}, .csv\nreport {page}")
    return EXIT_FAILURE if table.failed else EXIT_OK
