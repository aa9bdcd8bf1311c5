"""Decoding one file: every format and mode against Pillow's slow way, and unreadable files."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from shakeshake.data.image_folder.decode import UnreadableImage, dimensions, read_image
from shakeshake.errors import InputError

WHITE = (255, 255, 255)


def smooth(width: int, height: int) -> np.ndarray:
    """(height, width, 3): colours that change slowly, so that resizing and JPEG change little."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=2).astype(np.uint8)


def middle(pixels: np.ndarray, size: int) -> np.ndarray:
    """The slow way: the mean of the square of source pixels that each pixel of the middle square covers."""
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    square = pixels[top : top + side, left : left + side].astype(float)
    return square.reshape(size, side // size, size, side // size, -1).mean(axis=(1, 3))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[("a.jpg", {"quality": 95}), ("p.jpg", {"quality": 95, "progressive": True}), ("a.png", {}), ("a.bmp", {})],
        *[("a.webp", {"lossless": True}), ("a.gif", {}), ("wrongly_named.txt", {"format": "PNG"})],
    ],
)
@pytest.mark.parametrize("shape", [(64, 64), (192, 64), (64, 320)])
def test_central_square_is_resized(tmp_path, name, options, shape):
    pixels = smooth(*shape)
    Image.fromarray(pixels).save(tmp_path / name, **options)
    ours = read_image(tmp_path / name, 16)
    assert ours.shape == (16, 16, 3)
    assert ours.dtype == np.uint8
    tolerance = 12 if name.endswith("gif") else 4  # a palette of 256 colours
    assert abs(ours - middle(pixels, 16)).max() < tolerance
    assert np.array_equal(ours, read_image(tmp_path / name, 16))


def test_image_of_the_right_size_keeps_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", 32), pixels)


def test_all_pillow_modes_are_decoded(tmp_path):
    colour = smooth(32, 32)
    image = Image.fromarray(colour)
    grey = np.asarray(image.convert("L"))
    sixteen = Image.fromarray(grey.astype(np.uint16) * 256 + 77)
    for name, saved, expected, tolerance in (
        ("grey.png", image.convert("L"), grey[..., None], 0),
        ("one.png", image.convert("1"), np.asarray(image.convert("1").convert("L"))[..., None], 0),
        ("palette.png", image.convert("P"), np.asarray(image.convert("P").convert("RGB")), 0),
        ("sixteen.png", sixteen, grey[..., None], 0),
        ("la.png", Image.merge("LA", (image.convert("L"), Image.new("L", (32, 32), 255))), grey[..., None], 0),
        ("cmyk.jpg", image.convert("CMYK"), colour, 12),
        ("grey.jpg", image.convert("L"), grey[..., None], 12),
    ):
        saved.save(tmp_path / name)
        assert abs(read_image(tmp_path / name, 32).astype(int) - expected).max() <= tolerance, name


def png_of_16_bit_colours(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint16 as PNG, which Pillow can read and not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_values_use_the_upper_byte(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (8, 8, 3), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png_of_16_bit_colours(pixels))
    assert np.array_equal(read_image(tmp_path / "a.png", 8), pixels >> 8)


def test_transparent_pixels_become_white(tmp_path):
    """In all four ways of saying it, and a hidden colour does not bleed into the edge when resized."""
    alpha = np.zeros((32, 32), np.uint8)
    alpha[:, 16:] = 255
    colours = np.full((32, 32, 3), (200, 0, 0), np.uint8)
    colours[:, :16] = (0, 0, 200)  # outside the central square
    rgba = Image.fromarray(np.dstack([colours, alpha]))
    rgba.save(tmp_path / "rgba.png")
    rgba.save(tmp_path / "rgba.webp", lossless=True)
    rgba.convert("P").save(tmp_path / "palette.png", transparency=rgba.convert("P").getpixel((0, 0)))
    for name in ("rgba.png", "rgba.webp"):
        ours = read_image(tmp_path / name, 8).astype(int)
        assert (ours[:, :3] == WHITE).all(), name
        assert (abs(ours[:, 4:] - (200, 0, 0)) <= 20).all(), name  # the filter overshoots a little at the edge
    assert (read_image(tmp_path / "palette.png", 32)[:, 0] == WHITE).all()
    keyed = Image.fromarray(np.full((8, 8, 3), (1, 2, 3), np.uint8))
    keyed.save(tmp_path / "keyed.png", transparency=(1, 2, 3))
    assert (read_image(tmp_path / "keyed.png", 8) == WHITE).all()


def test_transparent_16_bit_grey_becomes_white(tmp_path):
    values = np.full((8, 8), 7 << 8, np.uint16)
    values[:, :4] = 1234
    values[0, 0] += 1  # the same upper byte is not the same grey
    Image.fromarray(values).save(tmp_path / "keyed.png", transparency=1234)
    ours = read_image(tmp_path / "keyed.png", 8)
    assert ours[0, 0].tolist() == [1234 >> 8] * 3
    assert (ours[1:, :4] == WHITE).all()
    assert (ours[:, 4:] == 7).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_exif_orientation_is_applied(tmp_path, orientation, kind):
    image = Image.fromarray(smooth(64, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    image.save(path, exif=exif, **({"lossless": True} if kind == "webp" else {"quality": 100}))
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    assert abs(read_image(path, 32).astype(int) - middle(np.asarray(upright), 32)).max() <= 1
    assert dimensions(path.read_bytes()) == upright.size


def test_gif_gives_its_first_frame(tmp_path):
    red, blue = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    red.save(tmp_path / "a.gif", save_all=True, append_images=[blue])
    assert (read_image(tmp_path / "a.gif", 16) == (255, 0, 0)).all()


def test_large_panorama_is_decoded(tmp_path):
    pixels = np.zeros((1000, 20_000, 3), np.uint8)
    pixels[:, 9400:10_600] = 200
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    Image.fromarray(pixels).save(tmp_path / "a.png", compress_level=1)
    for name in ("a.jpg", "a.png"):
        assert (abs(read_image(tmp_path / name, 16).astype(int) - 200) <= 2).all()


def bomb() -> bytes:
    """A GIF of 13 bytes and a bit that claims 65,535 x 65,535 pixels."""
    return b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2\x4c\1\0;"


def test_unreadable_images_are_reported(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(smooth(64, 64)).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    png = buffer.getvalue()
    for content, expected in (
        (b"", "is empty"),
        (b"not an image", "is not an image, expected a JPEG, PNG"),
        (jpeg[: len(jpeg) // 2], "cut off"),
        (jpeg[:20], "cut off"),
        (png[:4000], "cut off"),
        (png[:500] + bytes(100) + png[600:], "damaged"),
        (b"BM" + bytes(50), "damaged"),
        (b"RIFF\0\0\0\0WEBP" + bytes(9), "damaged"),
        (bomb(), "claims 65,535 x 65,535 pixels"),
    ):
        path = tmp_path / 'a "b" <i>\n\N{CAT FACE}.jpg'
        path.write_bytes(content)
        with pytest.raises(UnreadableImage, match=expected) as told:
            read_image(path, 32)
        assert "\n" not in str(told.value)
        assert 'a "b" <i>\\n\N{CAT FACE}.jpg' in str(told.value)
        assert told.value.path == path


def test_paths_that_are_not_files_are_reported(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for path in (tmp_path, tmp_path / "pipe.jpg", tmp_path / "loop.jpg", tmp_path / "absent.jpg", Path("a\0b")):
        with pytest.raises(InputError, match="image: ") as told:
            read_image(path, 32)
        assert str(told.value).count("image: ") == 1
    with pytest.raises(UnreadableImage, match=r"pipe\.jpg is not a file, expected a JPEG"):
        read_image(tmp_path / "pipe.jpg", 32)
