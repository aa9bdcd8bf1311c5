"""Which of the paths given are runs and which experiments, and everything that could be read of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .experiment import ExperimentRecord, experiment_files, read_experiment
from .load_run import RunRecord, read_run, run_names

IN_THE_PAPER = ("table1", "table2", "table3", "strength", "architectures", "correlation", "layerwise")
RUN_FILES = ("recipe.json", "metrics.jsonl", "result.json")
EXPECTED = "expected a folder that `shakeshake train` or `shakeshake reproduce` wrote"


@dataclass(frozen=True)
class Reading:
    """runs: those given by themselves; the runs of an experiment are in its cells. notes: what could not be read."""

    runs: tuple[RunRecord, ...] = ()
    experiments: tuple[ExperimentRecord, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def all_runs(self) -> list[RunRecord]:
        """Each run once, those of experiments first."""
        listed = [record for experiment in self.experiments for record in experiment.records] + list(self.runs)
        return list({id(record): record for record in listed}.values())


def read_paths(paths: Sequence[Path]) -> Reading:
    """Run directories, experiment directories and single result files, in any mixture.

    A folder of experiments without a result file yet is shown as its runs. Raises InputError when nothing is readable.
    """
    places = list(dict.fromkeys(Path(path).absolute() for path in paths))
    files: list[Path] = []
    folders: list[Path] = []
    told: list[str] = []
    for place in places:
        if place.suffix == ".json" and not place.is_dir():
            files.append(place)
        elif any((place / name).exists() for name in RUN_FILES) or not place.is_dir():
            folders.append(place)
        elif found := experiment_files(place):
            files += found
        elif cells := sorted(cell.parent for cell in place.glob("cells/*/recipe.json")):
            told.append(f"{place.name}: no table has been written here yet, these are its runs")
            folders += cells
        else:
            folders.append(place)
    read: dict[Path, RunRecord] = {}
    experiments = []
    for file in dict.fromkeys(files):
        experiment, notes = read_experiment(file, read)
        told += notes
        if experiment is not None:
            experiments.append(experiment)
    experiments.sort(key=lambda one: IN_THE_PAPER.index(one.name) if one.name in IN_THE_PAPER else len(IN_THE_PAPER))
    runs = [read_run(place, name) for place, name in zip(folders, run_names(folders), strict=True)]
    told += [f"{record.short}: {note}" for record in runs for note in record.notes]
    readable = [record for record in runs if record.readable]
    # A run of an experiment says here what it says about itself, under its short name.
    shown = {id(record): record for experiment in experiments for record in experiment.records}
    told += [f"{record.short}: {note}" for record in shown.values() for note in record.notes]
    if not (readable or experiments):
        raise InputError(f"runs: {'; '.join(told) or 'none was given'}; {EXPECTED}")
    return Reading(tuple(readable), tuple(experiments), tuple(dict.fromkeys(told)))
