"""Grad-CAM against its closed form: only a ReLU, a mean and a linear layer follow the last stage."""

import numpy as np
import pytest
import torch

import shakeshake as ss
from shakeshake.analysis.gradcam import grad_cam, overlay
from shakeshake.errors import InputError


def test_grad_cam_equals_its_closed_form():
    torch.manual_seed(0)
    network = ss.create_model("shake_resnet8_2x8d", num_classes=4).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)  # as in a fused network
    images, classes = torch.randn(3, 3, 32, 32), torch.tensor([0, 3, 1])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    heat = grad_cam(network.train(), images, classes, "stages.2")
    assert network.training
    network.eval()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    x = network.stem(images)
    for stage in network.stages:
        x = stage(x)
    for i, k in enumerate(classes.tolist()):
        total = torch.zeros(8, 8)
        for channel in range(x.shape[1]):  # logit_k = sum over channels of W[k, channel] * mean(relu(x))
            features = x[i, channel]
            weight = network.fc.weight[k, channel] * (features > 0).float().mean() / features.numel()
            total += weight * features
        total = total.clamp(min=0) / total.max()
        smooth = torch.nn.functional.interpolate(total[None, None], size=(32, 32), mode="bilinear")[0, 0]
        assert torch.allclose(heat[i], smooth, atol=1e-4)
    assert heat.shape == (3, 32, 32)
    with pytest.raises(InputError, match=r"^layer: got 'stages.7', expected the name of a module"):
        grad_cam(network, images, classes, "stages.7")
    with torch.no_grad():
        network.fc.weight.zero_()
    assert (grad_cam(network, images, classes, "stages.2") == 0).all(), (
        "no division by 0 where nothing speaks for a class"
    )


def test_hotter_pixels_are_lighter():
    image = np.full((3, 4, 4), 128, np.uint8)
    heat = np.linspace(0, 1, 16).reshape(4, 4)
    light = overlay(image, heat).astype(float).mean(axis=0).ravel()
    assert (np.diff(light) > 0).all()
    assert overlay(image[:1], heat).shape == (3, 4, 4)
