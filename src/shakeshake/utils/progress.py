"""A progress bar on stderr, or the caller's progress callback."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator

ProgressCallback = Callable[[str, int, int | None], None]
"""Called with (task name, steps done, total steps or None when unknown)."""


@contextlib.contextmanager
def progress_bar(callback: ProgressCallback | None, *, unit: str = "files") -> Iterator[ProgressCallback]:
    """Yield ``callback`` if given, else a function that draws a bar on stderr (nothing if that is no terminal).

    Args:
        callback: The caller's own display.
        unit: "files" or "bytes", which also shows the speed.
    """
    if callback is not None or not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        yield callback or (lambda name, done, total: None)
        return
    from rich import progress
    from rich.console import Console

    bytes_columns = (progress.DownloadColumn(), progress.TransferSpeedColumn())
    columns = bytes_columns if unit == "bytes" else (progress.MofNCompleteColumn(),)
    name_column = progress.TextColumn("{task.description}", markup=False)  # a folder may be called [bold]
    with progress.Progress(
        name_column,
        progress.BarColumn(),
        *columns,
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield show
