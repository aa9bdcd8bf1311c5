"""Image files for the tests of prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import shakeshake as ss


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """20 test images of the digits as PNG files: 0.png, ..., 19.png."""
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(ss.load_data("digits").test.images[:20]):
        Image.fromarray(image[0]).save(folder / f"{i:02}.png")
    return folder
