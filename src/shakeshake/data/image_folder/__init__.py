"""A folder of images as a data set: scanned, decoded once, cached."""

from .decode_cache import CacheInfo, cache_info, clear_cache

__all__ = ["CacheInfo", "cache_info", "clear_cache"]
