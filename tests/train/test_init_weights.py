"""Training from existing weights: a new head if needed, the same weights after a resume, and clear errors."""

import hashlib
import json
import shutil

import pytest
import torch

import shakeshake as ss
from helpers import TINY
from shakeshake.errors import InputError
from shakeshake.models.weights import weights_as_bytes
from shakeshake.train.auto_recipe import recipe_for
from shakeshake.train.fit import resume
from shakeshake.train.init_weights import read_init

RECIPE = TINY.replace(train_size=100, epochs=1, batch_size=50, crop_padding=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "first"
    ss.fit(RECIPE, path, quiet=True)
    return path


@pytest.fixture
def other(tmp_path):
    """An .npz with three classes of digits."""
    import numpy as np

    data = ss.load_data("digits")
    some = {}
    for name, split in (("train", data.train), ("test", data.test)):
        kept = split.labels < 3
        some |= {f"x_{name}": split.images[kept], f"y_{name}": split.labels[kept]}
    np.savez(tmp_path / "other.npz", **some)
    return str(tmp_path / "other.npz")


def test_init_starts_training_from_the_weights_of_another_run(run, tmp_path):
    """Training with a negligible learning rate leaves the weights unchanged."""
    recipe = RECIPE.replace(init=str(run), lr=1e-12, weight_decay=0.0)
    ss.fit(recipe, tmp_path / "second", quiet=True)
    began = ss.load(run).network.state_dict()
    for name, value in ss.load(tmp_path / "second").network.named_parameters():
        assert torch.allclose(value, began[name], atol=1e-6), name
    digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    recorded = json.loads((tmp_path / "second" / "recipe.json").read_text())
    assert (recorded["init"], recorded["init_sha256"]) == (str(run), digest)


def test_different_number_of_classes_gets_a_new_head(run, other, tmp_path):
    recipe = RECIPE.replace(init=str(run / "model.safetensors"), data=other, train_size=None, lr=1e-12)
    ss.fit(recipe, tmp_path / "second", quiet=True)
    ours, theirs = ss.load(tmp_path / "second").network, ss.load(run).network
    assert ours.fc.out_features == 3
    assert torch.allclose(ours.stem.conv.weight, theirs.stem.conv.weight, atol=1e-6)
    fresh = tmp_path / "fresh"
    ss.fit(recipe.replace(init=None), fresh, quiet=True)
    assert torch.allclose(ours.fc.weight, ss.load(fresh).network.fc.weight, atol=1e-6), "new as without init"
    assert not torch.allclose(ours.stem.conv.weight, ss.load(fresh).network.stem.conv.weight, atol=1e-2)


@pytest.mark.parametrize(("names", "new_head"), [("9876543210", False), ("abcdefghij", True)])
def test_head_is_reordered_for_the_same_class_names_and_new_for_others(run, names, new_head):
    """The rows of the last layer follow the order of the class names."""
    init = read_init(RECIPE.replace(init=str(run)))
    network = ss.create_model(RECIPE.model, num_classes=10, in_channels=1, image_size=8)
    drawn = network.fc.weight.clone()
    assert init.load_into(network, tuple(names)) is new_head
    trained = ss.load(run).network
    assert torch.equal(network.fc.weight, drawn if new_head else trained.fc.weight.flip(0))
    assert torch.equal(network.stem.conv.weight, trained.stem.conv.weight)


def test_resume_restarts_from_the_same_init_weights_or_raises(run, tmp_path):
    first = tmp_path / "first"
    shutil.copytree(run, first)
    recipe = RECIPE.replace(init=str(first))
    ss.fit(recipe, tmp_path / "whole", quiet=True)
    begun = tmp_path / "begun"  # killed before its first checkpoint
    begun.mkdir()
    shutil.copy(tmp_path / "whole" / "recipe.json", begun)
    resume(begun, quiet=True)
    weights = [(at / "model.safetensors").read_bytes() for at in (tmp_path / "whole", begun)]
    assert weights[0] == weights[1]
    for name in ("model.safetensors", "config.json", "result.json"):
        (begun / name).unlink()
    shutil.rmtree(first)
    resume(begun, quiet=True)  # a checkpoint needs them no more
    assert (begun / "model.safetensors").read_bytes() == weights[0]
    for checkpoint in begun.glob("checkpoint*"):
        checkpoint.unlink()
    (begun / "result.json").unlink()
    first.mkdir()
    changed = ss.load(run).network
    with torch.no_grad():
        changed.fc.bias += 1
    (first / "model.safetensors").write_bytes(weights_as_bytes(changed))
    config = json.loads((run / "config.json").read_text())
    (first / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "weights_sha256"}))
    with pytest.raises(InputError, match=r"^init: .*first has SHA-256 .*restore the weights that the run started from"):
        resume(begun, quiet=True)


def test_model_defaults_to_that_of_the_init_run(run):
    recipe, _ = recipe_for("digits", {"init": str(run), "epochs": 1})
    assert recipe.model == RECIPE.model
    assert recipe.init_sha256 == hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    assert recipe_for("digits", {"init": str(run), "model": "cifar_resnet8"})[0].model == "cifar_resnet8"


def test_incompatible_init_weights_raise_one_line(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.pt").write_bytes(b"PK\x03\x04")
    for changes, said in (
        (
            {"init": str(run), "model": "shake_resnet8_2x8d"},
            "is a shake_resnet8_2x4d, expected a shake_res",
        ),
        (
            {"init": str(run / "model.safetensors"), "model": "shake_resnet14_2x4d"},
            r"another network than shake_resnet14_2x4d: it has no stages.0.blocks.1",
        ),
        (
            {"init": str(run / "model.safetensors"), "model": "shake_resnet8_2x8d"},
            r"stages.0.blocks.0.branches.0.conv1.weight has the shape \(4, 16, 3, 3\), expected \(8, 16, 3, 3\)",
        ),
        ({"init": str(tmp_path / "empty")}, "holds no config.json"),
        ({"init": str(tmp_path / "weights.pt")}, r"not a whole safetensors file \(a file of torch.save\)"),
        (
            {"init": "cifar10"},
            r"init: cifar10 does not exist, expected a finished run or a safetensors file",
        ),
        ({"init": str(run), "init_sha256": "0" * 64}, "restore the weights that the run started from"),
    ):
        with pytest.raises(InputError, match=said) as told:
            ss.fit(RECIPE.replace(**changes), tmp_path / "run", quiet=True)
        assert "\n" not in str(told.value)
        assert not (tmp_path / "run").exists()
