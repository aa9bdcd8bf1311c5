"""What is kept of photos: each decoded once, the cache, and a run's record that finds the very same images again."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shakeshake.data.image_folder import decode_cache as packed
from shakeshake.data.image_folder import decode_files as reading
from shakeshake.data.image_folder.dataset import load_photos, load_recorded
from shakeshake.data.registry import load_data
from shakeshake.errors import InputError

pytestmark = pytest.mark.usefixtures("cache")


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
    (tmp_path / "moved" / data.record["train"][0][0]).unlink()
    with pytest.raises(InputError, match=rf"1 of 20 .* changed or are gone .* first is {data.record['train'][0][0]}\)"):
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
    one, other = (folder / path for path, _, _ in data.record["train"][:2])
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
