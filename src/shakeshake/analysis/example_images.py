"""Example images of an analysis: confident mistakes, frequent confusions and Grad-CAM heat maps."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ..train.open_run import TrainedRun
from ..utils.pixels import channel_tensor, normalize
from .calibration import confusion_matrix, most_confident_mistakes
from .gradcam import grad_cam, overlay
from .schema import Confusion, Example, GradCam

MAX_SIDE = 80
"""Longest side of an embedded picture in pixels; a page holds many of them."""
CONFUSIONS, IMAGES_PER_CONFUSION = 4, 4
GRADCAM_IMAGES = 4
"""Grad-CAM pictures of right predictions, and as many of wrong ones."""


def mistakes(opened: TrainedRun, split: str, probabilities: np.ndarray) -> tuple[Example, ...]:
    """The most confident wrong predictions.

    Args:
        opened: the run.
        split: name of the split that ``probabilities`` (N, classes) belong to.
        probabilities: of all images of the split, in order.
    """
    labels = opened.split(split).labels
    return tuple(
        replace(example(opened, split, probabilities, i), truth_probability=float(probabilities[i, labels[i]]))
        for i in most_confident_mistakes(probabilities, labels).tolist()
    )


def confusions(opened: TrainedRun, split: str, probabilities: np.ndarray) -> tuple[Confusion, ...]:
    """The most frequent confusions of two classes with their most confident images. Arguments as in mistakes()."""
    labels, predicted = opened.split(split).labels, probabilities.argmax(axis=1)
    counts = confusion_matrix(predicted, labels, opened.data.num_classes)
    np.fill_diagonal(counts, 0)
    found = []
    for flat in np.argsort(-counts, axis=None, kind="stable")[:CONFUSIONS]:
        truth, other = (int(k) for k in np.unravel_index(flat, counts.shape))
        if counts[truth, other]:
            indices = np.flatnonzero((labels == truth) & (predicted == other))
            indices = indices[np.argsort(-probabilities[indices, other], kind="stable")][:IMAGES_PER_CONFUSION]
            images = tuple(example(opened, split, probabilities, i) for i in indices.tolist())
            found.append(Confusion(truth, other, int(counts[truth, other]), images))
    return tuple(found)


def gradcam_examples(opened: TrainedRun, split: str, probabilities: np.ndarray) -> GradCam | None:
    """Grad-CAM of the predicted class for some right predictions and the most confident wrong ones.

    Taken at the last stage, or at the last convolution of a network without ``stages``. None if there is neither.
    Arguments as in mistakes().
    """
    layer = _last_feature_layer(opened.network)
    part, predicted = opened.split(split), probabilities.argmax(axis=1)
    wrong = most_confident_mistakes(probabilities, part.labels, GRADCAM_IMAGES)
    right = np.flatnonzero(predicted == part.labels)
    chosen = [*_spread_over_classes(right, part.labels, GRADCAM_IMAGES), *wrong.tolist()]
    if layer is None or not chosen:
        return None
    pixels = torch.from_numpy(np.ascontiguousarray(part.images[chosen])).to(opened.device)
    mean, std = (channel_tensor(v, pixels.device) for v in (opened.data.mean, opened.data.std))
    classes = torch.from_numpy(predicted[chosen]).to(opened.device)
    heat = grad_cam(opened.network, normalize(pixels, mean, std), classes, layer).cpu().numpy()
    images = tuple(
        replace(example(opened, split, probabilities, i), heat=encode_png(overlay(part.images[i], one)))
        for i, one in zip(chosen, heat, strict=True)
    )
    return GradCam(layer, images)


def example(opened: TrainedRun, split: str, probabilities: np.ndarray, i: int) -> Example:
    """Image i of a split with its prediction."""
    part = opened.split(split)
    return Example(
        index=int(i),
        truth=int(part.labels[i]),
        predicted=int(probabilities[i].argmax()),
        probability=float(probabilities[i].max()),
        png=encode_png(part.images[i]),
    )


def encode_png(image: np.ndarray) -> str:
    """A (C, H, W) uint8 image as base64 of a PNG with at most MAX_SIDE pixels a side."""
    from PIL import Image  # the other analyses do without

    pixels = np.asarray(image)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    if max(picture.size) > MAX_SIDE:
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _last_feature_layer(network: nn.Module) -> str | None:
    stages = getattr(network, "stages", None)
    if isinstance(stages, nn.Module) and len(list(stages.children())):
        return f"stages.{len(list(stages.children())) - 1}"
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    return convolutions[-1] if convolutions else None


def _spread_over_classes(indices: np.ndarray, labels: np.ndarray, limit: int) -> list[int]:
    """Some of the indices, of as many classes as possible, drawn at random with a fixed seed."""
    drawn = np.random.default_rng(0).permutation(indices)
    _, first = np.unique(labels[drawn], return_index=True)
    rest = np.setdiff1d(np.arange(len(drawn)), first)
    return [int(i) for i in drawn[np.concatenate([np.sort(first), rest])][:limit]]
