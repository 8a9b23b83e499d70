r"""Metrics of Captum, with the inputs that make them correct for layer maps.

``captum.metrics.infidelity`` expects attributions of the shape of the input, and perturbations that fit their meaning: the values of a LEAM
map are shares of the score and not slopes. ``captum.metrics.sensitivity_max`` iterates over the batch if a method returns a tensor instead
of a tuple. With one image its result is then too large by the square root of the number of rows of the maps, and with more images it
fails. Its perturbations also draw from the global random numbers.
"""

from collections.abc import Callable
from typing import Any

import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max as captum_sensitivity_max
from torch import Tensor

from captum_leam._engine.arithmetic import uniform
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError
from captum_leam.faithfulness.fills import Fill, as_fill
from captum_leam.maps import place_on_field


def input_attributions(maps: Tensor, images: Tensor, field: Field | None = None) -> Tensor:
    """Enlarge layer maps to attributions of the shape of the input.

    The maps are placed on the part of the image that the network reads, and spread evenly over the channels. Use it for metrics that expect
    one value per input element, such as those of Captum. The sum of a map is kept, exactly if the field is a whole multiple of the size of
    the layer map and closely otherwise.

    Args:
        maps: Signed layer maps on the raw scale, shape (N, 1, h, w).
        images: Images, shape (N, C, H, W).
        field: Part of the image that the network reads: (top, left, height, width). Default: the whole image.

    Returns:
        Attributions, shape (N, C, H, W).

    Raises:
        CaptumLeamError: If the maps have another shape.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> spread = input_attributions(torch.ones(1, 1, 2, 2), torch.rand(1, 3, 8, 8))
        >>> spread.shape, round(spread.sum().item(), 4)
        (torch.Size([1, 3, 8, 8]), 4.0)
    """
    if maps.ndim != 4 or maps.shape[1] != 1 or len(maps) != len(images):
        raise CaptumLeamError(
            f"Expected `maps` to have one layer map per image, shape ({len(images)}, 1, h, w), got {tuple(maps.shape)}."
        )
    height, width = images.shape[2:]
    area = height * width if field is None else field[2] * field[3]
    placed = place_on_field(maps.to(images.device), (height, width), field) * (maps.shape[2] * maps.shape[3] / area)
    return (placed[:, None] / images.shape[1]).expand_as(images)


def infidelity(
    forward_func: Callable[..., Tensor],
    images: Tensor,
    maps: Tensor,
    *,
    additional_forward_args: Any = None,
    field: Field | None = None,
    fill: str | Fill | Callable[..., Tensor] = "blur",
    side: int | None = None,
    n_samples: int = 20,
    normalize: bool = False,
    max_examples_per_batch: int | None = None,
    seed: int = 0,
) -> Tensor:
    r"""Return the infidelity of layer maps: how badly they predict the drop of the score when squares are filled.

    .. math:: E_m\left[\left(\sum_p m_p M_p - (s(x) - s(x_m))\right)^2\right]

    where :math:`M` is the map, :math:`s` is the score, and :math:`x_m` is the image with a random square m filled.

    Source: Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019, definition 2.1 with the square
    removal of section 2.3; computed by Captum.

    Args:
        forward_func: Function from images to scores (N,), such as :class:`~captum_leam.EmbeddingSimilarity`, best with ``norm="fixed"``.
        images: Images, shape (N, C, H, W).
        maps: Signed layer maps on the raw scale of the score, shape (N, 1, h, w).
        additional_forward_args: Further arguments of ``forward_func`` with one row per image, such as the weights of the fixed norm.
            Default: none.
        field: Part of the image that the network reads: (top, left, height, width). Default: the whole image.
        fill: Replacement of the pixels of a square: ``"zero"``, ``"mean"``, ``"blur"``, ``"noisy linear"``, ``"shuffle"``, or a function.
            Default: ``"blur"``.
        side: Side of the squares in pixels. Default: a quarter of the width.
        n_samples: Number of squares per image. Default: 20.
        normalize: Whether to scale each map by the factor that fits best, so that only its shape counts. Default: False.
        max_examples_per_batch: Number of images in one pass. Default: all.
        seed: Seed of the squares. They are drawn batch by batch, so that ``max_examples_per_batch`` changes them; the global random
            numbers do not change. Default: 0.

    Returns:
        Infidelity of each map, 0 or more, shape (N,). Lower is better. It is 0 if the sums of the map are the drops of the score.

    Raises:
        CaptumLeamError: If the maps have another shape, or the side exceeds the image.

    See Also:
        * :class:`~captum_leam.faithfulness.OcclusionEvaluator`: Drops of the cosine beside controls.
        * :func:`~captum_leam.faithfulness.sensitivity_max`: Stability under noise.

    Example:
        >>> from captum_leam import LEAM
        >>> from captum_leam.faithfulness import AdditiveSimilarity
        >>> _ = torch.manual_seed(0)
        >>> network = AdditiveSimilarity(torch.rand(8, 8))
        >>> images, score = torch.rand(2, 3, 8, 8), lambda x: network(x)[:, 0]
        >>> maps = LEAM(network, network.pixels).attribute(images, reference=network.reference)
        >>> print(infidelity(score, images, maps, fill="zero").numpy().round(3))  # the maps of this network are exact
        [0. 0.]
    """
    replace = as_fill(fill)
    generator = torch.Generator().manual_seed(seed)
    width = max(1, images.shape[3] // 4) if side is None else side

    def perturb(repeated: Tensor) -> tuple[Tensor, Tensor]:
        masks = random_squares(len(repeated), (repeated.shape[2], repeated.shape[3]), width, generator).to(
            repeated.device
        )
        filled = torch.where(masks[:, None], replace(repeated, masks), repeated)
        return masks[:, None].expand_as(repeated).to(repeated), filled

    result: Tensor = captum_infidelity(
        forward_func,
        perturb,
        images,
        input_attributions(maps, images, field),
        additional_forward_args=additional_forward_args,
        n_perturb_samples=n_samples,
        max_examples_per_batch=max_examples_per_batch,
        normalize=normalize,
    )
    return result.detach()


def random_squares(count: int, size: tuple[int, int], side: int, generator: torch.Generator) -> Tensor:
    """Return masks of one square each, at a random place.

    Args:
        count: Number of masks.
        size: Height and width of the masks.
        side: Side of the squares in pixels.
        generator: Generator of the places.

    Returns:
        Boolean masks, shape (count, H, W).

    Raises:
        CaptumLeamError: For a square that does not fit.

    Example:
        >>> random_squares(2, (8, 8), 3, torch.Generator().manual_seed(0)).sum((1, 2)).tolist()
        [9, 9]
    """
    if not 0 < side <= min(size):
        raise CaptumLeamError(f"Expected `side` from 1 to {min(size)} pixels, got {side}.")
    tops = torch.randint(size[0] - side + 1, (count, 1, 1), generator=generator, device="cpu")
    lefts = torch.randint(size[1] - side + 1, (count, 1, 1), generator=generator, device="cpu")
    rows, columns = torch.arange(size[0], device="cpu")[:, None], torch.arange(size[1], device="cpu")[None]
    return (rows >= tops) & (rows < tops + side) & (columns >= lefts) & (columns < lefts + side)


def sensitivity_max(
    explain: Callable[..., Tensor],
    images: Tensor,
    *per_image: Tensor,
    radius: float = 0.02,
    n_samples: int = 10,
    max_examples_per_batch: int | None = None,
    seed: int = 0,
) -> Tensor:
    r"""Return the sensitivity of maps: their largest relative change under small noise on the images.

    .. math:: \max_{|\delta| \le r} \frac{\|M(x + \delta) - M(x)\|}{\|M(x)\|}

    where :math:`M(x)` is the map of the image x, and r is the radius of the noise. The maximum is over random samples of the noise.

    Source: Yeh et al., NeurIPS 2019, definition 3.1; computed by Captum.

    Args:
        explain: Function from images, and the tensors per image, to maps (N, …), e.g. ``lambda x, r: leam.attribute(x, reference=r)``.
        images: Images, shape (N, C, H, W).
        *per_image: Tensors with one row per image, such as references.
        radius: Largest change of a pixel value, :math:`|\delta| \le` ``radius``. Default: 0.02.
        n_samples: Number of noise samples per image. Default: 10.
        max_examples_per_batch: Number of images in one pass. Default: all.
        seed: Seed of the noise; the global random numbers do not change. Default: 0.

    Returns:
        Sensitivity of each map, 0 or more, shape (N,). Lower is more stable, and a constant map has 0.

    Raises:
        CaptumLeamError: If a tensor per image has another number of rows.

    See Also:
        :func:`~captum_leam.faithfulness.infidelity`: Agreement of a map with drops of the score.

    Example:
        >>> from captum_leam import LEAM
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 8))
        >>> leam = LEAM(model.eval(), model[1])
        >>> faces, references = torch.rand(2, 3, 8, 8), torch.randn(2, 8)
        >>> sensitivity_max(lambda x, r: leam.attribute(x, reference=r), faces, references).shape
        torch.Size([2])
    """
    if any(len(tensor) != len(images) for tensor in per_image):
        raise CaptumLeamError(
            f"Expected one row for each of the {len(images)} images in each tensor, got {[len(t) for t in per_image]}."
        )
    generator = torch.Generator().manual_seed(seed)

    def noisy(repeated: Tensor) -> Tensor:
        noise = 2 * uniform(repeated.shape, generator) - 1
        return repeated + radius * noise.to(repeated)

    def as_tuple(x: Tensor | tuple[Tensor, ...], additional_forward_args: tuple[Tensor, ...] = ()) -> tuple[Tensor]:
        # Captum passes clean images as a tuple and noisy ones as a tensor, and iterates over a tensor that is returned
        return (explain(x[0] if isinstance(x, tuple) else x, *additional_forward_args).detach(),)

    options = {"additional_forward_args": per_image} if per_image else {}
    result: Tensor = captum_sensitivity_max(
        as_tuple,
        images,
        perturb_func=noisy,
        n_perturb_samples=n_samples,
        max_examples_per_batch=max_examples_per_batch,
        **options,
    )
    return result
