"""analysis.json as a table for a terminal. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def as_lines(found: dict[str, Any]) -> Iterator[str]:
    """The main numbers of an analysis, aligned."""
    yield f"{found['model']} {found['rule']} on {found['data']}, {found['images']:,} {found['split']} images"
    yield from found["notes"]
    yield ""
    yield f"error {found['error']:.2f} %"
    if found["train_error"] is not None and found["split"] == "test":
        yield (
            f"error of its {found['train_images']:,} training images, not augmented {found['train_error']:.2f} %, "
            f"gap {found['gap']:.2f} points"
        )
    if "calibration" in found:
        confidence, accuracy, ece = (100 * found["calibration"][k] for k in ("mean_confidence", "accuracy", "ece"))
        yield (
            f"mean confidence {confidence:.1f} %, accuracy {accuracy:.1f} %, "
            f"expected calibration error {ece:.1f} points"
        )
    if found["strength"] is not None:
        strength = found["strength"]
        yield (
            f"E|beta - alpha| {strength['expected']:.4f} by formula, {strength['measured']:.4f} over "
            f"{strength['draws']:,} draws"
        )
    if found["branch_correlation"]:
        yield from _correlations(found)


def _correlations(found: dict[str, Any]) -> Iterator[str]:
    layers = {block["block"]: block for block in found["layerwise"] or []}
    yield "\ncorrelation between the branches; between layer i of the one and layer j of the other, LiRj"
    names = [f"L{i}R{j}" for i in (1, 2, 3) for j in (1, 2, 3)] if layers else []
    yield f"{'block':<22}{'branches':<10}{'outputs':>8}  " + "".join(f"{name:>7}" for name in names)
    for block in found["branch_correlation"]:
        of_layers = {tuple(p["branches"]): p["matrix"] for p in layers.get(block["block"], {}).get("pairs", [])}
        for pair in block["pairs"]:
            one, other = pair["branches"]
            matrix = of_layers.get((one, other), [])
            cells = "".join(f"{_shown(value):>7}" for row in matrix for value in row)
            yield f"{block['block']:<22}{f'{one + 1} and {other + 1}':<10}{_shown(pair['correlation']):>8}  {cells}"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
