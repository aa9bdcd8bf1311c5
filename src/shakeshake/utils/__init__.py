"""Helpers without a subject of their own: files, console, download, environment."""
