"""`shakeshake doctor`: what it finds is there, what it advises follows from what it finds."""

import re
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch

from shakeshake import doctor
from shakeshake.cli.main import main

FINE = {
    "on_cpu": True,
    "kernels": "",
    "precision": "fp32",
    "speed": {"fp32": 100.0, "bf16": 50.0},
    "threads": 2,
    "cores": 2,
    "load": 0.0,
    "free": 2**40,
    "absent": [],
}


def test_it_tells_versions_speed_and_extras(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SHAKESHAKE_DATA", str(tmp_path))
    monkeypatch.setattr(
        metadata, "requires", lambda name: ["numpy>=1", "filelock; extra == 'ray'", 'no-such>=1; extra == "onnx"']
    )
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert torch.__version__ in told
    assert f"extra ray      filelock {metadata.version('filelock')}" in told
    assert re.search(r"would help +pip install 'shakeshake\[onnx\]'", told)
    assert "'shakeshake[ray]'" not in told
    fp32, bf16 = re.search(r"speed .*: ([\d,]+) in fp32, ([\d,]+) in bf16", told).groups()
    assert fp32 > "0"
    assert bf16 > "0"
    assert main(["doctor", "--quick"]) == 0
    assert "images/s" not in capsys.readouterr().out


def test_advice_follows_from_what_is_found():
    assert not list(doctor.what_would_help(**FINE))
    for changed, expected in (
        ({"kernels": "no C++ compiler"}, "no C++ compiler"),
        ({"threads": 1}, "1 of 2 cores"),
        ({"speed": {"fp32": 100.0, "bf16": 150.0}}, "--precision bf16, 1.5 times"),
        ({"speed": {"fp32": 150.0, "bf16": 100.0}, "precision": "bf16"}, "--precision fp32, 1.5 times"),
        ({"load": 0.4}, "measure on: others keep 40%"),
        ({"load": 0.5, "speed": {}}, "OMP_NUM_THREADS=1: others keep 50%"),
        ({"load": 0.6, "threads": 8, "cores": 8}, "OMP_NUM_THREADS=3"),
        ({"load": 0.6, "threads": 1, "cores": 1}, "measure on"),
        ({"free": 2**20}, "disk"),
        ({"absent": ["ray"]}, "shakeshake[ray]"),
    ):
        (advice,) = doctor.what_would_help(**FINE | changed)
        assert expected in advice
    assert not list(doctor.what_would_help(**FINE | {"load": 0.6, "threads": 1, "speed": {}})), "as it was advised"
    assert not list(doctor.what_would_help(**FINE | {"on_cpu": False, "kernels": "none", "threads": 1}))


def test_the_others_are_all_but_oneself(monkeypatch):
    if Path("/proc/stat").exists():
        before, until = doctor._busy_seconds(), time.process_time() + 0.3
        while time.process_time() < until:
            pass
        assert doctor._busy_seconds() - before > 0.2
    cores, seconds = 4, 0.01
    busy, own = iter([100.0, 100.0 + 3 * seconds]), iter([5.0, 5.0 + seconds])
    monkeypatch.setattr(doctor, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(doctor.time, "process_time", lambda: next(own))
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert doctor.taken_by_others(seconds) == pytest.approx(2 / cores)


def test_every_extra_says_what_it_gives():
    extras = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(extras) - {"dev"} <= set(doctor.GIVES)
