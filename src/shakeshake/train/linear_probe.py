"""Linear probe: logistic regression on the features of a frozen network, as the initial last layer."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.dataset import ImageData, Split
from ..data.loader import Loader
from ..data.subset import stratified_subset
from ..errors import InputError
from ..models.head import find_head
from ..utils.extras import require
from ..utils.modes import eval_mode

logger = logging.getLogger(__name__)

STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # C of scikit-learn, for standardised features
VALIDATION = 5  # every fifth training image is held out if the data has no validation images
ITERATIONS = 300


@dataclass(frozen=True)
class Probe:
    """A fitted last layer.

    Attributes:
        weight: (classes, features) float64, for features as the network computes them.
        bias: (classes,) float64.
        strength: The chosen C, the inverse of the regularisation.
        error: Validation error in % with it.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    error: float


def probe_head(network: nn.Module, data: ImageData, device: torch.device) -> Probe:
    """Fit the last layer of a network by logistic regression, and set its weights.

    The training images pass through the network once, without augmentation and in evaluation mode. The strength of the
    regularisation is chosen on the validation images, or on a fifth of the training images; the test images are not
    used. The final fit is to all training images.

    Args:
        network: The network; only its last layer is changed.
        data: The images.
        device: Where the network is.

    Raises:
        InputError: scikit-learn is not installed, or the last layer is not linear.
    """
    require("sklearn.linear_model", "train")
    head: Any = network.get_submodule(find_head(network, data.num_classes))
    if head.bias is None:
        raise InputError("probe: the last layer has no bias, expected one")
    train = _features(network, head, data.train, data, device)
    val = None if data.val is None else _features(network, head, data.val, data, device)
    probe = fit_probe(train, data.train.labels, val, None if data.val is None else data.val.labels, data.num_classes)
    with torch.no_grad():
        for parameter, values in ((head.weight, probe.weight), (head.bias, probe.bias)):
            parameter.copy_(torch.from_numpy(values).reshape(parameter.shape))
    logger.info("linear probe: validation error %.2f %%, C %g", probe.error, probe.strength)
    return probe


def fit_probe(
    features: np.ndarray, labels: np.ndarray, val: np.ndarray | None, val_labels: np.ndarray | None, num_classes: int
) -> Probe:
    """Fit a logistic regression, with its regularisation chosen by the validation error, then the validation loss.

    Args:
        features: (N, F) of the training images.
        labels: (N,) int64.
        val: (M, F) of the validation images; None to hold out a fifth of the training images.
        val_labels: (M,) int64.
        num_classes: Number of classes.

    Raises:
        InputError: A class has too few images to hold one out.
    """
    labels = np.asarray(labels)
    mean, std = features.mean(axis=0), features.std(axis=0)
    std = np.where(std > 1e-8, std, 1.0)
    scaled = (features - mean) / std
    if val is None or val_labels is None:
        if np.bincount(labels, minlength=num_classes).min() < 2:
            raise InputError("probe: a class has one training image and there are no validation images, expected two")
        held_out = np.zeros(len(labels), bool)
        held_out[stratified_subset(labels, max(num_classes, len(labels) // VALIDATION), seed=0)] = True
        parts = scaled[~held_out], labels[~held_out], scaled[held_out], labels[held_out]
    else:
        parts = scaled, labels, (val - mean) / std, np.asarray(val_labels)
    fit_x, fit_y, val_x, val_y = parts
    measured = {}
    for strength in STRENGTHS:
        weight, bias = _regression(fit_x, fit_y, strength, num_classes)
        logits = torch.from_numpy(val_x @ weight.T + bias)
        error = 100.0 * float((logits.argmax(dim=1).numpy() != val_y).mean())
        measured[strength] = error, float(F.cross_entropy(logits, torch.from_numpy(val_y)))
    best = min(STRENGTHS, key=lambda strength: measured[strength])
    weight, bias = _regression(scaled, labels, best, num_classes)
    weight = weight / std
    return Probe(weight, bias - weight @ mean, best, measured[best][0])


def _regression(x: np.ndarray, y: np.ndarray, strength: float, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (classes, F) and biases (classes,); a class without images has a bias that excludes it."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    fitted: Any = LogisticRegression(C=strength, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak regularisation, which validation judges
        fitted.fit(x, y)
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # one logit, as the difference of two
        coefficients, intercepts = (np.concatenate([-part, part]) / 2 for part in (coefficients, intercepts))
    weight, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, -1e3)
    weight[fitted.classes_], bias[fitted.classes_] = coefficients, intercepts
    return weight, bias


@torch.no_grad()
def _features(network: nn.Module, head: nn.Module, split: Split, data: ImageData, device: torch.device) -> np.ndarray:
    """Inputs (N, F) of the last layer, float64."""
    collected: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: collected.append(inputs[0].float().cpu()))
    try:
        with eval_mode(network):
            for batch in Loader(split, data.mean, data.std, batch_size=256, device=device).eval_batches():
                network(batch.images)
    finally:
        handle.remove()
    features = torch.cat(collected)
    if features[0].numel() != features.shape[1] or len(features) != len(split.labels):
        raise InputError(
            f"probe: the last layer reads shape {tuple(features.shape[1:])} for an image, expected one vector"
        )
    return features.flatten(1).double().numpy()
