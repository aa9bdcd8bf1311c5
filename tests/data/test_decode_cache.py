"""The image cache and a run's record: each file decoded once, kills break nothing, exactly the same images again."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shakeshake.data.image_folder import cache_info, clear_cache, decode_cache, decode_files
from shakeshake.data.image_folder.dataset import load_image_folder, load_recorded
from shakeshake.data.registry import load_data
from shakeshake.errors import InputError

pytestmark = pytest.mark.usefixtures("cache")


def count_decodes(monkeypatch) -> list[Path]:
    """The files decoded from now on."""
    seen, real = [], decode_files.read_and_decode
    monkeypatch.setattr(decode_files, "read_and_decode", lambda path, size: (seen.append(path), real(path, size))[1])
    return seen


def test_each_file_is_decoded_once_until_it_changes(digits, tmp_path, monkeypatch):
    folder = digits(tmp_path / "p", {"cat": 20, "dog": 20})
    first, seen = load_image_folder(folder), count_decodes(monkeypatch)
    again = load_image_folder(folder)
    assert seen == []
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.train.images, first.train.images)
    digits(folder, {"cat": 1, "dog": 2}, skip=20)
    assert len(load_image_folder(folder).train) + len(load_image_folder(folder).test) == 43
    assert len(seen) == 3, "only the new files"
    changed = folder / "cat" / sorted(os.listdir(folder / "cat"))[0]
    Image.new("RGB", (8, 8), "red").save(changed)
    load_image_folder(folder)
    assert seen[3:] == [changed]


def test_unreadable_files_do_not_rewrite_the_cache(messy, cache, monkeypatch):
    load_image_folder(messy)
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*/index.json")}
    seen = count_decodes(monkeypatch)
    load_image_folder(messy)
    assert {path.name for path in seen} == {"cut.jpg", "gone.png", "notes.txt"}
    assert before == {path: path.stat().st_mtime_ns for path in cache.glob("*/index.json")}


@pytest.mark.parametrize("harm", ["truncate", "flip", "index", "row", "fields", "no index", "gone"])
def test_damaged_cache_is_rebuilt(digits, tmp_path, cache, harm):
    folder = digits(tmp_path / "p", {"cat": 10, "dog": 10})
    first = load_image_folder(folder)
    (pixels,) = cache.glob("*/pixels")
    index = pixels.parent / "index.json"
    stored = json.loads(index.read_text())
    if harm == "truncate":
        os.truncate(pixels, 100)
    elif harm == "flip":
        content = bytearray(pixels.read_bytes())
        content[777] ^= 1
        pixels.write_bytes(content)
    elif harm == "index":
        index.write_text("[1, 2")
    elif harm in ("row", "fields"):
        path = next(iter(stored["files"]))
        stored["files"][path] = [*stored["files"][path][:3], -1, *stored["files"][path][4:]] if harm == "row" else [1]
        index.write_text(json.dumps(stored))
    elif harm == "no index":
        index.unlink()
    else:
        shutil.rmtree(pixels.parent)
    again = load_image_folder(folder)
    assert np.array_equal(again.train.images, first.train.images)
    assert again.fingerprint == first.fingerprint
    assert {path.name for path in pixels.parent.iterdir()} == {"index.json", "pixels"}


def test_rebuilding_does_not_touch_images_that_are_in_use(digits, tmp_path, cache, monkeypatch):
    """Another process may have the array of the damaged cache mapped."""
    monkeypatch.setattr("shakeshake.data.image_folder.dataset.MAX_MEMORY_BYTES", 100)
    folder = digits(tmp_path / "p", {"cat": 10, "dog": 10})
    data = load_image_folder(folder)
    before = np.asarray(data.train.images)
    (index,) = cache.glob("*/index.json")
    index.unlink()
    shutil.rmtree(folder / "cat")
    digits(folder, {"cat": 12}, skip=5)
    load_image_folder(folder)
    assert np.array_equal(np.asarray(data.train.images), before)


def test_concurrent_readers_decode_once(digits, tmp_path, monkeypatch):
    folder, seen = digits(tmp_path / "p", {"cat": 20, "dog": 20}), count_decodes(monkeypatch)
    prints: list[str] = []
    threads = [threading.Thread(target=lambda: prints.append(load_image_folder(folder).fingerprint)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(prints) == 4
    assert len(set(prints)) == 1
    assert len(seen) == 40, "the others waited for the first"


def test_two_processes_at_once_load_the_same_images(digits, tmp_path):
    folder = digits(tmp_path / "p", {"cat": 20, "dog": 20})
    code = "import sys; from shakeshake.data.registry import load_data; print(load_data(sys.argv[1]).fingerprint)"
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    prints = {process.communicate(timeout=120)[0] for process in both}
    assert prints == {load_image_folder(folder).fingerprint + "\n"}


@pytest.mark.parametrize("step", ["pixels", "index"])
def test_kill_while_adding_images_leaves_the_old_cache(digits, tmp_path, cache, monkeypatch, step):
    folder = digits(tmp_path / "p", {"cat": 10, "dog": 10})
    first = load_image_folder(folder)
    digits(folder, {"cat": 5, "dog": 5}, skip=10)

    def kill(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        if step == "index":
            decode_cache.atomic_write = kill
        else:
            real, calls = decode_cache.FolderIndex.add, []

            def add(index, *args):
                real(index, *args)
                index._file.flush()
                calls.append(1)
                if len(calls) == 4:
                    kill()

            decode_cache.FolderIndex.add = add
        load_image_folder(folder)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    seen = count_decodes(monkeypatch)
    assert load_recorded(folder, first.record).fingerprint == first.fingerprint
    assert seen == []
    data = load_image_folder(folder)
    assert len(seen) == 10
    clear_cache()
    assert load_image_folder(folder).fingerprint == data.fingerprint


def test_file_in_place_of_a_cached_folder_is_reported(digits, tmp_path, cache):
    folder = digits(tmp_path / "p", {"cat": 5, "dog": 5})
    load_image_folder(folder)
    (index,) = cache.glob("*/index.json")
    shutil.rmtree(index.parent)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.json").write_text("{}")
    for make in (lambda: index.parent.write_text("a file"), lambda: index.parent.symlink_to(tmp_path / "mine")):
        make()
        with pytest.raises(InputError, match="cannot be cached in"):
            load_image_folder(folder)
        index.parent.unlink()
    assert (tmp_path / "mine" / "index.json").exists()


def test_files_that_change_or_vanish_while_being_read(digits, tmp_path, monkeypatch):
    """A file that changed meanwhile is read again the next time."""
    folder = digits(tmp_path / "p", {"cat": 20, "dog": 20})
    names = sorted((folder / "cat").iterdir())
    real = decode_files.read_and_decode

    def meanwhile(path, size):
        if path == names[3]:
            path.unlink()
        done = real(path, size)
        if path == names[5]:
            Image.new("RGB", (8, 8), "red").save(path)
        return done

    monkeypatch.setattr(decode_files, "read_and_decode", meanwhile)
    data = load_image_folder(folder)
    assert [entry["path"] for entry in data.record["found"]["unreadable"]] == [f"cat/{names[3].name}"]
    monkeypatch.setattr(decode_files, "read_and_decode", real)
    seen = count_decodes(monkeypatch)
    load_image_folder(folder)
    assert seen == [names[5]]


def test_touched_files_are_not_stored_again(digits, tmp_path, cache):
    folder = digits(tmp_path / "p", {"cat": 10, "dog": 10})
    first = load_image_folder(folder)
    (pixels,) = cache.glob("*/pixels")
    size = pixels.stat().st_size
    for path in folder.glob("*/*"):
        os.utime(path, (1, 1))
    assert load_image_folder(folder).fingerprint == first.fingerprint
    assert pixels.stat().st_size == size


def test_cache_info_and_clear_cache(digits, tmp_path, cache):
    assert cache_info() == []
    assert clear_cache() == 0
    folder = digits(tmp_path / "p", {"cat": 10, "dog": 10})
    load_image_folder(folder)
    load_image_folder(folder, image_size=16)
    large, small = cache_info()
    assert (large.folder, large.image_size, large.images) == (str(folder), 16, 20)
    assert (small.folder, small.image_size, small.images) == (str(folder), 8, 20)
    assert large.bytes > 20 * 3 * 16 * 16
    (cache / "damaged-8").mkdir()
    (cache / "damaged-8" / "index.json").write_text("{")
    assert len(cache_info()) == 2
    assert clear_cache() == large.bytes + small.bytes + 1
    assert cache_info() == []
    assert not list(cache.glob("*/"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_full_disk_is_reported_and_leaves_nothing_broken(digits, tmp_path, cache, monkeypatch):
    folder = digits(tmp_path / "p", {"cat": 3, "dog": 3})
    real = decode_cache.open_pixels

    def full(path):
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr(decode_cache, "open_pixels", full)
    monkeypatch.setattr(decode_cache.os, "fsync", lambda _: None)
    for _ in range(2):  # an empty cache, then one with images
        with pytest.raises(InputError, match=r"cannot be cached .*No space left on device.*folder with 1 MB free"):
            load_data(str(folder))
        monkeypatch.setattr(decode_cache, "open_pixels", real)
        data = load_data(str(folder))
        digits(folder, {"cat": 1}, skip=10)
        monkeypatch.setattr(decode_cache, "open_pixels", full)
    assert load_data(str(folder), record=data.record).fingerprint == data.fingerprint


def test_record_loads_exactly_the_same_images(digits, tmp_path, cache):
    folder = digits(tmp_path / "p", {"cat": 10, "dog": 10})
    data = load_image_folder(folder)
    record = json.loads(json.dumps(data.record))
    digits(folder, {"cat": 5, "dog": 5}, skip=10)
    assert load_image_folder(folder).fingerprint != data.fingerprint
    for _ in range(2):  # from the cache, then from the files
        again = load_recorded(folder, record)
        assert again.fingerprint == data.fingerprint
        assert np.array_equal(again.test.images, data.test.images)
        assert again.record == record
        clear_cache()
    load_recorded(folder, record)
    folder.rename(tmp_path / "moved")
    assert load_recorded(folder, record).fingerprint == data.fingerprint, "from the cache, without the folder"
    clear_cache()
    with pytest.raises(InputError, match="is not a folder"):
        load_recorded(folder, record)
    assert load_recorded(tmp_path / "moved", record).fingerprint == data.fingerprint
    clear_cache()
    (tmp_path / "moved" / data.record["train"][0][0]).unlink()
    with pytest.raises(InputError, match=rf"1 of 20 .* changed or are missing .* is {data.record['train'][0][0]}\)"):
        load_recorded(tmp_path / "moved", record)
    (tmp_path / "emptied").mkdir()
    (tmp_path / "emptied" / "notes.txt").write_text("they were here")
    with pytest.raises(InputError, match=r"20 of 20 images in .* have changed or are missing"):
        load_recorded(tmp_path / "emptied", record)
    with pytest.raises(InputError, match="record of its images is damaged"):
        load_recorded(folder, {**record, "train": 7})


def test_record_of_an_older_run_still_loads(digits, tmp_path):
    """Records used to name a pack of the cache as well."""
    data = load_image_folder(digits(tmp_path / "p", {"cat": 10, "dog": 10}))
    old = {**data.record, "pack": "../../" + "0" * 32}
    clear_cache()
    assert load_recorded(tmp_path / "p", old).fingerprint == data.fingerprint


def test_exchanged_images_are_detected(digits, tmp_path):
    folder = digits(tmp_path / "p", {"cat": 10, "dog": 10})
    data = load_image_folder(folder)
    one, other = (folder / path for path, _, _ in data.record["train"][:2])
    one.rename(folder / "x")
    other.rename(one)
    (folder / "x").rename(other)
    assert load_recorded(folder, data.record).fingerprint == data.fingerprint, "the cache has them"
    clear_cache()
    with pytest.raises(InputError, match=r"2 of 20 images in .* have changed"):
        load_recorded(folder, data.record)


@pytest.mark.parametrize("size", [True, 8.0, "8", "/../../8", 7, 1 << 40])
def test_record_with_an_invalid_image_size_is_damaged(digits, tmp_path, size):
    folder = digits(tmp_path / "p", {"cat": 5, "dog": 5})
    first = load_image_folder(folder)
    with pytest.raises(InputError, match="record of its images is damaged"):
        load_recorded(folder, {**first.record, "image_size": size})


def test_relative_path_is_reported_in_full(digits, tmp_path, cache, monkeypatch):
    data = load_image_folder(digits(tmp_path / "p", {"cat": 3, "dog": 3}))
    clear_cache()
    monkeypatch.chdir(tmp_path / "p")
    with pytest.raises(InputError, match=rf"data: {tmp_path}/p/p is not a folder"):
        load_data("p", record=data.record)
