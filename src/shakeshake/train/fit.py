"""fit(): a recipe becomes a run directory. It may be killed at any moment and gone on with by resume().

Under torchrun every process runs this. The first one leads: it alone holds the run's lock, writes its files and speaks.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data.image_folder.summary import in_brief
from ..data.registry import ImageData
from ..data.snapshot import in_memory, to_bytes
from ..errors import InputError, RunError
from ..models.config import make_config
from ..models.model import CONFIG, WEIGHTS
from ..models.weights import sha256, weights_as_bytes
from ..utils.console import escape, log_stderr
from ..utils.environment import environment
from ..utils.files import atomic_write
from . import checkpoint
from .calibration_split import calibrated
from .checkpointer import Keeper, stop_signals
from .device import describe_device, float32_by_default
from .distributed import Group, joined
from .init_weights import Initial, pinned, read_initial
from .open_run import load_images
from .progress import Progress, TensorBoard
from .recipe import Recipe
from .run_directory import RunDirectory, last_run_path, new_run_path
from .schema import EpochMetrics, FitResult
from .trainer import Trainer


def fit(
    recipe: Recipe,
    out: str | Path | None = None,
    *,
    data: ImageData | None = None,
    minutes: float | None = None,
    quiet: bool = False,
    told: bool = False,
) -> FitResult:
    """Train as the recipe says and write the run directory ``out`` (by default a new folder under ``runs/``).

    data: images to train on in place of the recipe's, as from_arrays() and from_datasets() return them. They are kept
    in the run, as images.npz: resume() and eval find them there. The recipe's ``data`` becomes their name.
    minutes: after about so many the run is saved and stopped, to be gone on with by resume().
    told: what was found in a folder of photos has been said already; otherwise it is, unless ``quiet``.
    Returns what result.json holds. Seeds torch's global generators. Raises InputError for what the caller can mend,
    RunError when the run cannot go on (its last good checkpoint is kept), Stopped after SIGINT, SIGTERM or ``minutes``.

    When torchrun has started its processes again after a failure, this goes on with the run that was broken off; there
    is nothing left to do if it had come to its end.
    """
    given = None if data is None else in_memory(data)
    if given is not None:
        recipe = recipe.replace(data=given.name)
    recipe, initial = pinned(recipe)
    with float32_by_default(), joined() as group:
        return _fit(recipe, initial, out, group, given=given, minutes=minutes, quiet=quiet, told=told)


def _fit(
    recipe: Recipe,
    initial: Initial | None,
    out: str | Path | None,
    group: Group,
    *,
    given: ImageData | None,
    minutes: float | None,
    quiet: bool,
    told: bool,
) -> FitResult:
    run = RunDirectory(Path(out) if out is not None else run_path(recipe, group))
    if group.restarts and run.holds(recipe):
        return _resume(run, group, minutes=minutes, quiet=quiet)
    try:
        _check_minutes(minutes)
        group.lead(run.check_new)
        data = _images(recipe, group, given=given)
        if data.record is not None and group.leads and not quiet and not told:
            log_stderr("\n".join(in_brief(data.record["found"])))
        trainer = Trainer(recipe, data, group, initial)
    except BaseException:
        with contextlib.suppress(OSError):
            run.path.rmdir()  # of a folder that was made for the run and has nothing in it
        raise
    with _locked(run, group):
        group.lead(lambda: run.create(recipe, None if given is None else to_bytes(given)))
        return _train(run, trainer, minutes=minutes, quiet=quiet)


def run_path(recipe: Recipe, group: Group) -> Path:
    """Where a run goes that was given no folder: a new one, or after a restart by torchrun the one it was in."""
    recipe, _ = pinned(recipe)
    found: list[Path] = []

    def find() -> None:
        last = last_run_path(recipe)
        found.append(last if group.restarts and RunDirectory(last).holds(recipe) else new_run_path(recipe))

    group.lead(find)
    return Path(group.share("".join(map(str, found))))


def resume(
    path: str | Path, *, data_dir: str | None = None, minutes: float | None = None, quiet: bool = False
) -> FitResult:
    """Go on with a run exactly where its last whole checkpoint left it; of a finished run, return the result.

    data_dir: where the images are now, if they have moved. Raises as fit() does, and InputError for a folder that is
    no run, a recipe that was edited, data that are gone or have changed.
    """
    _check_minutes(minutes)
    with float32_by_default(), joined() as group:
        return _resume(RunDirectory.open(Path(path)), group, data_dir=data_dir, minutes=minutes, quiet=quiet)


def _check_minutes(minutes: float | None) -> None:
    if minutes is not None and not minutes > 0:
        raise InputError(f"minutes: got {minutes:g}, expected more than 0")


def _resume(
    run: RunDirectory, group: Group, *, data_dir: str | None = None, minutes: float | None, quiet: bool
) -> FitResult:
    if run.finished:
        return run.result()
    with _locked(run, group):
        recipe = run.recipe()
        state = checkpoint.load(run.path, partial(_lacks, run, recipe), set_aside=group.leads)
        if state is not None:
            _check_unchanged(run.path, recipe, state["recipe"])
        if data_dir is not None:
            recipe = recipe.replace(data_dir=data_dir)
        data = _images(recipe, group, run.images_record())
        if state is not None and state["data"] != data.fingerprint:
            raise InputError(
                f"data: {recipe.data} has changed since {run.path} began, expected the images it began with"
            )
        trainer = Trainer(recipe, data, group, None if state is not None else read_initial(recipe))
        if state is not None:
            trainer.load_state_dict(state["trainer"])
        elif group.leads and run.metrics():
            log_stderr(f"shakeshake: warning: {escape(run.path)} has no checkpoint, it begins anew")
        return _train(run, trainer, minutes=minutes, quiet=quiet)


def _lacks(run: RunDirectory, recipe: Recipe, state: dict[str, Any]) -> int:
    """0: its epochs all have a row; 1: some have none; 2: the last of the run, which makes the result, has none."""
    missing = run.missing_epochs(state["trainer"]["epoch"])
    return 0 if not missing else 1 if recipe.epochs not in missing else 2


def _images(
    recipe: Recipe, group: Group, record: dict[str, Any] | None = None, given: ImageData | None = None
) -> ImageData:
    """The recipe's images. Of photos all processes take those that the leader found: a folder may be changing."""
    data = load_images(recipe, record=record, given=given)
    if group.size == 1:
        return data
    led = json.loads(group.share(json.dumps(data.record)))
    return data if led == data.record else load_images(recipe, record=led)


def _train(run: RunDirectory, trainer: Trainer, *, minutes: float | None, quiet: bool) -> FitResult:
    """The loop, and what a full disk and a lost process mean to it."""
    try:
        with trainer.group.losses_told():
            return _loop(run, trainer, minutes=minutes, quiet=quiet)
    except BrokenPipeError:  # of somebody's pipe, not of the run's disk
        raise
    except OSError as error:
        raise RunError(
            f"{run.path} cannot be written: {error.strerror or error}; what was saved is kept, "
            f"make room and go on with: shakeshake resume {run.path}"
        ) from None


def _loop(run: RunDirectory, trainer: Trainer, *, minutes: float | None, quiet: bool) -> FitResult:
    leads = trainer.group.leads
    trainer.group.lead(lambda: _note_beginning(run, trainer))
    trainer.group.lead(lambda: _keep_metrics(run, trainer))
    with (
        stop_signals() as stop,
        TensorBoard(run.path if leads else None, trainer.step) as board,
        Progress(trainer, run.path, quiet=quiet or not leads) as progress,
    ):
        keeper = Keeper(run, trainer, stop, minutes)
        while trainer.epoch < trainer.recipe.epochs:
            for batch in trainer.loader.epoch(trainer.epoch, trainer.index):
                trainer.train_step(batch)
                progress.step()
                keeper.tick()
            keeper.test_begins()
            row = EpochMetrics(**trainer.finish_epoch(keeper.tick), **keeper.timing())
            if leads:
                run.append_metrics(row)
                board.write(row)
            progress.epoch(row, trainer.seconds - keeper.trained)
            trainer.start_epoch()
            keeper.tick()
        keeper.save()
        trainer.group.lead(lambda: _finish(run, trainer))
        return run.result()


def _keep_metrics(run: RunDirectory, trainer: Trainer) -> None:
    """The rows of the epochs that are trained. What is lost of them is no reason to lose the training."""
    if missing := run.missing_epochs(trainer.epoch):
        where = f"{run.path / 'metrics.jsonl'} lacks epoch {', '.join(map(str, missing))}"
        if trainer.recipe.epochs in missing:
            raise RunError(
                f"{where}, the last one; put the file back, or remove {run.path / checkpoint.NAME} and "
                f"{checkpoint.PREVIOUS} to train anew"
            )
        log_stderr(f"shakeshake: warning: {escape(where)}; the run goes on without")
    run.truncate_metrics(trainer.epoch)


def _finish(run: RunDirectory, trainer: Trainer) -> None:
    """Write the model, and last of all the result: it is what makes a run finished."""
    recipe, data, rows = trainer.recipe, trainer.data, run.metrics()
    best_error, best_epoch = min((row.test_error, row.epoch) for row in rows if row.test_error is not None)
    last = rows[-1]
    assert last.test_error is not None
    result = FitResult(
        last_error=last.test_error,
        last_balanced_error=last.test_balanced_error,
        best_error=best_error,
        best_epoch=best_epoch,
        last_train_error=last.train_error,
        epochs=recipe.epochs,
        steps=trainer.step,
        seconds=round(sum(row.seconds for row in rows), 1),
        train_images=len(data.train.labels),
        test_images=len(data.test.labels),
        parameters=sum(p.numel() for p in trainer.network.parameters()),
        precision=trainer.precision,
        data_fingerprint=data.fingerprint,
    )
    weights = weights_as_bytes(trainer.tested_network)
    config = make_config(
        recipe.model,
        recipe.rule,
        classes=data.classes,
        in_channels=data.channels,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        data=recipe.data,
        test_error=result.last_error,
        weights_sha256=sha256(weights),
        **calibrated(trainer.tested_network, data, trainer.device),
    )
    run.check_held()
    atomic_write(run.path / WEIGHTS, weights)
    run.write_json(CONFIG, config)
    run.write_json("result.json", result.to_dict())


@contextlib.contextmanager
def _locked(run: RunDirectory, group: Group) -> Iterator[None]:
    """The run's lock, held by the leader for all."""
    with contextlib.ExitStack() as held:
        group.lead(lambda: held.enter_context(run.locked()))
        yield


def _note_beginning(run: RunDirectory, trainer: Trainer) -> None:
    """Which images the run has; where it runs, and where it ran before."""
    run.keep_images_record(trainer.data.record)
    past: dict[str, Any] = {}
    if trainer.step and (run.path / "environment.json").exists():
        try:
            past = run.read_json("environment.json")
        except InputError as error:
            log_stderr(f"shakeshake: warning: {error}; where the run was before is lost")
    if past:
        before = past.get("resumed")
        now = environment(at_step=trainer.step, **_devices(trainer))
        run.write_json("environment.json", {**past, "resumed": [*(before if isinstance(before, list) else []), now]})
    else:
        run.write_json("environment.json", environment(**_devices(trainer)))


def _devices(trainer: Trainer) -> dict[str, Any]:
    return {
        "device": describe_device(trainer.device),
        "threads": torch.get_num_threads(),
        "precision": trainer.precision,
        "kernels": "fused" if trainer.kernels else "plain",
        "processes": trainer.group.size,
    }


def _check_unchanged(path: Path, recipe: Recipe, began: dict[str, Any]) -> None:
    """A run goes on with the recipe it began with; where its data lie may change.

    A field that is younger than the run has the default: it is what the run did before there was a choice.
    """
    began = Recipe.from_dict(began).to_dict()
    for name, now in recipe.to_dict().items():
        if name != "data_dir" and now != began[name]:
            raise InputError(
                f"{name}: {path / 'recipe.json'} was edited since the run began, from {began[name]!r} to {now!r}; "
                "put it back, or train a new run with the new value"
            )
