"""Published networks of other packages, without the restrictions of their own loaders."""

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
    """Load facexlib's ArcFace face recognition network (IR-SE50, 175 MB).

    It differs from the network that facexlib loads in two points. It runs on any device, and its embeddings are not divided by their
    length, as attribution needs them. The cosines are identical.

    Source: Deng et al. 2019, "ArcFace: Additive angular margin loss for deep face recognition".

    Args:
        weights: File of the weights, or folder that holds it. Default: the folder in ``CAPTUM_LEAM_WEIGHTS``, else facexlib's own.
        sha256: Expected SHA-256 digest of the weights in hex. Default: None, for no check.
        download: Whether facexlib may download missing weights. Default: False.
        device: Device of the network. Default: CUDA if available, else the CPU.
        colour: Channel order, ``"rgb"`` or ``"bgr"``. That of the training data is not documented; compare both with
            :func:`~captum_leam.verification.verify`. Default: ``"rgb"``.

    Returns:
        Network in evaluation mode, from RGB images (N, 3, 112, 112) in [0, 1] to un-normalised embeddings (N, 512).

    Raises:
        MissingWeightsError: If the weights are not found.
        CaptumLeamError: If the weights are broken, belong to another network or do not have the expected digest.
        MissingExtraError: If facexlib is not installed.

    See Also:
        :class:`~captum_leam.faces.FaceAligner`: Crops that the network expects.

    Example:
        >>> from captum_leam.faces import read_crops
        >>> model = facexlib_arcface(download=True)  # doctest: +SKIP
        >>> images = read_crops(["ann_1.png", "ann_2.png"])  # doctest: +SKIP
        >>> embeddings = model(images)  # doctest: +SKIP
        >>> embeddings.shape  # doctest: +SKIP
        torch.Size([2, 512])
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
