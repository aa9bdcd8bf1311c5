"""A folder of photos as a data set: layouts, splits, what is left out, the record, the cache."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shakeshake.data import packed, photos, reading
from shakeshake.data.findings import as_lines, in_brief
from shakeshake.data.loader import Augmentation, Loader
from shakeshake.data.photos import load_photos, load_recorded, read_photos
from shakeshake.data.rows import Rows
from shakeshake.data.sources import load_data
from shakeshake.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shakeshake" / "photos"


def fails(folder: Path, *words: str) -> None:
    with pytest.raises(InputError) as told:
        load_data(str(folder))
    assert all(word in str(told.value) for word in words), told.value
    assert "\n" not in str(told.value)


def paths(data, part: str) -> list[str]:
    return [path for path, _, _ in data.record[part]]


def test_splits_of_its_own(digits, tmp_path):
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


def test_val_is_the_test_where_there_is_none(digits, tmp_path):
    digits(tmp_path / "p" / "train", {"cat": 6, "dog": 6})
    digits(tmp_path / "p" / "val", {"cat": 2, "dog": 2}, skip=6)
    data = load_data(str(tmp_path / "p"))
    assert data.val is None
    assert (len(data.train), len(data.test)) == (12, 4)
    assert "val/ is the test" in in_brief(data.record["found"])[0]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Training", "VALID", "Testing"), ("TRAIN", "Validation", "Test"), ("train", "val", "test")],
)
def test_splits_have_several_names(digits, tmp_path, train, val, test):
    folder = digits(tmp_path / "p", {f"{train}/cat": 5, f"{train}/dog": 5, f"{val}/cat": 3, f"{test}/cat": 0})
    digits(folder, {f"{test}/cat": 2}, skip=5)
    data = load_photos(folder)
    assert (data.classes, len(data.train), len(data.test)) == (("cat", "dog"), 10, 2)
    assert data.val is not None
    assert len(data.val) == 3


def test_two_folders_for_a_split(digits, tmp_path):
    folder = digits(tmp_path / "p", {"train/cat": 5, "train/dog": 5, "val/cat": 3, "valid/dog": 3})
    fails(folder, "has both val/ and valid/, expected one folder for val")


def test_a_split_is_stratified_seeded_and_the_same_again(digits, tmp_path):
    counts = {"cat": 50, "dog": 20, "eel": 3, "fox": 2, "gnu": 1}
    folder = digits(tmp_path / "p", counts)
    data = load_photos(folder)
    tested = np.bincount(data.test.labels, minlength=5)
    assert len(data.test) == 15
    assert tested[4] == 0, "a single image is for training"
    assert (tested[:4] >= [9, 3, 1, 1]).all()
    assert (np.bincount(data.train.labels) >= 1).all()
    assert not set(paths(data, "train")) & set(paths(data, "test"))
    assert len(paths(data, "train")) + len(paths(data, "test")) == sum(counts.values())
    assert paths(load_photos(folder), "test") == paths(data, "test")
    assert paths(load_photos(folder, split_seed=1), "test") != paths(data, "test")


def test_a_class_called_train(digits, tmp_path):
    """It has images itself, so it is locomotives and no split."""
    data = load_photos(digits(tmp_path / "p", {"train": 5, "bus": 5}))
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
def test_stray_images_in_train(digits, tmp_path, counts, classes):
    """One does not make classes of the splits; where train/ may be a class, that is asked."""
    folder = digits(tmp_path / "p", counts)
    if classes is None:
        return fails(folder, "both images and folders in train/", "expected class folders alone in it")
    data = load_photos(folder)
    assert data.classes == classes
    stray = sum(counts.get(name, 0) for name in ("train", "Train", "test") if "bus" not in counts)
    assert data.record["found"]["beside_classes"] == stray
    assert not stray or f"{stray} image" in "\n".join(as_lines(data.record["found"]))
    return None


def test_classes_that_are_numbers_are_in_their_order(digits, tmp_path):
    numbers = [str(number) for number in range(2, 12)]
    assert load_photos(digits(tmp_path / "p", dict.fromkeys(numbers, 2))).classes == tuple(numbers)


def test_names_of_classes_are_kept_and_told_on_a_line(digits, tmp_path):
    """Joiners and spaces are part of a name; what ends or turns a line is escaped."""
    kept = ["می\u200cخواهم", "क्\u200dष", "pain\u00a0au", "e\u0301te\u0301", "\N{FAMILY}\u200d\ufe0f"]
    escaped = ["a\u202eb", "a\u2028b", "a\tb", "\u2066c", os.fsdecode(b"d\xff")]
    folder = digits(tmp_path / "p", dict.fromkeys([*kept, *escaped], 3))
    data = load_photos(folder)
    kept[3] = "été"
    assert set(data.classes) == {*kept, r"a\u202eb", r"a\u2028b", r"a\tb", r"\u2066c", r"d\udcff"}
    lines = [*as_lines(data.record["found"]), *in_brief(data.record["found"])]
    assert all(line.isprintable() for line in lines)
    assert r"pain\xa0au" in "\n".join(lines)
    assert len({len(line) for line in lines[2 : 3 + len(data.classes)]}) == 1, "a table"
    fails(digits(tmp_path / "none", {"cat": 3, "\u200d": 3}), r"has a class '\u200d', expected names that can be read")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, ["has no images in class folders", "photos/cat/1.jpg"]),
        ({".": 3}, ["has 3 images and no class folders"]),
        ({"cat": 5}, ["only one class, 'cat'"]),
        ({"cat": 5, "dog": 0}, ["only one class, 'cat'"]),
        ({"cat": 1, "dog": 1}, ["one image of each class"]),
        ({"cat": 5, " ": 5}, ["has a class ' ', expected names that can be read"]),
        ({"train/cat": 3, "train/dog": 3, "test/Dog": 3}, ["'Dog' in test/ alone ('dog' is in train/), expected"]),
        ({"train/cat": 3, "train/dog": 3, "test/eel": 3}, ["'eel' in test/ alone, expected"]),
        ({"train": 3, "test": 3}, ["no class folders in train/", "photos/cat/1.jpg"]),
        ({"test/cat": 3, "val/cat": 3}, ["no class folders in train/"]),
    ],
)
def test_mistakes(digits, tmp_path, counts, words):
    (tmp_path / "p").mkdir()
    fails(digits(tmp_path / "p", counts), *words)


def test_nothing_but_bad_files(tmp_path):
    (tmp_path / "p" / "cat").mkdir(parents=True)
    (tmp_path / "p" / "cat" / "a.jpg").write_bytes(b"no")
    fails(tmp_path / "p", "no image that can be read", "the first of 1, cat/a.jpg, is no image")


def test_image_sizes(digits, tmp_path):
    """By the images' own, unless asked for; out of range is a mistake, and so is another size for other data."""
    for side, size in ((6, 8), (20, 20), (40, 32), (50, 48), (70, 64), (200, 96)):
        folder = digits(tmp_path / str(side), {"cat": 2, "dog": 2}, side=side)
        assert load_photos(folder).image_size == size
    assert load_photos(folder, image_size=24).train.images.shape[1:] == (3, 24, 24)
    with pytest.raises(InputError, match="image_size: got 7"):
        load_photos(folder, image_size=7)
    with pytest.raises(InputError, match="image_size: got 16 for digits"):
        load_data("digits", image_size=16)


@pytest.fixture
def messy(digits, tmp_path) -> Path:
    folder = digits(tmp_path / "messy", {"cat": 12, "dog": 30})
    cats, dogs = sorted((folder / "cat").iterdir()), sorted((folder / "dog").iterdir())
    shutil.copy(cats[0], folder / "cat" / "twin\n\N{CAT FACE}<b>.png")
    shutil.copy(cats[1], folder / "dog" / "really_a_cat.png")
    jpeg = folder / "cat" / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(jpeg)
    (folder / "cat" / "cut.jpg").write_bytes(jpeg.read_bytes()[:1000])
    jpeg.unlink()
    (folder / "dog" / "gone.png").symlink_to("/nowhere/at/all.png")
    (folder / "dog" / "notes.txt").write_text("woof")
    (folder / "dog" / "circle").symlink_to(folder)
    (folder / "dog" / "deep" / "deeper").mkdir(parents=True)
    dogs[0].rename(folder / "dog" / "deep" / "deeper" / dogs[0].name)
    (folder / "dog" / ".thumbnail.png").write_bytes(cats[2].read_bytes())
    (folder / "empty").mkdir()
    shutil.copy(cats[3], folder / "beside.png")
    return folder


def test_what_is_left_out_is_told(messy):
    data = load_photos(messy)
    found = data.record["found"]
    assert len(data.train) + len(data.test) == 11 + 30, "cat 1 is in two classes; all else that is an image counts once"
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
        "2 files cannot",
        "uneven classes: 24",
        "classes of less than 10",
        "1 image outside of class",
    ):
        assert words in told
    assert "\N{CAT FACE}<b>" in told
    json.dumps(data.record)


def test_classes_that_differ_in_small_and_large_letters_are_told(digits, tmp_path):
    found = load_photos(digits(tmp_path / "p", {"Cat": 5, "cat": 5, "dog": 5})).record["found"]
    assert found["alike_classes"] == [["Cat", "cat"]]
    assert "- classes that differ in small and large letters alone, and stay apart: Cat and cat" in as_lines(found)
    older = {key: value for key, value in found.items() if key != "alike_classes"}
    assert len(in_brief(older)) == len(in_brief(found)) - 1


def test_an_image_in_train_and_test_is_dropped_from_train(digits, tmp_path):
    digits(tmp_path / "p" / "train", {"cat": 5, "dog": 5})
    digits(tmp_path / "p" / "test", {"cat": 4, "dog": 4}, skip=4)
    data = load_photos(tmp_path / "p")
    assert np.bincount(data.train.labels).tolist() == [4, 4]
    assert np.bincount(data.test.labels).tolist() == [4, 4]
    assert "2 images in two splits at once, left out of training" in "\n".join(as_lines(data.record["found"]))


def decoded(monkeypatch) -> list[Path]:
    """The files that are decoded from now on."""
    seen, real = [], reading.read_and_decode
    monkeypatch.setattr(reading, "read_and_decode", lambda path, size: (seen.append(path), real(path, size))[1])
    return seen


def test_every_file_is_decoded_once(digits, tmp_path, monkeypatch):
    folder = digits(tmp_path / "p", {"cat": 20, "dog": 20})
    first, seen = load_photos(folder), decoded(monkeypatch)
    again = load_photos(folder)
    assert seen == []
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.train.images, first.train.images)
    digits(folder, {"cat": 1, "dog": 2}, skip=20)
    assert len(load_photos(folder).train) + len(load_photos(folder).test) == 43
    assert len(seen) == 3, "only what is new"
    changed = folder / "cat" / sorted(os.listdir(folder / "cat"))[0]
    Image.new("RGB", (8, 8), "red").save(changed)
    load_photos(folder)
    assert seen[3:] == [changed]


def test_a_bad_file_does_not_write_the_cache_anew(messy, cache, monkeypatch):
    load_photos(messy)
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*/*")}
    seen = decoded(monkeypatch)
    load_photos(messy)
    assert {path.name for path in seen} == {"cut.jpg", "gone.png", "notes.txt"}
    assert before == {path: path.stat().st_mtime_ns for path in cache.glob("*/*")}


@pytest.mark.parametrize("harm", ["truncate", "flip", "index", "gone"])
def test_a_broken_cache_is_made_anew(digits, tmp_path, cache, harm):
    folder = digits(tmp_path / "p", {"cat": 10, "dog": 10})
    first = load_photos(folder)
    (pixels,) = cache.glob("*/pixels")
    if harm == "truncate":
        os.truncate(pixels, 100)
    elif harm == "flip":
        content = bytearray(pixels.read_bytes())
        content[777] ^= 1
        pixels.write_bytes(content)
    elif harm == "index":
        (pixels.parent / "index.json").write_text("[1, 2")
    else:
        shutil.rmtree(pixels.parent)
    again = load_photos(folder)
    assert np.array_equal(again.train.images, first.train.images)
    assert again.fingerprint == first.fingerprint
    assert not list(cache.glob(".new-*")), "nothing is left lying about"


def test_several_readers_at_once(digits, tmp_path, monkeypatch):
    folder, seen = digits(tmp_path / "p", {"cat": 20, "dog": 20}), decoded(monkeypatch)
    prints: list[str] = []
    threads = [threading.Thread(target=lambda: prints.append(load_photos(folder).fingerprint)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(prints) == 4
    assert len(set(prints)) == 1
    assert len(seen) == 40, "the others waited for the first"


def test_copies_read_at_once_share_a_pack(digits, tmp_path, monkeypatch):
    """Both write it; the second is about to put it in its place when the first, which has, opens it."""
    one, other = (digits(tmp_path / name, {"cat": 5, "dog": 5}) for name in ("one", "other"))
    prints: list[str] = []
    second = threading.Thread(target=lambda: prints.append(load_photos(other).fingerprint))
    removed, opened = threading.Event(), threading.Event()
    real_rmtree, real_prune = shutil.rmtree, packed.prune

    def rmtree(path, **how):
        real_rmtree(path, **how)
        if threading.current_thread() is second and ".new-" not in str(path):
            removed.set()
            opened.wait(10)

    def prune(keep):
        if second.ident is None:
            second.start()
            while second.is_alive() and not removed.wait(0.01):
                pass
        real_prune(keep)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    monkeypatch.setattr(reading, "prune", prune)
    try:
        prints.append(load_photos(one).fingerprint)
    finally:
        opened.set()
        second.join()
    assert len(prints) == 2
    assert len(set(prints)) == 1


@pytest.mark.parametrize("link", [False, True])
def test_what_has_the_name_of_a_pack_makes_room_for_it(digits, tmp_path, cache, link):
    folder = digits(tmp_path / "p", {"cat": 5, "dog": 5})
    first = load_photos(folder)
    pack = cache / first.record["pack"]
    shutil.rmtree(pack)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.json").write_text("{}")
    pack.symlink_to(tmp_path / "mine") if link else pack.write_text("a file")
    assert load_photos(folder).fingerprint == first.fingerprint
    assert (pack / "pixels").is_file()
    assert (tmp_path / "mine" / "index.json").exists()


def test_old_packs_make_room(digits, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(packed, "ROOM", 3 * 64 * 25)
    for killed, when in ((cache / ".new-old", 1), (cache / ".new-now", time.time())):
        killed.mkdir(parents=True)
        os.utime(killed, (when, when))
    for name in ("index.json", "pixels"):
        (cache / "no key").mkdir(exist_ok=True)
        (cache / "no key" / name).write_bytes(bytes(1 << 20))
    for number, skip in enumerate((0, 20, 40)):
        data = load_photos(digits(tmp_path / str(number), {"cat": 10, "dog": 10}, skip))
        os.utime(cache / data.record["pack"], (number, number))
    assert {path.name for path in cache.iterdir() if path.is_dir()} == {data.record["pack"], ".new-now", "no key"}


def test_a_cache_that_cannot_be_written(digits, tmp_path, monkeypatch):
    folder = digits(tmp_path / "p", {"cat": 3, "dog": 3})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    fails(folder, "cannot be kept", "XDG_CACHE_HOME names another")


def test_a_folder_in_the_place_of_what_the_cache_keeps_is_named(digits, tmp_path, cache):
    folder = digits(tmp_path / "p", {"cat": 3, "dog": 3})
    load_photos(folder)
    (memory,) = cache.glob("*.json")
    memory.unlink()
    memory.mkdir()
    fails(folder, f"cannot be kept in {memory}: Is a directory")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_told_and_nothing_is_left_on_it(digits, tmp_path, cache, monkeypatch):
    folder = digits(tmp_path / "p", {"cat": 3, "dog": 3})

    def full(writer):
        writer.file = open("/dev/full", "wb")  # noqa: SIM115

    monkeypatch.setattr(packed.Writer, "__post_init__", full)
    fails(folder, "cannot be kept", "No space left on device", "expected a folder with room for 1 MB")
    assert not list(cache.glob(".new-*"))


def test_files_that_change_or_go_while_they_are_read(digits, tmp_path, monkeypatch):
    """Each costs itself; what changed while it was read is read anew the next time."""
    folder = digits(tmp_path / "p", {"cat": 20, "dog": 20})
    names = sorted((folder / "cat").iterdir())
    real = reading.read_and_decode

    def meanwhile(path, size):
        if path == names[3]:
            path.unlink()
        done = real(path, size)
        if path == names[5]:
            Image.new("RGB", (8, 8), "red").save(path)
        return done

    monkeypatch.setattr(reading, "read_and_decode", meanwhile)
    data = load_photos(folder)
    assert [entry["path"] for entry in data.record["found"]["unreadable"]] == [f"cat/{names[3].name}"]
    monkeypatch.setattr(reading, "read_and_decode", real)
    seen = decoded(monkeypatch)
    load_photos(folder)
    assert seen == [names[5]]


def test_folders_that_cannot_be_entered(digits, tmp_path, monkeypatch):
    folder = digits(tmp_path / "p", {"cat": 5, "dog": 5, "cat/closed": 0})
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = load_photos(folder).record["found"]
    assert found["troubles"] == [{"path": "cat/closed", "reason": "cannot be entered: Permission denied"}]


def test_a_record_finds_the_very_same_images(digits, tmp_path, cache):
    folder = digits(tmp_path / "p", {"cat": 10, "dog": 10})
    data = load_photos(folder)
    record = json.loads(json.dumps(data.record))
    digits(folder, {"cat": 5, "dog": 5}, skip=10)
    assert load_photos(folder).fingerprint != data.fingerprint
    for _ in range(2):  # out of the cache, then out of the files
        again = load_recorded(folder, record)
        assert again.fingerprint == data.fingerprint
        assert np.array_equal(again.test.images, data.test.images)
        assert again.record == record
        shutil.rmtree(cache)
    folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="is not there"):
        load_recorded(folder, record)
    assert load_recorded(tmp_path / "moved", record).fingerprint == data.fingerprint
    shutil.rmtree(cache)
    (tmp_path / "moved" / paths(data, "train")[0]).unlink()
    with pytest.raises(InputError, match=rf"1 of 20 .* changed or are gone .* first is {paths(data, 'train')[0]}\)"):
        load_recorded(tmp_path / "moved", record)
    (tmp_path / "emptied").mkdir()
    (tmp_path / "emptied" / "notes.txt").write_text("they were here")
    with pytest.raises(InputError, match=r"20 of 20 images in .* have changed or are gone"):
        load_recorded(tmp_path / "emptied", record)
    with pytest.raises(InputError, match="record of its images is damaged"):
        load_recorded(folder, {**record, "train": 7})


@pytest.mark.parametrize("moved", ["renamed", "swapped", "pushed on", "all"])
def test_a_record_finds_images_that_were_moved(digits, tmp_path, cache, moved):
    """By what they hold, also where another has got the name of one."""
    folder = digits(tmp_path / "p", {"cat": 10, "dog": 10})
    data = load_photos(folder)
    one, other = (folder / path for path in paths(data, "train")[:2])
    if moved == "renamed":
        one.rename(folder / "one")
    elif moved == "all":
        (folder / "cat").rename(folder / "felis")
        (folder / "dog").rename(folder / "canis")
    else:
        other.rename(folder / "other")
        one.rename(other)
        (folder / "other").rename(one if moved == "swapped" else folder / "cat" / "new.png")
    if moved == "pushed on":
        Image.new("RGB", (8, 8), "red").save(one)
    shutil.rmtree(cache)
    again = load_recorded(folder, data.record)
    assert again.fingerprint == data.fingerprint
    assert np.array_equal(again.train.images, data.train.images)


@pytest.mark.parametrize("key", ["{victim}", "../../../victim", ".", "", "A" * 32, "0" * 31, "0" * 32 + "\n", 7, None])
def test_a_key_leads_nowhere_but_into_the_cache(digits, tmp_path, cache, key):
    """Neither from somebody else's run nor from a file of the cache: what is no pack would be removed."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "index.json").write_text("{}")
    key = key.format(victim=victim) if isinstance(key, str) else key
    folder = digits(tmp_path / "p", {"cat": 5, "dog": 5})
    first = load_photos(folder)
    with pytest.raises(InputError, match="record of its images is damaged") as told:
        load_recorded(folder, {**first.record, "pack": key})
    assert "\n" not in str(told.value)
    (memory,) = cache.glob("*.json")
    memory.write_text(json.dumps({**json.loads(memory.read_text()), "key": key}))
    assert load_photos(folder).fingerprint == first.fingerprint
    assert (victim / "index.json").exists()
    assert json.loads(memory.read_text())["key"] == first.record["pack"]


@pytest.mark.parametrize("size", [True, 8.0, "8", "/../../8", 7, 1 << 40])
def test_a_record_of_images_of_no_size(digits, tmp_path, size):
    folder = digits(tmp_path / "p", {"cat": 5, "dog": 5})
    first = load_photos(folder)
    with pytest.raises(InputError, match="record of its images is damaged"):
        load_recorded(folder, {**first.record, "image_size": size})


def test_a_relative_path_is_told_as_the_place_it_means(digits, tmp_path, cache, monkeypatch):
    data = load_photos(digits(tmp_path / "p", {"cat": 3, "dog": 3}))
    shutil.rmtree(cache)
    monkeypatch.chdir(tmp_path / "p")
    with pytest.raises(InputError, match=rf"data: {tmp_path}/p/p is not there"):
        load_data("p", record=data.record)


def test_a_set_that_is_too_large_for_memory_stays_in_the_file(digits, tmp_path, monkeypatch):
    """The batches are the same, bit for bit."""
    folder = digits(tmp_path / "p", {"cat": 40, "dog": 40}, side=40)
    held = load_photos(folder)
    monkeypatch.setattr(photos, "IN_MEMORY", 1000)
    streamed = load_photos(folder)
    assert isinstance(streamed.train.images, Rows)
    assert isinstance(held.train.images, np.ndarray)
    assert streamed.fingerprint == held.fingerprint
    assert (streamed.mean, streamed.std) == (held.mean, held.std)
    assert np.array_equal(streamed.train.images[3], held.train.images[3])
    assert np.array_equal(np.asarray(streamed.train.images), held.train.images)
    how = Augmentation(flip=True, crop=2, mixup=0.5)
    loaders = [Loader(d.train, d.mean, d.std, batch_size=10, augmentation=how) for d in (held, streamed)]
    for a, b in zip(loaders[0].epoch(1, first_step=2), loaders[1].epoch(1, first_step=2), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
    for a, b in zip(loaders[0].plain(7), loaders[1].plain(7), strict=True):
        assert torch.equal(a.images, b.images)
    fewer = load_data(str(folder), train_size=10)
    assert isinstance(fewer.train.images, np.ndarray)
    assert fewer.fingerprint != held.fingerprint


def test_progress_is_told(digits, tmp_path):
    told = []
    read_photos(digits(tmp_path / "p", {"cat": 3, "dog": 3}), progress=lambda *it: told.append(it))
    assert told[-1][1:] == (6, 6)
