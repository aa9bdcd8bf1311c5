"""Every benchmark can be imported and called; the ones that need nothing else also run at a tiny size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import python

ROOT = Path(__file__).parent.parent
NAMES = [path.stem for path in sorted((ROOT / "benchmarks").glob("*.py")) if not path.name.startswith("_")]
OPTIONAL = {"report_pictures": "selenium"}
TINY = ["--model", "shake_resnet8_2x4d", "--batch-size", "8"]


def run(*arguments: object) -> str:
    return python("-m", "benchmarks", *arguments, cwd=ROOT)[0]


def test_list_names_every_benchmark_with_its_summary():
    listed = [line.split(maxsplit=1) for line in run().splitlines()[2:]]
    assert [name for name, _ in listed] == NAMES
    assert all(summary.endswith(".") for _, summary in listed)


def test_unknown_benchmark_exits_with_status_2_and_a_suggestion():
    line = [sys.executable, "-m", "benchmarks", "train_stp"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "did you mean train_step?" in done.stderr


def test_every_benchmark_shows_its_help():
    for module in OPTIONAL.values():
        pytest.importorskip(module)
    code = (
        "import contextlib, importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        importlib.import_module(f'benchmarks.{name}').main(['--help'])\n"
        "    print('done', name)\n"
    )
    out, err = python("-c", code, *NAMES, cwd=ROOT)
    assert [line.split()[1] for line in out.splitlines() if line.startswith("done ")] == NAMES, err


def test_profile_and_steps_write_their_measurements(tmp_path):
    out = tmp_path / "steps.json"
    small = ["--rounds", "1", "--steps", "1", "--ghost-batch-size", "4", "--modes", "none", "--no-peer"]
    run("launch_overhead", *TINY, *small, "--out", str(out))
    assert set(json.loads(out.read_text())["rows"]) == {"sequential", "parallel"}
    run("profile", *TINY, "--steps", "1", "--out", str(out))
    assert json.loads(out.read_text())["fp32"]["step"] > 0
    run("train_step", "--batch-size", "2", "--rounds", "1", "--only", "fp32,fp32 without kernels", "--out", str(out))
    assert len(json.loads(out.read_text())["images_per_second"]) == 2


def test_kernel_benchmark_runs(tmp_path):
    run("kernels", "--rounds", "1", "--out", str(tmp_path / "kernels.json"))
