"""TrainedModel: a network with its classes and preprocessing, loaded from model.safetensors and config.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..utils.console import escape
from ..utils.modes import eval_mode
from ..utils.pixels import channel_tensor, normalize
from .config import read_config
from .origin import Origin
from .registry import register_module
from .weights import network_of, read_weights

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


class TrainedModel(nn.Module):
    """A network with its preprocessing.

    ``model(images)`` takes uint8 images (N, C, H, W) and returns logits (N, classes) in the network's dtype;
    ``model.predict(images)`` returns probabilities in float32.

    Args:
        network: The network.
        config: The content of config.json.

    Attributes:
        classes: Names of the outputs, in order.
        temperature: Divisor of the logits that calibrates the probabilities; 1 if none was fitted.
        config: The content of config.json.

    Raises:
        InputError: From the calls, if the images have another shape or dtype.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, config: dict[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.classes: tuple[str, ...] = tuple(config["classes"])
        self.temperature = float(config.get("temperature", 1.0))
        for name in ("mean", "std"):
            self.register_buffer(name, channel_tensor(config[name]), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (N, C, H, W) to logits (N, classes)."""
        if images.dtype != torch.uint8:
            raise InputError(f"images: dtype is {images.dtype}, expected torch.uint8")
        expected = (self.config["in_channels"], self.config["image_size"], self.config["image_size"])
        if images.dim() != 4 or tuple(images.shape[1:]) != expected:
            raise InputError(f"images: shape is {tuple(images.shape)}, expected (N, {', '.join(map(str, expected))})")
        x = normalize(images, self.mean, self.std)
        return self.network(x.to(next(self.network.parameters()).dtype))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return probabilities (N, classes), in evaluation mode.

        Args:
            images: uint8, (N, C, H, W).
        """
        with eval_mode(self):
            return (self(images).float() / self.temperature).softmax(dim=1)


def load(
    path: str | Path, device: str | torch.device = "cpu", *, model: nn.Module | Callable[..., nn.Module] | None = None
) -> TrainedModel:
    """Load a trained model from a run directory, or any folder with model.safetensors and config.json.

    Nothing in the files is executed or trusted: weights are read in the safetensors format, and their SHA-256 must be
    the one in config.json.

    Args:
        path: The folder.
        device: Where to put the model.
        model: The network of a run that was trained with your own network, as a module or a factory (see
            register_model). Needed unless the module that registers it has been imported.

    Returns:
        The model in evaluation mode.

    Raises:
        InputError: If the folder holds no model, the run is unfinished, the files are damaged, changed or in another
            format, or the network is not registered.
    """
    folder = Path(path)
    check_finished(folder)
    config = read_config(folder / CONFIG, registered=model is None)
    if model is not None:
        register_module(model, config["model"])
    tensors, digest = read_weights(folder / WEIGHTS)
    if digest != config.get("weights_sha256", digest):
        raise InputError(
            f"run: {escape(folder / WEIGHTS)} is not the file that {CONFIG} describes (its SHA-256 is "
            f"{digest[:12]}..., expected {config['weights_sha256'][:12]}...): one of the two was changed or replaced"
        )
    network = network_of(
        tensors,
        config["model"],
        folder / WEIGHTS,
        num_classes=len(config["classes"]),
        rule=config["rule"],
        in_channels=config["in_channels"],
        image_size=config["image_size"],
        **config.get("options", {}),
        **({"origin": Origin.from_dict(config["origin"])} if "origin" in config else {}),
    )
    model = TrainedModel(network, config)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().to(device)


def check_finished(folder: Path) -> None:
    """Raise InputError, with what the folder is instead, unless it holds the two files of a trained model."""
    name = escape(folder)
    if folder.suffix.lower() in PICKLED and folder.is_file():
        raise InputError(
            f"run: {name} may be a pickle, which could execute code and is not opened; expected a folder with {WEIGHTS}"
        )
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"run: {name} {problem}, expected the folder of a finished run")
    missing = next((file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()), None)
    if missing and (folder / "recipe.json").is_file() and not (folder / "result.json").exists():
        raise InputError(
            f"run: {name} is not finished and holds no {missing}, expected a finished run; "
            f"resume it with: shakeshake resume {name}"
        )
    if missing:
        raise InputError(f"run: {name} holds no {missing}, expected the folder of a finished run")
