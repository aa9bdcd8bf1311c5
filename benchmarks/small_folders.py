"""Write small image folders of CIFAR-10 images, laid out like a user's photos.

    python -m benchmarks small_folders small/

Writes small/200, small/1000, small/4000 and small/uneven, each with train/CLASS/*.png and the same
2,000 images in test/CLASS/*.png. Smaller sets are subsets of larger ones, with balanced classes. In
`uneven` the largest class has 400 training images, each further class 0.72 times as many, the last
one 20; its test images are balanced. File names are the image numbers in CIFAR-10. Every call
writes the same images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from shakeshake.data.dataset import Split
from shakeshake.data.registry import load_data

from ._common import parser

SIZES = (200, 1000, 4000)
LARGEST, RATIO = 400, 20  # imbalanced set: images of the largest class; largest class / smallest class


def uneven(classes: int) -> list[int]:
    """Images of each class, from LARGEST down to LARGEST / RATIO in equal factors."""
    return [round(LARGEST * RATIO ** (-k / (classes - 1))) for k in range(classes)]


def write(split: Split, classes: tuple[str, ...], counts: list[int], folder: Path, seed: int) -> int:
    """Write the first ``counts[k]`` images of class k, in an order drawn by ``seed``, as folder/CLASS/NUMBER.png."""
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        order = np.random.RandomState(seed).permutation(np.flatnonzero(split.labels == k))
        for number in order[: counts[k]]:
            Image.fromarray(split.images[number].transpose(1, 2, 0)).save(folder / name / f"{number:05d}.png")
    return sum(counts)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, out=False)
    options.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    options.add_argument("--test-images", type=int, default=2000, metavar="N", help="in all classes (default 2000)")
    options.add_argument("--seed", type=int, default=0, metavar="N", help="which images (default 0)")
    options.add_argument("--data-dir", metavar="D", help="folder of CIFAR-10, or where to download it")
    args = options.parse_args(argv)
    if args.out.exists() and any(args.out.iterdir()):
        options.error(f"{args.out} is not empty, expected a new folder")
    data = load_data("cifar10", data_dir=args.data_dir)
    if not data.num_classes <= args.test_images <= len(data.test) or args.test_images % data.num_classes:
        options.error(f"--test-images: got {args.test_images}, expected 10, 20, ... {len(data.test)}")
    sets = {str(n): [n // data.num_classes] * data.num_classes for n in SIZES}
    sets["uneven"] = uneven(data.num_classes)
    tests = [args.test_images // data.num_classes] * data.num_classes
    for name, counts in sets.items():
        folder = args.out / name
        trained = write(data.train, data.classes, counts, folder / "train", args.seed)
        tested = write(data.test, data.classes, tests, folder / "test", args.seed)
        print(f"{folder}: {trained:,} training images ({min(counts)} to {max(counts)} a class), {tested:,} test images")
