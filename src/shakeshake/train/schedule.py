"""Step -> learning rate. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import InputError


def learning_rate(
    step: int,
    steps: int,
    lr: float,
    *,
    schedule: str = "cosine",
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: float = 0.1,
    warmup_steps: int = 0,
    first_steps: int = 0,
    first_lr: float = 0.0,
) -> float:
    """Learning rate of ``step`` (0 .. steps - 1) under a recipe's settings.

    schedule: ``"cosine"``, see cosine(), or ``"steps"``, see step_decay().
    first_lr: the rate of the first ``first_steps`` steps, in the place of the schedule's, which goes on underneath; 0
        for none.

    Raises InputError when the step lies outside of the schedule.
    """
    if first_lr and 0 <= step < min(first_steps, steps):
        return first_lr
    if schedule == "steps":
        return step_decay(step, steps, lr, milestones, gamma, warmup_steps)
    return cosine(step, steps, lr, warmup_steps)


def cosine(step: int, steps: int, lr: float, warmup_steps: int = 0) -> float:
    """Learning rate of ``step`` (0 .. steps - 1): ``lr`` at the first step, exactly 0 at the last one.

    A half cosine without restart, per step (paper, section 2.1: Loshchilov and Hutter's schedule). With
    ``warmup_steps`` the rate first rises linearly, ``lr`` being reached at step ``warmup_steps``.

    Raises InputError when the step lies outside of the schedule.
    """
    _check(step, steps)
    if step < warmup_steps:
        return _warm(step, lr, warmup_steps)
    last = steps - 1 - warmup_steps
    progress = (step - warmup_steps) / last if last > 0 else 0.0
    return 0.5 * lr * (1.0 + math.cos(math.pi * progress))


def step_decay(
    step: int, steps: int, lr: float, milestones: Sequence[float], gamma: float, warmup_steps: int = 0
) -> float:
    """Learning rate of ``step`` (0 .. steps - 1): ``lr``, multiplied by ``gamma`` once more from each milestone on.

    milestones: parts of the run; 0.5 of 100 steps is step 50, the first one with the lower rate.
    ``warmup_steps`` are as in cosine(). Raises InputError when the step lies outside of the schedule.
    """
    _check(step, steps)
    if step < warmup_steps:
        return _warm(step, lr, warmup_steps)
    return lr * gamma ** sum(step >= round(part * steps) for part in milestones)


def parse_milestones(text: str) -> tuple[float, ...]:
    """The parts of the run in a string such as ``"0.5,0.75"``. Raises InputError unless they rise between 0 and 1."""
    wrong = InputError(f"milestones: got {text!r}, expected rising parts of the run between 0 and 1, such as 0.5,0.75")
    try:
        parts = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise wrong from None
    if not all(low < high for low, high in zip((0.0, *parts), (*parts, 1.0), strict=True)):
        raise wrong
    return parts


def _warm(step: int, lr: float, warmup_steps: int) -> float:
    return lr * (step + 1) / (warmup_steps + 1)


def _check(step: int, steps: int) -> None:
    if not 0 <= step < steps:
        raise InputError(f"step: got {step}, expected 0 to {steps - 1}")
