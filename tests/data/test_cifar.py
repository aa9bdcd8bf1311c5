"""CIFAR in every layout: read correctly, verified, and without executing a pickle."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from shakeshake.data.cifar import layouts
from shakeshake.data.cifar.pickle_layout import decode
from shakeshake.data.cifar.spec import CIFAR
from shakeshake.data.dataset import channel_statistics
from shakeshake.data.registry import find_data, load_data, verify_data
from shakeshake.errors import InputError

REAL = os.environ.get("SHAKESHAKE_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="SHAKESHAKE_DATA does not name a folder with the official CIFAR files")
LAYOUTS = [("binary", False), ("python", False), ("binary", True), ("python", True)]


@pytest.mark.parametrize(("layout", "archived"), LAYOUTS)
def test_every_layout_gives_the_same_images(either, tmp_path, layout, archived):
    place = either.lay(tmp_path, layout, archived)
    data = load_data(either.cifar.name, data_dir=tmp_path)
    columns = len(either.cifar.labels)
    for split, is_test in ((data.train, False), (data.test, True)):
        content = b"".join(either.content[part.binary] for part in either.cifar.parts if part.is_test is is_test)
        rows = np.frombuffer(content, np.uint8).reshape(-1, either.cifar.record)
        np.testing.assert_array_equal(split.images, rows[:, columns:].reshape(-1, 3, 32, 32))
        np.testing.assert_array_equal(split.labels, rows[:, columns - 1])
        assert split.images.flags.c_contiguous
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
    assert find_data(either.cifar.name, tmp_path) == place
    assert {status for _, status in verify_data(either.cifar.name, tmp_path)} == {"ok"}
    # data_dir may also be the folder or archive itself.
    assert load_data(either.cifar.name, data_dir=place).fingerprint == data.fingerprint


def test_archive_members_in_another_order_and_extra_members(mini, tmp_path, tar_gz):
    path = mini.lay(tmp_path, "binary", archived=True)
    before = load_data("cifar10", data_dir=tmp_path).fingerprint
    turned = {f"./{name}": content for name, content in reversed(mini.files("binary").items())}
    path.write_bytes(tar_gz({"../escape": b"x", **turned}))
    assert load_data("cifar10", data_dir=tmp_path).fingerprint == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [path.name]  # nothing was extracted


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy.core has moved
def test_python_layout_decodes_as_unpickling_does(python2_pickle):
    """For Python 2's pickles, whose lists come in chunks of 1,000, and every protocol since."""
    n = 1001
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (n, 3072), dtype=np.uint8)
    coarse, fine = random.integers(0, 20, n).tolist(), random.integers(0, 100, n).tolist()
    expected = np.column_stack([np.array([coarse, fine], np.uint8).T, pixels])
    stream = python2_pickle({"fine_labels": fine, "coarse_labels": coarse}, pixels.tobytes(), n)
    unpickled = pickle.loads(stream, encoding="latin1")  # noqa: S301 - made here
    assert (unpickled["data"] == pixels).all()
    assert unpickled["fine_labels"] == fine
    np.testing.assert_array_equal(decode(stream, n, ("coarse_labels", "fine_labels")), expected)
    names = [f"image_{i}.png" for i in range(n)]
    items = {"fine_labels": fine, "filenames": names, "coarse_labels": coarse, "data": pixels, "batch_label": "1"}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for written in (items, {key.encode(): value for key, value in items.items()}):
            stream = pickle.dumps(written, protocol)
            np.testing.assert_array_equal(decode(stream, n, ("coarse_labels", "fine_labels")), expected)


class Hostile:
    def __reduce__(self):
        return os.system, (f"touch {os.environ['SHAKESHAKE_HOSTILE']}",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_malicious_pickle_is_not_executed(mini, tmp_path, monkeypatch, protocol):
    mark = tmp_path / "was_here"
    monkeypatch.setenv("SHAKESHAKE_HOSTILE", str(mark))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    folder = mini.lay(tmp_path, "python")
    stream = pickle.dumps([Hostile()], protocol)
    pickle.loads(stream)  # noqa: S301 - it works when it is unpickled
    assert mark.exists()
    mark.unlink()
    (folder / "data_batch_1").write_bytes(stream)
    with pytest.raises(InputError, match=r"data_batch_1 of .* bytes is not a complete batch"):
        load_data("cifar10", data_dir=tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(("layout", "archived"), LAYOUTS)
def test_truncated_file_is_reported_and_not_modified(either, tmp_path, layout, archived):
    path = either.lay(tmp_path, layout, archived)
    file = path if archived else path / getattr(either.cifar.parts[-1], layout)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError) as error:
        load_data(either.cifar.name, data_dir=tmp_path)
    assert file.name in str(error.value)
    assert f"{len(content) // 2:,} bytes" in str(error.value)
    assert "expected" in str(error.value)
    assert len(file.read_bytes()) == len(content) // 2
    assert [status for _, status in verify_data(either.cifar.name, tmp_path)].count("ok") < len(either.cifar.parts)


@pytest.mark.parametrize("layout", ["binary", "python"])
@pytest.mark.parametrize("what", ["pixel", "label"])
def test_single_changed_byte_is_detected(mini, tmp_path, layout, what):
    file = mini.lay(tmp_path, layout) / getattr(mini.cifar.parts[2], layout)
    content = bytearray(file.read_bytes())
    rows = np.frombuffer(mini.content[mini.cifar.parts[2].binary], np.uint8).reshape(-1, 3073)
    places = {
        ("binary", "pixel"): 1,
        ("binary", "label"): 0,
        ("python", "pixel"): content.find(rows[:, 1:].tobytes()),
        ("python", "label"): content.find(b"(K" + bytes([rows[0, 0]]) + b"K") + 2,
    }
    at = places[layout, what]
    content[at] ^= 1
    file.write_bytes(content)
    expected = rf"{file.name} are not the official ones \(MD5 .*expected {mini.cifar.parts[2].md5}"
    with pytest.raises(InputError, match=expected):
        load_data("cifar10", data_dir=tmp_path)
    assert file.read_bytes() == content


def test_verified_files_are_hashed_again_only_if_they_change(mini, tmp_path, monkeypatch):
    file = mini.lay(tmp_path, "binary") / "data_batch_2.bin"
    load_data("cifar10", data_dir=tmp_path)
    hashed = []
    check = layouts.check
    monkeypatch.setattr(layouts, "check", lambda *arguments: (hashed.append(arguments[-1].name), check(*arguments)))
    load_data("cifar10", data_dir=tmp_path)
    assert hashed == []
    os.utime(file)
    load_data("cifar10", data_dir=tmp_path)
    assert hashed == ["data_batch_2.bin"]
    # Size and time are unchanged, but verify_data() reads every byte.
    stat = file.stat()
    file.write_bytes(bytes(stat.st_size))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    load_data("cifar10", data_dir=tmp_path)
    assert [status == "ok" for _, status in verify_data("cifar10", tmp_path)] == [True, False, True, True, True, True]


def test_unwritable_cache_is_ignored(mini, tmp_path):
    (tmp_path / "xdg").write_text("a file where the cache folder should be")
    mini.lay(tmp_path, "binary")
    for _ in range(2):
        assert len(load_data("cifar10", data_dir=tmp_path).train) == 50


def test_cifar_folders_are_searched_in_the_documented_order(mini, tmp_path, monkeypatch):
    named, cache, own = tmp_path / "named", tmp_path / "xdg" / "shakeshake", tmp_path / "own"
    for folder in (named, cache, own):
        folder.mkdir(parents=True)
    mini.lay(cache, "binary")
    assert find_data("cifar10") == cache / "cifar-10-batches-bin"
    monkeypatch.setenv("SHAKESHAKE_DATA", str(named))
    assert find_data("cifar10") == cache / "cifar-10-batches-bin"
    mini.lay(named, "python")
    assert find_data("cifar10") == named / "cifar-10-batches-py"
    assert find_data("cifar10", own) is None  # data_dir excludes all others


def test_incomplete_folder_is_not_replaced(mini, tmp_path):
    folder = mini.lay(tmp_path, "binary")
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"cifar-10-batches-bin lacks the file data_batch_3.bin, expected all 6"):
        load_data("cifar10", data_dir=tmp_path)
    statuses = [status for _, status in verify_data("cifar10", tmp_path)]
    assert [status == "ok" for status in statuses] == [True, True, False, True, True, True]
    assert "data_batch_3.bin is not readable (No such file" in statuses[2]
    # A complete copy next to it is used instead.
    mini.lay(tmp_path, "python", archived=True)
    assert len(load_data("cifar10", data_dir=tmp_path).train) == 50


@needs_real
@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_official_cifar_files_load(name):
    if find_data(name, REAL) is None:
        pytest.skip(f"SHAKESHAKE_DATA has no {name}")
    data = load_data(name, data_dir=REAL)
    assert data.train.images.shape == (50_000, 3, 32, 32)
    assert data.test.images.shape == (10_000, 3, 32, 32)
    k = data.num_classes
    assert (np.bincount(data.train.labels, minlength=k) == 50_000 // k).all()
    assert (np.bincount(data.test.labels, minlength=k) == 10_000 // k).all()
    first = {"cifar10": "frog truck truck deer automobile", "cifar100": "cattle dinosaur apple boy aquarium_fish"}
    assert " ".join(data.classes[label] for label in data.train.labels[:5]) == first[name]
    mean, std = channel_statistics(data.train.images)
    np.testing.assert_allclose(mean, data.mean, atol=0.051)  # published with one decimal
    np.testing.assert_allclose(std, data.std, atol=0.051)


@needs_real
def test_official_batch_round_trips_through_the_python_layout(python2_pickle):
    cifar = CIFAR["cifar10"]
    part = cifar.parts[-1]
    file = Path(REAL, cifar.binary, part.binary)
    if not file.exists():
        pytest.skip(f"SHAKESHAKE_DATA has no {cifar.binary}")
    content = file.read_bytes()
    rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    decoded = decode(
        python2_pickle({"labels": rows[:, 0].tolist()}, rows[:, 1:].tobytes(), 10_000), 10_000, ("labels",)
    )
    assert hashlib.md5(decoded.tobytes(), usedforsecurity=False).hexdigest() == part.md5
