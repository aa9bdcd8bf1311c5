"""Execute runs as tasks on a Ray cluster; a run whose node dies is resumed on another."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, RunError
from ..utils.extras import require
from .plan import Plan
from .worker import train_and_analyze

CONNECT_TIMEOUT = 5.0  # seconds for the cluster's port to answer
SAVE_TIMEOUT = 20.0  # seconds for the workers to save a checkpoint when they are interrupted
LOCK_TIMEOUT = 120.0  # seconds until the lock of a killed worker is released


def run_on_ray(
    plan: Plan,
    paths: Sequence[Path],
    on_poll: Callable[[list[Path]], None],
    on_end: Callable[[Path, str | None], None],
) -> None:
    """Execute prepared runs of a plan on a Ray cluster; the arguments are those of ``run_locally``.

    The folder must have the same path on every node (shared storage), and shakeshake must be installed there. When a
    worker or node dies, Ray restarts its task elsewhere, which resumes from the run's last checkpoint.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address.
    """
    ray = require("ray", "ray")
    address, cpus, gpus = plan.engine.address, plan.engine.cpus, plan.engine.gpus
    _check_answers(address)
    folder = Path.cwd()
    try:
        # Ray puts the folder in which it is initialised on the workers' path. A statistics.py next to a user's photos
        # would be imported there, so it is initialised where only run directories are.
        os.chdir(paths[0].resolve().parent)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"address: no Ray cluster answers at {address}: {str(error).splitlines()[0]}") from None
    finally:
        os.chdir(folder)
    paths = [folder / path for path in paths]
    try:
        _check_resources(ray.nodes(), cpus, gpus)
        environment = {"env_vars": _environment(cpus)}
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=-1, runtime_env=environment)(_work)
        active = {task.remote(path.resolve(), folder, plan.worker_options): path for path in paths}
        while active:
            on_poll([path for path in active.values() if (path / "metrics.jsonl").exists()])
            ready, _ = ray.wait(list(active), timeout=0.5)
            for reference in ready:
                path = active.pop(reference)
                try:
                    on_end(path, ray.get(reference))
                except ray.exceptions.RayError as error:
                    on_end(path, str(error).strip().splitlines()[-1])
    except KeyboardInterrupt:
        for reference in active:
            ray.cancel(reference)  # raises KeyboardInterrupt in the task, so the run saves a checkpoint
        ray.wait(list(active), num_returns=len(active), timeout=SAVE_TIMEOUT)
        raise
    finally:
        ray.shutdown()


def _work(path: Path, folder: Path, options: dict[str, Any]) -> str | None:
    """On a worker: execute a run, return why it failed, if it did. Only a dead worker makes Ray try again."""
    if folder.is_dir():  # relative paths of images start there
        os.chdir(folder)
    try:
        train_and_analyze(path, **options, wait=LOCK_TIMEOUT)
    except (InputError, RunError) as error:
        return str(error)
    return None


def _environment(cpus: int) -> dict[str, str]:
    """Environment variables of the workers."""
    names = ("SHAKESHAKE_DATA", "PYTHONPATH")
    return {**{name: os.environ[name] for name in names if name in os.environ}, "OMP_NUM_THREADS": str(cpus)}


def _check_answers(address: str | None) -> None:
    """Connect to an address with a port first, because Ray itself would try for minutes."""
    if address is None or address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"address: got {address!r}, expected HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"address: no Ray cluster answers at {address}: {error}") from None


def _check_resources(nodes: Sequence[dict[str, Any]], cpus: int, gpus: float) -> None:
    """A task that fits no node would wait for ever."""
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        most = max((node["Resources"].get(name, 0) for node in nodes if node["Alive"]), default=0)
        if most < wanted:
            raise InputError(
                f"{name.lower()}s: got {wanted:g} per run, expected at most {most:g}, the most that a machine of the "
                f"cluster has; use a smaller --{name.lower()}s"
            )
