"""The report: one self-contained HTML page about runs and tables."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ..errors import InputError
from ..train.run_directory import check_target
from ..utils.files import atomic_write
from . import charts, theme, view_models
from .load import Contents, load
from .narrative import sentences
from .seed_averages import MAX_SINGLE_CURVES, curves_of, group_by_seed
from .svg import safe


def write_report(paths: Sequence[str | Path] | str | Path, out: str | Path) -> Path:
    """Write one self-contained HTML page about runs and tables.

    The same files give the same page, byte for byte. Parts that are missing or damaged are left out and listed.

    Args:
        paths: run directories, folders of tables, and table files, in any mixture; or a single one.
        out: the HTML file.

    Returns:
        ``out`` as a Path.

    Raises:
        InputError: if nothing is readable or the page cannot be written.
    """
    out = Path(out)
    check_target(out)
    listed = [paths] if isinstance(paths, str | Path) else paths
    page = render(load([Path(path) for path in listed])).encode("utf-8", "replace")
    try:
        atomic_write(out, page)
    except OSError as error:
        raise InputError(f"out: {out} cannot be written: {error.strerror or error}") from None
    return out


def render(contents: Contents) -> str:
    """The page as text."""
    runs = list(contents.runs)
    lines = curves_of(runs)
    averaged = len(runs) > MAX_SINGLE_CURVES
    figure = view_models.error_figure(lines, "runs")
    tables = [view_models.table(record, i) for i, record in enumerate(contents.tables)]
    details = [view_models.run(record) for record in contents.all_runs]
    view_models.limit_images(details)
    of_record = {id(record): one for record, one in zip(contents.all_runs, details, strict=True)}
    figures = [figure, *(one for table in tables for one in table["curves"])]
    groups = group_by_seed(runs) if averaged else [(one.short, [one]) for one in runs]
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=_title(contents),
            sentences=sentences(runs) if runs else [],
            problems=contents.problems,
            tables=tables,
            runs=view_models.drop_empty_columns([of_record[id(record)] for record in runs]),
            figure=figure,
            averaged=averaged,
            correlation=view_models.wide_and_narrow(charts.correlations, groups),
            squares=view_models.beta_squares(runs),
            details=details,
            single=len(details) == 1,
            series={one["key"]: one["series"] for one in figures if one is not None},
            hues=theme.HUES,
            script=_file("page.js"),
            style=_file("charts.css") + _file("page.css"),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        finalize=safe,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"breakable": _breakable, "hash": _hash, "keep_rules": _keep_rules}
    return environment


def _file(name: str) -> Any:
    content = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return content if name.endswith(".html") else Markup(content)


def _title(contents: Contents) -> str:
    names = [record.table.title for record in contents.tables] + [run.short for run in contents.runs]
    if len(names) <= 2:
        return " and ".join(names)
    numbers = [(len(contents.tables), "table"), (len(contents.runs), "run")]
    return " and ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in numbers if n)


def _keep_rules(text: str) -> Markup:
    """Keep rules such as S-S-I on one line."""
    return Markup(re.sub(r"\b\w+-[\w.]+-[BI]\b", r'<span class="whole">\g<0></span>', str(escape(safe(text)))))


def _breakable(text: str) -> Markup:
    """Allow line breaks after the underscores of a long name, such as shake_resnet26_2x96d."""
    return Markup(str(escape(safe(text))).replace("_", "_<wbr>"))


def _hash(script: str) -> str:
    """For the content security policy, which allows no other script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()
