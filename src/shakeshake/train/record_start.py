"""What a run records when it starts or resumes: its images and the machine."""

from __future__ import annotations

import logging
from typing import Any

import torch

from ..errors import InputError
from ..utils.environment import environment
from .device import describe_device
from .run_directory import RunDirectory
from .trainer import Trainer

logger = logging.getLogger(__name__)


def record_start(run: RunDirectory, trainer: Trainer) -> None:
    """Record the run's images and environment; a resumed run appends to the list of environments."""
    run.write_images_record(trainer.data.record)
    past: dict[str, Any] = {}
    if trainer.step and (run.path / "environment.json").exists():
        try:
            past = run.read_json("environment.json")
        except InputError as error:
            logger.warning("%s; the record of earlier environments is lost", error)
    if past:
        before = past.get("resumed")
        now = environment(at_step=trainer.step, **_devices(trainer))
        run.write_json("environment.json", {**past, "resumed": [*(before if isinstance(before, list) else []), now]})
    else:
        run.write_json("environment.json", environment(**_devices(trainer)))


def _devices(trainer: Trainer) -> dict[str, Any]:
    return {
        "device": describe_device(trainer.device),
        "threads": torch.get_num_threads(),
        "precision": trainer.precision,
        "kernels": "fused" if trainer.kernels else "plain",
        "processes": trainer.dist.size,
    }
