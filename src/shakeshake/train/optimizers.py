"""Optimisers by name: the SGD of this package, or any class of torch.optim."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import nn

from ..errors import InputError
from .recipe import Recipe
from .sgd import SGD

UNSUPPORTED = {"lbfgs": "it evaluates the loss several times per step", "sparseadam": "it needs sparse gradients"}


class Optimizer(Protocol):
    """What a training step and a checkpoint need."""

    def step(self, lr: float) -> None:
        """Update the parameters with this learning rate."""

    def zero_grad(self) -> None:
        """Clear the gradients."""

    def state_dict(self) -> Any:
        """Return the state for a checkpoint."""

    def load_state_dict(self, state: Any) -> None:
        """Continue from what ``state_dict`` returned."""


def create_optimizer(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return the recipe's optimiser for the parameters that require gradients.

    ``lr``, ``weight_decay`` and ``momentum`` are passed to the classes of torch.optim that have these arguments; their
    other arguments keep torch's defaults.

    Raises:
        InputError: The name is unknown, or the class cannot train these parameters.
    """
    trainable = [p for p in parameters if p.requires_grad]
    if not trainable:
        raise InputError("model: has no trainable parameters, expected at least one with requires_grad")
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return SGD(trainable, momentum=recipe.momentum, nesterov=nesterov, weight_decay=recipe.weight_decay)
    return TorchOptimizer(recipe, trainable)


class TorchOptimizer:
    """A class of torch.optim behind the interface of ``SGD``: the learning rate comes with each step."""

    def __init__(self, recipe: Recipe, parameters: list[nn.Parameter]) -> None:
        cls = _find_class(recipe.optimizer)
        accepted = inspect.signature(cls).parameters
        values: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "momentum": recipe.momentum}
        try:
            self.optimizer = cls(parameters, **{name: value for name, value in values.items() if name in accepted})
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"optimizer: {cls.__name__} cannot train this network: {error}") from None

    def step(self, lr: float) -> None:
        """Update the parameters with this learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def zero_grad(self) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.optimizer.load_state_dict(state)


def _find_class(name: str) -> type[torch.optim.Optimizer]:
    classes = {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    wanted = name.lower()
    if wanted in UNSUPPORTED:
        raise InputError(f"optimizer: {name} is not supported because {UNSUPPORTED[wanted]}, expected sgd or adamw")
    if wanted not in classes:
        closest = difflib.get_close_matches(wanted, classes, n=1)
        hint = f"; did you mean {classes[closest[0]].__name__}?" if closest else ""
        raise InputError(f"optimizer: got {name!r}, expected sgd, adamw or the name of a class of torch.optim{hint}")
    return classes[wanted]
