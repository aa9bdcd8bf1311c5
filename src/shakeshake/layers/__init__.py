"""Shake-Shake itself: rules, mixing of branches, and the layers built on them. Needs only torch."""
