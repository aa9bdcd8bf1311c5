"""The schema of the table files."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shakeshake.errors import InputError
from shakeshake.experiments.schema import PairedDifference, Table, TableDifference, read_table

RESULTS = Path(__file__).parents[2] / "results"
TABLES = [path for path in sorted(RESULTS.rglob("*.json")) if '"experiment":' in path.read_text()[:200]]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_published_results_load_and_keep_every_key(path):
    values = json.loads(path.read_text())
    values.pop("machines", None)  # added when the results were collected
    written = read_table(path).to_dict()
    assert values.keys() <= written.keys()
    for key in values.keys() - {"cells", "differences", "balanced_differences", "correlations"}:
        assert written[key] == values[key]
    for key in ("cells", "differences", "balanced_differences", "correlations"):
        for old, new in zip(values.get(key, ()), written[key], strict=True):
            assert {name: new[name] for name in old} == old


def cell(**changes):
    return {"row": "S-S-I", "column": "26 2x32d", "runs": [{"seed": 0, "last_error": 3.5}], **changes}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([cell(published="3.55")], r"cells\[0\].published: got '3.55', expected a finite number"),
        ([cell(n=True)], r"cells\[0\].n: got True, expected an integer"),
        ([cell(runs=[{"seed": 0}])], r"cells\[0\].runs\[0\].last_error: is missing, expected a finite number"),
        ([cell(runs=[{"seed": 0, "last_error": float("nan")}])], r"runs\[0\].last_error: got nan"),
        (["S-S-I"], r"cells\[0\]: got 'S-S-I', expected an object"),
        ({}, r"cells: got \{\}, expected a list"),
    ],
)
def test_a_wrong_type_is_an_error_that_names_the_field(cells, message):
    with pytest.raises(InputError, match=message):
        Table.from_dict({"experiment": "table1", "cells": cells})


def test_broken_entries_are_left_out_and_reported_when_asked():
    problems: list[str] = []
    table = Table.from_dict(
        {"experiment": "table1", "folds": "many", "cells": [cell(), {"row": 3}, cell(runs=[{"seed": 1}], mean="x")]},
        problems=problems,
    )
    assert [len(found.runs) for found in table.cells] == [1, 0]
    assert table.folds == 0
    assert [problem.split(":")[0] for problem in problems] == [
        "cells[1].row",
        "cells[2].runs[0].last_error",
        "cells[2].mean",
        "folds",
    ]


def test_the_schema_imports_no_torch():
    code = "import sys, shakeshake.experiments.schema; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_file_that_is_not_a_table_is_refused(tmp_path):
    path = tmp_path / "settings.json"
    for content in ("{}", "[", "3"):
        path.write_text(content)
        with pytest.raises(InputError, match=r"settings\.json: (cannot be read|is not a table)"):
            read_table(path)


@pytest.mark.parametrize("paired", [True, False])
def test_a_paired_table_is_judged_within_pairs(paired):
    inner = PairedDifference(difference=-2.0, low=-3.0, high=-1.0, level=0.95, verdict="lower", n=4, std=0.6)
    outer = TableDifference(
        difference=-1.5, low=-4.0, high=1.0, level=0.95, row="a", baseline="b", n=(5, 4), covers="seeds", paired=inner
    )
    (found,) = Table("t", (), paired=paired, differences=(outer,)).judged_differences
    assert (found.difference, found.low, found.high) == ((-2.0, -3.0, -1.0) if paired else (-1.5, -4.0, 1.0))
    assert found.is_significant is paired
    assert Table("t", (), paired=True, differences=(replace(outer, paired=None),)).judged_differences[0].low == -4.0
