"""Networks of transformers: a tiny checkpoint, trained, resumed, loaded and exported. See also test_timm.py."""

import json
import os
import shutil
import signal
import socket

import numpy as np
import pytest
import torch
from PIL import Image

import shakeshake as ss
from helpers import shakeshake, shakeshake_output
from shakeshake.models.external import find_origin
from shakeshake.models.head import find_head
from shakeshake.models.shakeify import ShakenHalves
from shakeshake.train.run_directory import RunDirectory

CARD = "---\nlicense: apache-2.0\n---\n\n# A tiny network\n"
PROCESSOR = {
    "do_center_crop": True,
    "crop_size": {"height": 16, "width": 16},
    "size": {"shortest_edge": 20},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.5],
}


def write_checkpoint(folder, **changes):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    settings = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 4, "layer_type": "x"}
    config = transformers.RegNetConfig(**{**settings, "num_labels": 5, **changes})
    network = transformers.AutoModelForImageClassification.from_config(config)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    (folder / "README.md").write_text(CARD)
    return network.eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny-regnet"
    write_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name, brightness in (("cat", 0), ("dog", 100)):
        (folder / name).mkdir()
        for number in range(12):
            pixels = random.integers(brightness, brightness + 100, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def recipe(checkpoint, photos, **changes):
    fields = {"rule": "S-S-I", "epochs": 2, "batch_size": 8, "lr": 0.01, "crop_padding": 1, "device": "cpu"}
    return ss.Recipe(data=str(photos), model=f"hf/{checkpoint}", precision="fp32", **{**fields, **changes})


@pytest.fixture(scope="module")
def run(checkpoint, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tuned"
    ss.fit(recipe(checkpoint, photos), path, quiet=True)
    return path


def test_a_pretrained_network_computes_the_same_up_to_its_new_head(checkpoint):
    network = ss.create_model(f"hf/{checkpoint}", num_classes=3, pretrained=True, rule="E-E-B").eval()
    transformers = pytest.importorskip("transformers")
    original = transformers.AutoModelForImageClassification.from_pretrained(checkpoint).eval()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(network.network.regnet(x).pooler_output, original.regnet(x).pooler_output)
    assert network(x).shape == (2, 3)
    assert find_head(network, 3) == "network.classifier.1"
    random = ss.create_model(f"hf/{checkpoint}", num_classes=3, rule="E-E-B")
    assert not torch.equal(random.network.regnet(x).pooler_output, original.regnet(x).pooler_output)


@pytest.mark.parametrize("kind", ["ViT", "DeiT", "ConvNext"])
def test_other_architectures_start_from_their_weights(kind, tmp_path):
    """DeiT has two classes of image classifiers; ConvNext has grouped convolutions that cannot be shaken."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2}
    if kind != "ConvNext":
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        sizes |= {"image_size": 16, "patch_size": 8}
    config = getattr(transformers, f"{kind}Config")(**sizes, num_labels=3)
    original = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    original.save_pretrained(tmp_path)
    network = ss.create_model(f"hf/{tmp_path}", num_classes=3, pretrained=True, image_size=16).eval()
    x = torch.randn(2, 3, 16, 16)
    assert not torch.equal(network(x), original(x).logits), "the last layer is new"
    head = find_head(network, 3)
    network.get_submodule(head).load_state_dict(original.get_submodule(find_head(original, 3)).state_dict())
    assert torch.equal(network(x), original(x).logits)


def test_grouped_convolutions_are_shaken_unless_the_rule_is_even(checkpoint):
    name, options = f"hf/{checkpoint}", {"num_classes": 3, "pretrained": True}
    torch.manual_seed(1)
    shaken = ss.create_model(name, rule="S-E-I", **options)
    torch.manual_seed(1)
    plain = ss.create_model(name, rule="E-E-B", **options)
    assert {str(m.shake.rule) for m in shaken.modules() if isinstance(m, ShakenHalves)} == {"S-E-I"}
    assert not any(isinstance(m, ShakenHalves) for m in plain.modules())
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(shaken.eval()(x), plain.eval()(x), atol=1e-5)


def test_a_run_records_its_origin_and_is_loaded_without_it(run, checkpoint, tmp_path, monkeypatch):
    config = json.loads((run / "config.json").read_text())
    assert (config["model"], config["rule"], config["image_size"]) == ("hf/tiny-regnet", "S-S-I", 16)
    assert config["mean"] == pytest.approx([0.4 * 255, 0.5 * 255, 0.6 * 255])
    assert (config["origin"]["library"], config["origin"]["licence"]) == ("transformers", "apache-2.0")
    assert str(checkpoint.parent) not in (run / "config.json").read_text()
    expected = ss.load(run).predict(torch.zeros(3, 3, 16, 16, dtype=torch.uint8))
    for name in ("config.json", "model.safetensors"):  # nothing else, and no network
        shutil.copy(run / name, tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connects"))
    assert torch.equal(ss.load(tmp_path).predict(torch.zeros(3, 3, 16, 16, dtype=torch.uint8)), expected)


def test_resume_is_bit_identical_without_the_checkpoint_of_transformers(run, checkpoint, photos, tmp_path):
    path, copied = tmp_path / "stopped", tmp_path / "copied"
    shutil.copytree(checkpoint, copied)
    with pytest.raises(ss.Stopped):
        ss.fit(recipe(copied, photos), path, callbacks=[StopAfter(3)], quiet=True)
    shutil.rmtree(copied)
    assert ss.resume(path, quiet=True).epochs == 2
    assert (path / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


class StopAfter(ss.Callback):
    """Sends SIGTERM to the process after some steps."""

    def __init__(self, steps):
        self.steps = steps

    def on_step_end(self, context):
        if context.trainer.step == self.steps:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("format", ["onnx", "torch", "safetensors"])
def test_exports_agree_with_pytorch(run, format, tmp_path):
    out = ss.export_run(run, format, tmp_path / "out")
    assert out.exists()
    if format == "safetensors":
        card = (out / "README.md").read_text()
        assert "started from the weights of hf/tiny-regnet (transformers), with a new last layer" in card
        assert "The weights that training started from: apache-2.0" in card
        assert str(run.parent) not in card
        assert "| model | hf/tiny-regnet |" in card


def test_a_changed_checkpoint_is_refused_before_the_first_checkpoint(checkpoint, photos, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(checkpoint, copied)
    run = RunDirectory(tmp_path / "run")
    run.create(recipe(copied, photos, image_size=16), origin=find_origin(f"hf/{copied}"))
    write_checkpoint(copied, hidden_sizes=[8, 32])
    with pytest.raises(ss.InputError, match="have changed since the run started"):
        ss.resume(run.path, quiet=True)


def test_the_command_line_trains_and_reports(checkpoint, photos, tmp_path):
    out, err = shakeshake(
        *("train", photos, "--model", f"hf/{checkpoint}", "--rule", "E-E-B", "--epochs", "1", "--device", "cpu"),
        *("--out", tmp_path / "run", "--precision", "fp32"),
    )
    assert "test error" in out
    assert "linear probe: validation error" in err
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["image_size"] == 16
    assert "no pictures" not in err
    assert "cat" in shakeshake_output("predict", tmp_path / "run", photos / "cat" / "0.png")


def test_what_cannot_be_used_is_refused_in_one_sentence(checkpoint, tmp_path):
    def refused(name, match, **options):
        with pytest.raises(ss.InputError, match=match) as caught:
            ss.create_model(name, num_classes=3, **options)
        assert "\n" not in str(caught.value)

    refused(f"hf/{tmp_path}", "holds no config.json")
    pickled = tmp_path / "pickled"
    shutil.copytree(checkpoint, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    refused(f"hf/{pickled}", "no weights in the safetensors format")
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    for values, match in (
        ({"model_type": "bert"}, "network of type 'bert'"),
        ({"model_type": "timm_wrapper", "architecture": "resnet18"}, "cannot be used|type 'timm_wrapper'"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config"}}, "cannot be used"),
    ):
        (other / "config.json").write_text(json.dumps(values))
        (other / "evil.py").write_text("raise SystemExit('executed')")
        refused(f"hf/{other}", match)
    squeezed = tmp_path / "squeezed"
    write_checkpoint(squeezed, layer_type="y")
    refused(f"hf/{squeezed}", "SELayer.*the rule E-E-B trains the network unchanged", rule="S-S-I")
    refused("hf/", "is not the name of a network")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"library": "os"}, "origin.library is invalid"),
        ({"architecture": {"model_type": "bert"}}, "network of type 'bert'"),
        ({"architecture": {"model_type": "regnet", "hidden_sizes": [64, 64]}}, "belongs to another network"),
        ({"code": "evil.py"}, "origin has other fields"),
        ({"mean": ["a"]}, "origin.mean is invalid"),
    ],
)
def test_a_damaged_origin_is_refused(run, tmp_path, change, match):
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    config = json.loads((run / "config.json").read_text())
    config["origin"] |= change
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(ss.InputError, match=match):
        ss.load(copied)
