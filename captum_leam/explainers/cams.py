"""Grad-CAM, LayerCAM and HiResCAM for embeddings, as configurations of :class:`~captum_leam.LEAM` with one pass each.

The score is the cosine to a reference instead of the logit of a class. Its norm is differentiated by default, as is usual for these
methods. ``norm="detach"`` gives them LEAM's objective.
"""

from collections.abc import Callable
from typing import ClassVar, cast

from torch import Tensor, nn

from captum_leam._engine.shapes import Reshape
from captum_leam._engine.types import Field
from captum_leam.explainers.base import Explainer, as_map_batch
from captum_leam.leam import LEAM, Weighting
from captum_leam.maps import place_on_field
from captum_leam.objectives import Norm


class EmbeddingCAM(Explainer):
    """Base class of class activation maps of the similarity at one layer, enlarged bilinearly to image size.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable after the layer.
        layer: Module whose output (N, C, h, w) is weighted, usually the last one with spatial output.
        norm: Norm of the score: ``"differentiate"`` for the cosine, ``"detach"`` for the dot product divided by a constant norm.
            Default: ``"differentiate"``.
        reshape: Function that brings tokens or channels-last output to (N, C, h, w), see :mod:`captum_leam.layers`. Default: None.
        field: Part (top, left, height, width) of the image that the model reads, in pixels. Default: the whole image.
        seed: Not used. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    Raises:
        InputTypeError: If the layer is not a module.
        CaptumLeamError: If the norm is unknown; in use, if the norm is ``"differentiate"`` and a reference is the image's own embedding,
            where the cosine has no gradient.
    """

    weighting: ClassVar[Weighting]
    positive_only: ClassVar[bool] = False

    def __init__(
        self,
        model: Callable[..., Tensor],
        layer: nn.Module,
        *,
        norm: Norm = "differentiate",
        reshape: Reshape | None = None,
        field: Field | None = None,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        self.leam = LEAM(model, layer, weighting=self.weighting, norm=norm, reshape=reshape)
        self.field = field

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        self._forwards += len(images)
        self._backwards += len(images)
        maps = cast(Tensor, self.leam.attribute(images, reference=reference, relu_attributions=self.positive_only))
        return as_map_batch(place_on_field(maps, (images.shape[2], images.shape[3]), self.field))


class GradCAM(EmbeddingCAM):
    r"""Gradient-weighted class activation mapping (Grad-CAM) of a similarity.

    .. math:: M = \mathrm{ReLU}\Big(\sum_c \mathrm{mean}_{xy}\Big(\frac{\partial s}{\partial A_c}\Big) A_c\Big)

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017, equations 1
    and 2.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable after the layer.
        layer: Module whose output (N, C, h, w) is weighted.
        norm: Norm of the score, ``"differentiate"`` or ``"detach"``. Default: ``"differentiate"``.
        reshape: Function that brings the output of the layer to (N, C, h, w). Default: None.
        field: Part (top, left, height, width) of the image that the model reads, in pixels. Default: the whole image.
        seed: Not used. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    See Also:
        * :class:`~captum_leam.explainers.HiResCAM`: Elementwise weights instead of channel means.
        * :class:`~captum_leam.explainers.LayerCAM`: Positive elementwise weights.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 8)).eval()
        >>> method = GradCAM(model, model[1])
        >>> method.attribute(torch.rand(2, 3, 8, 8), reference=torch.randn(2, 8)).shape, method.cost
        (torch.Size([2, 1, 8, 8]), Cost(forwards=1.0, backwards=1.0))
    """

    weighting = "channel"
    positive_only = True


class LayerCAM(EmbeddingCAM):
    r"""Layer class activation mapping (LayerCAM) of a similarity.

    .. math:: M = \mathrm{ReLU}\Big(\sum_c \mathrm{ReLU}\Big(\frac{\partial s}{\partial A_c}\Big) \odot A_c\Big)

    Source: Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 2021, equations 5 and 6.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable after the layer.
        layer: Module whose output (N, C, h, w) is weighted.
        norm: Norm of the score, ``"differentiate"`` or ``"detach"``. Default: ``"differentiate"``.
        reshape: Function that brings the output of the layer to (N, C, h, w). Default: None.
        field: Part (top, left, height, width) of the image that the model reads, in pixels. Default: the whole image.
        seed: Not used. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    See Also:
        * :class:`~captum_leam.explainers.GradCAM`: Channel means as weights.
        * :class:`~captum_leam.explainers.HiResCAM`: Signed elementwise weights.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 8)).eval()
        >>> method = LayerCAM(model, model[1])
        >>> method.attribute(torch.rand(2, 3, 8, 8), reference=torch.randn(2, 8)).shape
        torch.Size([2, 1, 8, 8])
    """

    weighting = "positive"
    positive_only = True


class HiResCAM(EmbeddingCAM):
    r"""High-resolution class activation mapping (HiResCAM) of a similarity, with signed maps.

    .. math:: M = \sum_c \frac{\partial s}{\partial A_c} \odot A_c

    Source: Draelos & Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks", 2020,
    arXiv 2011.08891, equation 2. With ``norm="detach"`` the map is that of LEAM in one pass.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable after the layer.
        layer: Module whose output (N, C, h, w) is weighted.
        norm: Norm of the score, ``"differentiate"`` or ``"detach"``. Default: ``"differentiate"``.
        reshape: Function that brings the output of the layer to (N, C, h, w). Default: None.
        field: Part (top, left, height, width) of the image that the model reads, in pixels. Default: the whole image.
        seed: Not used. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    See Also:
        :class:`~captum_leam.LEAM`: The same product, with paths, contrasts and several layers.

    Example:
        >>> from captum_leam.maps import place_on_field
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 8)).eval()
        >>> faces, reference = torch.rand(2, 3, 8, 8), torch.randn(2, 8)
        >>> leam = place_on_field(LEAM(model, model[1]).attribute(faces, reference=reference), (8, 8))
        >>> torch.equal(HiResCAM(model, model[1], norm="detach").attribute(faces, reference=reference)[:, 0], leam)
        True
    """

    weighting = "elementwise"
