"""analyze_run(): every analysis of a run in one pass over its images, written to analysis.json."""

from __future__ import annotations

import base64
import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..inference import calibration as temperature
from ..inference.calibration import cross_fitted
from ..models.config import read_config
from ..models.model import CONFIG
from ..train.device import describe_device
from ..train.evaluate import evaluate
from ..train.open_run import TrainedRun, open_run
from ..utils.environment import environment
from ..utils.files import atomic_write
from . import calibration, examples
from .correlation import BlockCorrelation, LayerCorrelation, shaken_blocks, watch_branches, watch_layers
from .correlation import run as run_through
from .strength import coefficients, expected_distance, histogram

ANALYSES = ("correlation", "layerwise", "calibration", "gap", "strength", "gradcam")
DRAWS = 100_000


def analyze_run(
    path: str | Path,
    *,
    split: str = "test",
    only: Sequence[str] | None = None,
    data_dir: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Analyse a run, write analysis.json into its folder and return what it holds.

    The images pass through the network once, in fp32, whatever is asked for. A run that is not finished is analysed as
    far as its last checkpoint, and a network without branches without their correlations; ``notes`` says so.
    only: some of ANALYSES. Raises InputError for a run without a checkpoint, for images that are not those of the run,
    for fewer images than classes, for an analysis that does not exist or does not apply, and where it can't be written.
    """
    wanted = _checked(only)
    opened = open_run(path, data_dir=data_dir, device=device, unfinished=True)
    part, classes = opened.split(split), opened.data.num_classes
    if len(part.labels) < classes:
        raise InputError(
            f"split: {split} has {len(part.labels)} images for {classes} classes, expected one for each class or more"
        )
    shaken = bool(shaken_blocks(opened.network))
    notes = []
    if not opened.finished:
        notes.append(f"The run is not finished: this is after epoch {opened.epoch} of {opened.recipe.epochs}.")
    if not shaken:
        for name in ("correlation", "layerwise", "strength"):
            if only is not None and name in wanted:
                raise InputError(f"only: {name} is for parallel branches, {opened.recipe.model} has none")
        notes.append(f"{opened.recipe.model} has no parallel branches: nothing to correlate.")
        wanted &= {"calibration", "gap", "gradcam"}

    with contextlib.ExitStack() as watching:
        branches = watching.enter_context(watch_branches(opened.network)) if "correlation" in wanted else None
        layers = watching.enter_context(watch_layers(opened.network)) if "layerwise" in wanted else None
        logits = _logits(opened, split)
    labels = torch.from_numpy(part.labels)
    probabilities = logits.double().softmax(dim=1).numpy()
    wrong = probabilities.argmax(axis=1) != part.labels
    found: dict[str, Any] = {
        "format": 1,
        "model": opened.recipe.model,
        "rule": opened.recipe.rule,
        "data": opened.recipe.data,
        "seed": opened.recipe.seed,
        "finished": opened.finished,
        "epoch": opened.epoch,
        "epochs": opened.recipe.epochs,
        "split": split,
        "images": len(labels),
        "classes": list(opened.data.classes),
        "notes": notes,
        "error": 100.0 * float(wrong.mean()),
        "loss": float(F.cross_entropy(logits, labels)),
        **_gap(opened, split, 100.0 * float(wrong.mean()), wanted),
        "branch_correlation": [_block(block) for block in branches()] if branches else None,
        "layerwise": [_layers(block) for block in layers()] if layers else None,
        "strength": _strength(opened) if "strength" in wanted else None,
        **(_calibration(opened, split, probabilities) if "calibration" in wanted else {}),
        "gradcam": examples.looked(opened, split, probabilities) if "gradcam" in wanted else None,
        "wrong": base64.b64encode(np.packbits(wrong).tobytes()).decode(),
        "environment": environment(device=describe_device(opened.device)),
    }
    path = opened.run.path / "analysis.json"
    try:
        atomic_write(path, json.dumps(found, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(f"run: {path} cannot be written: {error.strerror or error}") from None
    return found


def _checked(only: Sequence[str] | None) -> set[str]:
    for name in only or ():
        if name not in ANALYSES:
            raise InputError(f"only: {name!r} is no analysis, expected some of {', '.join(ANALYSES)}")
    return set(ANALYSES if only is None else only)


def _logits(opened: TrainedRun, split: str) -> torch.Tensor:
    """(N, classes) float32 on the CPU, of one pass through the network as it is hooked."""
    collected = []
    handle = opened.network.register_forward_hook(lambda _, __, output: collected.append(output.float().cpu()))
    try:
        run_through(opened.network, opened.loader(split).eval_batches())
    finally:
        handle.remove()
    return torch.cat(collected)


def _gap(opened: TrainedRun, split: str, error: float, wanted: set[str]) -> dict[str, Any]:
    """What the trained network gets wrong of the images it was trained on, without augmentation, and of the others."""
    train_error = None
    if split == "train":
        train_error = error
    elif "gap" in wanted:
        train_error = evaluate(opened.network, opened.loader("train"), "fp32", opened.device)["error"]
    return {
        "train_error": train_error,
        "train_images": len(opened.data.train.labels),
        "gap": error - train_error if train_error is not None and split == "test" else None,
    }


def _block(block: BlockCorrelation) -> dict[str, Any]:
    return {
        "block": block.block,
        "pairs": [{"branches": [i, j], "correlation": _number(value)} for i, j, value in block.pairs()],
    }


def _layers(block: LayerCorrelation) -> dict[str, Any]:
    pairs = [
        {"branches": list(pair), "matrix": [[_number(value) for value in row] for row in matrix]}
        for pair, matrix in block.matrices.items()
    ]
    return {"block": block.block, "layers": list(block.layers), "pairs": pairs}


def _strength(opened: TrainedRun) -> dict[str, Any]:
    rule = opened.recipe.rule
    branches = max(len(block.branches) for _, block in shaken_blocks(opened.network).values())  # type: ignore[arg-type]
    alpha, beta = coefficients(rule, DRAWS, branches=branches)
    return {
        "rule": rule,
        "branches": branches,
        "expected": expected_distance(rule, branches),
        "measured": float(np.abs(beta - alpha).mean()),
        "draws": DRAWS,
        "histogram": histogram(alpha, beta).tolist(),
    }


def _calibration(opened: TrainedRun, split: str, probabilities: np.ndarray) -> dict[str, Any]:
    part = opened.split(split)
    predicted = probabilities.argmax(axis=1)
    reliable = calibration.reliability(probabilities, part.labels)
    bins = zip(
        reliable.edges[:-1], reliable.edges[1:], reliable.images, reliable.confidence, reliable.accuracy, strict=True
    )
    names = ("low", "high", "images", "confidence", "accuracy")
    return {
        "confusion": calibration.confusion(predicted, part.labels, opened.data.num_classes).tolist(),
        "calibration": {
            "ece": reliable.ece,
            **_with_temperature(opened, split, probabilities),
            "mean_confidence": float(probabilities.max(axis=1).mean()),
            "accuracy": float((predicted == part.labels).mean()),
            "bins": [dict(zip(names, map(_number, row), strict=True)) for row in bins],
        },
        "confusions": examples.confusions(opened, split, probabilities),
        "mistakes": examples.mistakes(opened, split, probabilities),
    }


def _with_temperature(opened: TrainedRun, split: str, probabilities: np.ndarray) -> dict[str, float]:
    """The temperature of a finished run and the calibration error with it, no image judging itself."""
    config = read_config(opened.run.path / CONFIG) if opened.finished else {}
    if "calibration" not in config:
        return {}
    logits, labels = np.log(probabilities.clip(1e-300)), opened.split(split).labels
    if config["calibration"].get("split") == split:
        calibrated = cross_fitted(logits, labels)
    else:
        calibrated = temperature.probabilities(logits, config["temperature"])
    error = calibration.reliability(calibrated, labels).ece
    return {"temperature": config["temperature"], "ece_calibrated": error}


def _number(value: Any) -> int | float | None:
    """A number that JSON has; None for nan."""
    if isinstance(value, np.integer | int):
        return int(value)
    return None if math.isnan(value) else float(value)
