"""Run one benchmark: `python -m benchmarks NAME [options]`. Without a name, list all of them."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from pathlib import Path


def summaries() -> dict[str, str]:
    """The first line of each benchmark's docstring, without importing any of them."""
    files = (path for path in sorted(Path(__file__).parent.glob("*.py")) if not path.name.startswith("_"))
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0] for path in files}


def main(argv: list[str]) -> int:
    known = summaries()
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{__doc__}\n")
        print("\n".join(f"  {name:<18}{line}" for name, line in known.items()))
        return 0
    name, *options = argv
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        print(f"benchmark: got {name!r}, expected one of {', '.join(known)}", end="", file=sys.stderr)
        print(f"; did you mean {close[0]}?" if close else "", file=sys.stderr)
        return 2
    importlib.import_module(f"benchmarks.{name}").main(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
