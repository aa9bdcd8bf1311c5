"""The format safetensors: a folder in the layout of the Hugging Face hub, with a model card."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from ..analysis.calibration import reliability
from ..inference.calibration import cross_fitted, probabilities
from ..models.model import CONFIG, WEIGHTS, load
from ..models.weights import sha256, weights_as_bytes
from ..train.calibration_split import logits_of
from .model_card import CARD, Measured, model_card
from .registry import TOLERANCE, ExportSource, register_format

HALF_TOLERANCE = 1e-2  # of a probability, for weights in float16


@register_format("safetensors", "huggingface", files=(WEIGHTS, CONFIG, CARD))
def to_huggingface(source: ExportSource, *, half: bool = False) -> dict[str, bytes]:
    """model.safetensors, config.json and README.md, loaded back and compared with PyTorch.

    half: store the weights in float16.
    """
    model = source.model
    weights = weights_as_bytes(model.network, half=half)
    config = {**model.config, "weights_sha256": sha256(weights), "licence": source.licence}
    files = {
        WEIGHTS: weights,
        CONFIG: json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n",
        CARD: model_card(source.run, config, measure(source), source.licence).encode("utf-8", "replace"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        loaded = load(folder)
    source.check(
        lambda images: loaded.predict(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy(),
        "the float16 copy" if half else "the copy that was loaded back",
        HALF_TOLERANCE if half else TOLERANCE,
    )
    return files


def measure(source: ExportSource) -> Measured:
    """Error and calibration over the test images, for the model card."""
    run, model = source.run, source.model
    test = run.data.test
    logits = logits_of(run.network, test, run.data)
    if model.config.get("calibration", {}).get("split") == "test":  # no image may be judged by its own temperature
        calibrated = cross_fitted(logits, test.labels)
    else:
        calibrated = probabilities(logits, model.temperature)
    return Measured(
        error=100 * float((logits.argmax(axis=1) != test.labels).mean()),
        images=len(test.labels),
        ece=reliability(probabilities(logits), test.labels).ece,
        ece_calibrated=reliability(calibrated, test.labels).ece,
    )
