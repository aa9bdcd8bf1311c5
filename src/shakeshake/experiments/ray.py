"""The engine for many machines: every cell a task of a Ray cluster, gone on with elsewhere when its worker dies."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, RunError
from .worker import work

ANSWER_WITHIN = 5.0  # seconds for a cluster to answer its port
SAVE_WITHIN = 20.0  # seconds for the workers to save when they are interrupted
LOCK_PATIENCE = 120.0  # seconds for a killed worker's lock to be let go of


def run_on_ray(
    paths: Sequence[Path],
    *,
    address: str | None,
    cpus: int,
    gpus: float,
    data_dir: str | None,
    only: str | None = None,
    watch: Callable[[list[Path]], None],
    ended: Callable[[Path, str | None], None],
) -> None:
    """Work on prepared run directories as tasks of the cluster at ``address``; None starts one on this machine.

    The folder must be at the same path on every node (shared storage), and shakeshake installed there. A task asks for
    ``cpus`` and ``gpus``; when its worker or node dies, Ray starts it again elsewhere, and it goes on from the run's
    last checkpoint. only, watch, ended: as in run_locally.

    Raises InputError when ray is not installed or nobody answers at the address.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "engine: ray is not installed here, expected it for --engine ray; pip install 'shakeshake[ray]'"
        ) from None
    _check_answers(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"address: no Ray cluster answers at {address}: {str(error).splitlines()[0]}") from None
    try:
        _check_resources(ray.nodes(), cpus, gpus)
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=-1, runtime_env={"env_vars": _environment(cpus)})(
            _work
        )
        under_way = {task.remote(str(path.resolve()), data_dir, only): path for path in paths}
        while under_way:
            watch([path for path in under_way.values() if (path / "metrics.jsonl").exists()])
            ready, _ = ray.wait(list(under_way), timeout=0.5)
            for reference in ready:
                path = under_way.pop(reference)
                try:
                    ended(path, ray.get(reference))
                except ray.exceptions.RayError as error:
                    ended(path, str(error).strip().splitlines()[-1])
    except KeyboardInterrupt:
        for reference in under_way:
            ray.cancel(reference)  # an interrupt there: the run saves where it is
        ray.wait(list(under_way), num_returns=len(under_way), timeout=SAVE_WITHIN)
        raise
    finally:
        ray.shutdown()


def _work(path: str, data_dir: str | None, only: str | None) -> str | None:
    """On a worker: the cell, and why it failed if it did. Only a dead worker is a reason to try again."""
    try:
        work(Path(path), data_dir=data_dir, only=only, patience=LOCK_PATIENCE)
    except (InputError, RunError) as error:
        return str(error)
    return None


def _environment(cpus: int) -> dict[str, str]:
    """What a worker needs to know of this process: where the data lie, and how many threads it may have."""
    kept = {name: os.environ[name] for name in ("SHAKESHAKE_DATA", "PYTHONPATH") if name in os.environ}
    return {**kept, "OMP_NUM_THREADS": str(cpus)}


def _check_answers(address: str | None) -> None:
    """An address with a port is knocked at first: Ray itself would try for minutes."""
    if address is None or address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"address: got {address!r}, expected HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"address: no Ray cluster answers at {address}: {error}") from None


def _check_resources(nodes: Sequence[dict[str, Any]], cpus: int, gpus: float) -> None:
    """A task that fits no node would wait for ever."""
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        most = max((node["Resources"].get(name, 0) for node in nodes if node["Alive"]), default=0)
        if most < wanted:
            raise InputError(
                f"{name.lower()}s: a run asks for {wanted:g}, no machine of the cluster has more than {most:g}; "
                f"expected a smaller --{name.lower()}s"
            )
