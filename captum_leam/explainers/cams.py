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
    """Base class of class activation maps of a similarity, enlarged to the size of the images.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable after the layer.
        layer: Module whose output (N, C, h, w) is weighted, usually the last one with spatial output.
        norm: Treatment of the length of the embedding in the score. Default: ``"differentiate"``.

            * ``"differentiate"``: Part of the gradient, which is that of the cosine. It needs a reference.
            * ``"detach"``: Constant in the gradient, as in :class:`~captum_leam.LEAM`.
        reshape: Function that brings tokens or channels-last output to (N, C, h, w), see :mod:`captum_leam.layers`. Default: None.
        field: Part (top, left, height, width) of the images that the model reads, in pixels. Default: the whole image.
        seed: Not used. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    Raises:
        InputTypeError: If the layer is not a module.
        CaptumLeamError: If the norm is unknown. When called, if the norm is ``"differentiate"`` and a reference is the image's own
            embedding, where the cosine has no gradient.
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

    Grad-CAM weights each channel of a layer by its mean gradient, and sums the channels:

    .. math:: M = \mathrm{ReLU}\Big(\sum_c \mathrm{mean}_{xy}\Big(\frac{\partial s}{\partial A_c}\Big) A_c\Big)

    where :math:`A` are the activations and s is the cosine of the embedding to the reference. It is the most common method of its family,
    and serves as a comparison. Because a channel has one weight at all positions, it does not fit networks that flatten their last feature
    map, as many face networks do; for these use :class:`HiResCAM` or :class:`~captum_leam.LEAM`.

    ``attribute`` returns maps of 0 or more at the size of the images, shape (N, 1, H, W).

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017, equations 1
    and 2.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable after the layer.
        layer: Module whose output (N, C, h, w) is weighted, usually the last one with spatial output.
        norm: Treatment of the length of the embedding in the score. Default: ``"differentiate"``.

            * ``"differentiate"``: Part of the gradient, which is that of the cosine. It needs a reference.
            * ``"detach"``: Constant in the gradient, as in :class:`~captum_leam.LEAM`.
        reshape: Function that brings the output of the layer to (N, C, h, w), see :mod:`captum_leam.layers`. Default: None.
        field: Part (top, left, height, width) of the images that the model reads, in pixels. Default: the whole image.
        seed: Not used. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    See Also:
        * :class:`~captum_leam.explainers.HiResCAM`: Elementwise weights instead of channel means.
        * :class:`~captum_leam.explainers.LayerCAM`: Positive elementwise weights.

    Example:
        The layer of this model has one channel with four cells. The reference agrees with the upper row and opposes the lower left. The one
        weight of the channel cannot distinguish them:

        >>> import torch
        >>> model = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> image, reference = torch.ones(1, 1, 2, 2), torch.tensor([1.0, 1.0, -1.0, 0.0])
        >>> method = GradCAM(model, model[0], norm="detach")
        >>> print(method.attribute(image, reference=reference)[0, 0].numpy().round(2))
        [[0.07 0.07]
         [0.07 0.07]]
        >>> method.cost
        Cost(forwards=1.0, backwards=1.0)
    """

    weighting = "channel"
    positive_only = True


class LayerCAM(EmbeddingCAM):
    r"""Layer class activation mapping (LayerCAM) of a similarity.

    LayerCAM weights each activation of a layer by the positive part of its gradient:

    .. math:: M = \mathrm{ReLU}\Big(\sum_c \mathrm{ReLU}\Big(\frac{\partial s}{\partial A_c}\Big) \odot A_c\Big)

    where :math:`A` are the activations and s is the cosine of the embedding to the reference. Use it for maps of early layers, where the
    weights of :class:`GradCAM` are too coarse. It does not show evidence against the match.

    ``attribute`` returns maps of 0 or more at the size of the images, shape (N, 1, H, W).

    Source: Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 2021, equations 5 and 6.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable after the layer.
        layer: Module whose output (N, C, h, w) is weighted.
        norm: Treatment of the length of the embedding in the score. Default: ``"differentiate"``.

            * ``"differentiate"``: Part of the gradient, which is that of the cosine. It needs a reference.
            * ``"detach"``: Constant in the gradient, as in :class:`~captum_leam.LEAM`.
        reshape: Function that brings the output of the layer to (N, C, h, w), see :mod:`captum_leam.layers`. Default: None.
        field: Part (top, left, height, width) of the images that the model reads, in pixels. Default: the whole image.
        seed: Not used. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    See Also:
        * :class:`~captum_leam.explainers.GradCAM`: Channel means as weights.
        * :class:`~captum_leam.explainers.HiResCAM`: Signed elementwise weights.

    Example:
        The layer of this model has one channel with four cells. The reference agrees with the upper row and opposes the lower left:

        >>> import torch
        >>> model = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> image, reference = torch.ones(1, 1, 2, 2), torch.tensor([1.0, 1.0, -1.0, 0.0])
        >>> method = LayerCAM(model, model[0], norm="detach")
        >>> print(method.attribute(image, reference=reference)[0, 0].numpy().round(2))
        [[0.29 0.29]
         [0.   0.  ]]
    """

    weighting = "positive"
    positive_only = True


class HiResCAM(EmbeddingCAM):
    r"""High-resolution class activation mapping (HiResCAM) of a similarity, with signed maps.

    HiResCAM multiplies each activation of a layer by its gradient:

    .. math:: M = \sum_c \frac{\partial s}{\partial A_c} \odot A_c

    where :math:`A` are the activations and s is the cosine of the embedding to the reference. Positive values support the match, negative
    values oppose it. Use it if the sign matters, and for networks that flatten their last feature map. :class:`~captum_leam.LEAM` is this
    product with paths, contrasts and several layers, and equals it with ``norm="detach"``.

    ``attribute`` returns signed maps at the size of the images, shape (N, 1, H, W).

    Source: Draelos & Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks", 2020,
    arXiv 2011.08891, equation 2.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable after the layer.
        layer: Module whose output (N, C, h, w) is weighted.
        norm: Treatment of the length of the embedding in the score. Default: ``"differentiate"``.

            * ``"differentiate"``: Part of the gradient, which is that of the cosine. It needs a reference.
            * ``"detach"``: Constant in the gradient, as in :class:`~captum_leam.LEAM`.
        reshape: Function that brings the output of the layer to (N, C, h, w), see :mod:`captum_leam.layers`. Default: None.
        field: Part (top, left, height, width) of the images that the model reads, in pixels. Default: the whole image.
        seed: Not used. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    See Also:
        :class:`~captum_leam.LEAM`: The same product, with paths, contrasts and several layers.

    Example:
        The layer of this model has one channel with four cells. The reference agrees with the upper row and opposes the lower left:

        >>> import torch
        >>> model = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> image, reference = torch.ones(1, 1, 2, 2), torch.tensor([1.0, 1.0, -1.0, 0.0])
        >>> method = HiResCAM(model, model[0], norm="detach")
        >>> print(method.attribute(image, reference=reference)[0, 0].numpy().round(2))
        [[ 0.29  0.29]
         [-0.29  0.  ]]
    """

    weighting = "elementwise"
