"""Colour, dash and marker of each curve, so that no chart depends on colour alone. The colours are in charts.css."""

from __future__ import annotations

HUES = 8
DASHES: tuple[tuple[float, ...], ...] = ((), (10, 3), (2.5, 2.5), (10, 3, 2.5, 3))
"""Lengths in pixels. Colours and dashes repeat together after 32 curves."""
MARKERS = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",  # circle
    "M0-5.5L5.5 0 0 5.5-5.5 0z",  # diamond
    "M-4.5-4.5h9v9h-9z",  # square
    "M0-5.5L5.5 5h-11z",  # triangle
    "M0 5.5L5.5-5h-11z",  # triangle, point down
    "M-2-5.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5z",  # plus
    "M-5.5-3L-3-5.5 0-2.5 3-5.5 5.5-3 2.5 0 5.5 3 3 5.5 0 2.5-3 5.5-5.5 3-2.5 0z",  # cross
    "M-2.8-5h5.6L5.6 0 2.8 5h-5.6L-5.6 0z",  # hexagon
)
TONES = ("train", "test")


def colour(i: int, tone: str) -> str:
    """The colour of curve i as CSS; train is the darker tone on white."""
    return f"var(--{tone}{i % HUES})"


def dash(i: int) -> str | None:
    """The dash pattern of curve i for ``stroke-dasharray``; None for a solid line."""
    return " ".join(f"{part:g}" for part in DASHES[_style(i) % len(DASHES)]) or None


def marker(i: int) -> str:
    """The marker of group i as an SVG path around (0, 0)."""
    return MARKERS[_style(i) % len(MARKERS)]


def _style(i: int) -> int:
    return i + i // HUES
