"""Image data sets in memory, made from arrays or .npz files and validated."""

from __future__ import annotations

import contextlib
import hashlib
import unicodedata
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

MIN_SIZE, MAX_SIZE = 8, 224  # side of an image in pixels
KEYS = ("x_train", "y_train", "x_test", "y_test")
_OPTIONAL = ("classes", "x_val", "y_val")
_SMALL = 1 << 28  # bytes; larger .npz files must not be compressed more than _RATIO times
_RATIO = 100


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images and labels.

    Attributes:
        images: (N, C, H, W) uint8, contiguous, or MemmapRows if they do not fit into memory.
        labels: (N,) int64.
        pixels_hash: Replaces the pixels in the fingerprint, where it is known already.
    """

    images: np.ndarray
    labels: np.ndarray
    pixels_hash: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self):,} images, {_dimensions(self.images)})"


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """A data set for image classification.

    Attributes:
        name: Its name in messages and files.
        train: Training images.
        test: Test images.
        classes: Class names, by label.
        mean: Mean of each channel of the training images, on the scale 0 to 255.
        std: Standard deviation of each channel, on the same scale.
        val: Images for other choices, such as the calibration temperature; neither trained nor tested on.
        record: For an image folder, what a run saves to load exactly these images again.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    val: Split | None = None
    record: dict[str, Any] | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def channels(self) -> int:
        """Channels of an image, 1 or 3."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.train.images.shape[2]

    @cached_property
    def fingerprint(self) -> str:
        """``sha256:...`` of the shapes, pixels and labels of all splits and of the class names."""
        digest = hashlib.sha256()
        for split in filter(None, (self.train, self.test, self.val)):
            digest.update(repr(split.images.shape).encode())
            digest.update(split.pixels_hash.encode() if split.pixels_hash else np.ascontiguousarray(split.images).data)
            digest.update(np.ascontiguousarray(split.labels, "<i8").data)
        digest.update(repr(self.classes).encode())
        return f"sha256:{digest.hexdigest()}"

    def __repr__(self) -> str:
        splits = {"train": self.train, "val": self.val, "test": self.test}
        counts = ", ".join(f"{len(split):,} {name}" for name, split in splits.items() if split is not None)
        return f"ImageData({self.name}, {counts}, {self.num_classes} classes, {_dimensions(self.train.images)})"


def _dimensions(images: np.ndarray) -> str:
    _, c, h, w = images.shape
    return f"{h}x{w}x{c}"


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, from exact integer sums.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        Two tuples of C floats. The deviation of a constant channel is given as 1, so that normalisation gives zeros.
    """
    n, c, h, w = images.shape
    sums, squares = np.zeros(c, np.int64), np.zeros(c, np.int64)
    for start in range(0, n, 1024):
        block = images[start : start + 1024].astype(np.int64)
        sums += block.sum(axis=(0, 2, 3))
        squares += (block * block).sum(axis=(0, 2, 3))
    count = n * h * w
    mean = sums / count
    # Integers, because the difference of two large floats would lose its digits.
    variance = [(count * int(q) - int(s) ** 2) / count**2 for q, s in zip(squares, sums, strict=True)]
    return tuple(mean.tolist()), tuple(v**0.5 if v > 0 else 1.0 for v in variance)


def load_npz(path: Path) -> ImageData:
    """Load an .npz with the arguments of `from_arrays` as arrays. Pickles are never read."""
    return from_arrays(**read_npz(path, _OPTIONAL), name=path.stem, source=str(path))


def read_npz(path: Path, optional: tuple[str, ...] = (), required: tuple[str, ...] = KEYS) -> dict[str, np.ndarray]:
    """Read arrays of an .npz; values are plain and sizes plausible. Raises InputError."""
    if not path.is_file():
        raise InputError(f"data: the file {path} does not exist, expected an .npz with {', '.join(required)}")
    arrays, where = {}, str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if missing := [key for key in required if key not in members]:
                raise InputError(
                    f"data: {path} has no {', '.join(missing)}, expected {', '.join(required)} (it has "
                    f"{', '.join(sorted(members)) or 'nothing'})"
                )
            wanted = {key: members[key] for key in (*required, *optional) if key in members}
            unpacked, packed = (sum(getattr(i, n) for i in wanted.values()) for n in ("file_size", "compress_size"))
            if unpacked > _SMALL and unpacked > _RATIO * packed:
                raise InputError(
                    f"data: {path} would grow from {packed:,} to {unpacked:,} bytes when unpacked, "
                    "expected images, which do not compress a hundredfold"
                )
            for key, info in wanted.items():
                where = f"{key} in {path}"
                with archive.open(info) as stream:
                    arrays[key] = np.lib.format.read_array(stream, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types for damaged files
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"data: {where} is damaged or not a plain array ({reason}), expected an .npz written by numpy.savez"
        ) from error
    return arrays


def from_arrays(
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    classes: Sequence[str] | np.ndarray | None = None,
    *,
    x_val: np.ndarray | None = None,
    y_val: np.ndarray | None = None,
    name: str = "arrays",
    source: str = "the arrays",
) -> ImageData:
    """Make a data set from arrays.

    Args:
        x_train: Training images (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels and H = W from 8 to 224,
            uint8 or floats in [0, 1].
        y_train: (N,) integers from 0; every class must occur.
        x_test: Test images of the same size and channels.
        y_test: (N,) integers.
        classes: Class names by label; default the labels.
        x_val: Images for other choices, such as the calibration temperature.
        y_val: (N,) integers.
        name: Name of the data set.
        source: Name of the arrays' origin in error messages.

    Raises:
        InputError: Arrays of another shape, dtype or range; the message names the array.
    """
    if (x_val is None) != (y_val is None):
        raise InputError(f"data: {source} has one of x_val and y_val, expected both or neither")
    given = {"train": (x_train, y_train), "test": (x_test, y_test)} | (
        {"val": (x_val, y_val)} if x_val is not None and y_val is not None else {}
    )
    splits = {
        which: Split(checked_images(f"x_{which}", x, source), _labels(f"y_{which}", y, source))
        for which, (x, y) in given.items()
    }
    train = splits["train"]
    for which, split in splits.items():
        if len(split.images) != len(split.labels):
            raise InputError(
                f"data: y_{which} in {source} has {len(split.labels):,} labels, "
                f"expected one for each of the {len(split.images):,} images of x_{which}"
            )
        if train.images.shape[1:] != split.images.shape[1:]:
            raise InputError(
                f"data: x_{which} in {source} has images of {describe_shape(split.images)}, expected those of x_train, "
                f"{describe_shape(train.images)}"
            )
    names = _classes(classes, train.labels, source)
    present = set(np.unique(train.labels).tolist())
    if absent := [label for label in range(len(names)) if label not in present]:
        raise InputError(
            f"data: y_train in {source} has no image of class {absent[0]}, "
            f"expected every class from 0 to {len(names) - 1}"
        )
    for which, split in splits.items():
        if int(split.labels.max()) >= len(names):
            raise InputError(
                f"data: y_{which} in {source} has the label {split.labels.max()}, "
                f"expected 0 to {len(names) - 1}, one of {len(names)} classes"
            )
    return ImageData(name, train, splits["test"], names, *channel_statistics(train.images), splits.get("val"))


def describe_shape(images: np.ndarray) -> str:
    """Return the size and channels of images (..., C, H, W) in words."""
    c, h, w = images.shape[-3:]
    return f"{h} x {w} pixels and {c} channel{'s' if c > 1 else ''}"


def checked_images(key: str, x: np.ndarray, source: str) -> np.ndarray:
    """Return images as contiguous (N, C, H, W) uint8. Raises InputError as `from_arrays`, naming them ``key``."""
    x = _as_array(key, x, source)
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    elif x.ndim != 4 or x.shape[1] not in (1, 3):
        raise InputError(
            f"data: {key} in {source} has the shape {x.shape}, expected (N, H, W), (N, H, W, C) or (N, C, H, W) "
            f"with 1 or 3 channels"
        )
    n, _, h, w = x.shape
    if n == 0:
        raise InputError(f"data: {key} in {source} has no images, expected at least one")
    if h != w or not MIN_SIZE <= h <= MAX_SIZE:
        raise InputError(
            f"data: {key} in {source} has images of {h} x {w} pixels, expected squares of {MIN_SIZE} to {MAX_SIZE}"
        )
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype.kind != "f":
        raise InputError(f"data: {key} in {source} is {x.dtype}, expected uint8 (0 to 255) or floats (0 to 1)")
    out = np.empty(x.shape, np.uint8)
    for start in range(0, n, 1024):  # in blocks, because floats take four or eight times the memory
        block = x[start : start + 1024].astype(np.float64)
        wrong = block[~((block >= 0) & (block <= 1))]  # nan, too
        if wrong.size:
            raise InputError(
                f"data: {key} in {source} has the value {wrong[0]:g}, expected floats from 0 to 1, or uint8 (0 to 255)"
            )
        out[start : start + 1024] = np.rint(block * 255)
    return out


def _as_array(key: str, values: Any, source: str) -> np.ndarray:
    """Convert arrays, tensors and sequences. Raises InputError naming the first item of another shape."""
    try:
        if hasattr(values, "detach"):  # a tensor, perhaps on a device or in bfloat16, which numpy lacks
            values = values.detach().cpu()
            values = values.float() if values.is_floating_point() else values
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        with contextlib.suppress(Exception):
            shapes = [np.shape(value) for value in values]
            odd = next(index for index, shape in enumerate(shapes) if shape != shapes[0])
            reason = f"item {odd} has the shape {shapes[odd]}, item 0 {shapes[0]}"
        raise InputError(f"data: {key} in {source} cannot be made one array: {reason}") from None


def _labels(key: str, labels: Any, source: str) -> np.ndarray:
    y = _as_array(key, labels, source)
    if y.dtype.kind in "OU":
        values = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
        odd = next((i for i, value in enumerate(values) if not isinstance(value, int | np.integer)), 0)
        raise InputError(f"data: item {odd} of {key} in {source} is {values[odd]!r}, expected integers from 0")
    if y.ndim == 2 and y.shape[1] == 1:  # as in Keras
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(f"data: {key} in {source} has the shape {y.shape}, expected (N,)")
    if y.dtype.kind not in "iu":
        raise InputError(f"data: {key} in {source} is {y.dtype}, expected integers from 0")
    if len(y) and (int(y.min()) < 0 or int(y.max()) > np.iinfo(np.int32).max):
        raise InputError(
            f"data: {key} in {source} has the label {min(y.min(), 0) or y.max()}, expected integers from 0"
        )
    return np.ascontiguousarray(y, np.int64)


def is_name(text: str) -> bool:
    """Whether a text can name a class: it has visible characters and is valid Unicode."""
    visible = any(unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp", "Zs") for c in text)
    return visible and text == text.encode("utf-8", "replace").decode()


def _classes(classes: Sequence[str] | np.ndarray | None, labels: np.ndarray, source: str) -> tuple[str, ...]:
    if classes is None:
        names = tuple(map(str, range(min(int(labels.max()), len(labels)) + 1)))
    else:
        array = np.asarray(classes)
        if array.ndim != 1 or array.dtype.kind != "U":
            raise InputError(
                f"data: classes in {source} is {array.dtype} of shape {array.shape}, expected (k,) strings"
            )
        names = tuple(array.tolist())
        if len(set(names)) != len(names) or not all(map(is_name, names)):
            raise InputError(f"data: classes in {source} has empty or repeated names, expected distinct visible names")
    if len(names) < 2:
        raise InputError(f"data: y_train in {source} has only one class, expected at least two")
    return names
