"""Which paths are runs and which are tables, and everything that can be read of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError
from ..experiments.schema import Table, TableCell, is_table
from .runs import RunRecord, read_fields, read_object, read_run, run_names
from .svg import clean

IN_PAPER_ORDER = ("table1", "table2", "table3", "strength", "architectures", "correlation", "layerwise")
RUN_FILES = ("recipe.json", "metrics.jsonl", "result.json")
EXPECTED = "expected a folder that `shakeshake train` or `shakeshake reproduce` wrote"


@dataclass(frozen=True)
class TableRecord:
    """A table and the runs of its cells, as far as they could be read.

    Attributes:
        runs: path of a run as the table has it -> the run.
    """

    table: Table
    runs: dict[str, RunRecord] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def rows(self) -> dict[str, str]:
        """Key -> label. Undeclared rows, in a damaged file, have their key as label."""
        return {cell.row: cell.row for cell in self.table.cells} | self.table.labels

    @property
    def columns(self) -> dict[str, str]:
        """Key -> label of the columns that have cells."""
        labels = {column.key: column.label for column in self.table.columns}
        found = {cell.column for cell in self.table.cells}
        declared = {key: label for key, label in labels.items() if key in found}
        return declared | {cell.column: labels.get(cell.column, cell.column) for cell in self.table.cells}

    @property
    def all_runs(self) -> list[RunRecord]:
        """The runs of all cells, cell by cell."""
        return [run for cell in self.table.cells for run in self.runs_of(cell)]

    def runs_of(self, cell: TableCell) -> list[RunRecord]:
        """The readable runs of a cell."""
        return [self.runs[run.path] for run in cell.runs if run.path in self.runs]

    def only(self, column: str) -> TableRecord:
        """The table with a single column. Raises InputError for an unknown one."""
        if column not in self.columns:
            raise InputError(f"column: got {column!r}, expected one of {', '.join(self.columns)}")
        cells = tuple(self.table.column_cells(column))
        differences = tuple(one for one in self.table.differences if one.column == column)
        return replace(self, table=replace(self.table, cells=cells, differences=differences))

    def groups(self, names: Mapping[str, str] | None = None) -> Iterator[tuple[str, list[RunRecord]]]:
        """A name and the runs of each cell. names: of the rows, by default their keys."""
        several = len(self.columns) > 1
        for column, label in self.columns.items():
            for cell in self.table.column_cells(column):
                if runs := self.runs_of(cell):
                    name = names[cell.row] if names else cell.row
                    yield (f"{name}, {label.split(':')[0]}" if several else name), runs


@dataclass(frozen=True)
class Contents:
    """What a report shows.

    Attributes:
        runs: runs that were given themselves; the runs of a table are in its record.
        problems: sentences about what could not be read.
    """

    runs: tuple[RunRecord, ...] = ()
    tables: tuple[TableRecord, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def all_runs(self) -> list[RunRecord]:
        """Each run once, those of tables first."""
        listed = [run for table in self.tables for run in table.all_runs] + list(self.runs)
        return list({id(run): run for run in listed}.values())


def load(paths: Sequence[Path]) -> Contents:
    """Read run directories, folders of tables and table files, in any mixture.

    A folder of an experiment that has no table yet is shown as its runs.

    Raises:
        InputError: if nothing is readable.
    """
    files: list[Path] = []
    folders: list[Path] = []
    problems: list[str] = []
    for path in dict.fromkeys(Path(path).absolute() for path in paths):
        if path.suffix == ".json" and not path.is_dir():
            files.append(path)
        elif any((path / name).exists() for name in RUN_FILES) or not path.is_dir():
            folders.append(path)
        elif found := _table_files(path):
            files += found
        elif cells := sorted(cell.parent for cell in path.glob("cells/*/recipe.json")):
            problems.append(f"{path.name}: has no table yet, so its runs are shown")
            folders += cells
        else:
            folders.append(path)
    cache: dict[Path, RunRecord] = {}
    tables = []
    for file in dict.fromkeys(files):
        try:
            table = _read_table(file, cache)
        except InputError as error:
            problems.append(f"{clean(file.name)}: not shown, because {error}")
            continue
        problems += (f"{clean(table.table.name)}: {problem}" for problem in table.problems)
        tables.append(table)
    order = {name: i for i, name in enumerate(IN_PAPER_ORDER)}
    tables.sort(key=lambda record: order.get(record.table.name, len(order)))
    runs = [read_run(path, name) for path, name in zip(folders, run_names(folders), strict=True)]
    of_tables = {id(run): run for table in tables for run in table.all_runs}.values()
    problems += (f"{run.short}: {problem}" for run in (*runs, *of_tables) for problem in run.problems)
    readable = tuple(run for run in runs if run.readable)
    if not (readable or tables):
        raise InputError(f"runs: {'; '.join(problems) or 'got no path'}; {EXPECTED}")
    return Contents(readable, tuple(tables), tuple(dict.fromkeys(problems)))


def _table_files(folder: Path) -> list[Path]:
    """The table files in a folder, and those that are not valid JSON."""
    files = []
    for path in sorted(folder.glob("*.json")):
        try:
            if is_table(json.loads(path.read_text(encoding="utf-8", errors="replace"))):
                files.append(path)
        except (OSError, ValueError, RecursionError):
            files.append(path)
    return files


def _read_table(path: Path, cache: dict[Path, RunRecord]) -> TableRecord:
    """Read a table and its runs; ``cache`` holds runs that other tables have read. Raises InputError."""
    problems: list[str] = []
    values = read_object(path, problems)
    if not is_table(values):
        raise InputError("; ".join(problems) or "it is not a table of `shakeshake reproduce` or `compare`")
    table = read_fields(Table.from_dict, values, path.name, problems)
    runs: dict[str, RunRecord] = {}
    unreadable: dict[str, list[str]] = {}
    for run in (run for cell in table.cells for run in cell.runs):
        record = _read_run_of(path.parent, run.path, cache)
        if record is None:
            problems.append(f"the path of a run, {clean(run.path)!r}, leads out of the folder")
        elif record.readable:
            runs[run.path] = record
        else:
            unreadable.setdefault("; ".join(record.problems), []).append(record.short)
    for why, names in unreadable.items():
        which = names[0] if len(names) == 1 else f"{len(names)} runs, such as {names[0]}"
        problems.append(f"{which}: {why}, so curves and analyses are missing")
    if not any(cell.runs for cell in table.cells):
        problems.append("has no finished run yet")
    return TableRecord(table, runs, tuple(dict.fromkeys(problems)))


def _read_run_of(folder: Path, name: str, cache: dict[Path, RunRecord]) -> RunRecord | None:
    """The run at a path relative to the folder; None for a path outside of it."""
    path = folder / name
    if "\0" in name or path == folder or not path.resolve().is_relative_to(folder.resolve()):
        return None
    path = path.resolve()
    if path not in cache:
        cache[path] = read_run(path, clean(path.name))
    return cache[path]
