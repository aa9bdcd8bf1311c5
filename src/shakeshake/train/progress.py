"""Progress of a run on stderr: a bar on a terminal or in a notebook, elsewhere a line for each epoch."""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING

from ..utils.console import escape, log_stderr
from .callbacks import Callback, FitContext
from .schema import EpochMetrics

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

REFRESH = 0.2  # seconds; reading the loss waits for the device, so it is read no more often than it is shown


class ProgressBar(Callback):
    """Shows the progress of a run."""

    def __init__(self) -> None:
        self.bar: Bar | None = None
        self.last_shown = 0.0
        self.last_test_error: float | None = None
        self.speed = ""

    def on_fit_begin(self, context: FitContext) -> None:
        """Announce the run and open the bar."""
        self.context = context
        self.started, self.first_step = time.perf_counter(), context.step
        log_stderr(_announcement(context))
        console = _console()
        if console is None:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        self.bar.start()
        self.task = self.bar.add_task("", total=context.steps, completed=context.step, epoch=0, epochs=0, state="")
        self._show()

    def on_step_end(self, context: FitContext) -> None:
        """Refresh the bar."""
        if self.bar is not None and time.perf_counter() - self.last_shown >= REFRESH:
            self._show()

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """Refresh the bar, or print the line of the epoch."""
        trainer = self.context.trainer
        self.last_test_error = metrics.test_error
        # The throughput leaves out the time of the evaluation.
        if metrics.images_per_second:
            self.started += metrics.seconds - len(trainer.data.train.labels) / metrics.images_per_second
        if self.bar is None:
            test = (
                ""
                if metrics.test_error is None
                else f"  test loss {metrics.test_loss:.4f} error {metrics.test_error:.2f} %"
            )
            left = (trainer.recipe.epochs - metrics.epoch) * metrics.seconds
            log_stderr(
                f"epoch {metrics.epoch}/{trainer.recipe.epochs}  lr {metrics.lr:.4f}  "
                f"train loss {metrics.train_loss:.4f} error {metrics.train_error:.2f} %{test}  "
                f"{metrics.images_per_second:.0f} images/s  {left / 60:.0f} min left"
            )

    def close(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self._show()
            self.bar.stop()
            self.bar = None
        self.__dict__.pop("context", None)  # a DDP network must not outlive the run

    def _show(self) -> None:
        assert self.bar is not None
        trainer = self.context.trainer
        recipe, index = trainer.recipe, trainer.step_in_epoch
        self.last_shown = time.perf_counter()
        columns = []
        if index:
            errors = float(trainer.errors_per_step[:index].sum())
            columns.append(f"loss {float(trainer.loss_per_step[:index].mean()):.3f}")
            columns.append(f"train error {100 * errors / (index * recipe.batch_size):.1f} %")
        if self.last_test_error is not None:
            columns.append(f"test error {self.last_test_error:.2f} %")
        seconds = self.last_shown - self.started
        if index and seconds > 0 and (steps := trainer.step - self.first_step):
            self.speed = f"{steps * recipe.batch_size / seconds:.0f} images/s"
        self.bar.update(
            self.task,
            completed=trainer.step,
            epoch=min(trainer.epoch + 1, recipe.epochs),
            epochs=recipe.epochs,
            state="  ".join([*columns, self.speed]),
        )


def _announcement(context: FitContext) -> str:
    trainer, recipe = context.trainer, context.recipe
    rule = f" {recipe.rule}" if recipe.rule != "none" else ""
    head = " with a new last layer" if trainer.new_head else ""
    start = f", from the weights of {escape(recipe.init)}{head}" if recipe.init else ""
    start = f", resuming after {trainer.step} of {trainer.steps} steps" if trainer.step else start
    return (
        f"{recipe.model}{rule} on {len(trainer.data.train.labels)} images of {escape(recipe.data)}, "
        f"{_count(recipe.epochs, 'epoch')} of {_count(trainer.steps_per_epoch, 'step')}, "
        f"{trainer.device}, {trainer.precision} "
        f"-> {escape(context.path)}{start}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _console() -> Console | None:
    """Where a bar can be drawn, or None. In a notebook rich draws it as a widget."""
    if importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_jupyter:
        return console if importlib.util.find_spec("ipywidgets") else None
    return console if console.is_terminal else None
