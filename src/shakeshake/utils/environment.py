"""The record of versions, machine and commit that runs and measurements carry."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def cpu_count() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(**more: Any) -> dict[str, Any]:
    """Versions, machine, time and command of this process, plus what the caller adds, such as device and precision."""

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("shakeshake", "torch", "numpy")},
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        **more,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join([_program(), *sys.argv[1:]]),
    }


def _program() -> str:
    """How this process was started, without paths."""
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    return f"python -m {module.name.removesuffix('.__main__')}" if module else Path(sys.argv[0]).name


def cpu_name() -> str:
    """Name of the CPU model, or of the architecture if it is unknown."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of this package's checkout, with a + if it was modified.

    Outside a checkout, the value of SHAKESHAKE_COMMIT; None if that is not set.
    """
    here = Path(__file__).resolve().parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ask = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=12"]
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=5, check=False)
        tracked = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", __file__],
            capture_output=True,
            timeout=5,
            check=False,
        )
        if answer.returncode == 0 and tracked.returncode == 0:
            return answer.stdout.strip()
    return os.environ.get("SHAKESHAKE_COMMIT")
