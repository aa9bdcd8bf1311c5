"""ShakeRule: what alpha and beta are, written as the paper writes it (``S-S-I``), and how they are drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ..errors import InputError

if TYPE_CHECKING:  # torch is imported when coefficients are drawn: a recipe checks a rule without loading it
    import torch

Forward = Literal["Even", "Shake"]
Backward = Literal["Even", "Shake", "Keep", "M1", "M2", "M3", "M4", "M5"]
Level = Literal["Batch", "Image"]

NO_RULE = "none"  # what a run of a network without branches records as its rule
UPDATE_RULES = ("M1", "M2", "M3", "M4", "M5")
_FORWARD = {"E": "Even", "S": "Shake"}
_BACKWARD = {"E": "Even", "S": "Shake", "K": "Keep"} | {m: m for m in UPDATE_RULES}
_LEVEL = {"B": "Batch", "I": "Image"}
_DECIMALS = 12  # of a strength and of the ends of a range, so that a rule is read as it was printed
_EXPECTED = (
    "forward-backward-level, optionally with a range of alpha, such as S-S-I, E-E-B, S-M3-I, S-0.7-I or "
    "S-E-I[0.4,0.6]: forward E or S; backward E, S, K, M1 to M5 or a strength from 0 to 1; level B or I"
)


@dataclass(frozen=True)
class ShakeRule:
    """How the coefficients of the branches are drawn (paper, section 1.2 and Table 4).

    forward: ``"Even"`` (alpha = 1/B for each of B branches) or ``"Shake"`` (alpha uniform).
    backward: ``"Even"``, ``"Shake"`` (uniform, independent of alpha), ``"Keep"`` (beta = alpha), ``"M1"`` to ``"M5"``
        (Table 4), or a *strength* s in [0, 1].
    level: ``"Batch"`` (one draw per block and pass) or ``"Image"`` (one per block, pass and image).
    low, high: the range of alpha for two branches, ``[0, 1]`` in the paper except for its architecture C.

    Uniform means U(0, 1) with the complement 1 - alpha for two branches, and Dirichlet(1, ..., 1), uniform on the
    simplex, for more; the two agree at two branches. M1 to M5, strengths and a range are defined for two branches.

    **Strength**, a number beyond the paper: ``beta = (1 - s) alpha + s (1 - alpha)``, so that ``|beta - alpha| =
    s |1 - 2 alpha|`` and, with alpha ~ U(0, 1), ``E|beta - alpha| = s / 2``. It runs through the paper's rules: 0 is
    Keep, 0.5 is Even, 1 is M1. (For comparison, Shake has E|beta - alpha| = 1/3.)

    Raises InputError (a ValueError) for anything outside of this.
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
        elif self.backward not in _BACKWARD.values():
            raise InputError(
                f"rule: backward is {self.backward!r}, expected Even, Shake, Keep, M1 to M5 or a strength from 0 to 1"
            )
        if self.forward == "Even" and self.needs_two_branches:
            raise InputError(
                f"rule: {self} has an even forward pass, expected a shaken one (S-...): "
                "M1 to M5, strengths and ranges say where beta lies relative to a random alpha"
            )
        for end in ("low", "high"):
            object.__setattr__(self, end, round(float(getattr(self, end)), _DECIMALS))
        if not 0.0 <= self.low < self.high <= 1.0:
            raise InputError(f"rule: range of alpha is [{self.low:g},{self.high:g}], expected 0 <= low < high <= 1")

    @classmethod
    def parse(cls, rule: str | ShakeRule) -> ShakeRule:
        """The rule that a string such as ``"S-S-I"`` names; a ShakeRule is returned as it is.

        Raises InputError, naming the string and what was expected.
        """
        if isinstance(rule, ShakeRule):
            return rule
        wrong = InputError(f"rule: {rule!r} is not a rule, expected {_EXPECTED}")
        if not isinstance(rule, str):
            raise wrong
        match = re.fullmatch(r"([ES])-([ESK]|M[1-5]|\d*\.?\d+)-([BI])(?:\[([\d.]+),\s*([\d.]+)\])?", rule.strip())
        if match is None:
            raise wrong
        forward, backward, level, low, high = match.groups()
        try:
            return cls(
                _FORWARD[forward],  # type: ignore[arg-type]
                _BACKWARD.get(backward) or float(backward),  # type: ignore[arg-type]
                _LEVEL[level],  # type: ignore[arg-type]
                *((float(low), float(high)) if low else ()),
            )
        except InputError:
            raise
        except ValueError:  # a range such as [0..4,1]
            raise wrong from None

    def __str__(self) -> str:
        if isinstance(self.backward, float):
            backward = _plain(self.backward)
        else:
            backward = self.backward if self.backward in UPDATE_RULES else self.backward[0]
        text = f"{self.forward[0]}-{backward}-{self.level[0]}"
        return text if (self.low, self.high) == (0.0, 1.0) else f"{text}[{_plain(self.low)},{_plain(self.high)}]"

    @property
    def needs_two_branches(self) -> bool:
        """Whether the rule is defined for two branches only."""
        in_pairs = isinstance(self.backward, float) or self.backward in UPDATE_RULES
        return in_pairs or (self.low, self.high) != (0.0, 1.0)

    def check_branches(self, branches: int) -> None:
        """Raise InputError unless the rule is defined for this number of branches."""
        if branches < 2:
            raise InputError(f"rule: {self} was given {branches} branch, expected two or more")
        if branches > 2 and self.needs_two_branches:
            raise InputError(
                f"rule: {self} is defined for two branches, was given {branches}; "
                "expected S-S, S-E, S-K, E-S or E-E at either level"
            )

    def with_range(self, low: float, high: float) -> ShakeRule:
        """The same rule with alpha drawn from U(low, high)."""
        return replace(self, low=low, high=high)

    def draw(
        self,
        images: int,
        branches: int,
        *,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fresh (alpha, beta) for one block and one pass.

        Returns two float32 tensors on ``device``, each (images, branches) at level Image and (branches,) at level
        Batch, with rows that sum to 1. Under Keep and Even-Even both are the same tensor.
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
        if isinstance(self.backward, float):
            return alpha, torch.lerp(alpha, alpha.flip(-1), self.backward)
        return alpha, _update_rule(self.backward, alpha, generator)


def _plain(number: float) -> str:
    """0.7 for 0.7, 0.00001 for 1e-5, 1 for 1.0."""
    return f"{number:.{_DECIMALS}f}".rstrip("0").rstrip(".")


def _uniform(
    shape: Sequence[int], device: torch.device | str | None, generator: torch.Generator | None
) -> torch.Tensor:
    """From [0, 1), float32. A generator is named only if there is one: with it no size can be a graph's symbol."""
    import torch

    if generator is None:
        return torch.rand(shape, dtype=torch.float32, device=device)
    return torch.rand(shape, dtype=torch.float32, device=device, generator=generator)


def _update_rule(method: str, alpha: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """beta of M1 to M5 for two branches (paper, Table 4). Each is U between two ends that depend on alpha."""
    import torch

    a = alpha[..., 0]
    if method == "M1":
        return alpha.flip(-1)
    outer = (a >= 0.5).to(a.dtype)  # the end of [0, 1] on alpha's side of 0.5
    one_end, other_end = {
        "M2": (outer, a),  # beyond alpha, seen from 0.5
        "M3": (a, torch.full_like(a, 0.5)),  # between alpha and 0.5
        "M4": (torch.full_like(a, 0.5), 1.0 - a),  # between 0.5 and alpha's mirror image
        "M5": (1.0 - a, 1.0 - outer),  # beyond the mirror image
    }[method]
    u = _uniform(a.shape, a.device, generator)
    b = one_end + (other_end - one_end) * u
    return torch.stack((b, 1.0 - b), dim=-1)
