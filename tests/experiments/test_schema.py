"""The schema of the table files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shakeshake.errors import InputError
from shakeshake.experiments.schema import Table, read_table

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
