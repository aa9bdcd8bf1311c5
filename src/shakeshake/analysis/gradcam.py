"""Grad-CAM: which regions of an image speak for a class (Selvaraju et al., 2017, equations 1 and 2)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..utils.modes import eval_mode

# From dark to light through hues that most eyes can tell apart, over the image in grey.
_COLOURS = np.array([(12, 7, 60), (100, 15, 110), (190, 50, 80), (245, 125, 20), (252, 235, 120)], np.float64)
_OPACITY = 0.55


def grad_cam(network: nn.Module, images: Tensor, classes: Tensor, layer: str) -> Tensor:
    """Compute Grad-CAM heat maps in evaluation mode; the network's training mode is restored.

    Each feature map of the layer is weighted by the mean gradient of the class's logit over it. The positive part of
    their sum is scaled to a maximum of 1 per image (0 where nothing speaks for the class) and to the image size.

    Args:
        network: maps (N, C, H, W) images to (N, classes) logits.
        images: (N, C, H, W), normalised as the network expects.
        classes: (N,) int64 class indices.
        layer: name of a module whose output is (N, channels, height, width).

    Returns:
        (N, H, W) heat maps in [0, 1].

    Raises:
        InputError: if the network has no such module.
    """
    try:
        module = network.get_submodule(layer)
    except AttributeError:
        raise InputError(f"layer: got {layer!r}, expected the name of a module, such as stages.2") from None
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        with eval_mode(network), torch.enable_grad():
            logits = network(images.detach().requires_grad_())
            score = logits.gather(1, classes[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, outputs[0])
    finally:
        handle.remove()
    features, gradient = outputs[0].detach().float(), gradient.float()
    heat = F.relu((features * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1))
    peak = heat.amax(dim=(1, 2), keepdim=True)
    heat = heat / torch.where(peak > 0, peak, 1)
    return F.interpolate(heat[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend a (C, H, W) uint8 image in grey with the colours of its (H, W) heat map; returns (3, H, W) uint8."""
    grey = image.mean(axis=0) if len(image) == 3 else image[0].astype(np.float64)
    position = heat.astype(np.float64).clip(0, 1) * (len(_COLOURS) - 1)
    colours = np.stack([np.interp(position, np.arange(len(_COLOURS)), channel) for channel in _COLOURS.T])
    return np.rint((1 - _OPACITY) * grey + _OPACITY * colours).astype(np.uint8)
