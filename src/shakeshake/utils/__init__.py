"""Helpers shared by all packages: files, console, cache, environment, optional dependencies, user code."""
