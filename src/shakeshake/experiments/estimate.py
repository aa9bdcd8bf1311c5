"""How long a plan would take on this machine: a few steps of every network, measured."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import torch

from ..data.arrays import ImageData, Split
from ..data.sources import DIGITS_TEST
from ..train.recipe import Recipe
from ..train.trainer import Trainer, evaluate

# (training images, test images, classes, channels, side) of the data that tables are made of.
SIZES = {
    "cifar10": (50_000, 10_000, 10, 3, 32),
    "cifar100": (50_000, 10_000, 100, 3, 32),
    "digits": (1_797 - DIGITS_TEST, DIGITS_TEST, 10, 1, 8),
}
STEPS = 3
START = 6.0  # seconds, about, that a process takes to begin and to end on a laptop; in no measurement below


class Estimator:
    """Seconds of a run by its recipe. A network is measured once for all rules, seeds and numbers of epochs."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._measured: dict[Recipe, tuple[float, float]] = {}

    def seconds(self, recipe: Recipe) -> float | None:
        """Of training and testing on this machine with so many threads; None for data of unknown size."""
        if recipe.data not in SIZES:
            return None
        images, tests, *_ = SIZES[recipe.data]
        step, test = self._measure(recipe)
        steps = -(-(recipe.train_size or images) // recipe.batch_size) * recipe.epochs
        return START + steps * step + -(-recipe.epochs // recipe.eval_every) * tests * test

    def _measure(self, recipe: Recipe) -> tuple[float, float]:
        """(seconds of a training step, seconds of testing an image), with random images."""
        alike = recipe.replace(rule="S-S-I", seed=0, epochs=1, train_size=None, eval_every=1, checkpoint_every=0.0)
        alike = alike.replace(lr=1e-6, first_epoch_lr=0.0, warmup_epochs=0.0)
        if alike not in self._measured:
            before = torch.get_num_threads()
            torch.set_num_threads(self.threads)
            try:
                self._measured[alike] = _time(alike)
            finally:
                torch.set_num_threads(before)
        return self._measured[alike]


def _time(recipe: Recipe) -> tuple[float, float]:
    *_, classes, channels, side = SIZES[recipe.data]
    random = np.random.default_rng(0)

    def some(n: int) -> Split:
        images = random.integers(0, 256, (n, channels, side, side), dtype=np.uint8)
        return Split(images, random.integers(0, classes, n))

    names = tuple(map(str, range(classes)))
    half = (127.5,) * channels
    data = ImageData(recipe.data, some(recipe.batch_size * (1 + STEPS)), some(256), names, half, half)
    trainer = Trainer(recipe, data)
    marks = []
    for batch in trainer.loader.epoch(0):
        trainer.train_step(batch)
        trainer.check_finite()  # waits for the device
        marks.append(time.perf_counter())
    evaluate(trainer.tested_network, trainer.tests, trainer.precision, trainer.device)
    begun = time.perf_counter()
    evaluate(trainer.tested_network, trainer.tests, trainer.precision, trainer.device)
    ended = time.perf_counter()
    return float(np.median(np.diff(marks))), (ended - begun) / 256


def in_time(seconds: Iterable[float | None]) -> str:
    """``3 h 20 min`` for the sum; ``at least`` where some are unknown."""
    known = list(seconds)
    total = sum(value for value in known if value is not None)
    text = (
        f"{total:.0f} s"
        if total < 90
        else f"{total / 60:.0f} min"
        if total < 5400
        else f"{total // 3600:.0f} h {total % 3600 / 60:.0f} min"
        if total < 48 * 3600
        else f"{total / 86400:.1f} days"
    )
    return text if None not in known else f"at least {text}"
