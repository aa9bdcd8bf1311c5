"""Names of networks: create, list and look them up, and register networks of your own. Imports torch only to build."""

from __future__ import annotations

import copy
import fnmatch
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InputError
from ..layers.rules import NO_RULE, ShakeRule, definition
from .families import FAMILIES, Family, closest_names
from .origin import Origin, library_of, public_name

if TYPE_CHECKING:
    from torch import nn

    Factory = Callable[..., nn.Module]
    AnyFactory = TypeVar("AnyFactory", bound=Factory)

_ARGUMENTS = ("num_classes", "in_channels", "image_size", "rule")  # what a registered factory may take
_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*(:\w+)?", re.ASCII)


@dataclass(frozen=True)
class ModelInfo:
    """What a name of a network specifies.

    Attributes:
        name: The name itself.
        branched: Whether a rule applies to the network.
        numbers: The numbers in the name of a network of this package, such as ``{"depth": 26, ...}``.
        paper_label: The paper's notation, such as ``26 2x32d``; the name itself where the paper has none.
        family: The family of a network of this package; None for a registered network.
        source: Where a registered network is defined, such as ``net.py:tiny``; empty for this package's networks.
        library: ``transformers`` or ``timm`` for their networks, which may have branches; else empty.
    """

    name: str
    branched: bool
    paper_label: str
    numbers: Mapping[str, int] = field(default_factory=dict)
    family: Family | None = None
    source: str = ""
    library: str = ""

    @property
    def branches(self) -> int | None:
        """Number of parallel branches in a block; None if the name does not specify it."""
        return self.numbers.get("branches")

    @property
    def width(self) -> int | None:
        """The paper's width ``d``; None if the name does not specify it."""
        return self.numbers.get("width")


@dataclass(frozen=True)
class _Registered:
    """A network of the user's. ``takes``: the arguments of the factory that create_model may pass."""

    factory: Factory
    takes: frozenset[str]
    source: str


_registered: dict[str, _Registered] = {}


def register_model(name: str) -> Callable[[AnyFactory], AnyFactory]:
    """Register a network under a name that create_model, list_models and recipes accept.

        @register_model("my_net")
        def my_net(num_classes, in_channels=3, rule="S-S-I"):
            return MyNet(...)

    The decorated factory is a function or an nn.Module class. create_model passes it ``num_classes`` and, where its
    signature has them, ``in_channels``, ``image_size`` and ``rule`` as keywords. It returns a freshly initialised
    module that maps images (N, in_channels, H, W) to logits (N, num_classes). A factory that takes ``rule`` builds
    networks with branches; without it, runs are recorded with the rule ``none``.

    Repeating the definition, as rerunning a notebook cell does, replaces it.

    Args:
        name: Letters, digits and ``_ . + -``, optionally followed by ``:NAME``.

    Returns:
        A decorator that returns the factory unchanged.

    Raises:
        InputError: If the name is invalid, names a network of this package or is registered by another definition, or
            if the factory has other required arguments.
    """
    if not isinstance(name, str) or len(name) > 100 or not _NAME.fullmatch(name):
        raise InputError(f"model: got the name {name!r}, expected letters, digits and _ . + -, such as my_net")
    _check_not_ours(name)

    def register(factory: AnyFactory) -> AnyFactory:
        known = _registered.get(name)
        if known is not None and definition(known.factory) != definition(factory):
            raise InputError(f"model: {name!r} is already registered by {known.source}, expected another name")
        _registered[name] = _Registered(factory, _accepted_arguments(name, factory), _source(factory))
        return factory

    return register


def register_module(network: nn.Module | Factory, name: str | None = None) -> str:
    """Register a module or a factory that is passed to fit() directly, or that the command line loads from a file.

    Args:
        network: A factory as for register_model, or an nn.Module. create_model returns deep copies of a module, with
            the module's current weights.
        name: The name; by default where the network is defined, such as ``net.py:tiny``. A registered network of this
            name is replaced.

    Returns:
        The name.

    Raises:
        InputError: If the object is neither a module nor a factory, or the name is one of this package's.
    """
    name = name or _source(network)
    _check_not_ours(name)
    factory: Any = (lambda **_: copy.deepcopy(network)) if _is_module(network) else network
    _registered[name] = _Registered(factory, _accepted_arguments(name, factory), _source(network))
    return name


def list_models(pattern: str = "*") -> list[str]:
    """Return names of networks that match a shell-style pattern: the literature's, then the registered ones.

    The names of this package's networks are examples: other valid numbers in them name a network, too.
    """
    names = [*(name for family in FAMILIES for name in family.examples), *_registered]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def model_info(name: str) -> ModelInfo:
    """Look up what a name specifies, without importing torch.

    Raises:
        InputError: If no network has the name. The message has the closest valid names, or says how to register the
            network if the name looks like a user's.
    """
    if isinstance(name, str) and (entry := _registered.get(name)) is not None:
        return ModelInfo(name, "rule" in entry.takes, name, source=entry.source)
    if library := library_of(name):
        return ModelInfo(name, True, public_name(name), library=library)
    reason = "is not the name of a network (register your own with @register_model)"
    for family in FAMILIES if isinstance(name, str) else ():
        numbers = family.parse(name)
        if numbers is None:
            continue
        invalid = family.validate(numbers)
        if invalid is None:
            return ModelInfo(name, family.branched, (family.paper_label or name).format(**numbers), numbers, family)
        reason = f"does not exist: {invalid}"
    if isinstance(name, str) and ":" in name:
        file, _, thing = name.rpartition(":")
        option = f", or pass --model PATH/{file}:{thing}" if file.endswith(".py") else ", or pass it as model="
        raise InputError(
            f"model: {name!r} is a network of the user's that is not registered here; "
            f"import the module that registers it{option}"
        )
    closest = " or ".join(closest_names(str(name)))
    raise InputError(f"model: {name!r} {reason}; the closest valid names are {closest}")


def branch_count(name: str) -> int | None:
    """Return the number of parallel branches that a name specifies; None if it has none, or is not known here."""
    try:
        return model_info(name).branches
    except InputError:
        return None


def current_name(name: str) -> str:
    """Return today's name for a network that is recorded under an old one."""
    return f"cifar_{name}" if isinstance(name, str) and re.fullmatch(r"resnet\d+", name) else name


def rule_for(name: str, rule: str | ShakeRule) -> str:
    """Return the rule that a run of a network records: ``none`` for a network without branches, else the rule.

    Networks of transformers and timm may have branches; for them ``none`` is also a rule.

    Raises:
        InputError: If the rule is invalid, or ``none`` for a network with branches.
    """
    info = model_info(name)
    if not info.branched or (info.library and rule == NO_RULE):
        return NO_RULE
    if rule == NO_RULE:
        raise InputError(
            f"rule: got {NO_RULE!r} for {name}, which has branches, expected a rule such as S-S-I; "
            "E-E-B trains without shaking"
        )
    return str(ShakeRule.parse(rule))


def create_model(
    name: str,
    *,
    num_classes: int = 10,
    rule: str | ShakeRule = "S-S-I",
    in_channels: int = 3,
    image_size: int | None = None,
    pretrained: bool = False,
    origin: Origin | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network by its name, freshly initialised or pretrained.

    Args:
        name: A name as in list_models; see docs/layer.md for how the names specify networks. Or a network of another
            library: ``hf/REPO-OR-FOLDER`` (transformers) or ``timm/NAME``. Of these only weights in the safetensors
            format are read, and no code of a repository or folder is executed.
        num_classes: Outputs of the last layer, 2 or more.
        rule: How branches are combined, see ShakeRule. Ignored by networks without branches. The grouped convolutions
            of another library's network are split by ``shakeify``, unless the rule is even.
        in_channels: 1 or 3.
        image_size: Side of the square input in pixels, 8 to 224; by default 32, or what another library's network
            expects. Above 64 the stem of this package's networks has a stride (see ShakeResNet).
        pretrained: Start a network of another library from its weights, with a new last layer.
        origin: What a run recorded of another library's network, in place of its present configuration.
        **options: Further arguments of the network's class, such as ``skip_shift="mirrored"``.

    Returns:
        A module that maps images (N, in_channels, image_size, image_size) to logits (N, num_classes).

    Raises:
        InputError: If the name is unknown, an argument is out of range, or a registered factory returns something other
            than a module with ``num_classes`` outputs.
    """
    info = model_info(name)
    if image_size is None and not info.library:
        image_size = 32
    for argument, value, low, high in (("num_classes", num_classes, 2, 1_000_000), ("image_size", image_size, 8, 224)):
        if value is not None and (not isinstance(value, int) or not low <= value <= high):
            raise InputError(f"{argument}: got {value!r}, expected a whole number from {low} to {high}")
    if isinstance(in_channels, float) or in_channels not in (1, 3):
        raise InputError(f"in_channels: got {in_channels!r}, expected 1 or 3")
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    if info.branched:
        arguments["rule"] = rule
    if info.library:
        from .external import create_external

        if options:
            raise InputError(f"{next(iter(options))}: not an option of {name}, which has no options")
        return create_external(name, **arguments, pretrained=pretrained, origin=origin)
    if pretrained:
        raise InputError(f"pretrained: {name} has no pretrained weights, expected a network such as timm/resnet50")
    if info.family is None:
        return _create_registered(name, arguments, options)
    module, _, cls = info.family.builder.partition(":")
    network = getattr(importlib.import_module(f".{module}", __package__), cls)
    arguments |= {**info.numbers, **info.family.options}
    free = [option for option in inspect.signature(network).parameters if option not in {*arguments, "rule"}]
    for option in options:
        if option not in free:
            expected = f"expected one of {', '.join(free)}" if free else "which has no options"
            raise InputError(f"{option}: not an option of {name}, {expected}")
    return network(**arguments, **options)


def count_parameters(name: str, **options: Any) -> int:
    """Return the number of parameters of a network.

    Networks of this package are not allocated for it.

    Args:
        name: As in create_model.
        **options: Arguments of create_model.
    """
    import torch

    with torch.device("cpu" if model_info(name).family is None else "meta"):
        return sum(p.numel() for p in create_model(name, **options).parameters())


def _create_registered(name: str, arguments: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    """Call a registered factory and check what it returns."""
    import torch
    from torch import nn

    from ..utils.modes import eval_mode

    entry = _registered[name]
    arguments_taken = {**{key: value for key, value in arguments.items() if key in entry.takes}, **options}
    try:
        inspect.signature(entry.factory).bind(**arguments_taken)
    except TypeError as error:
        raise InputError(f"model: {name} cannot be built with {', '.join(options)}: {error}") from None
    network = entry.factory(**arguments_taken)
    if not isinstance(network, nn.Module):
        raise InputError(f"model: {name} returned {type(network).__name__}, expected an nn.Module")
    tensor = next(network.parameters(), torch.empty(0))
    shape = (2, arguments["in_channels"], arguments["image_size"], arguments["image_size"])
    # Also initialises lazy modules. Training starts from an unchanged random state.
    with eval_mode(network), torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            logits = network(torch.zeros(shape, device=tensor.device, dtype=torch.get_default_dtype()))
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"model: {name} fails on images of shape {shape}: {error}") from error
    expected = (2, arguments["num_classes"])
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(f"model: {name} returns {got} for two images, expected logits of shape {expected}")
    return network


def _check_not_ours(name: str) -> None:
    if any(family.parse(name) is not None for family in FAMILIES):
        raise InputError(f"model: {name!r} is a network of this package, expected another name for your own")


def _accepted_arguments(name: str, factory: object) -> frozenset[str]:
    """Which of create_model's arguments a factory takes. Raises InputError if it cannot be called with these."""
    if not callable(factory) or _is_module(factory):
        raise InputError(f"model: {name} is {type(factory).__name__}, expected a function that returns an nn.Module")
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return frozenset(_ARGUMENTS)
    takes = frozenset(p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY) & frozenset(_ARGUMENTS)
    required = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    if "num_classes" not in takes:
        raise InputError(f"model: {name} does not take num_classes, expected def {name}(num_classes, ...)")
    if other := [argument for argument in required if argument not in takes]:
        raise InputError(
            f"model: {name} requires {', '.join(other)}, expected defaults for all arguments but "
            f"{', '.join(_ARGUMENTS)}"
        )
    return takes


def _is_module(network: object) -> bool:
    return not inspect.isclass(network) and hasattr(network, "state_dict") and hasattr(network, "forward")


def _source(network: object) -> str:
    """Where a factory or a module's class is defined: ``net.py:tiny``, or ``package.module:tiny`` inside packages."""
    network = getattr(network, "func", network)  # of a functools.partial
    definition = network if hasattr(network, "__qualname__") else type(network)
    module = str(getattr(definition, "__module__", "__main__"))
    if "." not in module:
        try:
            module = Path(inspect.getsourcefile(definition) or module).name  # type: ignore[arg-type]
        except (TypeError, OSError):  # a notebook or an interactive session
            module = module.strip("_")
    name = re.sub(r"\W", "", str(getattr(definition, "__name__", "")))  # <lambda> -> lambda
    return f"{module}:{name or 'network'}"
