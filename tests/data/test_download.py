"""CIFAR's download: checked, made once, all or nothing, and helpful without a connection."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shakeshake.data.cifar import download
from shakeshake.data.registry import fetch_data, find_data, load_data
from shakeshake.errors import InputError

ARCHIVE = "/cifar-10-binary.tar.gz"


@pytest.fixture
def served(mini, site):
    site.files[ARCHIVE] = mini.archive("binary")
    return site


def is_complete(mini, folder: Path) -> bool:
    """Whether the folder has every official file and, besides them, only an empty lock file."""
    place = folder / mini.cifar.binary
    content = {file.name: file.read_bytes() for file in place.iterdir()} if place.exists() else {}
    others = [p for p in folder.iterdir() if p != place and not (p.suffix == ".lock" and not p.stat().st_size)]
    return content == mini.content and not others


def obtain_in_process(mini, folder: Path) -> subprocess.Popen:
    code = (
        "from pathlib import Path; from shakeshake.data.cifar.layouts import Cifar, Part; "
        "from shakeshake.data.cifar import download; download._CHUNK = 1000; "
        f"print(download.obtain({mini.cifar!r}, Path({str(folder)!r})).path)"
    )
    path = os.pathsep.join([str(Path(download.__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_download_happens_once_and_reports_progress(mini, served, tmp_path):
    calls = []
    folder = tmp_path / "new" / "place"
    data = load_data("cifar10", data_dir=folder, progress=lambda *call: calls.append(call))
    assert len(data.train) == 50
    assert is_complete(mini, folder)
    size = len(served.files[ARCHIVE])
    assert calls[-1] == ("cifar-10-binary.tar.gz", size, size)
    assert load_data("cifar10", data_dir=folder).fingerprint == data.fingerprint
    assert served.requests == [ARCHIVE]


def test_default_target_is_the_cache(mini, served, tmp_path):
    assert find_data("cifar10") is None
    assert fetch_data("cifar10") == find_data("cifar10") == tmp_path / "xdg" / "shakeshake" / "cifar-10-batches-bin"


@pytest.mark.parametrize("fault", ["cut", "corrupt"])
def test_failed_download_is_retried_once_and_then_leaves_nothing(mini, served, tmp_path, tar_gz, fault):
    wrong = mini.files("binary")
    wrong["cifar-10-batches-bin/data_batch_4.bin"] = bytes(len(wrong["cifar-10-batches-bin/data_batch_4.bin"]))

    def fail(times: int) -> None:
        served.cuts, served.bad = ([60_000] * times, []) if fault == "cut" else ([], [tar_gz(wrong)] * times)

    fail(1)
    fetch_data("cifar10", tmp_path / "a")
    assert served.requests == [ARCHIVE] * 2
    assert is_complete(mini, tmp_path / "a")
    fail(2)
    with pytest.raises(InputError, match="60000 bytes read" if fault == "cut" else "not have the official MD5"):
        fetch_data("cifar10", tmp_path / "b")
    assert [p.name for p in (tmp_path / "b").iterdir()] == [".cifar-10-batches-bin.lock"]
    assert find_data("cifar10", tmp_path / "b") is None


def test_killed_download_leaves_nothing_that_is_taken_for_the_data(mini, served, tmp_path):
    served.cuts, served.stall = [60_000], 60.0
    folder = tmp_path / "d"
    process = obtain_in_process(mini, folder)
    end = time.monotonic() + 30
    while not any(file.stat().st_size for file in folder.glob(".*.new/*")) and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert any(file.stat().st_size for file in folder.glob(".*.new/*")), "killed in the middle"
    assert find_data("cifar10", folder) is None
    served.stall = 0.0
    fetch_data("cifar10", folder)
    assert is_complete(mini, folder)


def test_two_processes_download_once(mini, served, tmp_path):
    served.delay = 1.0
    both = [obtain_in_process(mini, tmp_path) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in both]
    assert [(out.decode().strip(), err) for out, err in results] == [(str(tmp_path / mini.cifar.binary), b"")] * 2
    assert served.requests == [ARCHIVE]


def test_offline_error_is_one_line_with_the_fix(either, tmp_path):
    with pytest.raises(InputError) as error:
        load_data(either.cifar.name, data_dir=tmp_path)
    message = str(error.value)
    archives = {"cifar10": "cifar-10", "cifar100": "cifar-100"}[either.cifar.name]
    for words in (
        str(tmp_path),
        f"{archives}-binary.tar.gz or {archives}-python.tar.gz",
        "--data-dir",
        "SHAKESHAKE_DATA",
        "127.0.0.1:9: ",
        "Connection refused",
    ):
        assert words in message
    assert "\n" not in message


def test_missing_file_on_the_server_is_reported(mini, site, tmp_path):
    with pytest.raises(InputError, match=r"127\.0\.0\.1:\d+ answered 404 Not Found"):
        fetch_data("cifar10", tmp_path)


def test_damaged_file_of_the_user_is_not_overwritten(mini, served, tmp_path):
    file = mini.lay(tmp_path, "binary") / "test_batch.bin"
    file.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"test_batch.bin has 4 bytes, expected [\d,]+$"):
        fetch_data("cifar10", tmp_path)
    assert file.read_bytes() == b"mine"
    assert served.requests == []


def test_only_https_is_accepted_except_on_this_machine(mini, site, tmp_path, monkeypatch):
    site.redirect = "http://example.org/cifar-10-binary.tar.gz"
    with pytest.raises(InputError, match=r"redirect to http://example.org/.*, which is not https"):
        fetch_data("cifar10", tmp_path)
    for url in ("http://example.org/", "ftp://localhost/", "file:///etc/"):
        monkeypatch.setenv("SHAKESHAKE_CIFAR_URL", url)
        with pytest.raises(InputError, match=f"SHAKESHAKE_CIFAR_URL: got '{url}', expected an https URL"):
            fetch_data("cifar10", tmp_path)


def test_unwritable_folder_is_reported(mini, served, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.* is not writable .*--data-dir"):
        fetch_data("cifar10", tmp_path / "file" / "below")


def test_endless_answer_is_cut_off(mini, served, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    monkeypatch.setattr(download, "_CHUNK", 1000)
    with pytest.raises(InputError, match="sends more than 1,000 bytes"):
        fetch_data("cifar10", tmp_path)
