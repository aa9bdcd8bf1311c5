import json
import pickle

import pytest
import torch
from safetensors.torch import load, save

import shakeshake as ss
from shakeshake.errors import InputError
from shakeshake.models.config import make_config
from shakeshake.models.weights import sha256, weights_as_bytes


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    network = ss.create_model("shake_resnet8_2x4d", num_classes=3)
    weights = weights_as_bytes(network)
    config = make_config(
        "shake_resnet8_2x4d",
        "S-S-I",
        classes=["a", "b", "c"],
        in_channels=3,
        image_size=32,
        mean=[100.0] * 3,
        std=[50.0] * 3,
        weights_sha256=sha256(weights),
        temperature=1.5,
    )
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def change(folder, **entries):
    config = json.loads((folder / "config.json").read_text()) | entries
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def refused(folder, match):
    with pytest.raises(InputError, match=match) as told:
        ss.load(folder)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500


def test_predictions_use_the_temperature_if_there_is_one(folder):
    model = ss.load(folder)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert torch.allclose(model.predict(images), (model(images) / 1.5).softmax(1))
    change(folder, weights_sha256=None, temperature=None)  # of a run from before there was either
    assert torch.allclose(ss.load(folder).predict(images), model(images).softmax(1))


def test_predict_keeps_training_modes_and_returns_float32_in_half_precision(folder):
    model, images = ss.load(folder), torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    expected = model.predict(images)
    model.train()
    model.network.stem.eval()
    assert torch.equal(model.predict(images), expected)
    assert model.network.stages.training
    assert not model.network.stem.training
    half = model.bfloat16().predict(images)
    assert half.dtype == torch.float32
    assert torch.allclose(half, expected, atol=0.05)


def test_weights_are_float32_for_any_default_dtype(folder):
    torch.set_default_dtype(torch.float64)
    try:
        model = ss.load(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    assert model.network.fc.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"format": "pt"}, r"format is 'pt', expected 'shakeshake/1'"),
        ({"format": None, "architectures": ["ViT"]}, r"config.json is damaged or has another format: format is None"),
        ({"model": "shake_resnet9_2x4d"}, "does not exist: depth is 9"),
        ({"model": ["shake"]}, "model is .*, expected the name of a network"),
        ({"classes": ["a", "a", "b"]}, "classes is .*, expected a list of two different names"),
        ({"classes": "abc"}, "classes is 'abc'"),
        ({"mean": [1, 2]}, "mean is .*, expected 3 numbers from"),
        ({"mean": [1e307] * 3}, "mean is .*, expected 3 numbers from"),
        ({"std": [1e-300] * 3}, "std is .*, expected 3 numbers from 1e-6"),
        ({"std": [1.0, 0.0, 1.0]}, "std is .*, expected 3 numbers from 1e-6"),
        ({"std": [1.0, float("nan"), 1.0]}, "std is"),
        ({"temperature": float("inf")}, "temperature is inf, expected a number from 0.01 to 100"),
        ({"temperature": True}, "temperature is True"),
        ({"temperature": 10**400}, r"temperature is 10+\.\.\., expected"),
        ({"image_size": 100_000}, "image_size is 100000"),
        ({"in_channels": True, "mean": [1.0], "std": [1.0]}, "in_channels is True"),
        ({"options": {"skip": False}}, "options is .*, expected some of activation, skip_shift"),
        ({"weights_sha256": "../../etc"}, "weights_sha256 is"),
        ({"rule": None}, "rule is missing"),
        # A name that would take hours or all memory to build is compared with the tensors that are there.
        ({"model": "shake_resnet9998_2x4d"}, "too few for a shake_resnet9998_2x4d"),
        ({"model": "shake_resnet8_9000x4d"}, "too few for a"),
        ({"model": "shake_resnet8_2x10000d"}, r"expected \(10000, 16, 3, 3\)"),
        ({"classes": [str(i) for i in range(5)]}, r"fc.weight has the shape \(3, 16\), expected \(5, 16\)"),
        ({"weights_sha256": "0" * 64}, "is not the file that config.json describes .*: one of the two was changed"),
    ],
)
def test_invalid_config_entries_are_named(folder, entries, match):
    change(folder, **entries)
    refused(folder, match)


def test_config_that_is_not_json_is_refused(folder):
    for content in (b"", b"[" * 100_000, b"\xff\xfe", b"[1]", b" " * 10_000_001):
        (folder / "config.json").write_bytes(content)
        refused(folder, "config.json is damaged or has another format")


def test_damaged_or_changed_weights_are_refused(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(folder, "is not the file that config.json describes")
    tensors = load(whole)
    for changes, match in (
        ({"fc.bias": torch.tensor([0.0, float("nan"), 0.0])}, "values in fc.bias that are not finite"),
        ({"fc.bias": None}, "it has no fc.bias"),
        ({"more": torch.zeros(1)}, "which has no more"),
        ({"fc.bias": torch.zeros(3, dtype=torch.float8_e4m3fn)}, "has torch.float8_e4m3fn, expected floats of 16 bits"),
        ({"fc.bias": torch.zeros(3, dtype=torch.int64)}, "fc.bias is torch.int64, expected torch.float32"),
    ):
        path.write_bytes(save({k: v for k, v in (tensors | changes).items() if v is not None}))
        change(folder, weights_sha256=None)
        refused(folder, match)


def test_pickles_are_not_opened(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "it went off"), "w"))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    refused(folder, "not a whole safetensors file")
    torch.save({"a": Bomb()}, folder / "model.safetensors")
    refused(folder, r"not a whole safetensors file \(a file of torch.save\)")
    torch.save({"a": Bomb()}, folder / "model.pt")
    refused(folder / "model.pt", "may be a pickle")
    assert not (tmp_path / "it went off").exists()
