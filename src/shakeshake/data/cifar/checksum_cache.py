"""Memory of files whose MD5 was verified, so that the next start need not read them again."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from ...utils.cache import cache_dir
from ...utils.files import atomic_write


class ChecksumCache:
    """Verified files: ``checked.json`` in the cache folder maps resolved paths to size, mtime_ns and verified MD5s.

    A changed file is hashed again. Without a writable cache folder, every file is hashed every time.
    """

    def __init__(self) -> None:
        self.path = cache_dir("checked.json")
        self.entries: dict = {}
        with contextlib.suppress(OSError, ValueError):
            entries = json.loads(self.path.read_text("utf-8"))
            self.entries = entries if isinstance(entries, dict) else {}

    def is_verified(self, file: Path, md5: str) -> bool:
        """Whether the file is unchanged since this MD5 was verified."""
        entry = self.entries.get(str(file.resolve()))
        return isinstance(entry, dict) and _state(file).items() <= entry.items() and md5 in entry.get("md5", ())

    def add(self, files: dict[Path, list[str]]) -> None:
        """Remember the verified MD5s of some files."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.entries |= {str(file.resolve()): {**_state(file), "md5": md5s} for file, md5s in files.items()}
            atomic_write(self.path, json.dumps(self.entries, indent=1))


def _state(file: Path) -> dict[str, int]:
    stat = file.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
