"""Images of confusions and heat maps on the page: escaped, and left out if broken or too many."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By

from shakeshake.report import view_models
from shakeshake.report.page import write_report

HOSTILE = "<img src=x onerror=alert(1)>"


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def run(make_run, make_analysis, tmp_path):
    path = make_run(tmp_path / "run", analysis=True)
    found = make_analysis("S-S-I", 0, [HOSTILE, *(f"class {i}" for i in range(9))])
    random = np.random.default_rng(0)

    def image(i: int) -> dict:
        picture = png(random.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        return {"index": i, "truth": 0, "predicted": i % 3, "probability": 0.9, "png": picture}

    found["confusions"] = [{"truth": 0, "predicted": 1, "count": 1234, "images": [image(i) for i in range(4)]}]
    found["gradcam"] = {"layer": "stages.2", "images": [{**image(i), "heat": image(i)["png"]} for i in range(6)]}
    found["calibration"] |= {"temperature": 1.6345, "ece_calibrated": 0.021}
    (path / "analysis.json").write_text(json.dumps(found))
    return path


def change(run, edit) -> None:
    found = json.loads((run / "analysis.json").read_text())
    edit(found)
    (run / "analysis.json").write_text(json.dumps(found))


def test_images_are_on_the_page(browser, open_page, run, tmp_path):
    page = write_report([run], tmp_path / "report.html")
    assert open_page(page) == 0
    assert browser.get_log("browser") == []
    examples = browser.find_element(By.CLASS_NAME, "examples")
    assert f"{HOSTILE} predicted as class 0 1,234×" in examples.text
    assert len(examples.find_elements(By.TAG_NAME, "img")) == 4
    pairs = browser.find_elements(By.CSS_SELECTOR, ".gradcam figure")
    assert [len(figure.find_elements(By.TAG_NAME, "img")) for figure in pairs] == [2] * 6
    said = [figure.text.replace("\u00a0", " ") for figure in pairs]
    assert said[:2] == [f"{HOSTILE} 90.00 %", f"class 0 90.00 %\nis {HOSTILE}"]
    sizes = [img.size["width"] for img in browser.find_elements(By.CSS_SELECTOR, ".gradcam img")]
    assert min(sizes) > 60
    text = re.sub("</?b>", "", browser.page_source)
    assert "divide the logits by a temperature of 1.63, which changes the error to 2.1 points" in text
    assert open_page(page, width=380) == 0


def test_only_png_images_are_embedded(run, tmp_path):
    def edit(found):
        found["gradcam"]["images"][0]["heat"] = "PHN2Zz4="  # an SVG
        found["gradcam"]["images"][1]["png"] = None
        found["confusions"][0]["images"][0]["png"] = '"><script>'

    change(run, edit)
    page = write_report([run], tmp_path / "report.html").read_text()
    assert page.count('alt="Grad-CAM heat map"') == 4
    assert "PHN2Zz4=" not in page
    assert '"><script>' not in page
    change(run, lambda found: found["confusions"].append({"truth": 99}))
    page = write_report([run], tmp_path / "report.html").read_text()
    assert "analysis.json has a broken part that is left out: confusions[1].predicted: is missing" in page
    assert page.count('alt="Grad-CAM heat map"') == 4


def test_embedded_images_stop_at_a_size_limit(run, tmp_path, monkeypatch):
    monkeypatch.setattr(view_models, "IMAGE_BYTES", 60_000)  # enough for the twelve mistakes
    page = write_report([run], tmp_path / "report.html").read_text()
    assert page.count("<img") == 12
    assert "Where the network looks" not in page
    assert "predicted as" in page, "the sentence below the matrix"
    monkeypatch.setattr(view_models, "IMAGE_BYTES", 100)
    assert "<img" not in write_report([run], tmp_path / "report.html").read_text()
