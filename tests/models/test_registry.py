import json

import pytest
import torch

from helpers import python
from shakeshake import InputError, create_model, list_models
from shakeshake.models.config import make_config
from shakeshake.models.model import load
from shakeshake.models.registry import count_parameters
from shakeshake.models.weights import weights_as_bytes


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("shake_resnet26_2x32d", 10, 2_923_162),
        ("shake_resnet26_2x64d", 10, 11_653_978),
        ("shake_resnet26_2x96d", 10, 26_192_922),
        ("shake_resnet26_2x112d", 10, 35_640_442),
        ("shake_resnet20_2x16d", 10, 541_082),
        ("shake_resnext29_2x4x64d", 100, 34_529_700),
        ("cifar_resnet20", 10, 269_722),
        ("cifar_resnet56", 10, 853_018),
        ("cifar_resnet110", 10, 1_727_962),
        ("wrn28_10", 10, 36_479_194),
        ("wrn28_10", 100, 36_536_884),
        ("resnext29_16x64d", 10, 68_155_210),
        ("resnext29_16x64d", 100, 68_247_460),
        ("densenet_bc100_12", 10, 769_162),
        ("densenet_bc190_40", 10, 25_624_430),
        ("densenet_bc190_40", 100, 25_821_620),
    ],
)
def test_published_parameter_counts(name, classes, parameters):
    """Counts from the author's release, and from public code for baselines (papers: resnet20 0.27M, wrn28_10 36.5M)."""
    assert count_parameters(name, num_classes=classes) == parameters


@pytest.mark.parametrize("name", list_models())
def test_every_listed_name_builds(name):
    with torch.device("meta"):
        model = create_model(name)
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("size", [8, 9, 28, 64, 65, 128, 129, 224])
def test_stem_limits_the_first_stage_to_64_pixels(size):
    model = create_model("shake_resnet8_3x4d", image_size=size, in_channels=1, num_classes=3)
    inside = []
    model.stages[0].register_forward_hook(lambda module, x, y: inside.append(y.shape[-1]))
    model(torch.randn(2, 1, size, size)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert inside[0] <= 64, "a larger image gets a strided stem"


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("shake_resnet27_2x32d", "shake_resnet26_2x32d or shake_resnet32_2x32d"),
        ("shakeresnet26_2x32d", "shake_resnet26_2x32d"),
        ("shake_resnet26-2x96d", "shake_resnet26_2x96d"),
        ("Shake_ResNet26_2x64d", "shake_resnet26_2x64d"),
        ("shake_resnet26_1x32d", "shake_resnet26_2x32d"),
        ("shake_resnet26_2x33d", "shake_resnet26_2x34d"),
        ("shake_resnext30_2x4x64d", "shake_resnext29_2x4x64d or shake_resnext38_2x4x64d"),
        ("vgg", "shake_"),
        ("shake_resnet27_2x33d_a", "shake_resnet26_2x33d_a or shake_resnet32_2x33d_a"),
        ("shake_resnet14_2x32_c", "shake_resnet14_2x32d_c"),
        ("cifar_resnet18", "cifar_resnet20 or cifar_resnet14"),
        ("resnet18", "cifar_resnet20 or cifar_resnet14"),
        ("WRN-28-10", "wrn28_10"),
        ("wrn27_10", "wrn28_10 or wrn22_10"),
        ("wrn28_0", "wrn28_1"),
        ("resnext30_8x64d", "resnext29_8x64d or resnext38_8x64d"),
        ("densenet101_12", "densenet_bc100_12 or densenet_bc106_12"),
    ],
)
def test_invalid_names_get_the_closest_valid_ones(name, closest):
    with pytest.raises(InputError, match="the closest valid names are") as raised:
        create_model(name)
    assert closest in str(raised.value)
    for suggested in str(raised.value).split("names are ")[1].split(" or "):
        assert count_parameters(suggested)


@pytest.mark.parametrize(
    "option",
    [
        *({"num_classes": 1}, {"image_size": 7}, {"image_size": 225}, {"in_channels": 2}, {"skip_shift": "left"}),
        *({"activation": "late"}, {"convs": 3}, {"dropout": 0.3}),
    ],
)
def test_invalid_options_are_named(option):
    with pytest.raises(InputError, match=f"^{next(iter(option))}: "):
        create_model("shake_resnet8_2x4d", **option)


def test_options_cannot_contradict_the_name_or_belong_to_another_family():
    """For example, a depth that differs from the name, or an option of another family."""
    for name, option in (("shake_resnet8_2x4d_a", {"skip": True}), ("wrn10_1", {"skip_shift": "mirrored"})):
        with pytest.raises(InputError, match=f"^{next(iter(option))}: not an option of {name}"):
            create_model(name, **option)


def test_rules_for_two_branches_are_refused_for_three():
    with pytest.raises(InputError, match="two branches"):
        create_model("shake_resnet8_3x4d", rule="S-M1-I")


def test_saved_model_loads_with_its_preprocessing_and_damage_is_reported(tmp_path):
    torch.manual_seed(0)
    model = create_model("shake_resnet8_2x4d", num_classes=3, image_size=8, in_channels=1)
    model(torch.randn(4, 1, 8, 8))  # running statistics that are not their initial ones
    config = make_config(
        "shake_resnet8_2x4d", "S-S-I", classes="abc", in_channels=1, image_size=8, mean=[100.0], std=[50.0]
    )
    (tmp_path / "model.safetensors").write_bytes(weights_as_bytes(model))
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load(tmp_path)
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    assert loaded.classes == ("a", "b", "c")
    assert torch.allclose(loaded(images), model.eval()((images.float() - 100) / 50), atol=1e-6)
    assert torch.allclose(loaded.predict(images).sum(1), torch.ones(5))
    with pytest.raises(InputError, match="images: dtype"):
        loaded(images.float())
    with pytest.raises(InputError, match=r"images: shape is \(5, 1, 8, 7\)"):
        loaded(images[..., 1:])
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(InputError, match=r"model.safetensors is not a whole safetensors file"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match=r"config.json is damaged"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"nowhere does not exist, expected the folder of a finished run"):
        load(tmp_path / "nowhere")


def test_names_are_checked_without_torch():
    code = (
        "import sys, shakeshake; from shakeshake.models.registry import model_info; "
        "from shakeshake.train.recipe import Recipe; model_info('shake_resnet26_2x32d'); Recipe(); "
        "assert 'torch' not in sys.modules"
    )
    python("-c", code)
