"""Shake-Shake itself: rules, mixing of branches, and the layers built on them. Needs only torch."""

from . import other_rules  # noqa: F401  (registers its rules wherever a rule is parsed)
