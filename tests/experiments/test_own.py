"""A comparison on somebody's own images: planned, run, gone on with, and a verdict that its numbers support."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from shakeshake.errors import InputError
from shakeshake.experiments import compare as own
from shakeshake.experiments import run
from shakeshake.experiments import worker as cell
from shakeshake.experiments.statistics import Difference, difference_over_folds
from shakeshake.train.open_run import load_images, open_run
from shakeshake.train.run_directory import RunDirectory

TINY = {"model": "shake_resnet8_2x4d", "epochs": 1, "batch_size": 20, "device": "cpu", "precision": "fp32"}


def npz(path: Path, seed: int = 0) -> Path:
    """Uneven classes that can be told apart: brighter is higher."""
    random = np.random.default_rng(seed)

    def some(*counts: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(3), counts)
        return (labels[:, None, None] * 60 + random.integers(0, 80, (len(labels), 8, 8))).astype(np.uint8), labels

    x_train, y_train = some(40, 15, 8)
    x_test, y_test = some(30, 12, 4)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture
def worked(monkeypatch) -> list[str]:
    """Runs are worked on in this process; the names of those that were."""
    names: list[str] = []

    def here(paths, *, only, data_dir, ended, **_):
        for path in paths:
            names.append(path.name)
            cell.work(path, only=only, data_dir=data_dir)
            ended(path, None)

    monkeypatch.setattr(run, "run_locally", here)
    return names


def compare(data: Path, out: Path, typed: dict | None = None, **more) -> dict:
    plan, images = own.planned_comparison(str(data), typed or TINY, out=out, say=lambda _: None, **more)
    return own.run_comparison(plan, images, say=lambda _: None)


def test_folds_test_every_image_once_and_what_is_done_is_passed_over(tmp_path, worked):
    data, out = npz(tmp_path / "mine.npz"), tmp_path / "out"
    found = compare(data, out, rules=["S-S-I"], seeds=1, folds=3)
    assert worked == [f"mine-shake_resnet8_2x4d-{rule}-seed0-fold{k}" for k in range(3) for rule in ("E-E-B", "S-S-I")]
    for rule, row in zip(("E-E-B", "S-S-I"), found["cells"], strict=True):
        assert row["row"] == rule
        assert len(row["runs"]) == 3
        (wrong,) = own.tables.wrong_images(row, out)
        assert len(wrong) == 63
        # The slow way: each image by the network that did not see it.
        place = own.tables.RunDirectory(out / row["runs"][0]["path"]).recipe()
        at = 0
        for fold, one in enumerate(row["runs"]):
            opened = open_run(out / one["path"], device="cpu")
            images = load_images(place.replace(fold=fold)).test
            normal = (images.images - np.reshape(opened.data.mean, (1, 1, 1, 1))) / opened.data.std[0]
            with torch.no_grad():
                told = opened.network(torch.tensor(normal, dtype=torch.float32)).argmax(1).numpy()
            assert ((told != images.labels) == wrong[at : at + len(told)]).all()
            at += len(told)
    (one,) = found["differences"]
    assert one["images"] == 63
    both = [own.tables.wrong_images(row, out)[0] for row in found["cells"]]
    assert one["difference"] == pytest.approx(100 * (both[1].mean() - both[0].mean()))

    worked.clear()
    again = compare(data, out, rules=["S-S-I"], seeds=1, folds=3)
    assert worked == []
    assert again["differences"] == found["differences"]
    assert json.loads((out / "compare.json").read_text())["verdicts"] == found["verdicts"]
    with pytest.raises(InputError, match=r"out: .* was made with overrides folds=3, this is folds=0"):
        compare(data, out, rules=["S-S-I"], seeds=1)
    settings = json.loads((out / "settings.json").read_text())
    del settings["overrides"]["randaugment"]  # as if the comparison had begun before there was such a field
    (out / "settings.json").write_text(json.dumps(settings))
    assert compare(data, out, rules=["S-S-I"], seeds=1, folds=3)["differences"] == found["differences"]


def test_seeds_join_and_balanced_error_is_compared_where_classes_are_uneven(tmp_path, worked):
    data, out = npz(tmp_path / "mine.npz"), tmp_path / "out"
    compare(data, out, rules=["S-E-I"], seeds=1)
    worked.clear()
    found = compare(data, out, {}, rules=["S-E-I", "S-S-I"], seeds=2)  # nothing typed: the recipe is the one it has
    assert len(worked) == 4
    assert not {name for name in worked if name.endswith(("E-E-B-seed0", "S-E-I-seed0"))}
    assert {row["n"] for row in found["cells"]} == {2}
    assert found["cells"][0]["recipe"]["balance"] == "weight", "picked for these classes"
    labels = load_images(own.begun(out, str(data), {})).test.labels
    wrong = {row["row"]: np.stack(own.tables.wrong_images(row, out)) for row in found["cells"]}

    def balanced(rule: str) -> float:
        return 100 * np.mean([wrong[rule][:, labels == k].mean() for k in range(3)])

    for one in found["balanced_differences"]:
        assert one["difference"] == pytest.approx(balanced(one["row"]) - balanced("E-E-B"), abs=1e-4)
        assert one["low"] <= one["difference"] <= one["high"]
    of_runs = [run["balanced_error"] for run in found["cells"][0]["runs"]]
    assert np.mean(of_runs) == pytest.approx(balanced("E-E-B"), abs=1e-3)
    told = "\n".join(own.as_lines(found))
    assert "balanced" in told
    assert told.count("S-E-I: ") == 2


def test_images_that_changed_between_runs_are_not_compared(tmp_path, worked):
    data, out = npz(tmp_path / "mine.npz"), tmp_path / "out"
    compare(data, out, rules=["S-E-I"], seeds=1)
    plan, images = own.planned_comparison(str(data), TINY, out=out, say=lambda _: None, rules=["S-E-I"], seeds=2)
    npz(data, seed=1)
    with pytest.raises(InputError, match=r"data: the images of .*mine.npz are not those that .* was trained on"):
        compare(data, out, rules=["S-E-I"], seeds=1)
    found = own.run_comparison(plan, images, say=lambda _: None)  # they changed while it ran
    for row in found["cells"]:
        assert [run["seed"] for run in row["runs"]] == [0]
        assert row["failed"][0]["seed"] == 1
        assert "was trained on other images" in row["failed"][0]["reason"]


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(-3.0, -1.0, "helps"), (1.0, 3.0, "hurts"), (-1.0, 3.0, "can't tell")]
)
def test_the_verdict_is_what_the_interval_says(low, high, verdict):
    told = own._verdict(
        {
            **{"row": "S-S-I", "against": "E-E-B", "difference": (low + high) / 2, "low": low, "high": high},
            **{
                "n": (2, 2),
                "level": 0.95,
                "covers": "seeds",
                "verdict": Difference(0, low, high, 0.95, (2, 2), 10, "").verdict,
            },
        },
        "error",
    )
    assert told["verdict"] == verdict
    assert told["sentence"].startswith(f"S-S-I: {verdict}. Error {(low + high) / 2:+.2f} points against E-E-B")


def test_one_network_of_each_is_no_verdict(tmp_path, worked):
    found = compare(npz(tmp_path / "mine.npz"), tmp_path / "out", rules=["S-S-I"], seeds=1)
    assert {told["verdict"] for told in found["verdicts"]} == {"can't tell"}
    assert all("it takes more --seeds" in told["sentence"] for told in found["verdicts"])


def test_the_training_error_is_not_that_of_mixtures(tmp_path, worked):
    found = compare(
        npz(tmp_path / "mine.npz"), tmp_path / "out", {**TINY, "mixup_alpha": 1.0}, rules=["S-S-I"], seeds=1
    )
    for row in found["cells"]:
        run = RunDirectory(tmp_path / "out" / row["runs"][0]["path"])
        assert row["train_mean"] == run.read_json("analysis.json")["train_error"]
        assert row["train_mean"] != run.read_json("result.json")["last_train_error"]


def test_the_interval_over_folds_against_the_textbook():
    """Three folds of 4, 3 and 3 images, two seeds: mean +- 4.303 s / sqrt(3) of the folds' differences."""
    row = [np.array([1, 1, 1, 1, 0, 0, 1, 0, 1, 1]) > 0, np.array([1, 1, 0, 0, 0, 1, 1, 0, 0, 1]) > 0]
    against = [np.array([0, 0, 1, 0, 0, 0, 1, 0, 1, 0]) > 0, np.array([0, 0, 0, 1, 0, 1, 0, 0, 0, 0]) > 0]
    folds = [6 / 8 - 2 / 8, 3 / 6 - 2 / 6, 3 / 6 - 1 / 6]
    found = difference_over_folds(row, against, 3)
    half = 4.302653 * np.std(folds, ddof=1) / np.sqrt(3)
    assert found.difference == pytest.approx(100 * np.mean(folds))
    assert (found.low, found.high) == pytest.approx((100 * (np.mean(folds) - half), 100 * (np.mean(folds) + half)))
    assert found.n == (6, 6)


def shakeshake(*arguments: object, code: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "shakeshake", "compare", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_the_command_prints_json_alone_and_leaves_a_page(tmp_path):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    options += ["--rules", "S-S-I", "--seeds", 1, "--jobs", 2, "--out", tmp_path / "out"]
    done = shakeshake(npz(tmp_path / "mine.npz"), *options, "--json")
    found = json.loads(done.stdout)
    assert [verdict["row"] for verdict in found["verdicts"]] == ["S-S-I", "S-S-I"]
    assert "2 runs, 0 of them done" in done.stderr
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
        ({"train_size": 20}, {"folds": 2, "seeds": 2}, r"folds: 2 with train_size and 2 seeds"),
        ({}, {"budget": "soon"}, r"budget: got 'soon'"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, typed, more, sentence):
    with pytest.raises(InputError, match=sentence):
        compare(npz(tmp_path / "mine.npz"), tmp_path / "out", TINY | typed, **more)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "settings.json").write_text('{"scale": "small", "overrides": {}}')
    with pytest.raises(InputError, match=r"holds tables of the paper"):
        own.begun(tmp_path, "mine.npz", {})
    (tmp_path / "settings.json").write_text('{"scale": "own"}')
    with pytest.raises(InputError, match=r"is damaged"):
        own.begun(tmp_path, "mine.npz", {})
    (tmp_path / "settings.json").write_text('{"scale": "own", "overrides": {"data": "other.npz", "epochs": 3}}')
    with pytest.raises(InputError, match=r"made with data other.npz, this is mine.npz"):
        own.begun(tmp_path, "mine.npz", {})
    with pytest.raises(InputError, match=r"made with epochs 3, this is 4"):
        own.begun(tmp_path, "other.npz", {"epochs": 4})
