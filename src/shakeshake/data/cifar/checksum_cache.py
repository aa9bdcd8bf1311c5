"""Knows which files have passed their md5 check, and where the user's cache is in which that is written down."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from ...utils.cache import cache_dir


class Checked:
    """Which files have passed their md5 check, so that the next start does not hash them again.

    Kept as ``checked.json`` in the cache folder: resolved path -> size, mtime_ns and the md5s that were found right. A
    file that changes is hashed again; where the cache folder cannot be written, every file is, every time.
    """

    def __init__(self) -> None:
        self.path = cache_dir() / "checked.json"
        self.entries: dict = {}
        with contextlib.suppress(OSError, ValueError):
            entries = json.loads(self.path.read_text("utf-8"))
            self.entries = entries if isinstance(entries, dict) else {}

    def knows(self, file: Path, md5: str) -> bool:
        entry = self.entries.get(str(file.resolve()))
        return isinstance(entry, dict) and _state(file).items() <= entry.items() and md5 in entry.get("md5", ())

    def remember(self, files: dict[Path, list[str]]) -> None:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.entries |= {str(file.resolve()): {**_state(file), "md5": md5s} for file, md5s in files.items()}
            new = self.path.with_name(f"checked.{os.getpid()}.new")
            new.write_text(json.dumps(self.entries, indent=1), "utf-8")
            new.replace(self.path)


def _state(file: Path) -> dict[str, int]:
    stat = file.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
