"""`shakeshake analyze` on finished and unfinished runs, other networks and wrong arguments."""

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import shakeshake as ss
from helpers import TINY, shakeshake_output
from shakeshake.analysis.schema import Analysis
from shakeshake.errors import InputError

DIGITS = TINY.replace(train_size=100, batch_size=50, precision="auto", checkpoint_interval_s=0.0)


def analyze(*arguments: object, code: int = 0) -> str:
    return shakeshake_output("analyze", *arguments, code=code)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    ss.fit(DIGITS, path, quiet=True)
    return path


def test_analysis_matches_the_predictions_of_the_network(run):
    printed = analyze(run)
    found = json.loads((run / "analysis.json").read_text())
    data, model = ss.load_data("digits", train_size=100), ss.load(run)
    with torch.no_grad():  # without the temperature, which has its own fields
        probabilities = model(torch.from_numpy(data.test.images)).softmax(dim=1).numpy()
    wrong = probabilities.argmax(axis=1) != data.test.labels
    assert found["error"] == pytest.approx(100 * wrong.mean())
    assert f"error {found['error']:.2f} %" in printed
    train = model.predict(torch.from_numpy(data.train.images)).numpy().argmax(axis=1) != data.train.labels
    assert found["gap"] == pytest.approx(100 * (wrong.mean() - train.mean()))
    bits = np.unpackbits(np.frombuffer(base64.b64decode(found["wrong"]), np.uint8), count=len(wrong))
    assert (bits.astype(bool) == wrong).all()
    first = found["mistakes"][0]
    assert first["probability"] == pytest.approx(probabilities[wrong].max(), abs=1e-6)
    picture = np.array(Image.open(io.BytesIO(base64.b64decode(first["png"]))))
    assert (picture == data.test.images[first["index"], 0]).all()
    assert [b["block"] for b in found["branch_correlation"]] == [f"stages.{i}.blocks.0" for i in range(3)]
    assert np.sum(found["confusion"]) == 450
    assert sum(b["images"] for b in found["calibration"]["bins"]) == 450
    assert found["strength"]["expected"] == pytest.approx(1 / 3)


def test_unfinished_run_is_analysed_at_its_last_checkpoint(run, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(run, part)
    analyze(part, "--only", "gap")
    finished = json.loads((part / "analysis.json").read_text())
    for name in ("result.json", "model.safetensors", "config.json"):
        (part / name).unlink()
    assert "not finished: this is the network after epoch 2/2" in analyze(part, "--only", "gap")
    found = json.loads((part / "analysis.json").read_text())
    assert found["error"] == pytest.approx(finished["error"])
    for checkpoint in part.glob("checkpoint*"):
        checkpoint.unlink()
    assert "has no checkpoint yet" in analyze(part, code=2)


def test_network_without_branches_gets_the_other_analyses(tmp_path):
    ss.fit(DIGITS.replace(model="cifar_resnet8", epochs=1), tmp_path / "plain", quiet=True)
    assert "cifar_resnet8 has no ShakeShake modules" in analyze(tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "analysis.json").read_text())["branch_correlation"] is None
    assert "only: correlation needs ShakeShake modules" in analyze(tmp_path / "plain", "--only", "correlation", code=2)


def test_usage_errors_exit_with_2_and_one_line(run, tmp_path):
    random = np.random.default_rng(0)
    few = {"x_train": random.integers(0, 255, (40, 8, 8, 3), np.uint8), "y_train": np.arange(40) % 4}
    few |= {"x_test": few["x_train"][:3], "y_test": few["y_train"][:3]}
    np.savez(tmp_path / "few.npz", **few)
    recipe = DIGITS.replace(data=str(tmp_path / "few.npz"), train_size=None, batch_size=20, epochs=1)
    ss.fit(recipe, tmp_path / "few", quiet=True)
    for arguments, sentence in (
        ((tmp_path / "few",), "test has 3 images for 4 classes"),
        ((run, "--only", "magic"), "only: got 'magic', expected some of correlation"),
        ((run, "--split", "dev"), "'dev' is not one of 'test', 'train'"),
        ((tmp_path,), "holds no recipe.json"),
    ):
        assert sentence in analyze(*arguments, code=2)


def test_analyze_returns_what_it_writes(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    analysis = ss.analyze(copy, only=["correlation", "calibration", "gradcam"])
    written = json.loads((copy / "analysis.json").read_text())
    assert Analysis.from_dict(written) == analysis
    assert analysis.layerwise is None
    assert written["layerwise"] is None


def test_reading_an_analysis_names_the_damaged_field(run):
    ss.analyze(run, only=["calibration"])
    found = json.loads((run / "analysis.json").read_text())
    with pytest.raises(InputError, match=r"^calibration\.ece: got 1\.5, expected a number from 0 to 1$"):
        Analysis.from_dict({**found, "calibration": {**found["calibration"], "ece": 1.5}})
    with pytest.raises(InputError, match=r"^mistakes: does not fit its 10 classes$"):
        Analysis.from_dict({**found, "mistakes": [{**found["mistakes"][0], "truth": 10}]})
    with pytest.raises(InputError, match=r"^epoch: got True, expected an integer$"):
        Analysis.from_dict({**found, "epoch": True})
