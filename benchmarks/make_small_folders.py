"""Small image folders of CIFAR-10's images as PNG files, as somebody's own photos would lie there.

    python benchmarks/make_small_folders.py small/

writes small/200, small/1000, small/4000 and small/uneven, each with train/CLASS/*.png and the same 2,000 images in
test/CLASS/*.png. The smaller ones are part of the larger ones, the classes are of one size. In ``uneven`` they are not:
the largest has 400 training images, each further one 0.72 of the one before, the last 20; the test images are even.
The names of the files are the images' numbers in CIFAR-10. The images are the same whenever and wherever this is run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from shakeshake.data.registry import Split, load_data

SIZES = (200, 1000, 4000)
LARGEST, RATIO = 400, 20  # of the uneven one: images of its largest class, and how many times the smallest one's


def uneven(classes: int) -> list[int]:
    """Images of each class, from LARGEST down to LARGEST / RATIO in equal factors."""
    return [round(LARGEST * RATIO ** (-k / (classes - 1))) for k in range(classes)]


def write(split: Split, classes: tuple[str, ...], counts: list[int], folder: Path, seed: int) -> int:
    """The first ``counts[k]`` images of class k, in an order that is the seed's, as folder/CLASS/NUMBER.png."""
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        order = np.random.RandomState(seed).permutation(np.flatnonzero(split.labels == k))
        for number in order[: counts[k]]:
            Image.fromarray(split.images[number].transpose(1, 2, 0)).save(folder / name / f"{number:05d}.png")
    return sum(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--test-images", type=int, default=2000, metavar="N", help="in all classes (default 2000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which images (default 0)")
    parser.add_argument("--data-dir", metavar="D", help="where CIFAR-10 lies or is downloaded to")
    given = parser.parse_args()
    if given.out.exists() and any(given.out.iterdir()):
        parser.error(f"{given.out} is not empty, expected a new folder")
    data = load_data("cifar10", data_dir=given.data_dir)
    if not data.num_classes <= given.test_images <= len(data.test) or given.test_images % data.num_classes:
        parser.error(f"--test-images: got {given.test_images}, expected 10, 20, ... {len(data.test)}")
    sets = {str(n): [n // data.num_classes] * data.num_classes for n in SIZES}
    sets["uneven"] = uneven(data.num_classes)
    tests = [given.test_images // data.num_classes] * data.num_classes
    for name, counts in sets.items():
        folder = given.out / name
        trained = write(data.train, data.classes, counts, folder / "train", given.seed)
        tested = write(data.test, data.classes, tests, folder / "test", given.seed)
        print(f"{folder}: {trained:,} training images ({min(counts)} to {max(counts)} a class), {tested:,} test images")


if __name__ == "__main__":
    main()
