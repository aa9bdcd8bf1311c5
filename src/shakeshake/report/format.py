"""Numbers and values as text."""

from __future__ import annotations

import json
from typing import Any

ABSENT = "–"


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with a true minus sign."""
    return ABSENT if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float) -> str:
    """A difference with its sign, to two digits."""
    return f"{value:+.2f}".replace("-", "−")


def percent(value: float | None) -> str:
    """Percent, with a space that does not break."""
    return ABSENT if value is None else f"{value:.2f}\u00a0%"


def points(value: float | None) -> str:
    """Percentage points, with a space that does not break."""
    return ABSENT if value is None else f"{decimal(value)}\u00a0points"


def count(value: float | None) -> str:
    """A whole number with separators of thousands."""
    return f"{value:,.0f}" if value else ABSENT


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours."""
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def value(found: Any) -> str:
    """Any JSON value, shortened to 500 characters."""
    written = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return written if len(written) <= 500 else written[:499] + "…"


def value_or_absent(found: Any) -> str:
    """As value(), with a dash for None."""
    return ABSENT if found is None else value(found)
