"""The report: one self-contained HTML page from runs and experiments."""

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
from . import html_charts, view_models
from .load import Reading, read_paths
from .narrative import sentences
from .seed_averages import curves_of, grouped
from .theme import PALETTE, variables


def write_report(paths: Sequence[Path], out: Path) -> Path:
    """Write one HTML page that shows runs and experiments; the same files give the same bytes.

    What is missing or broken is told on the page. Raises InputError when nothing is readable or the page cannot be
    written.
    """
    check_target(out)
    page = render(read_paths(paths)).encode("utf-8", "replace")  # JSON may hold halves of characters, UTF-8 may not
    try:
        atomic_write(out, page)
    except OSError as error:
        raise InputError(f"out: {out} cannot be written: {error.strerror or error}") from None
    return out


def render(reading: Reading) -> str:
    """The page as text."""
    records = list(reading.runs)
    drawn = curves_of(records)
    figure = view_models.curve_figure(drawn, "runs")
    experiments = [view_models.experiment(record, i) for i, record in enumerate(reading.experiments)]
    details = [view_models.run(record) for record in reading.all_runs]
    view_models.spare_images(details)
    names = {id(record): one for record, one in zip(reading.all_runs, details, strict=True)}
    figures = [figure, *(one for experiment in experiments for one in experiment["curves"])]
    groups = [(one.short, [one]) for one in records] if drawn == records else grouped(records)
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=_title(reading),
            sentences=sentences(records) if records else [],
            notes=reading.notes,
            experiments=experiments,
            runs=view_models.without_empty_columns([names[id(record)] for record in records]),
            figure=figure,
            averaged=drawn != records,
            correlation=html_charts.correlations(groups),
            squares=view_models.squares(records),
            details=details,
            single=len(details) == 1,
            series={one["key"]: one["series"] for one in figures if one is not None},
            light=variables(dark=False),
            dark=variables(dark=True),
            hues=len(PALETTE),
            script=_file("page.js"),
            style=_file("page.css"),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"breakable": _breakable, "hash": _hash, "whole": _whole}
    return environment


def _file(name: str) -> Any:
    content = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return content if name.endswith(".html") else Markup(content)


def _title(reading: Reading) -> str:
    names = [record.title for record in reading.experiments] + [record.short for record in reading.runs]
    if len(names) <= 2:
        return " and ".join(names)
    if not reading.runs:
        return f"{len(names)} of the paper's experiments"
    if not reading.experiments:
        return f"{len(names)} runs side by side"
    counted = [(len(reading.experiments), "experiment"), (len(reading.runs), "run")]
    return " and ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in counted)


def _whole(text: str) -> Markup:
    """Keep the rules in a sentence, such as S-S-I, from being broken at their hyphens."""
    return Markup(re.sub(r"\b\w+-[\w.]+-[BI]\b", r'<span class="whole">\g<0></span>', str(escape(text))))


def _breakable(text: str) -> Markup:
    """Let a long name, such as shake_resnet26_2x96d, be broken behind an underscore."""
    return Markup(str(escape(text)).replace("_", "_<wbr>"))


def _hash(script: str) -> str:
    """For the page's content security policy: no other script runs, whatever a file name holds."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()
