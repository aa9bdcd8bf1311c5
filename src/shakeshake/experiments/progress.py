"""How cells are going: a bar for each that is under way on a terminal, a line as each one ends otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..train.run_directory import RunDirectory


class CellProgress:
    """Watches run directories from outside: a cell's metrics say how far it is."""

    def __init__(self, cells: int, done: int, say: Callable[[str], None]) -> None:
        self.cells, self.done, self.say = cells, done, say
        self.looked = 0.0
        self.tasks: dict[Path, TaskID] = {}
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
        )
        self.all = self.bar.add_task("all cells", total=cells, completed=done, unit="runs")

    def __enter__(self) -> CellProgress:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()

    def watch(self, under_way: list[Path]) -> None:
        now = time.monotonic()
        if self.bar.disable or now - self.looked < 1.0:
            return
        self.looked = now
        for path in under_way:
            run = RunDirectory(path)
            if path not in self.tasks:
                self.tasks[path] = self.bar.add_task(path.name, total=run.recipe().epochs, unit="epochs")
            self.bar.update(self.tasks[path], completed=len(run.metrics()))

    def ended(self, path: Path, reason: str | None) -> None:
        self.done += reason is None
        if path in self.tasks:
            self.bar.remove_task(self.tasks.pop(path))
        self.bar.update(self.all, completed=self.done)
        if reason is not None:
            what = f"failed: {reason}"
        else:
            result = RunDirectory(path).result()
            what = f"{result['last_error']:.2f} % test error, {result['seconds'] / 60:.1f} min"
        text = f"[{self.done}/{self.cells}] {path.name}: {what}"
        if self.bar.disable:
            self.say(text)
        else:
            self.bar.console.print(text, highlight=False, markup=False)
