"""Learning-rate schedules as pure functions of the step."""

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
    """Return the learning rate of a step.

    Args:
        step: From 0 to ``steps - 1``.
        steps: Steps of the whole run.
        lr: Initial learning rate.
        schedule: ``"cosine"``, see ``cosine``, or ``"steps"``, see ``step_decay``.
        milestones: Of the steps schedule, as fractions of the run.
        gamma: Of the steps schedule.
        warmup_steps: Length of the linear warm-up.
        first_steps: Number of steps with the rate ``first_lr``.
        first_lr: Rate that replaces the schedule's for the first steps; 0 for none.

    Raises:
        InputError: The step is out of range.
    """
    if first_lr and 0 <= step < min(first_steps, steps):
        return first_lr
    if schedule == "steps":
        return step_decay(step, steps, lr, milestones, gamma, warmup_steps)
    return cosine(step, steps, lr, warmup_steps)


def cosine(step: int, steps: int, lr: float, warmup_steps: int = 0) -> float:
    """Return the learning rate of a step of half a cosine: ``lr`` at the first step, exactly 0 at the last.

    Updated every step, without restarts (Loshchilov and Hutter). With a warm-up the rate
    rises linearly and reaches ``lr`` at step ``warmup_steps``.

    Raises:
        InputError: The step is out of range.
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
    """Return the learning rate of a step: ``lr``, multiplied by ``gamma`` at each milestone.

    Milestones are fractions of the run: with 0.5 of 100 steps, step 50 is the first with the lower rate. The warm-up
    is that of ``cosine``.

    Raises:
        InputError: The step is out of range.
    """
    _check(step, steps)
    if step < warmup_steps:
        return _warm(step, lr, warmup_steps)
    return lr * gamma ** sum(step >= round(part * steps) for part in milestones)


def parse_milestones(text: str) -> tuple[float, ...]:
    """Parse increasing fractions between 0 and 1, such as ``"0.5,0.75"``; raises InputError for anything else."""
    error = InputError(f"milestones: got {text!r}, expected increasing fractions between 0 and 1, such as 0.5,0.75")
    try:
        parts = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise error from None
    if not all(low < high for low, high in zip((0.0, *parts), (*parts, 1.0), strict=True)):
        raise error
    return parts


def _warm(step: int, lr: float, warmup_steps: int) -> float:
    return lr * (step + 1) / (warmup_steps + 1)


def _check(step: int, steps: int) -> None:
    if not 0 <= step < steps:
        raise InputError(f"step: got {step}, expected 0 to {steps - 1}")
