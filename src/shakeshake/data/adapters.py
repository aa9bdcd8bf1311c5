"""Data sets of other libraries: torch.utils.data.Dataset and Hugging Face."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..utils.console import escape
from .dataset import MAX_SIZE, MIN_SIZE, ImageData, checked_images, describe_shape, from_arrays
from .image_folder.decode import quiet, square
from .image_folder.decode_files import side_for

_SAMPLE = 64  # images whose dimensions decide the default image size
_NAMED = {"train": ("train",), "test": ("test", "validation", "val"), "val": ("validation", "val")}


def from_datasets(
    train: Any,
    test: Any = None,
    *,
    val: Any = None,
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
    name: str = "dataset",
) -> ImageData:
    """Read data sets of (image, label) pairs into memory.

    An image is a PIL image, or an array or tensor (H, W), (C, H, W) or (H, W, C), uint8 or floats in [0, 1]; a label
    is an integer from 0 or a string. Leave random transforms and normalisation to the recipe: here they would be
    applied once, before training.

    Args:
        train: A torch Dataset (anything with length and items, or an iterable), or a Hugging Face data set with one
            Image and one label column. Or a mapping with both splits, as ``datasets.load_dataset`` returns it.
        test: Test data set, unless ``train`` is a mapping.
        val: Optional validation data set.
        classes: Class names by label; default those of the data set, else the labels.
        image_size: Side in pixels to which PIL images are cropped and resized; default chosen from their sizes.
        name: Name of the data set.

    Raises:
        InputError: Items of another form; the message names the first one.
    """
    if test is None and isinstance(train, Mapping):
        given = train
        found = {part: next((given[key] for key in keys if key in given), None) for part, keys in _NAMED.items()}
        if found["test"] is found["val"]:
            found["val"] = None
    else:
        found = {"train": train, "test": test, "val": val}
    for part in ("train", "test"):
        if found[part] is None:
            raise InputError(f"data: got no {part} data set, expected train and test, or a mapping with both")
    if image_size is None:
        image_size = _side(found["train"])
    elif not isinstance(image_size, int) or not MIN_SIZE <= image_size <= MAX_SIZE:
        raise InputError(f"image_size: got {image_size!r}, expected {MIN_SIZE} to {MAX_SIZE} pixels")
    read = {part: _read(part, dataset, image_size) for part, dataset in found.items() if dataset is not None}
    names = list(classes) if classes is not None else _classes(found["train"])
    labels = {part: pair[1] for part, pair in read.items()}
    if any(isinstance(label, str) for label in labels["train"]):
        names = names or sorted({str(label) for label in labels["train"]})
        labels = {part: _numbered(part, some, names) for part, some in labels.items()}
    arrays = {f"x_{part}": pair[0] for part, pair in read.items()} | {
        f"y_{part}": np.asarray(some) for part, some in labels.items()
    }
    return from_arrays(**arrays, classes=None if names is None else tuple(names), name=name, source="the data set")


def _read(part: str, dataset: Any, size: int) -> tuple[np.ndarray, list[Any]]:
    """Return all images (N, C, H, W) uint8 and labels."""
    images: list[np.ndarray] = []
    labels = []
    with quiet():
        for index, (image, label) in enumerate(_pairs(part, dataset)):
            where = f"item {index} of the {part} data set"
            pixels = _pixels(image, size, where)
            if images and pixels.shape != images[0].shape:
                raise InputError(
                    f"data: {where} is {describe_shape(pixels)}, expected {describe_shape(images[0])} as item 0; "
                    "resize or convert them all in the data set's transform"
                )
            images.append(pixels)
            labels.append(_label(label, where))
    if not images:
        raise InputError(f"data: the {part} data set is empty, expected at least one image")
    return np.stack(images), labels


def _items(dataset: Any) -> Iterator[Any]:
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return (dataset[index] for index in range(len(dataset)))
    try:
        return iter(dataset)
    except TypeError:
        raise InputError(
            f"data: got {type(dataset).__name__}, expected a data set of images and labels (torch's or Hugging Face's)"
        ) from None


def _pairs(part: str, dataset: Any) -> Iterator[tuple[Any, Any]]:
    columns = _columns(part, dataset)
    for index, item in enumerate(_items(dataset)):
        if columns is not None:
            yield item[columns[0]], item[columns[1]]
        elif isinstance(item, tuple | list) and len(item) >= 2:
            yield item[0], item[1]
        else:
            raise InputError(
                f"data: item {index} of the {part} data set is {type(item).__name__}, expected (image, label)"
            )


def _columns(part: str, dataset: Any) -> tuple[str, str] | None:
    """Return the image and label columns of a Hugging Face data set, or None for other data sets."""
    features = getattr(dataset, "features", None)
    if not isinstance(features, Mapping):  # a torch data set may have any attribute of that name
        return None
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    labels = labels or [column for column in kinds if column in ("label", "labels")]
    if len(images) != 1 or len(labels) != 1:
        raise InputError(
            f"data: the {part} data set has the columns {', '.join(f'{c} ({k})' for c, k in kinds.items()) or 'none'}, "
            "expected one Image and one ClassLabel; choose them with select_columns()"
        )
    return images[0], labels[0]


def _classes(dataset: Any) -> list[str] | None:
    """Return the class names of a data set: Hugging Face's features or torchvision's ``classes``."""
    columns = _columns("train", dataset)
    if columns is not None:
        return getattr(dataset.features[columns[1]], "names", None)
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):  # a torch Subset
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    return list(names) if isinstance(names, list | tuple) and all(isinstance(n, str) for n in names) else None


def _side(dataset: Any) -> int:
    """Choose the image size for PIL images as for image folders; unused for arrays."""
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")) or not len(dataset):
        return side_for([])
    every = max(1, len(dataset) // _SAMPLE)
    columns = _columns("train", dataset)
    sides = []
    for index in range(0, len(dataset), every):
        item = dataset[index]
        image = item[columns[0]] if columns else item[0] if isinstance(item, tuple | list) and item else None
        if not isinstance(image, Image.Image):
            break
        sides.append(min(image.size))
    return side_for(sides)


def _pixels(image: Any, size: int, where: str) -> np.ndarray:
    """(C, H, W) uint8."""
    if isinstance(image, Image.Image):
        pixels = square(image, size)
    else:
        if hasattr(image, "detach"):  # a tensor; numpy lacks some of its dtypes
            image = image.detach().cpu()
            image = image.float().numpy() if image.is_floating_point() else image.numpy()
        pixels = np.asarray(image)
        if pixels.ndim not in (2, 3):
            raise InputError(
                f"data: the image in {where} is {type(image).__name__} of shape {pixels.shape}, expected a PIL image, "
                "or an array or tensor (H, W), (C, H, W) or (H, W, C)"
            )
    return checked_images("the image", pixels[None], where)[0]


def _label(label: Any, where: str) -> int | str:
    value = label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label
    if isinstance(value, bool | int | str):
        return value if isinstance(value, str) else int(value)
    raise InputError(f"data: the label in {where} is {value!r}, expected an integer from 0 or a string")


def _numbered(part: str, labels: list[Any], names: Sequence[str]) -> list[int]:
    places = {name: number for number, name in enumerate(names)}
    for label in labels:
        if label not in places:
            raise InputError(
                f"data: the {part} data set has the label {escape(label)!r}, expected one of {escape(', '.join(names))}"
            )
    return [places[label] for label in labels]
