"""Execute the runs of a plan that are not done yet, and collect the results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from ..utils.extras import require
from . import tables
from .local import run_locally
from .plan import Plan
from .progress import RunsProgress
from .ray import run_on_ray
from .schema import Table
from .worker import is_done, prepare


def require_extras(engine: str = "local") -> None:
    """Check that the packages that running a plan needs are installed, before anything is printed or written.

    Args:
        engine: As in ``Engine``.

    Raises:
        InputError: One is not installed.
    """
    for module in ("scipy", "PIL", "jinja2"):
        require(module, "report")
    if engine == "ray":
        require("ray", "ray")


def run_plan(plan: Plan, log: Callable[[str], None] = print) -> Table:
    """Execute what is missing of a plan, and write NAME.json and NAME.csv into its folder as the runs end.

    Finished runs are kept, interrupted ones are resumed, and those that another process trains are waited for. A run
    that fails does not stop the others. ``log`` prints a line of progress.

    Raises:
        InputError: The folder or a run directory holds something else, or the engine is not available.
        KeyboardInterrupt: Interrupted; the runs have saved a checkpoint.
    """
    require_extras(plan.engine.engine)
    plan.claim_folder()
    runs = plan.runs()
    todo = [path for path in runs if not is_done(path)]
    for path in todo:
        prepare(path, runs[path])
    failed: dict[str, str] = {}
    progress = RunsProgress(len(runs), len(runs) - len(todo), log)

    def collect() -> Table:
        table = tables.collect(plan.experiment, plan.folder, plan.seeds, plan.scale, failed, plan.fingerprints)
        return tables.write(table, plan.folder)

    def on_end(path: Path, reason: str | None) -> None:
        if reason is not None:
            failed[path.name] = reason
        progress.end(path, reason)
        collect()

    execute = run_on_ray if plan.engine.engine == "ray" else run_locally
    with progress.bar or contextlib.nullcontext():
        try:
            if todo:
                execute(plan, todo, progress.update, on_end)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; the runs in {plan.folder} have saved a checkpoint, resume with the same command"
            ) from None
    return collect()
