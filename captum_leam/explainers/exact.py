r"""Exact decompositions of a similarity over positions, where everything after a layer is affine.

Then an embedding is a sum over positions p of the layer, :math:`f = \sum_p W_p A_p + b`, and so is a similarity,

.. math:: s = \frac{1}{\|f\|}\Big(\sum_p \langle W_p A_p, \hat g\rangle + \langle b, \hat g\rangle\Big)
   \qquad
   s = \frac{1}{\|f\|\|g\|} \Big(\sum_{p,q} \langle W_p A_p, W_q B_q\rangle + \dots\Big)

the second over pairs of positions of two images. Nothing is approximated; what is left out is what b adds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from captum_leam._engine.arithmetic import differentiate, own_arithmetic
from captum_leam._engine.checks import check_images
from captum_leam._engine.guards import raise_if_unexplainable
from captum_leam._engine.modules import layer_name
from captum_leam._engine.outputs import as_embeddings, vanishing
from captum_leam._engine.passes import LayerPasses
from captum_leam._engine.recording import InputGraphRecorder
from captum_leam._engine.shapes import Reshape, spatial
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError
from captum_leam.explainers.base import Explainer, as_map_batch
from captum_leam.maps import place_on_field
from captum_leam.objectives import direction


@dataclass(frozen=True)
class AffineHead:
    r"""What a model does after a layer: :math:`f = \sum_p W_p A_p + b`.

    Attributes:
        weight: W, (D, C, h, w).
        offset: b, (D,).

    Example:
        >>> head = AffineHead(torch.ones(2, 1, 1, 2), torch.zeros(2))
        >>> head.position_embeddings(torch.tensor([[[[3.0, 4.0]]]])).tolist()
        [[[3.0, 3.0], [4.0, 4.0]]]
    """

    weight: Tensor
    offset: Tensor

    def position_embeddings(self, activations: Tensor) -> Tensor:
        """Return the contribution of every position to the embedding: (N, C, h, w) to (N, h·w, D)."""
        with own_arithmetic(activations.device):
            return torch.einsum("dcp,ncp->npd", self.weight.flatten(2), activations.flatten(2))

    def embed(self, activations: Tensor) -> Tensor:
        """Return the embeddings of activations: (N, C, h, w) to (N, D)."""
        return self.position_embeddings(activations).sum(1) + self.offset


@dataclass(frozen=True)
class Correspondences:
    """What every pair of positions of two images adds to their cosine.

    Attributes:
        matrix: (N, h·w, h·w), signed: positions of the image × positions of its partner, in reading order.
        rest: (N,), what the head's offset adds: the matrix sums to the cosine minus this.
        grid: (h, w) of the positions.

    Example:
        >>> pairs = Correspondences(torch.tensor([[[0.1, 0.5], [0.2, 0.0]]]), torch.zeros(1), (1, 2))
        >>> pairs.lines((8, 16), count=1).tolist()  # the left half of the image, the right half of the partner
        [[[4.0, 4.0, 12.0, 4.0]]]
    """

    matrix: Tensor
    rest: Tensor
    grid: tuple[int, int]

    def strengths(self, *, count: int = 10) -> Tensor:
        """Return the contributions of the strongest correspondences to the cosine: (N, count), in the order of :meth:`lines`."""
        return self._strongest(count).values

    def lines(self, size: tuple[int, int], field: Field | None = None, *, count: int = 10) -> Tensor:
        """Return the strongest correspondences, to be drawn between two images (:func:`captum_leam.plots.correspondence_lines`).

        Args:
            size: (H, W) of the images.
            field: (top, left, height, width) of the part that the model reads; all by default.
            count: lines per pair of images.

        Returns:
            (N, count, 4): x and y in the image, x and y in the partner, in pixels, strongest first; centres of the positions.

        Raises:
            CaptumLeamError: for more lines than there are pairs of positions.
        """
        best = self._strongest(count).indices
        positions = self.matrix.shape[2]
        sides = [self._centres(side, size, field) for side in (best // positions, best % positions)]
        return torch.cat(sides, dim=2)

    def _strongest(self, count: int) -> torch.return_types.topk:
        pairs = self.matrix.flatten(1)
        if not 1 <= count <= pairs.shape[1]:
            raise CaptumLeamError(f"count is {count}; there are {pairs.shape[1]} pairs of positions.")
        return pairs.topk(count, dim=1)

    def _centres(self, positions: Tensor, size: tuple[int, int], field: Field | None) -> Tensor:
        top, left, height, width = field or (0, 0, *size)
        rows, columns = positions // self.grid[1], positions % self.grid[1]
        x = left + (columns + 0.5) * width / self.grid[1]
        y = top + (rows + 0.5) * height / self.grid[0]
        return torch.stack([x, y], dim=2)


class PositionDecomposition(Explainer):
    r"""Decomposition of the cosine over positions, for flatten and fully connected heads, BatchNorm included.

    .. math:: M_p = \frac{\langle W_p A_p, \hat g\rangle}{\|f\|}, \qquad
       C_{pq} = \frac{\langle W_p A_p, W_q B_q\rangle}{\|f\|\|g\|}

    W is read from the model once for every call, by one gradient per dimension of the embedding; then every image costs one forward pass.

    Source: Zhu, Yang, Chen, "Visual Explanation for Deep Metric Learning", IEEE TIP 2021, arXiv 1909.12977, which derives it head by head;
    here W is what autograd gives, so that every affine head will do.

    Args:
        model: images to embeddings; affine after the layer.
        layer: the module whose output (N, C, h, w) the affine part takes, usually the last spatial one.
        reshape: brings the layer's output to (N, C, h, w).
        field: (top, left, height, width) of the part of the image that the model reads; all of it by default.
        seed: not used: nothing is drawn.
        batch_size: images in one pass.

    Raises:
        CaptumLeamError: in use, if the model is not affine after the layer.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 6, bias=False)).eval()
        >>> method, faces, reference = PositionDecomposition(model, model[1]), torch.rand(2, 3, 8, 8), torch.randn(6)
        >>> cosine = torch.nn.functional.cosine_similarity(model(faces), reference[None])
        >>> torch.allclose(method.decompose(faces, reference=reference).sum((1, 2, 3)), cosine, atol=1e-6)
        True
        >>> method.attribute(faces, reference=reference).shape
        torch.Size([2, 1, 8, 8])
    """

    head: AffineHead
    """What follows the layer, read at the last call."""

    def __init__(
        self,
        model: Callable[..., Tensor],
        layer: nn.Module,
        *,
        reshape: Reshape | None = None,
        field: Field | None = None,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        self.layer, self.reshape, self.field = layer, reshape, field

    def decompose(self, inputs: Tensor, *, reference: Tensor | None = None) -> Tensor:
        """Return maps at the size of the layer, whose sums are the cosines minus what the head's offset adds.

        Args:
            inputs: As for :meth:`Explainer.attribute`.
            reference: As for :meth:`Explainer.attribute`.

        Returns:
            (N, 1, h, w), signed, detached.
        """
        return torch.cat([maps.detach() for maps in self._in_parts(self._decompose, inputs, reference)])

    def correspondences(self, inputs: Tensor, partners: Tensor) -> Correspondences:
        """Return the contributions of pairs of positions of two images to their cosine.

        Args:
            inputs: images (N, C, H, W).
            partners: images (N, C, H, W), or (1, C, H, W) for all.

        Returns:
            :class:`Correspondences`, detached.

        Raises:
            CaptumLeamError: for another number of partners.
        """
        check_images(partners)
        if len(partners) not in (1, len(inputs)):
            raise CaptumLeamError(
                f"{len(partners)} partners for {len(inputs)} images; expected one for each, or one for all."
            )

        def pairs(images: Tensor, rows: Tensor | None) -> Correspondences:
            others = images[:0] if rows is None else rows.view(-1, *partners.shape[1:])
            return self._pairs(images, others.expand(len(images), -1, -1, -1))

        parts = self._in_parts(pairs, inputs, partners.flatten(1))
        matrix, rest = (torch.cat(t).detach() for t in zip(*((p.matrix, p.rest) for p in parts), strict=True))
        return Correspondences(matrix, rest, parts[0].grid)

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        maps = self._decompose(images, reference)
        return as_map_batch(place_on_field(maps, (images.shape[2], images.shape[3]), self.field))

    def _decompose(self, images: Tensor, reference: Tensor | None) -> Tensor:
        f, of_positions, grid = self._run(images)
        towards = direction(f, reference)
        shares: Tensor = (of_positions * towards[:, None]).sum(2) / f.norm(dim=1, keepdim=True)
        return shares.view(-1, 1, *grid)

    def _pairs(self, images: Tensor, partners: Tensor) -> Correspondences:
        f, of_image, grid = self._run(images)
        g, of_partner, _ = self._run(partners)
        lengths = f.norm(dim=1) * g.norm(dim=1)
        with own_arithmetic(images.device):
            matrix = torch.einsum("npd,nqd->npq", of_image, of_partner) / lengths[:, None, None]
        return Correspondences(matrix, (f * g).sum(1) / lengths - matrix.sum((1, 2)), grid)

    # -- the model up to the layer, and after it -------------------------------------------------------------

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return embeddings (n, D), the contribution of every position to them (n, h·w, D), and the grid (h, w)."""
        embeddings, activations = self._activations(images)
        return embeddings, self.head.position_embeddings(activations), (activations.shape[2], activations.shape[3])

    def _activations(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self._forwards += len(images)
        size = (images.shape[2], images.shape[3])
        passes = LayerPasses(self.model, [self.layer], reshapes=[self.reshape], image_size=size)
        output, activations = passes.activations((images.clone(),))
        return as_embeddings(output, len(images)), activations[0][0]

    def _prepare(self, inputs: Tensor) -> None:
        """Read the head from the first image, and check it on the image turned around at half the brightness."""
        raise_if_unexplainable(self.model, [self.layer])
        image = inputs[:1].detach().clone()
        self.head = self._read_head(image)
        embeddings, activations = self._activations(0.5 * image.flip(2, 3))
        error = (self.head.embed(activations) - embeddings).norm() / (embeddings.norm() + self.head.offset.norm())
        if bool(error > vanishing(embeddings)):
            raise CaptumLeamError(
                f"the model is not affine after layer {layer_name(self.layer, self.model)} (relative error {error.item():.2g}): no exact "
                "decomposition there. Choose the last layer with positions, after its activation function, or use LEAM or HiResCAM."
            )

    def _read_head(self, image: Tensor) -> AffineHead:
        name = partial(layer_name, self.layer, self.model)
        recorder = InputGraphRecorder([self.layer], self.model)
        with recorder:
            embeddings = self._embed(image)
        try:
            (kept,) = recorder.runs_of(self.layer)[0]
            self._check_differentiable(embeddings)
            self._backwards += embeddings.shape[1]
            weight = torch.cat(list(dimension_gradients(embeddings, kept, self._at_once)))
        finally:
            recorder.release()
        activations = spatial(kept, name, 1, tuple(image.shape[2:]), self.reshape)
        weight = weight if self.reshape is None else self.reshape(weight)
        linear = AffineHead(weight, torch.zeros_like(embeddings[0]))
        return AffineHead(weight, (embeddings - linear.embed(activations))[0].detach())


def dimension_gradients(embedding: Tensor, activations: Tensor, at_once: int) -> Iterator[Tensor]:
    """Gradients of single dimensions of one embedding, several in one vectorised backward pass.

    Args:
        embedding: (1, D), with a graph to the activations.
        activations: (1, …), of one image.
        at_once: dimensions in one backward pass.

    Yields:
        The gradients of the next dimensions, (k, …).

    Example:
        >>> x = torch.ones(1, 2, requires_grad=True)
        >>> f = x @ torch.tensor([[1.0, 3.0], [2.0, 4.0]])
        >>> [g.tolist() for g in dimension_gradients(f, x, 1)]
        [[[1.0, 2.0]], [[3.0, 4.0]]]
    """
    identity = torch.eye(embedding.shape[1], dtype=embedding.dtype, device=embedding.device)
    for ones in torch.split(identity, at_once):
        options = {"retain_graph": True, "is_grads_batched": True}
        (gradients,) = differentiate(embedding, activations, grad_outputs=ones[:, None], **options)
        yield gradients[:, 0]


class GapDecomposition(PositionDecomposition):
    r"""Decomposition of the cosine over positions, for global average pooling (and linear layers after it).

    .. math:: M_p = \frac{1}{hw}\, \frac{\langle A_p, \hat g\rangle}{\|f\|}

    the case of :class:`PositionDecomposition` in which the head treats all positions alike, which is checked.

    Source: Stylianou, Souvenir, Pless, "Visualizing Deep Similarity Networks", WACV 2019, arXiv 1901.00536.

    Raises:
        CaptumLeamError: in use, if the head is not affine, or treats positions differently.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        >>> method, faces, reference = GapDecomposition(model, model[1]), torch.rand(2, 3, 8, 8), torch.rand(6)
        >>> cosine = torch.nn.functional.cosine_similarity(model(faces), reference[None])
        >>> torch.allclose(method.decompose(faces, reference=reference).sum((1, 2, 3)), cosine, atol=1e-6)
        True
    """

    def _read_head(self, image: Tensor) -> AffineHead:
        head = super()._read_head(image)
        spread = (head.weight - head.weight.mean((2, 3), keepdim=True)).norm() / head.weight.norm()
        if bool(spread > vanishing(head.weight)):
            raise CaptumLeamError(
                f"the head after layer {layer_name(self.layer, self.model)} treats positions differently: it does more than global average "
                "pooling. Use PositionDecomposition."
            )
        return head
