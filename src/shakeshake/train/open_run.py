"""Opening a run: its trained network and its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.dataset import ImageData, Split
from ..data.loader import Loader
from ..data.registry import load_data
from ..data.snapshot import load_snapshot
from ..data.splits import with_fold
from ..errors import InputError
from ..models.model import load
from ..models.origin import Origin
from ..models.registry import create_model, register_module
from . import checkpoint
from .device import choose_device, keep_freed_memory
from .evaluate import Counts, count_predictions
from .pin_origin import with_statistics
from .process_state import training_process_state
from .recipe import Recipe
from .run_directory import RunDirectory
from .schema import ClassMetrics, Evaluation, FitResult

SPLITS = ("test", "train", "val")
TOP5_CLASSES = 20  # from which on the top-5 error is of interest


@dataclass(frozen=True)
class TrainedRun:
    """A run, opened for evaluation.

    Attributes:
        run: The run directory.
        recipe: The recipe of the run.
        data: The images of the run.
        network: The network, in evaluation mode on ``device``.
        device: Where the network is.
        epoch: Trained epochs.
        finished: Whether all epochs are trained.
    """

    run: RunDirectory
    recipe: Recipe
    data: ImageData
    network: nn.Module
    device: torch.device
    epoch: int
    finished: bool

    def split(self, name: str) -> Split:
        """Return the images of ``test``, ``train`` or ``val``.

        Raises:
            InputError: There is no such split.
        """
        if name not in SPLITS:
            raise InputError(f"split: got {name!r}, expected {', '.join(SPLITS)}")
        split = getattr(self.data, name)
        if split is None:
            raise InputError(f"split: {self.data.name} has no val images, expected test or train")
        return split

    def loader(self, name: str) -> Loader:
        """Return a loader of a split, without augmentation."""
        return Loader(self.split(name), self.data.mean, self.data.std, batch_size=256, device=self.device)


def load_recipe_data(
    recipe: Recipe,
    data_dir: str | None = None,
    record: dict[str, Any] | None = None,
    user_data: ImageData | None = None,
    origin: Origin | None = None,
) -> ImageData:
    """Load the images of a recipe.

    Args:
        recipe: The recipe; its fields about data are used.
        data_dir: Where the images are now, if not in ``recipe.data_dir``.
        record: A run's record of its images; the same images are loaded.
        user_data: Images that replace ``recipe.data``.
        origin: Of a network of transformers or timm, whose mean and deviation replace those of the images.

    Raises:
        InputError: The images are missing, invalid or differ from the record.
    """
    if record is not None and "kept" in record:
        user_data, record = load_snapshot(Path(record["kept"])), None
    data = load_data(
        recipe.data if user_data is None else user_data,
        data_dir=data_dir or recipe.data_dir,
        train_size=recipe.train_size,
        seed=recipe.seed,
        image_size=recipe.image_size,
        split_seed=recipe.split_seed,
        record=record,
    )
    return with_statistics(with_fold(data, recipe.folds, recipe.fold) if recipe.folds else data, origin)


def open_run(
    path: str | Path, *, data_dir: str | None = None, device: str = "auto", unfinished: bool = False
) -> TrainedRun:
    """Open a run.

    Args:
        path: The run directory.
        data_dir: Where the images are now, if they have moved.
        device: auto, cpu, cuda, cuda:N or mps.
        unfinished: Also open an unfinished run, from its last checkpoint.

    Raises:
        InputError: There is no trained network, or the images are missing or have changed.
    """
    run = RunDirectory.open(Path(path))
    recipe, origin, at = run.recipe(), run.origin(), choose_device(device)
    if at.type == "cpu":
        keep_freed_memory()
    if run.finished or not unfinished:
        network = load(run.path, at).network
        result = run.result() if run.finished else None
        data = load_recipe_data(recipe, data_dir, run.images_record(), origin=origin)
        if result is not None:
            _check_same(run, data, result.data_fingerprint)
        return TrainedRun(run, recipe, data, network, at, recipe.epochs, True)
    state = checkpoint.load(run.path)
    if state is None:
        raise InputError(f"run: {run.path} has no checkpoint yet; train it until the first one is saved")
    data = load_recipe_data(recipe, data_dir, run.images_record(), origin=origin)
    _check_same(run, data, state["data"])
    network = create_model(
        recipe.model,
        num_classes=data.num_classes,
        rule=recipe.rule,
        in_channels=data.channels,
        image_size=data.image_size,
        origin=origin,
    )
    trainer = state["trainer"]
    weights, ema = trainer["network"], trainer["ema"]
    if ema is not None:
        weights = {k.removeprefix("module."): v for k, v in ema.items() if k.startswith("module.")}
    network.load_state_dict(weights)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedRun(run, recipe, data, network.eval().to(at), at, trainer["epoch"], False)


def evaluate(
    run: str | Path | FitResult,
    *,
    split: str = "test",
    data_dir: str | Path | None = None,
    device: str = "auto",
    model: nn.Module | Callable[..., nn.Module] | None = None,
) -> Evaluation:
    """Evaluate a finished run on a split of its data, in fp32.

    Args:
        run: A run directory, or the result of ``fit`` or ``resume``.
        split: ``test``, ``train`` or ``val``.
        data_dir: Where the images are now, if they have moved.
        device: auto, cpu, cuda, cuda:N or mps.
        model: The run's network if it is your own and its name is not registered; see ``fit``.

    Raises:
        InputError: The run is not finished, its network is not registered, or its images have changed.
    """
    path = run.path if isinstance(run, FitResult) else Path(run)
    if model is not None:
        register_module(model, recorded_model(path))
    with training_process_state():
        opened = open_run(path, data_dir=None if data_dir is None else str(data_dir), device=device)
        loader = opened.loader(split)
        counts = count_predictions(opened.network, loader, "fp32", opened.device)
    return _evaluation(counts, opened.data.classes)


def _evaluation(counts: Counts, names: Sequence[str]) -> Evaluation:
    support, correct, predicted = (
        one.tolist() for one in (counts.support, counts.correct, counts.confusion.sum(dim=0)[:-1])
    )
    classes = tuple(
        ClassMetrics(
            name=names[label],
            precision=100.0 * correct[label] / predicted[label] if predicted[label] else None,
            recall=100.0 * correct[label] / images,
            f1=200.0 * correct[label] / (images + predicted[label]),
            support=images,
        )
        for label, images in enumerate(support)
        if images
    )
    return Evaluation(
        **counts.summary(),
        majority_error=100.0 * (1.0 - max(support) / counts.images),
        top5_error=100.0 * (1.0 - counts.in_top / counts.images) if len(names) >= TOP5_CLASSES else None,
        images=counts.images,
        classes=classes,
    )


def recorded_model(path: Path) -> str:
    """Return the name of the network in a run's recipe.json."""
    return str(RunDirectory.open(path).read_json("recipe.json").get("model"))


def _check_same(run: RunDirectory, data: ImageData, fingerprint: str) -> None:
    if fingerprint != data.fingerprint:
        raise InputError(f"data: {data.name} has changed since {run.path} was trained, expected the original images")
