"""Shake-Shake regularization (X. Gastaldi, 2017) for PyTorch: the layer, the paper's networks, a trainer.

The public names below are loaded when they are first used, so that ``import shakeshake`` does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "InputError": "errors",
    "ShakeRule": "core.rules",
    "mix": "core.mix",
    "ShakeShake": "core.layers",
    "shake_shake": "core.layers",
    "ShakeDrop": "core.relatives",
    "StochasticDepth": "core.relatives",
    "create_model": "models.registry",
    "list_models": "models.registry",
    "shakeify": "models.shakeify",
    "load": "models.trained",
    "load_data": "data.sources",
    "from_arrays": "data.arrays",
    "from_datasets": "data.datasets",
    "Recipe": "train.recipe",
    "fit": "train.loop",
    "ShakeShakeClassifier": "classifier",
    "fuse": "export.fuse",
    "from_pretrained": "use.hub",
    "push_to_hub": "use.hub",
    "branch_correlation": "analysis.correlation",
    "layerwise_correlation": "analysis.correlation",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from .analysis.correlation import branch_correlation as branch_correlation
    from .analysis.correlation import layerwise_correlation as layerwise_correlation
    from .classifier import ShakeShakeClassifier as ShakeShakeClassifier
    from .core.layers import ShakeShake as ShakeShake
    from .core.layers import shake_shake as shake_shake
    from .core.mix import mix as mix
    from .core.relatives import ShakeDrop as ShakeDrop
    from .core.relatives import StochasticDepth as StochasticDepth
    from .core.rules import ShakeRule as ShakeRule
    from .data.arrays import from_arrays as from_arrays
    from .data.datasets import from_datasets as from_datasets
    from .data.sources import load_data as load_data
    from .errors import InputError as InputError
    from .export.fuse import fuse as fuse
    from .models.registry import create_model as create_model
    from .models.registry import list_models as list_models
    from .models.shakeify import shakeify as shakeify
    from .models.trained import load as load
    from .train.loop import fit as fit
    from .train.recipe import Recipe as Recipe
    from .use.hub import from_pretrained as from_pretrained
    from .use.hub import push_to_hub as push_to_hub


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
