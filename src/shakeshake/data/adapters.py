"""Data sets of other libraries: torch.utils.data.Dataset and Hugging Face."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import getitem
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..utils.console import escape
from .dataset import MAX_SIZE, MIN_SIZE, ImageData, checked_images, describe_shape, from_arrays
from .image_folder.decode import quiet, square
from .image_folder.decode_files import side_for

_END = object()  # of a stream
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
    items = {part: _items(part, dataset) for part, dataset in found.items() if dataset is not None}
    if image_size is None:
        sample, items["train"] = _sample(found["train"], items["train"])
        image_size = side_for(_sides(found["train"], sample))
    elif not isinstance(image_size, int) or not MIN_SIZE <= image_size <= MAX_SIZE:
        raise InputError(f"image_size: got {image_size!r}, expected {MIN_SIZE} to {MAX_SIZE} pixels")
    read = {part: _read(part, found[part], some, image_size) for part, some in items.items()}
    own_names = {part: _class_names(part, found[part]) for part in read}
    labels: dict[str, list[Any]] = {part: pair[1] for part, pair in read.items()}
    order, names = own_names["train"], None if classes is None else list(classes)
    if order is not None:  # each data set may number the same classes differently
        labels = {part: _as_names(part, some, own_names[part] or order) for part, some in labels.items()}
        used = {label for some in labels.values() for label in some}
        if names is None:
            order = names = [name for name in order if name in used]
    elif any(isinstance(label, str) for label in labels["train"]):
        _check_all_text(labels["train"])
        order = names = names or sorted({str(label) for label in labels["train"]})
    if order is not None:
        labels = {part: _numbered(part, some, order) for part, some in labels.items()}
    arrays = {f"x_{part}": pixels for part, pixels in _same_channels({p: pair[0] for p, pair in read.items()}).items()}
    arrays |= {f"y_{part}": np.asarray(some) for part, some in labels.items()}
    return from_arrays(**arrays, classes=None if names is None else tuple(names), name=name, source="the data set")


def _same_channels(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Grey images in three channels where others have colours."""
    if len({some.shape[1] for some in images.values()}) == 1:
        return images
    return {part: _in_colour(some) for part, some in images.items()}


def _in_colour(images: np.ndarray) -> np.ndarray:
    return images.repeat(3, axis=-3) if images.shape[-3] == 1 else images


def _read(part: str, dataset: Any, items: Iterator[Any], size: int) -> tuple[np.ndarray, list[Any]]:
    """Return all images (N, C, H, W) uint8 and labels."""
    images: list[np.ndarray] = []
    labels = []
    in_colour = False  # whether an image has three channels; grey ones get them, too
    with quiet():
        for index, (image, label) in enumerate(_pairs(part, dataset, items)):
            where = f"item {index} of the {part} data set"
            pixels = _pixels(image, size, where)
            if not in_colour and len(pixels) == 3:
                in_colour, images = True, [_in_colour(one) for one in images]
            pixels = _in_colour(pixels) if in_colour else pixels
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


def _items(part: str, dataset: Any) -> Iterator[Any]:
    """Yield the items of a data set with a length, or of an iterable."""
    indexed = _is_indexed(dataset)
    if not indexed and not hasattr(dataset, "__iter__"):
        raise InputError(
            f"data: got {type(dataset).__name__}, expected a data set of images and labels (torch's or Hugging Face's)"
        )
    stream = iter(()) if indexed else iter(dataset)
    for index in range(len(dataset)) if indexed else itertools.count():
        item = _item(part, index, partial(getitem, dataset, index) if indexed else partial(next, stream, _END))
        if item is _END:
            return
        yield item


def _item(part: str, index: int, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # of the user's data set: a damaged file, a transform
        reason = escape(str(error).split("\n")[0]) or type(error).__name__
        raise InputError(f"data: item {index} of the {part} data set cannot be read: {reason}") from error


def _is_indexed(dataset: Any) -> bool:
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def _pairs(part: str, dataset: Any, items: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    columns = _columns(part, dataset)
    for index, item in enumerate(items):
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


def _class_names(part: str, dataset: Any) -> list[str] | None:
    """Return the class names of a data set by label: Hugging Face's features or torchvision's ``classes``.

    Raises:
        InputError: A torch ConcatDataset of data sets that number their classes differently.
    """
    columns = _columns(part, dataset)
    if columns is not None:
        return getattr(dataset.features[columns[1]], "names", None)
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):  # a torch Subset
        dataset = dataset.dataset
    if not hasattr(dataset, "classes") and isinstance(getattr(dataset, "datasets", None), list | tuple):
        parts = [_class_names(part, one) for one in dataset.datasets]  # a torch ConcatDataset
        if any(names != parts[0] for names in parts):
            raise InputError(
                f"data: the {part} data set joins data sets with different classes, such as "
                f"{escape(str(parts[0]))} and {escape(str(next(n for n in parts if n != parts[0])))}; "
                "expected the same names in the same order, as a label is the place of a name"
            )
        return parts[0] if parts else None
    names = getattr(dataset, "classes", None)
    return list(names) if isinstance(names, list | tuple) and all(isinstance(n, str) for n in names) else None


def _sample(dataset: Any, items: Iterator[Any]) -> tuple[list[Any], Iterator[Any]]:
    """Return some items, spread over the data set or the first of a stream, and an iterator over all items."""
    if _is_indexed(dataset):
        every = max(1, len(dataset) // _SAMPLE)
        indices = range(0, len(dataset), every)
        return [_item("train", index, partial(getitem, dataset, index)) for index in indices], items
    first = list(itertools.islice(items, _SAMPLE))
    return first, itertools.chain(first, items)


def _sides(dataset: Any, items: list[Any]) -> list[int]:
    """The shorter sides of PIL images; none for arrays, whose size stays."""
    columns = _columns("train", dataset)
    images = [item[columns[0]] if columns else item[0] for item in items if columns or isinstance(item, tuple | list)]
    return [min(image.size) for image in images if isinstance(image, Image.Image)]


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
    value = label.item() if hasattr(label, "item") and tuple(getattr(label, "shape", ())) in ((), (1,)) else label
    if isinstance(value, bool | int | str):
        return value if isinstance(value, str) else int(value)
    raise InputError(f"data: the label in {where} is {value!r}, expected an integer from 0 or a string")


def _check_all_text(labels: list[Any]) -> None:
    """Raise InputError if some labels are strings and others numbers."""
    for index, label in enumerate(labels):
        if isinstance(label, str) != isinstance(labels[0], str):
            raise InputError(
                f"data: the train data set has the label {labels[0]!r} in item 0 and {label!r} in item {index}, "
                "expected only integers or only strings"
            )


def _as_names(part: str, labels: list[Any], names: Sequence[str]) -> list[str]:
    for label in labels:
        if not isinstance(label, str) and not 0 <= label < len(names):
            raise InputError(
                f"data: the {part} data set has the label {label}, expected 0 to {len(names) - 1}, a place among its "
                f"classes {escape(', '.join(names))}"
            )
    return [label if isinstance(label, str) else names[label] for label in labels]


def _numbered(part: str, labels: list[Any], names: Sequence[str]) -> list[int]:
    places = {name: number for number, name in enumerate(names)}
    for label in labels:
        if label not in places:
            raise InputError(
                f"data: the {part} data set has the label {escape(label)!r}, expected one of {escape(', '.join(names))}"
            )
    return [places[label] for label in labels]
