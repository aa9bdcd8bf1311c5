"""compare(): does shaking help on a user's own images? One network under several rules, and a verdict for each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import ImageData
from ..data.image_folder.summary import in_brief
from ..data.sampler import class_weights
from ..data.splits import fold_ids, with_fold
from ..errors import InputError
from ..layers.rules import ShakeRule
from ..models.registry import model_info
from ..models.user_code import name_of, user_code
from ..train.auto_recipe import recipe_for
from ..train.open_run import load_recipe_data
from ..train.recipe import Recipe
from ..train.run_directory import RunDirectory
from ..utils.environment import cpu_count
from ..utils.files import free_numbered_path
from ..utils.user_code import file_being_imported
from . import tables
from .plan import Engine, Plan, read_settings
from .run import run_plan
from .runtime_estimate import limited_threads
from .schema import Table, TableDifference, Verdict
from .spec import MACHINE_FIELDS, Cell, Experiment

logger = logging.getLogger(__name__)

NAME = "compare"
BASELINE = "E-E-B"
RULES = ("S-S-I", "S-E-I")
SCALE = "own"
ANALYSES = "calibration,gap"  # of each run; `shakeshake analyze` computes the others
PER_RUN = ("seed", "rule", "fold", *MACHINE_FIELDS)  # recipe fields that may differ between the runs
UNEVEN = 1.2  # ratio of the largest class to the smallest from which balanced errors are compared


def compare(
    data: str | Path,
    *,
    rules: Sequence[str | ShakeRule] = RULES,
    seeds: int = 3,
    folds: int = 0,
    budget: str | None = None,
    out: str | Path | None = None,
    engine: str = "local",
    jobs: int | None = None,
    address: str | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
    **recipe: Any,
) -> Table:
    """Compare shake rules with E-E-B (not shaken) on a data set, as ``shakeshake compare`` does.

    Each run is a separate process. Called again with the same ``out``, it keeps finished runs and resumes interrupted
    ones; more seeds join the others.

    Networks and rules of your own are imported in these processes from the file that defines them. If that file is the
    script itself, the call must be under ``if __name__ == "__main__":``.

    Args:
        data: Name of a data set, folder of images or .npz file.
        rules: Shake rules beside E-E-B: built-in or registered names, or ``FILE.py:NAME``.
        seeds: Runs of each rule.
        folds: Folds of the training images for cross-validation; with 0, the test images are used.
        budget: Time of each run, such as ``"10m"``, or ``"none"``. By default 10 minutes for images of one's own.
        out: Folder of the comparison; by default a new one, runs/compare-DATA-N.
        engine: What executes the runs, ``local`` or ``ray``.
        jobs: Local runs side by side; by default one per core (one on a GPU).
        address: Address of the Ray cluster; by default one is started on this machine.
        cpus: Cores of each run on the cluster.
        gpus: GPUs of each run on the cluster.
        **recipe: Fields of ``Recipe`` for all runs; the others are chosen to suit the images. ``model`` is a built-in
            or registered name, ``FILE.py:NAME`` or a factory.

    Returns:
        The results: ``cells`` with their runs and mean errors, ``differences`` with intervals, ``verdicts``. They are
        also written to ``out`` as compare.json and compare.csv (``path`` is the former).

    Raises:
        InputError: An argument is invalid, or ``out`` holds something else.
    """
    if (file := file_being_imported()) is not None:  # by a run of a comparison that the same call has started
        raise InputError(f"compare: got a call while {file} is imported, expected it under if __name__ == '__main__':")
    execution = Engine(engine, jobs, address, cpus, gpus)
    sizes: dict[str, Any] = {
        "seeds": seeds,
        "folds": folds,
        "budget": budget,
        "out": None if out is None else Path(out),
    }
    plan, images = plan_comparison(str(data), recipe, rules=rules, engine=execution, log=logger.info, **sizes)
    return run_comparison(plan, images, log=logger.info)


def comparison(
    recipe: Recipe, rules: Sequence[str | ShakeRule] = RULES, *, seeds: int = 3, folds: int = 0
) -> Experiment:
    """Declare the recipe under each rule, and under E-E-B.

    Raises:
        InputError: The network has no branches, a rule is invalid, or the folds do not suit the recipe.
    """
    info = model_info(recipe.model)
    if info.library:
        from ..models.external import has_branches
    if not info.branched or (info.library and not has_branches(recipe.model)):
        raise InputError(f"model: {recipe.model} has no branches to shake, expected one such as shake_resnet14_2x16d")
    if folds and recipe.train_size is not None and seeds > 1:
        raise InputError(
            f"folds: got {folds} with train_size and {seeds} seeds, each of which draws other images; expected seeds 1"
        )
    if seeds < 1:
        raise InputError(f"seeds: got {seeds}, expected 1 or more")
    wanted = list(dict.fromkeys([BASELINE, *(str(ShakeRule.parse(rule)) for rule in rules)]))
    if len(wanted) < 2:
        raise InputError(f"rules: got {BASELINE} alone, expected others to compare it with, such as S-S-I,S-E-I")
    label = info.paper_label
    return Experiment(
        name=NAME,
        title=f"Does shaking help? {label} on {recipe.data}",
        kind="table",
        rows={rule: ShakeRule.parse(rule).label for rule in wanted},
        columns={label: label},
        cells=tuple(Cell(rule, label, recipe.replace(rule=rule, folds=folds, fold=0, seed=0)) for rule in wanted),
        baseline=BASELINE,
        seeds=seeds,
        folds=folds,
    )


def plan_comparison(
    data: str,
    overrides: dict[str, Any],
    *,
    rules: Sequence[str | ShakeRule] = RULES,
    seeds: int = 3,
    folds: int = 0,
    budget: str | None = None,
    out: Path | None = None,
    engine: Engine | None = None,
    log: Callable[[str], None] = print,
) -> tuple[Plan, ImageData]:
    """Plan a new comparison, or the continuation of an existing one. Writes nothing.

    Args:
        data: As for ``compare``, like those that follow ``overrides``.
        overrides: Recipe fields that the user set.
        rules: Shake rules beside E-E-B.
        seeds: Runs of each rule.
        folds: Folds for cross-validation, or 0.
        budget: Time of each run.
        out: Folder of the comparison.
        engine: What executes the runs.
        log: Prints a line about the recipe that was chosen.

    Returns:
        The plan and the images.

    Raises:
        InputError: An argument is invalid, or ``out`` holds something else.
    """
    engine = engine or Engine()
    for field in ("rule", "seed", "fold"):
        if field in overrides:
            raise InputError(f"{field}: got {overrides[field]!r}, expected {field}s=, which the runs differ in")
    if "model" in overrides:
        overrides = {**overrides, "model": name_of("model", overrides["model"])}
    rules = [name_of("rule", rule) for rule in rules]
    out = out or free_numbered_path(Path("runs"), f"{NAME}-{Path(data).resolve().stem}")
    existing = existing_recipe(out)
    if existing is not None:
        recipe = existing.replace(data=data, **overrides)
        log(f"continuing the comparison in {out} with its recipe")
    else:
        with limited_threads(max(1, cpu_count() // (engine.jobs or min(cpu_count(), 8)))):  # as each run will have
            recipe, picked = recipe_for(data, {**overrides, "rule": BASELINE}, budget=budget)
        for line in picked:
            log(line)
    experiment = comparison(recipe, rules, seeds=seeds, folds=folds)
    settings = experiment.cells[0].recipe.to_dict()
    plan = Plan(
        experiment,
        out,
        SCALE,
        settings={name: value for name, value in settings.items() if name not in PER_RUN},
        engine=engine,
        data_dir=recipe.data_dir,
        analyses=ANALYSES,
        user_code=[*user_code("model", [recipe.model]), *user_code("rule", rules)],
    )
    plan.check_folder()
    images = load_recipe_data(recipe.replace(folds=0, fold=0))
    if existing is None and images.record is not None:
        for line in in_brief(images.record["found"]):
            log(line)
    if folds:
        with_fold(images, folds, 0)  # raises InputError where a class has too few images
    size = (len(images.train.labels), len(images.test.labels), images.num_classes, images.channels, images.image_size)
    plan = replace(plan, sizes={data: size}, fingerprints=dict(_fingerprints(experiment, images)))
    for path, run in plan.runs().items():
        if tables.has_other_images(RunDirectory(path), plan.fingerprints[run.seed, run.fold]):
            raise InputError(
                f"data: the images of {data} are not those that {path} was trained on; expected these, or another --out"
            )
    return plan, images


def _fingerprints(experiment: Experiment, images: ImageData) -> Iterator[tuple[tuple[int, int], str]]:
    """(seed, fold) and the fingerprint of the images that its runs get."""
    cell = experiment.cells[0]
    varies = bool(cell.recipe.folds) or cell.recipe.train_size is not None
    for seed, fold in experiment.runs_of(cell):
        of_run = load_recipe_data(cell.recipe.replace(seed=seed, fold=fold)) if varies else images
        yield (seed, fold), of_run.fingerprint


def existing_recipe(out: Path) -> Recipe | None:
    """The recipe of the comparison in ``out``, so that it is continued with the same; None if there is none.

    Raises:
        InputError: The folder holds something else.
    """
    if not (out / "settings.json").exists():
        return None
    settings = read_settings(out)
    if settings.get("scale") != SCALE:
        raise InputError(f"out: {out} holds tables of the paper, expected a new folder")
    if not settings["overrides"]:
        raise InputError(f"out: {out / 'settings.json'} is damaged, expected the settings of a comparison")
    return Recipe.from_dict(settings["overrides"])


def run_comparison(plan: Plan, images: ImageData, log: Callable[[str], None] = print) -> Table:
    """Execute what is missing of a comparison, and add the verdicts to its table.

    Runs whose images have changed since the comparison began count as failed. Balanced errors are compared where the
    classes are uneven.

    Args:
        plan: From ``plan_comparison``.
        images: Its images.
        log: Prints a line of progress.

    Raises:
        InputError, KeyboardInterrupt: As ``run_plan``.
    """
    table = run_plan(plan, log)
    balanced = tuple(_balanced_differences(table, images, plan))
    verdicts = [_verdict(one, "error") for one in table.differences]
    verdicts += [_verdict(one, "balanced error") for one in balanced]
    sentences = tuple(verdict.sentence for verdict in verdicts)
    table = replace(table, verdicts=tuple(verdicts), balanced_differences=balanced, reading=sentences)
    return tables.write(table, plan.folder)


def _verdict(one: TableDifference, what: str) -> Verdict:
    """One difference as helps, hurts or can't tell, and in a sentence."""
    verdict = {"lower": "helps", "higher": "hurts"}.get(one.verdict, "can't tell")
    sentence = (
        f"{one.row}: {verdict}. {what.capitalize()} {one.difference:+.2f} points against {one.baseline}, "
        f"{one.level:.0%} interval {one.low:+.2f} to {one.high:+.2f} over {one.covers}"
    )
    if min(one.n) < 2:
        sentence += "; any two networks differ, so it takes more --seeds, or --folds"
    elif one.seeds_needed is not None:
        sentence += f"; about {one.seeds_needed} seeds of each would show a difference of one point"
    return Verdict(one.row, what, verdict, f"{sentence}.")  # type: ignore[arg-type]


def _balanced_differences(table: Table, images: ImageData, plan: Plan) -> Iterator[TableDifference]:
    """The differences in balanced error, in which every class counts the same. None for even classes."""
    labels = _tested_labels(images, plan.experiment)
    by_image = class_weights(labels, images.num_classes)[labels]
    counts = np.bincount(labels)
    if counts.max() < UNEVEN * counts.min():
        return
    wrong = {
        cell.row: {seed: run * by_image for seed, run in tables.wrong_images(cell, plan.folder).items()}
        for cell in table.cells
    }
    for row, runs in wrong.items():
        if row != BASELINE and runs and wrong[BASELINE]:
            found = tables.compare_rows(runs, wrong[BASELINE], plan.experiment.folds)
            yield replace(found, row=row, baseline=BASELINE)


def _tested_labels(images: ImageData, experiment: Experiment) -> np.ndarray:
    """Labels of the images that the runs of a seed are tested on, in their order."""
    if not experiment.folds:
        return np.asarray(images.test.labels)
    labels = np.asarray(images.train.labels)
    fold_of = fold_ids(labels, experiment.folds)
    return np.concatenate([labels[fold_of == fold] for fold in range(experiment.folds)])
