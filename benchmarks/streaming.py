"""What a training step costs when the images stay in a file: in the system's memory already, or to be read from disk.

    python benchmarks/streaming.py --out results/bench/streaming.json

Images of random bytes. For "from disk" the system is made to forget the file before every round, so that each image of
each batch has to be read, as in an epoch over a set much larger than memory. Rounds interleaved; medians of steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from shakeshake.data.dataset import ImageData, Split
from shakeshake.data.memmap_rows import MemmapRows
from shakeshake.data.storage import MemmapImages
from shakeshake.train.recipe import Recipe
from shakeshake.train.run_directory import write_results
from shakeshake.train.trainer import Trainer
from shakeshake.utils.environment import environment


def forget(path: Path) -> None:
    """Have the system drop the file from its memory. No mapping of it may be alive."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class NotAhead(MemmapImages):
    """Reads images when they are needed, and not before."""

    def _prefetch(self, rows: np.ndarray | slice) -> None:
        pass


def steps(
    images: np.ndarray | MemmapRows, recipe: Recipe, first: int, number: int, kind: type[MemmapImages]
) -> list[float]:
    """Milliseconds of each step, loading included, the first one left out."""
    labels = np.arange(len(images)) % 10
    few = Split(np.zeros((10, *images.shape[1:]), np.uint8), np.arange(10))
    data = ImageData("random", Split(images, labels), few, tuple("0123456789"), (128.0,) * 3, (64.0,) * 3)
    trainer = Trainer(recipe, data)
    if isinstance(images, MemmapRows):
        trainer.loader.images = kind(images, trainer.device)
    times, started = [], time.perf_counter()
    for _, batch in zip(range(number + 1), trainer.loader.epoch(0, first), strict=False):
        trainer.train_step(batch)
        times.append(1000 * (time.perf_counter() - started))
        started = time.perf_counter()
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40_000, metavar="N", help="default 40000")
    parser.add_argument("--image-size", type=int, default=96, metavar="N", help="default 96")
    parser.add_argument("--steps", type=int, default=40, metavar="N", help="of a round (default 40)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--folder", type=Path, help="where the file of images goes (default the system's)")
    parser.add_argument("--out", type=Path, metavar="F", help="everything measured, as JSON")
    given = parser.parse_args()
    recipe = Recipe(model="shake_resnet8_2x16d", epochs=1, crop_padding=12)
    shape = (given.images, 3, given.image_size, given.image_size)
    measured: dict[str, list[float]] = {
        name: [] for name in ("in memory", "in file, read", "from disk, not ahead", "from disk")
    }
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "pixels"
        random = np.random.default_rng(0)
        with open(path, "wb") as file:
            for first in range(0, given.images, 1000):
                file.write(random.bytes(min(1000, given.images - first) * int(np.prod(shape[1:]))))
        in_memory = np.fromfile(path, np.uint8).reshape(shape)
        for number in range(given.rounds):
            for name in measured:
                if name.startswith("from disk"):
                    forget(path)
                mapped = MemmapRows(np.memmap(path, np.uint8, "c", shape=shape), np.arange(given.images))
                images = in_memory if name == "in memory" else mapped
                kind = NotAhead if name.endswith("not ahead") else MemmapImages
                measured[name] += steps(images, recipe, number * (given.steps + 1), given.steps, kind)
                del mapped, images
    for name, times in measured.items():
        print(f"{name:<22} {statistics.median(times):8.1f} ms a step, mean {statistics.mean(times):8.1f}")
    if given.out is not None:
        found = {
            "batch": recipe.batch_size,
            "model": recipe.model,
            "shape": shape,
            "ms_a_step": {
                name: {"median": statistics.median(times), "mean": statistics.mean(times), "steps": len(times)}
                for name, times in measured.items()
            },
            "environment": environment(),
        }
        print(write_results(given.out, found))


if __name__ == "__main__":
    main()
