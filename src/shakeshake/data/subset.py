"""Stratified subsets."""

from __future__ import annotations

import numpy as np


def stratified_subset(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Draw a subset in which classes keep their proportions (largest remainder method).

    A class whose share is below one image still gets one, taken from the most over-represented class.

    Args:
        labels: (N,) integers from 0 to k - 1, all present.
        size: Images to draw, from k to N.
        seed: Seed of any size.

    Returns:
        (size,) increasing int64 indices into ``labels``.
    """
    counts = np.bincount(labels)
    # Integers throughout: no rounding decides; ties go to the smaller label.
    share, remainder = np.divmod(counts * size, counts.sum())
    share[np.argsort(-remainder, kind="stable")[: size - share.sum()]] += 1
    for absent in np.flatnonzero(share == 0):
        surplus = np.where(share > 1, share * counts.sum() - counts * size, np.iinfo(np.int64).min)
        share[np.argmax(surplus)] -= 1
        share[absent] = 1
    # RandomState guarantees its streams across NumPy versions; SeedSequence accepts seeds of any size.
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    chosen = [random.permutation(np.flatnonzero(labels == k))[:n] for k, n in enumerate(share)]
    return np.sort(np.concatenate(chosen))
