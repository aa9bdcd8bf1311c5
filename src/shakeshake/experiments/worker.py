"""One cell with one seed: trained or gone on with, then analysed. Also a program of its own, for other processes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ..errors import InputError
from ..train.recipe import Recipe
from ..train.run_directory import RunBusy, RunDirectory
from ..utils.console import EXIT_OK, run_cli

BUSY = 75  # exit status: another process has this run, EX_TEMPFAIL of sysexits.h


def is_done(path: Path) -> bool:
    return RunDirectory(path).finished and (path / "analysis.json").exists()


def prepare(path: Path, recipe: Recipe) -> None:
    """Write the recipe into a new run directory, or see that the one that is there is the same.

    Raises InputError when the folder holds another recipe or cannot be written.
    """
    run = RunDirectory(path)
    if not (path / "recipe.json").exists():
        try:
            run.create(recipe)
        except InputError:
            if not (path / "recipe.json").exists():  # unless another runner was faster by a moment
                raise
    there = run.recipe().to_dict()
    for field, value in recipe.to_dict().items():
        if field not in ("data_dir", "device") and there[field] != value:
            raise InputError(
                f"{field}: {path} was made with {there[field]!r}, this table wants {value!r}; name another --out"
            )


def work(path: Path, *, data_dir: str | None = None, only: str | None = None, patience: float = 0.0) -> None:
    """Train the run in ``path`` to its end, from wherever it is, and analyse it.

    only: analyses, with commas between them; None for all.
    patience: seconds to wait for a run that another process holds: one that has just been killed lets go of it soon.
    Raises what resume() and analyze() raise; RunBusy when the patience is over.
    """
    from ..analysis.run import analyze
    from ..train.fit import resume

    until = time.monotonic() + patience
    while True:
        try:
            resume(path, data_dir=data_dir)
            break
        except RunBusy:
            if time.monotonic() >= until:
                raise
            time.sleep(1.0)
    if not (path / "analysis.json").exists():
        analyze(path, data_dir=data_dir, only=only.split(",") if only else None)


def main(path: str, data_dir: str = "", only: str = "") -> int:
    try:
        work(Path(path), data_dir=data_dir or None, only=only or None)
    except RunBusy:
        return BUSY
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_cli(lambda: main(*sys.argv[1:])))
