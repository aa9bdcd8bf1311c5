"""The regions of (alpha, beta) that a rule draws from, for two branches: the chart beside Table 4 of the paper."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ..errors import InputError
from ..layers.rules import ShakeRule

Point = tuple[float, float]


@dataclass(frozen=True)
class Region:
    """For alpha from ``first`` to ``last``, beta is uniform between two ends that are linear in alpha.

    Attributes:
        low, high: each end at ``first`` and at ``last``. If both ends are equal, beta is a function of alpha.
    """

    first: float
    last: float
    low: Point
    high: Point

    @property
    def corners(self) -> list[Point]:
        """The corners of the region in order; of a line its two ends."""
        there = [(self.first, self.low[0]), (self.last, self.low[1])]
        back = [(self.last, self.high[1]), (self.first, self.high[0])]
        return list(dict.fromkeys(there + back))

    def ends(self, alpha: float) -> Point:
        """The lowest and highest beta."""
        share = (alpha - self.first) / (self.last - self.first) if self.last > self.first else 0.0
        low, high = (a + (b - a) * share for a, b in (self.low, self.high))
        return min(low, high), max(low, high)


def regions(rule: str) -> tuple[Region, ...]:
    """The regions of a rule. Raises InputError for an invalid rule, and for a registered one."""
    parsed = ShakeRule.parse(rule)
    interval = parsed.beta_interval
    if interval is None:
        raise InputError(f"rule: got {rule!r}, a registered rule, expected one of the paper's, whose regions are known")
    first, last = (0.5, 0.5) if parsed.forward == "Even" else (parsed.low, parsed.high)
    # The regions of M2 to M5 meet at alpha = 0.5, where one of their ends is 0.5, too.
    is_split = len(set(interval.ends(0.25, 0.0))) > 1 and 0.5 in interval.ends(0.5, 0.0) and first < 0.5 < last
    found = []
    for start, end in itertools.pairwise((first, 0.5, last) if is_split else (first, last)):
        edge = 0.0 if (start + end) / 2 < 0.5 else 1.0
        low, high = zip(interval.ends(start, edge), interval.ends(end, edge), strict=True)
        found.append(Region(start, end, low, high))
    return tuple(found)


def is_drawable(rule: object) -> bool:
    """Whether a value from a recipe is a rule with known regions."""
    try:
        return isinstance(rule, str) and bool(regions(rule))
    except InputError:
        return False


def describe(rule: str) -> str:
    """The regions in words."""
    parsed = ShakeRule.parse(rule)
    alpha = "always 0.5" if parsed.forward == "Even" else f"anywhere from {parsed.low:g} to {parsed.high:g}"
    interval = parsed.beta_interval
    return f"α is {alpha}, β is {interval.words if interval else 'unknown'}"
