"""Images of confusions and heat maps on the page: shown, escaped, and left out where they are broken or too many."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By

from shakeshake.report import view_models as shown
from shakeshake.report.page import write_report

HOSTILE = "<img src=x onerror=alert(1)>"


def look(browser, page, width: int = 1200) -> int:
    """Open the page; by how many pixels it is too wide."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(page.as_uri())
    return browser.execute_script("const page = document.documentElement; return page.scrollWidth - page.clientWidth")


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


def test_pictures_are_shown(browser, run, tmp_path):
    page = write_report([run], tmp_path / "report.html")
    assert look(browser, page) == 0
    assert browser.get_log("browser") == []
    examples = browser.find_element(By.CLASS_NAME, "examples")
    assert f"{HOSTILE} taken for class 0 1,234×" in examples.text
    assert len(examples.find_elements(By.TAG_NAME, "img")) == 4
    looked = browser.find_elements(By.CSS_SELECTOR, ".looked figure")
    assert [len(figure.find_elements(By.TAG_NAME, "img")) for figure in looked] == [2] * 6
    said = [figure.text.replace("\u00a0", " ") for figure in looked]
    assert said[:2] == [f"{HOSTILE} 90.00 %", f"class 0 90.00 %\nis {HOSTILE}"]
    sizes = [img.size["width"] for img in browser.find_elements(By.CSS_SELECTOR, ".looked img")]
    assert min(sizes) > 60
    assert "divide by a temperature of 1.63: with it the error is 2.1 points" in browser.page_source.replace(
        "<b>", ""
    ).replace("</b>", "")
    assert look(browser, page, width=380) == 0


def test_what_is_no_picture_is_left_out(run, tmp_path):
    def edit(found):
        found["gradcam"]["images"][0]["heat"] = "PHN2Zz4="  # an SVG
        found["gradcam"]["images"][1]["png"] = None
        found["confusions"][0]["images"][0]["png"] = '"><script>'

    change(run, edit)
    page = write_report([run], tmp_path / "report.html").read_text()
    assert page.count('alt="where the network looked"') == 4
    assert "PHN2Zz4=" not in page
    assert '"><script>' not in page
    change(run, lambda found: found["confusions"].append({"truth": 99}))
    page = write_report([run], tmp_path / "report.html").read_text()
    assert "analysis.json has a broken part, confusions, which is left out" in page
    assert page.count('alt="where the network looked"') == 4


def test_a_page_stays_light(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shown, "IMAGES_BYTES", 60_000)  # room for the twelve mistakes
    page = write_report([run], tmp_path / "report.html").read_text()
    assert page.count("<img") == 12
    assert "Where the network looked" not in page
    assert "taken for" in page, "the sentence below the matrix"
    monkeypatch.setattr(shown, "IMAGES_BYTES", 100)
    assert "<img" not in write_report([run], tmp_path / "report.html").read_text()
