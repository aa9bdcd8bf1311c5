"""Figures of a run: result.json, metrics.jsonl and evaluations. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..utils.schema import JsonSchema, Percent


@dataclass(frozen=True, kw_only=True)
class FitResult(JsonSchema):
    """The outcome of a finished run, as ``result.json`` holds it. Errors and accuracies are in %.

    Attributes:
        last_error: Test error after the last epoch.
        last_balanced_error: Mean over classes of the test error after the last epoch.
        best_error: Lowest test error of any epoch.
        best_epoch: Epoch of ``best_error``, from 1.
        last_train_error: Error on the training images of the last epoch, measured during training (augmented, with
            shaking).
        epochs: Number of epochs.
        steps: Number of optimiser steps.
        seconds: Time of all epochs, including evaluation.
        train_images, test_images: Number of images.
        parameters: Number of parameters of the network.
        precision: fp32 or bf16.
        data_fingerprint: Hash of the images and labels.
        path: The run directory. Not part of the file.
    """

    last_error: Percent
    last_balanced_error: Percent | None = None
    best_error: Percent
    best_epoch: int
    last_train_error: Percent
    epochs: int
    steps: int
    seconds: float
    train_images: int
    test_images: int
    parameters: int
    precision: str
    data_fingerprint: str
    path: Path = field(default=Path(), metadata={"json": False}, compare=False)

    @property
    def last_accuracy(self) -> float:
        """Test accuracy after the last epoch, in %."""
        return 100.0 - self.last_error

    @property
    def best_accuracy(self) -> float:
        """Highest test accuracy of any epoch, in %."""
        return 100.0 - self.best_error

    @property
    def last_train_accuracy(self) -> float:
        """Accuracy on the training images of the last epoch, measured during training, in %."""
        return 100.0 - self.last_train_error


@dataclass(frozen=True, kw_only=True)
class EpochMetrics(JsonSchema):
    """A line of ``metrics.jsonl``. Errors are in %; test figures are None in epochs without evaluation.

    Attributes:
        epoch: Finished epochs, from 1.
        step: Finished optimiser steps of the whole run.
        lr: Learning rate of the epoch's last step.
        train_loss, train_error: Over the training images as they were seen in training.
        test_loss, test_error: Over the test images.
        test_balanced_error: Mean over classes of the test error.
        seconds: Time of the epoch, including evaluation.
        images_per_second: Training throughput, without evaluation.
        peak_memory: Highest memory use so far, in MiB (of the device on CUDA, else of the process), if known.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_error: Percent
    test_loss: float | None
    test_error: Percent | None
    test_balanced_error: Percent | None = None
    seconds: float
    images_per_second: float
    peak_memory: int | None = None


@dataclass(frozen=True, kw_only=True)
class ClassMetrics(JsonSchema):
    """How well one class is predicted, in %.

    Attributes:
        name: Name of the class.
        precision: Share of the images predicted as this class that belong to it; None if there are none.
        recall: Share of the images of this class that were predicted as it.
        f1: Harmonic mean of precision and recall.
        support: Images of the class.
    """

    name: str
    precision: Percent | None
    recall: Percent
    f1: Percent
    support: int


@dataclass(frozen=True, kw_only=True)
class Evaluation(JsonSchema):
    """A network's figures on one split. Errors are in %.

    Attributes:
        loss: Mean cross-entropy.
        error: Error over the images.
        balanced_error: Mean over classes of the error.
        majority_error: Error of always predicting the largest class of the split.
        top5_error: Share of the images whose class is not among the five most probable; None below 20 classes.
        images: Number of images.
        classes: One entry per class that occurs.
    """

    loss: float
    error: float
    balanced_error: float
    majority_error: float
    top5_error: float | None
    images: int
    classes: tuple[ClassMetrics, ...]

    @property
    def accuracy(self) -> float:
        """Accuracy over the images, in %."""
        return 100.0 - self.error
