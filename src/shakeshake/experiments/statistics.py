"""Differences between two rows of a table, with confidence intervals and the number of seeds that would settle them."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..utils.extras import require
from .schema import PairedDifference, TableDifference

EFFECT, POWER = 1.0, 0.8  # points of error to be shown, and in how many cases
MAX_SEEDS = 1000
Runs = Mapping[int, np.ndarray]


def unpack(wrong: str, images: int) -> np.ndarray:
    """Decode which images were predicted wrongly, as analysis.json has it.

    Args:
        wrong: Base64 of packed bits.
        images: Number of images.

    Returns:
        Bool array (images,), true where the prediction was wrong.

    Raises:
        ValueError: The number of bytes does not fit the number of images.
    """
    packed = np.frombuffer(base64.b64decode(wrong, validate=True), np.uint8)
    if len(packed) != -(-images // 8):
        raise ValueError(f"{len(packed)} bytes for {images} images")
    return np.unpackbits(packed, count=images).astype(bool)


def difference(row: Runs, baseline: Runs, *, level: float = 0.95) -> TableDifference:
    """Compare the mean errors of two rows, over seeds and test images.

    Three things vary: the images, which both rows share, and the runs of each row. The interval is Student's, with the
    degrees of freedom of Welch and Satterthwaite, because two or three runs hardly determine a variance. With a single
    run of a row it covers the test images only and the verdict is "can't tell": any two networks differ.

    Args:
        row: Seed -> bool array (images,), true where the image was predicted wrongly, or float with a weight in place
            of true. All runs have the same images in the same order.
        baseline: The same for the row to compare with.
        level: Confidence level of the interval.

    Returns:
        The difference in points, with the one in pairs of equal seeds as ``paired``; its row, baseline and column are
        left empty.
    """
    rows = [100.0 * np.stack([np.asarray(run, np.float64) for run in runs.values()]) for runs in (row, baseline)]
    images = rows[0].shape[1]
    by_image = rows[0].mean(axis=0) - rows[1].mean(axis=0)
    several = all(len(runs) > 1 for runs in rows)
    means = [runs.mean(axis=1) for runs in rows] if several else []
    # The variance of each mean and its degrees of freedom.
    parts = [(one.var(ddof=1) / len(one), len(one) - 1) for one in (by_image, *means) if len(one) > 1]
    variance = float(sum(part for part, _ in parts))
    freedom = variance**2 / sum(part**2 / free for part, free in parts) if variance else math.inf
    interval = _interval(by_image.mean(), math.sqrt(variance), freedom, level)
    if not several:
        interval["verdict"] = "can't tell"
    elif interval["verdict"] == "can't tell":
        spread = sum(one.var(ddof=1) for one in means)
        interval["seeds_needed"] = _seeds_needed(spread, level, groups=2, fixed=parts[0][0])
    return TableDifference(
        **interval,
        row="",
        baseline="",
        n=(len(row), len(baseline)),
        images=images,
        covers="seeds and test images" if several else "test images only (one seed)",
        paired=paired_difference(row, baseline, level=level),
    )


def paired_difference(row: Runs, baseline: Runs, *, level: float = 0.95) -> PairedDifference | None:
    """Compare two rows within pairs of equal seeds, which share training images, initial weights and order.

    The interval is Student's over the pairs. It is usually narrower than that of ``difference`` and covers the
    variation between seeds, on these test images.

    Args:
        row: As for ``difference``.
        baseline: As for ``difference``.
        level: Confidence level of the interval.

    Returns:
        The mean difference in points, or None with fewer than two common seeds.
    """
    seeds = sorted(row.keys() & baseline.keys())
    if len(seeds) < 2:
        return None
    pairs = np.array([100.0 * (np.mean(row[seed]) - np.mean(baseline[seed])) for seed in seeds])
    std = float(pairs.std(ddof=1))
    interval = _interval(pairs.mean(), std / math.sqrt(len(pairs)), len(pairs) - 1, level)
    needed = _seeds_needed(std**2, level) if interval["verdict"] == "can't tell" else None
    return PairedDifference(**interval, n=len(seeds), std=std, seeds_needed=needed)


def difference_over_folds(row: Runs, baseline: Runs, folds: int, *, level: float = 0.95) -> TableDifference:
    """Compare two rows by cross-validation, with Student's interval over the folds' differences.

    A fold's difference is the mean over seeds; it varies with the fold's images and with its networks. The folds share
    most of their training images, which makes such an interval a little narrow.

    Args:
        row: As for ``difference``, with the images fold after fold as data.splits divides them.
        baseline: The same for the row to compare with.
        folds: Number of folds.
        level: Confidence level of the interval.
    """
    images = len(next(iter(row.values())))
    ends = np.cumsum([len(range(fold, images, folds)) for fold in range(folds)])[:-1]
    rows = [
        np.array([[part.mean() for part in np.split(run, ends)] for run in runs.values()]) for runs in (row, baseline)
    ]
    by_fold = 100.0 * (rows[0].mean(axis=0) - rows[1].mean(axis=0))
    return TableDifference(
        **_interval(by_fold.mean(), by_fold.std(ddof=1) / math.sqrt(folds), folds - 1, level),
        row="",
        baseline="",
        n=(len(row) * folds, len(baseline) * folds),
        images=images,
        covers=f"{folds} folds",
    )


def _interval(mean: float, error: float, freedom: float, level: float) -> dict[str, Any]:
    """Student's interval as fields of ``Difference``. error: standard error of the mean."""
    half = float(_student().ppf((1 + level) / 2, freedom) * error)
    low, high = float(mean) - half, float(mean) + half
    verdict = "lower" if high < 0 else "higher" if low > 0 else "can't tell"
    return {"difference": float(mean), "low": low, "high": high, "level": level, "verdict": verdict}


def _seeds_needed(variance: float, level: float, *, groups: int = 1, fixed: float = 0.0) -> int | None:
    """Seeds with which a t test at this level shows a difference of EFFECT points with probability POWER.

    variance: of the difference with one seed. groups: independent groups of seeds, whose degrees of freedom add up.
    fixed: variance that more seeds do not lower. None where more than MAX_SEEDS would be needed.
    """
    seeds = np.arange(2, MAX_SEEDS + 1)
    freedom = groups * (seeds - 1)
    quantiles = _student().ppf((1 + level) / 2, freedom) + _student().ppf(POWER, freedom)
    enough = np.flatnonzero(quantiles * np.sqrt(fixed + variance / seeds) <= EFFECT)
    return int(seeds[enough[0]]) if len(enough) else None


def _student() -> Any:
    return require("scipy.stats", "report").t
