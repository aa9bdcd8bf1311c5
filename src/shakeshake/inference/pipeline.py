"""Deployed: what is exported, and what predicts here: images as they are decoded in, probabilities out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..models.model import TrainedModel
from ..utils.pixels import normalize
from .fuse import fuse


class Deployed(nn.Module):
    """The fused network between its preprocessing and its probabilities, for evaluation only.

    images: (N, H, W, C) uint8, as decoders give them. Returns probabilities (N, classes), float32: the softmax of the
    logits divided by the temperature. ``flips``: the mean of those of the image and of its mirror image.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: TrainedModel, flips: bool = False) -> None:
        super().__init__()
        self.network = fuse(model.network)
        self.temperature, self.flips = model.temperature, flips
        size = model.config["image_size"]
        self.image_shape = (size, size, model.config["in_channels"])
        for name in ("mean", "std"):
            self.register_buffer(name, copy.deepcopy(getattr(model, name)))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        x = normalize(images.permute(0, 3, 1, 2), self.mean, self.std)
        found = self._probabilities(x)
        return (found + self._probabilities(x.flip(3))) / 2 if self.flips else found

    def _probabilities(self, x: Tensor) -> Tensor:
        return (self.network(x) / self.temperature).softmax(dim=1)

    def example(self) -> Tensor:
        """Two black images, for exporters: what is traced may be kept in the file, and nobody's photo should be."""
        return torch.zeros(2, *self.image_shape, dtype=torch.uint8)

    @torch.inference_mode()
    def run(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """Probabilities on the CPU of images on the CPU, in batches, on the device where this is."""
        device = self.mean.device
        return torch.cat([self(part.to(device)).cpu() for part in images.split(batch_size)])
