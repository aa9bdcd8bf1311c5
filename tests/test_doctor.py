"""`shakeshake doctor` reports the installation and derives its suggestions from what it finds."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch

from shakeshake import doctor
from shakeshake.cli.main import main

NOTHING_TO_IMPROVE = {
    "on_cpu": True,
    "no_kernels": "",
    "precision": "fp32",
    "speed": {"fp32": 100.0, "bf16": 50.0},
    "threads": 2,
    "cores": 2,
    "load": 0.0,
    "free": 2**40,
    "missing_extras": [],
}


def test_versions_extras_and_speed_are_reported(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SHAKESHAKE_DATA", str(tmp_path))
    monkeypatch.setattr(
        metadata, "requires", lambda name: ["numpy>=1", "filelock; extra == 'ray'", 'no-such>=1; extra == "onnx"']
    )
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert torch.__version__ in output
    assert re.search(rf"extra ray +filelock {re.escape(metadata.version('filelock'))}", output)
    assert re.search(r"suggestion +pip install 'shakeshake\[onnx\]'", output)
    assert "'shakeshake[ray]'" not in output
    rates = re.search(r"speed .*: ([\d,]+) in fp32, ([\d,]+) in bf16", output).groups()
    assert all(int(rate.replace(",", "")) > 0 for rate in rates)
    assert main(["doctor", "--quick"]) == 0
    assert "images/s" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"no_kernels": "no C++ compiler"}, "no C++ compiler"),
        ({"threads": 1}, "1 of 2 cores"),
        ({"speed": {"fp32": 100.0, "bf16": 150.0}}, "--precision bf16: 1.5 times"),
        ({"speed": {"fp32": 150.0, "bf16": 100.0}, "precision": "bf16"}, "--precision fp32: 1.5 times"),
        ({"load": 0.6}, "load average 0.6 per core"),
        ({"load": 0.6, "threads": 1}, "load average 0.6 per core"),
        ({"free": 2**20}, "disk space"),
        ({"missing_extras": ["ray"]}, "shakeshake[ray]"),
    ],
)
def test_each_finding_gets_one_suggestion(changes, expected):
    (suggestion,) = doctor.suggestions(**NOTHING_TO_IMPROVE | changes)
    assert expected in suggestion


@pytest.mark.parametrize(
    "changes", [{}, {"load": 0.6, "speed": {}}, {"on_cpu": False, "no_kernels": "no C++ compiler", "threads": 1}]
)
def test_no_suggestion_without_a_finding(changes):
    assert not list(doctor.suggestions(**NOTHING_TO_IMPROVE | changes))


def test_every_extra_for_users_is_described():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) - {"all", "dev", "docs"} == set(doctor.EXTRA_DESCRIPTIONS)
