"""The page of runs in a real browser, from damaged runs, and with hostile names."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from helpers import overflow
from shakeshake.errors import InputError
from shakeshake.report.figures import write_figure
from shakeshake.report.page import write_report

HOSTILE = "<script>alert(1)<\\script>\"'><img src=x onerror=alert(2)>\n😀 &lt; $x^{$"
CLOSING = "</script><script>alert(3)</script></title><img src=x onerror=alert(4)>"


def hover(browser: webdriver.Chrome, chart: str) -> str:
    figure = browser.find_element(By.CSS_SELECTOR, f"[data-chart={chart}]")
    svg = next(svg for svg in figure.find_elements(By.TAG_NAME, "svg") if svg.is_displayed())
    webdriver.ActionChains(browser).move_to_element(svg).perform()
    return figure.find_element(By.CLASS_NAME, "tip").text


def test_two_runs_are_compared(browser, open_page, requested_urls, tmp_path, make_run):
    runs = [make_run(tmp_path / "plain", rule="E-E-B", last=7.0), make_run(tmp_path / "shaken")]
    page = write_report(runs, tmp_path / "report.html")
    assert page.stat().st_size < 300_000
    open_page(page)
    assert browser.get_log("browser") == []
    assert requested_urls() == {page.as_uri()}
    told = browser.find_element(By.CLASS_NAME, "lead").text
    assert "1.00 points lower with S-S-I than with E-E-B" in told.replace("\u00a0", " ")
    assert "4 of 400 test images" in told
    assert "Each result comes from a single seed" in told
    heads = [cell.text for cell in browser.find_elements(By.CLASS_NAME, "head")]
    assert [head.replace("\u00a0", " ") for head in heads] == ["7.00 %", "6.00 %"]
    labels = [svg.get_attribute("aria-label") for svg in browser.find_elements(By.CSS_SELECTOR, "svg[role=img]")]
    assert len(labels) == 6  # four charts by epoch (two sizes of the errors), and one for each rule
    assert sum("shaken, test error: 43.33 %" in label or "shaken, test loss: 1.25" in label for label in labels) == 3
    assert "shaken, lr: 0.1995 at epoch 1, " in labels[3]


def test_curves_show_values_on_hover(browser, open_page, tmp_path, make_run):
    open_page(write_report([make_run(tmp_path / "a"), make_run(tmp_path / "b")], tmp_path / "report.html"))
    # The middle of the chart is a little left of the middle of its axes.
    assert "epoch 15" in hover(browser, "error")
    assert "5.33 %" in hover(browser, "error")
    assert "0.1429" in hover(browser, "loss")
    assert browser.find_elements(By.CLASS_NAME, "cursor")
    assert "0.1" in hover(browser, "lr")


def test_page_fits_a_phone(browser, open_page, tmp_path, make_run):
    runs = [make_run(tmp_path / ("long_name_" * 12)), make_run(tmp_path / "b", data="photos/" + "deep" * 40)]
    assert open_page(write_report(runs, tmp_path / "report.html"), width=380) == 0
    for details in browser.find_elements(By.TAG_NAME, "summary"):
        details.click()
    assert overflow(browser) == 0
    assert "epoch" in hover(browser, "error")
    assert overflow(browser) == 0


def test_hostile_names_are_escaped(browser, open_page, tmp_path, make_run):
    """Names are shown as text, and the content security policy reports no violation."""
    runs = [make_run(tmp_path / HOSTILE, rule=CLOSING, seed={CLOSING: [CLOSING]}), make_run(tmp_path / "b")]
    open_page(write_report(runs, tmp_path / "report.html"))
    assert browser.get_log("browser") == []  # a refused script or image would be logged
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 2
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert "<script>alert(1)" in browser.find_element(By.CSS_SELECTOR, "tbody th").text
    assert "<script>alert(1)" in hover(browser, "error")
    open_page(write_figure(runs, tmp_path / "curves.svg"))
    assert browser.execute_script("return document.documentElement.tagName") == "svg"
    assert browser.execute_script("return document.querySelectorAll('script, img').length") == 0


def test_damaged_run_is_reported_and_the_good_one_shown(tmp_path, make_run):
    good, cut, lost = make_run(tmp_path / "good"), make_run(tmp_path / "cut", finished=False), tmp_path / "lost"
    with open(cut / "metrics.jsonl", "r+") as file:
        lines = file.read().splitlines(keepends=True)
        file.seek(0)
        file.truncate()
        file.write(
            "".join([*lines[:6], "not json\n", '{"epoch": 8, "train_error": 250, "lr": 1e999}\n', '{"epoch": 9, "tr'])
        )
    (cut / "recipe.json").write_text('{"epochs": 30, "rule": ')
    (cut / "environment.json").write_text("[]")
    lost.mkdir()
    page = write_report([good, cut, lost, tmp_path / "nowhere"], tmp_path / "report.html").read_text()
    notes = page[page.index('role="note"') : page.index("</aside>")]
    for told in (
        "cut: recipe.json is not valid JSON",
        "cut: metrics.jsonl is broken in line 7, 8</li>",
        "cut: environment.json holds no JSON object",
        "cut: is not finished: this is the state after 6 epochs",
        "lost: not shown, because recipe.json is missing; metrics.jsonl is missing",
        "nowhere: there is no such folder",
    ):
        assert told in notes
    assert "6.00\u00a0%" in page
    assert "<bdi>good</bdi>" in page
    assert "<bdi>lost</bdi>" not in page


def test_report_without_readable_runs_raises_one_line(tmp_path, make_run):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"^runs: empty: not shown, because .*; expected a folder") as told:
        write_report([tmp_path / "empty"], tmp_path / "report.html")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "report.html").exists()
    run = make_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"^out: .* cannot be written"):
        write_report([run], tmp_path / "absent" / "report.html")
    with pytest.raises(InputError, match=r"^figure: got curves.pdf, expected \.svg$"):
        write_figure([run], tmp_path / "curves.pdf")


def test_seeds_are_averaged_and_unfinished_runs_left_out(tmp_path, make_run):
    runs = [make_run(tmp_path / f"s{seed}", seed=seed, last=5.0 + seed) for seed in range(3)]
    runs.append(make_run(tmp_path / "going", seed=3, last=90, epochs=4, finished=False))
    page = write_report(runs, tmp_path / "report.html").read_text()
    assert "S-S-I</span> 6.00\u00a0% on average over 3 seeds (5.00 to 7.00 %)" in page
    assert '<span class="whole">S-S-I</span>' in page
    assert "Unfinished runs are left out" in page


@pytest.mark.parametrize("epochs", [1, 1800])
def test_runs_of_one_and_of_1800_epochs_are_drawn(tmp_path, epochs, make_run):
    runs = [make_run(tmp_path / name, epochs=epochs, noise=1, rule=name) for name in ("E-E-B", "S-S-I")]
    assert write_report(runs, tmp_path / "report.html").stat().st_size < 300_000


def test_report_is_deterministic_and_does_not_import_torch(tmp_path, make_run):
    """In two processes, since hashes and ids differ between processes."""
    runs = [make_run(tmp_path / name) for name in ("a", "b")]
    code = (
        "import sys; from pathlib import Path; from shakeshake.report import figures, page; "
        "out, *runs = map(Path, sys.argv[1:]); page.write_report(runs, out / 'r.html'); "
        "figures.write_figure(runs, out / 'c.svg'); "
        "assert 'torch' not in sys.modules"
    )
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path / name, *runs], check=True)
        written.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"r.html", "c.svg"}


def test_balanced_error_is_shown_if_classes_are_uneven(tmp_path, make_run):
    even, uneven = make_run(tmp_path / "even"), make_run(tmp_path / "uneven")
    for run, points in ((even, 0.0), (uneven, 12.5)):
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps({**result, "last_balanced_error": result["last_error"] + points}))
    balanced = f"{json.loads((uneven / 'result.json').read_text())['last_error'] + 12.5:.2f}\u00a0%"
    told = f"every class counts the same however few its images, is {balanced}"
    page = write_report([uneven], tmp_path / "one.html").read_text()
    assert told in page
    assert '<td data-label="balanced error">' + balanced in page
    assert 'data-label="balanced error"' not in write_report([even], tmp_path / "other.html").read_text()


def test_mixup_gap_is_measured_on_original_images(tmp_path, make_run):
    """The training error of mixtures is often above the test error, so that gap would mean nothing."""
    mixed, analysed = (
        make_run(tmp_path / "mixed", mixup_alpha=1.0),
        make_run(tmp_path / "seen", mixup_alpha=1.0, analysis=True),
    )
    page = write_report([mixed], tmp_path / "one.html").read_text()
    assert '<td data-label="gap, points">–' in page
    assert "The error on the training images" not in page
    page = write_report([analysed], tmp_path / "other.html").read_text()
    assert '<td data-label="train error">5.45\u00a0%' in page
    assert "a gap of 0.55\u00a0points" in page
