"""An image folder on the command line: check, train, and runs that resume with their images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import TINY_OPTIONS, shakeshake
from shakeshake.data.registry import find_data, load_data
from shakeshake.errors import InputError
from shakeshake.train.fit import fit, resume
from shakeshake.train.open_run import evaluate
from shakeshake.train.recipe import Recipe
from shakeshake.train.run_directory import RunDirectory

TINY = [*TINY_OPTIONS, "--batch-size", "10"]


pytestmark = pytest.mark.usefixtures("cache")


def test_check_lists_findings(digits, tmp_path):
    folder = digits(tmp_path / "my [b]photos\N{CAT FACE}", {"cat\n<i>'\"": 12, "dog": 30})
    (folder / "dog" / "bad\n.jpg").write_bytes(b"\xff\xd8\xff")
    told, _ = shakeshake("data", "check", folder)
    assert "42 images in 2 classes" in told
    assert "cat\\n<i>'\"" in told
    assert "dog/bad\\n.jpg is damaged or cut off" in told
    assert "8 x 8 pixels" in told
    found = json.loads(shakeshake("data", "check", folder, "--json", "--image-size", 16)[0])
    assert found["image_size"] == 16
    assert found["mistake"] is None
    assert found["classes"][1] == {"name": "dog", "train": 24, "val": 0, "test": 6}


def test_check_of_unusable_folders_lists_findings_and_the_error(digits, tmp_path):
    folder = digits(tmp_path / "p", {"cat": 12})
    told, mistake = shakeshake("data", "check", folder, code=2)
    assert "12 images in 1 class" in told
    assert "only one class, 'cat'" in mistake
    assert "nowhere is not a folder" in shakeshake("data", "check", "nowhere", code=2, cwd=tmp_path)[1]
    assert "Missing argument 'FOLDER'" in shakeshake("data", "check", code=2)[1]
    shutil.copytree(folder / "cat", folder / "dog")
    told, mistake = shakeshake("data", "check", folder, code=2)
    assert "12 images in several classes, excluded from all" in told
    assert "no image that is in only one class" in mistake


def test_train_reports_findings_and_eval_works_without_the_folder(digits, tmp_path):
    folder = digits(tmp_path / "photos", {"cat": 30, "dog": 30}, side=20, kind="jpg")
    (folder / "cat" / "bad.jpg").write_bytes(b"no image")
    _, told = shakeshake("train", folder, *TINY, "--recipe", "quick", "--out", tmp_path / "run")
    assert "2 classes (cat 24, dog 24); 48 train, 12 test" in told
    assert "20 x 20 pixels" in told
    assert "cat/bad.jpg" in told
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["classes"], config["image_size"], config["in_channels"]) == (["cat", "dog"], 20, 3)
    assert "photos" in (tmp_path / "run" / "report.html").read_text()
    shutil.rmtree(folder)
    assert "12 images" in shakeshake("eval", tmp_path / "run", "--device", "cpu")[0]


def recipe(folder: Path, **more: object) -> Recipe:
    base = Recipe(
        data=str(folder), model="shake_resnet8_2x4d", batch_size=10, epochs=2, crop_padding=1, precision="fp32"
    )
    return base.replace(device="cpu", **more)


def test_resume_uses_exactly_the_images_the_run_began_with(digits, tmp_path, cache):
    """New files are ignored; changed or missing files are an error."""
    folder, run = digits(tmp_path / "photos", {"cat": 20, "dog": 20}), tmp_path / "run"
    whole = fit(recipe(folder), run, quiet=True)
    record = RunDirectory(run).images_record()
    (run / "result.json").unlink()  # as if killed after the last checkpoint
    digits(folder, {"cat": 10, "dog": 10}, skip=20)
    shutil.rmtree(cache)
    assert resume(run, quiet=True).data_fingerprint == whole.data_fingerprint
    assert RunDirectory(run).images_record() == record
    assert evaluate(run, device="cpu").images == 8
    (run / "result.json").unlink()
    gone = folder / record["test"][0][0]
    Image.new("RGB", (8, 8), "red").save(gone)
    shutil.rmtree(cache)
    with pytest.raises(InputError, match=r"1 of 40 images in .* have changed or are missing since"):
        resume(run, quiet=True)


def test_taken_output_folder_is_refused_before_the_images_are_read(digits, tmp_path):
    folder = digits(tmp_path / "p", {"cat": 6, "dog": 6})
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    _, error = shakeshake("train", folder, "--out", tmp_path / "taken", code=2)
    assert "is not empty, expected a new folder" in error


def test_eval_on_the_val_split(digits, tmp_path):
    for part, count, skip in (("train", 10, 0), ("val", 3, 10), ("test", 4, 20)):
        digits(tmp_path / "p" / part, {"cat": count, "dog": count}, skip)
    fit(recipe(tmp_path / "p"), tmp_path / "run", quiet=True)
    assert evaluate(tmp_path / "run", split="val", device="cpu").images == 6
    fit(recipe("digits", train_size=20), tmp_path / "other", quiet=True)
    with pytest.raises(InputError, match="digits has no val images"):
        evaluate(tmp_path / "other", split="val", device="cpu")


@pytest.mark.skipif(find_data("cifar10") is None, reason="CIFAR-10 is not here")
def test_cifar_images_saved_as_files_load_unchanged(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    cifar = load_data("cifar10")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, split in (("train", cifar.train), ("test", cifar.test)):
        for number in range(200):
            file = tmp_path / "p" / part / cifar.classes[split.labels[number]] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(split.images[number].transpose(1, 2, 0)).save(file)
    data = load_data(str(tmp_path / "p"))
    assert data.classes == cifar.classes
    for ours, theirs in ((data.train, cifar.train), (data.test, cifar.test)):
        mine = sorted((label, pixels.tobytes()) for label, pixels in zip(ours.labels, ours.images, strict=True))
        assert mine == sorted((theirs.labels[n], theirs.images[n].tobytes()) for n in range(200))
    assert np.bincount(data.train.labels).sum() == 200


def test_findings_are_printed_once_and_before_the_suggestions(digits, tmp_path, monkeypatch):
    folder = digits(tmp_path / "photos", {"cat": 20, "dog": 60})
    _, told = shakeshake("train", folder, "--budget", "none", *TINY, "--out", tmp_path / "run")
    assert told.count("2 classes (cat 16, dog 48)") == 1
    assert told.index("imbalanced classes: 48") < told.index("--balance weight") < told.index("epoch 1/1")
