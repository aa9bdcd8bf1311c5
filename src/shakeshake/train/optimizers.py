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


def create_optimizer(
    recipe: Recipe, parameters: Iterable[nn.Parameter], head: Iterable[nn.Parameter] = ()
) -> Optimizer:
    """Return the recipe's optimiser for the parameters that require gradients.

    With ``head_lr``, those of the last layer get this rate, which follows the same schedule.

    ``lr``, ``weight_decay`` and ``momentum`` are passed to the classes of torch.optim that have these arguments; their
    other arguments keep torch's defaults.

    Raises:
        InputError: The name is unknown, or the class cannot train these parameters.
    """
    trainable = [p for p in parameters if p.requires_grad]
    if not trainable:
        raise InputError("model: has no trainable parameters, expected at least one with requires_grad")
    if recipe.head_lr is None:
        return _one_rate(recipe, trainable)
    own = {id(p) for p in head}
    groups = [p for p in trainable if id(p) not in own], [p for p in trainable if id(p) in own]
    body, last = (_one_rate(recipe, group) if group else None for group in groups)
    return HeadRate(body, last, recipe.head_lr / recipe.lr)


def _one_rate(recipe: Recipe, trainable: list[nn.Parameter]) -> Optimizer:
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return SGD(trainable, momentum=recipe.momentum, nesterov=nesterov, weight_decay=recipe.weight_decay)
    return TorchOptimizer(recipe, trainable)


class HeadRate:
    """Two optimisers, of which that of the last layer has ``factor`` times the learning rate. None trains nothing."""

    def __init__(self, body: Optimizer | None, head: Optimizer | None, factor: float) -> None:
        self.optimizers, self.factors = {"body": body, "head": head}, {"body": 1.0, "head": factor}

    def step(self, lr: float) -> None:
        """Update the parameters; ``lr`` is the rate of the body."""
        for name, optimizer in self.optimizers.items():
            if optimizer is not None:
                optimizer.step(lr * self.factors[name])

    def zero_grad(self) -> None:
        """Remove all gradients."""
        for optimizer in self.optimizers.values():
            if optimizer is not None:
                optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {name: one.state_dict() for name, one in self.optimizers.items() if one is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the states of both."""
        for name, optimizer in self.optimizers.items():
            if optimizer is not None:
                optimizer.load_state_dict(state[name])


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
