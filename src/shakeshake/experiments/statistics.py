"""Differences between two rows of a table with an interval, so that nobody reads noise as a finding."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Mean test error of one row minus that of another, in points, with an interval.

    covers: what it holds the chance of, seeds and test images or test images only (one seed); with folds, these.
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
        """One run of a row never gives one: two networks differ without any reason."""
        if min(self.n) < 2 or self.low <= 0 <= self.high:
            return "can't tell"
        return "lower" if self.high < 0 else "higher"


def unpack(wrong: str, images: int) -> np.ndarray:
    """The bool array "image i was predicted wrongly" from analysis.json's base64 of packed bits.

    Raises ValueError where these are not as many as there are images.
    """
    packed = np.frombuffer(base64.b64decode(wrong, validate=True), np.uint8)
    if len(packed) != -(-images // 8):
        raise ValueError(f"{len(packed)} bytes for {images} images")
    return np.unpackbits(packed, count=images).astype(bool)


def difference(row: Sequence[np.ndarray], against: Sequence[np.ndarray], *, level: float = 0.95) -> Difference:
    """Student's interval for the difference of two rows' mean errors, over seeds and test images.

    row, against: for each run one bool array (images,), true where the image was predicted wrongly; the images are the
    same ones in the same order for all runs.

    Three things vary: the images, which are the same for both rows, and the runs of each row by itself. Variances of
    two or three runs are hardly known, so the interval is as wide as Student's distribution has it, with the degrees
    of freedom of Welch and Satterthwaite. A row of one run has no spread: then the interval covers the test images
    only, and says so.
    """
    images = len(row[0])
    rows = [np.stack(runs).astype(np.float64) * 100.0 for runs in (row, against)]
    several = all(len(runs) > 1 for runs in rows)
    by_image = rows[0].mean(axis=0) - rows[1].mean(axis=0)
    samples = [by_image, *((runs.mean(axis=1) for runs in rows) if several else ())]
    # The variance of each mean and its degrees of freedom.
    parts = [(sample.var(ddof=1) / len(sample), len(sample) - 1) for sample in samples if len(sample) > 1]
    variance = float(sum(part for part, _ in parts))
    freedom = variance**2 / sum(part**2 / free for part, free in parts) if variance else math.inf
    return Difference(
        *_interval(float(by_image.mean()), math.sqrt(variance), freedom, level),
        level,
        (len(row), len(against)),
        images,
        "seeds and test images" if several else "test images only (one seed)",
    )


def _interval(mean: float, deviation: float, freedom: float, level: float) -> tuple[float, float, float]:
    """The mean and the ends of Student's interval around it."""
    from scipy.stats import t as student

    half = float(student.ppf((1 + level) / 2, freedom)) * deviation
    return mean, mean - half, mean + half


def difference_over_folds(
    row: Sequence[np.ndarray], against: Sequence[np.ndarray], folds: int, *, level: float = 0.95
) -> Difference:
    """The same of cross-validation, with Student's interval over the folds' differences.

    row, against: for each seed one array (images,), fold after fold, as data.folds cuts them. A fold's difference is
    the mean over seeds; it holds the chance of its images and of its networks alike. That folds share most of their
    training images makes such an interval a little narrow.
    """
    images = len(row[0])
    ends = np.cumsum([len(range(fold, images, folds)) for fold in range(folds)])[:-1]
    rows = [np.array([[part.mean() for part in np.split(run, ends)] for run in runs]) for runs in (row, against)]
    by_fold = 100.0 * (rows[0].mean(axis=0) - rows[1].mean(axis=0))
    found = _interval(float(by_fold.mean()), float(by_fold.std(ddof=1)) / math.sqrt(folds), folds - 1, level)
    n = (len(row) * folds, len(against) * folds)
    return Difference(*found, level, n, images, f"{folds} folds")
