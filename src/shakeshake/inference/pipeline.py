"""The whole way from decoded images to calibrated probabilities, as one module for prediction and export."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..models.model import TrainedModel
from ..utils.pixels import normalize
from .fuse import fuse


class InferencePipeline(nn.Module):
    """Preprocessing, the fused network, and the softmax of its logits divided by the temperature. Evaluation only.

    ``pipeline(images)`` takes uint8 images (N, H, W, C), as decoders return them, and returns probabilities
    (N, classes), float32.

    Args:
        model: A trained model. It is not changed.
        hflip_tta: Whether to average the probabilities of each image and its mirror image (test-time augmentation).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: TrainedModel, hflip_tta: bool = False) -> None:
        super().__init__()
        self.network = fuse(model.network)
        self.temperature, self.hflip_tta = model.temperature, hflip_tta
        size = model.config["image_size"]
        self.image_shape = (size, size, model.config["in_channels"])
        for name in ("mean", "std"):
            self.register_buffer(name, copy.deepcopy(getattr(model, name)))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (N, C, H, W) to probabilities (N, classes)."""
        x = normalize(images.permute(0, 3, 1, 2), self.mean, self.std)
        probabilities = self._probabilities(x)
        return (probabilities + self._probabilities(x.flip(3))) / 2 if self.hflip_tta else probabilities

    def _probabilities(self, x: Tensor) -> Tensor:
        return (self.network(x) / self.temperature).softmax(dim=1)

    def example(self) -> Tensor:
        """Two black images for exporters. Traced inputs may end up in the file, so real images must not be used."""
        return torch.zeros(2, *self.image_shape, dtype=torch.uint8)

    @torch.inference_mode()
    def run(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """Probabilities on the CPU of images on the CPU, computed in batches on the pipeline's device."""
        device = self.mean.device
        return torch.cat([self(batch.to(device)).cpu() for batch in images.split(batch_size)])
