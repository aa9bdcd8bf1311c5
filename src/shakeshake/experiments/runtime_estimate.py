"""Estimate how long runs take on this machine, from a few measured steps of every network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import torch

from ..data.registry import DIGITS_TEST
from ..train.measure_speed import Speed, measure
from ..train.recipe import Recipe

# (training images, test images, classes, channels, image size) of the data with a name.
SIZES = {
    "cifar10": (50_000, 10_000, 10, 3, 32),
    "cifar100": (50_000, 10_000, 100, 3, 32),
    "digits": (1_797 - DIGITS_TEST, DIGITS_TEST, 10, 1, 8),
}


class Estimator:
    """Estimates the seconds of a run. A network is measured once for all rules, seeds and numbers of epochs.

    Args:
        threads: Threads of a run.
        sizes: Sizes of other data, in the form of SIZES.
    """

    def __init__(self, threads: int, sizes: Mapping[str, tuple[int, int, int, int, int]] | None = None) -> None:
        self.threads, self.sizes = threads, {**SIZES, **(sizes or {})}
        self._measured: dict[Recipe, Speed] = {}

    def seconds(self, recipe: Recipe) -> float | None:
        """Seconds of training and testing; None for data of unknown size."""
        if recipe.data not in self.sizes:
            return None
        images, tests, *_ = self.sizes[recipe.data]
        if recipe.folds:
            images, tests = images - images // recipe.folds, images // recipe.folds
        steps = -(-(recipe.train_size or images) // recipe.batch_size) * recipe.epochs
        return self._measure(recipe).seconds(steps, -(-recipe.epochs // recipe.eval_every) * tests)

    def _measure(self, recipe: Recipe) -> Speed:
        alike = recipe.replace(rule="S-S-I", seed=0, epochs=1, train_size=None, eval_every=1, checkpoint_interval_s=0.0)
        alike = alike.replace(lr=1e-6, first_epoch_lr=0.0, warmup_epochs=0.0, fold=0)
        if alike not in self._measured:
            *_, classes, channels, side = self.sizes[recipe.data]
            with limited_threads(self.threads):
                self._measured[alike] = measure(alike, classes, channels, side)
        return self._measured[alike]


@contextlib.contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Let torch use this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def format_duration(seconds: Iterable[float | None]) -> str:
    """``3 h 20 min`` for the sum; ``at least 3 h 20 min`` where some values are None."""
    known = list(seconds)
    total = sum(value for value in known if value is not None)
    units = [(90, f"{total:.0f} s"), (5400, f"{total / 60:.0f} min")]
    units += [(48 * 3600, f"{total // 3600:.0f} h {total % 3600 / 60:.0f} min")]
    text = next((text for limit, text in units if total < limit), f"{total / 86400:.1f} days")
    return text if None not in known else f"at least {text}"
