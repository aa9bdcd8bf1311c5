"""Execute runs on this machine, several side by side, each in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..utils.environment import cpu_count
from .worker import EXIT_BUSY, is_done

LOG = "log.txt"  # in a run directory: what its process printed
POLL_SECONDS = 0.2
BUSY_SECONDS = 5.0  # between looks at a run that another process trains


def run_locally(
    paths: Sequence[Path],
    *,
    jobs: int,
    data_dir: str | None,
    analyses: str | None = None,
    user_code: Sequence[tuple[str, str]] = (),
    on_poll: Callable[[list[Path]], None],
    on_end: Callable[[Path, str | None], None],
) -> None:
    """Execute prepared runs until all are done or have failed.

    When this process is interrupted, the runs save a checkpoint before KeyboardInterrupt is raised again.

    Args:
        paths: The run directories. One that another process trains is waited for.
        jobs: Runs side by side.
        data_dir: Where the images are, if not where the recipes say.
        analyses: Names of analyses, separated by commas, or None for all.
        user_code: ("model" or "rule", FILE.py:NAME) of the user's own code that the runs need.
        on_poll: Called several times a second with the active runs.
        on_end: Called with each run as it ends, and with the reason if it failed.
    """
    waiting, active = list(paths), dict[Path, subprocess.Popen[bytes]]()
    busy: dict[Path, float] = {}  # runs that another process trains, and when to try again
    environment = worker_environment(max(1, cpu_count() // jobs))
    try:
        while waiting or active or busy:
            for path, when in list(busy.items()):
                if is_done(path):
                    del busy[path]
                    on_end(path, None)
                elif time.monotonic() >= when:
                    del busy[path]
                    waiting.append(path)
            while waiting and len(active) < jobs:
                path = waiting.pop(0)
                with open(path / LOG, "ab") as log:
                    active[path] = subprocess.Popen(
                        worker_command(path, data_dir, analyses, user_code),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env=environment,
                    )
            for path, process in list(active.items()):
                if process.poll() is None:
                    continue
                del active[path]
                if process.returncode == EXIT_BUSY:
                    busy[path] = time.monotonic() + BUSY_SECONDS
                else:
                    on_end(path, _failure(path, process.returncode))
            on_poll(list(active))
            time.sleep(POLL_SECONDS)
    finally:
        for process in active.values():
            process.terminate()  # they save a checkpoint and exit
        for process in active.values():
            process.wait()


def worker_command(
    path: Path, data_dir: str | None, analyses: str | None, user_code: Sequence[tuple[str, str]] = ()
) -> list[str]:
    """The command that executes a run.

    With -P, modules in the current folder are not importable: a statistics.py next to a user's photos is not executed.
    """
    command = [sys.executable, "-P", "-m", "shakeshake.experiments.worker", str(path)]
    command += ["--data-dir", data_dir] if data_dir else []
    command += ["--analyses", analyses] if analyses else []
    return command + [f"--{field}={text}" for field, text in user_code]


def worker_environment(threads: int) -> dict[str, str]:
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
    lines = (path / LOG).read_text(errors="replace").strip().splitlines()
    last = lines[-1].removeprefix("shakeshake: ") if lines else "it printed nothing"
    return last if status > 0 else f"killed by signal {-status}"
