"""How fast files become pixels, by threads and by processes: large JPEGs, as cameras write them, and small PNGs.

    python benchmarks/decoding.py --out results/bench/decoding.json

The large ones are the photograph of scikit-learn's samples, enlarged to 12 megapixels. The files are in the system's
memory. Processes are started before the clock. Rounds interleaved; medians.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from shakeshake.data.image_folder.decode import read_and_decode
from shakeshake.train.run_directory import write_results
from shakeshake.utils.environment import environment


def read(path: Path, size: int) -> np.ndarray:
    return read_and_decode(path, size)[0]


def make(folder: Path, photos: int, icons: int) -> dict[str, tuple[list[Path], int]]:
    """kind -> (files, size that they are decoded to)."""
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((4000, 3000))
    random = np.random.default_rng(0)
    files: dict[str, tuple[list[Path], int]] = {"JPEG, 12 megapixels": ([], 96), "PNG, 32 x 32": ([], 32)}
    large, small = (paths for paths, _ in files.values())
    photo.save(folder / "photo.jpg", quality=90)
    for number in range(photos):
        large.append(folder / f"{number}.jpg")
        large[-1].write_bytes((folder / "photo.jpg").read_bytes())
    for number in range(icons):
        small.append(folder / f"{number}.png")
        left, top = random.integers(0, 2900, 2)
        photo.crop((left, top, left + 32, top + 32)).save(small[-1])
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=30, metavar="N", help="default 30")
    parser.add_argument("--icons", type=int, default=3000, metavar="N", help="default 3000")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--out", type=Path, metavar="F", help="everything measured, as JSON")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    times: dict[str, dict[str, list[float]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(1) as one,
        ThreadPoolExecutor(cores) as threads,
        ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as processes,
    ):
        files = make(Path(folder), given.photos, given.icons)
        pools = {"1 thread": one, f"{cores} threads": threads, f"{cores} processes": processes}
        for number in range(given.rounds + 1):  # the first one starts everything
            for kind, (paths, size) in files.items():
                for name, pool in pools.items():
                    started = time.perf_counter()
                    chunks = 16 if isinstance(pool, ProcessPoolExecutor) else 1
                    for _ in pool.map(functools.partial(read, size=size), paths, chunksize=chunks):
                        pass
                    seconds = time.perf_counter() - started
                    if number:
                        times.setdefault(kind, {}).setdefault(name, []).append(len(paths) / seconds)
    speeds = {kind: {name: statistics.median(v) for name, v in by.items()} for kind, by in times.items()}
    for kind, by in speeds.items():
        print(f"{kind:<20} " + "  ".join(f"{name} {speed:,.0f}/s" for name, speed in by.items()))
    if given.out is not None:
        found = {"files_per_second": speeds, "rounds": given.rounds, "environment": environment()}
        print(write_results(given.out, found))


if __name__ == "__main__":
    main()
