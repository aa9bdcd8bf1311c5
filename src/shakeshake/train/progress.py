"""What a run shows while it runs: a bar on a terminal, a line for each epoch elsewhere, TensorBoard events."""

from __future__ import annotations

import functools
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..utils.console import escape, log_stderr
from .schema import EpochMetrics
from .trainer import Trainer

TAGS = {  # metric -> name in TensorBoard
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "train_error": "error/train",
    "test_error": "error/test",
    "test_balanced_error": "error/test_balanced",
    "lr": "lr",
    "images_per_second": "images_per_second",
}
REFRESH = 0.2  # seconds; looking at the loss waits for the device, so it is done no more often than it is shown


class Progress:
    """Context manager; ``step()`` after each step, ``epoch(row, tested)`` after each epoch."""

    def __init__(self, trainer: Trainer, path: Path, *, quiet: bool = False) -> None:
        self.trainer, self.path, self.quiet = trainer, path, quiet
        self.console = Console(stderr=True)
        self.bar: Bar | None = None
        self.shown = 0.0
        self.last_test_error: float | None = None
        self.started, self.first_step, self.speed = time.perf_counter(), trainer.step, ""

    def __enter__(self) -> Progress:
        if not self.quiet:
            self._announce()
        if self.console.is_terminal and not self.quiet:
            self.bar = Bar(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self.console,
            )
            self.bar.start()
            self.task = self.bar.add_task(
                "", total=self.trainer.steps, completed=self.trainer.step, epoch=0, epochs=0, state=""
            )
            self._show()
        return self

    def _announce(self) -> None:
        trainer, recipe = self.trainer, self.trainer.recipe
        shaken = f" {recipe.rule}" if recipe.rule != "none" else ""
        head = " with a new last layer" if trainer.new_head else ""
        begin = f", from the weights of {escape(recipe.init)}{head}" if recipe.init else ""
        begin = f", goes on after {trainer.step} of {trainer.steps} steps" if trainer.step else begin
        log_stderr(
            f"{recipe.model}{shaken} on {len(trainer.data.train.labels)} images of {escape(recipe.data)}, "
            f"{recipe.epochs} epochs of {trainer.steps_per_epoch} steps, {trainer.device}, {trainer.precision} "
            f"-> {escape(self.path)}{begin}"
        )

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self._show()
            self.bar.stop()

    def step(self) -> None:
        if self.bar is not None and time.perf_counter() - self.shown >= REFRESH:
            self._show()

    def _show(self) -> None:
        assert self.bar is not None
        trainer, recipe, index = self.trainer, self.trainer.recipe, self.trainer.index
        self.shown = time.perf_counter()
        parts = []
        if index:
            parts.append(f"loss {float(trainer.losses[:index].mean()):.3f}")
            parts.append(f"train error {100 * float(trainer.wrong[:index].sum()) / (index * recipe.batch_size):.1f} %")
        if self.last_test_error is not None:
            parts.append(f"test error {self.last_test_error:.2f} %")
        if index and (steps := trainer.step - self.first_step):
            self.speed = f"{steps * recipe.batch_size / (self.shown - self.started):.0f} images/s"
        parts.append(self.speed)
        self.bar.update(
            self.task,
            completed=trainer.step,
            epoch=min(trainer.epoch + 1, recipe.epochs),
            epochs=recipe.epochs,
            state="  ".join(parts),
        )

    def epoch(self, row: EpochMetrics, tested: float) -> None:
        """tested: seconds that the epoch's test took, which are none of training."""
        self.last_test_error = row.test_error
        self.started += tested
        if self.bar is None and not self.quiet:
            test = "" if row.test_error is None else f"  test loss {row.test_loss:.4f} error {row.test_error:.2f} %"
            left = (self.trainer.recipe.epochs - row.epoch) * row.seconds
            log_stderr(
                f"epoch {row.epoch}/{self.trainer.recipe.epochs}  lr {row.lr:.4f}  "
                f"train loss {row.train_loss:.4f} error {row.train_error:.2f} %{test}  "
                f"{row.images_per_second:.0f} images/s  {left / 60:.0f} min left"
            )


class TensorBoard:
    """events.* in the run directory. A run that goes on writes a new file that takes over from its first step.

    Without a path it does nothing.
    """

    def __init__(self, path: Path | None, first_step: int) -> None:
        self.path, self.first_step = path, first_step

    def __enter__(self) -> TensorBoard:
        if self.path is None:
            return self
        from torch.utils.tensorboard import SummaryWriter  # a second to import: only where a run needs it

        _hush_writers()
        self.writer = SummaryWriter(str(self.path), purge_step=self.first_step or None)
        return self

    def __exit__(self, *error: object) -> None:
        if self.path is not None:
            self.writer.close()

    def write(self, row: EpochMetrics) -> None:
        if self.path is None:
            return
        for name, tag in TAGS.items():
            if (value := getattr(row, name)) is not None:
                self.writer.add_scalar(tag, value, row.step)
        self.writer.flush()


@functools.cache
def _hush_writers() -> None:
    """A writer's thread that fails keeps its error for the next write(), which raises it: no traceback besides."""
    others = threading.excepthook

    def tell_of_others(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard."):
            others(failed)

    threading.excepthook = tell_of_others
