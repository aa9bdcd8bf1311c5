"""Where beta lies given alpha, for two branches: the drawing beside Table 4 of the paper, from the rule alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ..errors import InputError
from ..layers.rules import UPDATE_RULES, ShakeRule

Point = tuple[float, float]


@dataclass(frozen=True)
class Stretch:
    """For alpha from ``first`` to ``last``, beta is uniform between two ends that are linear in alpha.

    low, high: each the end's value at ``first`` and at ``last``. Where both ends are one, beta is a function of alpha.
    """

    first: float
    last: float
    low: Point
    high: Point

    @property
    def corners(self) -> list[Point]:
        """Of the region, in order around it; of a line its two ends."""
        there = [(self.first, self.low[0]), (self.last, self.low[1])]
        back = [(self.last, self.high[1]), (self.first, self.high[0])]
        return list(dict.fromkeys(there + back))

    def ends(self, alpha: float) -> Point:
        share = (alpha - self.first) / (self.last - self.first) if self.last > self.first else 0.0
        low, high = (a + (b - a) * share for a, b in (self.low, self.high))
        return min(low, high), max(low, high)


def where(rule: str) -> tuple[Stretch, ...]:
    """The stretches of alpha that a rule has. Raises InputError for what is no rule."""
    parsed = ShakeRule.parse(rule)
    if parsed.beta_interval is None:
        raise InputError(f"rule: {rule} is a registered rule, whose intervals are unknown")
    if parsed.forward == "Even":
        return (Stretch(0.5, 0.5, *(((0.0, 0.0), (1.0, 1.0)) if parsed.backward == "Shake" else ((0.5, 0.5),) * 2)),)
    bends = parsed.backward in UPDATE_RULES and parsed.backward != "M1" and parsed.low < 0.5 < parsed.high
    cuts = [parsed.low, *([0.5] if bends else []), parsed.high]
    stretches = []
    for first, last in itertools.pairwise(cuts):
        below = (first + last) / 2 < 0.5
        ends = [_ends(parsed.backward, alpha, below) for alpha in (first, last)]
        stretches.append(Stretch(first, last, (ends[0][0], ends[1][0]), (ends[0][1], ends[1][1])))
    return tuple(stretches)


def distance(rule: str, steps: int = 500) -> float:
    """E|beta - alpha|, by the midpoint rule over alpha."""
    stretches = where(rule)
    if stretches[0].first == stretches[-1].last:
        return _mean_distance(stretches[0].first, *stretches[0].ends(0.5))
    total = 0.0
    for stretch in stretches:
        step = (stretch.last - stretch.first) / steps
        alphas = (stretch.first + (i + 0.5) * step for i in range(steps))
        total += step * sum(_mean_distance(alpha, *stretch.ends(alpha)) for alpha in alphas)
    return total / (stretches[-1].last - stretches[0].first)


def drawable(rule: object) -> bool:
    """Whether it is the text of a rule."""
    try:
        return isinstance(rule, str) and bool(where(rule))
    except InputError:
        return False


def in_words(rule: str) -> str:
    """What the drawing shows, for those who do not see it."""
    parsed = ShakeRule.parse(rule)
    if parsed.forward == "Even":
        alpha = "α is always 0.5"
        return f"{alpha}, β anywhere from 0 to 1" if parsed.backward == "Shake" else f"{alpha}, and so is β"
    alpha = f"α anywhere from {parsed.low:g} to {parsed.high:g}"
    if isinstance(parsed.backward, float):
        return f"{alpha}, β a share {parsed.backward:g} of the way from α to 1 − α"
    return (
        f"{alpha}, β "
        + {
            "Even": "always 0.5",
            "Keep": "equal to α",
            "Shake": "anywhere from 0 to 1, whatever α is",
            "M1": "equal to 1 − α",
            "M2": "on α's side of 0.5, further out than α",
            "M3": "between α and 0.5",
            "M4": "between 0.5 and 1 − α",
            "M5": "on the other side of 0.5, further out than 1 − α",
        }[parsed.backward]
    )


def _ends(backward: str | float, alpha: float, below: bool) -> Point:
    if isinstance(backward, float):
        return ((1 - backward) * alpha + backward * (1 - alpha),) * 2
    outer = 0.0 if below else 1.0  # the end of [0, 1] on alpha's side of 0.5
    return {
        "Even": (0.5, 0.5),
        "Keep": (alpha, alpha),
        "Shake": (0.0, 1.0),
        "M1": (1 - alpha, 1 - alpha),
        "M2": (outer, alpha),
        "M3": (alpha, 0.5),
        "M4": (0.5, 1 - alpha),
        "M5": (1 - alpha, 1 - outer),
    }[backward]


def _mean_distance(alpha: float, low: float, high: float) -> float:
    """E|U(low, high) - alpha|."""
    if low < alpha < high:
        return ((alpha - low) ** 2 + (high - alpha) ** 2) / (2 * (high - low))
    return abs((low + high) / 2 - alpha)
