"""`shakeshake reproduce` as a process: a new table, resumed, shared between processes, and usage errors."""

import csv
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from helpers import finish, shakeshake_output, start
from shakeshake.experiments import tables
from shakeshake.experiments.plan import plan_reproduction

TWO_ROWS = ("table1", "--scale", "smoke", "--rows", "E-E-B,S-S-I", "--jobs", "2")


def start_reproduce(*arguments: object) -> subprocess.Popen[str]:
    return start("-m", "shakeshake", "reproduce", *arguments)


def reproduce(*arguments: object, code: int = 0) -> str:
    return shakeshake_output("reproduce", *arguments, code=code)


def cell(folder: Path, rule: str, seed: int = 0) -> Path:
    return folder / "cells" / f"digits-shake_resnet8_2x4d-{rule}-seed{seed}"


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> tuple[Path, str]:
    """Two rows of Table 1, written by two concurrent processes in one folder."""
    folder = tmp_path_factory.mktemp("tables") / "shared"
    runners = [start_reproduce(*TWO_ROWS, "--out", folder) for _ in range(2)]
    said = ["".join(finish(runner)) for runner in runners]
    return folder, said[0]


def test_a_table_has_the_published_error_beside_ours(table):
    folder, said = table
    found = json.loads((folder / "table1.json").read_text())
    measured = {c["row"]: json.loads((cell(folder, c["row"]) / "result.json").read_text()) for c in found["cells"]}
    assert [(c["row"], c["published"], c["n"]) for c in found["cells"]] == [("E-E-B", 4.27, 1), ("S-S-I", 3.55, 1)]
    for c in found["cells"]:
        assert c["mean"] == measured[c["row"]]["last_error"]
        label = next(row["label"] for row in found["rows"] if row["key"] == c["row"])
        line = next(line for line in said.splitlines() if line.startswith(label) and "%" not in line)
        assert f"{c['published']:.2f}" in line
        assert "not meaningful" in line
    assert "100 stratified training images of digits, 1 epoch," in said
    assert "about" in said
    rows = list(csv.DictReader((folder / "table1.csv").read_text().splitlines()))
    assert [float(row["last_error"]) for row in rows] == [c["mean"] for c in found["cells"]]
    (compared,) = found["differences"]
    assert (compared["row"], compared["against"], compared["covers"]) == (
        "S-S-I",
        "E-E-B",
        "test images only (one seed)",
    )
    assert compared["difference"] == pytest.approx(found["cells"][1]["mean"] - found["cells"][0]["mean"], abs=0.5)
    assert (folder / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("result.json", "{", "result.json cannot be read"),
        ("analysis.json", '{"x": 1}', "analysis.json is damaged or not ours"),
        ("analysis.json", '{"wrong": "AA==", "images": 450}', "1 bytes for 450 images"),
    ],
)
def test_a_damaged_run_affects_only_its_cell(table, tmp_path, name, content, said):
    folder = shutil.copytree(table[0], tmp_path / "table")
    (cell(folder, "S-S-I") / name).write_text(content)
    plan = plan_reproduction("table1", scale="smoke", rows=("E-E-B", "S-S-I"))
    good, bad = tables.collect(plan.experiment, folder, 1, "smoke").cells
    assert good.n == 1
    assert bad.n == 0
    assert said in bad.failed[0].reason


def test_two_processes_execute_no_run_twice(table):
    folder, _ = table
    for rule in ("E-E-B", "S-S-I"):
        assert "resumed" not in json.loads((cell(folder, rule) / "environment.json").read_text())
        assert len((cell(folder, rule) / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_finished_runs_are_kept_seeds_are_added_and_a_failure_stops_no_other_run(table):
    folder, _ = table
    stamp = (cell(folder, "E-E-B") / "result.json").stat().st_mtime_ns
    broken = cell(folder, "S-S-I", seed=1)
    broken.mkdir()
    (broken / "recipe.json").write_text(
        json.dumps(json.loads((cell(folder, "S-S-I") / "recipe.json").read_text()) | {"seed": 1})
    )
    (broken / "checkpoint.pt").write_bytes(b"rubbish")
    said = reproduce(*TWO_ROWS, "--out", folder, "--seeds", 2, code=1)
    assert "4 runs, 2 of them done" in said
    assert "failed: S-S-I" in said
    assert "no checkpoint can be read" in said
    assert (cell(folder, "E-E-B") / "result.json").stat().st_mtime_ns == stamp
    cells = {c["row"]: c for c in json.loads((folder / "table1.json").read_text())["cells"]}
    assert (cells["E-E-B"]["n"], cells["S-S-I"]["n"]) == (2, 1)
    assert cells["E-E-B"]["std"] is not None
    assert cells["S-S-I"]["failed"][0]["seed"] == 1
    (broken / "checkpoint.pt").unlink()
    said = reproduce(*TWO_ROWS, "--out", folder, "--seeds", 2)
    assert "4 runs, 3 of them done" in said
    assert "interval" in said


@pytest.mark.slow
def test_an_interrupted_table_saves_checkpoints(tmp_path):
    options = ("correlation", "--scale", "smoke", "--epochs", 400, "--jobs", 2, "--out", tmp_path / "out")
    process = start_reproduce(*options)
    folder = tmp_path / "out" / "cells"
    end = time.monotonic() + 90
    while len(list(folder.glob("*/metrics.jsonl"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # SIGINT is ignored by what a script starts with &
    assert "resume with the same command" in finish(process, code=130)[1]
    for run in folder.iterdir():
        assert (run / "checkpoint.pt").exists()
        assert not (run / "result.json").exists()
        assert "shakeshake resume" in (run / "log.txt").read_text()


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path):
    said = reproduce("architectures", "--scale", "smoke", "--dry-run", "--out", tmp_path / "out")
    for text in (
        "9 cells, 1 seeds: 9 runs, 0 of them done",
        "architecture C",
        "S-E-I",
        "per run",
        "to go on this machine",
    ):
        assert text in said, said
    assert not (tmp_path / "out").exists()


def test_usage_errors_are_one_line(table, tmp_path):
    folder, _ = table
    for arguments, sentence in (
        (("table9",), "table: 'table9' is not known (did you mean table"),
        (("table1", "--scale", "huge"), "Invalid value for '--scale': 'huge' is not one of"),
        ((*TWO_ROWS, "--out", folder, "--epochs", 2), "was made with no overrides, this is epochs=2"),
        (("table1", "--out", folder), "was made with scale 'smoke', this is 'small'"),
        ((*TWO_ROWS, "--out", "/proc/none"), "out: /proc/none cannot be written"),
    ):
        assert sentence in reproduce(*arguments, code=2), sentence


def test_a_run_with_another_recipe_is_not_touched(table, tmp_path):
    folder, _ = table
    path = cell(folder, "E-E-B") / "recipe.json"
    before = path.read_text()
    result = cell(folder, "E-E-B") / "analysis.json"
    kept = result.read_bytes()
    try:
        path.write_text(before.replace('"momentum": 0.9', '"momentum": 0.8'))
        result.unlink()  # not done, so it would be worked on
        assert "momentum: " in reproduce(*TWO_ROWS, "--out", folder, code=2)
        assert not result.exists()
    finally:
        path.write_text(before)
        result.write_bytes(kept)
