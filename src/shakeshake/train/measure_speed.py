"""Measures how fast this machine trains and evaluates a network."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ..data.dataset import ImageData, Split
from .evaluate import evaluate_network
from .recipe import Recipe
from .trainer import Trainer

STEPS = 3
STARTUP_SECONDS = 6.0  # start and end of a process on a laptop, which are not measured


@dataclass(frozen=True)
class Speed:
    """Speed of a network.

    Attributes:
        step: Seconds per training step.
        test: Seconds per evaluated image.
    """

    step: float
    test: float

    def seconds(self, steps: int, tested: int) -> float:
        """Return the time of a run with this number of steps and of evaluated images."""
        return STARTUP_SECONDS + steps * self.step + tested * self.test


def measure(recipe: Recipe, num_classes: int, channels: int, image_size: int) -> Speed:
    """Time a few steps of a recipe's network and augmentation on random square images.

    Seeds torch's global generators.
    """
    recipe = recipe.replace(epochs=1, train_size=None, eval_every=1, lr=1e-6, first_epoch_lr=0.0, warmup_epochs=0.0)
    recipe = recipe.replace(pretrained=False, probe=False)
    random = np.random.default_rng(0)

    def random_split(n: int) -> Split:
        images = random.integers(0, 256, (n, channels, image_size, image_size), dtype=np.uint8)
        return Split(images, random.integers(0, num_classes, n))

    half = (127.5,) * channels
    test_images = 256 if image_size <= 64 else 64
    train, test = random_split(recipe.batch_size * (1 + STEPS)), random_split(test_images)
    trainer = Trainer(recipe, ImageData(recipe.data, train, test, tuple(map(str, range(num_classes))), half, half))
    marks = []
    for batch in trainer.loader.epoch(0):
        trainer.train_step(batch)
        trainer.check_finite()  # waits for the device
        marks.append(time.perf_counter())
    evaluate_network(trainer.eval_model, trainer.test_loader, trainer.precision, trainer.device)  # warm-up
    start = time.perf_counter()
    evaluate_network(trainer.eval_model, trainer.test_loader, trainer.precision, trainer.device)
    end = time.perf_counter()
    return Speed(float(np.median(np.diff(marks))), (end - start) / test_images)
