"""The engine for one machine: cells side by side, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..utils.environment import cpu_count
from .worker import BUSY, is_done

LOG = "log.txt"  # in a cell's run directory: what its process printed


def run_locally(
    paths: Sequence[Path],
    *,
    jobs: int,
    data_dir: str | None,
    only: str | None = None,
    watch: Callable[[list[Path]], None],
    ended: Callable[[Path, str | None], None],
) -> None:
    """Work on prepared run directories, ``jobs`` at a time, until all are done or have failed.

    only: the analyses of each, with commas between them; None for all.
    watch: called several times a second with the paths under way. ended: called with each path as it ends, and with
    the reason where it failed. A cell that another process is working on is waited for. When this process is
    interrupted, the cells save where they are and KeyboardInterrupt goes on.
    """
    waiting, under_way = list(paths), dict[Path, subprocess.Popen[bytes]]()
    elsewhere: dict[Path, float] = {}  # cells that another process has, and when to look again
    environment = {"OMP_NUM_THREADS": str(max(1, cpu_count() // jobs)), **os.environ}
    try:
        while waiting or under_way or elsewhere:
            for path, when in list(elsewhere.items()):
                if is_done(path):
                    del elsewhere[path]
                    ended(path, None)
                elif time.monotonic() >= when:
                    del elsewhere[path]
                    waiting.append(path)
            while waiting and len(under_way) < jobs:
                path = waiting.pop(0)
                with open(path / LOG, "ab") as log:
                    command = [sys.executable, "-m", "shakeshake.experiments.worker", str(path)]
                    command += [data_dir or "", only or ""]
                    under_way[path] = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
                    )
            for path, process in list(under_way.items()):
                if process.poll() is None:
                    continue
                del under_way[path]
                if process.returncode == BUSY:
                    elsewhere[path] = time.monotonic() + 5.0
                else:
                    ended(path, _reason(path, process.returncode))
            watch(list(under_way))
            time.sleep(0.2)
    finally:
        for process in under_way.values():
            process.terminate()  # they save and exit
        for process in under_way.values():
            process.wait()


def _reason(path: Path, status: int) -> str | None:
    """Why a cell failed, from the last line it printed; None if it did not."""
    if status == 0:
        return None
    lines = (path / LOG).read_text(errors="replace").strip().splitlines()
    last = lines[-1].removeprefix("shakeshake: ") if lines else "it printed nothing"
    return last if status > 0 else f"killed by signal {-status}"
