"""compare: does shaking help on somebody's own images?"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from ..utils.console import EXIT_FAILURE, EXIT_OK
from .parser import door, field_help, recipe_options

APART = ("data", "rule", "seed", "folds", "fold")  # fields of a recipe that a comparison has its own options for


def compare(arguments: Sequence[str]) -> int:
    from ..train.recipe import Recipe

    parser = door(
        "compare",
        "Does shaking help you? One network with one budget on your images under E-E-B (not shaken), S-S-I and\n"
        "S-E-I, over several seeds or folds, with intervals and a plain verdict. Started again with the same\n"
        "--out, it passes over what is done and goes on with what was broken off; more --seeds join the others.",
        epilog="examples:\n"
        "  shakeshake compare mine.npz --budget 5m --out runs/mine\n"
        "  shakeshake compare mine.npz --folds 5 --seeds 1 --json\n"
        "  shakeshake compare cifar10 --train-size 1000 --model shake_resnet14_2x16d --epochs 100",
    )
    parser.add_argument("data", metavar="DATA", help=field_help(Recipe)["data"])
    parser.add_argument("--rules", default="S-S-I,S-E-I", metavar="R,R", help="beside E-E-B (default S-S-I,S-E-I)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each rule (default 3)")
    parser.add_argument(
        "--folds", type=int, default=0, metavar="K", help="cross-validation: " + field_help(Recipe)["folds"]
    )
    parser.add_argument(
        "--budget",
        metavar="T",
        help="time of each run, as for `shakeshake train` (default 10m for your own images, none for no limit)",
    )
    parser.add_argument("--out", type=Path, metavar="D", help="the folder (default runs/compare-DATA-N, a new one)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and how long it would take here")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, all else on stderr")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs side by side (default: cores; one on a GPU)")
    parser.add_argument("--engine", default="local", metavar="X", help="local, or ray for a cluster (default local)")
    parser.add_argument("--address", metavar="A", help="where the Ray cluster is; default one on this machine")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="cores of a run on the cluster (default 1)")
    parser.add_argument("--gpus", type=float, default=0.0, metavar="X", help="GPUs of a run there (default 0)")
    fields = parser.add_argument_group("fields of all recipes (default what suits the images, as for `train`)")
    names = [field.name for field in dataclasses.fields(Recipe) if field.name not in APART]
    recipe_options(fields, dict.fromkeys(names), "")  # type: ignore[arg-type]
    given = vars(parser.parse_args(arguments))
    typed = {name: given.pop(name) for name in list(given) if name in names}
    stream = sys.stderr if given["json"] else sys.stdout

    def log(line: str) -> None:
        print(line, file=stream, flush=True)

    from ..experiments.compare import format_comparison, plan_comparison, run_comparison
    from ..experiments.plan import Engine, describe_plan
    from ..report.page import write_report

    plan, images = plan_comparison(
        given["data"],
        typed,
        rules=given["rules"].split(","),
        seeds=given["seeds"],
        folds=given["folds"],
        budget=given["budget"],
        out=given["out"],
        engine=Engine(**{name: given[name] for name in ("engine", "jobs", "address", "cpus", "gpus")}),
        log=log,
    )
    for line in describe_plan(plan, cells=given["dry_run"]):
        log(line)
    if given["dry_run"]:
        return EXIT_OK
    table = run_comparison(plan, images, log=log)
    page = write_report([plan.folder], plan.folder / "report.html")
    if given["json"]:
        print(table.to_json(), end="")
    else:
        print("\n" + "\n".join(format_comparison(table)))
    log(f"\nresults {plan.folder / 'compare.json'}, .csv\nreport {page}")
    return EXIT_FAILURE if table.failed else EXIT_OK
