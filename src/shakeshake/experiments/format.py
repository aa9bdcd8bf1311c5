"""Print a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from .correlations import format_correlations
from .schema import Table, TableCell


def format_table(table: Table) -> Iterator[str]:
    """The published errors beside ours, last epoch first and best epoch second; then the differences."""
    yield f"{table.title}{f' ({table.source})' if table.source else ''}, scale {table.scale}"
    yield f"ours       {table.setting}"
    if table.published_setting:
        yield f"published  {table.published_setting}"
    published = any(cell.published is not None or cell.published_train is not None for cell in table.cells)
    best = any(cell.published_best is not None for cell in table.cells)
    for column in table.columns:
        cells = list(table.column_cells(column.key))
        if not cells:
            continue
        width = max(len(column.label), *(len(table.labels[cell.row]) for cell in cells))
        heads = [f"{'published':>9}"] * published + [f"{'best epoch':>10}"] * best
        heads += [f"{'ours, last epoch':>19}", f"{'n':>5}", f"{'best':>7}", f"{'train':>7}", f"{'minutes':>8}"]
        yield ""
        yield f"{column.label:<{width}}  {'  '.join(heads)}"
        for cell in cells:
            values = [f"{_published(cell):>9}"] * published + [f"{number(cell.published_best):>10}"] * best
            values += [f"{mean_and_std(cell):>19}", f"{_runs(cell):>5}", f"{number(cell.best_mean):>7}"]
            values += [f"{number(cell.train_mean):>7}", f"{minutes(cell):>8}"]
            notes = "" if table.meaningful else "   not meaningful"
            yield f"{table.labels[cell.row]:<{width}}  {'  '.join(values)}{notes}{_source(table, cell)}"
    if best:
        yield "(best epoch: published in the ICLR workshop version)"
    yield from format_correlations(table)
    if table.reading:
        yield ""
        yield from table.reading
        if any(run.precision != "fp32" for cell in table.cells for run in cell.runs):
            yield "(Differences are of networks evaluated in fp32, errors above in the precision of training.)"
    yield from failures(table)


def failures(table: Table) -> Iterator[str]:
    """A line for each run that failed."""
    for cell in table.cells:
        where = f"{cell.row} ({cell.column})" if len(table.columns) > 1 else cell.row
        for failure in cell.failed:
            yield f"failed: {where}, {'run' if table.folds else 'seed'} {failure.seed}: {failure.reason}"


def mean_and_std(cell: TableCell) -> str:
    """``4.27 ± 0.10`` of the last epoch's errors."""
    return number(cell.mean) + ("" if cell.std is None else f" ± {cell.std:.2f}")


def minutes(cell: TableCell) -> str:
    """Minutes of training, mean over the runs."""
    return number(None if cell.seconds_mean is None else cell.seconds_mean / 60, 1)


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def _published(cell: TableCell) -> str:
    return f"~{cell.published:g}" if cell.approximate and cell.published is not None else number(cell.published)


def _runs(cell: TableCell) -> str:
    wanted = cell.n + len(cell.missing) + len(cell.failed)
    return str(cell.n) if cell.n == wanted else f"{cell.n}/{wanted}"


def _source(table: Table, cell: TableCell) -> str:
    """Where the published errors come from, if not from the table's own source, and what else is published."""
    notes = []
    if cell.published_train is not None:
        notes.append(f"training error ~{cell.published_train:g}")
    if (cell.published is not None or cell.published_train is not None) and cell.source != table.source:
        notes.append(cell.source)
    return f"   (published: {', '.join(notes)})" if notes else ""
