"""Fixtures: a small CIFAR in every layout, a local file server, image folders, an empty cache."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import shutil
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from shakeshake.data.cifar.layouts import Cifar, Part
from shakeshake.data.cifar.spec import CIFAR

N = 10


def short(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def python2_pickle(labels: dict[str, list[int]], pixels: bytes, rows: int) -> bytes:
    """The stream that Python 2's cPickle wrote for the official files: protocol 2, lists in chunks of 1,000."""
    memo = 0

    def put() -> bytes:
        nonlocal memo
        memo += 1
        return b"q" + bytes([memo]) if memo < 256 else b"r" + struct.pack("<I", memo)

    def integer(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    def listed(items: list[bytes]) -> bytes:
        chunks = [b"(" + b"".join(items[i : i + 1000]) + b"e" for i in range(0, len(items), 1000)]
        return b"]" + put() + b"".join(chunks)

    out = [b"\x80\x02}", put(), b"(", short(b"batch_label"), put(), short(b"training batch 1 of 5"), put()]
    for name, values in labels.items():
        out += [short(name.encode()), put(), listed([integer(value) for value in values])]
    out += [short(b"data"), put(), b"cnumpy.core.multiarray\n_reconstruct\n", put(), b"cnumpy\nndarray\n", put()]
    out += [b"K\x00\x85", put(), short(b"b"), put(), b"\x87", put(), b"R", put()]
    out += [b"(K\x01", integer(rows), integer(3072), b"\x86", put(), b"cnumpy\ndtype\n", put(), short(b"u1"), put()]
    out += [b"K\x00K\x01\x87", put(), b"R", put(), b"(K\x03", short(b"|"), put()]
    out += [
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t",
        put(),
        b"b\x89T",
        struct.pack("<i", len(pixels)),
        pixels,
        put(),
    ]
    out += [b"t", put(), b"b", short(b"filenames"), put()]
    out += [listed([short(b"image_%06d.png" % i) + put() for i in range(rows)]), b"u."]
    return b"".join(out)


@pytest.fixture(name="python2_pickle")
def python2_pickle_fixture() -> Callable[..., bytes]:
    return python2_pickle


@pytest.fixture(name="tar_gz")
def tar_gz_fixture() -> Callable[..., bytes]:
    return tar_gz


@dataclasses.dataclass
class Mini:
    """A small data set with official names: ``cifar`` has its MD5s, ``content`` the bytes of its binary files."""

    cifar: Cifar
    content: dict[str, bytes]

    def files(self, layout: str) -> dict[str, bytes]:
        """Relative path -> bytes, in the "binary" or "python" layout."""
        folder = self.cifar.folder(layout)
        return {f"{folder}/{getattr(part, layout)}": self.bytes_of(part, layout) for part in self.cifar.parts}

    def bytes_of(self, part: Part, layout: str) -> bytes:
        if layout == "binary":
            return self.content[part.binary]
        rows = np.frombuffer(self.content[part.binary], np.uint8).reshape(part.images, -1)
        columns = len(self.cifar.labels)
        labels = {name: rows[:, k].tolist() for k, name in enumerate(self.cifar.labels)}
        return python2_pickle(labels, rows[:, columns:].tobytes(), part.images)

    def archive(self, layout: str) -> bytes:
        return tar_gz(self.files(layout))

    def lay(self, folder: Path, layout: str, archived: bool = False) -> Path:
        """Write the layout into ``folder``; return the archive, or the folder with the official name."""
        if archived:
            path = folder / self.cifar.archives[layout]
            path.write_bytes(self.archive(layout))
            return path
        for name, content in self.files(layout).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / self.cifar.folder(layout)


def tar_gz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data, no cache, no proxy, and a site on this machine that refuses connections."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SHAKESHAKE_DATA", raising=False)
    monkeypatch.setenv("SHAKESHAKE_CIFAR_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(params=["cifar10", "cifar100"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, isolated: None) -> Mini:
    return make_mini(request.param, monkeypatch)


@pytest.fixture
def mini(monkeypatch: pytest.MonkeyPatch, isolated: None) -> Mini:
    return make_mini("cifar10", monkeypatch)


def make_mini(name: str, monkeypatch: pytest.MonkeyPatch) -> Mini:
    official = CIFAR[name]
    random = np.random.default_rng(0)
    content, parts = {}, []
    for part in official.parts:
        rows = random.integers(0, 256, (N, official.record), dtype=np.uint8)
        rows[:, : len(official.labels)] = random.integers(0, len(official.classes), (N, len(official.labels)))
        content[part.binary] = rows.tobytes()
        md5 = hashlib.md5(content[part.binary], usedforsecurity=False).hexdigest()
        parts.append(dataclasses.replace(part, images=N, md5=md5))
    mini = Mini(dataclasses.replace(official, parts=tuple(parts)), content)
    md5 = hashlib.md5(mini.archive("binary"), usedforsecurity=False).hexdigest()
    mini.cifar = dataclasses.replace(mini.cifar, archive_md5=md5)
    monkeypatch.setitem(CIFAR, name, mini.cifar)
    return mini


class Site:
    """A file server whose faults the test sets; ``requests`` are the paths asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.cuts: list[int] = []  # the next answers break off after this many bytes
        self.bad: list[bytes] = []  # the next answers are these instead
        self.redirect: str | None = None
        self.delay = 0.0  # seconds before each answer
        self.stall = 0.0  # seconds after each answer, with the connection open
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(request.path)
        time.sleep(self.delay)
        content = self.bad.pop(0) if self.bad else self.files.get(request.path)
        if self.redirect or content is None:
            request.send_response(302 if self.redirect else 404)
            if self.redirect:
                request.send_header("Location", self.redirect)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: self.cuts.pop(0)] if self.cuts else content)
        time.sleep(self.stall)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, isolated: None) -> Iterator[Site]:
    site = Site()
    monkeypatch.setenv("SHAKESHAKE_CIFAR_URL", site.url)
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@pytest.fixture
def digits() -> Callable[..., Path]:
    """Return a function that writes bundled digits as an image folder."""

    def make(folder: Path, counts: dict[str, int], skip: int = 0, side: int = 8, kind: str = "png") -> Path:
        """Write folder/CLASS/NUMBER.png; {"cat": 5, "dog": 3} gives five different zeros and three different ones."""
        bunch = load_digits()
        for digit, (name, count) in enumerate(counts.items()):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for number in np.flatnonzero(bunch.target == digit)[skip : skip + count]:
                image = Image.fromarray((bunch.images[number] * 15).astype(np.uint8)).resize((side, side), 0)
                image.save(folder / name / f"{number:04d}.{kind}")
        return folder

    return make


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty image cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shakeshake" / "images"


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
