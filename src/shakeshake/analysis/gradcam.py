"""Where a network looked: Grad-CAM (Selvaraju et al., 2017, equations 1 and 2), by hooks on any network of images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..utils.modes import eval_mode

# Dark to light through hues that differ for most eyes; a picture in greys lies under it.
_COLOURS = np.array([(12, 7, 60), (100, 15, 110), (190, 50, 80), (245, 125, 20), (252, 235, 120)], np.float64)
_STRENGTH = 0.55


def grad_cam(network: nn.Module, images: Tensor, classes: Tensor, layer: str) -> Tensor:
    """Heat maps (N, H, W) from 0 to 1: what in a layer's feature maps speaks for a class.

    Each feature map is weighted by the mean of the gradient of the class's logit over it; what is left of their sum
    above 0 is scaled to a maximum of 1 for each image (all 0 where nothing speaks for the class) and to the size of the
    image. The network, in evaluation mode, is left as it was found.

    images: (N, C, H, W) as the network takes them. classes: (N,) int64. layer: the name of a module whose output is
    (N, channels, height, width). Raises InputError when there is no such module.
    """
    try:
        module = network.get_submodule(layer)
    except AttributeError:
        raise InputError(f"layer: {layer!r} is no module of the network, expected one such as stages.2") from None
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        with eval_mode(network), torch.enable_grad():
            logits = network(images.detach().requires_grad_())
            chosen = logits.gather(1, classes[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, seen[0])
    finally:
        handle.remove()
    features, gradient = seen[0].detach().float(), gradient.float()
    heat = F.relu((features * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1))
    most = heat.amax(dim=(1, 2), keepdim=True)
    heat = heat / torch.where(most > 0, most, 1)
    return F.interpolate(heat[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def blended(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture (C, H, W) uint8 in greys under the colours of its heat map (H, W), as (3, H, W) uint8."""
    grey = image.mean(axis=0) if len(image) == 3 else image[0].astype(np.float64)
    at = heat.astype(np.float64).clip(0, 1) * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    colours = np.stack([np.interp(at, stops, channel) for channel in _COLOURS.T])
    return np.rint((1 - _STRENGTH) * grey + _STRENGTH * colours).astype(np.uint8)
