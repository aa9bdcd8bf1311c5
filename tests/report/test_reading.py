"""Broken and missing parts of analyses and experiments: each is told, the rest is shown."""

from __future__ import annotations

import base64
import json
import shutil

import pytest

from shakeshake.errors import InputError
from shakeshake.report.load import read_paths
from shakeshake.report.page import write_report
from shakeshake.report.seed_averages import averaged

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
def test_a_broken_part_of_an_analysis_is_told_and_left_out(tmp_path, make_run, make_analysis, part):
    run = make_run(tmp_path / "run")
    whole = read_paths([_with(run, make_analysis())]).runs[0].analysis
    reading = read_paths([_with(run, {**make_analysis(), part: BROKEN[part]})])
    assert f"run: analysis.json has a broken part, {part}, which is left out" in reading.notes
    kept = reading.runs[0].analysis
    untouched = {"correlation", "layerwise", "calibration", "strength"} - {part.removeprefix("branch_")}
    assert all(getattr(kept, name) == getattr(whole, name) and getattr(whole, name) for name in untouched)
    page = write_report([run], tmp_path / "report.html").read_text()
    assert "6.00\u00a0%" in page


def _with(run, analysis):
    (run / "analysis.json").write_text(json.dumps(analysis))
    return run


def test_only_a_png_becomes_an_image(tmp_path, make_run, make_analysis):
    found = make_analysis()
    svg = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>").decode()
    found["mistakes"][0]["png"] = svg
    found["mistakes"][1]["png"] = '"><img src=x onerror=alert(1)>'
    found["mistakes"][2]["png"] = None
    page = write_report([_with(make_run(tmp_path / "run"), found)], tmp_path / "report.html").read_text()
    assert page.count("<img ") == 9
    assert svg not in page
    assert "onerror" not in page
    assert page.count("is <bdi>") == 12  # told, all the same


def test_an_experiment_with_broken_cells_and_lost_runs(tmp_path, make_experiment):
    path = make_experiment(tmp_path / "exp")
    found = json.loads(path.read_text())
    found["cells"][0]["runs"][0]["path"] = "../../etc"
    found["cells"][2] = {"row": "S-S-I"}
    found["differences"].append({"row": "S-S-I", "low": 3})
    path.write_text(json.dumps(found))
    shutil.rmtree(tmp_path / "exp" / "cells" / "cifar10-shake_resnet14_2x16d-S-E-I-seed0")
    (path.parent / "strength.json").write_text('{"experiment": "strength", "cells": [')
    (path.parent / "settings.json").write_text('{"scale": "small"}')
    reading = read_paths([path.parent])
    told = "\n".join(reading.notes)
    assert "table1: the path of a run, '../../etc', leads out of the folder" in told
    assert "table1: 1 of its 4 cells are broken and left out" in told
    assert "table1: some of its differences are broken and left out" in told
    assert "seed0 there is no such folder: its curves and analyses are missing" in told
    assert "strength.json: not shown, because strength.json is not valid JSON" in told
    assert "settings.json" not in told
    page = write_report([path.parent], tmp_path / "report.html").read_text()
    assert "36.10" in page  # the mean of the row whose run was not read
    assert "33.90" in page


def test_a_folder_without_tables_shows_its_runs(tmp_path, make_run):
    for name in ("a", "b"):
        make_run(tmp_path / "exp" / "cells" / name)
    reading = read_paths([tmp_path / "exp"])
    assert [record.name for record in reading.runs] == ["a", "b"]
    assert reading.notes == ("exp: no table has been written here yet, these are its runs",)


def test_a_file_that_is_no_experiment_is_one_sentence(tmp_path):
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"^runs: other\.json: not shown, because it holds no results .*expected a"):
        read_paths([tmp_path / "other.json"])
    with pytest.raises(InputError, match=r"^runs: nowhere\.json: not shown, because nowhere\.json is missing"):
        read_paths([tmp_path / "nowhere.json"])


def test_seeds_are_averaged_where_all_have_been_tested(tmp_path, make_run):
    runs = [make_run(tmp_path / "a", last=4.0), make_run(tmp_path / "b", last=6.0), make_run(tmp_path / "c", epochs=8)]
    records = read_paths(runs).runs
    mean = averaged("mean", records[:2])
    assert mean.rows[-1]["test_error"] == pytest.approx(5.0)
    assert mean.rows[-1]["test_error_range"] == pytest.approx((4.0, 6.0))
    assert mean.rows[0]["test_error"] is None  # epoch 1 was not tested
    assert [row["epoch"] for row in averaged("all", records).rows] == list(range(1, 9))
