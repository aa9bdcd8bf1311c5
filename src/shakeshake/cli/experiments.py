"""analyze, reproduce, report."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click

from ..experiments.paper import EXPERIMENTS
from ..experiments.scales import SCALES
from ..utils.console import EXIT_FAILURE, EXIT_OK
from .options import (
    PATH,
    Choice,
    argument,
    command,
    data_dir_option,
    device_option,
    engine_options,
    explicit_fields,
    option,
    recipe_options,
    register_user_code,
    run_argument,
    suggest,
    user_code_options,
)

CHARTS = ("curves", "correlation", "layerwise", "strength", "differences")
NAME_WIDTH = max(map(len, EXPERIMENTS)) + 2
TABLES = "\n".join(
    f"  {name:<{NAME_WIDTH}}{(inspect.getdoc(made) or '').splitlines()[0]}" for name, made in EXPERIMENTS.items()
)


@command(
    help="Analyse a trained run: correlation between its branches and their layers, calibration, the gap between "
    "training and test error, the strength of its rule, Grad-CAM. Writes analysis.json into the run."
)
@run_argument
@option("--split", type=Choice(("test", "train", "val")), default="test", help="Images to use.  [default: test]")
@option(
    "--only",
    metavar="NAME,...",
    help="Some of correlation, layerwise, calibration, gap, strength, gradcam. Default: all.",
)
@data_dir_option
@device_option
@user_code_options
def analyze(
    run: Path,
    split: str,
    only: str | None,
    data_dir: str | None,
    device: str,
    **user_code: str | None,
) -> int:
    register_user_code(user_code, only=True)
    from ..analysis.format import as_lines
    from ..analysis.run import analyze as run_analysis

    chosen = None if only is None else tuple(only.split(","))
    for line in as_lines(run_analysis(run, split=split, only=chosen, data_dir=data_dir, device=device)):
        print(line)
    print(f"\nanalysis {run / 'analysis.json'}")
    return EXIT_OK


@command(
    help="Reproduce a table or figure of the paper, and print the published numbers beside the measured ones.\n\n"
    "Run again, it skips finished runs and resumes interrupted ones; more --seeds are added.\n\n"
    f"\b\nTables:\n{TABLES}\n\n\b\nScales:\n"
    + "\n".join(f"  {scale.name:<{NAME_WIDTH}}{scale.description}" for scale in SCALES.values()),
    examples=(
        "shakeshake reproduce table1 --dry-run",
        "shakeshake reproduce table1 --rows E-E-B,S-S-I --seeds 3 --jobs 2",
        "shakeshake reproduce table1 --scale paper --engine ray --address HOST:6379 --gpus 1",
    ),
)
@argument("name", metavar="TABLE", shell_complete=suggest(lambda: EXPERIMENTS), help="One of the tables above.")
@option("--scale", type=Choice(tuple(SCALES)), default="small", help="Size of the experiments.  [default: small]")
@option("--seeds", type=int, metavar="N", help="Runs per cell. Default: chosen by the scale.")
@option("--rows", metavar="ROW,...", help="Only these rows.")
@option("--out", type=PATH, metavar="DIR", help="Output directory, shared by tables. Default: runs/reproduce-SCALE.")
@option("--dry-run", is_flag=True, help="Print the plan and its estimated time, and train nothing.")
@engine_options
@recipe_options(exclude=("seed",))
@click.pass_context
def reproduce(
    ctx: click.Context,
    name: str,
    scale: str,
    seeds: int | None,
    rows: str | None,
    out: Path | None,
    dry_run: bool,
    engine: str,
    jobs: int | None,
    address: str | None,
    cpus: int,
    gpus: float,
    **_: Any,
) -> int:
    overrides = explicit_fields(ctx)

    from ..experiments.format import format_table
    from ..experiments.plan import describe_plan, plan_reproduction
    from ..experiments.run import require_extras, run_plan
    from ..report.page import write_report

    if not dry_run:
        require_extras(engine)

    plan = plan_reproduction(
        name,
        rows=tuple(re.split(r",(?![^\[]*\])", rows)) if rows else (),  # not within S-E-I[0.4,0.6]
        overrides=overrides,
        scale=scale,
        seeds=seeds,
        out=out,
        engine=engine,
        jobs=jobs,
        address=address,
        cpus=cpus,
        gpus=gpus,
    )
    plan.check_folder()
    if not dry_run:
        plan.check_data()
    for line in describe_plan(plan, cells=dry_run):
        print(line, flush=True)
    if dry_run:
        return EXIT_OK
    table = run_plan(plan, log=lambda line: print(line, flush=True))
    print()
    for line in format_table(table):
        print(line)
    page = write_report([plan.folder], plan.folder / "report.html")
    print(f"\nresults {plan.folder / name}.json, .csv\nreport {page}")
    return EXIT_FAILURE if table.failed else EXIT_OK


@command(
    help="Write one self-contained HTML page about runs and experiments, finished or not.",
    examples=(
        "shakeshake report runs/a runs/b --out page.html",
        "shakeshake report runs/reproduce-small",
        "shakeshake report runs/reproduce-small/table1.json --figure differences.svg --chart differences",
        "shakeshake report runs/reproduce-small/augmentation.json --figure curves.svg --column 1000",
    ),
)
@argument(
    "paths",
    metavar="PATH...",
    nargs=-1,
    required=True,
    type=PATH,
    help="Run directories, experiment directories or their .json files.",
)
@option("--out", type=PATH, metavar="FILE", help="The page. Default: report.html in, or next to, the first PATH.")
@option("--figure", type=PATH, metavar="FILE", help="Also write one chart as an .svg file.")
@option("--chart", type=Choice(CHARTS), default="curves", help="Chart for --figure.  [default: curves]")
@option("--column", metavar="COLUMN", help="One column of an experiment for --figure. Default: all.")
def report(paths: tuple[Path, ...], out: Path | None, figure: Path | None, chart: str, column: str | None) -> int:
    from ..report.figures import write_figure
    from ..report.page import write_report

    first = paths[0].parent if paths[0].suffix == ".json" else paths[0]
    print(write_report(list(paths), out or first / "report.html"))
    if figure:
        print(write_figure(list(paths), figure, chart, column))
    return EXIT_OK
