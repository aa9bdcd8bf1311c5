"""Print a table for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .correlations import format_correlations
from .schema import Table, TableCell

PRECISION_NOTE = "(Differences are of networks evaluated in fp32, errors above in the precision of training.)"


def format_table(table: Table) -> Iterator[str]:
    """The title, the errors beside the published ones, and a sentence for each difference.

    A comparison on a user's own images has no scale of the paper, and a balanced error where its classes are uneven.
    """
    source, own = f" ({table.source})" if table.source else "", table.scale == "own"
    yield table.title if own else f"{table.title}{source}, scale {table.scale}"
    yield f"{'' if own else 'ours       '}{table.setting}"
    if table.published_setting:
        yield f"published  {table.published_setting}"
    published = any(cell.published is not None or cell.published_train is not None for cell in table.cells)
    best = any(cell.published_best is not None for cell in table.cells)
    columns: list[tuple[bool, str, int, Callable[[TableCell], str]]] = [
        (published, "published", 9, _published),
        (best, "best epoch", 10, lambda cell: number(cell.published_best)),
        (True, f"{'error' if own else 'ours'}, last epoch", 19, mean_and_std),
        (bool(table.balanced_differences), "balanced", 9, lambda cell: number(cell.balanced_mean)),
        (True, "n", 5, _runs),
        (table.divergence_is_a_result, "diverged", 9, _diverged),
        (True, "best", 7, lambda cell: number(cell.best_mean)),
        (True, "train", 7, lambda cell: number(cell.train_mean)),
        (True, "minutes", 8, minutes),
    ]
    shown = [column[1:] for column in columns if column[0]]
    notes = "" if table.meaningful else "   not meaningful"
    for column in table.columns:
        cells = list(table.column_cells(column.key))
        if not cells:
            continue
        width = max(len(column.label), *(len(table.labels[cell.row]) for cell in cells))
        yield ""
        yield "  ".join([f"{column.label:<{width}}", *(f"{head:>{size}}" for head, size, _ in shown)])
        for cell in cells:
            values = [f"{table.labels[cell.row]:<{width}}", *(f"{value(cell):>{size}}" for _, size, value in shown)]
            yield f"{'  '.join(values)}{notes}{_source(table, cell)}"
    if best:
        yield "(best epoch: published in the ICLR workshop version)"
    yield from format_correlations(table)
    yield ""
    yield from table.reading
    if own and not table.reading:
        yield "No verdict yet: it takes finished runs of E-E-B and of another rule."
    if not own and table.reading and any(run.precision != "fp32" for cell in table.cells for run in cell.runs):
        yield PRECISION_NOTE
    for cell in table.cells:
        where = f"{cell.row} ({cell.column})" if len(table.columns) > 1 else cell.row
        for failure in cell.failed:
            what, unit = "diverged" if failure.diverged else "failed", "run" if table.folds else "seed"
            yield f"{what}: {where}, {unit} {failure.seed}: {failure.reason}"


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


def _diverged(cell: TableCell) -> str:
    diverged, ended = sum(failure.diverged for failure in cell.failed), cell.n + len(cell.failed)
    return f"{diverged} of {ended}" if ended else "–"


def _source(table: Table, cell: TableCell) -> str:
    """Where the published errors come from, if not from the table's own source, and what else is published."""
    notes = []
    if cell.published_train is not None:
        notes.append(f"training error ~{cell.published_train:g}")
    if (cell.published is not None or cell.published_train is not None) and cell.source != table.source:
        notes.append(cell.source)
    return f"   (published: {', '.join(notes)})" if notes else ""
