"""fit() trains a recipe in a run directory, resume() continues an interrupted run.

Under torchrun every process runs this. Only the main one holds the run's lock, writes its files and calls callbacks.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..data.dataset import ImageData
from ..data.image_folder.summary import log_summary
from ..data.snapshot import in_memory, to_bytes
from ..errors import InputError, RunError
from ..models.config import make_config
from ..models.model import CONFIG, WEIGHTS
from ..models.origin import Origin
from ..models.registry import register_module
from ..models.weights import sha256, weights_as_bytes
from ..utils.console import escape
from ..utils.files import atomic_write
from . import checkpoint
from .calibration_split import calibrated
from .callbacks import Callback, CallbackList, FitContext, TensorBoard
from .checkpointer import Checkpointer, stop_signals
from .distributed import DistContext, distributed_context
from .init_weights import InitWeights, pin_init, read_init
from .open_run import load_recipe_data, recorded_model
from .pin_origin import origin_of, pin_origin
from .process_state import training_process_state
from .progress import ProgressBar
from .recipe import Recipe
from .record_start import record_start
from .run_directory import ORIGIN_FILE, RunDirectory, last_run_path, new_run_path
from .schema import EpochMetrics, FitResult
from .trainer import Trainer

logger = logging.getLogger(__name__)

Model = nn.Module | Callable[..., nn.Module]


def fit(
    recipe: Recipe,
    out: str | Path | None = None,
    *,
    data: ImageData | None = None,
    model: Model | None = None,
    callbacks: Sequence[Callback] = (),
    minutes: float | None = None,
    quiet: bool = False,
) -> FitResult:
    """Train a recipe and write a run directory.

    A run can be interrupted at any time and continued with ``resume``, with bit-identical results. When torchrun
    restarts its processes, ``fit`` continues the run, or returns its result if it is finished.

    The state of the process is restored: torch's random generators, default dtype and device, grad and inference mode,
    autocast, cudnn and inductor flags, signal handlers and ``threading.excepthook``. One thing stays: on a CPU, glibc's
    malloc keeps freed memory for later tensors.

    Args:
        recipe: The settings of the run.
        out: The run directory, a new folder; by default one under ``runs/``.
        data: Images in place of the recipe's, from ``from_arrays`` or ``from_datasets``. They are saved in the run and
            its ``data`` is their name.
        model: A network in place of the recipe's: a module, of which a copy is trained, or a factory as for
            ``register_model``. Its name is recorded in the recipe.
        callbacks: Called during training, see ``Callback``.
        minutes: Save a checkpoint and stop after about this many minutes.
        quiet: Show no progress.

    Returns:
        The errors, times and path of the run.

    Raises:
        InputError: An argument is invalid.
        RunError: Training cannot continue, for example because the loss is not finite or the disk is full. The last
            good checkpoint is kept.
        Stopped: After SIGINT, SIGTERM or ``minutes``; a checkpoint was saved.
    """
    if not isinstance(recipe, Recipe):
        raise InputError(f"recipe: got {type(recipe).__name__}, expected a Recipe, such as Recipe(data='digits')")
    user_data = None if data is None else in_memory(data)
    changes: dict[str, Any] = {} if user_data is None else {"data": user_data.name}
    if model is not None:
        changes["model"] = register_module(model)
    recipe, init = pin_init(recipe.replace(**changes))
    recipe, origin = pin_origin(recipe)
    with training_process_state(), distributed_context() as dist:
        run = RunDirectory(Path(out) if out is not None else run_path(recipe, dist))
        hooks = _callbacks(callbacks, dist, quiet)
        if dist.restarts and run.matches(recipe):
            return _resume(run, dist, hooks, minutes=minutes)
        return _start(run, recipe, init, dist, hooks, user_data=user_data, origin=origin, minutes=minutes, quiet=quiet)


def resume(
    path: str | Path,
    *,
    data_dir: str | Path | None = None,
    model: Model | None = None,
    callbacks: Sequence[Callback] = (),
    minutes: float | None = None,
    quiet: bool = False,
) -> FitResult:
    """Continue a run from its last checkpoint; of a finished run, return the result.

    Args:
        path: The run directory.
        data_dir: Where the images are now, if they have moved.
        model: The network of a run that was started with your own network, unless the module that registers it has
            been imported.
        callbacks: As for ``fit``.
        minutes: As for ``fit``.
        quiet: As for ``fit``.

    Returns:
        The errors, times and path of the run.

    Raises:
        InputError: The folder is not a run, its recipe was edited, its network is not registered, or its images are
            missing or have changed.
        RunError: As for ``fit``.
        Stopped: As for ``fit``.
    """
    _check_minutes(minutes)
    if model is not None:
        register_module(model, recorded_model(Path(path)))
    with training_process_state(), distributed_context() as dist:
        run = RunDirectory.open(Path(path))
        hooks = _callbacks(callbacks, dist, quiet)
        return _resume(run, dist, hooks, data_dir=None if data_dir is None else str(data_dir), minutes=minutes)


def run_path(recipe: Recipe, dist: DistContext) -> Path:
    """The default run directory: a new one, or after a restart by torchrun the interrupted one."""
    recipe, _ = pin_origin(pin_init(recipe)[0])
    found: list[Path] = []

    def find() -> None:
        last = last_run_path(recipe)
        found.append(last if dist.restarts and RunDirectory(last).matches(recipe) else new_run_path(recipe))

    dist.run_on_main(find)
    return Path(dist.broadcast_str("".join(map(str, found))))


def _callbacks(users: Sequence[Callback], dist: DistContext, quiet: bool) -> CallbackList:
    for callback in users:
        if not isinstance(callback, Callback):
            raise InputError(f"callbacks: got {type(callback).__name__}, expected objects derived from Callback")
    if not dist.is_main:
        return CallbackList((), ())
    return CallbackList((TensorBoard(), *(() if quiet else (ProgressBar(),))), users)


def _check_minutes(minutes: float | None) -> None:
    if minutes is not None and not minutes > 0:
        raise InputError(f"minutes: got {minutes:g}, expected more than 0")


def _start(
    run: RunDirectory,
    recipe: Recipe,
    init: InitWeights | None,
    dist: DistContext,
    hooks: CallbackList,
    *,
    user_data: ImageData | None,
    origin: Origin | None,
    minutes: float | None,
    quiet: bool,
) -> FitResult:
    try:
        _check_minutes(minutes)
        dist.run_on_main(run.check_new)
        data = _load_data(recipe, dist, origin, user_data=user_data)
        if data.record is not None and dist.is_main and not quiet:
            log_summary(data.record["found"])
        trainer = Trainer(recipe, data, dist, init, origin=origin)
    except BaseException:
        with contextlib.suppress(OSError):
            run.path.rmdir()  # made for this run, and still empty
        raise
    with _locked(run, dist):
        dist.run_on_main(lambda: run.create(recipe, None if user_data is None else to_bytes(user_data), origin))
        return _train(run, trainer, hooks, minutes=minutes)


def _resume(
    run: RunDirectory, dist: DistContext, hooks: CallbackList, *, data_dir: str | None = None, minutes: float | None
) -> FitResult:
    if run.finished:
        return run.result()
    with _locked(run, dist):
        recipe = run.recipe()
        state = checkpoint.load(run.path, partial(_missing_metrics, run, recipe), set_aside=dist.is_main)
        if state is not None:
            _check_unchanged(run.path, recipe, state["recipe"])
        if data_dir is not None:
            recipe = recipe.replace(data_dir=data_dir)
        origin = run.origin()
        if origin is None and (origin := origin_of(recipe)) is not None:  # not started before
            values = origin.to_dict()
            dist.run_on_main(lambda: run.write_json(ORIGIN_FILE, values))
        data = _load_data(recipe, dist, origin, run.images_record())
        if state is not None and state["data"] != data.fingerprint:
            raise InputError(f"data: {recipe.data} has changed since {run.path} started, expected the original images")
        init = None if state is not None else read_init(recipe)
        trainer = Trainer(recipe, data, dist, init, origin=origin, resumed=state is not None)
        if state is not None:
            trainer.load_state_dict(state["trainer"])
        elif dist.is_main and run.metrics():
            logger.warning("%s has no checkpoint; training starts from the beginning", escape(run.path))
        return _train(run, trainer, hooks, minutes=minutes)


def _missing_metrics(run: RunDirectory, recipe: Recipe, state: dict[str, Any]) -> int:
    """0 if every epoch of a checkpoint has its metrics, 1 if some lack them, 2 if the last epoch of the run does."""
    missing = run.missing_epochs(state["trainer"]["epoch"])
    return 0 if not missing else 1 if recipe.epochs not in missing else 2


def _load_data(
    recipe: Recipe,
    dist: DistContext,
    origin: Origin | None,
    record: dict[str, Any] | None = None,
    user_data: ImageData | None = None,
) -> ImageData:
    """The recipe's images. All processes use the files that the main one found, as a folder may be changing."""
    data = load_recipe_data(recipe, record=record, user_data=user_data, origin=origin)
    if dist.size == 1:
        return data
    main_record = json.loads(dist.broadcast_str(json.dumps(data.record)))
    return data if main_record == data.record else load_recipe_data(recipe, record=main_record, origin=origin)


def _train(run: RunDirectory, trainer: Trainer, hooks: CallbackList, *, minutes: float | None) -> FitResult:
    """Run the training loop; translate a full disk and a lost process into a RunError."""
    try:
        with trainer.dist.translate_peer_errors():
            return _loop(run, trainer, hooks, minutes=minutes)
    except BrokenPipeError:  # of a pipe that stderr goes to
        raise
    except OSError as error:
        if error is hooks.user_error:
            raise
        raise RunError(
            f"{run.path} cannot be written: {error.strerror or error}; the last checkpoint is kept; "
            f"free some space and run: shakeshake resume {run.path}"
        ) from None


def _loop(run: RunDirectory, trainer: Trainer, hooks: CallbackList, *, minutes: float | None) -> FitResult:
    is_main = trainer.dist.is_main
    trainer.dist.run_on_main(lambda: record_start(run, trainer))
    trainer.dist.run_on_main(lambda: _truncate_metrics(run, trainer))
    context = FitContext(trainer, run.path)
    with contextlib.ExitStack() as stack:
        if trainer.dist.size > 1:
            stack.callback(delattr, context, "trainer")  # a DDP network must not outlive the run in a user's callback
        stop = stack.enter_context(stop_signals())
        stack.enter_context(hooks.opened())
        checkpointer = Checkpointer(run, trainer, stop, minutes)
        try:
            hooks("on_fit_begin", context)
            while trainer.epoch < trainer.recipe.epochs:
                for batch in trainer.loader.epoch(trainer.epoch, trainer.step_in_epoch):
                    trainer.train_step(batch)
                    hooks("on_step_end", context)
                    checkpointer.on_step_end()
                checkpointer.on_evaluation_begin()
                metrics = EpochMetrics(**trainer.finish_epoch(checkpointer.on_step_end), **checkpointer.timing())
                if is_main:
                    run.append_metrics(metrics)
                hooks("on_epoch_end", metrics)
                trainer.start_epoch()
                checkpointer.on_step_end()
        except Exception as error:
            if error is hooks.user_error and trainer.dist.size == 1:
                with contextlib.suppress(RunError, OSError):
                    checkpointer.save()
            raise
        checkpointer.save()
        trainer.dist.run_on_main(lambda: _finish(run, trainer))
        result = run.result()
        hooks("on_fit_end", result)
        return result


def _truncate_metrics(run: RunDirectory, trainer: Trainer) -> None:
    """Keep the metrics of the trained epochs. Missing ones are no reason to lose the training."""
    if missing := run.missing_epochs(trainer.epoch):
        path = run.path / "metrics.jsonl"
        epochs = ", ".join(map(str, missing))
        if trainer.recipe.epochs in missing:
            raise RunError(
                f"{path} lacks epoch {epochs}, including the last one; restore the file, or remove "
                f"{run.path / checkpoint.NAME} and {checkpoint.PREVIOUS} to train again"
            )
        logger.warning("%s lacks epoch %s; training continues without", escape(path), epochs)
    run.truncate_metrics(trainer.epoch)


def _finish(run: RunDirectory, trainer: Trainer) -> None:
    """Write the model and, last of all, the result, which marks the run as finished."""
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
    weights = weights_as_bytes(trainer.eval_model)
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
        origin=trainer.origin,
        **calibrated(trainer.eval_model, data, trainer.device),
    )
    run.check_lock()
    atomic_write(run.path / WEIGHTS, weights)
    run.write_json(CONFIG, config)
    run.write_json("result.json", result.to_dict())


@contextlib.contextmanager
def _locked(run: RunDirectory, dist: DistContext) -> Iterator[None]:
    """The run's lock, held by the main process for all."""
    with contextlib.ExitStack() as stack:
        dist.run_on_main(lambda: stack.enter_context(run.locked()))
        yield


def _check_unchanged(path: Path, recipe: Recipe, recorded: dict[str, Any]) -> None:
    """Raise InputError if the recipe differs from the checkpoint's in more than the location of the data.

    Fields that are newer than the checkpoint have their default, which is what earlier versions did.
    """
    recorded = Recipe.from_dict(recorded).to_dict()
    for name, now in recipe.to_dict().items():
        if name != "data_dir" and now != recorded[name]:
            raise InputError(
                f"{name}: {path / 'recipe.json'} was edited after the run started, from {recorded[name]!r} to {now!r}; "
                "restore it, or train a new run with the new value"
            )
