"""Decoding of one untrusted image file to a square of RGB pixels: JPEG, PNG, WebP, BMP, first frame of a GIF."""

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
BACKGROUND = (255, 255, 255)  # behind transparent pixels
MAX_PIXELS = 200_000_000  # a panorama of 20,000 x 10,000; more is a decompression bomb
MAX_FILE_BYTES = 1 << 29
_LARGE = 1 << 24  # pixels; larger images are decoded one at a time to limit memory
_one_large = threading.Lock()

# Plugins instead of Image.open, which would try other formats and apply a global size limit.
_PLUGINS = (
    (b"\xff\xd8\xff", 0, JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", 0, PngImagePlugin.PngImageFile),
    (b"GIF8", 0, GifImagePlugin.GifImageFile),
    (b"WEBP", 8, WebPImagePlugin.WebPImageFile),
    (b"BM", 0, BmpImagePlugin.BmpImageFile),
)
HEAD = 12  # bytes that identify the format
# EXIF orientation -> operation that makes the image upright.
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
    """A file that cannot be decoded: ``path``, and ``reason``, a predicate such as "is damaged"."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"image: {escape(path)} {reason}")
        self.path, self.reason = Path(path), reason


def read_image(path: str | Path, size: int) -> np.ndarray:
    """Decode an image file to (size, size, 3) uint8 RGB.

    The image is turned upright by its EXIF orientation, its central square is cropped and resized with antialiased
    bicubic interpolation (an image of ``size`` x ``size`` keeps its exact pixels). Transparent pixels become white; of
    16-bit values the upper byte is used.

    Raises:
        UnreadableImage: The file is missing, not a supported image, damaged or truncated.
    """
    with quiet():
        return read_and_decode(Path(path), size)[0]


def read_and_decode(path: Path, size: int) -> tuple[np.ndarray, tuple[int, int], bytes]:
    """Return (pixels as in `read_image`, (width, height) of the upright image, the file's bytes).

    Threads may call it concurrently, inside one `quiet` block.
    """
    content = read_bytes(path)
    return *_decode(path, content, size), content


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Read a file, or its first ``most`` bytes, without blocking on pipes. Raises UnreadableImage."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise UnreadableImage(path, f"is not a file, expected a {FORMATS}")
            if state.st_size > MAX_FILE_BYTES:
                raise UnreadableImage(path, f"has {state.st_size:,} bytes, expected at most {MAX_FILE_BYTES:,}")
            return file.read() if most is None else file.read(most)
    except UnreadableImage:  # a ValueError as well
        raise
    except FileNotFoundError:
        raise UnreadableImage(path, f"does not exist, expected a {FORMATS}") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero in it
        raise UnreadableImage(path, f"is not readable: {getattr(error, 'strerror', None) or error}") from None


def is_image(head: bytes) -> bool:
    """Whether the first HEAD bytes of a file are those of a supported format."""
    return any(head[at:].startswith(magic) for magic, at, _ in _PLUGINS)


def dimensions(content: bytes) -> tuple[int, int] | None:
    """Return (width, height) of the upright image from its header; None if the header is unreadable."""
    try:
        image = _open(Path(), content)
    except UnreadableImage:
        return None
    return image.size if _orientation(image) < 5 else image.size[::-1]


def _decode(path: Path, content: bytes, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Return (pixels as in `read_image`, (width, height) of the upright image)."""
    image = _open(path, content)
    width_and_height = image.size  # draft() changes it
    with _one_large if image.width * image.height > _LARGE else contextlib.nullcontext():
        try:
            square = _square(image, size)
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ...
            raise UnreadableImage(path, f"is damaged or cut off ({_reason(error)})") from None
    turn = _orientation(image)
    if turn in _UPRIGHT:
        square = square.transpose(_UPRIGHT[turn])
    return np.array(square), width_and_height if turn < 5 else width_and_height[::-1]


def square(image: Image.Image, size: int) -> np.ndarray:
    """Convert an open image as `read_image` does: (size, size, 3) uint8, or (size, size) if it is grey."""
    pixels = np.asarray(_square(image, size))
    turn = _orientation(image)
    pixels = np.array(Image.fromarray(pixels).transpose(_UPRIGHT[turn])) if turn in _UPRIGHT else pixels
    return pixels[..., 0] if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16") else pixels


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress Pillow's warnings about damaged files, in all threads; the files are reported instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(path: Path, content: bytes) -> Image.Image:
    """Open an image and read its header only."""
    plugin = next((plugin for magic, at, plugin in _PLUGINS if content[at:].startswith(magic)), None)
    if plugin is None:
        raise UnreadableImage(path, f"is {'empty' if not content else 'not an image'}, expected a {FORMATS}")
    try:
        image = plugin(BytesIO(content))
        width, height = image.size
    except Exception as error:
        raise UnreadableImage(path, f"is damaged or cut off ({_reason(error)})") from None
    if not 0 < width * height <= MAX_PIXELS:
        raise UnreadableImage(path, f"claims {width:,} x {height:,} pixels, expected at most {MAX_PIXELS:,} in all")
    return image


def _square(image: Image.Image, size: int) -> Image.Image:
    """Crop the central square and resize it to RGB of size x size."""
    # JPEGs decode faster at 1/2, 1/4 or 1/8 of their size; the filter below still halves at least.
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
    """Convert 16-bit grey to 8 bits by the upper byte, as Pillow does for 16-bit colours, with transparency."""
    values = np.asarray(image)
    wide = image.mode in ("I", "F")
    grey = Image.fromarray((np.clip(values / 257, 0, 255) if wide else values >> 8).astype(np.uint8))
    if not isinstance(transparent := image.info.get("transparency"), int):
        return grey
    shown = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, shown)).convert("RGBA")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, or 1 (upright) if it is missing or unreadable."""
    exif = Image.Exif()  # image.getexif() would decode a whole PNG
    try:
        exif.load(image.info.get("exif", b""))
        value = exif.get(0x0112, 1)
    except Exception:  # damaged EXIF does not make the image unusable
        return 1
    return value if value in _UPRIGHT else 1


def _reason(error: Exception) -> str:
    """A decoder's message on one line."""
    text = escape(str(error).split("\n")[0])[:120].rstrip(". ")
    return text or type(error).__name__
