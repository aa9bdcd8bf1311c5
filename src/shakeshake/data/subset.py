"""Which images to take of each class, so that the classes keep their proportions."""

from __future__ import annotations

import numpy as np


def stratified(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """``size`` increasing indices into ``labels`` (0..k-1, all present; k <= size), the classes in proportion.

    Largest remainders: each class gets its share rounded down or up, and the total is exact. A class whose share is
    less than one image still gets one, taken from the class that is the most above its share.
    """
    counts = np.bincount(labels)
    # Whole numbers throughout, so that no rounding of floats decides; ties go to the smaller label.
    share, remainder = np.divmod(counts * size, counts.sum())
    share[np.argsort(-remainder, kind="stable")[: size - share.sum()]] += 1
    for absent in np.flatnonzero(share == 0):
        surplus = np.where(share > 1, share * counts.sum() - counts * size, np.iinfo(np.int64).min)
        share[np.argmax(surplus)] -= 1
        share[absent] = 1
    # RandomState, because its streams are promised never to change; SeedSequence, because it takes a seed of any size.
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    kept = [random.permutation(np.flatnonzero(labels == k))[:n] for k, n in enumerate(share)]
    return np.sort(np.concatenate(kept))
