"""Differences between two rows of a table with an interval, so that nobody reads noise as a finding."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REPETITIONS = 10_000


@dataclass(frozen=True)
class Difference:
    """Mean test error of one row minus that of another, in points, with a bootstrap interval.

    covers: what was drawn anew, seeds and test images or test images only (one seed); with folds, these.
    """

    difference: float
    low: float
    high: float
    level: float
    n: tuple[int, int]
    images: int
    covers: str

    @property
    def verdict(self) -> str:
        if self.low <= 0 <= self.high:
            return "can't tell"
        return "lower" if self.high < 0 else "higher"


def unpack(wrong: str, images: int) -> np.ndarray:
    """The bool array "image i was predicted wrongly" from analysis.json's base64 of packed bits."""
    return np.unpackbits(np.frombuffer(base64.b64decode(wrong), np.uint8), count=images).astype(bool)


def difference(
    row: Sequence[np.ndarray], against: Sequence[np.ndarray], *, level: float = 0.95, seed: int = 0
) -> Difference:
    """Bootstrap over seeds and test images of the difference of two rows' mean errors.

    row, against: for each run one bool array (images,), true where the image was predicted wrongly; the images are the
    same ones in the same order for all runs.

    Images are drawn once for both rows, for they are the same; runs are drawn for each row by itself. Drawing n runs
    with replacement from n understates their spread by sqrt((n-1)/n), which matters for two or three, so a draw's
    deviation from the row's mean is stretched by the inverse. A row of one run has no spread: then the interval covers
    the test images only, and says so.
    """
    random = np.random.default_rng(seed)
    images = len(row[0])
    rows = [np.stack(runs).astype(np.float64) * 100.0 for runs in (row, against)]
    several = all(len(runs) > 1 for runs in rows)
    pooled = rows[0].mean(axis=0) - rows[1].mean(axis=0)  # by image
    # Few values are possible for an image, so a draw of images is a draw of how often each value comes.
    values, counts = np.unique(pooled.round(9), return_counts=True)
    draws = random.multinomial(images, counts / images, size=REPETITIONS) @ values / images
    if several:
        for sign, runs in zip((1.0, -1.0), rows, strict=True):
            n = len(runs)
            deviation = (runs.mean(axis=1) - runs.mean()) * math.sqrt(n / (n - 1))
            draws += sign * deviation[random.integers(0, n, (REPETITIONS, n))].mean(axis=1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Difference(
        float(pooled.mean()),
        float(low),
        float(high),
        level,
        (len(row), len(against)),
        images,
        "seeds and test images" if several else "test images only (one seed)",
    )


def difference_over_folds(
    row: Sequence[np.ndarray], against: Sequence[np.ndarray], folds: int, *, level: float = 0.95
) -> Difference:
    """The same of cross-validation, with Student's interval over the folds' differences.

    row, against: for each seed one array (images,), fold after fold, as data.folds cuts them. A fold's difference is
    the mean over seeds; it holds the chance of its images and of its networks alike. That folds share most of their
    training images makes such an interval a little narrow.
    """
    from scipy.stats import t as student

    images = len(row[0])
    ends = np.cumsum([len(range(fold, images, folds)) for fold in range(folds)])[:-1]
    rows = [np.array([[part.mean() for part in np.split(run, ends)] for run in runs]) for runs in (row, against)]
    by_fold = 100.0 * (rows[0].mean(axis=0) - rows[1].mean(axis=0))
    half = float(student.ppf((1 + level) / 2, folds - 1) * by_fold.std(ddof=1) / math.sqrt(folds))
    mean = float(by_fold.mean())
    n = (len(row) * folds, len(against) * folds)
    return Difference(mean, mean - half, mean + half, level, n, images, f"{folds} folds")
