"""Save sections of a run's report as PNG files for the documentation.

pip install selenium    # and chromium with chromedriver python -m benchmarks report_pictures
runs/photos results/small-folders
"""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from shakeshake.report.page import write_report
from shakeshake.utils.files import atomic_write

from ._common import parser

PARTS = {
    "runs": "Runs",
    "error": "Error",
    "confusion": "Confusion matrix",
    "confusions": "Images of the most frequent confusions",
    "mistakes": "Most confident mistakes",
    "gradcam": "Where the network looks",
}
WIDTH, MARGIN = 920, 8
FIND = """
const headings = [...document.querySelectorAll("h2, h3")];
const at = headings.findIndex(h => h.textContent.trim() === arguments[0]);
if (at < 0) return null;
const section = headings[at].closest("section"), several = section.querySelectorAll("h2, h3").length > 1;
const box = section.getBoundingClientRect(), top = headings[at].getBoundingClientRect().top;
const next = headings[at + 1];
const end = several && next && section.contains(next) ? next.getBoundingClientRect().top : box.bottom;
return [box.left, top + scrollY, box.width, end - top];
"""


def browser() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium:
        options.binary_location = chromium
    for switch in ("headless=new", "no-sandbox", "disable-gpu", f"window-size={WIDTH},1200"):
        options.add_argument(f"--{switch}")
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, out=False)
    options.add_argument("run", type=Path, metavar="RUN")
    options.add_argument("out", type=Path, metavar="OUT")
    args = options.parse_args(argv)
    page = write_report([args.run], args.run / "report.html")
    args.out.mkdir(parents=True, exist_ok=True)
    chrome = browser()
    try:
        chrome.get(page.resolve().as_uri())
        for name, heading in PARTS.items():
            found = chrome.execute_script(FIND, heading)
            if found is None:
                print(f"{name}: the report has no section {heading!r}")
                continue
            x, y, width, height = found
            clip = {"x": max(0, x - MARGIN), "y": y - MARGIN, "width": width + 2 * MARGIN, "height": height + MARGIN}
            how = {"format": "png", "captureBeyondViewport": True, "clip": {**clip, "scale": 1.5}}
            shot = base64.b64decode(chrome.execute_cdp_cmd("Page.captureScreenshot", how)["data"])
            small = io.BytesIO()
            Image.open(io.BytesIO(shot)).convert("RGB").quantize(128).save(small, "PNG", optimize=True)
            atomic_write(args.out / f"{name}.png", small.getvalue())
            print(args.out / f"{name}.png", len(small.getvalue()))
    finally:
        chrome.quit()
