"""Shake-Shake regularization (X. Gastaldi, 2017) for PyTorch: the layer, the paper's networks, a trainer.

Public names are imported when they are first used, so that ``import shakeshake`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "InputError": "errors",
    "RunError": "errors",
    "ShakeRule": "layers.rules",
    "register_rule": "layers.rules",
    "mix": "layers.mix",
    "ShakeShake": "layers.shake_shake",
    "shake_shake": "layers.shake_shake",
    "ShakeDrop": "layers.drop_path",
    "StochasticDepth": "layers.drop_path",
    "create_model": "models.registry",
    "list_models": "models.registry",
    "register_model": "models.registry",
    "shakeify": "models.shakeify",
    "load": "models.model",
    "TrainedModel": "models.model",
    "load_data": "data.registry",
    "register_data": "data.registry",
    "from_arrays": "data.dataset",
    "from_datasets": "data.adapters",
    "Recipe": "train.recipe",
    "fit": "train.fit",
    "resume": "train.fit",
    "evaluate": "train.open_run",
    "FitResult": "train.schema",
    "EpochMetrics": "train.schema",
    "Callback": "train.callbacks",
    "Stopped": "train.checkpointer",
    "compare": "experiments.compare",
    "ShakeShakeClassifier": "classifier",
    "fuse": "inference.fuse",
    "predict": "inference.predict",
    "Predictions": "inference.predict",
    "from_pretrained": "export.hub",
    "push_to_hub": "export.hub",
    "export_run": "export.export_run",
    "register_format": "export.registry",
    "write_report": "report.page",
    "analyze": "analysis.run",
    "branch_correlation": "analysis.correlation",
    "layerwise_correlation": "analysis.correlation",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from .analysis.correlation import branch_correlation as branch_correlation
    from .analysis.correlation import layerwise_correlation as layerwise_correlation
    from .analysis.run import analyze as analyze
    from .classifier import ShakeShakeClassifier as ShakeShakeClassifier
    from .data.adapters import from_datasets as from_datasets
    from .data.dataset import from_arrays as from_arrays
    from .data.registry import load_data as load_data
    from .data.registry import register_data as register_data
    from .errors import InputError as InputError
    from .errors import RunError as RunError
    from .experiments.compare import compare as compare
    from .export.export_run import export_run as export_run
    from .export.hub import from_pretrained as from_pretrained
    from .export.hub import push_to_hub as push_to_hub
    from .export.registry import register_format as register_format
    from .inference.fuse import fuse as fuse
    from .inference.predict import Predictions as Predictions
    from .inference.predict import predict as predict
    from .layers.drop_path import ShakeDrop as ShakeDrop
    from .layers.drop_path import StochasticDepth as StochasticDepth
    from .layers.mix import mix as mix
    from .layers.rules import ShakeRule as ShakeRule
    from .layers.rules import register_rule as register_rule
    from .layers.shake_shake import ShakeShake as ShakeShake
    from .layers.shake_shake import shake_shake as shake_shake
    from .models.model import TrainedModel as TrainedModel
    from .models.model import load as load
    from .models.registry import create_model as create_model
    from .models.registry import list_models as list_models
    from .models.registry import register_model as register_model
    from .models.shakeify import shakeify as shakeify
    from .report.page import write_report as write_report
    from .train.callbacks import Callback as Callback
    from .train.checkpointer import Stopped as Stopped
    from .train.fit import fit as fit
    from .train.fit import resume as resume
    from .train.open_run import evaluate as evaluate
    from .train.recipe import Recipe as Recipe
    from .train.schema import EpochMetrics as EpochMetrics
    from .train.schema import FitResult as FitResult


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .utils.extras import naming_extras

    with naming_extras():
        value = getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
