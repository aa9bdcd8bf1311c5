"""Every example trains on the bundled digits."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from helpers import python

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_examples_are_tested_here():
    tested = re.findall(r'(?:load\("|EXAMPLES / ")(\w+)', Path(__file__).read_text())
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(tested)


def test_transformer_learns_digits():
    assert load("parallel_transformer").main("S-S-I", epochs=5) < 40  # chance: 90 %


def test_shakeified_resnext_keeps_its_error_and_trains_on():
    trained, converted, after = load("shakeified_resnext").main("S-E-I", epochs=2)
    assert trained < 30
    assert converted == trained
    assert after < 30


def test_signal_network_runs_as_a_program_and_learns_digits():
    options = ["--epochs", "2", "--rule", "S-E-B", "--branches", "2"]
    out, _ = python(EXAMPLES / "convolution_1d.py", *options)
    assert float(re.match(r"S-E-B, 2 branches: (\S+) %", out)[1]) < 30
