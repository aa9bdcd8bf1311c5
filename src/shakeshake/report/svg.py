"""SVG elements as escaped text, axes, and charts that pages embed and files hold."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup

from ..utils.console import is_unsafe_char

LETTER = 6.6
"""Average width of a letter in pixels at the charts' font size."""


def clean(value: object) -> str:
    """One line of text without control characters: names in files may hold any character."""
    return " ".join(safe(str(value)).split())


def tag(name: str, *children: object, **attributes: Any) -> Markup:
    """An SVG element. In attribute names underscores become dashes; attributes that are None are left out.

    All text is escaped; numbers are written to a tenth of a pixel.
    """
    written = [
        f'{key if key == "viewBox" else key.rstrip("_").replace("_", "-")}="{_text(value)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    return Markup(f"<{' '.join((name, *written))}>{''.join(map(_text, children))}</{name}>")


def safe(value: Any) -> Any:
    """Text without control characters but line breaks and tabs; markup unchanged."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(" " if is_unsafe_char(c) and c not in "\n\t" else c for c in value)


def number(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def tip(title: object, *rows: Sequence[object]) -> str:
    """What the page shows when a part of a chart is pointed at: a title, and rows of cells."""
    return "\n".join("\t".join(map(clean, row)) for row in ((title,), *rows))


def fit(text: object, pixels: float, letter: float = LETTER) -> str:
    """The text, shortened to about this width."""
    text, letters = clean(text), max(2, int(pixels / letter))
    return text if len(text) <= letters else text[: letters - 1] + "…"


def label(text: object, x: float, y: float, anchor: str = "start", class_: str = "", **attributes: Any) -> Markup:
    """Text whose baseline starts, is centred or ends at (x, y)."""
    anchor_ = None if anchor == "start" else anchor
    return tag("text", text, x=x, y=y, text_anchor=anchor_, class_=class_ or None, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str, **attributes: Any) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_, **attributes)


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """Points for an attribute."""
    return " ".join(f"{number(x)},{number(y)}" for x, y in points)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``."""
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 10) + 0.0 for i in range(first, last + 1)]


@dataclass(frozen=True)
class Axis:
    """A scale from the values low to high to the pixels start to end; ``power`` 0.5 is a square-root scale."""

    low: float
    high: float
    start: float
    end: float
    power: float = 1.0

    @classmethod
    def round(cls, low: float, high: float, start: float, end: float) -> Axis:
        """An axis that begins and ends at round numbers."""
        marks = ticks(low, high)
        return cls(marks[0], marks[-1], start, end)

    def marks(self) -> list[float]:
        """Round numbers on the axis."""
        return ticks(self.low, self.high)

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, at = (math.copysign(abs(v) ** self.power, v) for v in (self.low, self.high, value))
        return self.start + (at - low) / ((high - low) or 1.0) * (self.end - self.start)


@dataclass(frozen=True)
class Chart:
    """A drawing of width by height pixels.

    Attributes:
        body: the elements.
        description: what the chart shows, in words, for readers who do not see it.
        frame: left, right, top and bottom of the axes in pixels, first and last epoch; for the page's script.
    """

    width: float
    height: float
    body: Markup
    description: str
    frame: tuple[float, ...] = ()

    def __html__(self) -> Markup:
        """The element for a page."""
        return self._element(data_frame=" ".join(f"{value:g}" for value in self.frame) or None)

    def to_svg(self, title: str) -> str:
        """The content of a file that follows a light or dark colour scheme."""
        style = Markup("<style>{}svg{{background:var(--paper)}}</style>").format(Markup(_stylesheet()))
        return self._element(tag("title", title), style, xmlns="http://www.w3.org/2000/svg") + "\n"

    def _element(self, *first: Markup, **attributes: Any) -> Markup:
        size = {"width": self.width, "height": self.height, "viewBox": f"0 0 {self.width:.0f} {self.height:.0f}"}
        return tag(
            "svg", *first, self.body, class_="chart", role="img", aria_label=self.description, **size, **attributes
        )


def grid(charts: Sequence[tuple[str, Sequence[Chart]]], columns: int, gap: float = 20.0) -> Chart:
    """Charts beside and below each other: groups of a heading (or "") and its charts."""
    parts, y = [], 0.0
    width = max(sum(chart.width + gap for chart in found[:columns]) for _, found in charts)
    for heading, found in charts:
        if heading:
            parts.append(label(fit(heading, width), 0, y + 16, class_="strong"))
            y += 28
        for start in range(0, len(found), columns):
            x, row = 0.0, found[start : start + columns]
            for chart in row:
                parts.append(tag("g", chart.body, transform=f"translate({number(x)} {number(y)})"))
                x += chart.width + gap
            y += max(chart.height for chart in row) + gap
    described = [
        f"{heading}, {one.description}" if heading else one.description for heading, of in charts for one in of
    ]
    return Chart(width, y, Markup("").join(parts), " ".join(described))


def _stylesheet() -> str:
    return resources.files(__package__).joinpath("charts.css").read_text(encoding="utf-8").replace("\n", "")


def _text(value: Any) -> str:
    if hasattr(value, "__html__"):
        return value.__html__()
    return number(value) if isinstance(value, int | float) else html.escape(safe(str(value)))
