"""A file outside the package with a network, a rule and a callback trains from Python and from the command line."""

import json

import pytest

from helpers import python

pytestmark = pytest.mark.slow

LAB = """\
import sys, torch, shakeshake as ss
from torch import nn

class Block(nn.Module):
    def __init__(self, width, rule):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(nn.ReLU(), nn.Linear(width, width)) for _ in range(2))
        self.shake = ss.ShakeShake(rule)
    def forward(self, x):
        return x + self.shake(*(branch(x) for branch in self.branches))

def net(num_classes, in_channels, image_size, rule="S-S-I"):
    pixels = in_channels * image_size**2
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 16), Block(16, rule), nn.Linear(16, num_classes))

@ss.register_rule("half")
def half(images, branches, *, device, generator):
    alpha = torch.rand(images, 1, device=device, generator=generator)
    alpha = torch.cat((alpha, 1 - alpha), dim=1)
    return alpha, (alpha + 0.5) / 2

class Log(ss.Callback):
    def on_epoch_end(self, metrics):
        print("epoch", metrics.epoch, metrics.test_error)

if __name__ == "__main__":
    recipe = ss.Recipe(data="digits", rule="half", epochs=2, train_size=200, seed=3, device="cpu")
    ss.fit(recipe, sys.argv[1], model=net, callbacks=[Log()], quiet=True)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with the file and a run that the command line trained with it."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "lab.py").write_text(LAB)
    assert "test error" in train(folder, "run")
    return folder


def run(folder, *arguments, status=0):
    out, err = python(*arguments, code=status, cwd=folder)
    return err if status else out


def train(folder, out, *options, model="lab.py:net", rule="lab.py:half"):
    recipe = ["--epochs", 2, "--train-size", 200, "--seed", 3, "--device", "cpu"]
    return run(
        folder, "-m", "shakeshake", "train", "digits", "--model", model, "--rule", rule, *recipe, "--out", out, *options
    )


def test_command_line_trains_a_network_and_a_rule_of_a_file(lab):
    recipe = json.loads((lab / "run" / "recipe.json").read_text())
    assert (recipe["model"], recipe["rule"]) == ("lab.py:net", "lab.py:half")
    assert str(lab) not in (lab / "run" / "config.json").read_text()
    train(lab, "again", model=lab / "lab.py:net")
    weights = [(lab / name / "model.safetensors").read_bytes() for name in ("run", "again")]
    assert weights[0] == weights[1]


def test_commands_need_the_file_again_and_never_execute_it_by_themselves(lab):
    (lab / "lab.py").write_text(LAB + "\nopen('executed', 'w')\n")
    assert "not registered here; import the module that registers it, or pass --model PATH/lab.py:net" in run(
        lab, "-m", "shakeshake", "eval", "run", status=2
    )
    assert not (lab / "executed").exists()
    options = ["--model", "lab.py:net", "--rule", "lab.py:half"]
    assert "test error" in run(lab, "-m", "shakeshake", "eval", "run", *options)
    assert (lab / "executed").exists()
    assert "E|beta - alpha|" in run(lab, "-m", "shakeshake", "analyze", "run", *options)


def test_python_trains_a_network_a_rule_and_a_callback_of_a_file(lab):
    printed = run(lab, "lab.py", "python").splitlines()
    assert [line.split()[:2] for line in printed] == [["epoch", "1"], ["epoch", "2"]]
    recipe = json.loads((lab / "python" / "recipe.json").read_text())
    assert (recipe["model"], recipe["rule"]) == ("lab.py:net", "half")


def test_command_line_trains_on_a_data_source_of_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\ndef noise():\n"
        "    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)\n"
        "    return images, np.arange(40) % 2, images, np.arange(40) % 2\n"
    )
    options = ["--model", "shake_resnet8_2x4d", "--epochs", 1, "--batch-size", 20, "--out", "run"]
    run(tmp_path, "-m", "shakeshake", "train", tmp_path / "mine.py:noise", *options)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["data"] == "mine.py:noise"
    assert "40 images" in run(tmp_path, "-m", "shakeshake", "eval", "run", "--data", "mine.py:noise")
    assert "or name it as FILE.py:NAME" in run(tmp_path, "-m", "shakeshake", "eval", "run", status=2)
