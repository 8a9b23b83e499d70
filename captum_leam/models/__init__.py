"""Models from the outside."""

from captum_leam.models.loading import load_model

__all__ = ["load_model"]
