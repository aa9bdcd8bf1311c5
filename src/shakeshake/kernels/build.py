"""Compiling and loading the C++ kernels: once per machine, cached.

``SHAKESHAKE_KERNELS=0`` in the environment switches the kernels off: networks then train and predict by PyTorch's
operations.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..utils.cache import cache_dir

SOURCES = tuple(
    Path(__file__).with_name(f"{name}.cpp") for name in ("cpu", "conv", "conv_weights", "winograd", "winograd_weights")
)
HEADERS = tuple(Path(__file__).with_name(f"{name}.h") for name in ("conv", "epilogue", "pointer_array", "winograd"))
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
COMPILERS = ("c++", "g++", "clang++")
ENV_VARIABLE = "SHAKESHAKE_KERNELS"  # "0" switches the kernels off


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """The compiled kernels, or None if they are unavailable. Takes seconds the first time on a machine."""
    loaded = _load()
    return loaded if isinstance(loaded, ctypes.CDLL) else None


def unavailable_reason() -> str:
    """Why there are no kernels, in a few words; empty if there are."""
    loaded = _load()
    return loaded if isinstance(loaded, str) else ""


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The library, or the reason why there is none."""
    if os.environ.get(ENV_VARIABLE, "1") == "0":
        return f"{ENV_VARIABLE} is 0"
    if platform.system() != "Linux":
        return f"not built on {platform.system()}"
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        return "no C++ compiler (c++, g++ or clang++)"
    try:
        cache, name = _library_dir(), f"cpu-{_cache_key(compiler)}"
        return ctypes.CDLL(str(_find_cached(cache, name) or _compile(compiler, cache, name)))
    except (OSError, subprocess.SubprocessError) as error:
        return f"{Path(compiler).name} failed: {str(error).splitlines()[0]}"


def _library_dir() -> Path:
    folder = cache_dir("kernels")
    if not folder.is_absolute():
        raise OSError("no home directory for the compiled library; set XDG_CACHE_HOME to a folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to another user")
    return folder


def _cache_key(compiler: str) -> str:
    """A digest of all that the library depends on: sources, flags, compiler and the CPU's instruction set."""
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=20, check=True).stdout
    cpu = [line for line in Path("/proc/cpuinfo").read_bytes().splitlines() if line.startswith((b"flags", b"Features"))]
    parts = (
        *(source.read_bytes() for source in SOURCES + HEADERS),
        " ".join(FLAGS).encode(),
        version,
        cpu[0] if cpu else b"",
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _find_cached(cache: Path, name: str) -> Path | None:
    """The cached library if its digest matches; a truncated one would end the process with a bus error later."""
    for path in cache.glob(f"{name}-*.so"):
        if path.stem == f"{name}-{_digest(path)}":
            return path
        path.unlink(missing_ok=True)
    return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _compile(compiler: str, cache: Path, name: str) -> Path:
    """Compile all sources in parallel and move the library into the cache atomically, named by its digest."""
    with tempfile.TemporaryDirectory(suffix=".part", dir=cache) as folder:
        objects = [str(Path(folder) / f"{source.stem}.o") for source in SOURCES]
        with ThreadPoolExecutor() as pool:
            commands = [
                [compiler, *FLAGS, "-c", str(source), "-o", target]
                for source, target in zip(SOURCES, objects, strict=True)
            ]
            list(pool.map(_run, commands))
        library = Path(folder) / f"{name}.so"
        _run([compiler, *FLAGS, "-shared", *objects, "-o", str(library)])
        with open(library, "rb") as file:
            os.fsync(file.fileno())
        return library.replace(cache / f"{name}-{_digest(library)}.so")


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, timeout=120, check=True)
