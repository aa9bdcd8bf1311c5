"""Callbacks of a training run: the base class for users' own, and TensorBoard."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .schema import EpochMetrics, FitResult

if TYPE_CHECKING:
    from torch import nn

    from .recipe import Recipe
    from .trainer import Trainer

TAGS = {  # field of EpochMetrics -> name in TensorBoard
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "train_error": "error/train",
    "test_error": "error/test",
    "test_balanced_error": "error/test_balanced",
    "lr": "lr",
    "images_per_second": "images_per_second",
}


@dataclass
class FitContext:
    """The run that a callback belongs to. Read it; changing the network or the trainer changes the results."""

    trainer: Trainer
    path: Path

    @property
    def recipe(self) -> Recipe:
        """The settings of the run."""
        return self.trainer.recipe

    @property
    def network(self) -> nn.Module:
        """The network in training."""
        return self.trainer.network

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.trainer.epoch

    @property
    def step(self) -> int:
        """Finished optimiser steps of the whole run."""
        return self.trainer.step

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.trainer.steps


class Callback:
    """Base class of callbacks for ``fit`` and ``resume``; override the hooks that you need.

    Under torchrun hooks run in the main process only. An exception in a hook ends the run with a checkpoint, so that
    ``resume`` can continue it.
    """

    def on_fit_begin(self, context: FitContext) -> None:
        """Before the first step; also when a run resumes, then with ``context.step > 0``."""

    def on_step_end(self, context: FitContext) -> None:
        """After each optimiser step."""

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """After each epoch and its evaluation."""

    def on_fit_end(self, result: FitResult) -> None:
        """After the last epoch, when all files are written."""

    def close(self) -> None:
        """Last call of every run that began, also after an error or an interrupt: release resources."""


class CallbackList:
    """Calls several callbacks and remembers which exception came from one of the user's."""

    def __init__(self, own: Sequence[Callback], users: Sequence[Callback]) -> None:
        self.own, self.users = tuple(own), tuple(users)
        self.user_error: BaseException | None = None

    def __call__(self, hook: str, *args: Any) -> None:
        """Call a hook of all callbacks."""
        for callback in self.own:
            getattr(callback, hook)(*args)
        for callback in self.users:
            try:
                getattr(callback, hook)(*args)
            except BaseException as error:
                self.user_error = error
                error.add_note(f"raised by {type(callback).__name__}.{hook}, a callback of the run")
                raise

    @contextmanager
    def opened(self) -> Iterator[CallbackList]:
        """Close all callbacks at the end, whatever happens."""
        with ExitStack() as stack:
            for callback in (*self.own, *self.users):
                stack.callback(callback.close)
            yield self


class TensorBoard(Callback):
    """Writes the metrics of each epoch as events into the run directory; does nothing without tensorboard.

    A resumed run writes a new file that replaces the events of later steps than its checkpoint.
    """

    writer: Any = None

    def on_fit_begin(self, context: FitContext) -> None:
        """Open the event file."""
        if importlib.util.find_spec("tensorboard") is None:
            return
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._hook = _silence_writer_threads()
        finished = context.trainer.step_in_epoch == 0  # the last epoch, whose events stay
        self.writer = SummaryWriter(str(context.path), purge_step=context.step + finished if context.step else None)

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """Write a row."""
        if self.writer is None:
            return
        for name, tag in TAGS.items():
            if (value := getattr(metrics, name)) is not None:
                self.writer.add_scalar(tag, value, metrics.step)
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self.writer is None:
            return
        try:
            self.writer.close()
        finally:
            self.writer = None
            hook, previous = self._hook
            if threading.excepthook is hook:
                threading.excepthook = previous


def _silence_writer_threads() -> tuple[Any, Any]:
    """Print no traceback for tensorboard's writer threads: the next write raises their error in the main thread."""
    previous = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard."):
            previous(failed)

    threading.excepthook = hook
    return hook, previous
