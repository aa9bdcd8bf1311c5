"""Train and analyse one run. Also a program, which the engines start for each run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..models.user_code import UserCode, register_user_code
from ..train.recipe import Recipe
from ..train.run_directory import RunBusy, RunDirectory
from ..utils.console import EXIT_OK, run_cli
from . import augmentation  # noqa: F401  (registers its network)
from .spec import MACHINE_FIELDS

EXIT_BUSY = 75  # another process trains this run; EX_TEMPFAIL of sysexits.h


def is_done(path: Path) -> bool:
    """Whether a run is trained and analysed."""
    return RunDirectory(path).finished and (path / "analysis.json").exists()


def prepare(path: Path, recipe: Recipe) -> None:
    """Write the recipe into a new run directory, or check that an existing one has the same.

    Raises:
        InputError: The folder holds another recipe or cannot be written.
    """
    run = RunDirectory(path)
    if not (path / "recipe.json").exists():
        try:
            run.create(recipe)
        except InputError:
            if not (path / "recipe.json").exists():  # unless another process created it a moment earlier
                raise
    existing = run.recipe().to_dict()
    for field, value in recipe.to_dict().items():
        if field not in MACHINE_FIELDS and existing[field] != value:
            raise InputError(
                f"{field}: {path} was made with {existing[field]!r}, this table needs {value!r}; use another --out"
            )


def train_and_analyze(
    path: Path,
    *,
    data_dir: str | None = None,
    analyses: str | None = None,
    user_code: Sequence[UserCode] = (),
    wait: float = 0.0,
) -> None:
    """Train a run to its end, from its last checkpoint if it has one, and analyse it.

    Args:
        path: The run directory.
        data_dir: Where the images are, if not where the recipe says.
        analyses: Names of analyses, separated by commas, or None for all.
        user_code: The user's own networks and rules that the run needs.
        wait: Seconds to wait for a run that another process holds. The lock of a process that was just killed is
            released soon after.

    Raises:
        RunBusy: Another process still holds the run.
        InputError, RunError: As ``resume`` and ``analyze``.
    """
    from ..analysis.run import analyze
    from ..train.fit import resume

    for field, text, name in user_code:
        register_user_code(field, text, name)
    until = time.monotonic() + wait
    while True:
        try:
            resume(path, data_dir=data_dir)
            break
        except RunBusy:
            if time.monotonic() >= until:
                raise
            time.sleep(1.0)
    if not (path / "analysis.json").exists():
        analyze(path, data_dir=data_dir, only=analyses.split(",") if analyses else None)


def main() -> int:
    """Execute the run of the second argument with the options of the first one, a JSON object."""
    try:
        train_and_analyze(Path(sys.argv[2]), **json.loads(sys.argv[1]))
    except RunBusy:
        return EXIT_BUSY
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_cli(main))
