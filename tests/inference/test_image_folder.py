"""From an image folder to a report, predictions and an exported model, by commands."""

import re

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import shakeshake as ss
from helpers import shakeshake
from shakeshake.data.image_folder.decode import read_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Digits 0, 1 and 2 as colour photos of 24 x 20 pixels with val/: 60 to train, 30 to validate, 30 to test."""
    top = tmp_path_factory.mktemp("photos")
    data = ss.load_data("digits")
    for name, per_class, split in (("train", 20, data.train), ("val", 10, data.train), ("test", 10, data.test)):
        for k, title in enumerate(("zéro", "one <b>", "two")):
            (top / name / title).mkdir(parents=True)
            images = split.images[split.labels == k]
            images = images[-per_class:] if name == "val" else images[:per_class]
            for i, image in enumerate(images):
                picture = Image.fromarray(image[0]).resize((24, 20)).convert("RGB")
                picture.save(top / name / title / f"{i}.png")
    return top


def test_image_folder_from_training_to_export(folder, tmp_path):
    run = tmp_path / "run"
    options = [
        "--model",
        "shake_resnet8_2x4d",
        "--epochs",
        "3",
        "--batch-size",
        "20",
        "--no-flip",
        "--crop-padding",
        "1",
    ]
    options += ["--image-size", "16", "--device", "cpu", "--precision", "fp32"]
    shakeshake("train", folder, *options, "--out", run)
    model = ss.load(run)
    assert model.config["calibration"]["split"] == "val"
    assert model.config["calibration"]["images"] == 30
    page = (run / "report.html").read_text()
    assert "Where the network looks" in page
    assert page.count('alt="Grad-CAM heat map"') >= 4
    assert "one &lt;b&gt;" in page
    assert "one <b>" not in page

    path = folder / "test" / "two" / "3.png"
    out, _ = shakeshake("predict", run, path)
    shakeshake("export", run, "--format", "onnx", "--out", tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(None, {"images": read_image(path, 16)[None]})[0]
    ranked = [model.classes[k] for k in np.argsort(-found)]
    told = re.findall(r"(zéro|one <b>|two) ([\d.]+) %", out)
    assert [name for name, _ in told] == ranked
    assert [float(value) for _, value in told] == pytest.approx(100 * np.sort(found)[::-1], abs=0.051)
    shakeshake("export", run, "--format", "safetensors")
    card = (run / "huggingface" / "README.md").read_text()
    assert "fitted to 30 validation images" in card
    assert "one &lt;b&gt;" in card
    assert str(folder) not in card
