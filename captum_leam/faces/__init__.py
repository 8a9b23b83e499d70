"""Faces from files."""

from captum_leam.faces.crops import read_crop, read_crops

__all__ = ["read_crop", "read_crops"]
