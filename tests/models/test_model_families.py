"""Properties of every registered family, tested on a tiny member."""

import json

import pytest
import torch

from shakeshake import create_model, list_models
from shakeshake.models.config import make_config
from shakeshake.models.families import FAMILIES
from shakeshake.models.model import load
from shakeshake.models.registry import model_info
from shakeshake.models.weights import weights_as_bytes

TINY = {
    "shake_resnet8_2x4d": {},
    "shake_resnet8_3x4d": {},
    "shake_resnet8_2x4d_a": {},
    "shake_resnet8_3x4d_a": {},
    "shake_resnet8_2x4d_b": {},
    "shake_resnet8_2x4d_c": {"rule": "S-E-I[0.4,0.6]"},
    "shake_resnext11_2x2x4d": {},
    "shake_resnext11_3x2x4d": {},
    "cifar_resnet8": {},
    "wrn10_1": {},
    "resnext11_2x4d": {},
    "densenet_bc10_4": {},
}
COMPILED = [name for name in TINY if name not in ("shake_resnet8_3x4d_a", "shake_resnext11_3x2x4d")]  # it takes seconds
every = pytest.mark.parametrize("name", TINY)


def build(name, **more):
    torch.manual_seed(0)
    return create_model(name, num_classes=3, image_size=8, **{**TINY[name], **more})


def images(channels=3):
    return torch.randn(4, channels, 8, 8, generator=torch.Generator().manual_seed(1))


def warm(model):
    """Update the running statistics once."""
    model.train()(images())
    return model


def test_every_family_is_tested_and_listed():
    assert {model_info(name).family.template for name in TINY} == {family.template for family in FAMILIES}
    listed = [family for name in list_models() if (family := model_info(name).family)]  # others are registered
    assert {family.template for family in listed} == {family.template for family in FAMILIES}
    assert all(family.examples for family in FAMILIES)


@every
def test_every_parameter_learns_and_evaluation_is_deterministic(name):
    model = build(name)
    model(images()).square().sum().backward()
    for key, p in model.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
        assert p.grad.abs().sum() > 0, key
    shaken = model_info(name).branched
    assert torch.equal(model(images()), model(images())) == (not shaken), "coefficients are drawn only in training"
    model.eval()
    assert torch.equal(model(images()), model(images()))


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_to_one_graph_with_the_same_gradients(name):
    """One graph, the same value and gradients, in training.

    Even-Even, as a compiled step draws in another order: what only the backward needs, beta, is drawn there.
    """
    torch._dynamo.reset()
    model = build(name, rule="E-E-B")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    got = []
    for run in (model, compiled):
        y = run(images())
        got.append((y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))))
    for a, b in zip(*got, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_compiled_network_draws_at_every_call():
    """The random draw is part of the graph and is repeated at every call."""
    torch._dynamo.reset()
    model = torch.compile(build("shake_resnet8_2x4d", rule="S-S-I"), backend="aot_eager", fullgraph=True)
    y = model(images())
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert not torch.allclose(y, model(images()))


@every
def test_autocast_computes_in_bfloat16_throughout(name):
    model = build(name)
    inside = []
    model.stages[0].register_forward_hook(lambda module, x, y: inside.append(y.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(images())
    y.float().square().sum().backward()
    assert y.dtype == inside[0] == torch.bfloat16, "no block promotes to float32"
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters())
    warm(model).eval()
    full = model(images())
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(images()) - full).abs().max() < 0.05 * full.abs().max() + 0.05


@every
def test_saved_network_loads_and_computes_the_same(name, tmp_path):
    model = warm(build(name)).eval()
    rule = TINY[name].get("rule", "S-S-I") if model_info(name).branched else "none"
    config = make_config(name, rule, classes="abc", in_channels=3, image_size=8, mean=[100.0] * 3, std=[50.0] * 3)
    (tmp_path / "model.safetensors").write_bytes(weights_as_bytes(model))
    (tmp_path / "config.json").write_text(json.dumps(config))
    pixels = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(load(tmp_path)(pixels), model((pixels.float() - 100) / 50), rtol=1e-4, atol=1e-5)


@every
@pytest.mark.parametrize("size", [9, 28, 65, 224])
def test_accepts_every_image_size(name, size):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, image_size=size, in_channels=1, **TINY[name]).eval()
    inside = []
    model.stages[0].register_forward_hook(lambda module, x, y: inside.append(y.shape[-1]))
    assert model(torch.randn(1, 1, size, size)).shape == (1, 3)
    assert inside[0] <= 64, "a larger image gets a strided stem"


def test_options_are_restored_when_loading(tmp_path):
    options = {"skip_shift": "mirrored", "activation": "post"}
    model = warm(build("shake_resnet8_2x4d", **options)).eval()
    config = make_config(
        "shake_resnet8_2x4d",
        "S-S-I",
        classes="abc",
        in_channels=3,
        image_size=8,
        mean=[0.0] * 3,
        std=[1.0] * 3,
        options=options,
    )
    (tmp_path / "model.safetensors").write_bytes(weights_as_bytes(model))
    (tmp_path / "config.json").write_text(json.dumps(config))
    pixels = torch.randint(0, 9, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.allclose(load(tmp_path)(pixels), model(pixels.float()), rtol=1e-4, atol=1e-5)
