"""Person patterns: how alike the maps of one person are, and how unlike those of different people."""

from captum_leam.patterns.overlap import bhattacharyya

__all__ = ["bhattacharyya"]
