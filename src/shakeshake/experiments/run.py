"""reproduce(): an experiment planned, run to its end from wherever it stands, and collected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..train.recipe import Recipe
from ..train.run_directory import is_rubbish
from ..utils.environment import cpu_count
from ..utils.files import atomic_write
from . import tables
from .local import run_locally
from .progress import CellProgress
from .runtime_estimate import Estimator, in_time
from .scales import SCALES, experiment
from .spec import Experiment, in_words
from .worker import is_done, prepare

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Plan:
    """An experiment in a folder: which runs there are, which are done, how they are to be run.

    jobs: runs side by side on this machine, None for as many as it has cores (one on a GPU).
    cpus, gpus: what a run asks a Ray cluster for. overrides: fields of all recipes, by name. declared: an experiment
    that is not the paper's, overrides and all. sizes: of its data, as estimate.SIZES has those with a name. analyses:
    of each run, with commas between them; None for all. images: of (seed, fold), the fingerprint of those that its runs
    are to have been trained on; unchecked where there is none.
    """

    name: str
    scale: str = "small"
    out: Path | None = None
    seeds: int | None = None
    rows: tuple[str, ...] = ()
    overrides: dict[str, Any] = field(default_factory=dict)
    engine: str = "local"
    jobs: int | None = None
    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0
    declared: Experiment | None = None
    sizes: dict[str, tuple[int, int, int, int, int]] = field(default_factory=dict)
    analyses: str | None = None
    images: dict[tuple[int, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, least in (("seeds", self.seeds, 1), ("jobs", self.jobs, 1), ("cpus", self.cpus, 1)):
            if value is not None and value < least:
                raise InputError(f"{name}: got {value}, expected {least} or more")
        if self.gpus < 0:
            raise InputError(f"gpus: got {self.gpus}, expected 0 or more")
        if self.engine not in ENGINES:
            raise InputError(f"engine: got {self.engine!r}, expected {' or '.join(ENGINES)}")
        if self.address is not None and self.engine != "ray":
            raise InputError(f"address: got {self.address!r} for the engine local, expected --engine ray with it")
        self.experiment  # noqa: B018 - says what is wrong with name, scale, rows and overrides

    @property
    def experiment(self) -> Experiment:
        if self.declared is not None:
            return self.declared
        made = experiment(self.name, self.scale).changed(**self.overrides)
        return made.only(list(self.rows)) if self.rows else made

    @property
    def folder(self) -> Path:
        return self.out if self.out is not None else Path("runs") / f"reproduce-{self.scale}"

    @property
    def wanted_seeds(self) -> int:
        return self.seeds if self.seeds is not None else self.experiment.seeds

    def runs(self) -> dict[Path, Recipe]:
        """The run directory of every cell and seed, seed by seed, so that a table fills evenly."""
        return {
            self.folder / tables.CELLS / cell.folder(seed, fold): cell.recipe.replace(seed=seed, fold=fold)
            for seed, fold in self.experiment.runs(self.wanted_seeds)
            for cell in self.experiment.cells
        }

    def side_by_side(self) -> int:
        if self.jobs is not None:
            return self.jobs
        import torch

        on_cpu = all(recipe.device in ("auto", "cpu") for recipe in self.runs().values())
        return min(cpu_count(), 8) if on_cpu and not torch.cuda.is_available() else 1

    def check_folder(self) -> None:
        """Raise InputError when the folder was made at another scale or with other overrides. Writes nothing."""
        path = self.folder / "settings.json"
        if not path.exists():
            if self.folder.is_dir() and not all(map(is_rubbish, self.folder.iterdir())):
                raise InputError(f"out: {self.folder} is not empty and holds no experiments, expected a new folder")
            return
        try:
            there = json.loads(path.read_text())
        except ValueError:
            raise InputError(f"out: {path} is damaged, expected the settings of a folder of experiments") from None
        if not isinstance(there, dict):
            raise InputError(f"out: {path} is damaged, expected the settings of a folder of experiments")
        for name, wanted in self._settings().items():
            found = there.get(name)
            if self.declared is not None and isinstance(found, dict):
                found, wanted = _differing(found, wanted)
            if found != wanted:
                raise InputError(
                    f"out: {self.folder} was made with {name} {_said(found)}, this is {_said(wanted)}; "
                    "expected the same, or another --out"
                )

    def claim_folder(self) -> None:
        self.check_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self.folder / "settings.json", json.dumps(self._settings(), indent=2) + "\n")
        except OSError as error:
            raise InputError(f"out: {self.folder} cannot be written: {error.strerror or error}") from None

    def _settings(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.overrides.items() if name not in ("data_dir", "device")}
        return {"scale": self.scale, "overrides": kept}


def _differing(there: dict[str, Any], wanted: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of two recipes that are not the same. One that is younger than a folder has its default there."""
    default = Recipe().to_dict()
    one, other = {**default, **there}, {**default, **wanted}
    names = [name for name in one if name in other and one[name] != other[name]]
    return {name: one[name] for name in names}, {name: other[name] for name in names}


def _said(settings: Any) -> str:
    if isinstance(settings, dict):
        return ", ".join(f"{name}={value}" for name, value in settings.items()) or "none"
    return repr(settings)


def describe(plan: Plan, *, cells: bool) -> Iterator[str]:
    """The plan in words, and how long it would take here, measured by a few steps of every network."""
    made, runs = plan.experiment, plan.runs()
    todo = {path: recipe for path, recipe in runs.items() if not is_done(path)}
    jobs = plan.side_by_side() if plan.engine == "local" else 1
    threads = max(1, cpu_count() // jobs) if plan.engine == "local" else plan.cpus
    estimator = Estimator(threads, plan.sizes)
    if plan.declared is None:
        yield f"{made.title} ({made.place}), scale {plan.scale}: {SCALES[plan.scale].about}"
    else:
        yield made.title
    for words in dict.fromkeys(in_words(cell.recipe) for cell in made.cells):
        yield f"  {words}"
    sizes = f"{len(made.cells)} cells, {plan.wanted_seeds} seeds" + (f", {made.folds} folds" if made.folds else "")
    yield f"{sizes}: {len(runs)} runs, {len(runs) - len(todo)} of them done"
    if cells:
        for cell in made.cells:
            of_cell = [plan.folder / tables.CELLS / cell.folder(*run) for run in made.runs(plan.wanted_seeds)]
            done = sum(map(is_done, of_cell))
            by = f", {cell.place}" if cell.place != made.place else ""
            published = "" if cell.published is None else f"published {cell.published:.2f} % ({cell.published_for}{by})"
            each = in_time([estimator.seconds(cell.recipe)])
            yield f"  {cell.row:<24} {cell.column:<20} {done}/{len(of_cell)} done, {each:>9} a run  {published}"
    if todo:
        took = [estimator.seconds(recipe) for recipe in todo.values()]
        share = in_time(None if seconds is None else seconds / jobs for seconds in took)
        where = f"on this machine, {jobs} at a time with {threads} thread{'s' * (threads != 1)} each"
        if plan.engine == "ray":
            where = f"if they ran one after the other on this machine with {threads} threads"
        yield f"about {share} to go {where} (measured over a few steps)"
    yield f"in {plan.folder}"


def reproduce(plan: Plan, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run what is missing and return the results (see tables.collect), written to the folder as NAME.json and .csv.

    Finished cells are passed over, broken ones gone on with, those of another runner waited for; a cell that fails is
    told and the others go on. Raises InputError; KeyboardInterrupt when stopped, after the cells have saved.
    """
    plan.claim_folder()
    made, runs = plan.experiment, plan.runs()
    todo = [path for path in runs if not is_done(path)]
    for path in todo:
        prepare(path, runs[path])
    failed: dict[str, str] = {}

    def collect() -> dict[str, Any]:
        found = tables.collect(made, plan.folder, plan.wanted_seeds, plan.scale, failed, plan.images)
        tables.write(found, plan.folder)
        return found

    with CellProgress(len(runs), len(runs) - len(todo), say) as progress:

        def ended(path: Path, reason: str | None) -> None:
            if reason is not None:
                failed[path.name] = reason
            progress.ended(path, reason)
            collect()

        try:
            _run(plan, todo, progress.watch, ended)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped; the runs in {plan.folder} have saved where they are, go on with the same command"
            ) from None
    return collect()


def _run(
    plan: Plan,
    todo: list[Path],
    watch: Callable[[list[Path]], None],
    ended: Callable[[Path, str | None], None],
) -> None:
    """Let the plan's engine work on prepared runs."""
    data_dir = plan.overrides.get("data_dir")
    if not todo:
        return
    if plan.engine == "local":
        run_locally(todo, jobs=plan.side_by_side(), data_dir=data_dir, only=plan.analyses, watch=watch, ended=ended)
        return
    from .ray import run_on_ray

    run_on_ray(
        todo,
        address=plan.address,
        cpus=plan.cpus,
        gpus=plan.gpus,
        data_dir=data_dir,
        only=plan.analyses,
        watch=watch,
        ended=ended,
    )
