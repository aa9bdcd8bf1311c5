"""Step -> learning rate. Pure functions."""

from __future__ import annotations

import math

from ..errors import InputError


def cosine(step: int, steps: int, lr: float, warmup_steps: int = 0) -> float:
    """Learning rate of ``step`` (0 .. steps - 1): ``lr`` at the first step, exactly 0 at the last one.

    A half cosine without restart, per step (paper, section 2.1: Loshchilov and Hutter's schedule). With
    ``warmup_steps`` the rate first rises linearly, ``lr`` being reached at step ``warmup_steps``.

    Raises InputError when the step lies outside of the schedule.
    """
    if not 0 <= step < steps:
        raise InputError(f"step: got {step}, expected 0 to {steps - 1}")
    if step < warmup_steps:
        return lr * (step + 1) / (warmup_steps + 1)
    last = steps - 1 - warmup_steps
    progress = (step - warmup_steps) / last if last > 0 else 0.0
    return 0.5 * lr * (1.0 + math.cos(math.pi * progress))
