"""Export formats: one function each, registered by name, and the trained run that such a function gets."""

from __future__ import annotations

import functools
import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from ..data.dataset import Split
from ..errors import InputError, RunError
from ..inference.pipeline import InferencePipeline
from ..models.model import TrainedModel
from ..train.open_run import TrainedRun

logger = logging.getLogger(__name__)

CHECK_IMAGES = 1_000  # test images on which an export is compared with PyTorch
TOLERANCE = 1e-4  # of a probability; rounding is a hundredth of it

Content = bytes | Mapping[str, bytes]
Function = TypeVar("Function", bound=Callable[..., Content])


@dataclass(frozen=True)
class ExportSource:
    """A finished run, as the functions that export it get it.

    Attributes:
        run: The run with its images and its network.
        model: The trained model.
        licence: Licence identifier that the user gave, or "unknown".
    """

    run: TrainedRun
    model: TrainedModel
    licence: str

    @functools.cached_property
    def pipeline(self) -> InferencePipeline:
        """Module from images (N, H, W, C) uint8 to calibrated probabilities (N, classes) float32, with fused layers."""
        return InferencePipeline(self.model)

    @property
    def metadata(self) -> dict[str, str]:
        """Texts about the model to keep in the exported file."""
        config = self.model.config
        size = config["image_size"]
        return {
            "format": "shakeshake/1",
            "model": config["model"],
            "classes": json.dumps(self.model.classes, ensure_ascii=False),
            "preprocessing": f"{'RGB' if config['in_channels'] == 3 else 'grey'}, upright, the middle square resized "
            f"to {size} x {size} pixels (antialiased bicubic), uint8, (batch, height, width, channel)",
            "temperature": repr(self.model.temperature),
            "weights_sha256": config.get("weights_sha256", ""),
            "test_error": repr(config.get("test_error")),
            "licence": self.licence,
        }

    def check(self, predict: Callable[[np.ndarray], np.ndarray], name: str, tolerance: float = TOLERANCE) -> None:
        """Compare an export with the model in PyTorch over test images, and log the difference.

        Args:
            predict: Runs the export: images (N, H, W, C) uint8 to probabilities (N, classes).
            name: What ran it, for messages.
            tolerance: Largest difference of a probability.

        Raises:
            RunError: The difference is larger, or probabilities are not finite.
        """
        images = sample(self.run.data.test, CHECK_IMAGES).images
        difference, changed = max_abs_diff(self.model, images, predict)
        if not difference <= tolerance:
            raise RunError(
                f"export: {name} differs from PyTorch by {difference:.2g} in a probability over {len(images):,} test "
                f"images (another class for {changed:,}), expected at most {tolerance:g}; nothing was written"
            )
        logger.info(
            f"compared with PyTorch over {len(images):,} test images: {name} differs by at most {difference:.1e} in a "
            f"probability and predicts another class for {changed or 'none'} of them"
        )


@dataclass(frozen=True)
class ExportFormat:
    """A registered format; see ``register_format``."""

    name: str
    function: Callable[..., Content]
    file_name: str | Callable[..., str]
    files: Sequence[str]

    @property
    def options(self) -> tuple[str, ...]:
        """The keyword parameters of the function."""
        return tuple(inspect.signature(self.function).parameters)[1:]

    def default_name(self, options: Mapping[str, Any]) -> str:
        """Name of the exported file or folder within the run directory."""
        return self.file_name if isinstance(self.file_name, str) else self.file_name(**options)


FORMATS: dict[str, ExportFormat] = {}


def register_format(
    name: str, file_name: str | Callable[..., str] | None = None, *, files: Sequence[str] = ()
) -> Callable[[Function], Function]:
    """Register an export format, as a decorator of the function that produces it.

    The function gets an ``ExportSource`` and, as keyword parameters with defaults, options of the format. It returns
    the content of the file, or for a folder a dict of file name to content. It should read back what it made and pass
    it to ``source.check``. ``export_run(run, name)`` and ``shakeshake export --format`` then know the format::

        @ss.register_format("npz")
        def to_npz(source):
            buffer = io.BytesIO()
            np.savez(buffer, **{name: w.numpy() for name, w in source.model.network.state_dict().items()})
            return buffer.getvalue()

    Args:
        name: Name of the format.
        file_name: Default name of the export within the run directory; ``model.NAME`` where it is None. A function of
            the options may choose it.
        files: Names of the files, where the export is a folder.
    """

    def register(function: Function) -> Function:
        FORMATS[name] = ExportFormat(name, function, file_name or f"model.{name}", files)
        return function

    return register


def find_format(name: str, options: Mapping[str, Any]) -> ExportFormat:
    """Look up a format and check that it has these options.

    Raises:
        InputError: The format is unknown or does not have an option.
    """
    if name not in FORMATS:
        raise InputError(f"format: got {name!r}, expected one of {', '.join(sorted(FORMATS))}")
    for option in options:
        if option not in FORMATS[name].options:
            others = [known.name for known in FORMATS.values() if option in known.options]
            expected = f"expected --format {' or '.join(others)}" if others else "expected no such option"
            raise InputError(f"{option}: got it with the format {name}, {expected}")
    return FORMATS[name]


def max_abs_diff(
    model: TrainedModel, images: np.ndarray, predict: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, int]:
    """Compare an export with the model in PyTorch, whose layers are not fused.

    Args:
        model: The trained model.
        images: (N, C, H, W) uint8.
        predict: Runs the export: images (N, H, W, C) uint8 to probabilities (N, classes).

    Returns:
        The largest difference of a probability (infinite for another shape or values that are not finite), and the
        number of images for which the predicted class differs by more than rounding.
    """
    ours = torch.cat([model.predict(batch) for batch in torch.from_numpy(images).split(256)]).numpy()
    theirs = predict(channels_last(images))
    if theirs.shape != ours.shape or not np.isfinite(theirs).all():
        return float("inf"), len(images)
    # Ties are not a difference: the export's class must be behind ours by more than the tolerance.
    behind = ours.max(axis=1) - np.take_along_axis(ours, theirs.argmax(axis=1)[:, None], axis=1)[:, 0]
    return float(np.abs(ours - theirs).max()), int((behind > TOLERANCE).sum())


def sample(split: Split, count: int) -> Split:
    """At most ``count`` images, evenly spaced over the split, so that a split ordered by class keeps all classes."""
    at = np.unique(np.linspace(0, len(split.labels) - 1, min(count, len(split.labels))).round().astype(np.int64))
    return Split(np.ascontiguousarray(split.images[at]), split.labels[at])


def channels_last(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as (N, H, W, C)."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
