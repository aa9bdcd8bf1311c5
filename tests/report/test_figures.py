"""Charts as files."""

import json
import re
from xml.etree import ElementTree

import pytest

from shakeshake.cli.experiments import CHARTS
from shakeshake.cli.main import main
from shakeshake.errors import InputError
from shakeshake.report.figures import FIGURES, write_figure
from shakeshake.report.page import write_report

DESCRIPTIONS = {
    "curves": "Shake-Shake-Image, test error: ",
    "correlation": "stage 3 · block 2: E-E-B 0.",
    "layerwise": "E-E-B, stage 1 · block 1: L1 0.",
    "strength": "S-M1-I: α is anywhere from 0 to 1, β is equal to 1 − α, expected distance between α and β 0.500.",
    "differences": "difference −0.87 points; 95% interval −1.90 to +0.20",
}


@pytest.mark.parametrize("chart", FIGURES)
def test_every_chart_of_a_table_can_be_drawn(tmp_path, make_experiment, chart):
    path = make_experiment(tmp_path / "exp")
    svg = ElementTree.parse(write_figure([path], tmp_path / "chart.svg", chart)).getroot()
    assert DESCRIPTIONS[chart] in svg.get("aria-label")
    texts = " ".join("".join(node.itertext()) for node in svg.iter("{http://www.w3.org/2000/svg}text"))
    assert "S-S-I" in texts or "Shake-Shake-Image" in texts


def test_curves_of_one_column_have_a_labelled_line_and_a_band_per_row(tmp_path, make_experiment):
    path = make_experiment(tmp_path / "exp")
    found = json.loads(path.read_text())
    other = {**found["cells"][0], "row": "another", "column": "other"}
    path.write_text(json.dumps({**found, "cells": [*found["cells"], other]}))
    column = found["cells"][0]["column"]
    text = write_figure([path], tmp_path / "chart.svg", column=column).read_text()
    assert re.findall(r'class="strong"[^>]*>([^<]+)<', text) == ["Even-Even", "Shake-Shake-Image", "Shake-Even-Image"]
    assert text.count("<polyline") == 3
    assert text.count("<polygon") == 2  # the third row has one seed
    assert ">Mean over 1 to 2 seeds; the bands are ± one standard deviation of the test error.<" in text
    assert ">test error, %" in text
    with pytest.raises(InputError, match=rf"^column: got '5', expected one of {re.escape(column)}, other$"):
        write_figure([path], tmp_path / "chart.svg", column="5")
    runs = list((tmp_path / "exp" / "cells").iterdir())
    with pytest.raises(InputError, match=r"^column: got 'other' for runs, expected an experiment's table$"):
        write_figure(runs, tmp_path / "chart.svg", column="other")


def test_runs_that_differ_in_the_seed_are_one_group(tmp_path, make_run):
    runs = [
        make_run(tmp_path / f"{rule}{seed}", rule=rule, seed=seed, analysis=True)
        for rule in ("E-E-B", "S-S-I")
        for seed in range(2)
    ]
    write_figure(runs, tmp_path / "chart.svg", "correlation")
    label = ElementTree.parse(tmp_path / "chart.svg").getroot().get("aria-label")
    values = [json.loads((run / "analysis.json").read_text())["branch_correlation"][0]["pairs"][0] for run in runs[2:]]
    low, high = sorted(value["correlation"] for value in values)
    assert f"S-S-I {(low + high) / 2:.3f} ({low:.3f} to {high:.3f})" in label


def test_charts_without_data_raise_one_line(tmp_path, make_run, make_experiment):
    run = make_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"^chart: got 'pie', expected one of curves, "):
        write_figure([run], tmp_path / "a.svg", "pie")
    with pytest.raises(InputError, match=r"nothing to draw correlation from; expected runs that `shakeshake analyze`"):
        write_figure([run], tmp_path / "a.svg", "correlation")
    with pytest.raises(InputError, match=r"nothing to draw differences from"):
        write_figure([run], tmp_path / "a.svg", "differences")
    make_experiment(tmp_path / "exp", runs=False)
    make_experiment(tmp_path / "exp", name="strength", runs=False)
    with pytest.raises(InputError, match=r"several tables, expected one of their files \(table1.json, stre"):
        write_figure([tmp_path / "exp"], tmp_path / "a.svg")
    with pytest.raises(InputError, match=r"nothing to draw curves from"):
        write_figure([tmp_path / "exp" / "table1.json"], tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()


def test_command_writes_page_and_figure(tmp_path, make_experiment, capsys):
    path = make_experiment(tmp_path / "exp")
    assert main(["report", str(path), "--figure", str(tmp_path / "d.svg"), "--chart", "differences"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "exp" / "report.html"), str(tmp_path / "d.svg")]
    assert main(["report", str(path), "--figure", str(tmp_path / "d.svg"), "--chart", "pie"]) == 2
    assert "'pie' is not one of 'curves'" in capsys.readouterr().err
    assert tuple(FIGURES) == CHARTS


@pytest.mark.parametrize("chart", ["correlation", "differences"])
def test_figure_is_the_chart_of_the_page(tmp_path, make_experiment, chart):
    path = make_experiment(tmp_path / "exp")
    page = write_report([path], tmp_path / "page.html").read_text()
    file = write_figure([path], tmp_path / "chart.svg", chart).read_text()
    body = file[file.index("</style>") + len("</style>") : file.rindex("</svg>")]
    assert len(body) > 1000
    assert body in page


def test_long_labels_stay_inside_the_chart(open_page, browser, tmp_path, make_experiment):
    """As with the columns of architecture C: the legend wraps and labels are shortened."""
    path = make_experiment(tmp_path / "exp")
    found = json.loads(path.read_text())
    long = "with a label that is very long, without BN, alpha in [0.4, 0.6]"
    found["columns"][0]["label"] += long
    for one in (*found["cells"], *found["differences"]):
        one["row"] = f"{one['row']} {long}"
    found["columns"].append({"key": "other", "label": "other"})
    found["cells"].append({**found["cells"][0], "column": "other"})
    path.write_text(json.dumps(found))
    for chart in ("curves", "correlation", "differences", "layerwise"):
        open_page(write_figure([path], tmp_path / "chart.svg", chart))
        left, right, width = browser.execute_script(
            "const all = [...document.querySelectorAll('text')].map((e) => e.getBoundingClientRect());"
            "const box = document.documentElement.getBoundingClientRect();"
            "const ends = [Math.min(...all.map((b) => b.left)), Math.max(...all.map((b) => b.right))];"
            "return [ends[0] - box.left, ends[1] - box.left, box.width]"
        )
        assert left >= -1, chart
        assert right <= width + 8, chart
