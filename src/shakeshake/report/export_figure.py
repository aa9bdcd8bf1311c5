"""One chart as a file, for a document: .svg, which follows light and dark, or .png."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from ..errors import InputError
from ..utils.files import atomic_write
from . import static_charts, view_models
from .curves import WIDE, curves_told, error_figure
from .experiment import ExperimentRecord
from .load import Reading, read_paths
from .load_run import RunRecord
from .seed_averages import averaged, block_means, curves_of, grouped
from .svg import SETTINGS, standalone, to_png, to_svg

Drawing = tuple[Figure, str]

TITLES = {
    "curves": "Error by epoch",
    "correlation": "Correlation between the branches",
    "layerwise": "Correlation between layers of the branches",
    "strength": "Where beta lies given alpha",
    "differences": "Differences of the test errors",
    "table": "The table with ours beside the published figures",
}
CHARTS = tuple(TITLES)


def write_figure(paths: Sequence[Path], out: Path, chart: str = "curves") -> Path:
    """One of CHARTS of runs, or of an experiment, as a file.

    Runs that differ in the seed alone are one group in the charts of correlations; of an experiment, its rows are.
    Raises InputError for another chart or kind of file, when the paths hold several experiments or nothing to draw it
    from, and when the file cannot be written.
    """
    if chart not in CHARTS:
        raise InputError(f"chart: got {chart!r}, expected one of {', '.join(CHARTS)}")
    if out.suffix.lower() not in (".svg", ".png"):
        raise InputError(f"figure: got {out}, expected a name that ends in .svg or .png")
    reading = read_paths(paths)
    with mpl.rc_context(SETTINGS):
        figure, told = _draw(reading, chart)
        title = TITLES[chart]
        vector = out.suffix.lower() == ".svg"
        content = standalone(to_svg(figure, chart, title, told), title) if vector else to_png(figure)
    try:
        atomic_write(out, content.encode("utf-8", "replace") if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(f"figure: {out} cannot be written: {error.strerror or error}") from None
    return out


def _draw(reading: Reading, chart: str) -> Drawing:
    if len(reading.experiments) > 1:
        names = ", ".join(f"{record.name}.json" for record in reading.experiments)
        raise InputError(f"figure: there are several experiments here, expected one of their files ({names})")
    experiment = reading.experiments[0] if reading.experiments else None
    groups = view_models.groups_of_rows(experiment) if experiment else grouped(reading.runs)
    drawing = _CHARTS[chart](experiment, groups, list(reading.runs))
    if drawing is None:
        raise InputError(f"chart: there is nothing to draw {chart} from; {_NEEDS[chart]}")
    return drawing


def _curves(
    experiment: ExperimentRecord | None, groups: list[static_charts.Group], runs: list[RunRecord]
) -> Drawing | None:
    lines = [averaged(name, found) for name, found in groups] if experiment else curves_of(runs)
    if not any(line.rows for line in lines):
        return None
    return error_figure(lines, WIDE, legend=True), curves_told(lines)


def _correlation(
    _: ExperimentRecord | None, groups: list[static_charts.Group], runs: list[RunRecord]
) -> Drawing | None:
    known = [(name, found) for name, found in groups if any(record.analysis.correlation for record in found)]
    return static_charts.correlation(known) if known else None


def _layerwise(_: ExperimentRecord | None, groups: list[static_charts.Group], runs: list[RunRecord]) -> Drawing | None:
    known = [(name, pairs) for name, found in groups if (pairs := block_means(found, "layerwise"))]
    return static_charts.layerwise(known) if known else None


def _strength(
    experiment: ExperimentRecord | None, groups: list[static_charts.Group], runs: list[RunRecord]
) -> Drawing | None:
    rules = view_models.rules_of(experiment) if experiment else [one["rule"] for one in view_models.squares(runs)]
    return static_charts.strength(rules) if rules else None


def _differences(experiment: ExperimentRecord | None, *_: object) -> Drawing | None:
    return static_charts.differences(experiment) if experiment and experiment.differences else None


def _table(experiment: ExperimentRecord | None, *_: object) -> Drawing | None:
    return static_charts.table(experiment) if experiment and experiment.cells else None


_CHARTS: dict[str, Callable[..., Drawing | None]] = {
    "curves": _curves,
    "correlation": _correlation,
    "layerwise": _layerwise,
    "strength": _strength,
    "differences": _differences,
    "table": _table,
}
_NEEDS = {
    "curves": "expected runs that have finished an epoch",
    "correlation": "expected runs that `shakeshake analyze` has analysed",
    "layerwise": "expected runs that `shakeshake analyze` has analysed",
    "strength": "expected runs of networks with shaken branches",
    "differences": "expected an experiment with at least two analysed rows",
    "table": "expected an experiment that `shakeshake reproduce` wrote",
}
