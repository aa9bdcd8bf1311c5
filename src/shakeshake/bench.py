"""`shakeshake bench`: training and inference speed, compared with torch's convolutions alone."""

from __future__ import annotations

import copy
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .data.dataset import ImageData, Split
from .errors import InputError
from .inference.fuse import fuse
from .models.registry import create_model
from .train.device import choose_device, describe_device
from .train.distributed import SINGLE_PROCESS, DistContext
from .train.recipe import Recipe
from .train.trainer import Trainer
from .utils.environment import environment
from .utils.modes import eval_mode

Step = Callable[[], object]
PRECISIONS = ("fp32", "bf16")
WARM_UP = 2


def interleaved(steps: dict[str, Step], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Time steps in turn, so that a temporary slowdown of the machine affects all of them.

    Args:
        steps: Functions by name. Each runs once per round, in an order that changes between rounds.
        rounds: Number of measured rounds, after two rounds of warm-up.
        device: Device to synchronise with.

    Returns:
        Seconds of each round, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-WARM_UP, rounds):
        for name in random.Random(number).sample(list(steps), len(steps)):
            begun = time.perf_counter()
            steps[name]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= 0:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def measure(
    model: str = "shake_resnet26_2x32d",
    *,
    rule: str = "S-S-I",
    batch_size: int = 64,
    test_batch_size: int = 256,
    rounds: int = 10,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure a training step, torch's convolutions alone, the data pipeline, and plain and fused inference.

    Args:
        model: Name of the network.
        rule: Shake rule.
        batch_size: Images per training step, 32 x 32 pixels.
        test_batch_size: Images per batch of inference; batches of one image are measured as well.
        rounds: Number of measurements; their medians are reported.
        device: Device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        The measurements (``rows``), the fraction of a training step that torch's convolutions (``share_of_limit``)
        and the data pipeline (``share_of_data``) would take, and the environment.

    Raises:
        InputError: If a size is below 1 or the model, rule or device is invalid.
    """
    for name, value in (("batch_size", batch_size), ("test_batch_size", test_batch_size), ("rounds", rounds)):
        if value < 1:
            raise InputError(f"{name}: got {value}, expected 1 or more")
    at = choose_device(device)
    training: dict[str, Step] = {}
    for precision in PRECISIONS:
        trainer = trainer_on_noise(model, rule, batch_size, precision, str(at))
        training[f"train {precision}"] = training_step(trainer)
        training[f"convolutions {precision}"] = convolutions(trainer.network, batch_size, precision, at)
        if precision == "fp32":
            training["data"] = _data_step(trainer)
    timed = interleaved(training, rounds, at)
    sizes = dict.fromkeys(training, batch_size)
    for images in (test_batch_size, 1):
        some = _inference(model, rule, images, at)
        timed |= interleaved(some, rounds, at)
        sizes |= dict.fromkeys(some, images)
    medians = {name: statistics.median(seconds) for name, seconds in timed.items()}
    return {
        "format": 1,
        "model": model,
        "rule": rule,
        "batch_size": batch_size,
        "rounds": rounds,
        "rows": [
            {
                "name": name,
                "images": sizes[name],
                "milliseconds": 1000.0 * medians[name],
                "images_per_second": sizes[name] / medians[name],
                "seconds": seconds,
            }
            for name, seconds in timed.items()
        ],
        "share_of_limit": {p: medians[f"convolutions {p}"] / medians[f"train {p}"] for p in PRECISIONS},
        "share_of_data": {p: medians["data"] / medians[f"train {p}"] for p in PRECISIONS},
        "environment": environment(device=describe_device(at), threads=torch.get_num_threads()),
    }


def training_speed(
    model: str = "shake_resnet20_2x16d", *, batch_size: int = 32, budget: float = 3.0
) -> dict[str, float]:
    """Measure training speed on the device that ``--device auto`` chooses.

    Args:
        model: Name of the network.
        batch_size: Images per step, 32 x 32 pixels.
        budget: Seconds of measurement after the warm-up.

    Returns:
        Images per second by precision, from the median step.
    """
    at = choose_device("auto")
    steps = {p: training_step(trainer_on_noise(model, "S-S-I", batch_size, p, str(at))) for p in PRECISIONS}
    seconds = interleaved(steps, 1, at)
    if (rounds := min(10, int(budget / sum(first for (first,) in seconds.values()))) - WARM_UP) > 0:
        seconds = interleaved(steps, rounds, at)
    return {name: batch_size / statistics.median(times) for name, times in seconds.items()}


def as_lines(measured: dict[str, Any]) -> Iterator[str]:
    """Format the result of `measure` as a table."""
    yield f"{measured['model']} {measured['rule']}, {measured['environment']['device']}, {measured['rounds']} rounds"
    yield f"{'':<30}{'batch':>7}{'ms':>11}{'images/s':>11}"
    for row in measured["rows"]:
        yield f"{row['name']:<30}{row['images']:>7}{row['milliseconds']:>11.2f}{row['images_per_second']:>11.1f}"
    for precision in PRECISIONS:
        yield (
            f"{precision}: torch's convolutions take {measured['share_of_limit'][precision]:.0%} of the time of a "
            f"training step, the data pipeline {measured['share_of_data'][precision]:.1%}"
        )


def convolutions(network: nn.Module, batch: int, precision: str, device: torch.device) -> Step:
    """A function that runs torch's convolutions of a training step and nothing else.

    Forward, gradient of the input (except for the first one) and of the weight, in channels_last, the memory format of
    training. A training step with these convolutions takes at least as long; the fused kernels may take less.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    seen: list[tuple[nn.Conv2d, Tensor]] = []

    def remember(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, nn.Conv2d)
        x = torch.randn_like(inputs[0], dtype=dtype).contiguous(memory_format=torch.channels_last)
        seen.append((conv, x.requires_grad_(bool(seen))))

    handles = [m.register_forward_pre_hook(remember) for m in network.modules() if isinstance(m, nn.Conv2d)]
    try:
        with torch.no_grad(), eval_mode(network):
            network(_images(network, batch, device))
    finally:
        for handle in handles:
            handle.remove()
    work = []
    for conv, x in seen:
        conv = copy.deepcopy(conv).to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        work.append((conv, x, torch.randn_like(conv(x))))

    def step() -> None:
        for conv, x, gradient in work:
            torch.autograd.grad(conv.forward(x), (x, conv.weight) if x.requires_grad else (conv.weight,), gradient)

    return step


def trainer_on_noise(
    model: str, rule: str, batch: int, precision: str, device: str, dist: DistContext = SINGLE_PROCESS
) -> Trainer:
    """A trainer on one batch of noise, 32 x 32 pixels, to time its steps."""
    drawn = np.random.default_rng(0)
    some = Split(drawn.integers(0, 256, (batch, 3, 32, 32), dtype=np.uint8), drawn.integers(0, 10, batch))
    data = ImageData("noise", some, some, tuple("0123456789"), (127.5,) * 3, (64.0,) * 3)
    sizes = {"batch_size": batch, "ghost_batch_size": None, "epochs": 1}
    recipe = Recipe().replace(model=model, rule=rule, precision=precision, device=device, lr=1e-6, **sizes)
    return Trainer(recipe, data, dist)


def training_step(trainer: Trainer) -> Step:
    """A function that repeats the only step of the trainer's epoch."""
    (batch,) = trainer.loader.epoch(0)

    def step() -> None:
        trainer.train_step(batch)
        trainer.step_in_epoch = 0

    return step


def _data_step(trainer: Trainer) -> Step:
    """A function that shuffles, normalises, flips and crops a batch on the device."""

    def step() -> None:
        for _ in trainer.loader.epoch(0):
            pass

    return step


def _inference(model: str, rule: str, images: int, device: torch.device) -> dict[str, Step]:
    network = create_model(model, rule=rule).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = create_model(model, rule=rule).eval().to(device)
    fused = fuse(network)
    x = _images(network, images, device)

    def step(net: nn.Module, some: Tensor) -> Step:
        def run() -> None:
            with torch.inference_mode():
                net(some)

        return run

    half = fuse(network).to(torch.bfloat16)
    return {
        f"inference fp32, batch {images}": step(plain, x.contiguous()),
        f"fused fp32, batch {images}": step(fused, x),
        f"fused bf16, batch {images}": step(half, x.to(torch.bfloat16)),
    }


def _images(network: nn.Module, batch: int, device: torch.device) -> Tensor:
    channels = next(m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d))
    return torch.randn(batch, channels, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
