"""analyze, reproduce, report: what the paper shows."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path

from ..utils.console import EXIT_FAILURE, EXIT_OK
from .parser import door, recipe_options


def analyze(arguments: Sequence[str]) -> int:
    parser = door(
        "analyze",
        "What shaking did to a trained network: correlation between the branches and their layers, calibration,\n"
        "the gap between training and test error, the strength of its rule. Writes analysis.json into the run.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory, finished or not")
    parser.add_argument("--split", default="test", metavar="X", help="images to look at: test or train (default test)")
    parser.add_argument(
        "--only", metavar="A,A", help="correlation, layerwise, calibration, gap, strength, gradcam (default all)"
    )
    parser.add_argument("--data-dir", metavar="D", help="where the images are now, if they have moved")
    parser.add_argument("--device", default="auto", metavar="X", help="auto, cpu, cuda, cuda:1 or mps")
    given = parser.parse_args(arguments)

    from ..analysis.format import as_lines
    from ..analysis.run import analyze as run_analysis

    only = None if given.only is None else tuple(given.only.split(","))
    found = run_analysis(given.run, split=given.split, only=only, data_dir=given.data_dir, device=given.device)
    for line in as_lines(found):
        print(line)
    print(f"\nanalysis {given.run / 'analysis.json'}")
    return EXIT_OK


def reproduce(arguments: Sequence[str]) -> int:
    from ..experiments.paper import EXPERIMENTS
    from ..experiments.scales import SCALES
    from ..train.recipe import Recipe

    tables = "\n".join(
        f"  {name:<15}{(inspect.getdoc(made) or '').splitlines()[0]}" for name, made in EXPERIMENTS.items()
    )
    scales = "\n".join(f"  {scale.name:<15}{scale.description}" for scale in SCALES.values())
    parser = door(
        "reproduce",
        "A table or figure of the paper, the published figures beside those measured here. Started again, it\n"
        "passes over what is done and goes on with what was broken off; more --seeds join those that are there.\n\n"
        f"tables\n{tables}\n\nscales\n{scales}",
        epilog="examples:\n"
        "  shakeshake reproduce table1 --dry-run\n"
        "  shakeshake reproduce table1 --rows E-E-B,S-S-I --seeds 3 --jobs 2\n"
        "  shakeshake reproduce table1 --scale paper --engine ray --address HOST:6379 --gpus 1",
    )
    parser.add_argument("table", metavar="TABLE", help="one of the tables above")
    parser.add_argument("--scale", default="small", metavar="X", help=f"{', '.join(SCALES)} (default small)")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs of each cell (default as the scale has it)")
    parser.add_argument("--rows", metavar="R,R", help="some of the rows alone")
    parser.add_argument(
        "--out", type=Path, metavar="D", help="a folder, shared by tables (default runs/reproduce-SCALE)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and how long it would take here")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs side by side (default: cores; one on a GPU)")
    parser.add_argument("--engine", default="local", metavar="X", help="local, or ray for a cluster (default local)")
    parser.add_argument("--address", metavar="A", help="where the Ray cluster is; default one on this machine")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="cores of a cell on the cluster (default 1)")
    parser.add_argument("--gpus", type=float, default=0.0, metavar="X", help="GPUs of a cell there (default 0)")
    fields = parser.add_argument_group("fields of all recipes (default as the table has them)")
    names = [field.name for field in dataclasses.fields(Recipe) if field.name != "seed"]
    recipe_options(fields, dict.fromkeys(names), "")  # type: ignore[arg-type]
    given = vars(parser.parse_args(arguments))
    rows, dry = given.pop("rows"), given.pop("dry_run")
    options = {name: given.pop(name) for name in list(given) if name not in names}
    name = options.pop("table")

    from ..experiments.format import format_table
    from ..experiments.plan import describe_plan, plan_reproduction
    from ..experiments.run import run_plan
    from ..report.page import write_report

    plan = plan_reproduction(name, rows=tuple(rows.split(",")) if rows else (), overrides=given, **options)
    plan.check_folder()
    for line in describe_plan(plan, cells=dry):
        print(line, flush=True)
    if dry:
        return EXIT_OK
    table = run_plan(plan, log=lambda line: print(line, flush=True))
    print()
    for line in format_table(table):
        print(line)
    print(
        f"\nresults {plan.folder / name}.json, .csv\nreport {write_report([plan.folder], plan.folder / 'report.html')}"
    )
    return EXIT_FAILURE if table.failed else EXIT_OK


def report(arguments: Sequence[str]) -> int:
    parser = door(
        "report",
        "One self-contained HTML page from runs and from experiments, finished or not.",
        epilog="examples:\n"
        "  shakeshake report runs/a runs/b --out page.html\n"
        "  shakeshake report runs/reproduce-small\n"
        "  shakeshake report runs/reproduce-small/table1.json --figure differences.svg --chart differences",
    )
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="run directories, experiment directories or their .json files",
    )
    parser.add_argument(
        "--out", type=Path, metavar="F", help="the page (default report.html in, or beside, what is given first)"
    )
    parser.add_argument("--figure", type=Path, metavar="F", help="also one chart alone, as .svg or .png")
    parser.add_argument(
        "--chart",
        default="curves",
        metavar="C",
        help="which: curves, correlation, layerwise, strength, differences or table (default curves)",
    )
    given = parser.parse_args(arguments)

    from ..report.export_figure import write_figure
    from ..report.page import write_report

    first = given.runs[0].parent if given.runs[0].suffix == ".json" else given.runs[0]
    print(write_report(given.runs, given.out or first / "report.html"))
    if given.figure:
        print(write_figure(given.runs, given.figure, given.chart))
    return EXIT_OK
