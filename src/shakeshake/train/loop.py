"""fit(): a recipe becomes a run directory. It may be killed at any moment and gone on with by resume()."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, RunError
from ..models.trained import CONFIG, WEIGHTS, describe, weights_as_bytes
from . import checkpoint
from .device import describe_device
from .keeper import Keeper, stop_signals
from .progress import Progress, TensorBoard
from .recipe import Recipe
from .record import RunDirectory, environment, new_run_path, write_atomically
from .trained_run import load_images
from .trainer import Trainer


def fit(recipe: Recipe, out: str | Path | None = None, *, quiet: bool = False) -> dict[str, Any]:
    """Train as the recipe says and write the run directory ``out`` (by default a new folder under ``runs/``).

    Returns what result.json holds. Seeds torch's global generators. Raises InputError for what the caller can mend,
    RunError when the run cannot go on (its last good checkpoint is kept), Stopped after SIGINT or SIGTERM (resumable).
    """
    run = RunDirectory(Path(out) if out is not None else new_run_path(recipe))
    run.check_new()
    trainer = Trainer(recipe, load_images(recipe))
    run.create(recipe)
    with run.locked():
        run.write_json("environment.json", environment(**_devices(trainer)))
        return _train(run, trainer, quiet=quiet)


def resume(path: str | Path, *, data_dir: str | None = None, quiet: bool = False) -> dict[str, Any]:
    """Go on with a run exactly where its last whole checkpoint left it; of a finished run, return the result.

    data_dir: where the images are now, if they have moved. Raises as fit() does, and InputError for a folder that is
    no run, a recipe that was edited, data that are gone or have changed.
    """
    run = RunDirectory.open(Path(path))
    if run.finished:
        return run.read_json("result.json")
    with run.locked():
        recipe = run.recipe()
        state = checkpoint.load(run.path)
        if state is not None:
            _check_unchanged(run.path, recipe, state["recipe"])
        if data_dir is not None:
            recipe = recipe.replace(data_dir=data_dir)
        data = load_images(recipe)
        if state is not None and state["data"] != data.fingerprint:
            raise InputError(
                f"data: {recipe.data} has changed since {run.path} began, expected the images it began with"
            )
        trainer = Trainer(recipe, data)
        if state is not None:
            trainer.load_state_dict(state["trainer"])
        if (run.path / "environment.json").exists():
            past = run.read_json("environment.json")
            now = environment(at_step=trainer.step, **_devices(trainer))
            run.write_json("environment.json", {**past, "resumed": [*past.get("resumed", []), now]})
        else:  # killed before it was written
            run.write_json("environment.json", environment(**_devices(trainer)))
        return _train(run, trainer, quiet=quiet)


def _train(run: RunDirectory, trainer: Trainer, *, quiet: bool) -> dict[str, Any]:
    """The loop, and what a full disk means to it."""
    try:
        return _loop(run, trainer, quiet=quiet)
    except OSError as error:
        raise RunError(
            f"{run.path} cannot be written: {error.strerror or error}; what was saved is kept, "
            f"make room and go on with: shakeshake resume {run.path}"
        ) from None


def _loop(run: RunDirectory, trainer: Trainer, *, quiet: bool) -> dict[str, Any]:
    run.keep_metrics(trainer.epoch)
    with (
        stop_signals() as stop,
        TensorBoard(run.path, trainer.step) as board,
        Progress(trainer, run.path, quiet=quiet) as progress,
    ):
        keeper = Keeper(run, trainer, stop)
        while trainer.epoch < trainer.recipe.epochs:
            for batch in trainer.loader.epoch(trainer.epoch, trainer.index):
                trainer.train_step(batch)
                progress.step()
                keeper.tick()
            row = trainer.finish_epoch(keeper.tick) | keeper.timing()
            run.append_metrics(row)
            board.write(row)
            progress.epoch(row)
            trainer.start_epoch()
            keeper.tick()
        keeper.save()
        return _finish(run, trainer)


def _finish(run: RunDirectory, trainer: Trainer) -> dict[str, Any]:
    """Write the model, and last of all the result: it is what makes a run finished."""
    recipe, data, rows = trainer.recipe, trainer.data, run.metrics()
    tested = [row for row in rows if row["test_error"] is not None]
    best = min(tested, key=lambda row: row["test_error"])
    result = {
        "last_error": rows[-1]["test_error"],
        "best_error": best["test_error"],
        "best_epoch": best["epoch"],
        "last_train_error": rows[-1]["train_error"],
        "epochs": len(rows),
        "steps": trainer.step,
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "train_images": len(data.train.labels),
        "test_images": len(data.test.labels),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "precision": trainer.precision,
        "data_fingerprint": data.fingerprint,
    }
    config = describe(
        recipe.model,
        recipe.rule,
        classes=data.classes,
        in_channels=data.channels,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        data=recipe.data,
        test_error=result["last_error"],
    )
    write_atomically(run.path / WEIGHTS, weights_as_bytes(trainer.tested_network))
    run.write_json(CONFIG, config)
    run.write_json("result.json", result)
    return result


def _devices(trainer: Trainer) -> dict[str, Any]:
    return {
        "device": describe_device(trainer.device),
        "threads": torch.get_num_threads(),
        "precision": trainer.precision,
    }


def _check_unchanged(path: Path, recipe: Recipe, began: dict[str, Any]) -> None:
    """A run goes on with the recipe it began with; where its data lie may change.

    A field that is younger than the run has the default: it is what the run did before there was a choice.
    """
    began = {**Recipe().to_dict(), **began}
    for name, now in recipe.to_dict().items():
        if name != "data_dir" and now != began[name]:
            raise InputError(
                f"{name}: {path / 'recipe.json'} was edited since the run began, from {began[name]!r} to {now!r}; "
                "put it back, or train a new run with the new value"
            )
