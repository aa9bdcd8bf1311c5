"""Data sources by name or path: load them, list them, and register your own."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..errors import InputError
from ..utils.extras import require
from ..utils.files import expand_user
from ..utils.progress import ProgressCallback
from .cifar import layouts
from .cifar.layouts import Cifar
from .cifar.spec import CIFAR
from .dataset import ImageData, Split, channel_statistics, from_arrays, load_npz
from .subset import stratified_subset

BUILTIN = ("digits", "cifar10", "cifar100")
DIGITS_TEST = 450  # of 1,797 images; fixed, so that runs are comparable

Loader = TypeVar("Loader", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*(:\w+)?", re.ASCII)
_OPTIONS = ("data", "data_dir", "image_size", "split_seed", "record", "progress")  # what a loader may take


class DataSource(NamedTuple):
    """A function that returns ImageData or arguments of `from_arrays`, and one line about it for listings."""

    load: Callable[..., Any]
    description: str


_sources: dict[str, DataSource] = {}


def register_data(name: str) -> Callable[[Loader], Loader]:
    """Register a data source under a name that `load_data` and recipes accept.

        @register_data("blobs")
        def blobs():
            return x_train, y_train, x_test, y_test

    The function returns an `ImageData`, or the arguments of `from_arrays` as a tuple or a mapping, and the same images
    at every call: a run resumes only with the images it began with. It may take ``data_dir``, ``image_size``,
    ``split_seed`` and ``progress``, with which `load_data` was called.

    Args:
        name: Letters, digits and ``_ . + -``, optionally followed by ``:NAME``.

    Returns:
        A decorator that returns the function unchanged. Repeating a definition replaces it.

    Raises:
        InputError: The name is invalid, built in, or registered by another function, or the function has other
            required arguments.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower().endswith(".npz"):
        raise InputError(f"data: got the name {name!r}, expected letters, digits and _ . + -, such as my_data")
    if name in BUILTIN:
        raise InputError(f"data: {name!r} is built in, expected another name")

    def register(load: Loader) -> Loader:
        old, origin = _sources.get(name), _origin(load)
        if old is not None and _origin(old.load) != origin:
            raise InputError(f"data: {name!r} is registered by {_origin(old.load)}, expected another name")
        optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        required = [p for p in inspect.signature(load).parameters.values() if p.default is p.empty]
        if wrong := [p.name for p in required if p.name not in _OPTIONS and p.kind not in optional]:
            raise InputError(f"data: {origin} requires {', '.join(wrong)}, expected only {', '.join(_OPTIONS)}")
        description = (inspect.getdoc(load) or f"registered by {origin}").split("\n")[0]
        _sources[name] = DataSource(load, description)
        return load

    return register


def _origin(load: Callable[..., Any]) -> str:
    return f"{getattr(load, '__module__', '?')}.{getattr(load, '__qualname__', type(load).__name__)}"


def list_data() -> list[tuple[str, str]]:
    """Return (name, description) of the data sets that have a name."""
    return [(name, source.description) for name, source in _sources.items()]


def load_data(
    data: str | os.PathLike[str] | ImageData,
    *,
    data_dir: str | Path | None = None,
    train_size: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
    split_seed: int = 0,
    record: dict[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> ImageData:
    """Load images.

    Args:
        data: ``digits``, ``cifar10``, ``cifar100``, the name of a registered source, an image folder (one folder per
            class, or these in ``train/``, ``test/`` and optionally ``val/``), or an ``.npz`` with the arrays of
            `from_arrays`. An ImageData is returned unchanged, or as a subset.
        data_dir: The only folder searched for CIFAR, and its download target; default ``$SHAKESHAKE_DATA``, then the
            user's cache. With ``record``, or for an ``.npz``: where the data are now.
        train_size: Use a stratified subset of this many training images; test images stay.
        seed: Seed of the subset.
        image_size: Side in pixels, for image folders; default chosen from the images' sizes.
        split_seed: Seed of the test split, for image folders without ``test/`` and ``val/``.
        record: ``ImageData.record`` of an earlier load of an image folder, to get exactly its images.
        progress: Called with (task, done, total or None), in bytes for downloads and files for image folders; default
            a bar on stderr.

    Raises:
        InputError: The data do not exist, cannot be downloaded or are not as described above.
    """
    if isinstance(data, ImageData):
        return _adapt(data, train_size, seed, image_size)
    if not isinstance(data, str | os.PathLike):
        raise InputError(f"data: got {data!r}, expected {_expected()}")
    data = os.fspath(data)
    options = {
        "data": data,
        "data_dir": data_dir,
        "image_size": image_size,
        "split_seed": split_seed,
        "record": record,
        "progress": progress,
    }
    load = _loader_of(data, is_folder=record is not None)
    parameters = inspect.signature(load).parameters
    images = load(**{key: value for key, value in options.items() if key in parameters})
    return _adapt(_as_image_data(images, data), train_size, seed, image_size, fixed_statistics=data in CIFAR)


def _loader_of(data: str, is_folder: bool) -> Callable[..., Any]:
    if data in _sources:
        return _sources[data].load
    path = expand_user(data)
    if is_folder or path.is_dir():
        return _load_folder
    if data.lower().endswith(".npz"):
        return _load_npz
    if path.exists():
        raise InputError(f"data: got the file {data}, expected {_expected()}")
    close = difflib.get_close_matches(data.lower(), list(_sources), cutoff=0.5)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise InputError(
        f"data: {data!r} is neither registered nor an existing path{hint}, expected {_expected()}; for your own "
        "source, import the module that registers it, or name it as FILE.py:NAME"
    )


def _expected() -> str:
    return f"{', '.join(_sources)}, an image folder or an .npz file"


def _as_image_data(images: Any, name: str) -> ImageData:
    if isinstance(images, ImageData):
        return images
    try:
        if isinstance(images, Mapping):
            return from_arrays(**{"name": name, "source": name, **images})
        if isinstance(images, tuple):
            return from_arrays(*images, name=name, source=name)
    except TypeError as error:
        raise InputError(f"data: {name} returned wrong arguments of from_arrays: {error}") from None
    raise InputError(
        f"data: {name} returned {type(images).__name__}, expected an ImageData, or arguments of from_arrays as a tuple "
        "or a mapping"
    )


def fetch_data(name: str, data_dir: str | Path | None = None) -> Path:
    """Return the folder or archive of ``cifar10`` or ``cifar100``, verified, after a download if needed."""
    found = _find_or_download(_cifar(name), data_dir)
    layouts.read(_cifar(name), found)
    return found.path


def find_data(name: str, data_dir: str | Path | None = None) -> Path | None:
    """Return the folder or archive with a complete copy of CIFAR, or None; neither downloads nor verifies."""
    cifar = _cifar(name)
    with contextlib.suppress(InputError):
        if found := layouts.find(cifar, layouts.places(data_dir)):
            return found.path
    return None


def verify_data(name: str, data_dir: str | Path | None = None) -> list[tuple[str, str]]:
    """Return (file, "ok" or the problem) for each official file of CIFAR, comparing MD5s of all bytes."""
    return layouts.verify(_cifar(name), layouts.places(data_dir))


def _cifar(name: str) -> Cifar:
    if name not in CIFAR:
        raise InputError(f"name: got {name!r}, expected {' or '.join(CIFAR)}; other data have no official files")
    return CIFAR[name]


def _find_or_download(
    cifar: Cifar, data_dir: str | Path | None, progress: ProgressCallback | None = None
) -> layouts.Found:
    places = layouts.places(data_dir)
    if found := layouts.find(cifar, places):
        return found
    from .cifar.download import obtain

    return obtain(cifar, places[0], progress)


def _load_cifar(data: str, data_dir: str | Path | None, progress: ProgressCallback | None) -> ImageData:
    cifar = CIFAR[data]
    arrays = layouts.read(cifar, _find_or_download(cifar, data_dir, progress))
    return ImageData(cifar.name, Split(*arrays[False]), Split(*arrays[True]), cifar.classes, cifar.mean, cifar.std)


def _load_digits() -> ImageData:
    bunch = require("sklearn.datasets", "train").load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    is_test = np.zeros(len(labels), bool)
    is_test[stratified_subset(labels, DIGITS_TEST, seed=0)] = True
    train, test = Split(images[~is_test], labels[~is_test]), Split(images[is_test], labels[is_test])
    return ImageData("digits", train, test, tuple("0123456789"), *channel_statistics(train.images))


def _load_folder(
    data: str,
    data_dir: str | Path | None,
    image_size: int | None,
    split_seed: int,
    record: dict[str, Any] | None,
    progress: ProgressCallback | None,
) -> ImageData:
    require("PIL", "train")
    from .image_folder.dataset import load_image_folder, load_recorded

    if record is not None:
        return load_recorded(expand_user(data if data_dir is None else data_dir), record, progress)
    return load_image_folder(expand_user(data), image_size=image_size, split_seed=split_seed, progress=progress)


def _load_npz(data: str, data_dir: str | Path | None) -> ImageData:
    """Load an .npz, by its name in ``data_dir`` (or that path itself) if it has moved."""
    path = expand_user(data)
    if data_dir is not None and not path.exists():
        moved = expand_user(data_dir)
        path = moved / path.name if moved.is_dir() else moved
    return load_npz(path)


_sources["digits"] = DataSource(
    _load_digits, "1,347 training and 450 test images of handwritten digits, 8 x 8 grey, 10 classes; in scikit-learn"
)
for _name, _cifar_spec in CIFAR.items():
    _sources[_name] = DataSource(
        _load_cifar,
        "50,000 training and 10,000 test photographs, 32 x 32 colour, "
        f"{len(_cifar_spec.classes)} classes; downloaded if absent",
    )


def _adapt(
    images: ImageData, train_size: int | None, seed: int, image_size: int | None, fixed_statistics: bool = False
) -> ImageData:
    if image_size not in (None, images.image_size):
        raise InputError(
            f"image_size: got {image_size}, expected None for {images.name}, whose images have {images.image_size} "
            "pixels"
        )
    return images if train_size is None else _subset(images, train_size, seed, fixed_statistics)


def _subset(images: ImageData, train_size: int, seed: int, fixed_statistics: bool) -> ImageData:
    available, classes = len(images.train), images.num_classes
    if not _is_integer(train_size) or not classes <= train_size <= available:
        raise InputError(
            f"train_size: got {train_size!r}, expected an integer from {classes} (one image per class) to "
            f"{available:,} (all training images) for {images.name}"
        )
    if not _is_integer(seed) or seed < 0:
        raise InputError(f"seed: got {seed!r}, expected an integer from 0")
    rows = stratified_subset(images.train.labels, int(train_size), int(seed))
    train = Split(np.ascontiguousarray(images.train.images[rows]), images.train.labels[rows])
    mean, std = (images.mean, images.std) if fixed_statistics else channel_statistics(train.images)
    return dataclasses.replace(images, train=train, mean=mean, std=std)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
