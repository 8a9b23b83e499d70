"""Methods of image retrieval and of region ranking, from their papers' formulas: SBSM (the package's), SANE and XRAI."""

from collections.abc import Callable

import numpy as np
import torch
from skimage.morphology import dilation, disk
from skimage.segmentation import felzenszwalb
from torch import Tensor

from captum_leam.explainers import Explainer
from captum_leam.explainers.base import unit_and_direction
from captum_leam.explainers.perturbation import sliding_masks

WINDOW, STRIDE = 20, 5  # px of a crop of 112 px


class Sliding(Explainer):
    """Method that scores an image under square windows, one after the other.

    Args:
        model: Network from images to embeddings.
        stride: Stride of the windows in pixels per 112 px of width. Default: 5.
    """

    def __init__(self, model: Callable[..., Tensor], *, stride: int = STRIDE) -> None:
        super().__init__(model)
        self.stride = stride

    def _under(self, image: Tensor, shown: Tensor, fill: Tensor) -> Tensor:
        """Return unit embeddings (M, D) of one image (1, C, H, W) under masks (M, H, W): 1 shows a pixel, 0 fills it."""
        parts = shown[:, None].to(image).split(self._pass_size)
        with torch.no_grad():
            found = torch.cat([self._embed(image * part + fill * (1 - part)) for part in parts])
        return torch.nn.functional.normalize(found, dim=1)

    def _sizes(self, image: Tensor) -> tuple[int, int]:
        px = image.shape[-1] / 112
        return round(WINDOW * px), max(1, round(self.stride * px))

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        rows = reference if reference is None or len(reference) > 1 else reference.expand(len(images), -1)
        each = [self._of_one(x[None], None if rows is None else rows[i : i + 1]) for i, x in enumerate(images)]
        return torch.stack(each)[:, None]

    def _of_one(self, image: Tensor, reference: Tensor | None) -> Tensor:
        raise NotImplementedError


class SANE(Sliding):
    r"""SANE's saliency map of a similarity, with sliding windows and a fixed reference.

    .. math:: S = \sum_k (1 - M_k) \left(s(x, r) - s(x \odot M_k + \bar x (1 - M_k), r)\right) / \sum_k (1 - M_k)

    Source: Plummer, Vasileva, Petsiuk, Saenko, Forsyth, "Why do These Match? Explaining the Behavior of Image Similarity Models", ECCV
    2020, arXiv 1905.10797; its attributes, which need labels, are left out. Windows are filled with the mean colour of the image.
    """

    def _of_one(self, image: Tensor, reference: Tensor | None) -> Tensor:
        window, stride = self._sizes(image)
        shown = sliding_masks((image.shape[2], image.shape[3]), (window,), stride)
        shown = torch.cat([torch.ones_like(shown[:1]), shown])
        unit = self._under(image, shown, image.mean((2, 3), keepdim=True))
        scores = unit @ unit_and_direction(unit[:1], reference)[1][0]
        hidden = 1 - shown[1:].to(unit)
        return torch.einsum("m,mhw->hw", scores[0] - scores[1:], hidden) / hidden.sum(0).clamp(min=1)


class SBSM(Sliding):
    """Similarity-based saliency maps: the rise of the distance under sliding windows, by xaitk-saliency (0.15).

    Source: Dong, Collins, Hoogs, "Explainability for Content-Based Image Retrieval", CVPR Workshops 2019. Windows and weighting are the
    package's ``SlidingWindow`` and ``SimilarityScoring`` (Euclidean distance of unit embeddings, black windows).
    """

    def _of_one(self, image: Tensor, reference: Tensor | None) -> Tensor:
        from xaitk_saliency.impls.gen_descriptor_sim_sal.similarity_scoring import SimilarityScoring
        from xaitk_saliency.impls.perturb_image.sliding_window import SlidingWindow

        window, stride = self._sizes(image)
        pixels = image[0].permute(1, 2, 0).numpy()
        shown = SlidingWindow((window, window), (stride, stride)).perturb(pixels)
        with_clean = torch.from_numpy(np.concatenate([np.ones_like(shown[:1]), shown]))
        unit = self._under(image, with_clean, torch.zeros(1, 1, 1, 1))
        towards = unit_and_direction(unit[:1], reference)[1].numpy()
        found = SimilarityScoring().generate(unit[0].numpy(), towards, unit[1:].numpy(), shown)
        return torch.from_numpy(np.asarray(found[0])).to(image)


# -- regions -------------------------------------------------------------------------------------------

SCALES = (50, 100, 150, 250, 500, 1200)  # of Felzenszwalb's segmentation, fine to coarse
SMALLEST = 5  # px that a region must add to be added


def xrai(attributions: Tensor, images: Tensor) -> Tensor:
    """Return XRAI's ranking of regions: segments are added in the order of the attribution that they add per pixel.

    Source: Kapishnikov, Bolukbasi, Viégas, Terry, "XRAI: Better Attributions Through Regions", ICCV 2019, arXiv 1906.02825.

    Args:
        attributions: Signed maps (N, H, W).
        images: (N, C, H, W), in [0, 1].

    Returns:
        (N, H, W): the mean attribution that a region added when it was added, on the pixels that it added.
    """
    return torch.stack([_ranked(a, segments(x)) for a, x in zip(attributions.double(), images, strict=True)])


def segments(image: Tensor) -> Tensor:
    """Return the segments of one image (C, H, W) at all scales, each dilated by 3 px: boolean (S, H, W)."""
    pixels = image.permute(1, 2, 0).double().numpy()
    found = []
    for scale in SCALES:
        labels = felzenszwalb(pixels, scale=scale, sigma=0.8, min_size=20, channel_axis=-1)
        found += [dilation(labels == label, disk(3)) for label in np.unique(labels)]
    return torch.from_numpy(np.unique(np.stack(found), axis=0))


def _ranked(attribution: Tensor, regions: Tensor) -> Tensor:
    flat = regions.flatten(1).double()
    values, free = attribution.flatten(), torch.ones(flat.shape[1], dtype=torch.float64)
    ranked = torch.full_like(values, float("-inf"))
    while bool(free.any()):
        added = flat @ free
        gains = (flat @ (values * free)) / added.clamp(min=1)
        gains[added < SMALLEST] = float("-inf")
        best = int(gains.argmax())
        if not bool(gains[best].isfinite()):
            break
        new = (flat[best] * free).bool()
        ranked[new] = gains[best]
        free[new] = 0
    lowest = ranked[ranked.isfinite()].min() if bool(ranked.isfinite().any()) else torch.tensor(0.0)
    return torch.where(ranked.isfinite(), ranked, lowest - 1).view_as(attribution)  # what no region added comes last
