"""Knows how one image file becomes a square of RGB pixels, or says what is wrong with it; nothing in it is trusted.

Formats are recognised by their first bytes, not by the name: JPEG, PNG, WebP, BMP, and the first frame of a GIF.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from ...errors import InputError
from ...utils.console import escape

FORMATS = "JPEG, PNG, WebP, BMP or GIF"
BACKGROUND = (255, 255, 255)  # white shows where an image is transparent
MOST_PIXELS = 200_000_000  # a panorama of 20,000 x 10,000; what claims more is a bomb
MOST_BYTES = 1 << 29  # of a file
_LARGE = 1 << 24  # pixels above which images are decoded one at a time, so that memory holds one of them
_one_large = threading.Lock()

# A plugin itself instead of Image.open: it tries no other format, and knows no limit that is the same for everybody.
_PLUGINS = (
    (b"\xff\xd8\xff", 0, JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", 0, PngImagePlugin.PngImageFile),
    (b"GIF8", 0, GifImagePlugin.GifImageFile),
    (b"WEBP", 8, WebPImagePlugin.WebPImageFile),
    (b"BM", 0, BmpImagePlugin.BmpImageFile),
)
HEAD = 12  # bytes in which the format shows
# EXIF's orientation -> what brings the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(InputError):
    """A file that is no image we can read: ``path``, and ``reason``, which goes on after the file's name."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"image: {escape(path)} {reason}")
        self.path, self.reason = Path(path), reason


class _Unreadable(Exception):
    """What is wrong, before it is known which file it is wrong with."""


def read_image(path: str | Path, size: int) -> np.ndarray:
    """The image in a file as (size, size, 3) uint8, RGB.

    Upright by its EXIF orientation; the square in the middle, resized by an antialiased bicubic filter (an image of
    ``size`` by ``size`` keeps its very pixels); transparency on white; of 16 bits the upper 8. Raises UnreadableImage,
    one sentence with the name and what is wrong, for all that is no such image, files that are cut off included.
    """
    with quiet():
        return read_and_decode(Path(path), size)[0]


def read_and_decode(path: Path, size: int) -> tuple[np.ndarray, tuple[int, int], bytes]:
    """What read_image gives, with (width, height) of the upright image and the bytes of the file.

    Threads may call it side by side, under one quiet() for all of them.
    """
    content = read_bytes(path)
    try:
        return *decode(content, size), content
    except _Unreadable as error:
        raise UnreadableImage(path, str(error)) from None


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """A file's content, or its first ``most`` bytes. Raises UnreadableImage; never waits for a pipe."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise UnreadableImage(path, f"is no file, expected a {FORMATS}")
            if state.st_size > MOST_BYTES:
                raise UnreadableImage(path, f"has {state.st_size:,} bytes, expected at most {MOST_BYTES:,}")
            return file.read() if most is None else file.read(most)
    except UnreadableImage:  # a ValueError as well
        raise
    except FileNotFoundError:
        raise UnreadableImage(path, f"is not there, expected a {FORMATS}") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero in it
        raise UnreadableImage(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def is_image(head: bytes) -> bool:
    """Whether the first HEAD bytes of a file are those of a format that is read here."""
    return any(head[at:].startswith(magic) for magic, at, _ in _PLUGINS)


def dimensions(content: bytes) -> tuple[int, int] | None:
    """(width, height) of the upright image by its header, or None where it has no header that can be read."""
    try:
        image = _open(content)
    except _Unreadable:
        return None
    return image.size if _orientation(image) < 5 else image.size[::-1]


def decode(content: bytes, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The pixels, as read_image, and (width, height) of the upright image. Raises a private exception: see above."""
    image = _open(content)
    width_and_height = image.size  # before draft() changes it
    with _one_large if image.width * image.height > _LARGE else contextlib.nullcontext():
        try:
            square = _square(image, size)
        except Exception as error:  # decoders raise whatever they run into: OSError, SyntaxError, struct.error, ...
            raise _Unreadable(f"is damaged or cut off ({_reason(error)})") from None
    turn = _orientation(image)
    if turn in _UPRIGHT:
        square = square.transpose(_UPRIGHT[turn])
    return np.array(square), width_and_height if turn < 5 else width_and_height[::-1]


def square(image: Image.Image, size: int) -> np.ndarray:
    """An image that somebody has opened, as read_image would give it; (size, size) where it is grey."""
    pixels = np.asarray(_square(image, size))
    turn = _orientation(image)
    pixels = np.array(Image.fromarray(pixels).transpose(_UPRIGHT[turn])) if turn in _UPRIGHT else pixels
    return pixels[..., 0] if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16") else pixels


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What Pillow warns of in a damaged file is not for the user, who is told of the file. For all threads at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(content: bytes) -> Image.Image:
    """The image with its header read and its pixels not yet."""
    plugin = next((plugin for magic, at, plugin in _PLUGINS if content[at:].startswith(magic)), None)
    if plugin is None:
        raise _Unreadable(f"is {'empty' if not content else 'no image'}, expected a {FORMATS}")
    try:
        image = plugin(BytesIO(content))
        width, height = image.size
    except Exception as error:
        raise _Unreadable(f"is damaged or cut off ({_reason(error)})") from None
    if not 0 < width * height <= MOST_PIXELS:
        raise _Unreadable(f"claims {width:,} x {height:,} pixels, expected at most {MOST_PIXELS:,} in all")
    return image


def _square(image: Image.Image, size: int) -> Image.Image:
    """The middle of an image as RGB of size x size."""
    # A JPEG can be decoded at a half, a quarter, an eighth: cheap, and the filter below still halves at least.
    image.draft(None, (2 * size, 2 * size))
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _grey(image)
    elif image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    image = image.resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side), reducing_gap=3.0
    )
    if image.mode == "RGBA":
        on = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(on, image)
    return image.convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """Greys of 16 bits by their upper 8, as Pillow itself takes 16-bit colours; one of them may be transparent."""
    values = np.asarray(image)
    wide = image.mode in ("I", "F")
    grey = Image.fromarray((np.clip(values / 257, 0, 255) if wide else values >> 8).astype(np.uint8))
    if not isinstance(transparent := image.info.get("transparency"), int):
        return grey
    shown = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, shown)).convert("RGBA")


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 where there is none that can be read."""
    exif = Image.Exif()  # not image.getexif(), which decodes a whole PNG in search of it
    try:
        exif.load(image.info.get("exif", b""))
        value = exif.get(0x0112, 1)
    except Exception:  # damaged EXIF is no reason to lose the image
        return 1
    return value if value in _UPRIGHT else 1


def _reason(error: Exception) -> str:
    """What a decoder says, on one line."""
    text = escape(str(error).split("\n")[0])[:120].rstrip(". ")
    return text or type(error).__name__
