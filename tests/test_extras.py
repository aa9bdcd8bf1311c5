"""The base installation suffices for arrays; everything else names the extra that it needs."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import shakeshake as ss
from helpers import python
from shakeshake.utils.extras import EXTRAS, missing_extra, require

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALL = r"\w+ is not installed; install it with: pip install 'shakeshake\[{}\]'"

# Python does not find the packages of extras. It finds jinja2 where WITH_JINJA2 is set, because torch installs it.
BASE_ONLY = f"""
import os
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec

missing = {sorted(EXTRAS)!r}
if "WITH_JINJA2" in os.environ:
    missing = [name for name in missing if name not in ("jinja2", "markupsafe")]

def find_base_only(cls, name, path=None, target=None):
    return None if name.split(".")[0] in missing else find_spec(name, path, target)

PathFinder.find_spec = classmethod(find_base_only)
"""
MAIN = "from shakeshake.cli.main import main\nraise SystemExit(main())\n"


def base_only(code: str, *arguments: object, status: int = 0, cwd: Path, **environment: str) -> str:
    """Run Python code where only the base dependencies can be imported; returns its output."""
    environment |= {"SHAKESHAKE_KERNELS": "0", "SHAKESHAKE_DATA": str(cwd / "none")}
    out, err = python("-c", BASE_ONLY + code, *arguments, code=status, cwd=cwd, env=environment)
    return out + err


TRAIN = """
import numpy as np, torch, shakeshake as ss
layer = ss.ShakeShake("S-S-I")
x = torch.randn(2, 3, 4, 4)
assert layer(x, 2 * x).shape == x.shape
network = ss.create_model("shake_resnet8_2x4d", num_classes=3)
assert network(torch.randn(2, 3, 32, 32)).shape == (2, 3)
ss.fuse(network.eval())
rng = np.random.default_rng(0)
images, labels = rng.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8), np.arange(60) % 3
data = ss.from_arrays(images, labels, images, labels)
recipe = ss.Recipe(model="shake_resnet8_2x4d", epochs=1, batch_size=20, device="cpu", precision="fp32")
ss.fit(recipe, "run", data=data)
assert ss.load("run")(torch.from_numpy(images)).shape == (60, 3)
"""


def test_layer_networks_and_training_on_arrays_need_the_base_only(tmp_path):
    base_only(TRAIN, cwd=tmp_path)
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on an .npz, and photo.png next to it."""
    folder = tmp_path_factory.mktemp("base")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), np.arange(60) % 3
    np.savez(folder / "mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    (folder / "photo.png").write_bytes(b"")
    (folder / "photos" / "cat").mkdir(parents=True)
    (folder / "photos" / "cat" / "1.png").write_bytes(b"")
    options = ["--epochs", "1", "--model", "shake_resnet8_2x4d", "--batch-size", "20", "--out", "run"]
    output = base_only(MAIN, "train", "mine.npz", *options, cwd=folder)
    assert "test error" in output
    assert re.search(INSTALL.format("report"), output), "training succeeds without its report"
    return folder


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("train digits", "train"),
        ("train photos", "train"),
        ("data check photos", "train"),
        ("data get cifar10", "train"),
        ("predict run photo.png", "train"),
        ("train mine.npz --randaugment 9 --epochs 1 --model shake_resnet8_2x4d", "augment"),
        ("train mine.npz --model hf/user/name --epochs 1", "hf"),
        ("train mine.npz --model timm/resnet18 --epochs 1", "timm"),
        ("report run", "report"),
        ("analyze run", "train"),
        ("reproduce table1 --scale smoke", "report"),
        ("export run --format onnx", "onnx"),
        ("compare mine.npz --epochs 1 --model shake_resnet8_2x4d --seeds 1", "report"),
        ("demo", "report"),
    ],
    ids=lambda value: value.split(" --")[0],
)
def test_a_command_names_the_extra_that_it_needs(run, command, extra):
    output = base_only(MAIN, *command.split(), status=2, cwd=run)
    assert re.search(INSTALL.format(extra), output), output
    assert len(output.splitlines()[-1:]) == 1


@pytest.mark.parametrize(
    "command", ["compare mine.npz --epochs 1 --model shake_resnet8_2x4d", "reproduce table1 --scale smoke", "demo"]
)
def test_nothing_is_trained_or_written_without_an_extra(run, command):
    before = sorted(run.rglob("*"))
    output = base_only(MAIN, *command.split(), status=2, cwd=run, WITH_JINJA2="1")
    assert re.fullmatch("shakeshake: " + INSTALL.format("report"), output.strip()), output
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "train --help",
        "models shake_resnet26*",
        "data",
        "cache",
        "doctor --quick",
        "eval run",
        "resume run",
        "bench --model shake_resnet8_2x4d --batch-size 2 --test-batch-size 2 --rounds 1",
        "export run --format torch",
        "analyze run --only correlation,strength,gap",
    ],
)
def test_a_command_works_with_the_base_alone(run, command):
    base_only(MAIN, *command.split(), cwd=run)


def test_require_names_the_extra_and_passes_other_errors_on(monkeypatch, tmp_path):
    assert require("json.decoder", "train").__name__ == "json.decoder"
    with pytest.raises(ss.InputError, match=r"no_such_module is not installed; .*'shakeshake\[ray\]'"):
        require("no_such_module.part", "ray")
    (tmp_path / "broken_module.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        require("broken_module", "ray")
    assert missing_extra(ModuleNotFoundError(name="no_such_module")) is None


def test_every_optional_module_belongs_to_an_extra_of_the_project():
    distributions = {"PIL": "pillow", "sklearn": "scikit-learn"}
    for module, extra in EXTRAS.items():
        names = {re.split(r"[<>=\[ ]", line)[0].lower() for line in PROJECT["optional-dependencies"][extra]}
        assert distributions.get(module, module) in names


def test_the_base_needs_no_more_than_documented():
    names = [re.split(r"[<>=\[ ]", line)[0] for line in PROJECT["dependencies"]]
    assert names == ["torch", "numpy", "safetensors", "filelock", "click"]
    assert all(metadata.version(name) for name in names)
