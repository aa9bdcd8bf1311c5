import pytest
import torch

import shakeshake as ss
from shakeshake.errors import InputError
from shakeshake.models.weights import load_for_finetuning, read_weights, weights_as_bytes

MODEL = "shake_resnet8_2x4d"


@pytest.fixture
def pretrained(tmp_path):
    torch.manual_seed(0)
    network = ss.create_model(MODEL, num_classes=10, in_channels=1, image_size=8)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_as_bytes(network, half=True))
    return network, read_weights(path)[0]


def new(**options):
    return ss.create_model(MODEL, **{"in_channels": 1, "image_size": 8, **options})


def test_half_precision_weights_are_loaded_as_float32(pretrained):
    source, tensors = pretrained
    network = new()
    assert not load_for_finetuning(network, tensors, "weights", MODEL)
    assert network.fc.weight.dtype == torch.float32
    assert torch.allclose(network.fc.weight, source.fc.weight, atol=1e-3)


def test_other_classes_keep_a_new_last_layer(pretrained):
    source, tensors = pretrained
    network = new(num_classes=4)
    head = network.fc.weight.detach().clone()
    assert load_for_finetuning(network, tensors, "weights", MODEL)
    assert torch.equal(network.fc.weight, head)
    assert torch.allclose(network.stem.conv.weight, source.stem.conv.weight, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"in_channels": 3}, r"weights was trained on images of 1 channels, expected 3 \(colour\)"),
        ({"image_size": 160}, "images of another size, with a stem of 3 x 3 pixels, expected 7 x 7 as for"),
    ],
)
def test_weights_for_other_images_are_refused_and_the_network_stays(pretrained, options, match):
    network = new(**options)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=match):
        load_for_finetuning(network, pretrained[1], "weights", MODEL)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
