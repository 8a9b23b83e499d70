"""Shapley values of semantic regions, such as nose, eyes and hair, for a similarity."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from captum.attr import ShapleyValueSampling
from torch import Tensor

from captum_leam._engine.checks import all_of_row
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.explainers.base import as_map_batch, cosines
from captum_leam.explainers.perturbation import PerturbationExplainer
from captum_leam.maps import default_blur
from captum_leam.objectives import direction

Parser = Callable[[Tensor], Tensor]
"""Function from images (N, C, H, W) to integer label maps (N, H, W), such as the parsers of :mod:`captum_leam.regions`."""


class RegionShapley(PerturbationExplainer):
    r"""Shapley values of the regions of a face, such as nose and eyes.

    A Shapley value distributes the similarity s to the reference fairly among regions that act together. All regions are replaced by a blur
    and restored one by one in a random order. The value of a region is the mean rise of the similarity when it is restored, over several
    orders:

    .. math:: \phi_r = \mathbb{E}_\pi\left[s(x_{\mathrm{before}_\pi(r) \cup r}) - s(x_{\mathrm{before}_\pi(r)})\right],
       \qquad M(p) = \phi_{r(p)} / |r(p)|

    where :math:`x_S` is the image with all regions but S replaced, and :math:`\pi` are the orders. Use it to compare whole regions. It
    needs no gradients.

    ``attribute`` returns signed maps, shape (N, 1, H, W), in which the pixels of a region share its value evenly. Each map sums to the
    similarity of the image minus that of its replacement.

    Source: Doh et al. 2025, arXiv 2501.05471, for area-weighted semantic regions; Castro, Gómez, Tejada, "Polynomial calculation of the
    Shapley value based on sampling", 2009, for the sampling.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), any callable.
        parser: Function from images to integer label maps (N, H, W), for example :class:`captum_leam.regions.TemplateParser`.
        orders: Number of random orders, 1 or more. Each takes one forward pass per region. Default: 10.
        fill: Function from images (N, C, H, W) to their replacement of the same shape. Default: a blur of σ = 10 px per 112 px of width.
        seed: Seed of the orders. Default: 0.
        batch_size: Maximum number of perturbed images in one pass. Default: 8.

    Raises:
        InputTypeError: If the parser is not callable. When called, if it does not return integers.
        CaptumLeamError: If ``orders`` is below 1. When called, if the label maps do not have the size of the images.

    See Also:
        :func:`~captum_leam.regions.region_report`: Attribution of any map by region.

    Example:
        The embedding of this model is its pixels, and the reference is bright on the left half only. The two halves are
        the regions:

        >>> left = torch.zeros(8, 8)
        >>> left[:, :4] = 1
        >>> def parser(images):
        ...     return (1 - left).long().expand(len(images), 8, 8)  # 0 on the left, 1 on the right
        >>> method = RegionShapley(torch.nn.Flatten(), parser, fill=torch.zeros_like)
        >>> maps = method.attribute(torch.ones(1, 1, 8, 8), reference=left.flatten())
        >>> values = [half.sum().item() for half in maps.split(4, dim=3)]
        >>> values[0] > 0 > values[1], round(sum(values), 3)  # the sum is the cosine
        (True, 0.707)
        >>> method.cost
        Cost(forwards=21.0, backwards=0.0)
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        parser: Parser,
        *,
        orders: int = 10,
        fill: Callable[[Tensor], Tensor] = default_blur,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        if not callable(parser):
            raise InputTypeError(
                f"Expected parser to be a function from images to label maps, got a {type(parser).__name__}."
            )
        if orders < 1:
            raise CaptumLeamError(f"Expected orders to be 1 or more, got {orders}.")
        self.parser, self.orders, self.fill = parser, orders, fill

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        with torch.no_grad():
            regions = region_masks(self.parser(images), images)
            rows = zip(self._single_images(images, reference), regions, strict=True)
            return as_map_batch(torch.cat([self._pixel_values(i, x, g, r) for (i, x, g), r in rows]).to(images))

    def _pixel_values(self, row: int, image: Tensor, reference: Tensor, regions: Tensor) -> Tensor:
        """Return the values (1, H, W) of the regions (H, W) of one image, divided by their areas."""

        def score(perturbed: Tensor) -> Tensor:
            with all_of_row(row):
                embeddings = self._embed(perturbed)
                return cosines(embeddings, direction(embeddings, reference))

        sampling = ShapleyValueSampling(score)
        # Captum's generator of orders uses the random state of the process, which threads share.
        sampling.permutation_generator = partial(random_orders, torch.Generator().manual_seed(self.seed))
        values: Tensor = sampling.attribute(
            image,
            baselines=self.fill(image),
            feature_mask=regions[None, None],
            n_samples=self.orders,
            perturbations_per_eval=self._pass_size,
        )
        areas = regions.flatten().bincount().to(values)
        return values[:, 0] / areas[regions]


def random_orders(generator: torch.Generator, regions: int, orders: int) -> Iterator[list[int]]:
    """Yield random orders of the regions.

    Args:
        generator: Generator of the random numbers.
        regions: Number of regions.
        orders: Number of orders.

    Yields:
        A permutation of the numbers from 0 to ``regions`` − 1.

    Example:
        >>> [sorted(order) for order in random_orders(torch.Generator().manual_seed(0), 3, 2)]
        [[0, 1, 2], [0, 1, 2]]
    """
    for _ in range(orders):
        yield torch.randperm(regions, generator=generator, device="cpu").tolist()


def region_masks(labels: Tensor, images: Tensor) -> list[Tensor]:
    """Return label maps as Captum's feature masks, with the regions numbered without gaps.

    Args:
        labels: Integer label maps of shape (N, H, W).
        images: Parsed images of shape (N, C, H, W).

    Returns:
        List of one mask of shape (H, W) per image, int64, on the device of the images.

    Raises:
        InputTypeError: If the labels are not integers.
        CaptumLeamError: If the labels do not have shape (N, H, W).

    Example:
        >>> region_masks(torch.tensor([[[7, 2], [2, 9]]]), torch.zeros(1, 3, 2, 2))[0].tolist()
        [[1, 0], [0, 2]]
    """
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        kind = f"a tensor of {labels.dtype}" if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        raise InputTypeError(
            f"Expected parser to return integer label maps (N, H, W), got {kind}. Convert scores of classes with "
            "captum_leam.regions.parse."
        )
    expected = (len(images), *images.shape[2:])
    if labels.shape != expected:
        raise CaptumLeamError(f"Expected parser to return label maps of shape {expected}, got {tuple(labels.shape)}.")
    return [label_map.unique(return_inverse=True)[1].to(images.device) for label_map in labels]
