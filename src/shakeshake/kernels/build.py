"""The C++ files here become a library: compiled once on a machine, by the compiler that is there, kept in the cache."""

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
HEADERS = tuple(Path(__file__).with_name(f"{name}.h") for name in ("conv", "conv_after", "winograd", "lists"))
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
COMPILERS = ("c++", "g++", "clang++")
SWITCH = "SHAKESHAKE_KERNELS"  # 0: do without


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, or None where they cannot be had; why() says why not. Takes seconds the first time on a machine."""
    found = _library()
    return found if isinstance(found, ctypes.CDLL) else None


def why() -> str:
    """Empty if there are kernels, else the reason in a few words."""
    found = _library()
    return found if isinstance(found, str) else ""


@functools.cache
def _library() -> ctypes.CDLL | str:
    if os.environ.get(SWITCH, "1") == "0":
        return f"{SWITCH} is 0"
    if platform.system() != "Linux":
        return f"not built on {platform.system()}"
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        return "no C++ compiler (c++, g++ or clang++)"
    try:
        cache, name = _cache(), f"cpu-{_key(compiler)}"
        return ctypes.CDLL(str(_kept(cache, name) or _compile(compiler, cache, name)))
    except (OSError, subprocess.SubprocessError) as error:
        return f"{Path(compiler).name} failed: {str(error).splitlines()[0]}"


def _cache() -> Path:
    folder = cache_dir("kernels")
    if not folder.is_absolute():
        raise OSError("no home directory to keep the library in, XDG_CACHE_HOME may name another")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to another user")
    return folder


def _key(compiler: str) -> str:
    """What the library depends on: sources, flags, compiler, and the instructions of this CPU."""
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=20, check=True).stdout
    cpu = [line for line in Path("/proc/cpuinfo").read_bytes().splitlines() if line.startswith((b"flags", b"Features"))]
    parts = (
        *(source.read_bytes() for source in SOURCES + HEADERS),
        " ".join(FLAGS).encode(),
        version,
        cpu[0] if cpu else b"",
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _kept(cache: Path, name: str) -> Path | None:
    """The library that was compiled before, if it is whole: one that a crash has left in part is a bus error later."""
    for path in cache.glob(f"{name}-*.so"):
        if path.stem == f"{name}-{_digest(path)}":
            return path
        path.unlink(missing_ok=True)
    return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _compile(compiler: str, cache: Path, name: str) -> Path:
    """Side by side, and whole or not at all, also when several processes do it at once. Its digest is in its name."""
    with tempfile.TemporaryDirectory(suffix=".part", dir=cache) as folder:
        objects = [str(Path(folder) / f"{source.stem}.o") for source in SOURCES]
        with ThreadPoolExecutor() as pool:
            commands = [
                [compiler, *FLAGS, "-c", str(source), "-o", made] for source, made in zip(SOURCES, objects, strict=True)
            ]
            list(pool.map(_run, commands))
        library = Path(folder) / f"{name}.so"
        _run([compiler, *FLAGS, "-shared", *objects, "-o", str(library)])
        with open(library, "rb") as file:
            os.fsync(file.fileno())
        return library.replace(cache / f"{name}-{_digest(library)}.so")


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, timeout=120, check=True)
