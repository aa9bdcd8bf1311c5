"""The JSON file of a table, written by ``reproduce`` and ``compare`` and read by the report. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..utils.schema import JsonSchema

FORMAT = 1


@dataclass(frozen=True)
class TableColumn(JsonSchema):
    """A column."""

    key: str
    label: str


@dataclass(frozen=True)
class TableRow(TableColumn):
    """A row. rule: its shake rule, where the row is one."""

    rule: str | None = None


@dataclass(frozen=True)
class TableRun(JsonSchema):
    """A finished run of a cell. Errors in %; path relative to the folder of the table; seconds of training."""

    seed: int
    last_error: float
    fold: int = 0
    path: str = ""
    balanced_error: float | None = None
    best_error: float | None = None
    best_epoch: int | None = None
    train_error: float | None = None
    seconds: float | None = None
    precision: str = ""
    device: str | None = None


@dataclass(frozen=True)
class TableFailure(JsonSchema):
    """A run that failed. seed: its number among the runs of the cell, which is the seed unless there are folds."""

    seed: int
    reason: str

    @property
    def diverged(self) -> bool:
        """Whether a loss or weight became infinite or NaN (``Trainer.check_finite``)."""
        return re.search(r"the loss is (nan|-?inf)|is not finite", self.reason) is not None


@dataclass(frozen=True)
class PublishedErrors:
    """One row in one column, and the errors in % that the paper has for it.

    Attributes:
        row, column: Keys in the ``rows`` and ``columns``.
        published: Test error of the last epoch, or None. The other ``published_*`` likewise: the error of the best
            epoch in the workshop version, the training error, the number of runs.
        published_for: Network that was published with these errors, as the paper writes it.
        approximate: Whether the errors were read off a curve.
        source: Table or figure of the paper.
    """

    row: str
    column: str
    _: KW_ONLY
    published: float | None = None
    published_for: str | None = None
    published_best: float | None = None
    published_train: float | None = None
    published_runs: int | None = None
    approximate: bool = False
    source: str = field(default="", metadata={"key": "place"})


@dataclass(frozen=True)
class TableCell(PublishedErrors, JsonSchema):
    """The measured errors of a row in a column, beside the published ones. Errors in %.

    Attributes:
        name: Folder of the cell's runs, without seed and fold.
        setting: Network and training in words. recipe: The same as recipe.json has it.
        failed, missing: Runs that failed, and numbers of the runs that have not been made.
        mean, std: Of the last epoch's test error over the runs. The other means likewise.
    """

    name: str = ""
    setting: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    runs: tuple[TableRun, ...] = ()
    failed: tuple[TableFailure, ...] = ()
    missing: tuple[int, ...] = ()
    n: int = 0
    mean: float | None = None
    std: float | None = None
    balanced_mean: float | None = None
    best_mean: float | None = None
    train_mean: float | None = None
    seconds_mean: float | None = None


@dataclass(frozen=True, kw_only=True)
class Difference(JsonSchema):
    """A mean difference between two errors in points, and Student's interval for it.

    Attributes:
        low, high: Ends of the interval at confidence ``level``.
        seeds_needed: Seeds of each row with which a true difference of one point would be shown in 80 % of cases,
            estimated from the spread so far. None where the difference is shown already or the estimate is impossible.
    """

    difference: float
    low: float
    high: float
    level: float
    verdict: Literal["lower", "higher", "can't tell"] = "can't tell"
    seeds_needed: int | None = None


@dataclass(frozen=True, kw_only=True)
class PairedDifference(Difference):
    """The difference within pairs of equal seeds. n: pairs. std: standard deviation of the differences."""

    n: int
    std: float


@dataclass(frozen=True, kw_only=True)
class TableDifference(Difference):
    """Mean error of a row minus that of the baseline.

    Attributes:
        n: Runs of the row and of the baseline. images: Test images that they share.
        covers: Sources of chance that the interval covers.
        paired: The difference within pairs of equal seeds, or None with fewer than two pairs.
    """

    row: str
    baseline: str = field(metadata={"key": "against"})
    n: tuple[int, int]
    images: int = 0
    covers: str = ""
    column: str = ""
    paired: PairedDifference | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0 and covers the variation between seeds."""
        return min(self.n) > 1 and not self.low <= 0 <= self.high

    def within_pairs(self) -> TableDifference:
        """Return the difference with the value and interval within pairs of equal seeds, if there are pairs."""
        if (one := self.paired) is None:
            return self
        fields = {name: getattr(one, name) for name in ("difference", "low", "high", "level", "verdict")}
        return replace(self, **fields, n=(one.n, one.n), covers="the seeds, in pairs")


@dataclass(frozen=True)
class Verdict(JsonSchema):
    """What a comparison says of a row. of: "error" or "balanced error"."""

    row: str
    of: str
    verdict: Literal["helps", "hurts", "can't tell"]
    sentence: str


@dataclass(frozen=True)
class Correlation(JsonSchema):
    """A mean correlation of a row: between the branches of ``block``, or between the layers ``layers`` (LiRj).

    seeds: the value of each run. over: how many values the mean is of.
    """

    row: str
    mean: float
    block: str = ""
    layers: str = ""
    seeds: tuple[float, ...] = ()
    over: int = 0


@dataclass(frozen=True)
class Table(JsonSchema):
    """A table or figure of the paper, or a comparison on a user's own images (then ``source`` is empty).

    Attributes:
        name: Key of the experiment, such as table1; also the name of its files.
        source: Table or figure of the paper.
        kind: Which chart is drawn from it.
        scale: Size of the experiment. meaningful: False where the errors of that scale mean nothing.
        setting: Networks and training in words. published_setting: The same of the published errors.
        divergence_is_a_result: Whether diverged runs count as results, not as failures.
        seeds: Seeds of each cell. folds: Folds of each seed, 0 without cross-validation.
        paired: Whether rows are judged by the differences within pairs of equal seeds.
        differences: Rows against the baseline. balanced_differences: The same in balanced error.
        reading: One sentence for each difference. verdicts: Those of a comparison.
        correlations, published_correlations: Of the kinds correlation and layerwise.
        path: The JSON file. Not part of it.
    """

    name: str = field(metadata={"key": "experiment"})
    cells: tuple[TableCell, ...]
    format: int = FORMAT
    title: str = ""
    source: str = field(default="", metadata={"key": "place"})
    kind: str = "table"
    scale: str = ""
    meaningful: bool = True
    setting: str = ""
    published_setting: str = ""
    unit: str = "test error, %"
    rows: tuple[TableRow, ...] = ()
    columns: tuple[TableColumn, ...] = ()
    seeds: tuple[int, ...] = ()
    folds: int = 0
    paired: bool = False
    divergence_is_a_result: bool = False
    differences: tuple[TableDifference, ...] = ()
    balanced_differences: tuple[TableDifference, ...] = ()
    reading: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    correlations: tuple[Correlation, ...] = ()
    published_correlations: tuple[Correlation, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)
    path: Path | None = field(default=None, metadata={"json": False}, compare=False)

    @property
    def labels(self) -> dict[str, str]:
        """The label of each row by its key."""
        return {row.key: row.label for row in self.rows}

    @property
    def judged_differences(self) -> tuple[TableDifference, ...]:
        """The differences with the intervals that the table is judged by."""
        return tuple(one.within_pairs() if self.paired else one for one in self.differences)

    @property
    def failed(self) -> bool:
        """Whether any run failed, other than by diverging where that is a result."""
        failures = [failure for cell in self.cells for failure in cell.failed]
        return any(not (self.divergence_is_a_result and failure.diverged) for failure in failures)

    def column_cells(self, column: str) -> Iterator[TableCell]:
        """The cells of a column in the order of the rows; cells of undeclared rows last."""
        order = list(self.labels)
        cells = (cell for cell in self.cells if cell.column == column)
        yield from sorted(cells, key=lambda cell: order.index(cell.row) if cell.row in order else len(order))

    def to_json(self) -> str:
        """The content of the JSON file."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def is_table(values: Any) -> bool:
    """Whether a JSON value looks like a table."""
    return isinstance(values, dict) and "experiment" in values and "cells" in values


def read_table(path: Path, problems: list[str] | None = None) -> Table:
    """Read a table's JSON file.

    Args:
        path: The file.
        problems: See ``JsonSchema.from_dict``: with it, broken cells and entries are left out and reported here.

    Raises:
        InputError: The file cannot be read or is not a table.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not is_table(values):
        raise InputError(f"{path}: is not a table, expected a file that `shakeshake reproduce` or `compare` wrote")
    return replace(Table.from_dict(values, problems=problems), path=path)
