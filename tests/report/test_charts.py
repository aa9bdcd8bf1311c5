"""Experiments and analyses in a real browser: what is shown, hovered, folded, dark, narrow, hostile and heavy."""

from __future__ import annotations

import json

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from shakeshake.report.experiment import read_experiment
from shakeshake.report.html_charts import forest
from shakeshake.report.page import write_report

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\n{{ 7 * 7 }} &lt;"


@pytest.fixture(scope="module")
def experiment_page(tmp_path_factory, make_experiment):
    folder = tmp_path_factory.mktemp("experiments")
    make_experiment(folder / "exp")
    make_experiment(folder / "exp", name="correlation", kind="correlation")
    return write_report([folder / "exp"], folder / "report.html")


def look(browser, page, width=1280, scheme="light"):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get_log("performance")
    browser.get(page.as_uri())


def overflow(browser):
    return browser.execute_script("const page = document.documentElement; return page.scrollWidth - page.clientWidth")


def tip(browser, part):
    """What the chart says of a part that the mouse is over."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", part)
    ActionChains(browser).move_to_element(part).perform()
    shown = [tip for tip in browser.find_elements(By.CLASS_NAME, "tip") if tip.is_displayed()]
    assert len(shown) == 1
    return shown[0].text


def test_the_table_has_ours_beside_the_published(browser, experiment_page):
    look(browser, experiment_page)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {experiment_page.as_uri()}
    rows = {row.text.split("\n")[0]: row for row in browser.find_elements(By.CSS_SELECTOR, ".paper tbody tr")[:4]}
    even, shaken, failed, missing = (
        rows[name].text for name in ("Even-Even", "Shake-Shake-Image", "Shake-Even-Image", "Shake-M1-Image")
    )
    assert "4.27" in even
    assert "36.10 ± 0.42" in even
    assert "36.40, 35.80" in even
    assert "35.23 ± 0.25" in shaken
    assert "1 of 2\nseed 1 failed: the loss is not finite at step 41" in failed
    assert "0 of 2" in missing
    assert "seed 0 is missing" in missing
    contents = browser.find_element(By.CLASS_NAME, "contents").text
    assert "5 of 8 runs are finished, 2 are missing and 1 failed." in contents
    assert "are of another setting" in browser.find_element(By.TAG_NAME, "main").text


def test_an_interval_over_zero_cannot_be_told(browser, experiment_page):
    look(browser, experiment_page)
    forest = browser.find_element(By.CLASS_NAME, "forest")
    lower, open_ = forest.find_elements(By.CSS_SELECTOR, ".lane-row[data-tip]")
    assert "lower error" in lower.text
    assert "can't tell" in open_.text
    assert "interval\n−1.90 to +0.20" in tip(browser, open_).replace(" −1.90", "\n−1.90")
    # The drawing says the same: the line crosses 0, the other one does not, and the labels stand under their lines.
    middle = "const box = arguments[0].getBoundingClientRect(); return [box.left, box.right]"
    zero = browser.execute_script(middle, open_.find_element(By.CLASS_NAME, "zero"))[0]
    left, right = browser.execute_script(middle, open_.find_element(By.CLASS_NAME, "span"))
    assert left < zero < right
    assert browser.execute_script(middle, lower.find_element(By.CLASS_NAME, "span"))[1] < zero
    label = next(e for e in forest.find_elements(By.CSS_SELECTOR, ".ticks .track span") if e.text == "0")
    start, end = browser.execute_script(middle, label)
    assert (start + end) / 2 == pytest.approx(zero, abs=1.5)


def test_one_seed_tells_nothing(tmp_path, make_experiment):
    """Its interval holds the chance of the images alone."""
    path = make_experiment(tmp_path, runs=False)
    found = json.loads(path.read_text())
    for seeds, kind in ((2, "low"), (1, "open")):
        found["differences"][0]["n"] = [seeds, 2]
        path.write_text(json.dumps(found))
        record, _ = read_experiment(path, {})
        drawn = forest(record)["rows"][0]
        assert drawn["kind"] == kind
        assert (drawn["verdict"] == "can't tell") is (seeds == 1)


def test_curves_of_rows_are_averaged_and_can_be_taken_away(browser, experiment_page):
    look(browser, experiment_page)
    figure = browser.find_element(By.CSS_SELECTOR, "figure[data-of=e0c0]")
    assert "36.10 %" in _at_the_end(browser, figure)  # the mean of two seeds in the last epoch
    box = browser.find_element(By.CSS_SELECTOR, ".legend[data-of=e0c0] input")
    assert any(line.is_displayed() for line in figure.find_elements(By.CSS_SELECTOR, ".wide .line0"))
    box.click()
    assert not any(line.is_displayed() for line in figure.find_elements(By.CSS_SELECTOR, ".line0"))
    assert "36.10 %" not in _at_the_end(browser, figure)


def _at_the_end(browser, figure):
    svg = figure.find_element(By.CSS_SELECTOR, ".wide svg")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", svg)
    ActionChains(browser).move_to_element_with_offset(svg, svg.size["width"] // 2 - 12, 0).perform()
    told = figure.find_element(By.CLASS_NAME, "tip").text
    assert "epoch 100" in told
    return told


def test_every_chart_of_a_run_answers(browser, tmp_path, make_run):
    run = make_run(tmp_path / "run", analysis=True)
    found = json.loads((run / "analysis.json").read_text())
    look(browser, write_report([run], tmp_path / "report.html"))
    cell = browser.find_element(By.CSS_SELECTOR, ".confusion tbody tr:nth-child(2) td:nth-child(4)")
    assert f"is automobile\npredicted bird {found['confusion'][1][2]} of " in tip(browser, cell)
    first = found["layerwise"][0]["pairs"][0]["matrix"][2][2]
    cell = browser.find_element(By.CSS_SELECTOR, ".matrix tbody tr:nth-child(3) td:nth-child(4)")
    assert f"conv2 of branch 1, conv2 of branch 2 {first:.3f}" in tip(browser, cell)
    bar = browser.find_elements(By.CSS_SELECTOR, ".reliable [data-tip] .images")[-1]
    assert "probability 0.93 to 1.00" in tip(browser, bar)
    assert "33.4" not in browser.find_element(By.CLASS_NAME, "squares").text
    assert "measured 0.3341 over 100,000 draws" in tip(browser, browser.find_element(By.CLASS_NAME, "square"))
    image = browser.find_element(By.CSS_SELECTOR, ".mistakes img")
    assert browser.execute_script("return arguments[0].naturalWidth", image) == 32
    assert "predicted cat 99.80 %" in tip(browser, image)
    lanes = browser.find_element(By.CSS_SELECTOR, ".lanes")
    value = found["branch_correlation"][1]["pairs"][0]["correlation"]
    assert f"{value:.3f}" in tip(browser, lanes.find_elements(By.CSS_SELECTOR, "[data-tip]")[1])
    # By keyboard, from the cell last shown: two rows down in a matrix of ten columns, then one to the right.
    grid = browser.find_element(By.CLASS_NAME, "scroll")
    tip(browser, grid.find_element(By.CSS_SELECTOR, "tbody tr:nth-child(2) td:nth-child(4)"))
    grid.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert "is cat\npredicted cat" in grid.find_element(By.CLASS_NAME, "tip").text


CONTRASTS = """
const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
const context = canvas.getContext("2d", {willReadFrequently: true});
const light = (colour) => {
  context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
  const parts = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255);
  const [r, g, b] = parts.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
return [...document.querySelectorAll(arguments[0])].map((cell) => {
  const style = getComputedStyle(cell);
  const [a, b] = [light(style.color), light(style.backgroundColor)].sort();
  return (b + 0.05) / (a + 0.05);
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_can_be_read_on_every_shade(browser, tmp_path, make_run, make_analysis, scheme):
    run, found = make_run(tmp_path / "run"), make_analysis()
    for block, start in zip(found["layerwise"], (-1.0, -0.7, -0.4, 0.1, 0.4, 0.7), strict=True):
        block["pairs"][0]["matrix"] = [[start + 0.1 * i + 0.033 * j for j in range(3)] for i in range(3)]
    (run / "analysis.json").write_text(json.dumps(found))
    look(browser, write_report([run], tmp_path / "report.html"), scheme=scheme)
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}[scheme]
    contrasts = browser.execute_script(CONTRASTS, ".matrix tbody td, .confusion tbody td:not(.nil)")
    assert len(contrasts) > 100
    assert min(contrasts) > 4.5


@pytest.mark.parametrize("width", [390, 970, 1280])
def test_no_scrolling_sideways(browser, experiment_page, tmp_path, make_run, make_analysis, width):
    classes = [f"a class of a rather long name, number {i}" for i in range(20)]
    run = make_run(tmp_path / ("long_" * 20), model="shake_resnet26_2x32d")
    found = make_analysis(classes=classes)
    found["branch_correlation"][0]["block"] = "a.block.of.another." + "network" * 12
    (run / "analysis.json").write_text(json.dumps(found))
    for page in (experiment_page, write_report([run], tmp_path / "report.html")):
        look(browser, page, width)
        browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
        assert overflow(browser) == 0
        for part in browser.find_elements(By.CSS_SELECTOR, "td[data-tip]:last-child, .square, .lane-row[data-tip]")[:5]:
            tip(browser, part)
            assert overflow(browser) == 0, part.get_attribute("data-tip")


def test_hostile_names_are_text(browser, tmp_path, make_experiment, make_analysis):
    path = make_experiment(tmp_path / "exp")
    found = json.loads(path.read_text())
    for name in ("title", "place", "setting", "published_setting", "scale", "experiment"):
        found[name] = HOSTILE
    found["rows"][0]["label"] = found["columns"][0]["label"] = HOSTILE
    found["cells"][1]["failed"][0]["reason"] = HOSTILE
    found["cells"].append({"row": HOSTILE, "column": HOSTILE, "runs": [], "missing": [0]})
    found["differences"][0]["against"] = found["differences"][0]["covers"] = HOSTILE
    found["reading"] = [HOSTILE]
    path.write_text(json.dumps(found))
    analysis = make_analysis(classes=[HOSTILE + str(i) for i in range(10)])
    analysis["branch_correlation"][0]["block"] = analysis["layerwise"][0]["block"] = HOSTILE
    analysis["layerwise"][0]["layers"][0] = analysis["split"] = HOSTILE
    run = next((tmp_path / "exp" / "cells").iterdir())
    (run / "analysis.json").write_text(json.dumps(analysis))
    look(browser, write_report([path], tmp_path / "report.html"))
    assert browser.get_log("browser") == []  # a refused script or image would be logged
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 2
    images = browser.find_elements(By.TAG_NAME, "img")
    assert all(image.get_attribute("src").startswith("data:image/png;base64,") for image in images)
    assert "{{ 7 * 7 }}" in browser.find_element(By.TAG_NAME, "h1").text
    shown = tip(browser, browser.find_element(By.CSS_SELECTOR, ".forest [data-tip]"))
    assert "<script>alert(1)</script>" in shown
    assert browser.get_log("browser") == []


def test_fifty_runs_stay_light(browser, tmp_path, make_run):
    """Curves of runs that differ in the seed alone are averaged; images of mistakes stop at a budget."""
    runs = [
        make_run(tmp_path / f"{rule}-{seed}", epochs=300, noise=1, rule=rule, seed=seed, analysis=True)
        for rule in ("E-E-B", "S-E-I", "S-S-I", "S-K-I", "S-M1-I")
        for seed in range(10)
    ]
    page = write_report(runs, tmp_path / "report.html")
    assert page.stat().st_size < 5_000_000
    look(browser, page)
    assert browser.get_log("browser") == []
    assert len(browser.find_elements(By.CSS_SELECTOR, ".legend[data-of=runs] li")) == 5
    assert len(browser.find_elements(By.TAG_NAME, "summary")) == 50
    assert not any(one.is_displayed() for one in browser.find_elements(By.CLASS_NAME, "confusion"))
    assert 0 < len(browser.find_elements(By.TAG_NAME, "img")) < 600
