"""analyze(): all analyses of a run in one pass over its images, written to analysis.json."""

from __future__ import annotations

import base64
import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..inference import calibration as temperature_scaling
from ..layers.rules import expected_distance
from ..models.config import read_config
from ..models.model import CONFIG
from ..train.device import describe_device
from ..train.evaluate import evaluate_network
from ..train.open_run import TrainedRun, open_run
from ..utils.environment import environment
from ..utils.extras import require
from ..utils.files import atomic_write
from . import example_images, schema
from .calibration import confusion_matrix, reliability
from .correlation import BlockCorrelation, LayerCorrelation, forward_all, shaken_blocks, watch_branches, watch_layers
from .schema import Analysis
from .strength import coefficients, histogram

ANALYSES = ("correlation", "layerwise", "calibration", "gap", "strength", "gradcam")
OF_BRANCHES = {"correlation", "layerwise", "strength"}
"""Analyses that need ShakeShake modules."""
WITH_PICTURES = {"calibration", "gradcam"}
DRAWS = 100_000


def analyze(
    run: str | Path | TrainedRun | Any,
    *,
    split: str = "test",
    only: Sequence[str] | None = None,
    data_dir: str | None = None,
    device: str = "auto",
) -> Analysis:
    """Analyse a run and write analysis.json into its directory.

    All images pass through the network once, in fp32. An unfinished run is analysed at its last checkpoint, and a
    network without ShakeShake modules without the analyses of branches; the result's ``notes`` say so.

    Args:
        run: a run directory, the result of ``fit`` (anything with a ``path``), or an opened run.
        split: "test", "train" or "val".
        only: names from ANALYSES; all that apply if None.
        data_dir: where the data are now, if they have moved.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        InputError: for a run without a checkpoint, images other than the run's, fewer images than classes, an unknown
            or inapplicable analysis, or a directory that cannot be written.
    """
    wanted = _validate(only)
    if wanted & WITH_PICTURES:
        require("PIL", "train")
    if isinstance(run, TrainedRun):
        opened = run
    else:
        opened = open_run(getattr(run, "path", run), data_dir=data_dir, device=device, unfinished=True)
    labels = opened.split(split).labels
    if len(labels) < opened.data.num_classes:
        raise InputError(
            f"split: {split} has {len(labels)} images for {opened.data.num_classes} classes, "
            "expected at least one per class"
        )
    notes = []
    if not opened.finished:
        notes.append(f"The run is not finished: this is the network after epoch {opened.epoch}/{opened.recipe.epochs}.")
    blocks = shaken_blocks(opened.network)
    if not blocks:
        if only is not None and (inapplicable := sorted(wanted & OF_BRANCHES)):
            raise InputError(f"only: {inapplicable[0]} needs ShakeShake modules, {opened.recipe.model} has none")
        notes.append(f"{opened.recipe.model} has no ShakeShake modules, so there are no branches to correlate.")
        wanted -= OF_BRANCHES
    elif only is None and not all(hasattr(block, "branches") for _, block in blocks.values()):
        notes.append("Some blocks do not hold their branches as .branches, so their layers are not correlated.")
        wanted.discard("layerwise")

    with contextlib.ExitStack() as hooks:
        branches = hooks.enter_context(watch_branches(opened.network)) if "correlation" in wanted else None
        layers = hooks.enter_context(watch_layers(opened.network)) if "layerwise" in wanted else None
        logits = _logits(opened, split)
    probabilities = logits.double().softmax(dim=1).numpy()
    wrong = probabilities.argmax(axis=1) != labels
    error = 100.0 * float(wrong.mean())
    analysis = Analysis(
        model=opened.recipe.model,
        rule=opened.recipe.rule,
        data=opened.recipe.data,
        seed=opened.recipe.seed,
        finished=opened.finished,
        epoch=opened.epoch,
        epochs=opened.recipe.epochs,
        split=split,
        images=len(labels),
        classes=tuple(opened.data.classes),
        notes=tuple(notes),
        error=error,
        loss=float(F.cross_entropy(logits, torch.from_numpy(labels))),
        train_images=len(opened.data.train.labels),
        branch_correlation=tuple(map(_branch_correlation, branches())) if branches else None,
        layerwise=tuple(map(_layer_correlation, layers())) if layers else None,
        strength=_strength(opened) if "strength" in wanted else None,
        gradcam=example_images.gradcam_examples(opened, split, probabilities) if "gradcam" in wanted else None,
        wrong=base64.b64encode(np.packbits(wrong).tobytes()).decode(),
        environment=environment(device=describe_device(opened.device)),
    )
    if split == "train":
        analysis = replace(analysis, train_error=error)
    elif "gap" in wanted:
        train_error = evaluate_network(opened.network, opened.loader("train"), "fp32", opened.device)["error"]
        analysis = replace(analysis, train_error=train_error, gap=error - train_error if split == "test" else None)
    if "calibration" in wanted:
        predicted = probabilities.argmax(axis=1)
        analysis = replace(
            analysis,
            confusion=_rows(confusion_matrix(predicted, labels, opened.data.num_classes)),
            calibration=_calibration(opened, split, probabilities),
            confusions=example_images.confusions(opened, split, probabilities),
            mistakes=example_images.mistakes(opened, split, probabilities),
        )
    path = opened.run.path / schema.FILE
    try:
        atomic_write(path, json.dumps(analysis.to_dict(), indent=1, allow_nan=False) + "\n")
    except OSError as error_:
        raise InputError(f"run: {path} cannot be written: {error_.strerror or error_}") from None
    return analysis


def _validate(only: Sequence[str] | None) -> set[str]:
    for name in only or ():
        if name not in ANALYSES:
            raise InputError(f"only: got {name!r}, expected some of {', '.join(ANALYSES)}")
    return set(ANALYSES if only is None else only)


def _logits(opened: TrainedRun, split: str) -> torch.Tensor:
    """(N, classes) float32 on the CPU, from one pass that all hooks see."""
    collected: list[torch.Tensor] = []
    handle = opened.network.register_forward_hook(lambda _, __, output: collected.append(output.float().cpu()))
    try:
        forward_all(opened.network, opened.loader(split).eval_batches())
    finally:
        handle.remove()
    return torch.cat(collected)


def _branch_correlation(block: BlockCorrelation) -> schema.BranchCorrelation:
    pairs = (schema.BranchPair((i, j), _number_or_none(value)) for i, j, value in block.pairs())
    return schema.BranchCorrelation(block.block, tuple(pairs))


def _layer_correlation(block: LayerCorrelation) -> schema.LayerCorrelation:
    pairs = (
        schema.LayerPair(pair, tuple(tuple(map(_number_or_none, row)) for row in matrix))
        for pair, matrix in block.matrices.items()
    )
    return schema.LayerCorrelation(block.block, tuple(block.layers), tuple(pairs))


def _strength(opened: TrainedRun) -> schema.Strength:
    layer, block = next(iter(shaken_blocks(opened.network).values()))
    rule, branches = str(layer.rule), len(getattr(block, "branches", (0, 1)))
    alpha, beta = coefficients(rule, DRAWS, branches=branches)
    return schema.Strength(
        rule=rule,
        branches=branches,
        expected=expected_distance(rule, branches),
        measured=float(np.abs(beta - alpha).mean()),
        draws=DRAWS,
        histogram=_rows(histogram(alpha, beta)),
    )


def _calibration(opened: TrainedRun, split: str, probabilities: np.ndarray) -> schema.Calibration:
    """Reliability, with and without the run's temperature (cross-fitted on the images that it was fitted on)."""
    labels = opened.split(split).labels
    found = reliability(probabilities, labels)
    config = read_config(opened.run.path / CONFIG) if opened.finished else {}
    if "calibration" not in config:
        return found
    logits = np.log(probabilities.clip(1e-300))
    if config["calibration"].get("split") == split:
        calibrated = temperature_scaling.cross_fitted(logits, labels)
    else:
        calibrated = temperature_scaling.probabilities(logits, config["temperature"])
    return replace(found, temperature=config["temperature"], ece_calibrated=reliability(calibrated, labels).ece)


def _rows(counts: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, counts.tolist()))


def _number_or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
