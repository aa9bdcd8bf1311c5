"""Does shaking help on somebody's own images? One network and budget under several rules, and a plain verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.dataset import ImageData
from ..data.sampler import class_weights
from ..data.splits import fold_ids, with_fold
from ..errors import InputError
from ..layers.rules import ShakeRule
from ..models.registry import model_info
from ..train.auto_recipe import planned
from ..train.open_run import load_images
from ..train.recipe import Recipe
from ..train.run_directory import RunDirectory
from ..utils.environment import cpu_count
from ..utils.files import free_numbered_path
from . import tables
from .paper import spelled
from .run import Plan, reproduce
from .spec import Cell, Experiment

NAME = "compare"
AGAINST = "E-E-B"
RULES = (AGAINST, "S-S-I", "S-E-I")
SCALE = "own"
ANALYSES = "calibration,gap"  # of each run; correlations are for those who ask by `shakeshake analyze`
PER_RUN = ("seed", "rule", "fold", "data_dir", "device")  # what may differ in a folder of one comparison


def comparison(recipe: Recipe, rules: Sequence[str] = RULES, *, seeds: int = 3, folds: int = 0) -> Experiment:
    """The recipe under each rule, and under E-E-B whatever rules were asked for: what they are compared with.

    Raises InputError for a network without branches, a rule that is none, folds that do not go with the recipe.
    """
    if not model_info(recipe.model).branched:
        raise InputError(f"model: {recipe.model} has no branches to shake, expected one such as shake_resnet14_2x16d")
    if folds and recipe.train_size is not None and seeds > 1:
        raise InputError(
            f"folds: {folds} with train_size and {seeds} seeds, which draw other images each; expected seeds 1"
        )
    wanted = list(dict.fromkeys([AGAINST, *(str(ShakeRule.parse(rule)) for rule in rules)]))
    if len(wanted) < 2:
        raise InputError(f"rules: got {AGAINST} alone, expected others to compare it with, such as S-S-I,S-E-I")
    label = model_info(recipe.model).paper_label
    return Experiment(
        name=NAME,
        title=f"Does shaking help? {label} on {recipe.data}",
        place="",
        kind="table",
        published_setting="",
        rows={rule: spelled(rule) for rule in wanted},
        columns={label: label},
        cells=tuple(Cell(rule, label, recipe.replace(rule=rule, folds=folds, fold=0, seed=0)) for rule in wanted),
        against=AGAINST,
        seeds=seeds,
        folds=folds,
    )


def planned_comparison(
    data: str,
    typed: dict[str, Any],
    *,
    rules: Sequence[str] = RULES,
    seeds: int = 3,
    folds: int = 0,
    budget: str | None = None,
    out: Path | None = None,
    how: dict[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> tuple[Plan, ImageData]:
    """A comparison in a folder, new or gone on with, and its images. Says what was picked; writes nothing.

    typed: fields of the recipe that were given. budget: time of each run, as train.planned takes it. how: engine, jobs,
    address, cpus and gpus of Plan. Raises InputError for a mistake in any of them.
    """
    how, out = how or {}, out or free_numbered_path(Path("runs"), f"{NAME}-{Path(data).resolve().stem}")
    recipe = begun(out, data, typed)
    if recipe is None:
        before = torch.get_num_threads()
        torch.set_num_threads(max(1, cpu_count() // (how.get("jobs") or min(cpu_count(), 8))))  # as each run will have
        try:
            recipe, picked = planned(data, {**typed, "rule": AGAINST}, budget=budget)
        finally:
            torch.set_num_threads(before)
        for line in picked:
            say(line)
    else:
        say(f"goes on in {out} with the recipe that it began with")
    experiment = comparison(recipe, rules, seeds=seeds, folds=folds)
    images = load_images(recipe.replace(folds=0, fold=0))
    size = (len(images.train.labels), len(images.test.labels), images.num_classes, images.channels, images.image_size)
    base = experiment.cells[0].recipe
    plan = Plan(
        NAME,
        scale=SCALE,
        out=out,
        seeds=seeds,
        overrides={k: v for k, v in base.to_dict().items() if k not in PER_RUN} | {"data_dir": recipe.data_dir},
        declared=experiment,
        sizes={data: size},
        analyses=ANALYSES,
        **how,
    )
    plan.check_folder()
    if folds:
        with_fold(images, folds, 0)  # says at once what no fold can be made of
    plan.images.update(_fingerprints(plan, images))
    for path, run in plan.runs().items():
        if tables.on_other_images(RunDirectory(path), plan.images[run.seed, run.fold]):
            raise InputError(
                f"data: the images of {data} are not those that {path} was trained on; expected these, or another --out"
            )
    return plan, images


def _fingerprints(plan: Plan, images: ImageData) -> Iterator[tuple[tuple[int, int], str]]:
    """Of (seed, fold), which images its runs get."""
    recipe = plan.experiment.cells[0].recipe
    drawn = bool(recipe.folds) or recipe.train_size is not None
    for seed, fold in plan.experiment.runs(plan.wanted_seeds):
        own = load_images(recipe.replace(seed=seed, fold=fold)) if drawn else images
        yield (seed, fold), own.fingerprint


def begun(out: Path, data: str, typed: dict[str, Any]) -> Recipe | None:
    """The recipe of a comparison that lies in ``out``: gone on with as it began, not picked and measured again.

    None where there is none yet. Raises InputError when what was typed is something else.
    """
    path = out / "settings.json"
    if not path.exists():
        return None
    try:
        settings = json.loads(path.read_text())
        if settings.get("scale") != SCALE:
            raise InputError(f"out: {out} holds tables of the paper, expected a new folder")
        recipe = Recipe.from_dict(settings["overrides"])
    except (ValueError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"out: {path} is damaged, expected the settings of a comparison") from None
    for name, value in {"data": data, **typed}.items():
        there = recipe.to_dict()[name]
        if name not in PER_RUN and there != value:
            raise InputError(
                f"out: {out} was made with {name} {there}, this is {value}; expected the same, or another --out"
            )
    return recipe.replace(**{name: value for name, value in typed.items() if name in ("data_dir", "device")})


def run_comparison(wanted: Plan, images: ImageData, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run what is missing of a comparison; what reproduce() returns, with ``verdicts`` and ``balanced_differences``.

    These are empty where the classes are even. Written to the folder as compare.json and compare.csv. Raises as
    reproduce() does. Runs whose images have changed in between count as failed.
    """
    found = reproduce(wanted, say)
    found["verdicts"] = [_verdict(one, "error") for one in found["differences"]]
    found["balanced_differences"] = list(_balanced(found, images, wanted))
    found["verdicts"] += [_verdict(one, "balanced error") for one in found["balanced_differences"]]
    found["reading"] = [verdict["sentence"] for verdict in found["verdicts"]]
    tables.write(found, wanted.folder)
    return found


def _verdict(one: dict[str, Any], what: str) -> dict[str, str]:
    """One difference as helps, hurts or can't tell, and in a sentence."""
    verdict = {"lower": "helps", "higher": "hurts"}.get(one["verdict"], "can't tell")
    alone = min(one["n"]) < 2
    interval = f"{one['level']:.0%} interval {one['low']:+.2f} to {one['high']:+.2f} over {one['covers']}"
    sentence = f"{one['row']}: {verdict}. {what.capitalize()} {one['difference']:+.2f} points against {one['against']}"
    more = "; two networks differ without any reason, so it takes more --seeds, or --folds" if alone else ""
    return {"row": one["row"], "of": what, "verdict": verdict, "sentence": f"{sentence}, {interval}{more}."}


def _balanced(found: dict[str, Any], images: ImageData, wanted: Plan) -> Iterator[dict[str, Any]]:
    """The differences in balanced error: each image counts as much as its class is rare. Nothing for even classes."""
    labels = _tested_labels(images, wanted.experiment)
    by_image = class_weights(labels, images.num_classes)[labels]
    counts = np.bincount(labels)
    if counts.max() < 1.2 * counts.min():
        return
    wrong = {
        cell["row"]: [run * by_image for run in tables.wrong_images(cell, wanted.folder)] for cell in found["cells"]
    }
    for row, runs in wrong.items():
        if row != AGAINST and runs and wrong[AGAINST]:
            one = tables.compared(runs, wrong[AGAINST], wanted.experiment.folds)
            yield {"row": row, "against": AGAINST, **asdict(one), "verdict": one.verdict}


def _tested_labels(images: ImageData, experiment: Experiment) -> np.ndarray:
    """Of every image that the runs of a seed are tested on, in their order."""
    if not experiment.folds:
        return np.asarray(images.test.labels)
    labels = np.asarray(images.train.labels)
    place = fold_ids(labels, experiment.folds)
    return np.concatenate([labels[place == fold] for fold in range(experiment.folds)])


def as_lines(found: dict[str, Any]) -> Iterator[str]:
    """The table for a terminal, and the verdicts."""
    yield found["title"]
    yield found["setting"]
    labels = {row["key"]: row["label"] for row in found["rows"]}
    width = max(map(len, labels.values()))
    balanced = bool(found["balanced_differences"])
    heads = [f"{'error, last epoch':>18}", *([f"{'balanced':>9}"] if balanced else [])]
    yield ""
    yield f"{'':<{width}}  {'  '.join(heads)}    n   train   minutes"
    for cell in found["cells"]:
        std = "" if cell["std"] is None else f" ± {cell['std']:.2f}"
        values = [f"{_number(cell['mean']) + std:>18}", *([f"{_number(cell['balanced_mean']):>9}"] if balanced else [])]
        minutes = None if cell["seconds_mean"] is None else cell["seconds_mean"] / 60
        yield (
            f"{labels[cell['row']]:<{width}}  {'  '.join(values)}  {cell['n']:>3}  {_number(cell['train_mean']):>6}  "
            f"{_number(minutes, 1):>8}"
        )
    yield ""
    yield from found["reading"] or ["No verdict: a rule has to be finished, and E-E-B with it."]
    for cell in found["cells"]:
        for failure in cell["failed"]:
            yield f"failed: {cell['row']}, run {failure['seed']}: {failure['reason']}"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
