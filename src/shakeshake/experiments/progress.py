"""Show the progress of an experiment: a bar per active run on a terminal, otherwise a line as each run ends."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

from ..train.run_directory import RunDirectory


class RunsProgress:
    """Progress bars that are read from the metrics files of the run directories.

    Args:
        total: Number of runs. done: Number of those that are done already.
        log: Prints a line.
    """

    def __init__(self, total: int, done: int, log: Callable[[str], None]) -> None:
        self.total, self.done, self.log = total, done, log
        self.last_update = 0.0
        self.tasks: dict[Path, TaskID] = {}
        self.bar = _bar()  # its context shows it
        if self.bar is not None:
            self.all = self.bar.add_task("all runs", total=total, completed=done, unit="runs")

    def update(self, active: list[Path]) -> None:
        """Update the bars of the active runs, at most once a second."""
        now = time.monotonic()
        if self.bar is None or now - self.last_update < 1.0:
            return
        self.last_update = now
        for path in active:
            run = RunDirectory(path)
            if path not in self.tasks:
                self.tasks[path] = self.bar.add_task(path.name, total=run.recipe().epochs, unit="epochs")
            self.bar.update(self.tasks[path], completed=len(run.metrics()))

    def end(self, path: Path, reason: str | None) -> None:
        """Remove a run's bar and print its result, or why it failed."""
        outcome = f"failed: {reason}"
        if reason is None:
            self.done += 1
            result = RunDirectory(path).result()
            outcome = f"{result.last_error:.2f} % test error, {result.seconds / 60:.1f} min"
        line = f"[{self.done}/{self.total}] {path.name}: {outcome}"
        if self.bar is None:
            self.log(line)
            return
        if path in self.tasks:
            self.bar.remove_task(self.tasks.pop(path))
        self.bar.update(self.all, completed=self.done)
        self.bar.console.print(line, highlight=False, markup=False)


def _bar() -> Progress | None:
    """A bar on a terminal, if rich is installed."""
    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
    )
