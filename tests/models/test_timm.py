"""Networks of timm, with weights that the test makes. `make test-timm` runs them."""

import json

import pytest
import torch
from safetensors.torch import save_file

import shakeshake as ss
from shakeshake.models.external import find_origin, has_branches
from shakeshake.models.head import find_head
from shakeshake.models.shakeify import ShakenHalves

try:
    import timm
except (ImportError, RuntimeError, AttributeError) as error:
    pytest.skip(f"timm cannot be imported beside this build of torch: {error}", allow_module_level=True)

NAME = "timm/resnext26ts"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub has random weights of this network, in the safetensors format."""
    torch.manual_seed(3)
    network = timm.create_model(NAME.removeprefix("timm/")).eval()
    file = tmp_path / "model.safetensors"
    save_file(network.state_dict(), file)

    def download(repository, name):
        assert (repository, name) == ("timm/resnext26ts.ra2_in1k", "model.safetensors")
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return network


def test_the_body_is_pretrained_and_the_head_new(hub):
    network = ss.create_model(NAME, num_classes=3, pretrained=True, rule="E-E-B").eval()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network.network.forward_features(x), hub.forward_features(x))
    assert network(x).shape == (2, 3)
    assert find_head(network, 3) == "network.head.fc"
    shaken = ss.create_model(NAME, num_classes=3, pretrained=True, rule="S-S-I")
    assert sum(isinstance(module, ShakenHalves) for module in shaken.modules()) == 8


def test_origin_has_the_preprocessing_of_the_library():
    origin = find_origin(NAME)
    assert (origin.library, origin.image_size, origin.licence) == ("timm", 256, "apache-2.0")
    assert origin.architecture == {"architecture": "resnext26ts"}
    assert origin.mean == pytest.approx([0.485 * 255, 0.456 * 255, 0.406 * 255])
    assert has_branches(NAME)
    assert not has_branches("timm/resnet18")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("timm/resnext26", "timm has no network 'resnext26'; did you mean timm/"),
        ("timm/resnet18.nothing", "cannot be used"),
        ("timm/hf-hub:user/name", "timm has no network"),
    ],
)
def test_an_unknown_name_is_refused(name, match):
    with pytest.raises(ss.InputError, match=match):
        ss.create_model(name)


@pytest.mark.parametrize("name", ["regnety_002", "eca_resnext26ts", "mobilenetv3_small_050"])
def test_networks_whose_gates_mix_the_halves_are_refused_by_name(name):
    with pytest.raises(ss.InputError, match=r"may mix the halves.*the rule E-E-B trains the network unchanged"):
        ss.create_model(f"timm/{name}", num_classes=3, rule="S-S-I", image_size=64)


def test_a_run_is_resumed_loaded_and_exported(hub, tmp_path):
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8).numpy()
    data = ss.from_arrays(images, [0, 1] * 6, images, [0, 1] * 6)
    recipe = ss.Recipe(model=NAME, epochs=2, batch_size=6, lr=0.01, device="cpu", precision="fp32")
    ss.fit(recipe, tmp_path / "whole", data=data, quiet=True)
    with pytest.raises(ss.Stopped):
        ss.fit(recipe, tmp_path / "stopped", data=data, quiet=True, minutes=1e-6)
    ss.resume(tmp_path / "stopped", quiet=True)
    whole, stopped = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["origin"] == {**find_origin(NAME).to_dict(), "pretrained": True}
    assert ss.load(tmp_path / "whole").predict(torch.from_numpy(images)).shape == (12, 2)
    assert ss.export_run(tmp_path / "whole", "torch", tmp_path / "model.pt2").exists()
