"""Load and wrap recognition models: ONNX files, published networks, models from code, and black boxes.

Optional packages are imported only when a model is loaded.
"""

from captum_leam.models.black_box import BlackBox
from captum_leam.models.loading import load_model
from captum_leam.models.onnx_file import from_onnx
from captum_leam.models.preprocessing import BYTES, IMAGENET, INSIGHTFACE, UNIT, Prepared, Preprocessing
from captum_leam.models.published import facexlib_arcface
from captum_leam.models.randomised import randomised
from captum_leam.models.up_to import UpTo, layer_before_division

__all__ = [
    "BYTES",
    "IMAGENET",
    "INSIGHTFACE",
    "UNIT",
    "BlackBox",
    "Prepared",
    "Preprocessing",
    "UpTo",
    "facexlib_arcface",
    "from_onnx",
    "layer_before_division",
    "load_model",
    "randomised",
]
