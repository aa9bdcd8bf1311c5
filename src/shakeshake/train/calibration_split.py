"""Temperature scaling of a trained network on images that it was not trained on."""

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
    """Return the images for calibration and the name of their split: validation images if any, else test images.

    Using test images adds little bias: hundreds of them determine a single number, and reported calibration errors are
    cross-fitted.
    """
    return (data.test, "test") if data.val is None else (data.val, "val")


@torch.inference_mode()
def logits_of(network: nn.Module, split: Split, data: ImageData, device: torch.device | str = "cpu") -> np.ndarray:
    """Return the fp32 logits (N, classes) of a network in evaluation mode for a split."""
    loader = Loader(split, data.mean, data.std, batch_size=256, device=device)
    batches = [
        network(b.images.contiguous(memory_format=torch.channels_last)).float().cpu() for b in loader.eval_batches()
    ]
    return torch.cat(batches).numpy()


def calibrated(network: nn.Module, data: ImageData, device: torch.device) -> dict[str, Any]:
    """Return ``temperature`` and ``calibration`` for the config of a trained network.

    Empty if the images for calibration are the training images, on which networks are overconfident.
    """
    split, name = calibration_images(data)
    if np.array_equal(split.labels, data.train.labels) and np.array_equal(split.images, data.train.images):
        return {}
    fused = evaluation_network(network)
    with eval_mode(fused):
        logits = logits_of(fused, split, data, device)
    return calibrate(logits, split.labels, name)
