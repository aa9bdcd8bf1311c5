"""Test images that show what a network does: mistakes it was sure of, the largest confusions, where it looked."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..train.open_run import TrainedRun
from ..utils.pixels import channel_tensor, normalize
from . import calibration
from .gradcam import blended, grad_cam

LARGEST = 80  # pixels of a picture's side: a page has many of them
CONFUSIONS, EACH = 4, 4
LOOKED = 4  # pictures of right predictions, and as many of wrong ones


def mistakes(opened: TrainedRun, split: str, probabilities: np.ndarray) -> list[dict[str, Any]]:
    """The images that the network was most sure of and wrong about."""
    labels = opened.split(split).labels
    return [
        {**_said(opened, split, probabilities, i), "truth_probability": float(probabilities[i, labels[i]])}
        for i in calibration.most_confident_mistakes(probabilities, labels).tolist()
    ]


def confusions(opened: TrainedRun, split: str, probabilities: np.ndarray) -> list[dict[str, Any]]:
    """The most frequent confusions of two classes, each with a few of its images, the surest first."""
    labels, predicted = opened.split(split).labels, probabilities.argmax(axis=1)
    counts = calibration.confusion(predicted, labels, opened.data.num_classes)
    np.fill_diagonal(counts, 0)
    found = []
    for place in np.argsort(-counts, axis=None, kind="stable")[:CONFUSIONS]:
        truth, taken = (int(k) for k in np.unravel_index(place, counts.shape))
        if counts[truth, taken]:
            at = np.flatnonzero((labels == truth) & (predicted == taken))
            at = at[np.argsort(-probabilities[at, taken], kind="stable")][:EACH]
            images = [_said(opened, split, probabilities, i) for i in at.tolist()]
            found.append({"truth": truth, "predicted": taken, "count": int(counts[truth, taken]), "images": images})
    return found


def looked(opened: TrainedRun, split: str, probabilities: np.ndarray) -> dict[str, Any] | None:
    """Grad-CAM for the predicted class, at the last stage, of some right predictions and the surest wrong ones.

    None for a network without stages.
    """
    if not hasattr(opened.network, "stages"):
        return None
    part = opened.split(split)
    predicted = probabilities.argmax(axis=1)
    wrong = calibration.most_confident_mistakes(probabilities, part.labels, LOOKED)
    chosen = [*_one_of_each(np.flatnonzero(predicted == part.labels), part.labels, LOOKED), *wrong.tolist()]
    if not chosen:
        return None
    layer = f"stages.{len(opened.network.stages) - 1}"  # type: ignore[arg-type]
    pixels = torch.from_numpy(np.ascontiguousarray(part.images[chosen])).to(opened.device)
    mean, std = (channel_tensor(v, pixels.device) for v in (opened.data.mean, opened.data.std))
    classes = torch.from_numpy(predicted[chosen]).to(opened.device)
    heat = grad_cam(opened.network, normalize(pixels, mean, std), classes, layer).cpu().numpy()
    images = [
        {**_said(opened, split, probabilities, i), "heat": png(blended(part.images[i], one))}
        for i, one in zip(chosen, heat, strict=True)
    ]
    return {"layer": layer, "images": images}


def _one_of_each(at: np.ndarray, labels: np.ndarray, most: int) -> list[int]:
    """Some of the indices, of as many classes as there are: drawn, so that nobody picked them, and always the same."""
    drawn = np.random.default_rng(0).permutation(at)
    _, first = np.unique(labels[drawn], return_index=True)
    rest = np.setdiff1d(np.arange(len(drawn)), first)
    return [int(i) for i in drawn[np.concatenate([np.sort(first), rest])][:most]]


def _said(opened: TrainedRun, split: str, probabilities: np.ndarray, i: int) -> dict[str, Any]:
    part = opened.split(split)
    return {
        "index": int(i),
        "truth": int(part.labels[i]),
        "predicted": int(probabilities[i].argmax()),
        "probability": float(probabilities[i].max()),
        "png": png(part.images[i]),
    }


def png(image: Sequence[Any] | np.ndarray) -> str:
    """A (C, H, W) uint8 image as base64 of a PNG of at most LARGEST pixels a side."""
    pixels = np.asarray(image)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
