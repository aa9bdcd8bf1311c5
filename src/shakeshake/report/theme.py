"""One look for all charts: colours on white and on near-black, dashes and marks, so that nothing hangs on hue alone."""

from __future__ import annotations

from typing import Any

# One hue per run: train and test on white (3:1 or close to it even for the lighter one), then both on near-black.
PALETTE = (
    ("#174a85", "#5394d6", "#4f86c6", "#a8d0f5"),
    ("#94400a", "#d97b27", "#c9742f", "#f7c38d"),
    ("#0b5f52", "#2a9e89", "#2e9a86", "#8fdfcf"),
    ("#5b2f86", "#a67fd0", "#9067c4", "#d4bdf0"),
    ("#8c1d3b", "#db6a86", "#cc5574", "#f5b3c3"),
    ("#515f0c", "#889a25", "#8a9a35", "#d3de8b"),
    ("#0e5a75", "#3a99b9", "#358ca8", "#9bd9ec"),
    ("#45474d", "#878a92", "#7f838c", "#c6c9d0"),
)
INK, SOFT, GRID, PAPER = "#1d1f24", "#5b606b", "#e3e4e8", "#ffffff"
DARK = {"ink": "#e8e9ec", "soft": "#a3a8b3", "grid": "#33363d", "paper": "#15171b"}
TONES = {"train": 0, "test": 1}

# Patterns in pixels, the first unbroken; with the hues they repeat after 32 runs.
DASHES: tuple[tuple[float, ...], ...] = ((), (10, 3), (2.5, 2.5), (10, 3, 2.5, 3))
MARKS = ("o", "D", "s", "^", "v", "P", "X", "h")  # as matplotlib names them; the page has them as shapes of its own


def dash(i: int) -> tuple[float, ...]:
    return DASHES[(i + i // len(PALETTE)) % len(DASHES)]


def mark(i: int) -> str:
    return MARKS[(i + i // len(PALETTE)) % len(MARKS)]


def line_style(i: int) -> Any:
    return (0, dash(i)) if dash(i) else "-"


def colour(i: int, tone: str) -> str:
    return PALETTE[i % len(PALETTE)][TONES[tone]]


def variables(*, dark: bool) -> str:
    """The colours as CSS custom properties."""
    named = [
        f"--train{i}:{(dark_train if dark else train)};--test{i}:{(dark_test if dark else test)}"
        for i, (train, test, dark_train, dark_test) in enumerate(PALETTE)
    ]
    return ";".join([*named, f"--grid:{DARK['grid'] if dark else GRID}"])


def standalone_style() -> str:
    """What an SVG needs to follow light and dark by itself."""
    light = f"color:{INK};--soft:{SOFT};--paper:{PAPER};{variables(dark=False)}"
    dark = f"color:{DARK['ink']};--soft:{DARK['soft']};--paper:{DARK['paper']};{variables(dark=True)}"
    return f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
