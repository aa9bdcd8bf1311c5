"""Tables and analyses in a real browser: charts, hover, keyboard, dark mode, phones, hostile names and size."""

from __future__ import annotations

import json

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from helpers import overflow
from shakeshake.report.charts import verdict_of
from shakeshake.report.load import load
from shakeshake.report.page import write_report

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\n{{ 7 * 7 }} &lt;"


@pytest.fixture(scope="module")
def table_page(tmp_path_factory, make_experiment):
    folder = tmp_path_factory.mktemp("experiments")
    make_experiment(folder / "exp")
    make_experiment(folder / "exp", name="correlation", kind="correlation")
    return write_report([folder / "exp"], folder / "report.html")


def tip(browser, part):
    """Return the text that the chart shows when the mouse is over a part."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", part)
    ActionChains(browser).move_to_element(part).perform()
    shown = [tip for tip in browser.find_elements(By.CLASS_NAME, "tip") if tip.is_displayed()]
    assert len(shown) == 1
    return shown[0].text


def test_table_shows_measured_beside_published_errors(browser, open_page, requested_urls, table_page):
    open_page(table_page)
    assert browser.get_log("browser") == []
    assert requested_urls() == {table_page.as_uri()}
    rows = {row.text.split("\n")[0]: row for row in browser.find_elements(By.CSS_SELECTOR, ".paper tbody tr")[:4]}
    even, shaken, failed, missing = (
        rows[name].text for name in ("Even-Even", "Shake-Shake-Image", "Shake-Even-Image", "Shake-M1-Image")
    )
    assert "4.27" in even
    assert "36.10 ± 0.42" in even
    assert "36.40, 35.80" in even
    assert "35.23 ± 0.25" in shaken
    assert "1 of 2\nseed 1 diverged: the loss is not finite at step 41" in failed
    assert "0 of 2" in missing
    assert "seed 0 is missing" in missing
    contents = browser.find_element(By.CLASS_NAME, "contents").text
    assert "5 of 8 runs are finished, 2 are missing and 1 failed." in contents
    assert "are for another setting" in browser.find_element(By.TAG_NAME, "main").text


def test_interval_that_includes_zero_is_inconclusive(browser, open_page, table_page):
    open_page(table_page)
    chart = browser.find_element(By.CSS_SELECTOR, ".differences .wide")
    lower, open_ = chart.find_elements(By.CSS_SELECTOR, ".part")
    assert "lower error" in lower.get_property("textContent")
    assert "can't tell" in open_.get_property("textContent")
    assert "interval\n−1.90 to +0.20" in tip(browser, open_).replace(" −1.90", "\n−1.90")
    # The drawing agrees: one line crosses 0, the other does not, and the tick labels are below their lines.
    middle = "const box = arguments[0].getBoundingClientRect(); return [box.left, box.right]"
    zero = browser.execute_script(middle, chart.find_element(By.CLASS_NAME, "zero"))[0]
    left, right = browser.execute_script(middle, open_.find_element(By.CLASS_NAME, "interval"))
    assert left < zero < right
    assert browser.execute_script(middle, lower.find_element(By.CLASS_NAME, "interval"))[1] < zero
    label = next(e for e in chart.find_elements(By.CLASS_NAME, "tick") if e.get_property("textContent") == "0")
    start, end = browser.execute_script(middle, label)
    assert (start + end) / 2 == pytest.approx(zero, abs=1.5)


def test_single_seed_is_inconclusive(tmp_path, make_experiment):
    """With one seed, the interval covers only the chance of the test images."""
    path = make_experiment(tmp_path, runs=False)
    found = json.loads(path.read_text())
    for seeds, kind in ((2, "low"), (1, "open")):
        found["differences"][0]["n"] = [seeds, 2]
        path.write_text(json.dumps(found))
        (record,) = load([path]).tables
        assert verdict_of(record.table.differences[0])[1] == kind


def test_curves_are_averaged_over_seeds_and_can_be_hidden(browser, open_page, table_page):
    open_page(table_page)
    figure = browser.find_element(By.CSS_SELECTOR, "figure[data-of=t0c0]")
    assert "36.10 %" in _at_the_end(browser, figure)  # the mean of two seeds in the last epoch
    box = browser.find_element(By.CSS_SELECTOR, ".legend[data-of=t0c0] input")
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


def test_every_chart_of_a_run_shows_values_on_hover(browser, open_page, tmp_path, make_run):
    run = make_run(tmp_path / "run", analysis=True)
    found = json.loads((run / "analysis.json").read_text())
    open_page(write_report([run], tmp_path / "report.html"))
    cell = browser.find_element(By.CSS_SELECTOR, ".confusion tbody tr:nth-child(2) td:nth-child(4)")
    assert f"is automobile\npredicted bird {found['confusion'][1][2]} of " in tip(browser, cell)
    first = found["layerwise"][0]["pairs"][0]["matrix"][2][2]
    cell = browser.find_elements(By.CSS_SELECTOR, ".maps svg:first-child .part")[8]
    assert f"conv2 of branch 1, conv2 of branch 2 {first:.3f}" in tip(browser, cell)
    bar = browser.find_elements(By.CSS_SELECTOR, ".reliability [data-tip] .images")[-1]
    assert "probability 0.93 to 1.00" in tip(browser, bar)
    assert "measured 0.3341 over 100,000 draws" in tip(
        browser, browser.find_element(By.CSS_SELECTOR, ".squares .frame")
    )
    image = browser.find_element(By.CSS_SELECTOR, ".mistakes img")
    assert browser.execute_script("return arguments[0].naturalWidth", image) == 32
    assert "predicted cat 99.80 %" in tip(browser, image)
    lanes = browser.find_element(By.CSS_SELECTOR, ".correlations .wide")
    value = found["branch_correlation"][1]["pairs"][0]["correlation"]
    assert f"{value:.3f}" in tip(browser, lanes.find_elements(By.CSS_SELECTOR, "[data-tip]")[1])
    # By keyboard from the last cell: two rows down in a matrix of ten columns, then one to the right.
    grid = browser.find_element(By.CLASS_NAME, "scroll")
    tip(browser, grid.find_element(By.CSS_SELECTOR, "tbody tr:nth-child(2) td:nth-child(4)"))
    grid.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert "is cat\npredicted cat" in grid.find_element(By.CLASS_NAME, "tip").text


CONTRASTS = """
const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
const context = canvas.getContext("2d", {willReadFrequently: true});
const light = (colour, over) => {
  context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
  if (over) { context.globalAlpha = over[1]; context.fillStyle = over[0]; context.fillRect(0, 0, 1, 1); }
  context.globalAlpha = 1;
  const parts = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255);
  const [r, g, b] = parts.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
return [...document.querySelectorAll(arguments[0])].map((cell) => {
  const svg = [...cell.querySelectorAll("rect")], style = getComputedStyle(cell);
  const under = svg.length ? svg.map((rect) => getComputedStyle(rect)) : [];
  const below = svg.length ? light(under[0].fill, [under[1].fill, under[1].fillOpacity]) : light(style.backgroundColor);
  const [a, b] = [light(style.color), below].sort();
  return (b + 0.05) / (a + 0.05);
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_on_shades_has_enough_contrast(browser, open_page, tmp_path, make_run, make_analysis, scheme):
    run, found = make_run(tmp_path / "run"), make_analysis()
    for block, start in zip(found["layerwise"], (-1.0, -0.7, -0.4, 0.1, 0.4, 0.7), strict=True):
        block["pairs"][0]["matrix"] = [[start + 0.1 * i + 0.033 * j for j in range(3)] for i in range(3)]
    (run / "analysis.json").write_text(json.dumps(found))
    open_page(write_report([run], tmp_path / "report.html"), scheme=scheme)
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}[scheme]
    contrasts = browser.execute_script(CONTRASTS, ".maps .part, .confusion tbody td:not(.nil)")
    assert len(contrasts) > 100
    assert min(contrasts) > 4.5


@pytest.mark.parametrize("width", [390, 970, 1280])
def test_page_is_never_too_wide(browser, open_page, table_page, tmp_path, make_run, make_analysis, width):
    classes = [f"a class of a rather long name, number {i}" for i in range(20)]
    run = make_run(tmp_path / ("long_" * 20), model="shake_resnet26_2x32d")
    found = make_analysis(classes=classes)
    found["branch_correlation"][0]["block"] = "a.block.of.another." + "network" * 12
    (run / "analysis.json").write_text(json.dumps(found))
    for page in (table_page, write_report([run], tmp_path / "report.html")):
        open_page(page, width)
        browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
        assert overflow(browser) == 0
        parts = browser.find_elements(By.CSS_SELECTOR, "td[data-tip]:last-child, .squares .part, .lanes .part")
        for part in [part for part in parts if part.size["width"]][:5]:  # not of the chart for the other width
            tip(browser, part)
            assert overflow(browser) == 0, part.get_attribute("data-tip")


def test_hostile_names_in_tables_are_text(browser, open_page, tmp_path, make_experiment, make_analysis):
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
    open_page(write_report([path], tmp_path / "report.html"))
    assert browser.get_log("browser") == []  # a refused script or image would be logged
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 2
    images = browser.find_elements(By.TAG_NAME, "img")
    assert all(image.get_attribute("src").startswith("data:image/png;base64,") for image in images)
    assert "{{ 7 * 7 }}" in browser.find_element(By.TAG_NAME, "h1").text
    shown = tip(browser, browser.find_element(By.CSS_SELECTOR, ".differences [data-tip]"))
    assert "<script>alert(1)</script>" in shown
    assert browser.get_log("browser") == []


def test_page_of_fifty_runs_stays_below_a_size_limit(browser, open_page, tmp_path, make_run):
    """Curves of runs that differ only in the seed are averaged; images of mistakes stop at a budget."""
    runs = [
        make_run(tmp_path / f"{rule}-{seed}", epochs=300, noise=1, rule=rule, seed=seed, analysis=True)
        for rule in ("E-E-B", "S-E-I", "S-S-I", "S-K-I", "S-M1-I")
        for seed in range(10)
    ]
    page = write_report(runs, tmp_path / "report.html")
    assert page.stat().st_size < 5_000_000
    open_page(page)
    assert browser.get_log("browser") == []
    assert len(browser.find_elements(By.CSS_SELECTOR, ".legend[data-of=runs] li")) == 5
    assert len(browser.find_elements(By.TAG_NAME, "summary")) == 50
    assert not any(one.is_displayed() for one in browser.find_elements(By.CLASS_NAME, "confusion"))
    assert 0 < len(browser.find_elements(By.TAG_NAME, "img")) < 600
