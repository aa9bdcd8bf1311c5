"""Damaged and missing parts of analyses and tables: each is reported, the rest is shown."""

from __future__ import annotations

import base64
import json
import shutil

import pytest

from shakeshake.errors import InputError
from shakeshake.report.load import load
from shakeshake.report.page import write_report
from shakeshake.report.seed_averages import average

BROKEN = {
    "branch_correlation": [{"block": "b", "pairs": [{"branches": [0, 1], "correlation": 7.0}]}],
    "layerwise": [{"block": "b", "layers": ["a", "b"], "pairs": [{"branches": [0, 1], "matrix": [[1, 0]]}]}],
    "confusion": [[1, 2], [3]],
    "calibration": {"ece": float("nan"), "bins": []},
    "mistakes": [{"index": 0, "truth": 99, "predicted": 0, "probability": 1, "truth_probability": 0}],
    "strength": {"rule": "S-S-I", "expected": 0.3, "measured": 0.3, "draws": 9, "histogram": [["many"]]},
    "gap": "wide",
    "classes": {"a": 1},
}


@pytest.mark.parametrize("part", BROKEN)
def test_damaged_part_of_an_analysis_is_reported_and_left_out(tmp_path, make_run, make_analysis, part):
    run = make_run(tmp_path / "run")
    whole = load([_with(run, make_analysis())]).runs[0].analysis
    contents = load([_with(run, {**make_analysis(), part: BROKEN[part]})])
    (problem,) = [problem for problem in contents.problems if f"that is left out: {part}" in problem]
    assert problem.startswith("run: analysis.json has a broken part")
    kept = contents.runs[0].analysis
    untouched = {"branch_correlation", "layerwise", "calibration", "strength"} - {part}
    assert not getattr(kept, part)
    assert all(getattr(kept, name) == getattr(whole, name) and getattr(whole, name) for name in untouched)
    page = write_report([run], tmp_path / "report.html").read_text()
    assert "6.00\u00a0%" in page


def _with(run, analysis):
    (run / "analysis.json").write_text(json.dumps(analysis))
    return run


def test_only_png_becomes_an_image(tmp_path, make_run, make_analysis):
    found = make_analysis()
    svg = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>").decode()
    found["mistakes"][0]["png"] = svg
    found["mistakes"][1]["png"] = '"><img src=x onerror=alert(1)>'
    found["mistakes"][2]["png"] = None
    page = write_report([_with(make_run(tmp_path / "run"), found)], tmp_path / "report.html").read_text()
    assert page.count("<img ") == 9
    assert svg not in page
    assert "onerror" not in page
    assert page.count("is <bdi>") == 12  # the predictions stay


def test_table_with_damaged_cells_and_missing_runs_loads(tmp_path, make_experiment):
    path = make_experiment(tmp_path / "exp")
    found = json.loads(path.read_text())
    found["cells"][0]["runs"][0]["path"] = "../../etc"
    found["cells"][2] = {"row": "S-S-I"}
    found["differences"].append({"row": "S-S-I", "low": 3})
    path.write_text(json.dumps(found))
    shutil.rmtree(tmp_path / "exp" / "cells" / "cifar10-shake_resnet14_2x16d-S-E-I-seed0")
    (path.parent / "strength.json").write_text('{"experiment": "strength", "cells": [')
    (path.parent / "settings.json").write_text('{"scale": "small"}')
    contents = load([path.parent])
    problems = "\n".join(contents.problems)
    assert "table1: the path of a run, '../../etc', leads out of the folder" in problems
    assert "table1: table1.json has a broken part that is left out: cells[2].column: is missing" in problems
    assert "table1: table1.json has a broken part that is left out: differences[2].difference: is missing" in problems
    assert "seed0: there is no such folder, so curves and analyses are missing" in problems
    assert "strength.json: not shown, because strength.json is not valid JSON" in problems
    assert "settings.json" not in problems
    page = write_report([path.parent], tmp_path / "report.html").read_text()
    assert "36.10" in page  # the mean of the row whose run was not read
    assert "33.90" in page


def test_folder_without_tables_shows_its_runs(tmp_path, make_run):
    for name in ("a", "b"):
        make_run(tmp_path / "exp" / "cells" / name)
    contents = load([tmp_path / "exp"])
    assert [record.name for record in contents.runs] == ["a", "b"]
    assert contents.problems == ("exp: has no table yet, so its runs are shown",)


def test_file_that_is_not_a_table_raises_one_line(tmp_path):
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"^runs: other\.json: not shown, because it is not a table .*expected a"):
        load([tmp_path / "other.json"])
    with pytest.raises(InputError, match=r"^runs: nowhere\.json: not shown, because nowhere\.json is missing"):
        load([tmp_path / "nowhere.json"])


def test_mean_curve_covers_epochs_that_all_runs_have_tested(tmp_path, make_run):
    runs = [make_run(tmp_path / "a", last=4.0), make_run(tmp_path / "b", last=6.0), make_run(tmp_path / "c", epochs=8)]
    records = load(runs).runs
    mean = average("mean", records[:2])
    assert mean.columns["test_error"][-1] == pytest.approx(5.0)
    assert mean.bands["test_error"][-1] == pytest.approx((5 - 2**0.5, 5 + 2**0.5))
    assert mean.columns["test_error"][0] is None  # epoch 1 was not tested
    assert average("all", records).epochs == tuple(range(1, 9))
