"""The plan of an experiment: its runs in a folder, and how they are executed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..train.recipe import RENAMED_FIELDS, Recipe
from ..train.run_directory import is_leftover
from ..utils.environment import cpu_count
from ..utils.files import atomic_write
from . import tables
from .runtime_estimate import Estimator, format_duration
from .scales import SCALES, get_experiment
from .spec import MACHINE_FIELDS, Experiment, describe_recipe
from .worker import is_done

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """What executes the runs.

    Attributes:
        engine: ``local`` for processes on this machine, ``ray`` for tasks on a Ray cluster.
        jobs: Local runs side by side, or None for one per core (one on a GPU).
        address: Address of the Ray cluster, or None to start one on this machine.
        cpus, gpus: Resources that a run asks the Ray cluster for.
    """

    engine: str = "local"
    jobs: int | None = None
    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("jobs", self.jobs), ("cpus", self.cpus)):
            if value is not None and value < 1:
                raise InputError(f"{name}: got {value}, expected 1 or more")
        if self.gpus < 0:
            raise InputError(f"gpus: got {self.gpus}, expected 0 or more")
        if self.engine not in ENGINES:
            raise InputError(f"engine: got {self.engine!r}, expected {' or '.join(ENGINES)}")
        if self.address is not None and self.engine != "ray":
            raise InputError(f"address: got {self.address!r} with --engine local, expected --engine ray")


@dataclass(frozen=True)
class Plan:
    """An experiment in a folder.

    Attributes:
        experiment: The experiment at its scale, with all overrides.
        folder: Where results and run directories are written.
        scale: Name of the scale.
        seeds: Number of seeds per cell, or None for those that are declared.
        settings: Recipe fields that all tables in the folder must share.
        engine: What executes the runs.
        data_dir: Where the images are, if not where the recipes say.
        sizes: Sizes of data besides those in ``runtime_estimate.SIZES``.
        analyses: Analyses of each run, separated by commas, or None for all.
        fingerprints: (seed, fold) -> fingerprint of the images that its runs must have been trained on.
        user_code: ("model" or "rule", FILE.py:NAME) of the user's own code that the runs need.
    """

    experiment: Experiment
    folder: Path
    scale: str
    seeds: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    engine: Engine = field(default_factory=Engine)
    data_dir: str | None = None
    sizes: Mapping[str, tuple[int, int, int, int, int]] = field(default_factory=dict)
    analyses: str | None = None
    fingerprints: Mapping[tuple[int, int], str] = field(default_factory=dict)
    user_code: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        if self.seeds is not None and self.seeds < 1:
            raise InputError(f"seeds: got {self.seeds}, expected 1 or more")

    @property
    def is_comparison(self) -> bool:
        """Whether this is a comparison on a user's own images rather than a declared experiment."""
        return self.scale not in SCALES

    def runs(self) -> dict[Path, Recipe]:
        """Run directory -> recipe, one run of every cell after the other."""
        return {
            self.run_path(cell.run_name(seed, fold)): cell.recipe.replace(seed=seed, fold=fold)
            for cell, seed, fold in self.experiment.runs(self.seeds)
        }

    def run_path(self, name: str) -> Path:
        """The run directory of that name."""
        return self.folder / tables.CELLS / name

    def parallel_jobs(self) -> int:
        """Number of local runs side by side."""
        if self.engine.jobs is not None:
            return self.engine.jobs
        import torch

        on_cpu = all(cell.recipe.device in ("auto", "cpu") for cell in self.experiment.cells)
        return min(cpu_count(), 8) if on_cpu and not torch.cuda.is_available() else 1

    def check_folder(self) -> None:
        """Check that the folder is new, or was made at this scale with these settings. Writes nothing.

        Raises:
            InputError: It holds something else.
        """
        path = self.folder / "settings.json"
        if not path.exists():
            if self.folder.is_dir() and not all(map(is_leftover, self.folder.iterdir())):
                raise InputError(f"out: {self.folder} is not empty and holds no experiments, expected a new folder")
            return
        existing = read_settings(self.folder)
        for name, wanted in self._settings().items():
            found = existing.get(name)
            if name == "overrides" and isinstance(found, dict):
                found, wanted = _differing(found, wanted, Recipe().to_dict() if self.is_comparison else {})
            if found != wanted:
                raise InputError(
                    f"out: {self.folder} was made with {name} {_in_words(found)}, this is {_in_words(wanted)}; "
                    "expected the same, or another --out"
                )

    def claim_folder(self) -> None:
        """Make the folder and write its settings.

        Raises:
            InputError: As ``check_folder``, or the folder cannot be written.
        """
        self.check_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self.folder / "settings.json", json.dumps(self._settings(), indent=2) + "\n")
        except OSError as error:
            raise InputError(f"out: {self.folder} cannot be written: {error.strerror or error}") from None

    def _settings(self) -> dict[str, Any]:
        return {"scale": self.scale, "overrides": dict(self.settings)}


def plan_reproduction(
    name: str,
    *,
    scale: str = "small",
    out: Path | None = None,
    seeds: int | None = None,
    rows: tuple[str, ...] = (),
    overrides: Mapping[str, Any] | None = None,
    user_code: Sequence[tuple[str, str]] = (),
    **engine: Any,
) -> Plan:
    """Plan an experiment of ``paper.EXPERIMENTS``.

    Args:
        name: The experiment, such as table1.
        scale: smoke, small or paper.
        out: Its folder, which tables of one scale share; by default runs/reproduce-SCALE.
        seeds: Number of seeds per cell, if not the declared ones.
        rows: Some of the rows; all where it is empty.
        overrides: Recipe fields for all cells.
        user_code: As in ``Plan``.
        engine: Fields of ``Engine``.

    Raises:
        InputError: One of these is invalid.
    """
    overrides = dict(overrides or {})
    experiment = get_experiment(name, scale).replace_fields(**overrides)
    return Plan(
        experiment.select_rows(rows) if rows else experiment,
        out if out is not None else Path("runs") / f"reproduce-{scale}",
        scale,
        seeds=seeds,
        settings={name: value for name, value in overrides.items() if name not in MACHINE_FIELDS},
        engine=Engine(**engine),
        data_dir=overrides.get("data_dir"),
        user_code=user_code,
        analyses=experiment.analyses,
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """Read settings.json of a folder of experiments, with the recipe fields under their present names.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / "settings.json"
    try:
        settings = json.loads(path.read_text())
        overrides = settings.get("overrides", {})
        return {**settings, "overrides": {RENAMED_FIELDS.get(name, name): v for name, v in overrides.items()}}
    except (OSError, ValueError, AttributeError):
        raise InputError(f"out: {path} is damaged, expected the settings of a folder of experiments") from None


def _differing(
    existing: dict[str, Any], wanted: dict[str, Any], defaults: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that differ. A field that the existing settings lack has its default there."""
    one, other = {**defaults, **existing}, {**defaults, **wanted}
    if defaults:  # of a comparison, whose settings are whole recipes: fields that are gone do not count
        one, other = ({name: v for name, v in values.items() if name in defaults} for values in (one, other))
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return {name: one[name] for name in names if name in one}, {name: other[name] for name in names if name in other}


def _in_words(settings: Any) -> str:
    if isinstance(settings, dict):
        return ", ".join(f"{name}={value}" for name, value in settings.items()) or "none"
    return repr(settings)


def describe_plan(plan: Plan, *, cells: bool) -> Iterator[str]:
    """The plan as lines for a terminal, with the time it would take here, estimated from a few steps per network.

    cells: whether to list the cells.
    """
    experiment, runs = plan.experiment, plan.runs()
    todo = {path: recipe for path, recipe in runs.items() if not is_done(path)}
    local = plan.engine.engine == "local"
    jobs = plan.parallel_jobs() if local else 1
    threads = max(1, cpu_count() // jobs) if local else plan.engine.cpus
    estimator = Estimator(threads, plan.sizes)
    if plan.is_comparison:
        yield experiment.title
    else:
        source = f" ({experiment.source})" if experiment.source else ""
        yield f"{experiment.title}{source}, scale {plan.scale}: {SCALES[plan.scale].description}"
    for words in dict.fromkeys(describe_recipe(cell.recipe) for cell in experiment.cells):
        yield f"  {words}"
    numbers = sorted({len(experiment.seeds_of(cell, plan.seeds)) for cell in experiment.cells})
    seeds = " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))
    sizes = f"{len(experiment.cells)} cells, {seeds} seeds" + (
        f", {experiment.folds} folds" if experiment.folds else ""
    )
    yield f"{sizes}: {len(runs)} runs, {len(runs) - len(todo)} of them done"
    if cells:
        for cell in experiment.cells:
            paths = [plan.run_path(cell.run_name(*run)) for run in experiment.runs_of(cell, plan.seeds)]
            by = f", {cell.source}" if cell.source != experiment.source else ""
            published = "" if cell.published is None else f"published {cell.published:.2f} % ({cell.published_for}{by})"
            duration = format_duration([estimator.seconds(cell.recipe)])
            done = f"{sum(map(is_done, paths))}/{len(paths)}"
            yield f"  {cell.row:<24} {cell.column:<20} {done} done, {duration:>9} per run  {published}"
    if todo:
        took = [estimator.seconds(recipe) for recipe in todo.values()]
        total = format_duration(None if seconds is None else seconds / jobs for seconds in took)
        where = f"on this machine, {jobs} at a time with {threads} thread{'s' * (threads != 1)} each"
        if not local:
            where = f"if they ran one after the other on this machine with {threads} threads"
        yield f"about {total} to go {where} (estimated from a few steps)"
    yield f"in {plan.folder}"
