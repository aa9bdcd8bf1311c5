"""Predictions for image files: read by several threads while the network works, a bad file costing that file."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.image_folder.decode import UnreadableImage, quiet, read_and_decode
from ..errors import InputError
from ..models.model import TrainedModel
from .pipeline import Deployed

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """What a network says of a file. ranked: (class, probability), the most probable first."""

    path: Path
    ranked: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        found = [{"class": name, "probability": round(value, 6)} for name, value in self.ranked]
        return {"file": str(self.path), "predictions": found}


def predict_files(
    model: TrainedModel,
    paths: Iterable[Path | UnreadableImage],
    *,
    top: int = 3,
    flips: bool = False,
    batch_size: int = BATCH,
) -> Iterator[Prediction | UnreadableImage]:
    """A prediction for each file, in their order, or in its place what is wrong with the file.

    Images are cut to the square in their middle and resized, as for training; of a network of greys, made grey. The
    paths are asked for two batches ahead: there may be any number of them. What was found unreadable before is passed
    on. top: at most so many classes for each. flips: the mean over the image and its mirror image. Raises InputError
    for ``top`` below 1 and for a network that gives no numbers.
    """
    if top < 1:
        raise InputError(f"top: got {top}, expected 1 or more")
    deployed = Deployed(model, flips)
    deployed.to(next(model.parameters()).device)
    for batch in _read(iter(paths), model.config["image_size"], batch_size):
        pixels = [found for _, found in batch if isinstance(found, np.ndarray)]
        ranked = iter(_ranked(deployed, model, pixels, top))
        for path, found in batch:
            yield found if isinstance(found, UnreadableImage) else Prediction(path, next(ranked))


def _ranked(
    deployed: Deployed, model: TrainedModel, pixels: list[np.ndarray], top: int
) -> list[tuple[tuple[str, float], ...]]:
    if not pixels:
        return []
    images = np.stack(pixels)
    if model.config["in_channels"] == 1:
        images = grey(images)
    probabilities = deployed.run(torch.from_numpy(images), batch_size=len(images))
    if not torch.isfinite(probabilities).all():
        raise InputError("model: gives numbers that are not finite, expected a trained network")
    best = probabilities.topk(min(top, len(model.classes)), dim=1)
    return [
        tuple((model.classes[k], float(value)) for k, value in zip(classes, values, strict=True))
        for classes, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def grey(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 as (N, H, W, 1): luma, as Pillow's mode L has it."""
    weights = np.array([19595, 38470, 7471], np.uint32)  # 0.299, 0.587, 0.114 in parts of 65,536
    return ((images.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]


Read = tuple[Path, np.ndarray | UnreadableImage]


def _read(paths: Iterator[Path | UnreadableImage], size: int, batch_size: int) -> Iterator[list[Read]]:
    """Batches of files with their pixels; the next one is read while the caller works on one."""

    def work(path: Path | UnreadableImage) -> Read:
        if isinstance(path, UnreadableImage):
            return path.path, path
        try:
            return path, read_and_decode(path, size)[0]
        except UnreadableImage as error:
            return path, error

    with quiet(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        ahead: list[Future[Read]] = []
        for chunk in itertools.chain(_chunks(paths, batch_size), [()]):
            here, ahead = ahead, [threads.submit(work, path) for path in chunk]
            if here:
                yield [future.result() for future in here]


def _chunks(paths: Iterator[Path | UnreadableImage], size: int) -> Iterator[tuple[Path | UnreadableImage, ...]]:
    while chunk := tuple(itertools.islice(paths, size)):
        yield chunk
