"""Superpixels: regions by colour and place, for faces that no parser knows."""

import numpy as np
import torch
from torch import Tensor

from captum_leam._optional import import_optional
from captum_leam.errors import CaptumLeamError
from captum_leam.regions.scheme import RegionScheme


def superpixels(
    images: Tensor, n_segments: int = 50, *, compactness: float = 10.0, sigma: float = 0.0
) -> tuple[Tensor, RegionScheme]:
    """Regions of similar colour, connected, by SLIC; nothing of them is about faces.

    A region with the same integer in two images is not the same part of the face: read such reports image by image.

    Source: Achanta et al. 2012, "SLIC superpixels compared to state-of-the-art superpixel methods".

    Args:
        images: (N, 3, H, W) or (N, 1, H, W), float in [0, 1].
        n_segments: about how many regions an image gets.
        compactness: larger gives squarer regions, smaller follows colours.
        sigma: standard deviation in pixels of a blur before.

    Returns:
        Label maps (N, H, W), int64, from 0, on the device of the images; and a scheme of as many regions as the image with most
        has, without background.

    Raises:
        CaptumLeamError: for images of another shape or range, or other options.

    Example:
        >>> image = torch.zeros(1, 3, 16, 16)
        >>> image[..., 8:] = 1
        >>> labels, scheme = superpixels(image, 4)
        >>> labels[0, 0].tolist(), scheme.names
        ([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], ('segment_000', 'segment_001', 'segment_002', 'segment_003'))
    """
    slic = import_optional("skimage.segmentation").slic

    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise CaptumLeamError(f"images have shape {tuple(images.shape)}; expected (N, 3, H, W), one image or more.")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise CaptumLeamError("images hold values outside [0, 1]; undo the preprocessing of the recognition network.")
    if n_segments < 1 or compactness <= 0 or sigma < 0:
        raise CaptumLeamError(
            f"n_segments={n_segments}, compactness={compactness}, sigma={sigma}; expected 1 or more, over 0, and 0 or more."
        )
    pictures = images.detach().cpu().double().expand(-1, 3, -1, -1).movedim(1, -1).numpy()
    drawn = [
        slic(picture, n_segments, compactness=compactness, sigma=sigma, start_label=0, channel_axis=-1)
        for picture in pictures
    ]
    labels = torch.from_numpy(np.stack(drawn).astype(np.int64)).to(images.device)
    names = {label: f"segment_{label:03d}" for label in range(int(labels.max()) + 1)}
    return labels, RegionScheme(names, name="superpixels", background=None)
