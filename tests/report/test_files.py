"""Charts as files: what they say, and what cannot be drawn."""

import json
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from shakeshake.cli.main import main
from shakeshake.errors import InputError
from shakeshake.report.curves import WIDE, error_figure
from shakeshake.report.export_figure import CHARTS, write_figure
from shakeshake.report.load import read_paths
from shakeshake.report.seed_averages import averaged
from shakeshake.report.static_charts import differences
from shakeshake.report.svg import SETTINGS
from shakeshake.report.view_models import groups_of_rows

SAID = {
    "curves": "S-S-I, test error: ",
    "correlation": "stage 3 · block 2; E-E-B 0.",
    "layerwise": "E-E-B, stage 1 · block 1: diagonal ",
    "strength": "S-M1-I: α anywhere from 0 to 1, β equal to 1 − α, mean distance of β from α 0.500.",
    "differences": "difference −0.87 points; 95% interval −1.90 to +0.20",
    "table": "Shake-Shake-Image: published 3.55; ours, last epoch 35.23 ± 0.25; runs 2;",
}


@pytest.mark.parametrize("chart", CHARTS)
def test_every_chart_of_an_experiment(tmp_path, make_experiment, chart):
    path = make_experiment(tmp_path / "exp")
    svg = ElementTree.parse(write_figure([path], tmp_path / "chart.svg", chart)).getroot()
    assert SAID[chart] in svg.get("aria-label")
    texts = " ".join("".join(node.itertext()) for node in svg.iter("{http://www.w3.org/2000/svg}text"))
    assert "S-S-I" in texts or "Shake-Shake-Image" in texts
    png = write_figure([path], tmp_path / "chart.png", chart).read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 5000


def test_runs_are_grouped_by_their_seeds(tmp_path, make_run):
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


def test_what_cannot_be_drawn_is_one_sentence(tmp_path, make_run, make_experiment):
    run = make_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"^chart: got 'pie', expected one of curves, "):
        write_figure([run], tmp_path / "a.svg", "pie")
    with pytest.raises(InputError, match=r"nothing to draw correlation from; expected runs that `shakeshake analyze`"):
        write_figure([run], tmp_path / "a.svg", "correlation")
    with pytest.raises(InputError, match=r"nothing to draw differences from"):
        write_figure([run], tmp_path / "a.svg", "differences")
    make_experiment(tmp_path / "exp", runs=False)
    make_experiment(tmp_path / "exp", name="strength", runs=False)
    with pytest.raises(InputError, match=r"several experiments here, expected one of their files \(table1.json, stre"):
        write_figure([tmp_path / "exp"], tmp_path / "a.svg", "table")
    with pytest.raises(InputError, match=r"nothing to draw curves from"):
        write_figure([tmp_path / "exp" / "table1.json"], tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()


def test_the_door(tmp_path, make_experiment, capsys):
    path = make_experiment(tmp_path / "exp")
    assert main(["report", str(path), "--figure", str(tmp_path / "d.svg"), "--chart", "differences"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "exp" / "report.html"), str(tmp_path / "d.svg")]
    assert main(["report", str(path), "--figure", str(tmp_path / "d.svg"), "--chart", "pie"]) == 2
    assert "chart: got 'pie'" in capsys.readouterr().err


def test_long_labels_stay_inside_the_chart(tmp_path, make_experiment):
    """Columns as architecture C's: the legend wraps, the axes make room."""
    path = make_experiment(tmp_path / "exp")
    file = path / "table1.json" if path.is_dir() else path
    found = json.loads(file.read_text())
    for column in found["columns"]:
        column["label"] = f"{column['label']} without BN, alpha in [0.4, 0.6]"
    file.write_text(json.dumps(found))
    (experiment,) = read_paths([file]).experiments
    with mpl.rc_context(SETTINGS):
        names = [f"{name}, with a label that is long" for name, _ in groups_of_rows(experiment)]
        lines = [averaged(name, runs) for name, (_, runs) in zip(names, groups_of_rows(experiment), strict=True)]
        for figure in (error_figure(lines, WIDE, legend=True), differences(experiment)[0]):
            FigureCanvasAgg(figure).draw()
            box, whole = figure.get_tightbbox(), figure.bbox_inches
            assert box.x0 >= 0
            assert box.x1 <= whole.x1
