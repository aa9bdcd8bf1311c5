"""The plan of an experiment: its runs in a folder, and how they are executed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.cifar.spec import CIFAR
from ..data.registry import fetch_data, find_data
from ..errors import InputError
from ..models.user_code import UserCode, user_code
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
        for name, value, least in (("jobs", self.jobs, 1), ("cpus", self.cpus, 1), ("gpus", self.gpus, 0)):
            if value is not None and value < least:
                raise InputError(f"{name}: got {value}, expected {least} or more")
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
        user_code: The user's own networks and rules that the runs need.
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
    user_code: Sequence[UserCode] = ()

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

    @property
    def worker_options(self) -> dict[str, Any]:
        """Arguments of ``worker.train_and_analyze``."""
        return {"data_dir": self.data_dir, "analyses": self.analyses, "user_code": list(self.user_code)}

    def parallel_jobs(self) -> int:
        """Number of local runs side by side."""
        if self.engine.jobs is not None:
            return self.engine.jobs
        import torch

        on_cpu = all(cell.recipe.device in ("auto", "cpu") for cell in self.experiment.cells)
        return min(cpu_count(), 8) if on_cpu and not torch.cuda.is_available() else 1

    def check_data(self) -> None:
        """Download CIFAR if a local run needs it and it is missing. Writes nothing into the folder.

        Raises:
            InputError: It is missing and cannot be downloaded.
        """
        needed = {recipe.data for path, recipe in self.runs().items() if not is_done(path)} & set(CIFAR)
        for name in sorted(needed) if self.engine.engine == "local" else ():
            if find_data(name, self.data_dir) is None:
                fetch_data(name, self.data_dir)

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
        if existing.get("scale") != self.scale:
            self._refuse(f"scale {existing.get('scale')!r}", repr(self.scale))
        found, wanted = existing["overrides"], dict(self.settings)
        if self.is_comparison:  # the settings are whole recipes: fields of other versions do not count
            found = {**Recipe().to_dict(), **found}
        fields = wanted if self.is_comparison else {**found, **wanted}
        names = [name for name in fields if found.get(name) != wanted.get(name)]
        if names:
            self._refuse(
                *(", ".join(f"{n}={of[n]}" for n in names if n in of) or "no overrides" for of in (found, wanted))
            )

    def _refuse(self, found: str, wanted: str) -> None:
        raise InputError(
            f"out: {self.folder} was made with {found}, this is {wanted}; expected the same, or another --out"
        )

    def claim_folder(self) -> None:
        """Make the folder and write its settings.

        Raises:
            InputError: As ``check_folder``, or the folder cannot be written.
        """
        self.check_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            settings = {"scale": self.scale, "overrides": dict(self.settings)}
            atomic_write(self.folder / "settings.json", json.dumps(settings, indent=2) + "\n")
        except OSError as error:
            raise InputError(f"out: {self.folder} cannot be written: {error.strerror or error}") from None


def plan_reproduction(
    name: str,
    *,
    scale: str = "small",
    out: Path | None = None,
    seeds: int | None = None,
    rows: tuple[str, ...] = (),
    overrides: Mapping[str, Any] | None = None,
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
        **engine: Fields of ``Engine``.

    Raises:
        InputError: One of these is invalid.
    """
    overrides = overrides or {}
    experiment = get_experiment(name, scale).replace_fields(**overrides)
    return Plan(
        experiment.select_rows(rows) if rows else experiment,
        out or Path("runs") / f"reproduce-{scale}",
        scale,
        seeds=seeds,
        settings={name: value for name, value in overrides.items() if name not in MACHINE_FIELDS},
        engine=Engine(**engine),
        data_dir=overrides.get("data_dir"),
        user_code=[code for field in ("model", "rule") for code in user_code(field, [overrides.get(field)])],
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


def describe_plan(plan: Plan, *, cells: bool) -> Iterator[str]:
    """The plan as lines for a terminal, with the time it would take here, estimated from a few steps per network.

    cells: whether to list the cells.
    """
    experiment, runs = plan.experiment, plan.runs()
    todo = [recipe for path, recipe in runs.items() if not is_done(path)]
    local = plan.engine.engine == "local"
    jobs = plan.parallel_jobs() if local else 1
    threads = max(1, cpu_count() // jobs) if local else plan.engine.cpus
    estimator = Estimator(threads, plan.sizes)
    source = f" ({experiment.source})" if experiment.source else ""
    scale = "" if plan.is_comparison else f", scale {plan.scale}: {SCALES[plan.scale].description}"
    if experiment.fixed_size and not plan.is_comparison and SCALES[plan.scale].meaningful:
        scale = ", the same at the scales small and paper"
    yield f"{experiment.title}{source}{scale}"
    yield from dict.fromkeys(f"  {describe_recipe(cell.recipe)}" for cell in experiment.cells)
    numbers = {len(experiment.seeds_of(cell, plan.seeds)) for cell in experiment.cells}
    seeds = " to ".join(map(str, sorted({min(numbers), max(numbers)})))
    folds = f", {experiment.folds} folds" if experiment.folds else ""
    done = f"{len(runs)} runs, {len(runs) - len(todo)} of them done"
    yield f"{len(experiment.cells)} cells, {seeds} seeds{folds}: {done}"
    for cell in experiment.cells if cells else ():
        paths = [plan.run_path(cell.run_name(*run)) for run in experiment.runs_of(cell, plan.seeds)]
        by = f", {cell.source}" if cell.source != experiment.source else ""
        published = "" if cell.published is None else f"published {cell.published:.2f} % ({cell.published_for}{by})"
        duration = format_duration([estimator.seconds(cell.recipe)])
        done = f"{sum(map(is_done, paths))}/{len(paths)}"
        yield f"  {cell.row:<24} {cell.column:<20} {done} done, {duration:>9} per run  {published}"
    if todo:
        took = [estimator.seconds(recipe) for recipe in todo]
        total = format_duration(None if seconds is None else seconds / jobs for seconds in took)
        where = f"on this machine, {jobs} at a time" if local else "if they ran one after the other on this machine"
        where += f" with {threads} thread{'s' * (threads != 1)} each"
        yield f"about {total} to go {where} (estimated from a few steps)"
    yield f"in {plan.folder}"
