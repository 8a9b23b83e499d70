r"""Captum's own metrics, given what they need to be right for layer maps.

``captum.metrics.infidelity`` wants attributions of the input's shape, and perturbations that fit what they mean: a LEAM map holds shares
of the score, not slopes. ``captum.metrics.sensitivity_max`` iterates over the batch when a method returns a bare tensor: at one image
its result is too large by the square root of the number of maps' rows, with more images it fails. And its perturbations draw from the
global random numbers.
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
    """Return a layer map as attributions of the input: brought to the field, spread evenly over the channels, with the sum it had.

    The sum is kept exactly where the field is a whole multiple of the layer map's size, closely elsewhere.

    Args:
        maps: layer maps (N, 1, h, w), signed, on the raw scale.
        images: Images (N, C, H, W).
        field: (top, left, height, width) the network reads; the whole image by default.

    Returns:
        (N, C, H, W).

    Example:
        >>> spread = input_attributions(torch.ones(1, 1, 2, 2), torch.rand(1, 3, 8, 8))
        >>> spread.shape, round(spread.sum().item(), 4)
        (torch.Size([1, 3, 8, 8]), 4.0)
    """
    if maps.ndim != 4 or maps.shape[1] != 1 or len(maps) != len(images):
        raise CaptumLeamError(
            f"maps have shape {tuple(maps.shape)} for images {tuple(images.shape)}; expected one layer map per image, (N, 1, h, w)."
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
    r"""Infidelity of layer maps under squares that are filled in: :math:`E_m[(\sum m M - (s(x) - s(x_m)))^2]`.

    Source: Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019, definition 2.1 with the square
    removal of section 2.3; computed by Captum.

    Args:
        forward_func: images → scores (N,): :class:`~captum_leam.EmbeddingSimilarity`, best under ``norm="fixed"``.
        images: Images (N, C, H, W).
        maps: layer maps (N, 1, h, w), signed, on the raw scale of the score.
        additional_forward_args: of ``forward_func``, repeated along: for the fixed norm its weights.
        field: (top, left, height, width) that the network reads.
        fill: what a square is filled with.
        side: of the squares in pixels; a quarter of the width by default.
        n_samples: squares per image.
        normalize: scale every map by the one factor that fits best, so that only its shape counts.
        max_examples_per_batch: images in one pass.
        seed: of the squares, drawn batch by batch: ``max_examples_per_batch`` changes which. The global random numbers are left alone.

    Returns:
        (N,), not negative; 0 for a map whose sums are the falls of the score. Lower is better.

    Example:
        >>> from captum_leam import LEAM
        >>> from captum_leam.faithfulness import AdditiveSimilarity
        >>> network = AdditiveSimilarity(torch.rand(8, 8))
        >>> images, score = torch.rand(2, 3, 8, 8), lambda x: network(x)[:, 0]
        >>> maps = LEAM(network, network.pixels).attribute(images, reference=network.reference)
        >>> bool((infidelity(score, images, maps, fill="zero") < 1e-10).all())
        True
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
    """Boolean (count, H, W), one square each, anywhere that it fits.

    Raises:
        CaptumLeamError: for a square that does not fit.

    Example:
        >>> random_squares(2, (8, 8), 3, torch.Generator().manual_seed(0)).sum((1, 2)).tolist()
        [9, 9]
    """
    if not 0 < side <= min(size):
        raise CaptumLeamError(f"side is {side}; expected 1 to {min(size)} pixels.")
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
    r"""How much maps change at most under small noise: :math:`\max_\delta \|M(x+\delta) - M(x)\| / \|M(x)\|`, :math:`|\delta| \le` radius.

    Source: Yeh et al., NeurIPS 2019, definition 3.1; computed by Captum.

    Args:
        explain: images (and what is per image) → maps, any shape (N, …), for example
            ``lambda x, r: leam.attribute(x, reference=r)``.
        images: Images (N, C, H, W).
        *per_image: tensors with one row per image, repeated along with the images: references, for example.
        radius: largest change of a pixel value.
        n_samples: noises per image.
        max_examples_per_batch: images in one pass.
        seed: of the noise; the global random numbers are left alone.

    Returns:
        (N,), not negative. Lower is steadier; a constant map has 0.

    Raises:
        CaptumLeamError: if something per image has another number of rows.

    Example:
        >>> from captum_leam import LEAM
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 8))
        >>> leam = LEAM(model.eval(), model[1])
        >>> faces, references = torch.rand(2, 3, 8, 8), torch.randn(2, 8)
        >>> sensitivity_max(lambda x, r: leam.attribute(x, reference=r), faces, references).shape
        torch.Size([2])
    """
    if any(len(tensor) != len(images) for tensor in per_image):
        raise CaptumLeamError(
            f"{[len(t) for t in per_image]} rows for {len(images)} images; expected one per image in each."
        )
    generator = torch.Generator().manual_seed(seed)

    def noisy(repeated: Tensor) -> Tensor:
        noise = 2 * uniform(repeated.shape, generator) - 1
        return repeated + radius * noise.to(repeated)

    def as_tuple(x: Tensor | tuple[Tensor, ...], additional_forward_args: tuple[Tensor, ...] = ()) -> tuple[Tensor]:
        # Captum gives the clean images as a tuple and the noisy ones bare, and misreads a bare tensor that comes back
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
