"""When a run is saved and when it stops: after so many seconds, on a signal, never with numbers that are not finite."""

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
    """The run was asked to stop and has saved where it is. status: what a program that was stopped exits with."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.status = (
            EXIT_OK if by_torchrun() else EXIT_INTERRUPTED
        )  # torchrun would start again what has not exited with 0


class StopRequest:
    """Which signal has asked the run to stop, if any."""

    signal: int | None = None


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request that the loop answers between two steps; a second one acts at once."""
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
    """Saves checkpoints: every so many seconds, when the run is asked to stop or its minutes are over, at the end."""

    def __init__(self, run: RunDirectory, trainer: Trainer, stop: StopRequest, minutes: float | None = None) -> None:
        self.run, self.trainer, self.stop, self.minutes = run, trainer, stop, minutes
        self.looked = self.saved = time.perf_counter()
        self.end = self.looked + 60.0 * (math.inf if minutes is None else minutes)
        self.trained = 0.0  # seconds of an epoch until its test begins

    def on_step_end(self) -> None:
        """Between two steps: the place where a run may be saved and stopped."""
        self._count_seconds()
        trainer = self.trainer
        # Elsewhere than on a CPU this would wait for the device: save() does it there.
        error = self._not_finite() if trainer.device.type == "cpu" else None
        late = trainer.dist.is_main and self.looked - self.saved >= trainer.recipe.checkpoint_interval_s
        over = self.looked >= self.end and trainer.epoch < trainer.recipe.epochs
        asked = self.stop.signal is not None or over
        failed, stop, save = trainer.dist.any_rank(error is not None, asked, late)
        if failed:
            raise error or SilentEnd
        if stop or save:
            self.save()
        if stop:
            epoch = min(trainer.epoch + 1, trainer.recipe.epochs)
            raise Stopped(f"stopped {self._why()} in epoch {epoch}; go on with: shakeshake resume {self.run.path}")

    def _why(self) -> str:
        if self.stop.signal:
            return f"by {signal.Signals(self.stop.signal).name}"
        return f"after {self.minutes:g} minutes" if self.looked >= self.end else "by a signal to another process"

    def on_evaluation_begin(self) -> None:
        """What follows in this epoch is no time of training. Waits for the device."""
        float(self.trainer.loss_per_step[-1])
        self._count_seconds()
        self.trained = self.trainer.seconds

    def timing(self) -> dict[str, Any]:
        """Seconds of the epoch, its test included, training images by second of training, most memory so far in MiB."""
        self._count_seconds()
        memory = peak_memory(self.trainer.device)
        return {
            "seconds": round(self.trainer.seconds, 3),
            "images_per_second": round(len(self.trainer.data.train.labels) / self.trained, 1),
            "peak_memory": None if memory is None else round(memory / 2**20),
        }

    def save(self) -> None:
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
        self.trainer.seconds += now - self.looked
        self.looked = now

    def _not_finite(self, weights: bool = False) -> RunError | None:
        try:
            self.trainer.check_finite()
            if weights:
                self.trainer.check_weights()
        except RunError as error:
            kept = self.run.path / checkpoint.NAME
            return RunError(f"{error}. " + (f"{kept} is the last good checkpoint" if kept.exists() else ""))
        return None
