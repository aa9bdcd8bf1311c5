"""Execute the runs of a plan that are not done yet, and collect the results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import tables
from .local import run_locally
from .plan import Plan
from .progress import RunsProgress
from .schema import Table
from .worker import is_done, prepare


def run_plan(plan: Plan, log: Callable[[str], None] = print) -> Table:
    """Execute what is missing of a plan, and write NAME.json and NAME.csv into its folder as the runs end.

    Finished runs are kept, interrupted ones are resumed, and those that another process trains are waited for. A run
    that fails does not stop the others.

    Args:
        plan: The plan.
        log: Prints a line of progress.

    Returns:
        The results.

    Raises:
        InputError: The folder or a run directory holds something else, or the engine is not available.
        KeyboardInterrupt: Interrupted; the runs have saved a checkpoint.
    """
    plan.claim_folder()
    runs = plan.runs()
    todo = [path for path in runs if not is_done(path)]
    for path in todo:
        prepare(path, runs[path])
    failed: dict[str, str] = {}

    def collect() -> Table:
        table = tables.collect(plan.experiment, plan.folder, plan.seeds, plan.scale, failed, plan.fingerprints)
        return tables.write(table, plan.folder)

    with RunsProgress(len(runs), len(runs) - len(todo), log) as progress:

        def on_end(path: Path, reason: str | None) -> None:
            if reason is not None:
                failed[path.name] = reason
            progress.end(path, reason)
            collect()

        try:
            if todo:
                _execute(plan, todo, progress.update, on_end)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; the runs in {plan.folder} have saved a checkpoint, resume with the same command"
            ) from None
    return collect()


def _execute(
    plan: Plan,
    paths: list[Path],
    on_poll: Callable[[list[Path]], None],
    on_end: Callable[[Path, str | None], None],
) -> None:
    """Execute prepared runs with the plan's engine."""
    engine = plan.engine
    if engine.engine == "local":
        run_locally(
            paths,
            jobs=plan.parallel_jobs(),
            data_dir=plan.data_dir,
            analyses=plan.analyses,
            user_code=plan.user_code,
            on_poll=on_poll,
            on_end=on_end,
        )
        return
    from .ray import run_on_ray

    run_on_ray(
        paths,
        address=engine.address,
        cpus=engine.cpus,
        gpus=engine.gpus,
        data_dir=plan.data_dir,
        analyses=plan.analyses,
        user_code=plan.user_code,
        on_poll=on_poll,
        on_end=on_end,
    )
