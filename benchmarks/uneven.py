"""Uneven classes: plain training, even sampling and weights, each with and without mixup, on uneven digits.

    python benchmarks/uneven.py --out results/bench/uneven.json

341 training images of the bundled digits, 100 of the largest class and 5 of the smallest, another class for each seed;
the 450 test images are even. 8 2x8d E-E-B, 40 epochs, as `shakeshake train` picks it for so few images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from shakeshake.data.dataset import ImageData, from_arrays
from shakeshake.data.registry import load_data
from shakeshake.train.evaluate import evaluate
from shakeshake.train.recipe import Recipe
from shakeshake.train.run_directory import write_results
from shakeshake.train.trainer import Trainer
from shakeshake.utils.environment import environment

LARGEST, RATIO = 100, 20  # images of the largest class, and how many times the smallest one's


def uneven(seed: int) -> ImageData:
    digits = load_data("digits")
    random = np.random.RandomState(seed)
    counts = [round(LARGEST * RATIO ** (-k / 9)) for k in range(10)]
    kept = [
        random.permutation(np.flatnonzero(digits.train.labels == label))[:count]
        for label, count in zip(random.permutation(10), counts, strict=True)
    ]
    chosen = np.concatenate(kept)
    train, test = digits.train, digits.test
    return from_arrays(train.images[chosen], train.labels[chosen], test.images, test.labels, name="uneven digits")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    base = Recipe(data="digits", model="shake_resnet8_2x8d", rule="E-E-B", epochs=given.epochs, batch_size=32, lr=0.05)
    base = base.replace(flip=False, crop_padding=1, device="cpu", precision="fp32")
    rows = []
    for mixup in (0.0, 1.0):
        for balance in ("none", "sample", "weight"):
            measured = []
            for seed in range(given.seeds):
                trainer = Trainer(base.replace(balance=balance, mixup_alpha=mixup, seed=seed), uneven(seed))
                for epoch in range(given.epochs):
                    for batch in trainer.loader.epoch(epoch):
                        trainer.train_step(batch)
                    trainer.start_epoch()
                measured.append(evaluate(trainer.network, trainer.tests, "fp32", trainer.device))
            errors = [one["balanced_error"] for one in measured]
            rows.append(
                {"balance": balance, "mixup_alpha": mixup, "balanced_error": errors, "mean": float(np.mean(errors))}
            )
            told = ", ".join(f"{error:.2f}" for error in errors)
            print(f"balance {balance:<7} mixup {mixup:g}  {np.mean(errors):6.2f} %  ({told})", flush=True)
    if given.out:
        recipe = {
            name: value for name, value in base.to_dict().items() if name not in ("balance", "mixup_alpha", "seed")
        }
        write_results(given.out, {"recipe": recipe, "rows": rows, "environment": environment(device="cpu", threads=1)})


if __name__ == "__main__":
    main()
