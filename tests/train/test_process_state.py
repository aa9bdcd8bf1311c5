"""fit() restores global torch settings and does not depend on them."""

import contextlib
import random
import signal
import sys
import threading

import numpy as np
import pytest
import torch

import shakeshake as ss
from helpers import TINY

RECIPE = TINY.replace(epochs=1)


def process_state():
    cudnn, inductor = torch.backends.cudnn, sys.modules.get("torch._inductor.config")
    return {
        "cudnn": (cudnn.deterministic, cudnn.benchmark, cudnn.enabled, cudnn.allow_tf32),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "inductor": getattr(inductor, "deterministic", False),
        "excepthooks": (sys.excepthook, threading.excepthook),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "threads": torch.get_num_threads(),
        "generators": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "matmul": torch.get_float32_matmul_precision(),
    }


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


CALLERS = {
    "plain": contextlib.nullcontext,
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("expected") / "run"
    ss.fit(RECIPE, path, quiet=True)
    return (path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("caller", CALLERS)
def test_fit_gives_the_same_weights_and_restores_the_process(tmp_path, expected, caller):
    with CALLERS[caller]():
        before = process_state()
        result = ss.fit(RECIPE, tmp_path / "run", quiet=True)
        assert process_state() == before
        assert ss.evaluate(result, device="cpu").error == pytest.approx(result.last_error)
        assert process_state() == before
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == expected


def test_settings_of_the_caller_come_back_after_a_stopped_run(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    before = process_state()
    with pytest.raises(ss.Stopped):
        ss.fit(RECIPE, tmp_path / "run", minutes=1e-9, quiet=True)
    assert process_state() == before
    ss.resume(tmp_path / "run", quiet=True)
    assert process_state() == before
