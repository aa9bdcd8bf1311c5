"""Knows which data sets there are and gives any of them as checked arrays in memory: the one door to images."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..utils.files import expand_user
from .cifar import layouts
from .cifar.layouts import Cifar
from .cifar.spec import CIFAR
from .dataset import ImageData, Split, channel_statistics, from_arrays, load_npz
from .subset import stratified_subset

__all__ = ["ImageData", "Split", "from_arrays", "get", "list_data", "load_data", "verify", "where"]

DIGITS_TEST = 450  # of the 1,797; the same images whatever the seed, so that runs can be compared


def list_data() -> list[tuple[str, str]]:
    """(name, description) of the data sets that have a name."""
    return [
        (
            "digits",
            "1,347 training and 450 test images of handwritten digits, 8 x 8 grey, 10 classes; bundled, no network",
        ),
        ("cifar10", "50,000 training and 10,000 test photographs, 32 x 32 colour, 10 classes; downloaded if absent"),
        ("cifar100", "50,000 training and 10,000 test photographs, 32 x 32 colour, 100 classes; downloaded if absent"),
    ]


def load_data(
    data: str | ImageData,
    *,
    data_dir: str | Path | None = None,
    train_size: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
    split_seed: int = 0,
    record: dict[str, Any] | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> ImageData:
    """The images of ``data``: ``digits``, ``cifar10``, ``cifar100``, a folder of photos or the path of an ``.npz``.

    Images that are there already (an ImageData) are returned, or as many of them as ``train_size`` says.

    data_dir    the one place where CIFAR lies or is downloaded to; default $SHAKESHAKE_DATA, then the user's cache
    train_size  so many training images only, with the classes in proportion, drawn by ``seed``; the test images stay
    image_size  of photos: pixels of a side; default by their own sizes (see reading.default_size)
    split_seed  of photos: draws the test images where the folder has neither test/ nor val/
    record      of photos: the ``record`` of data that were loaded before, to have the very same images, as they are
                in the cache or in ``data_dir`` (if they have moved) or ``data``
    progress    called with (what, bytes here, bytes in all or None) in a download and with (what, files read, files)
                of photos; default a bar on a terminal

    A folder has one for each class, ``photos/cat/*.jpg``, or these in ``train/`` and perhaps ``val/`` and ``test/``.
    Raises InputError, in one sentence, for anything that the user can mend.
    """
    if isinstance(data, ImageData):
        return _adapted(data, train_size, seed, image_size)
    if not isinstance(data, str | os.PathLike):
        raise InputError(f"data: {data!r} is not a name or a path, expected {_EXPECTED}")
    data = os.fspath(data)
    if data == "digits":
        images = _digits()
    elif data in CIFAR:
        images = _load_cifar(CIFAR[data], data_dir, progress)
    elif record is not None:
        from .image_folder.dataset import load_recorded

        images = load_recorded(expand_user(data_dir if data_dir is not None else data), record, progress)
    elif expand_user(data).is_dir():
        from .image_folder.dataset import load_image_folder

        folder = expand_user(data)
        images = load_image_folder(folder, image_size=image_size, split_seed=split_seed, progress=progress)
    else:
        images = _load_path(_moved(data, data_dir))
    return _adapted(images, train_size, seed, image_size, published=data in CIFAR)


def _moved(data: str, data_dir: str | Path | None) -> str:
    """An .npz where it is, or by its name in ``data_dir``, or that itself: what is in it is known by a digest."""
    if data_dir is None or expand_user(data).exists():
        return data
    there = expand_user(data_dir)
    return str(there / Path(data).name if there.is_dir() else there)


def get(name: str, data_dir: str | Path | None = None) -> Path:
    """Where the data set lies, after a download if it was nowhere; its md5s are known to be right."""
    found = _present(_cifar(name), data_dir)
    layouts.read(_cifar(name), found)
    return found.path


def where(name: str, data_dir: str | Path | None = None) -> Path | None:
    """The folder or archive with a complete copy, or None; nothing is downloaded and no md5 is checked."""
    try:
        found, _ = layouts.locate(_cifar(name), layouts.places(data_dir))
    except OSError:
        return None
    return found.path if found else None


def verify(name: str, data_dir: str | Path | None = None) -> list[tuple[str, str]]:
    """(file, "ok" or what is wrong) for each official file, by its md5 and not by what is remembered of it."""
    cifar = _cifar(name)
    return layouts.verify(cifar, layouts.places(data_dir))


_EXPECTED = f"{', '.join(name for name, _ in list_data())}, a folder of photos or the path of an .npz"


def _cifar(name: str) -> Cifar:
    if name not in CIFAR:
        raise InputError(f"name: {name!r} has no files of its own, expected {' or '.join(CIFAR)}")
    return CIFAR[name]


def _present(cifar: Cifar, data_dir: str | Path | None, progress: Callable | None = None) -> layouts.Found:
    places = layouts.places(data_dir)
    if found := layouts.find(cifar, places):
        return found
    from .cifar.download import obtain

    return obtain(cifar, places[0], progress=progress)


def _load_cifar(cifar: Cifar, data_dir: str | Path | None, progress: Callable | None) -> ImageData:
    arrays = layouts.read(cifar, _present(cifar, data_dir, progress))
    return ImageData(cifar.name, Split(*arrays[False]), Split(*arrays[True]), cifar.classes, cifar.mean, cifar.std)


def _digits() -> ImageData:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    is_test = np.zeros(len(labels), bool)
    is_test[stratified_subset(labels, DIGITS_TEST, seed=0)] = True
    train, test = Split(images[~is_test], labels[~is_test]), Split(images[is_test], labels[is_test])
    return ImageData("digits", train, test, tuple("0123456789"), *channel_statistics(train.images))


def _load_path(data: str) -> ImageData:
    path = expand_user(data)
    if path.suffix.lower() == ".npz":
        return load_npz(path)
    if path.exists():
        raise InputError(f"data: the file {data} has a kind that is not known, expected {_EXPECTED}")
    close = difflib.get_close_matches(data.lower(), [name for name, _ in list_data()], cutoff=0.5)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise InputError(f"data: {data!r} is neither a data set nor a file{hint}, expected {_EXPECTED}")


def _adapted(
    images: ImageData, train_size: int | None, seed: int, image_size: int | None, published: bool = False
) -> ImageData:
    if image_size not in (None, images.image_size):
        raise InputError(
            f"image_size: got {image_size}, expected None for {images.name}, whose images have {images.image_size} pixels"
        )
    return images if train_size is None else _with_fewer(images, train_size, seed, published)


def _with_fewer(images: ImageData, train_size: int, seed: int, published: bool) -> ImageData:
    here, classes = len(images.train), images.num_classes
    if (
        isinstance(train_size, bool)
        or not isinstance(train_size, int | np.integer)
        or not classes <= train_size <= here
    ):
        raise InputError(
            f"train_size: {train_size!r} for {images.name}, expected a whole number from {classes} (one image of each "
            f"class) to {here:,} (all training images)"
        )
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed: {seed!r}, expected a whole number from 0")
    kept = stratified_subset(images.train.labels, int(train_size), int(seed))
    train = Split(np.ascontiguousarray(images.train.images[kept]), images.train.labels[kept])
    if published:  # the mean and deviation of CIFAR are constants, whatever is trained on
        return dataclasses.replace(images, train=train)
    mean, std = channel_statistics(train.images)
    return dataclasses.replace(images, train=train, mean=mean, std=std)
