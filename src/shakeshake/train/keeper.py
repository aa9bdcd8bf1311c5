"""When a run is saved and when it stops: every so many seconds, on a signal, never with numbers that are not finite."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import RunError
from . import checkpoint
from .record import RunDirectory
from .trainer import Trainer


class Stopped(KeyboardInterrupt):
    """The run was asked to stop and has saved where it is."""


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


class Keeper:
    """Saves checkpoints: every so many seconds, when the run is asked to stop, at the end."""

    def __init__(self, run: RunDirectory, trainer: Trainer, stop: StopRequest) -> None:
        self.run, self.trainer, self.stop = run, trainer, stop
        self.looked = self.saved = time.perf_counter()

    def tick(self) -> None:
        """Between two steps: the place where a run may be saved and stopped."""
        self._count_seconds()
        if self.trainer.device.type == "cpu":  # elsewhere this would wait for the device: save() does it there
            self._check_finite()
        if self.stop.signal is not None or self.looked - self.saved >= self.trainer.recipe.checkpoint_every:
            self.save()
        if self.stop.signal is not None:
            raise Stopped(
                f"stopped by {signal.Signals(self.stop.signal).name} in epoch {self.trainer.epoch + 1}; "
                f"go on with: shakeshake resume {self.run.path}"
            )

    def timing(self) -> dict[str, float]:
        """Seconds of the epoch under way, its test included, and training images by second."""
        self._count_seconds()
        seconds = self.trainer.seconds
        return {
            "seconds": round(seconds, 3),
            "images_per_second": round(len(self.trainer.data.train.labels) / seconds, 1),
        }

    def save(self) -> None:
        self._check_finite(weights=True)
        state = {
            "format": 1,
            "recipe": self.trainer.recipe.to_dict(),
            "data": self.trainer.data.fingerprint,
            "trainer": self.trainer.state_dict(),
        }
        checkpoint.save(self.run.path, state)
        self.saved = time.perf_counter()

    def _count_seconds(self) -> None:
        now = time.perf_counter()
        self.trainer.seconds += now - self.looked
        self.looked = now

    def _check_finite(self, weights: bool = False) -> None:
        try:
            self.trainer.check_finite()
            if weights:
                self.trainer.check_weights()
        except RunError as error:
            kept = self.run.path / checkpoint.NAME
            raise RunError(f"{error}. " + (f"{kept} is the last good checkpoint" if kept.exists() else "")) from None
