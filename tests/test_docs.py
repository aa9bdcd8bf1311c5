"""README, CHANGELOG, CONTRIBUTING and docs/: every command and Python block runs, in order, in a folder per page.

Commands are scaled down as `SMALL` says, so the pages need no markup for it. A comment right before a block changes how
it is tested:

    <!-- not run: REASON -->        the block is not run
    <!-- fails -->                  each command of the block is a usage error: it exits with status 2

A Python block that begins with `# NAME.py` is a file: it is written, not run.

The folder contains photos/, other/, photo.jpg, mine.npz and finished runs: runs/small and runs/other on digits,
runs/mine on photos/.
"""

import contextlib
import io
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image

from shakeshake.cli.main import COMMANDS, main
from shakeshake.data import registry as sources
from shakeshake.export import export_run  # noqa: F401 - registers the built-in formats
from shakeshake.export import registry as formats
from shakeshake.layers import rules
from shakeshake.models import registry as models
from shakeshake.train.recipe import Recipe

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "results" / "README.md"]
COMMENT = re.compile(r"<!-- (?:not run|fails)")
BLOCK = re.compile(r"(?:<!-- (not run: [^>]+|fails) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
REGISTRIES = ((models, "_registered"), (rules, "_registered"), (sources, "_sources"), (formats, "FORMATS"))
PROGRAMS = ("shakeshake", "make", "pip", "python", "torchrun", "git")
TIME_LIMIT = 150  # seconds per command; most take one
NETWORK = ["--model", "shake_resnet8_2x4d", "--batch-size", "10"]
DIGITS = ["--train-size", "60"]
ONE_RUN = ["--epochs", "1", *NETWORK, "--ghost-batch-size", "10", "--crop-padding", "1"]
SMALL = {
    "train": ONE_RUN,
    "bench": ["--rounds", "1", *NETWORK, "--batch-size", "4", "--test-batch-size", "4"],
    "compare": ["--budget", "none", "--rules", "S-E-I", "--seeds", "1", "--jobs", "1", "--epochs", "1", *NETWORK],
    "reproduce": ["--scale", "smoke", "--data", "digits"],
}


def scaled_down(command: list[str]) -> list[str]:
    """The command with options that make it small. Tables are planned; with ``--rows`` they are trained, too."""
    name = command[0]
    if any(".py:" in option for option in command):  # a network of the page's own
        return [*command, "--epochs", "1"] if name == "train" else command
    if "--config" in command:
        return command
    if name == "train" and command[1] in ("cifar10", "digits"):
        command = [name, "digits", *command[2:], *DIGITS]
    if name == "reproduce" and "--rows" in command:
        return [*command, *SMALL[name], *DIGITS, *NETWORK, "--epochs", "1", "--precision", "fp32", "--seeds", "1"]
    if name == "reproduce" and "--dry-run" not in command:
        command = [*command, "--dry-run"]
    return [*command, *SMALL.get(name, [])]


def run(command: list[str], status: int = 0) -> None:
    """Run a `shakeshake` command in this process, which saves most of the time of a small one."""
    line, output = shlex.join(command), io.StringIO()
    show, on_term = warnings.showwarning, signal.getsignal(signal.SIGTERM)
    on_alarm = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"`{line}` is too slow: scale it down"))
    signal.alarm(TIME_LIMIT)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            ended = main(command)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, on_alarm)
        signal.signal(signal.SIGTERM, on_term)
        warnings.showwarning = show
    assert ended == status, f"`{line}` exited with {ended}: {output.getvalue()}"


def commands(block: str) -> list[list[str]]:
    """The commands of a block, split into words, without comments."""
    lines = re.sub(r"\s+#.*", "", block.replace("\\\n", " "), flags=re.MULTILINE).splitlines()
    words = [shlex.split(part) for line in lines if not line.startswith("#") for part in line.split("&&")]
    return [command for command in words if command and command[0] in PROGRAMS]


def run_block(page: Path, note: str, language: str, text: str) -> None:
    if note.startswith("not run"):
        return
    if file := re.match(r"# (\w+\.py)\n", text):
        Path(file[1]).write_text(text)
    elif language == "python":
        exec(compile(text, f"a block of {page.name}", "exec"), {"__name__": "__main__"})
    for program, *options in commands(text) if language in ("", "sh", "bash") else ():
        if program == "make":
            subprocess.run(["make", "-n", *options], cwd=ROOT, check=True, capture_output=True, timeout=20)
        else:
            assert program == "shakeshake", f"`{program}` is not run: add <!-- not run: REASON -->"
            run(scaled_down(options), 2 if note == "fails" else 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The images and finished runs that the pages refer to."""
    folder = tmp_path_factory.mktemp("docs")
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(10):
            photo = Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8))
            photo.save(folder / "photos" / name / f"{number}.png")
    photo.save(folder / "photo.jpg")
    shutil.copytree(folder / "photos", folder / "other")
    images, labels = random.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 2
    np.savez(folder / "mine.npz", x_train=images, y_train=labels, x_test=images[:10] ^ 1, y_test=labels[:10])
    for name, data, rule in (("small", "digits", "S-E-I"), ("other", "digits", "E-E-B"), ("mine", "photos", "S-S-I")):
        data = data if data == "digits" else f"{folder}/{data}"
        run(scaled_down(["train", data, "--rule", rule, "--out", f"{folder}/runs/{name}"]))
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_runs(page, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SHAKESHAKE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SHAKESHAKE_KERNELS", "0")
    monkeypatch.setitem(sys.modules, "wandb", MagicMock())  # a service, so not installed
    for module, registered in REGISTRIES:
        monkeypatch.setattr(module, registered, dict(getattr(module, registered)))
    text = page.read_text()
    blocks = BLOCK.findall(text)
    assert len(COMMENT.findall(text)) == sum(bool(note) for note, _, _ in blocks), "a comment is not before a block"
    if blocks:
        shutil.copytree(folder, tmp_path / "page")
        monkeypatch.chdir(tmp_path / "page")
        monkeypatch.syspath_prepend(tmp_path / "page")
    for note, language, block in blocks:
        run_block(page, note, language, block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_options_and_files_in_the_text_exist(page):
    text = page.read_text()
    for command in re.findall(r"`shakeshake ([a-z]+)\b", text):
        assert command in COMMANDS, f"`shakeshake {command}`"
    for path in re.findall(r"`((?:results|tests|docs|examples|benchmarks)/[\w./*-]+)`", text):
        assert list(ROOT.glob(path.rstrip("/"))), f"{path} does not exist"
    for name in re.findall(r"python -m benchmarks ([a-z]\w*)", text):
        assert (ROOT / "benchmarks" / f"{name}.py").exists(), f"python -m benchmarks {name}"
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[\w-]+)?\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        assert (page.parent / target).exists(), f"link to {target}"


def test_recipes_page_lists_every_field_in_its_group():
    rows = re.findall(r"^\| (\w+) \| (`data`.*|`model`.*|`epochs`.*|`flip`.*|`seed`.*) \|$", page("recipes.md"), re.M)
    listed = {group: re.findall(r"`(\w+)`", names) for group, names in rows}
    declared: dict[str, list[str]] = {}
    for field in fields(Recipe):
        declared.setdefault(field.metadata["group"], []).append(field.name)
    assert listed == declared


def test_reference_has_every_public_name():
    import shakeshake as ss

    described = re.findall(r"^::: shakeshake\.(\w+)$", page("api.md"), re.MULTILINE)
    assert {*described, "__version__"} == set(ss.__all__)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()
