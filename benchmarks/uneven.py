"""Compare plain training, balanced sampling and class weights on imbalanced digits.

    python -m benchmarks uneven --out results/bench/uneven.json

341 training images of the bundled digits, 100 of the largest class down to 5 of the smallest, with
other classes for each seed; the 450 test images are balanced. 8 2x8d E-E-B, 40 epochs, with and
without mixup.
"""

from __future__ import annotations

import numpy as np
import torch

from shakeshake.data.dataset import ImageData, from_arrays
from shakeshake.data.registry import load_data
from shakeshake.train.evaluate import evaluate_network
from shakeshake.train.recipe import Recipe
from shakeshake.train.trainer import Trainer

from ._common import parser, save

LARGEST, RATIO = 100, 20  # images of the largest class; largest class / smallest class


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


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=4)
    options.add_argument("--epochs", type=int, default=40)
    args = options.parse_args(argv)
    torch.set_num_threads(1)
    base = Recipe(data="digits", model="shake_resnet8_2x8d", rule="E-E-B", epochs=args.epochs, batch_size=32, lr=0.05)
    base = base.replace(flip=False, crop_padding=1, device="cpu", precision="fp32")
    rows = []
    for mixup in (0.0, 1.0):
        for balance in ("none", "sample", "weight"):
            measured = []
            for seed in range(args.seeds):
                trainer = Trainer(base.replace(balance=balance, mixup_alpha=mixup, seed=seed), uneven(seed))
                for epoch in range(args.epochs):
                    for batch in trainer.loader.epoch(epoch):
                        trainer.train_step(batch)
                    trainer.start_epoch()
                measured.append(evaluate_network(trainer.network, trainer.test_loader, "fp32", trainer.device))
            errors = [one["balanced_error"] for one in measured]
            rows.append(
                {"balance": balance, "mixup_alpha": mixup, "balanced_error": errors, "mean": float(np.mean(errors))}
            )
            each = ", ".join(f"{error:.2f}" for error in errors)
            print(f"balance {balance:<7} mixup {mixup:g}  {np.mean(errors):6.2f} %  ({each})", flush=True)
    varied = ("balance", "mixup_alpha", "seed")
    recipe = {name: value for name, value in base.to_dict().items() if name not in varied}
    save(args.out, {"recipe": recipe, "rows": rows}, device="cpu", threads=1)
