"""A trained network with its classes and preprocessing: written as model.safetensors + config.json, and loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import InputError
from .registry import create_model

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class TrainedModel(nn.Module):
    """A network behind its preprocessing.

    classes: the names of the outputs, in order.
    config: what was written beside the weights (model, rule, classes, mean, std, image size, channels, errors).

    ``model(images)`` takes uint8 images (N, C, H, W) and returns logits (N, classes); ``model.predict(images)``
    returns probabilities. Raises InputError for images of another shape or dtype.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, config: dict[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.classes: tuple[str, ...] = tuple(config["classes"])
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name], dtype=torch.float32)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8:
            raise InputError(f"images: dtype is {images.dtype}, expected torch.uint8")
        expected = (self.config["in_channels"], self.config["image_size"], self.config["image_size"])
        if images.dim() != 4 or tuple(images.shape[1:]) != expected:
            raise InputError(f"images: shape is {tuple(images.shape)}, expected (N, {', '.join(map(str, expected))})")
        return self.network((images.float() - self.mean) / self.std)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Probabilities (N, classes) of uint8 images (N, C, H, W), with the network in evaluation mode."""
        training = self.training
        self.eval()
        try:
            return self(images).softmax(dim=1)
        finally:
            self.train(training)


def weights_as_bytes(network: nn.Module) -> bytes:
    """The network's parameters and buffers in the safetensors format."""
    return save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()})


def describe(
    model: str,
    rule: str,
    *,
    classes: Sequence[str],
    in_channels: int,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What config.json holds: enough to build the network again and to feed it.

    options: what the network was built with beside these, such as ``{"skip_shift": "mirrored"}``.
    """
    return {
        "format": "shakeshake/1",
        "model": model,
        "rule": rule,
        "classes": list(classes),
        "in_channels": in_channels,
        "image_size": image_size,
        "mean": list(mean),
        "std": list(std),
        **({"options": dict(options)} if options else {}),
        **more,
    }


def load(path: str | Path, device: str | torch.device = "cpu") -> TrainedModel:
    """A trained model from a run directory (or any folder with model.safetensors and config.json), ready to use.

    Returned in evaluation mode. Raises InputError when there is none, or when its files are damaged or not ours.
    """
    folder = Path(path)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"run: {folder} holds no {name}, expected the folder of a finished run")
    try:
        config = json.loads((folder / CONFIG).read_text())
        network = create_model(
            config["model"],
            num_classes=len(config["classes"]),
            rule=config["rule"],
            in_channels=config["in_channels"],
            image_size=config["image_size"],
            **config.get("options", {}),
        )
        model = TrainedModel(network, config)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"run: {folder / CONFIG} is damaged or not ours ({type(error).__name__}: {error})") from None
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"run: {folder / WEIGHTS} is damaged or of another network ({reason})") from None
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().to(device)
