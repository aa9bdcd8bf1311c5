"""An analysis as text for a terminal. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from .schema import Analysis


def as_lines(analysis: Analysis) -> Iterator[str]:
    """Yield the main numbers of an analysis as aligned lines."""
    yield f"{analysis.model} {analysis.rule} on {analysis.data}, {analysis.images:,} {analysis.split} images"
    yield from analysis.notes
    yield ""
    yield f"error {analysis.error:.2f} %"
    if analysis.gap is not None:
        yield (
            f"training error {analysis.train_error:.2f} % ({analysis.train_images:,} images, not augmented), "
            f"gap {analysis.gap:.2f} points"
        )
    if (found := analysis.calibration) is not None:
        yield (
            f"mean confidence {100 * found.mean_confidence:.1f} %, accuracy {100 * found.accuracy:.1f} %, "
            f"expected calibration error {100 * found.ece:.1f} points"
        )
    if (strength := analysis.strength) is not None:
        expected = "" if strength.expected is None else f"{strength.expected:.4f} in closed form, "
        yield f"E|beta - alpha| {expected}{strength.measured:.4f} over {strength.draws:,} draws"
    if analysis.branch_correlation:
        yield from _correlations(analysis)


def _correlations(analysis: Analysis) -> Iterator[str]:
    layers = {(block.block, pair.branches): pair.matrix for block in analysis.layerwise or () for pair in block.pairs}
    yield "\ncorrelation between the outputs of two branches; LiRj: between layer i of one and layer j of the other"
    names = [f"L{i}R{j}" for i in (1, 2, 3) for j in (1, 2, 3)] if layers else []
    yield f"{'block':<22}{'branches':<10}{'outputs':>8}  " + "".join(f"{name:>7}" for name in names)
    for block in analysis.branch_correlation or ():
        for pair in block.pairs:
            one, other = pair.branches
            matrix = layers.get((block.block, pair.branches), ())
            cells = "".join(f"{_three_digits(value):>7}" for row in matrix for value in row)
            outputs = _three_digits(pair.correlation)
            yield f"{block.block:<22}{f'{one + 1} and {other + 1}':<10}{outputs:>8}  {cells}"


def _three_digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
