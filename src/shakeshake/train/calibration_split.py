"""The images that a network was not trained on and that its temperature is fitted to; a network's logits of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.dataset import ImageData, Split
from ..data.loader import Loader
from ..inference.calibration import calibrate
from ..inference.fuse import evaluation_network
from ..utils.modes import eval_mode


def calibration_images(data: ImageData) -> tuple[Split, str]:
    """The validation images where there are some, else the test images; and the name of the split.

    Test images are no choice to be proud of, but a network that was trained on all others has none left: one number is
    learned from hundreds of them, and what it is worth is told by cross-fitting, in which no image judges itself.
    """
    return (data.test, "test") if data.val is None else (data.val, "val")


@torch.inference_mode()
def logits_of(network: nn.Module, split: Split, data: ImageData, device: torch.device | str = "cpu") -> np.ndarray:
    """(N, classes) float32 of a split's images, in fp32, by a network in evaluation mode."""
    loader = Loader(split, data.mean, data.std, batch_size=256, device=device)
    found = [
        network(b.images.contiguous(memory_format=torch.channels_last)).float().cpu() for b in loader.eval_batches()
    ]
    return torch.cat(found).numpy()


def calibrated(network: nn.Module, data: ImageData, device: torch.device) -> dict[str, Any]:
    """``temperature`` and ``calibration`` of a trained network, as its config.json has them.

    Nothing where the network was trained on the very images: it is surer of these than of any others.
    """
    split, name = calibration_images(data)
    if np.array_equal(split.labels, data.train.labels) and np.array_equal(split.images, data.train.images):
        return {}
    tested = evaluation_network(network)
    with eval_mode(tested):
        logits = logits_of(tested, split, data, device)
    return calibrate(logits, split.labels, name)
