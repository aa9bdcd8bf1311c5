"""Saving checkpoints during training, and stopping on request."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import RunError
from ..utils.console import EXIT_INTERRUPTED, EXIT_OK
from . import checkpoint
from .device import peak_memory
from .distributed import SilentEnd, by_torchrun
from .run_directory import RunDirectory
from .trainer import Trainer


class Stopped(KeyboardInterrupt):
    """The run was stopped on request, after saving a checkpoint.

    Attributes:
        status: Exit status for a program: 130, or 0 under torchrun, which would restart any other.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.status = EXIT_OK if by_torchrun() else EXIT_INTERRUPTED


class StopRequest:
    """The signal that asked the run to stop, or None."""

    signal: int | None = None


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request to stop after the current step; a second signal acts at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        request.signal = number
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Checkpointer:
    """Saves checkpoints at intervals and on request, never with values that are not finite."""

    def __init__(self, run: RunDirectory, trainer: Trainer, stop: StopRequest, minutes: float | None = None) -> None:
        self.run, self.trainer, self.stop, self.minutes = run, trainer, stop, minutes
        self.last_time = self.saved = time.perf_counter()
        self.end = self.last_time + 60.0 * (math.inf if minutes is None else minutes)
        self.training_seconds = 0.0  # of the current epoch, without evaluation

    def on_step_end(self) -> None:
        """Save or stop if it is time to. Call it between steps."""
        self._count_seconds()
        trainer = self.trainer
        # On other devices this check would synchronise, so only save() does it.
        error = self._not_finite() if trainer.device.type == "cpu" else None
        late = trainer.dist.is_main and self.last_time - self.saved >= trainer.recipe.checkpoint_interval_s
        over = self.last_time >= self.end and trainer.epoch < trainer.recipe.epochs
        asked = self.stop.signal is not None or over
        failed, stop, save = trainer.dist.any_rank(error is not None, asked, late)
        if failed:
            raise error or SilentEnd
        if stop or save:
            self.save()
        if stop:
            epoch = min(trainer.epoch + 1, trainer.recipe.epochs)
            raise Stopped(f"stopped {self._why()} in epoch {epoch}; resume with: shakeshake resume {self.run.path}")

    def _why(self) -> str:
        if self.stop.signal:
            return f"by {signal.Signals(self.stop.signal).name}"
        return f"after {self.minutes:g} minutes" if self.last_time >= self.end else "by a signal to another process"

    def on_evaluation_begin(self) -> None:
        """Stop counting training time until the next epoch. Waits for the device."""
        float(self.trainer.loss_per_step[-1])
        self._count_seconds()
        self.training_seconds = self.trainer.seconds

    def timing(self) -> dict[str, Any]:
        """Return the timing fields of EpochMetrics."""
        self._count_seconds()
        memory = peak_memory(self.trainer.device)
        return {
            "seconds": round(self.trainer.seconds, 3),
            "images_per_second": round(len(self.trainer.data.train.labels) / self.training_seconds, 1),
            "peak_memory": None if memory is None else round(memory / 2**20),
        }

    def save(self) -> None:
        """Write a checkpoint; raise RunError if a loss or weight is not finite."""
        error = self._not_finite(weights=True)
        (failed,) = self.trainer.dist.any_rank(error is not None)
        if failed:
            raise error or SilentEnd
        state = {
            "recipe": self.trainer.recipe.to_dict(),
            "data": self.trainer.data.fingerprint,
            "trainer": self.trainer.state_dict(),
        }
        self.trainer.dist.run_on_main(lambda: self._write(state))
        self.saved = time.perf_counter()

    def _write(self, state: dict[str, Any]) -> None:
        self.run.check_lock()
        checkpoint.save(self.run.path, state)

    def _count_seconds(self) -> None:
        now = time.perf_counter()
        self.trainer.seconds += now - self.last_time
        self.last_time = now

    def _not_finite(self, weights: bool = False) -> RunError | None:
        try:
            self.trainer.check_finite()
            if weights:
                self.trainer.check_weights()
        except RunError as error:
            kept = self.run.path / checkpoint.NAME
            return RunError(f"{error}. " + (f"{kept} is the last good checkpoint" if kept.exists() else ""))
        return None
