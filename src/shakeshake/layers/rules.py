"""ShakeRule: how the coefficients alpha and beta are drawn, in the paper's notation (``S-S-I``)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from ..errors import InputError
from .beta_intervals import BETA_INTERVALS, BetaInterval

if TYPE_CHECKING:  # imported when coefficients are drawn, so that recipes check rules without loading torch
    import torch

Forward = Literal["Even", "Shake"]
Backward = Literal["Even", "Shake", "Keep", "M1", "M2", "M3", "M4", "M5"]
Level = Literal["Batch", "Image"]
Draw = Callable[..., "tuple[torch.Tensor, torch.Tensor]"]
AnyDraw = TypeVar("AnyDraw", bound=Draw)

NO_RULE = "none"  # recorded as the rule of a run whose network has no branches
UPDATE_RULES = ("M1", "M2", "M3", "M4", "M5")
_FORWARD = {"E": "Even", "S": "Shake"}
_BACKWARD = {"E": "Even", "S": "Shake", "K": "Keep"} | {m: m for m in UPDATE_RULES}
_LEVEL = {"B": "Batch", "I": "Image"}
_PATTERN = re.compile(r"([ES])-([ESK]|M[1-5]|\d*\.?\d+)-([BI])(?:\[([\d.]+),\s*([\d.]+)\])?")
_REGISTERED_NAME = re.compile(r"[A-Za-z_][\w.+-]*(:\w+)?", re.ASCII)
_DECIMALS = 12  # of strengths and ranges, so that parsing inverts printing
_EXPECTED = (
    "forward-backward-level, optionally with a range of alpha, such as S-S-I, E-E-B, S-M3-I, S-0.7-I or "
    "S-E-I[0.4,0.6]: forward E or S; backward E, S, K, M1 to M5 or a strength from 0 to 1; level B or I"
)


@dataclass(frozen=True)
class ShakeRule:
    """How the coefficients of the branches are drawn (paper, Figure 1, Tables 1 and 4).

    Uniform means U(0, 1) with the complement 1 - alpha for two branches, and Dirichlet(1, ..., 1), uniform on the
    simplex, for more. The two agree for two branches. M1 to M5, strengths and ranges are defined for two branches.

    A *strength* s is an extension of the paper: ``beta = (1 - s) alpha + s (1 - alpha)``, so that ``|beta - alpha| =
    s |1 - 2 alpha|`` and, for alpha ~ U(0, 1), ``E|beta - alpha| = s / 2``. It interpolates the paper's rules: 0 is
    Keep, 0.5 is Even, 1 is M1.

    Args:
        forward: ``"Even"`` (alpha = 1/B for B branches) or ``"Shake"`` (alpha uniform).
        backward: ``"Even"``, ``"Shake"`` (uniform, independent of alpha), ``"Keep"`` (beta = alpha), ``"M1"`` to
            ``"M5"`` (Table 4), or a strength from 0 to 1.
        level: ``"Batch"`` (one draw per block and pass) or ``"Image"`` (one per block, pass and image).
        low: Lower end of the range of alpha for two branches.
        high: Upper end of that range. The paper uses [0, 1] except for its architecture C.

    Raises:
        InputError: If an argument is invalid, or if a rule that relates beta to alpha has an even forward pass.
    """

    forward: Forward = "Shake"
    backward: Backward | float = "Shake"
    level: Level = "Image"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.forward not in _FORWARD.values():
            raise InputError(f"rule: forward is {self.forward!r}, expected 'Even' or 'Shake'")
        if self.level not in _LEVEL.values():
            raise InputError(f"rule: level is {self.level!r}, expected 'Batch' or 'Image'")
        if isinstance(self.backward, int | float):
            if not 0.0 <= self.backward <= 1.0:
                raise InputError(f"rule: strength is {self.backward}, expected a number from 0 to 1")
            object.__setattr__(self, "backward", round(float(self.backward), _DECIMALS))
        elif self.backward not in BETA_INTERVALS:
            raise InputError(
                f"rule: backward is {self.backward!r}, expected Even, Shake, Keep, M1 to M5 or a strength from 0 to 1"
            )
        if self.forward == "Even" and self.needs_two_branches:
            raise InputError(
                f"rule: {self} has an even forward pass, expected a random one (S-...): "
                "M1 to M5, strengths and ranges define beta relative to a random alpha"
            )
        for end in ("low", "high"):
            object.__setattr__(self, end, round(float(getattr(self, end)), _DECIMALS))
        if not 0.0 <= self.low < self.high <= 1.0:
            raise InputError(f"rule: range of alpha is [{self.low:g},{self.high:g}], expected 0 <= low < high <= 1")

    @classmethod
    def parse(cls, rule: str | ShakeRule) -> ShakeRule:
        """Parse a rule such as ``"S-S-I"``, or look up a name of register_rule. A ShakeRule is returned unchanged.

        Raises:
            InputError: If the text is not a rule.
        """
        if isinstance(rule, ShakeRule):
            return rule
        if isinstance(rule, str) and rule in _registered:
            return RegisteredRule(name=rule)
        if isinstance(rule, str) and ":" in rule:
            option = f", or pass --rule PATH/{rule}" if ".py:" in rule else ""
            raise InputError(
                f"rule: {rule!r} is a rule of the user's that is not registered here; "
                f"import the module that registers it{option}"
            )
        invalid = InputError(f"rule: {rule!r} is not a rule, expected {_EXPECTED}")
        match = _PATTERN.fullmatch(rule.strip()) if isinstance(rule, str) else None
        if match is None:
            raise invalid
        forward, backward, level, low, high = match.groups()
        try:
            return ShakeRule(
                _FORWARD[forward],  # type: ignore[arg-type]
                _BACKWARD.get(backward) or float(backward),  # type: ignore[arg-type]
                _LEVEL[level],  # type: ignore[arg-type]
                *((float(low), float(high)) if low else ()),
            )
        except InputError:
            raise
        except ValueError:  # a range such as [0..4,1]
            raise invalid from None

    def __str__(self) -> str:
        if isinstance(self.backward, float):
            backward = _plain(self.backward)
        else:
            backward = self.backward if self.backward in UPDATE_RULES else self.backward[0]
        text = f"{self.forward[0]}-{backward}-{self.level[0]}"
        return text if (self.low, self.high) == (0.0, 1.0) else f"{text}[{_plain(self.low)},{_plain(self.high)}]"

    @property
    def label(self) -> str:
        """The rule in words, such as ``Shake-Even-Image`` for S-E-I."""
        if isinstance(self.backward, float):
            return f"strength {self.backward:g} ({self})"
        level = "" if (self.forward, self.backward) == ("Even", "Even") else f"-{self.level}"
        alpha = "" if (self.low, self.high) == (0.0, 1.0) else f", alpha in [{self.low:g}, {self.high:g}]"
        return f"{self.forward}-{self.backward}{level}{alpha}"

    @property
    def needs_two_branches(self) -> bool:
        """Whether the rule is defined for two branches only."""
        relative = isinstance(self.backward, float) or self.backward in UPDATE_RULES
        return relative or (self.low, self.high) != (0.0, 1.0)

    @property
    def beta_interval(self) -> BetaInterval | None:
        """Where beta lies given a random alpha, for two branches; None for a registered rule, where it is unknown."""
        if not isinstance(self.backward, float):
            return BETA_INTERVALS[self.backward]
        s = self.backward
        return BetaInterval(
            lambda alpha, edge: ((1 - s) * alpha + s * (1 - alpha),) * 2,
            f"a share {s:g} of the way from α to 1 − α",
        )

    def check_branches(self, branches: int) -> None:
        """Raise InputError unless the rule is defined for this number of branches."""
        if branches < 2:
            raise InputError(f"rule: {self} got {branches} branch, expected two or more")
        if branches > 2 and self.needs_two_branches:
            raise InputError(
                f"rule: {self} is defined for two branches, got {branches}; "
                "expected S-S, S-E, S-K, E-S or E-E at either level"
            )

    def draw(
        self,
        images: int,
        branches: int,
        *,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw coefficients for one block and one pass.

        Args:
            images: Number of images N in the batch.
            branches: Number of branches B.
            device: Where to draw.
            generator: The random generator, on that device; by default torch's own.

        Returns:
            alpha and beta, float32, each (N, B) at level Image and (B,) at level Batch. Rows sum to 1. Under Keep and
            Even-Even both are the same tensor.

        Raises:
            InputError: If the rule is not defined for this number of branches.
        """
        import torch

        self.check_branches(branches)
        rows = (images,) if self.level == "Image" else ()

        def uniform() -> torch.Tensor:
            if branches == 2:
                first = _uniform(rows, device, generator)
                return torch.stack((first, 1.0 - first), dim=-1)
            # Normalised exponentials are Dirichlet(1, ..., 1). Normalised uniforms are not: they avoid the corners.
            wait = -torch.log1p(-_uniform((*rows, branches), device, generator))
            return wait / wait.sum(dim=-1, keepdim=True)

        def even() -> torch.Tensor:
            return torch.full((*rows, branches), 1.0 / branches, dtype=torch.float32, device=device)

        if self.forward == "Even":
            alpha = even()
            return alpha, (uniform() if self.backward == "Shake" else alpha)
        alpha = uniform()
        if (self.low, self.high) != (0.0, 1.0):
            first = self.low + (self.high - self.low) * alpha[..., 0]
            alpha = torch.stack((first, 1.0 - first), dim=-1)
        if self.backward == "Keep":
            return alpha, alpha
        if self.backward == "Even":
            return alpha, even()
        if self.backward == "Shake":
            return alpha, uniform()
        if self.backward == "M1":
            return alpha, alpha.flip(-1)
        if isinstance(self.backward, float):
            return alpha, torch.lerp(alpha, alpha.flip(-1), self.backward)
        a = alpha[..., 0]
        start, end = BETA_INTERVALS[self.backward].ends(a, (a >= 0.5).to(a.dtype))
        b = start + (end - start) * _uniform(a.shape, a.device, generator)
        return alpha, torch.stack((b, 1.0 - b), dim=-1)


@dataclass(frozen=True)
class RegisteredRule(ShakeRule):
    """A rule that register_rule added. ``draw`` calls the registered function."""

    name: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def label(self) -> str:
        """The name."""
        return self.name

    @property
    def beta_interval(self) -> None:
        """Unknown."""

    def draw(
        self,
        images: int,
        branches: int,
        *,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Call the registered function and check the shapes that it returns."""
        import torch

        self.check_branches(branches)
        drawn = _registered[self.name](images, branches, device=device, generator=generator)
        if not isinstance(drawn, tuple | list) or len(drawn) != 2:
            raise InputError(f"rule: {self} returned {type(drawn).__name__}, expected a pair (alpha, beta)")
        for name, value in zip(("alpha", "beta"), drawn, strict=True):
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            if shape not in ((images, branches), (branches,)):
                raise InputError(
                    f"rule: {self} returned {name} of shape {shape} for {images} images and {branches} branches, "
                    f"expected {(images, branches)} or {(branches,)}"
                )
        alpha, beta = drawn
        return alpha.float(), beta.float()


_registered: dict[str, Draw] = {}


def register_rule(name: str, *, replace: bool = False) -> Callable[[AnyDraw], AnyDraw]:
    """Register a rule under a name that recipes, ShakeShake and ``--rule`` accept.

        @register_rule("half")
        def half(images, branches, *, device, generator):
            alpha = torch.rand(images, 1, device=device, generator=generator)
            alpha = torch.cat((alpha, 1 - alpha), dim=1)
            return alpha, (alpha + 0.5) / 2

    The decorated function draws (alpha, beta) for one block and one pass, each of shape (images, branches), or
    (branches,) for one draw per batch. Rows should sum to 1: evaluation takes the mean of the branches. Use the given
    ``generator`` (None for torch's own), so that runs are reproducible.

    Repeating the definition, as rerunning a notebook cell does, replaces it.

    Args:
        name: Letters, digits and ``_ . + -``, not starting with a digit, optionally followed by ``:NAME``.
        replace: Whether another function of this name is replaced.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        InputError: If the name is invalid, is one of the paper's rules or is registered by another function.
    """
    if not isinstance(name, str) or len(name) > 100 or not _REGISTERED_NAME.fullmatch(name):
        raise InputError(f"rule: got the name {name!r}, expected letters, digits and _ . + -, such as half")
    if name == NO_RULE or _PATTERN.fullmatch(name):
        raise InputError(f"rule: {name!r} is a rule of this package, expected another name for your own")

    def register(draw: AnyDraw) -> AnyDraw:
        if not callable(draw):
            raise InputError(f"rule: {name} is {type(draw).__name__}, expected a function that draws (alpha, beta)")
        known = _registered.get(name)
        if known is not None and not replace and definition(known) != definition(draw):
            raise InputError(f"rule: {name!r} is already registered by {known.__module__}, expected another name")
        _registered[name] = draw
        return draw

    return register


def list_rules() -> list[str]:
    """Return the names of the registered rules."""
    return list(_registered)


def is_builtin_rule(name: str) -> bool:
    """Whether every process that imports this package knows the rule."""
    return name not in _registered or _registered[name].__module__.startswith(f"{__package__}.")


def expected_distance(rule: str | ShakeRule, branches: int = 2) -> float | None:
    """Return E|beta - alpha| of one branch in closed form.

    A uniform coefficient of B branches has the density (B - 1) (1 - x)^(B - 2). Two independent ones differ by
    2 (B - 1) / (B (2 B - 1)) in expectation, and one differs from 1/B by 2 ((B - 1) / B)^B / B. For two branches,
    |beta - alpha| is linear in m = min(alpha, 1 - alpha) under every other rule, so it is taken at E[m].

    Args:
        rule: A rule, or its name.
        branches: Number of branches.

    Returns:
        The expected distance; None for a registered rule, where it is unknown.

    Raises:
        InputError: If the rule is not defined for this number of branches.
    """
    rule = ShakeRule.parse(rule)
    rule.check_branches(branches)
    interval = rule.beta_interval
    if interval is None:
        return None
    even = 2 * ((branches - 1) / branches) ** branches / branches
    if rule.forward == "Even":
        return even if rule.backward == "Shake" else 0.0
    if branches > 2:
        return {"Keep": 0.0, "Even": even}.get(str(rule.backward), 2 * (branches - 1) / (branches * (2 * branches - 1)))
    low, high = rule.low, rule.high
    if rule.backward == "Shake":  # E[a^2 + (1 - a)^2] / 2
        mean, square = (low + high) / 2, (low * low + low * high + high * high) / 3
        return (1 - 2 * mean + 2 * square) / 2
    if low <= 0.5 <= high:
        from_half = ((0.5 - low) ** 2 + (high - 0.5) ** 2) / (2 * (high - low))
    else:
        from_half = abs((low + high) / 2 - 0.5)
    m = 0.5 - from_half
    start, end = interval.ends(m, 0.0)
    return abs((start + end) / 2 - m)


def definition(thing: object) -> tuple[str | None, str | None]:
    """File and name of a function or class, the same under each module name that its file is imported by."""
    module = getattr(thing, "__module__", None)
    return getattr(sys.modules.get(module or ""), "__file__", module), getattr(thing, "__qualname__", None)


def _plain(number: float) -> str:
    """0.7 for 0.7, 0.00001 for 1e-5, 1 for 1.0."""
    return f"{number:.{_DECIMALS}f}".rstrip("0").rstrip(".")


def _uniform(
    shape: Sequence[int], device: torch.device | str | None, generator: torch.Generator | None
) -> torch.Tensor:
    """U[0, 1) in float32. A generator is passed only if there is one: with it, torch.compile needs fixed sizes."""
    import torch

    if generator is None:
        return torch.rand(shape, dtype=torch.float32, device=device)
    return torch.rand(shape, dtype=torch.float32, device=device, generator=generator)
