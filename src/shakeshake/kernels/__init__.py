"""Fused training kernels for CPUs: ``convert(network)`` switches a network to them, ``revert(network)`` back."""

from .convert import convert as convert
from .convert import is_converted as is_converted
from .convert import revert as revert
