"""Shared by all benchmarks: the parser, the result file, and child processes that run a benchmark."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment

ROOT = Path(__file__).parent.parent


def parser(doc: str | None, *, out: bool = True) -> argparse.ArgumentParser:
    """A parser that shows the module's docstring as its help. With ``out`` it has ``--out FILE``."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if out:
        made.add_argument("--out", type=Path, metavar="FILE", help="write every measured value to this JSON file")
    return made


def save(out: Path | None, measured: dict[str, Any], **machine: Any) -> None:
    """Write the measured values and the environment (versions, machine, commit, ``machine``) to ``out``, if given."""
    if out is not None:
        print(write_results(out, {**measured, "environment": environment(**machine)}))


def command(name: str, *options: object) -> list[str]:
    """The command line of a benchmark in a separate process; run it with ``cwd=ROOT``."""
    return [sys.executable, "-m", "benchmarks", name, *map(str, options)]


def run(name: str, *options: object, **arguments: Any) -> str:
    """Standard output of a benchmark that runs in a separate process."""
    line = command(name, *options)
    return subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT, **arguments).stdout
