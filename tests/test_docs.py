"""README and docs tell the truth: every command and Python block in them runs, in order, in a folder of the page's own.

A comment before a block says, where a reader of the source sees it, how the test differs from what is written:

    <!-- not run: REASON -->            the block is not run
    <!-- tested                         the block is run, and
    train + --epochs 1                    these options stand behind every `shakeshake train` in it
    train cifar10 -> train digits         this text is replaced
    not run: torchrun: REASON             lines that begin so are not run
    fails                                 it is the user's mistake, exit code 2
    -->

A line of it that applies to nothing is an error. The folder holds photos/ and other/, photo.jpg, mine.npz, and runs of
an epoch: runs/small and runs/other on digits, runs/mine on photos/.
"""

import io
import re
import shlex
import shutil
import signal
import subprocess
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shakeshake.cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- (?P<note>(?:not run|tested)(?:(?!-->).)*)-->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL
)
PROGRAMS = ("shakeshake", "make", "pip", "python", "torchrun", "git", "eval", "find", "cat")
LONGEST = 60  # seconds that a command may take before it is said that it needs a scale-down
SHORT = ["--epochs", "1", "--model", "shake_resnet8_2x4d", "--batch-size", "10"]


@dataclass
class Note:
    """What a comment says about the block behind it."""

    skipped: bool
    fails: bool
    added: dict[str, list[str]]
    replaced: dict[str, str]
    not_run: list[str]
    used: set[str]

    @classmethod
    def read(cls, text: str) -> "Note":
        note = cls(text.startswith("not run: "), False, {}, {}, [], set())
        for line in text.splitlines()[1:] if text.startswith("tested") else ():
            if line == "fails":
                note.fails = True
            elif line.startswith("not run: "):
                note.not_run.append(line.removeprefix("not run: ").split(": ")[0])
            elif " -> " in line:
                old, new = line.split(" -> ")
                note.replaced[old] = new
            else:
                command, options = line.split(" + ")
                note.added[command] = shlex.split(options)
        return note

    def commands(self, text: str) -> list[str]:
        """The lines to run, comments cut off."""
        found = []
        lines = text.replace("\\\n", " ").splitlines()
        for command in (part.strip() for line in lines for part in re.sub(r"\s+#.*", "", line).split("&&")):
            if command.split(" ")[0] not in PROGRAMS:
                continue
            if passed := [start for start in self.not_run if command.startswith(start)]:
                self.used |= set(passed)
                continue
            command = self.changed(command)
            name = command.split()[1] if command.startswith("shakeshake ") else ""
            if name in self.added:
                self.used.add(name)
                command = shlex.join([*shlex.split(command), *self.added[name]])
            found.append(command)
        return found

    def changed(self, text: str) -> str:
        for old, new in self.replaced.items():
            if old in text:
                self.used.add(old)
                text = text.replace(old, new)
        return text

    def stale(self) -> set[str]:
        return {*self.added, *self.replaced, *self.not_run} - self.used


def shakeshake(line: str, code: int = 0) -> str:
    """The command, in this process: what it prints. (tests/test_cli.py has commands as processes.)"""
    out, err, shown, handler = io.StringIO(), io.StringIO(), warnings.showwarning, signal.getsignal(signal.SIGTERM)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"`{line}` takes too long: scale it down"))
    signal.alarm(LONGEST)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            ended = main(shlex.split(line)[1:])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        warnings.showwarning = shown
        signal.signal(signal.SIGTERM, handler)
    assert ended == code, f"`{line}` ended with {ended}: {out.getvalue()}{err.getvalue()}"
    return out.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """What a page's commands find in their folder."""
    folder = tmp_path_factory.mktemp("prepared")
    drawn = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = drawn.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    images, labels = drawn.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 2
    np.savez(folder / "mine.npz", x_train=images, y_train=labels, x_test=images[:10] ^ 1, y_test=labels[:10])
    Image.fromarray(pixels).save(folder / "photo.jpg")
    shutil.copytree(folder / "photos", folder / "other")
    for run, data, rule in (("small", "digits", "S-E-I"), ("other", "digits", "E-E-B"), ("mine", "photos", "S-S-I")):
        data = data if data == "digits" else f"{folder}/{data}"
        size = ["--train-size", "60"] if data == "digits" else []
        shakeshake(
            shlex.join(["shakeshake", "train", data, *SHORT, *size, "--rule", rule, "--out", f"{folder}/runs/{run}"])
        )
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_runs(page, prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SHAKESHAKE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SHAKESHAKE_KERNELS", "0")
    blocks = list(BLOCK.finditer(page.read_text()))
    assert page.read_text().count("<!-- not run") + page.read_text().count("<!-- tested") == sum(
        block["note"] is not None for block in blocks
    ), "a comment stands before no block"
    folder = tmp_path / "page"
    if blocks:
        shutil.copytree(prepared, folder)
        monkeypatch.chdir(folder)
    for block in blocks:
        note = Note.read(block["note"] or "")
        if note.skipped:
            continue
        if block["language"] == "python":
            exec(
                compile(note.changed(block["text"]), f"{page.name}, a block of Python", "exec"),
                {"__name__": "__main__"},
            )
        elif block["language"] in ("", "sh", "bash", "console"):
            for command in note.commands(block["text"]):
                program, *arguments = shlex.split(command)
                if program == "make":
                    subprocess.run(["make", "-n", *arguments], cwd=ROOT, check=True, capture_output=True, timeout=20)
                else:
                    assert program == "shakeshake", f"{page.name}: say why `{command}` is not run"
                    shakeshake(command, 2 if note.fails else 0)
        assert not note.stale(), f"{page.name}: applies to nothing: {note.stale()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist(page):
    for command in re.findall(r"`shakeshake ([a-z]+)\b", page.read_text()):
        assert command in COMMANDS, f"{page.name}: `shakeshake {command}`"


def test_the_reference_has_every_public_name():
    import shakeshake as ss

    described = re.findall(r"^::: shakeshake\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert {*described, "__version__"} == set(ss.__all__)
