"""How fast this machine trains and tests a network: a few steps of it, with random images."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ..data.dataset import ImageData, Split
from .evaluate import evaluate_network
from .recipe import Recipe
from .trainer import Trainer

STEPS = 3
START = 6.0  # seconds, about, that a process takes to begin and to end on a laptop; in no measurement below


@dataclass(frozen=True)
class Speed:
    """step: seconds of one training step. test: seconds of testing one image."""

    step: float
    test: float

    def seconds(self, steps: int, tested: int) -> float:
        """Of a whole run with so many steps, and so many images tested in all."""
        return START + steps * self.step + tested * self.test


def measure(recipe: Recipe, classes: int, channels: int, side: int) -> Speed:
    """Speed of a recipe's network and augmentation on square images of ``side`` pixels.

    The rule makes no difference; learning rate, epochs and seed do not either. Seeds torch's global generators.
    """
    recipe = recipe.replace(epochs=1, train_size=None, eval_every=1, lr=1e-6, first_epoch_lr=0.0, warmup_epochs=0.0)
    random = np.random.default_rng(0)

    def some(n: int) -> Split:
        images = random.integers(0, 256, (n, channels, side, side), dtype=np.uint8)
        return Split(images, random.integers(0, classes, n))

    half = (127.5,) * channels
    tests = 256 if side <= 64 else 64
    split = some(recipe.batch_size * (1 + STEPS))
    trainer = Trainer(recipe, ImageData(recipe.data, split, some(tests), tuple(map(str, range(classes))), half, half))
    marks = []
    for batch in trainer.loader.epoch(0):
        trainer.train_step(batch)
        trainer.check_finite()  # waits for the device
        marks.append(time.perf_counter())
    evaluate_network(trainer.eval_model, trainer.test_loader, trainer.precision, trainer.device)
    begun = time.perf_counter()
    evaluate_network(trainer.eval_model, trainer.test_loader, trainer.precision, trainer.device)
    ended = time.perf_counter()
    return Speed(float(np.median(np.diff(marks))), (ended - begun) / tests)
