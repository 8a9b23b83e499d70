"""Shapley values of semantic regions: what the nose, the eyes, the hair add to a similarity, shared out fairly."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from captum.attr import ShapleyValueSampling
from torch import Tensor

from captum_leam._engine.checks import all_of_row
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.explainers.base import as_map_batch, cosines
from captum_leam.explainers.perturbation import Masking
from captum_leam.maps import default_blur
from captum_leam.objectives import direction

Parser = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to label maps (N, H, W) of integers, as :mod:`captum_leam.regions` makes them."""


class RegionShapley(Masking):
    r"""Shapley values of the regions of a face, shared out evenly over their pixels.

    .. math:: \phi_r = \mathbb{E}_\pi\left[s(x_{\mathrm{before}_\pi(r) \cup r}) - s(x_{\mathrm{before}_\pi(r)})\right],
       \qquad M(p) = \phi_{r(p)} / |r(p)|

    where :math:`x_S` shows the regions S and replaces the others, and the orders :math:`\pi` are drawn by Captum's
    ``ShapleyValueSampling``. Every region's pixels sum to its value, and the map to :math:`s(x) - s(x')` exactly, whatever the
    number of orders, with x′ the image that is replaced everywhere. Signed.

    Source: Doh et al. 2025, arXiv 2501.05471, on semantic regions, area-weighted; Castro, Gómez, Tejada, "Polynomial calculation of the
    Shapley value based on sampling", 2009.

    Args:
        model: images to embeddings; any callable.
        parser: images to label maps (N, H, W) of integers, for example :class:`captum_leam.regions.TemplateParser`.
        orders: in which regions are added, drawn.
        fill: images to what replaces them; a blur of σ 10 px per 112 px by default.
        seed: of the orders.
        batch_size: perturbed images in one pass.

    Raises:
        CaptumLeamError: for no order, or label maps of another size.
        InputTypeError: for a parser that cannot be called or that returns no integers.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> halves = torch.cat([torch.zeros(8, 4), torch.ones(8, 4)], 1).long()
        >>> method = RegionShapley(model, lambda images: halves.expand(len(images), 8, 8), orders=5)
        >>> maps = method.attribute(torch.rand(2, 3, 8, 8), reference=torch.randn(2, 8))
        >>> maps[0].unique().numel(), method.cost
        (2, Cost(forwards=11.0, backwards=0.0))
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
                f"parser is a {type(parser).__name__}; expected a function of images that returns label maps."
            )
        if orders < 1:
            raise CaptumLeamError(f"orders is {orders}; expected 1 or more.")
        self.parser, self.orders, self.fill = parser, orders, fill

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        with torch.no_grad():
            regions = region_masks(self.parser(images), images)
            pairs = zip(self._each(images, reference), regions, strict=True)
            return as_map_batch(torch.cat([self._shared_out(i, x, g, r) for (i, x, g), r in pairs]).to(images))

    def _shared_out(self, row: int, image: Tensor, reference: Tensor, regions: Tensor) -> Tensor:
        """Values of the regions (H, W) of one image, over their areas: (1, H, W)."""

        def score(perturbed: Tensor) -> Tensor:
            with all_of_row(row):
                embeddings = self._embed(perturbed)
                return cosines(embeddings, direction(embeddings, reference))

        sampling = ShapleyValueSampling(score)
        # Captum's own draws from the process's generator, which other threads draw from, too
        sampling.permutation_generator = partial(drawn_orders, torch.Generator().manual_seed(self.seed))
        values: Tensor = sampling.attribute(
            image,
            baselines=self.fill(image),
            feature_mask=regions[None, None],
            n_samples=self.orders,
            perturbations_per_eval=self._at_once,
        )
        areas = regions.flatten().bincount().to(values)
        shared: Tensor = values[:, 0] / areas[regions]
        return shared


def drawn_orders(generator: torch.Generator, regions: int, orders: int) -> Iterator[list[int]]:
    """Random orders of the regions.

    Example:
        >>> [sorted(order) for order in drawn_orders(torch.Generator().manual_seed(0), 3, 2)]
        [[0, 1, 2], [0, 1, 2]]
    """
    for _ in range(orders):
        yield torch.randperm(regions, generator=generator, device="cpu").tolist()


def region_masks(labels: Tensor, images: Tensor) -> list[Tensor]:
    """Label maps as Captum's feature masks: per image (H, W), regions counted from 0 without gaps.

    Args:
        labels: (N, H, W), integers.
        images: (N, C, H, W) that were parsed.

    Returns:
        N masks (H, W), int64, on the device of the images.

    Raises:
        InputTypeError: for labels that are no integers.
        CaptumLeamError: for another shape.

    Example:
        >>> region_masks(torch.tensor([[[7, 2], [2, 9]]]), torch.rand(1, 3, 2, 2))[0].tolist()
        [[1, 0], [0, 2]]
    """
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        kind = f"a tensor of {labels.dtype}" if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        raise InputTypeError(
            f"the parser returned {kind}; expected integer label maps (N, H, W). From scores of classes, captum_leam.regions.parse "
            "makes them."
        )
    expected = (len(images), *images.shape[2:])
    if labels.shape != expected:
        raise CaptumLeamError(f"the parser returned shape {tuple(labels.shape)}; expected label maps {expected}.")
    return [one.unique(return_inverse=True)[1].to(images.device) for one in labels]
