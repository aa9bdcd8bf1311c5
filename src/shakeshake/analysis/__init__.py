"""Analyses of trained networks (paper, section 3), by forward hooks."""
