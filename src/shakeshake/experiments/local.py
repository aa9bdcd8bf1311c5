"""Execute runs on this machine, several side by side, each in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..utils.environment import cpu_count
from .plan import Plan
from .worker import EXIT_BUSY, is_done

LOG = "log.txt"  # in a run directory: what its process printed
POLL_SECONDS = 0.2
BUSY_SECONDS = 2.0  # until the next look at a run that another process trains


def run_locally(
    plan: Plan,
    paths: Sequence[Path],
    on_poll: Callable[[list[Path]], None],
    on_end: Callable[[Path, str | None], None],
) -> None:
    """Execute prepared runs of a plan until all are done or have failed.

    A run that another process trains is waited for. When this process is interrupted, the runs save a checkpoint before
    KeyboardInterrupt is raised again.

    Args:
        plan: The plan.
        paths: The run directories.
        on_poll: Called several times a second with the active runs.
        on_end: Called with each run as it ends, and with the reason if it failed.
    """
    jobs = plan.parallel_jobs()
    waiting = dict.fromkeys(paths, 0.0)  # run -> when to start it
    active: dict[Path, subprocess.Popen[bytes]] = {}
    environment = _environment(max(1, cpu_count() // jobs))
    # With -P, modules in the current folder are not importable: a statistics.py next to a user's photos is not run.
    command = [sys.executable, "-P", "-m", "shakeshake.experiments.worker", json.dumps(plan.worker_options)]
    try:
        while waiting or active:
            for path in [path for path, when in waiting.items() if when <= time.monotonic()]:
                if is_done(path):  # by another process
                    del waiting[path]
                    on_end(path, None)
                elif len(active) < jobs:
                    del waiting[path]
                    with open(path / LOG, "ab") as log:
                        active[path] = subprocess.Popen(
                            [*command, str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
                        )
            for path in [path for path, process in active.items() if process.poll() is not None]:
                status = active.pop(path).returncode
                if status == EXIT_BUSY:
                    waiting[path] = time.monotonic() + BUSY_SECONDS
                else:
                    on_end(path, _failure(path, status))
            on_poll(list(active))
            time.sleep(POLL_SECONDS)
    finally:
        for process in active.values():
            process.terminate()  # they save a checkpoint and exit
        for process in active.values():
            process.wait()


def _environment(threads: int) -> dict[str, str]:
    """The environment variables of a worker process, which has ``threads`` threads unless the user set a number."""
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    package_folder = Path(__file__).parents[2]
    if package_folder == Path.cwd():  # imported from the current folder, which -P takes off the path
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(package_folder), os.environ.get("PYTHONPATH"))))
    return environment


def _failure(path: Path, status: int) -> str | None:
    """Why a run failed, from the last line it printed; None if it did not."""
    if status == 0:
        return None
    lines = (path / LOG).read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
    return lines[-1].removeprefix("shakeshake: ") if status > 0 else f"killed by signal {-status}"
