"""The examples train on real digits: shaken layers in networks that are none of ours."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "parallel_transformer",
        "convolution_1d",
        "shakeified_resnext",
    }


def test_the_transformer_learns_digits():
    assert example("parallel_transformer").main("S-S-I", epochs=5) < 40  # guessing: 90 %


def test_a_trained_resnext_is_shakeified_and_trained_on():
    trained, converted, after = example("shakeified_resnext").main("S-E-I", epochs=2)
    assert trained < 30
    assert converted == trained
    assert after < 30


def test_the_signal_net_is_a_program_that_learns_digits():
    ask = [sys.executable, EXAMPLES / "convolution_1d.py", "--epochs", "2", "--rule", "S-E-B", "--branches", "2"]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(re.match(r"S-E-B, 2 branches: (\S+) %", done.stdout)[1]) < 30
