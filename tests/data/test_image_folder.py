"""A folder of images as a data set: layouts, splits, what is skipped and reported."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shakeshake.data.image_folder import dataset
from shakeshake.data.image_folder.dataset import load_image_folder, read_image_folder
from shakeshake.data.image_folder.summary import as_lines, in_brief
from shakeshake.data.loader import Augmentation, Loader
from shakeshake.data.memmap_rows import MemmapRows
from shakeshake.data.registry import load_data
from shakeshake.errors import InputError

pytestmark = pytest.mark.usefixtures("cache")


def fails(folder: Path, *words: str) -> None:
    with pytest.raises(InputError) as told:
        load_data(str(folder))
    assert all(word in str(told.value) for word in words), told.value
    assert "\n" not in str(told.value)


def paths(data, part: str) -> list[str]:
    return [path for path, _, _ in data.record[part]]


def test_split_folders_are_loaded(digits, tmp_path):
    for part, count, skip in (("train", 6, 0), ("validation", 2, 10), ("test", 3, 20)):
        digits(tmp_path / "p" / part, {"cat": count, "dog": count + 1}, skip)
    data = load_data(str(tmp_path / "p"))
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val), len(data.test)) == (13, 5, 7)
    assert data.image_size == 8
    assert data.channels == 3
    for split, part in ((data.train, "train"), (data.val, "validation"), (data.test, "test")):
        files = sorted((tmp_path / "p" / part).glob("*/*.png"))
        assert split.labels.tolist() == [("cat", "dog").index(file.parent.name) for file in files]
        for pixels, file in zip(split.images, files, strict=True):
            assert (pixels == np.asarray(Image.open(file))).all(), "pixels and labels belong together"
    assert data.mean[0] == pytest.approx(
        np.mean([np.asarray(Image.open(f)) for f in (tmp_path / "p/train").rglob("*.png")])
    )


def test_val_is_the_test_split_without_test_folder(digits, tmp_path):
    digits(tmp_path / "p" / "train", {"cat": 6, "dog": 6})
    digits(tmp_path / "p" / "val", {"cat": 2, "dog": 2}, skip=6)
    data = load_data(str(tmp_path / "p"))
    assert data.val is None
    assert (len(data.train), len(data.test)) == (12, 4)
    assert "val/ is the test set" in in_brief(data.record["found"])[0]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Training", "VALID", "Testing"), ("TRAIN", "Validation", "Test"), ("train", "val", "test")],
)
def test_names_of_split_folders(digits, tmp_path, train, val, test):
    folder = digits(tmp_path / "p", {f"{train}/cat": 5, f"{train}/dog": 5, f"{val}/cat": 3, f"{test}/cat": 0})
    digits(folder, {f"{test}/cat": 2}, skip=5)
    data = load_image_folder(folder)
    assert (data.classes, len(data.train), len(data.test)) == (("cat", "dog"), 10, 2)
    assert data.val is not None
    assert len(data.val) == 3


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("Train_Data", "Test_Data"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("archive/train/train", "archive/test/test"),
        ("train", "test_images"),
        ("data-train", "data-valid"),
    ],
)
def test_longer_names_and_repeated_levels_are_splits_where_their_classes_agree(digits, tmp_path, train, test):
    folder = digits(tmp_path / "p", {f"{train}/cat": 5, f"{train}/dog": 5})
    digits(folder, {f"{test}/cat": 2, f"{test}/dog": 2}, skip=5)
    data = load_image_folder(folder)
    assert (data.classes, len(data.train), len(data.test)) == (("cat", "dog"), 10, 4)


def test_longer_names_are_classes_or_refused_where_they_are_not_splits(digits, tmp_path):
    data = load_image_folder(digits(tmp_path / "classes", {"test_tube": 6, "train_station": 6}))
    assert data.classes == ("test_tube", "train_station")
    rooms = {f"{animal}/{place}": 4 for animal in ("cat", "dog") for place in ("indoor", "outdoor")}
    assert load_image_folder(digits(tmp_path / "deeper", rooms)).classes == ("cat", "dog")
    odd = digits(tmp_path / "odd", {"train_set/cat": 4, "train_set/dog": 4, "test_set/eel": 4})
    fails(odd, "train_set, which look like splits, but the folders in test_set are not those of the training images")


def test_system_folders_are_neither_classes_nor_images(digits, tmp_path):
    folder = digits(tmp_path / "p", {"cat": 6, "dog": 6, "@eaDir/cat": 2, "$RECYCLE.BIN": 2, "lost+found": 1})
    digits(folder, {"cat/@eaDir": 3, "dog/__pycache__": 1, "#recycle": 2}, skip=10)
    data = load_image_folder(folder)
    assert data.classes == ("cat", "dog")
    assert len(data.train) + len(data.test) == 12


def test_two_folders_for_one_split_are_an_error(digits, tmp_path):
    folder = digits(tmp_path / "p", {"train/cat": 5, "train/dog": 5, "val/cat": 3, "valid/dog": 3})
    fails(folder, "has both val/ and valid/, expected one folder for val")


def test_drawn_split_is_stratified_and_reproducible(digits, tmp_path):
    counts = {"cat": 50, "dog": 20, "eel": 3, "fox": 2, "gnu": 1}
    folder = digits(tmp_path / "p", counts)
    data = load_image_folder(folder)
    tested = np.bincount(data.test.labels, minlength=5)
    assert len(data.test) == 15
    assert tested[4] == 0, "a single image is for training"
    assert (tested[:4] >= [9, 3, 1, 1]).all()
    assert (np.bincount(data.train.labels) >= 1).all()
    assert not set(paths(data, "train")) & set(paths(data, "test"))
    assert len(paths(data, "train")) + len(paths(data, "test")) == sum(counts.values())
    assert paths(load_image_folder(folder), "test") == paths(data, "test")
    assert paths(load_image_folder(folder, split_seed=1), "test") != paths(data, "test")


def test_class_named_train_is_not_a_split(digits, tmp_path):
    """It has images itself: a class of locomotives, not a split."""
    data = load_image_folder(digits(tmp_path / "p", {"train": 5, "bus": 5}))
    assert data.classes == ("bus", "train")


@pytest.mark.parametrize(
    ("counts", "classes"),
    [
        ({"train": 1, "train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2}, ("cat", "dog")),
        ({"train": 1, "train/cat": 4, "train/dog": 4, "test": 2}, ("cat", "dog")),
        ({"Train": 1, "Train/cat": 4, "Train/dog": 4, "notes": 0}, ("cat", "dog")),
        ({"train": 1, "train/cat": 4, "train/dog": 4, "val/cat": 2, "more": 1}, ("cat", "dog")),
        ({"train": 4, "train/old": 4, "bus": 4}, ("bus", "train")),
        ({"train": 4, "train/old": 4, "train/new": 4, "bus": 4}, None),
        ({"train": 4, "train/cat": 4, "test": 4}, None),
    ],
)
def test_images_outside_class_folders_are_reported_or_refused(digits, tmp_path, counts, classes):
    """They do not turn splits into classes; ambiguous folders are an error."""
    folder = digits(tmp_path / "p", counts)
    if classes is None:
        return fails(folder, "both images and folders in train/", "expected only class folders in it")
    data = load_image_folder(folder)
    assert data.classes == classes
    stray = sum(counts.get(name, 0) for name in ("train", "Train", "test") if "bus" not in counts)
    assert data.record["found"]["beside_classes"] == stray
    assert not stray or f"{stray} image" in "\n".join(as_lines(data.record["found"]))
    return None


def test_numeric_classes_are_sorted_as_numbers(digits, tmp_path):
    numbers = [str(number) for number in range(2, 12)]
    assert load_image_folder(digits(tmp_path / "p", dict.fromkeys(numbers, 2))).classes == tuple(numbers)


def test_class_names_are_kept_except_for_line_breaks_and_controls(digits, tmp_path):
    kept = ["می\u200cخواهم", "क्\u200dष", "pain\u00a0au", "e\u0301te\u0301", "\N{FAMILY}\u200d\ufe0f"]
    escaped = ["a\u202eb", "a\u2028b", "a\tb", "\u2066c", os.fsdecode(b"d\xff")]
    folder = digits(tmp_path / "p", dict.fromkeys([*kept, *escaped], 3))
    data = load_image_folder(folder)
    kept[3] = "été"
    assert set(data.classes) == {*kept, r"a\u202eb", r"a\u2028b", r"a\tb", r"\u2066c", r"d\udcff"}
    lines = [*as_lines(data.record["found"]), *in_brief(data.record["found"])]
    assert all(line.isprintable() for line in lines)
    assert r"pain\xa0au" in "\n".join(lines)
    assert len({len(line) for line in lines[2 : 3 + len(data.classes)]}) == 1, "a table"
    fails(
        digits(tmp_path / "none", {"cat": 3, "\u200d": 3}),
        r"has a class '\u200d', expected names with visible characters",
    )


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, ["has no images in class folders", "photos/cat/1.jpg"]),
        ({".": 3}, ["has 3 images and no class folders"]),
        ({"cat": 5}, ["only one class, 'cat'"]),
        ({"cat": 5, "dog": 0}, ["only one class, 'cat'"]),
        ({"cat": 1, "dog": 1}, ["one image per class"]),
        ({"cat": 5, " ": 5}, ["has a class ' ', expected names with visible characters"]),
        ({"train/cat": 3, "train/dog": 3, "test/Dog": 3}, ["'Dog' only in test/ ('dog' is in train/), expected"]),
        ({"train/cat": 3, "train/dog": 3, "test/eel": 3}, ["'eel' only in test/, expected"]),
        ({"train": 3, "test": 3}, ["no class folders in train/", "photos/cat/1.jpg"]),
        ({"test/cat": 3, "val/cat": 3}, ["no class folders in train/"]),
    ],
)
def test_unusable_folders(digits, tmp_path, counts, words):
    (tmp_path / "p").mkdir()
    fails(digits(tmp_path / "p", counts), *words)


def test_folder_of_unreadable_files(tmp_path):
    (tmp_path / "p" / "cat").mkdir(parents=True)
    (tmp_path / "p" / "cat" / "a.jpg").write_bytes(b"no")
    fails(tmp_path / "p", "no readable image", "the first of 1, cat/a.jpg, is not an image")


def test_default_and_explicit_image_size(digits, tmp_path):
    for side, size in ((6, 8), (20, 20), (40, 32), (50, 48), (70, 64), (200, 96)):
        folder = digits(tmp_path / str(side), {"cat": 2, "dog": 2}, side=side)
        assert load_image_folder(folder).image_size == size
    assert load_image_folder(folder, image_size=24).train.images.shape[1:] == (3, 24, 24)
    with pytest.raises(InputError, match="image_size: got 7"):
        load_image_folder(folder, image_size=7)
    with pytest.raises(InputError, match="image_size: got 16, expected None for digits"):
        load_data("digits", image_size=16)


def test_skipped_files_are_reported(messy):
    data = load_image_folder(messy)
    found = data.record["found"]
    assert len(data.train) + len(data.test) == 11 + 30, "one image is in two classes; every other image counts once"
    assert [entry["path"] for entry in found["unreadable"]] == ["cat/cut.jpg", "dog/gone.png"]
    assert [entry["path"] for entry in found["troubles"]] == ["dog/circle"]
    (torn,) = found["in_several_classes"]
    assert "dog/really_a_cat.png" in torn
    (twice,) = found["duplicates"]
    assert twice["path"] == "cat/twin\\n\N{CAT FACE}<b>.png"
    assert found["other_files"] == {".txt": 1}
    assert found["beside_classes"] == 1
    assert found["empty_classes"] == ["empty"]
    assert any("deep/deeper" in path for path in paths(data, "train") + paths(data, "test"))
    told = "\n".join(as_lines(found))
    for words in (
        "cut.jpg is damaged or cut off",
        "2 files are unreadable",
        "imbalanced classes: 24",
        "classes with fewer than 10",
        "1 image outside class",
    ):
        assert words in told
    assert "\N{CAT FACE}<b>" in told
    json.dumps(data.record)


def test_classes_that_differ_only_in_case_are_reported(digits, tmp_path):
    found = load_image_folder(digits(tmp_path / "p", {"Cat": 5, "cat": 5, "dog": 5})).record["found"]
    assert found["alike_classes"] == [["Cat", "cat"]]
    assert "- classes whose names differ only in case, kept separate: Cat and cat" in as_lines(found)
    older = {key: value for key, value in found.items() if key != "alike_classes"}
    assert len(in_brief(older)) == len(in_brief(found)) - 1


def test_image_in_train_and_test_is_dropped_from_train(digits, tmp_path):
    digits(tmp_path / "p" / "train", {"cat": 5, "dog": 5})
    digits(tmp_path / "p" / "test", {"cat": 4, "dog": 4}, skip=4)
    data = load_image_folder(tmp_path / "p")
    assert np.bincount(data.train.labels).tolist() == [4, 4]
    assert np.bincount(data.test.labels).tolist() == [4, 4]
    assert "2 images in two splits, excluded from training" in "\n".join(as_lines(data.record["found"]))


def test_unwritable_cache_is_reported(digits, tmp_path, monkeypatch):
    folder = digits(tmp_path / "p", {"cat": 3, "dog": 3})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    fails(folder, "cannot be cached", "XDG_CACHE_HOME chooses another")


def test_unreadable_folders_are_reported(digits, tmp_path, monkeypatch):
    folder = digits(tmp_path / "p", {"cat": 5, "dog": 5, "cat/closed": 0})
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = load_image_folder(folder).record["found"]
    assert found["troubles"] == [{"path": "cat/closed", "reason": "cannot be entered: Permission denied"}]


def test_batches_from_a_memory_mapped_file_are_bit_identical(digits, tmp_path, monkeypatch):
    folder = digits(tmp_path / "p", {"cat": 40, "dog": 40}, side=40)
    held = load_image_folder(folder)
    monkeypatch.setattr(dataset, "MAX_MEMORY_BYTES", 1000)
    streamed = load_image_folder(folder)
    assert isinstance(streamed.train.images, MemmapRows)
    assert isinstance(held.train.images, np.ndarray)
    assert streamed.fingerprint == held.fingerprint
    assert (streamed.mean, streamed.std) == (held.mean, held.std)
    assert np.array_equal(streamed.train.images[3], held.train.images[3])
    assert np.array_equal(np.asarray(streamed.train.images), held.train.images)
    how = Augmentation(flip=True, crop_padding=2, mixup_alpha=0.5)
    loaders = [Loader(d.train, d.mean, d.std, batch_size=10, augmentation=how) for d in (held, streamed)]
    for a, b in zip(loaders[0].epoch(1, first_step=2), loaders[1].epoch(1, first_step=2), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
    for a, b in zip(loaders[0].eval_batches(7), loaders[1].eval_batches(7), strict=True):
        assert torch.equal(a.images, b.images)
    fewer = load_data(str(folder), train_size=10)
    assert isinstance(fewer.train.images, np.ndarray)
    assert fewer.fingerprint != held.fingerprint


def test_progress_callback(digits, tmp_path):
    told = []
    read_image_folder(digits(tmp_path / "p", {"cat": 3, "dog": 3}), progress=lambda *it: told.append(it))
    assert told[-1][1:] == (6, 6)
