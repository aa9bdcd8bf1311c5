"""Predictions for image files, PIL images and arrays: decoded by several threads while the network computes."""

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
from PIL import Image

from ..data.image_folder.decode import UnreadableImage, quiet, read_and_decode, square
from ..errors import InputError
from ..models.model import TrainedModel, load
from .image_files import find_images
from .pipeline import InferencePipeline

BATCH_SIZE = 64

# What an image may be given as; UnreadableImage for a file that was found unreadable before.
ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | UnreadableImage
_IMAGE_TYPES = (str, os.PathLike, Image.Image, np.ndarray, UnreadableImage)


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        source: The file's path, or the image's number for PIL images and arrays.
        classes: Names of the classes, in the order of the network's outputs.
        probabilities: (classes,) float32.
    """

    source: Path | int
    classes: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.top(1)[0][0]

    def top(self, k: int) -> list[tuple[str, float]]:
        """The ``k`` most probable classes with their probabilities, most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]

    def to_dict(self, top: int) -> dict[str, Any]:
        """The ``top`` most probable classes, for JSON; probabilities to six decimals."""
        ranked = [{"class": name, "probability": round(value, 6)} for name, value in self.top(top)]
        return {"file": str(self.source), "predictions": ranked}


@dataclass(frozen=True)
class Predictions:
    """The predictions for several images, one row per image, in their order.

    Attributes:
        sources: The files' paths; for PIL images and arrays their number.
        classes: Names of the classes, in the order of the columns.
        labels: The most probable class of each image; None for an unreadable one.
        probabilities: (N, classes) float32; NaN for an unreadable image.
        errors: Row -> what is wrong with an unreadable image.
    """

    sources: tuple[Path | int, ...]
    classes: tuple[str, ...]
    labels: tuple[str | None, ...]
    probabilities: np.ndarray
    errors: dict[int, str]

    def __len__(self) -> int:
        return len(self.sources)


def predict(
    model_or_run: TrainedModel | str | os.PathLike[str],
    images: ImageLike | Iterable[ImageLike],
    *,
    hflip_tta: bool = False,
    batch_size: int = BATCH_SIZE,
    device: str | torch.device | None = None,
) -> Predictions:
    """Classify images with calibrated probabilities.

    An image's central square is cropped and resized to the network's image size, as in training, and converted to grey
    if the network has one channel.

    Args:
        model_or_run: A trained model, or the path of a finished run or of an exported model.
        images: One image or any number of them: paths of files or directories (searched recursively), PIL images, or
            uint8 arrays (H, W), (H, W, 1) or (H, W, 3). An array of one more dimension is a batch of images.
        hflip_tta: Whether to average over each image and its mirror image (test-time augmentation).
        batch_size: Images that the network classifies at once.
        device: Where to run a model that is loaded from a path; a CUDA device if there is one, else the CPU, by
            default. A model that is passed in runs where it is.

    Returns:
        One row per image. Unreadable files do not raise; they are listed in ``errors``.

    Raises:
        InputError: For an argument of another type, dtype or shape, a path that holds no finished run, and a network
            whose outputs are not finite.
    """
    if not isinstance(model_or_run, TrainedModel):
        device = device if device is not None else "cuda" if torch.cuda.is_available() else "cpu"
        model_or_run = load(Path(model_or_run), device)
    found = list(iter_predictions(model_or_run, images, hflip_tta=hflip_tta, batch_size=batch_size))
    classes = tuple(model_or_run.classes)
    missing = np.full(len(classes), np.nan, np.float32)
    rows = [missing if isinstance(one, UnreadableImage) else one.probabilities for one in found]
    return Predictions(
        sources=tuple(one.path if isinstance(one, UnreadableImage) else one.source for one in found),
        classes=classes,
        labels=tuple(None if isinstance(one, UnreadableImage) else one.label for one in found),
        probabilities=np.stack(rows) if rows else np.empty((0, len(classes)), np.float32),
        errors={row: str(one) for row, one in enumerate(found) if isinstance(one, UnreadableImage)},
    )


def iter_predictions(
    model: TrainedModel,
    images: ImageLike | Iterable[ImageLike],
    *,
    hflip_tta: bool = False,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Prediction | UnreadableImage]:
    """Classify any number of images one batch at a time; see ``predict``.

    ``images`` may be an iterator without end: it is read at most two batches ahead.

    Yields:
        For each image, in order, its prediction or what is wrong with it.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: got {batch_size}, expected 1 or more")
    pipeline = InferencePipeline(model, hflip_tta)
    pipeline.to(next(model.parameters()).device)
    classes = tuple(model.classes)
    for batch in _decoded(_items(images), model.config["image_size"], batch_size):
        readable = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
        rows = iter(_probabilities(pipeline, readable, grey=model.config["in_channels"] == 1))
        for source, pixels in batch:
            yield pixels if isinstance(pixels, UnreadableImage) else Prediction(source, classes, next(rows))


def _probabilities(pipeline: InferencePipeline, pixels: list[np.ndarray], *, grey: bool) -> np.ndarray:
    """(N, classes) float32 for N RGB images of the network's size."""
    if not pixels:
        return np.empty((0, 0), np.float32)
    images = to_grey(np.stack(pixels)) if grey else np.stack(pixels)
    probabilities = pipeline.run(torch.from_numpy(images), batch_size=len(images))
    if not torch.isfinite(probabilities).all():
        raise InputError("model: its outputs are not finite, expected a trained network")
    return probabilities.numpy()


def to_grey(images: np.ndarray) -> np.ndarray:
    """Convert (N, H, W, 3) uint8 to (N, H, W, 1): luma, with the rounding of Pillow's mode L."""
    weights = np.array([19595, 38470, 7471], np.uint32)  # 0.299, 0.587, 0.114 in units of 1 / 65,536
    return ((images.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]


Item = tuple[Path | int, Path | Image.Image | np.ndarray | UnreadableImage]


def _items(images: ImageLike | Iterable[ImageLike]) -> Iterator[Item]:
    """Each image with its source; directories are replaced by their files."""
    number = 0
    if isinstance(images, _IMAGE_TYPES) or not isinstance(images, Iterable):
        images = [images]
    for image in images:
        if isinstance(image, str | os.PathLike):
            found: Iterable[Any] = find_images([os.fspath(image)])
        else:
            found = _images_of_array(image) if isinstance(image, np.ndarray) else [image]
        for one in found:
            if isinstance(one, UnreadableImage):
                yield one.path, one
            elif isinstance(one, Path):
                yield one, one
            elif isinstance(one, Image.Image | np.ndarray):
                yield number, one
            else:
                raise InputError(f"images: got {type(one).__name__}, expected paths, PIL images or uint8 arrays")
            number += 1


def _images_of_array(array: np.ndarray) -> list[np.ndarray]:
    """The images of an array of one image or of a batch."""
    if array.dtype != np.uint8:
        raise InputError(f"images: got an array of {array.dtype}, expected uint8, 0 to 255")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3)):
        return [array]
    batch = array.ndim == 4 and array.shape[3] in (1, 3)
    if not batch and (array.ndim != 3 or array.shape[0] in (1, 3)):  # (3, H, W): channels first, or three grey images
        raise InputError(
            f"images: got an array of shape {array.shape}, expected (H, W), (H, W, 1) or (H, W, 3), or a batch of them"
        )
    return list(array)


Decoded = tuple[Path | int, np.ndarray | UnreadableImage]


def _decoded(items: Iterator[Item], size: int, batch_size: int) -> Iterator[list[Decoded]]:
    """Batches of images as (size, size, 3) uint8. Threads decode the next batch while the caller uses one."""

    def work(item: Item) -> Decoded:
        source, image = item
        if isinstance(image, UnreadableImage):
            return source, image
        try:
            return source, read_and_decode(image, size)[0] if isinstance(image, Path) else _decode(source, image, size)
        except UnreadableImage as error:
            return source, error

    with quiet(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        ahead: list[Future[Decoded]] = []
        for chunk in itertools.chain(_batched(items, batch_size), [()]):
            current, ahead = ahead, [threads.submit(work, item) for item in chunk]
            if current:
                yield [future.result() for future in current]


def _decode(source: Path | int, image: Image.Image | np.ndarray, size: int) -> np.ndarray:
    """A PIL image or an array as RGB pixels of the network's size."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    try:
        image.load()
        pixels = square(image, size)
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ...
        raise UnreadableImage(f"number {source}", f"is damaged ({error})") from None
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _batched(items: Iterator[Item], size: int) -> Iterator[tuple[Item, ...]]:
    while batch := tuple(itertools.islice(items, size)):
        yield batch
