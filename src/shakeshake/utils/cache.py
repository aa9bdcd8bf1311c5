"""The user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from .files import expand_user


def cache_dir(*names: str) -> Path:
    """Return the cache folder of this package, or a path within it; nothing is created.

    ``$XDG_CACHE_HOME/shakeshake``, by default ``~/.cache/shakeshake``. A relative XDG_CACHE_HOME is ignored, as the
    XDG base directory specification demands.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return expand_user(base if os.path.isabs(os.path.expanduser(base)) else "~/.cache").joinpath("shakeshake", *names)
