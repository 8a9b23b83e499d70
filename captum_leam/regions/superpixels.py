"""Superpixels as regions, for images on which no face parser works."""

import numpy as np
import torch
from torch import Tensor

from captum_leam._optional import import_optional
from captum_leam.errors import CaptumLeamError
from captum_leam.regions.scheme import RegionScheme


def superpixels(
    images: Tensor, n_segments: int = 50, *, compactness: float = 10.0, sigma: float = 0.0
) -> tuple[Tensor, RegionScheme]:
    """Return connected regions of similar colour (SLIC), which need not correspond to parts of the face.

    Regions with the same label in two images are unrelated, so that reports must be read per image.

    Source: Achanta et al. 2012, "SLIC superpixels compared to state-of-the-art superpixel methods".

    Args:
        images: Images of shape (N, 3, H, W) or (N, 1, H, W), floating point in [0, 1].
        n_segments: Approximate number of regions per image. Default: 50.
        compactness: Weight of distance against colour. Larger values give more regular regions. Default: 10.0.
        sigma: Standard deviation in pixels of a Gaussian blur before the segmentation. Default: 0.0.

    Returns:
        Label maps of shape (N, H, W), int64, from 0, on the device of the images; and a scheme without background that has as many
        regions as the image with the most.

    Raises:
        CaptumLeamError: If the shape or the range of the images is wrong, or an argument is out of range.

    See Also:
        :class:`~captum_leam.regions.TemplateParser`: Named regions of aligned faces.

    Example:
        >>> image = torch.zeros(1, 3, 16, 16)
        >>> image[..., 8:] = 1
        >>> labels, scheme = superpixels(image, 4)
        >>> labels[0, 0].tolist(), scheme.names
        ([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], ('segment_000', 'segment_001', 'segment_002', 'segment_003'))
    """
    slic = import_optional("skimage.segmentation").slic

    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise CaptumLeamError(
            f"Expected images to have shape (N, 3, H, W) with one image or more, got {tuple(images.shape)}."
        )
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise CaptumLeamError(
            "Expected images to be in [0, 1], got other values. Undo the preprocessing of the recognition network."
        )
    if n_segments < 1:
        raise CaptumLeamError(f"Expected n_segments to be 1 or more, got {n_segments}.")
    if compactness <= 0:
        raise CaptumLeamError(f"Expected compactness to be positive, got {compactness}.")
    if sigma < 0:
        raise CaptumLeamError(f"Expected sigma to be 0 or more, got {sigma}.")
    pictures = images.detach().cpu().double().expand(-1, 3, -1, -1).movedim(1, -1).numpy()
    segments = [
        slic(picture, n_segments, compactness=compactness, sigma=sigma, start_label=0, channel_axis=-1)
        for picture in pictures
    ]
    labels = torch.from_numpy(np.stack(segments).astype(np.int64)).to(images.device)
    names = {label: f"segment_{label:03d}" for label in range(int(labels.max()) + 1)}
    return labels, RegionScheme(names, name="superpixels", background=None)
