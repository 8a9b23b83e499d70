"""Networks that packages publish, built without what those packages hard-code."""

from collections import OrderedDict
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from captum_leam._optional import import_optional
from captum_leam._weights import find_weights, load_network
from captum_leam.models.preprocessing import Prepared, Preprocessing


def facexlib_arcface(
    *,
    weights: str | Path | None = None,
    sha256: str | None = None,
    download: bool = False,
    device: str | torch.device | None = None,
    colour: Literal["rgb", "bgr"] = "rgb",
) -> Prepared:
    """Facexlib's ArcFace (IR-SE50, 175 MB) on any device, without the division by the length that ends it.

    facexlib's own loader needs CUDA, and its network returns vectors of length 1, of which only the differentiated cosine can be
    explained. Cosines are the same.

    Source: Deng et al. 2019, "ArcFace: Additive angular margin loss for deep face recognition".

    Args:
        weights: file or folder; by default the folder that ``CAPTUM_LEAM_WEIGHTS`` names, else facexlib's own.
        sha256: what the weights must be, in hex.
        download: let facexlib download weights that are not there.
        device: by default CUDA where there is one.
        colour: the order of channels in training is not documented; :func:`~captum_leam.verification.verify` tells which separates people
            better.

    Returns:
        In evaluation mode, RGB (N, 3, 112, 112) in [0, 1] → (N, 512), un-normalised.

    Raises:
        CaptumLeamError: for weights that are missing, broken, of another network or not those pinned.
        ImportError: without facexlib.

    Example:
        >>> facexlib_arcface(weights="/nowhere")
        Traceback (most recent call last):
            ...
        captum_leam.errors.MissingWeightsError: weights /nowhere: there is no such file or folder. ...
    """
    backbone, _ = load_network(_ir_se50, find_weights("arcface", weights, download=download), sha256)
    parts = OrderedDict((name, getattr(backbone, name)) for name in ("input_layer", "body", "output_layer"))
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, colour=colour, size=(112, 112))
    return Prepared(nn.Sequential(parts).eval(), preprocessing).to(
        device or ("cuda" if torch.cuda.is_available() else "cpu")
    )


def _ir_se50() -> nn.Module:
    net: nn.Module = import_optional("facexlib.recognition.arcface_arch").Backbone(50, 0.6, "ir_se")
    return net
