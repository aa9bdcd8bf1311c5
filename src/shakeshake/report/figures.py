"""One chart of the report as an SVG file, which follows a light or dark colour scheme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..utils.files import atomic_write
from . import charts, curves
from .charts import Group
from .load import Contents, TableRecord, load
from .runs import RunRecord
from .seed_averages import average, curves_of, group_by_seed, layer_means
from .svg import Chart, grid
from .view_models import beta_squares, table_rules


@dataclass(frozen=True)
class Figure:
    """A chart by name. draw: returns None if there is nothing to draw; needs: what it is drawn from."""

    title: str
    needs: str
    draw: Callable[[TableRecord | None, list[Group], list[RunRecord]], Chart | None]


def write_figure(paths: Sequence[Path], out: Path, chart: str = "curves", column: str | None = None) -> Path:
    """Write one chart of runs, or of a table, to a file.

    Runs that differ only in the seed are one group in charts of correlations; in a table, its cells are the groups.

    Args:
        paths: as in write_report().
        out: a name that ends in .svg.
        chart: a name from FIGURES.
        column: key of a column of the table; None for all.

    Raises:
        InputError: for an unknown chart or column, another kind of file, several tables, nothing to draw, or an
            unwritable file.
    """
    if chart not in FIGURES:
        raise InputError(f"chart: got {chart!r}, expected one of {', '.join(FIGURES)}")
    if out.suffix.lower() != ".svg":
        raise InputError(f"figure: got {out.name}, expected .svg")
    content = _draw(load(paths), chart, column).to_svg(FIGURES[chart].title).encode("utf-8", "replace")
    try:
        atomic_write(out, content)
    except OSError as error:
        raise InputError(f"figure: {out} cannot be written: {error.strerror or error}") from None
    return out


def _draw(contents: Contents, chart: str, column: str | None) -> Chart:
    if len(contents.tables) > 1:
        names = ", ".join(f"{record.table.name}.json" for record in contents.tables)
        raise InputError(f"figure: got a folder of several tables, expected one of their files ({names})")
    record = contents.tables[0] if contents.tables else None
    if column is not None:
        if record is None:
            raise InputError(f"column: got {column!r} for runs, expected an experiment's table")
        record = record.only(column)
    groups: list[Group] = [*record.groups()] if record else [*group_by_seed(contents.runs)]
    drawn = FIGURES[chart].draw(record, groups, list(contents.runs))
    if drawn is None:
        raise InputError(f"chart: there is nothing to draw {chart} from; expected {FIGURES[chart].needs}")
    return drawn


def _curves(record: TableRecord | None, groups: list[Group], runs: list[RunRecord]) -> Chart | None:
    lines = [average(*group) for group in record.groups(record.rows)] if record else curves_of(runs)
    columns = curves.TEST_ERROR if record else curves.ERRORS
    return (
        curves.labelled_errors(lines, columns) if any(one.series(name) for one in lines for name in columns) else None
    )


def _layerwise(_: TableRecord | None, groups: list[Group], __: list[RunRecord]) -> Chart | None:
    maps = [(name, found) for name, runs in groups if (found := charts.layer_maps(layer_means(runs)))]
    return grid(maps, columns=6) if maps else None


def _strength(record: TableRecord | None, _: list[Group], runs: list[RunRecord]) -> Chart | None:
    squares = beta_squares(record.all_runs, table_rules(record)) if record else beta_squares(runs)
    return grid([("", squares)], columns=5) if squares else None


ANALYSED = "runs that `shakeshake analyze` has analysed"
FIGURES = {
    "curves": Figure("Error by epoch", "runs that have finished an epoch", _curves),
    "correlation": Figure(
        "Correlation between the branches", ANALYSED, lambda record, groups, runs: charts.correlations(groups)
    ),
    "layerwise": Figure("Correlation between the layers of the branches", ANALYSED, _layerwise),
    "strength": Figure("β given α", "runs of networks with two shaken branches", _strength),
    "differences": Figure(
        "Differences of the test errors",
        "a table with at least two analysed rows",
        lambda record, groups, runs: charts.differences(record) if record else None,
    ),
}
