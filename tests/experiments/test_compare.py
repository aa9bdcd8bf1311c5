"""A comparison on a user's own images: planned, run, resumed, with verdicts that its intervals support."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import shakeshake as ss
from helpers import python, shakeshake, start
from shakeshake.errors import InputError
from shakeshake.experiments import compare, run, statistics, tables, worker
from shakeshake.experiments.format import format_table
from shakeshake.experiments.schema import Table, TableDifference, read_table
from shakeshake.layers import rules as layer_rules
from shakeshake.models import registry
from shakeshake.train.open_run import load_recipe_data, open_run
from shakeshake.train.run_directory import RunDirectory

TINY = {"model": "shake_resnet8_2x4d", "epochs": 1, "batch_size": 20, "device": "cpu", "precision": "fp32"}


def npz(path: Path, seed: int = 0) -> Path:
    """Imbalanced classes that differ in brightness."""
    random = np.random.default_rng(seed)

    def some(*counts: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(3), counts)
        return (labels[:, None, None] * 60 + random.integers(0, 80, (len(labels), 8, 8))).astype(np.uint8), labels

    x_train, y_train = some(40, 15, 8)
    x_test, y_test = some(30, 12, 4)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture
def executed(monkeypatch) -> list[str]:
    """Execute runs in this process and record their names."""
    names: list[str] = []

    def here(plan, paths, on_poll, on_end):
        for path in paths:
            names.append(path.name)
            worker.train_and_analyze(path, **plan.worker_options)
            on_end(path, None)

    monkeypatch.setattr(run, "run_locally", here)
    return names


def make(data: Path, out: Path, overrides: dict | None = None, **options) -> Table:
    plan, images = compare.plan_comparison(str(data), overrides or TINY, out=out, log=lambda _: None, **options)
    return compare.run_comparison(plan, images, log=lambda _: None)


def test_folds_test_every_image_once_and_finished_runs_are_kept(tmp_path, executed):
    data, out = npz(tmp_path / "mine.npz"), tmp_path / "out"
    found = make(data, out, rules=["S-S-I"], seeds=1, folds=3)
    assert executed == [
        f"mine-shake_resnet8_2x4d-{rule}-seed0-fold{k}" for k in range(3) for rule in ("E-E-B", "S-S-I")
    ]
    for rule, row in zip(("E-E-B", "S-S-I"), found.cells, strict=True):
        assert row.row == rule
        assert len(row.runs) == 3
        (wrong,) = tables.wrong_images(row, out).values()
        assert len(wrong) == 63
        # The slow way: each image by the network that did not see it.
        recipe = RunDirectory(out / row.runs[0].path).recipe()
        at = 0
        for fold, one in enumerate(row.runs):
            opened = open_run(out / one.path, device="cpu")
            images = load_recipe_data(recipe.replace(fold=fold)).test
            normal = (images.images - np.reshape(opened.data.mean, (1, 1, 1, 1))) / opened.data.std[0]
            with torch.no_grad():
                told = opened.network(torch.tensor(normal, dtype=torch.float32)).argmax(1).numpy()
            assert ((told != images.labels) == wrong[at : at + len(told)]).all()
            at += len(told)
    (one,) = found.differences
    assert one.images == 63
    both = [tables.wrong_images(row, out)[0] for row in found.cells]
    assert one.difference == pytest.approx(100 * (both[1].mean() - both[0].mean()))

    executed.clear()
    again = make(data, out, rules=["S-S-I"], seeds=1, folds=3)
    assert executed == []
    assert again.differences == found.differences
    assert read_table(out / "compare.json") == again
    with pytest.raises(InputError, match=r"out: .* was made with folds=3, this is folds=0"):
        make(data, out, rules=["S-S-I"], seeds=1)
    settings = json.loads((out / "settings.json").read_text())
    del settings["overrides"]["randaugment"]  # as if the comparison had begun before there was such a field
    (out / "settings.json").write_text(json.dumps(settings))
    assert make(data, out, rules=["S-S-I"], seeds=1, folds=3).differences == found.differences


def test_seeds_can_be_added_and_imbalanced_classes_get_a_balanced_error(tmp_path, executed):
    data, out = npz(tmp_path / "mine.npz"), tmp_path / "out"
    make(data, out, rules=["S-E-I"], seeds=1)
    executed.clear()
    found = make(data, out, {}, rules=["S-E-I", "S-S-I"], seeds=2)  # nothing typed: the recipe is the one it has
    assert len(executed) == 4
    assert not {name for name in executed if name.endswith(("E-E-B-seed0", "S-E-I-seed0"))}
    assert {row.n for row in found.cells} == {2}
    assert found.cells[0].recipe["balance"] == "weight", "picked for these classes"
    labels = load_recipe_data(compare.existing_recipe(out)).test.labels
    wrong = {row.row: np.stack(list(tables.wrong_images(row, out).values())) for row in found.cells}

    def balanced(rule: str) -> float:
        return 100 * np.mean([wrong[rule][:, labels == k].mean() for k in range(3)])

    for one in found.balanced_differences:
        assert one.difference == pytest.approx(balanced(one.row) - balanced("E-E-B"), abs=1e-4)
        assert one.low <= one.difference <= one.high
    of_runs = [run.balanced_error for run in found.cells[0].runs]
    assert np.mean(of_runs) == pytest.approx(balanced("E-E-B"), abs=1e-3)
    told = "\n".join(format_table(found))
    assert "balanced" in told
    assert told.count("S-E-I: ") == 2


def test_runs_on_images_that_changed_are_not_compared(tmp_path, executed):
    data, out = npz(tmp_path / "mine.npz"), tmp_path / "out"
    make(data, out, rules=["S-E-I"], seeds=1)
    plan, images = compare.plan_comparison(str(data), TINY, out=out, log=lambda _: None, rules=["S-E-I"], seeds=2)
    npz(data, seed=1)
    with pytest.raises(InputError, match=r"data: the images of .*mine.npz are not those that .* was trained on"):
        make(data, out, rules=["S-E-I"], seeds=1)
    found = compare.run_comparison(plan, images, log=lambda _: None)  # they changed while it ran
    for row in found.cells:
        assert [run.seed for run in row.runs] == [0]
        assert row.failed[0].seed == 1
        assert "was trained on other images" in row.failed[0].reason


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(-3.0, -1.0, "helps"), (1.0, 3.0, "hurts"), (-1.0, 3.0, "can't tell")]
)
def test_verdict_follows_from_the_interval(low, high, verdict):
    half = (high - low) / 2
    interval = statistics._interval((low + high) / 2, half / stats.t.ppf(0.975, 9), freedom=9, level=0.95)
    found = TableDifference(**interval, row="S-S-I", baseline="E-E-B", n=(2, 2), covers="seeds")
    assert (found.low, found.high) == pytest.approx((low, high))
    told = compare._verdict(found, "error")
    assert told.verdict == verdict
    assert told.sentence.startswith(f"S-S-I: {verdict}. Error {(low + high) / 2:+.2f} points against E-E-B")


def test_single_runs_get_no_verdict(tmp_path, executed):
    found = make(npz(tmp_path / "mine.npz"), tmp_path / "out", rules=["S-S-I"], seeds=1)
    assert {told.verdict for told in found.verdicts} == {"can't tell"}
    assert all("it takes more --seeds" in told.sentence for told in found.verdicts)


def test_training_error_with_mixup_is_measured_on_original_images(tmp_path, executed):
    found = make(npz(tmp_path / "mine.npz"), tmp_path / "out", {**TINY, "mixup_alpha": 1.0}, rules=["S-S-I"], seeds=1)
    for row in found.cells:
        run = RunDirectory(tmp_path / "out" / row.runs[0].path)
        assert row.train_mean == run.read_json("analysis.json")["train_error"]
        assert row.train_mean != run.read_json("result.json")["last_train_error"]


def test_modules_next_to_the_images_are_not_executed(tmp_path):
    """A user's folder may have a statistics.py or a json.py, which the workers must not import."""
    npz(tmp_path / "mine.npz")
    for name in ("statistics", "json", "random"):
        (tmp_path / f"{name}.py").write_text(f"open('executed-{name}', 'w').close()\nraise SystemExit('executed')\n")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    options += ["--rules", "S-S-I", "--seeds", "1", "--jobs", "2", "--out", "out"]
    python("-P", "-m", "shakeshake", "compare", "mine.npz", *options, cwd=tmp_path)
    assert not list(tmp_path.glob("executed-*"))


MINE = """
import torch
from torch import nn
import shakeshake as ss

class Net(nn.Module):
    def __init__(self, num_classes, in_channels=3, rule="S-S-I"):
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(in_channels, 8, 3) for _ in range(2))
        self.shake = ss.ShakeShake(rule)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.shake(*(branch(x) for branch in self.branches)).mean((2, 3)))

def half(images, branches, *, device, generator):
    alpha = torch.full((images, branches), 1 / branches, device=device)
    return alpha, alpha
"""


def test_a_users_network_and_rule_are_compared(tmp_path):
    """Every run is a separate process, which must also register the user's code."""
    npz(tmp_path / "mine.npz")
    (tmp_path / "mine.py").write_text(MINE)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "model"]
    options += [f"--model={tmp_path / 'mine.py'}:Net", "--rules", f"S-S-I,{tmp_path / 'mine.py'}:half", "--seeds", 1]
    shakeshake("compare", tmp_path / "mine.npz", *options, "--jobs", 2, "--out", tmp_path / "out")
    table = read_table(tmp_path / "out" / "compare.json")
    assert [(cell.row, cell.n) for cell in table.cells] == [("E-E-B", 1), ("S-S-I", 1), ("mine.py:half", 1)]
    assert str(tmp_path) not in json.dumps([cell.recipe["model"] for cell in table.cells])


def test_the_command_prints_only_json_and_writes_a_report(tmp_path):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    options += ["--rules", "S-S-I", "--seeds", 1, "--jobs", 2, "--out", tmp_path / "out"]
    out, err = shakeshake("compare", npz(tmp_path / "mine.npz"), *options, "--json")
    found = json.loads(out)
    assert [verdict["row"] for verdict in found["verdicts"]] == ["S-S-I", "S-S-I"]
    assert "2 runs, 0 of them done" in err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Does shaking help?" in page
    assert ">published<" not in page
    for row in found["cells"]:
        assert RunDirectory(tmp_path / "out" / row["runs"][0]["path"]).finished


@pytest.mark.parametrize(
    ("typed", "more", "sentence"),
    [
        ({"model": "cifar_resnet20"}, {}, r"model: cifar_resnet20 has no branches to shake"),
        ({}, {"rules": ["E-E-B"]}, r"rules: got E-E-B alone"),
        ({}, {"rules": ["S-X-I"]}, r"rule: 'S-X-I'"),
        ({}, {"folds": 9}, r"folds: got 9, expected at most 8, the training images of class '2' of mine"),
        ({}, {"folds": 1}, r"folds: got 1, expected 0 or at least 2"),
        ({}, {"seeds": 0}, r"seeds: got 0"),
        ({"train_size": 20}, {"folds": 2, "seeds": 2}, r"folds: got 2 with train_size and 2 seeds"),
        ({"rule": "S-S-I"}, {}, r"rule: got 'S-S-I', expected rules="),
        ({}, {"budget": "soon"}, r"budget: got 'soon'"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(tmp_path, typed, more, sentence):
    with pytest.raises(InputError, match=sentence):
        make(npz(tmp_path / "mine.npz"), tmp_path / "out", TINY | typed, **more)
    assert not (tmp_path / "out").exists()


def test_folder_with_other_files_is_refused(tmp_path):
    data = npz(tmp_path / "mine.npz")
    out = tmp_path / "out"
    out.mkdir()
    for settings, sentence in (
        ('{"scale": "small", "overrides": {}}', r"holds tables of the paper"),
        ('{"scale": "own"}', r"is damaged"),
        (
            '{"scale": "own", "overrides": {"data": "other.npz", "epochs": 1}}',
            r"made with data=other.npz, this is ",
        ),
        (f'{{"scale": "own", "overrides": {{"data": "{data}", "epochs": 3}}}}', r"made with epochs=3, .* is epochs=1"),
    ):
        (out / "settings.json").write_text(settings)
        with pytest.raises(InputError, match=sentence):
            make(data, out, {"epochs": 1})
        assert (out / "settings.json").read_text() == settings


SCRIPT = """
import torch
import shakeshake as ss
from mine import Net

@ss.register_rule("mine")
def half(images, branches, *, device, generator):
    alpha = torch.full((images, branches), 1 / branches, device=device)
    return alpha, alpha

ss.register_model("net")(Net)  # here, in each run, too

def main():
    options = dict(epochs=1, batch_size=20, device="cpu", precision="fp32", seeds=1, jobs=2)
    table = ss.compare("mine.npz", model="net", rules=["mine", "mine.py:half"], out="out", **options)
    assert [(cell.row, cell.n) for cell in table.cells] == [("E-E-B", 1), ("mine", 1), ("mine.py:half", 1)], table
    assert table.cells[0].recipe["model"] == "net"
"""


def test_a_script_compares_its_own_networks_and_rules(tmp_path):
    """Registered names and FILE.py:NAME reach the processes of the runs, from an imported module and the script."""
    npz(tmp_path / "mine.npz")
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "script.py").write_text(SCRIPT + '\nif __name__ == "__main__":\n    main()\n')
    python("script.py", cwd=tmp_path)


def test_compare_does_not_call_itself_in_the_processes_of_its_runs(tmp_path):
    npz(tmp_path / "mine.npz")
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "script.py").write_text(SCRIPT + "\nmain()\n")
    process = start("script.py", cwd=tmp_path)
    error = process.communicate()[1].splitlines()[-1]
    assert "compare: got a call while script.py is imported, expected it under if __name__" in error
    assert process.returncode == 1
    assert not (tmp_path / "out").exists()


def test_networks_and_rules_that_no_file_defines_are_refused(tmp_path):
    ss.register_model("linear")(lambda num_classes, rule="S-S-I": torch.nn.Linear(1, num_classes))
    ss.register_rule("half")(lambda images, branches, *, device, generator: None)
    try:
        with pytest.raises(InputError, match=r"model: 'linear' is not defined at the top level of a Python file"):
            ss.compare(npz(tmp_path / "mine.npz"), out=tmp_path / "out", model="linear", epochs=1)
        with pytest.raises(InputError, match=r"rule: 'half' is not defined at the top level .* or FILE.py:NAME"):
            ss.compare(tmp_path / "mine.npz", out=tmp_path / "out", rules=["half"], **TINY)
    finally:
        del registry._registered["linear"], layer_rules._registered["half"]
    assert not (tmp_path / "out").exists()
