r"""Exact decompositions of a similarity over positions, for models that are affine after a layer.

The embedding of such a model is a sum over the positions p of the layer, :math:`f = \sum_p W_p A_p + b`. A similarity is then a sum over
positions as well, or over pairs of positions of two images:

.. math:: s = \frac{1}{\|f\|}\Big(\sum_p \langle W_p A_p, \hat g\rangle + \langle b, \hat g\rangle\Big)
   \qquad
   s = \frac{1}{\|f\|\|g\|} \Big(\sum_{p,q} \langle W_p A_p, W_q B_q\rangle + \dots\Big)

Nothing is approximated. The contribution of b belongs to no position and is reported separately.
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
from captum_leam._engine.outputs import as_embeddings, noise_floor
from captum_leam._engine.passes import LayerPasses
from captum_leam._engine.recording import InputGraphRecorder
from captum_leam._engine.shapes import Reshape, as_spatial
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError
from captum_leam.explainers.base import Explainer, as_map_batch
from captum_leam.maps import place_on_field
from captum_leam.objectives import direction


@dataclass(frozen=True)
class AffineHead:
    r"""Affine part of a model after a layer, :math:`f = \sum_p W_p A_p + b`.

    Attributes:
        weight: Weights W of shape (D, C, h, w).
        offset: Offset b of shape (D,).

    Example:
        >>> head = AffineHead(torch.ones(2, 1, 1, 2), torch.zeros(2))
        >>> head.position_embeddings(torch.tensor([[[[3.0, 4.0]]]])).tolist()
        [[[3.0, 3.0], [4.0, 4.0]]]
    """

    weight: Tensor
    offset: Tensor

    def position_embeddings(self, activations: Tensor) -> Tensor:
        """Return the contribution of each position to the embedding.

        Args:
            activations: Activations of shape (N, C, h, w).

        Returns:
            Contributions of shape (N, h·w, D).
        """
        with own_arithmetic(activations.device):
            return torch.einsum("dcp,ncp->npd", self.weight.flatten(2), activations.flatten(2))

    def embed(self, activations: Tensor) -> Tensor:
        """Return the embeddings of activations.

        Args:
            activations: Activations of shape (N, C, h, w).

        Returns:
            Embeddings of shape (N, D).
        """
        return self.position_embeddings(activations).sum(1) + self.offset


@dataclass(frozen=True)
class Correspondences:
    """Contributions of pairs of places in two images to their cosine.

    :meth:`PositionDecomposition.correspondences` returns it. A pair of places, such as the left eye in both images, contributes more the
    more similar the two places are to the network.

    Attributes:
        matrix: Signed contributions of shape (N, h·w, h·w), positions of the image × positions of its partner, row by row.
        rest: Contribution that belongs to no position, shape (N,). Matrix and rest sum to the cosine.
        grid: Number of rows and columns (h, w) of the positions.

    Example:
        >>> pairs = Correspondences(torch.tensor([[[0.1, 0.5], [0.2, 0.0]]]), torch.zeros(1), (1, 2))
        >>> pairs.lines((8, 16), count=1).tolist()  # from the left half of the image to the right half of the partner
        [[[4.0, 4.0, 12.0, 4.0]]]
    """

    matrix: Tensor
    rest: Tensor
    grid: tuple[int, int]

    def strengths(self, *, count: int = 10) -> Tensor:
        """Return the contributions of the strongest pairs of positions.

        Args:
            count: Number of pairs of positions. Default: 10.

        Returns:
            Contributions to the cosine of shape (N, count), strongest first, in the order of :meth:`lines`.

        Raises:
            CaptumLeamError: If there are fewer pairs of positions than ``count``.

        Example:
            >>> pairs = Correspondences(torch.tensor([[[0.25, 0.5], [0.125, 0.0]]]), torch.zeros(1), (1, 2))
            >>> pairs.strengths(count=2).tolist()
            [[0.5, 0.25]]
        """
        return self._strongest(count).values

    def lines(self, size: tuple[int, int], field: Field | None = None, *, count: int = 10) -> Tensor:
        """Return the strongest pairs of positions as lines between the two images.

        :func:`captum_leam.plots.correspondence_lines` draws them.

        Args:
            size: Height and width (H, W) of the images in pixels.
            field: Part (top, left, height, width) of the images that the model reads, in pixels. Default: the whole image.
            count: Number of lines per pair of images. Default: 10.

        Returns:
            Lines of shape (N, count, 4), strongest first, in pixels: x and y of the position in the image, x and y of that in the partner.

        Raises:
            CaptumLeamError: If there are fewer pairs of positions than ``count``.

        Example:
            >>> pairs = Correspondences(torch.tensor([[[0.1, 0.5], [0.2, 0.0]]]), torch.zeros(1), (1, 2))
            >>> pairs.lines((8, 16), count=2).tolist()
            [[[4.0, 4.0, 12.0, 4.0], [12.0, 4.0, 4.0, 4.0]]]
        """
        strongest = self._strongest(count).indices
        positions = self.matrix.shape[2]
        ends = [self._centres(end, size, field) for end in (strongest // positions, strongest % positions)]
        return torch.cat(ends, dim=2)

    def _strongest(self, count: int) -> torch.return_types.topk:
        pairs = self.matrix.flatten(1)
        if not 1 <= count <= pairs.shape[1]:
            raise CaptumLeamError(
                f"Expected count to be between 1 and the number of pairs of positions, {pairs.shape[1]}, got {count}."
            )
        return pairs.topk(count, dim=1)

    def _centres(self, positions: Tensor, size: tuple[int, int], field: Field | None) -> Tensor:
        top, left, height, width = field or (0, 0, *size)
        rows, columns = positions // self.grid[1], positions % self.grid[1]
        x = left + (columns + 0.5) * width / self.grid[1]
        y = top + (rows + 0.5) * height / self.grid[0]
        return torch.stack([x, y], dim=2)


class PositionDecomposition(Explainer):
    r"""Exact decomposition of the cosine into one contribution per position of a layer.

    Many face networks flatten their last feature map A and multiply it by a matrix. Then the embedding is a sum over the positions p,
    :math:`f = \sum_p W_p A_p + b`, and so is its cosine to the reference g, except for what the offset b adds:

    .. math:: M_p = \frac{\langle W_p A_p, \hat g\rangle}{\|f\|}

    Use it if the model is linear after its last spatial layer and contributions must be exact. The matrix is read from the model, so any
    such head is supported. Maps have the resolution of that layer, for example 7 × 7. For earlier layers use :class:`~captum_leam.LEAM`.

    ``attribute`` returns signed maps at the size of the images, shape (N, 1, H, W), :meth:`decompose` returns them at the size of the
    layer, and :meth:`correspondences` decomposes over pairs of positions of two images.

    Source: Zhu, Yang, Chen, "Visual Explanation for Deep Metric Learning", IEEE TIP 2021, arXiv 1909.12977, which derives the decomposition
    separately for each type of head.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), affine after the layer: no ReLU, normalisation or the like.
        layer: Module whose output (N, C, h, w) is the input of the affine part, usually the last one with spatial output.
        reshape: Function that brings the output of the layer to (N, C, h, w), see :mod:`captum_leam.layers`. Default: None.
        field: Part (top, left, height, width) of the images that the model reads, in pixels. Default: the whole image.
        seed: Not used. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    Raises:
        CaptumLeamError: When called, if the model is not affine after the layer.

    Note:
        Each call takes one gradient per dimension of the embedding, and then one forward pass per image. Explain many images in one call.

    See Also:
        * :class:`~captum_leam.explainers.GapDecomposition`: Heads with global average pooling.
        * :func:`~captum_leam.plots.correspondence_lines`: Drawing of corresponding positions.

    Example:
        The embedding of this model is its four pixels. The contributions sum to the cosine, which is 0.29:

        >>> model = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> image, reference = torch.ones(1, 1, 2, 2), torch.tensor([1.0, 1.0, -1.0, 0.0])
        >>> maps = PositionDecomposition(model, model[0]).decompose(image, reference=reference)
        >>> print(maps[0, 0].numpy().round(2), round(maps.sum().item(), 2))
        [[ 0.29  0.29]
         [-0.29  0.  ]] 0.29
    """

    head: AffineHead
    """Affine part after the layer, as read in the last call."""

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
        """Compute the contribution of each position to the cosine, at the size of the layer.

        Args:
            inputs: Images (N, C, H, W), floating point, as the model takes them.
            reference: Embeddings that the images are compared with, (D,) or (1, D) for all images, or (N, D) with one per image. Default:
                None, each image's own embedding.

        Returns:
            Signed maps of shape (N, 1, h, w), detached. Each sums to the cosine minus the contribution of the offset.

        Raises:
            InputTypeError: If inputs, reference or embeddings are not floating-point tensors.
            CaptumLeamError: If a shape does not fit, or the model is not affine after the layer.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 6, bias=False)).eval()
            >>> faces, reference = torch.rand(2, 3, 8, 8), torch.randn(6)
            >>> maps = PositionDecomposition(model, model[1]).decompose(faces, reference=reference)
            >>> cosine = torch.nn.functional.cosine_similarity(model(faces), reference[None])
            >>> maps.shape, torch.allclose(maps.sum((1, 2, 3)), cosine, atol=1e-6)
            (torch.Size([2, 1, 4, 4]), True)
        """
        return torch.cat([maps.detach() for maps in self._map_batches(self._decompose, inputs, reference)])

    def correspondences(self, inputs: Tensor, partners: Tensor) -> Correspondences:
        r"""Decompose the cosine of two images over the pairs of their positions.

        .. math:: C_{pq} = \frac{\langle W_p A_p, W_q B_q\rangle}{\|f\|\|g\|}

        where A and B are the activations of the two images, and f and g their embeddings. Use it to see which places of two faces make them
        similar.

        Args:
            inputs: Images (N, C, H, W), floating point, as the model takes them.
            partners: Images (N, C, H, W), one per image, or (1, C, H, W) for all images.

        Returns:
            :class:`Correspondences`: contributions of all pairs of positions, detached, and their grid.

        Raises:
            InputTypeError: If images or embeddings are not floating-point tensors.
            CaptumLeamError: If the number of partners is neither 1 nor N, or the model is not affine after the layer.

        Example:
            >>> model = nn.Sequential(nn.Identity(), nn.Flatten())
            >>> image, partner = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[5.0, 0.0]]]])
            >>> pairs = PositionDecomposition(model, model[0]).correspondences(image, partner)
            >>> print(pairs.matrix[0].numpy().round(2))  # only the two left pixels have something in common
            [[0.6 0. ]
             [0.  0. ]]
        """
        check_images(partners)
        if len(partners) not in (1, len(inputs)):
            raise CaptumLeamError(
                f"Expected partners to be one image, or one per image for {len(inputs)} images, got {len(partners)}."
            )

        def pairs(images: Tensor, rows: Tensor | None) -> Correspondences:
            others = images[:0] if rows is None else rows.view(-1, *partners.shape[1:])
            return self._pairs(images, others.expand(len(images), -1, -1, -1))

        batches = self._map_batches(pairs, inputs, partners.flatten(1))
        matrix = torch.cat([batch.matrix for batch in batches]).detach()
        rest = torch.cat([batch.rest for batch in batches]).detach()
        return Correspondences(matrix, rest, batches[0].grid)

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        maps = self._decompose(images, reference)
        return as_map_batch(place_on_field(maps, (images.shape[2], images.shape[3]), self.field))

    def _decompose(self, images: Tensor, reference: Tensor | None) -> Tensor:
        f, position_embeddings, grid = self._run(images)
        towards = direction(f, reference)
        contributions: Tensor = (position_embeddings * towards[:, None]).sum(2) / f.norm(dim=1, keepdim=True)
        return contributions.view(-1, 1, *grid)

    def _pairs(self, images: Tensor, partners: Tensor) -> Correspondences:
        f, image_positions, grid = self._run(images)
        g, partner_positions, _ = self._run(partners)
        lengths = f.norm(dim=1) * g.norm(dim=1)
        with own_arithmetic(images.device):
            matrix = torch.einsum("npd,nqd->npq", image_positions, partner_positions) / lengths[:, None, None]
        return Correspondences(matrix, (f * g).sum(1) / lengths - matrix.sum((1, 2)), grid)

    # -- the model up to the layer, and after it -------------------------------------------------------------

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return embeddings (n, D), the contribution of each position to them (n, h·w, D), and the grid (h, w)."""
        embeddings, activations = self._activations(images)
        return embeddings, self.head.position_embeddings(activations), (activations.shape[2], activations.shape[3])

    def _activations(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self._forwards += len(images)
        size = (images.shape[2], images.shape[3])
        passes = LayerPasses(self.model, [self.layer], reshapes=[self.reshape], image_size=size)
        output, activations = passes.activations((images.clone(),))
        return as_embeddings(output, len(images)), activations[0][0]

    def _prepare(self, inputs: Tensor) -> None:
        """Read the head from the first image and check it on the same image, rotated by 180° and half as bright."""
        raise_if_unexplainable(self.model, [self.layer])
        image = inputs[:1].detach().clone()
        self.head = self._read_head(image)
        embeddings, activations = self._activations(0.5 * image.flip(2, 3))
        error = (self.head.embed(activations) - embeddings).norm() / (embeddings.norm() + self.head.offset.norm())
        if bool(error > noise_floor(embeddings)):
            raise CaptumLeamError(
                f"Expected the model to be affine after layer {layer_name(self.layer, self.model)}, got a relative error of "
                f"{error.item():.2g}. Choose the last layer with spatial output, after its activation function, or use LEAM or HiResCAM."
            )

    def _read_head(self, image: Tensor) -> AffineHead:
        name = partial(layer_name, self.layer, self.model)
        recorder = InputGraphRecorder([self.layer], self.model)
        with recorder:
            embeddings = self._embed(image)
        try:
            (output,) = recorder.runs_of(self.layer)[0]
            self._check_differentiable(embeddings)
            self._backwards += embeddings.shape[1]
            weight = torch.cat(list(dimension_gradients(embeddings, output, self._pass_size)))
        finally:
            recorder.release()
        activations = as_spatial(output, name, 1, tuple(image.shape[2:]), self.reshape)
        weight = weight if self.reshape is None else self.reshape(weight)
        linear = AffineHead(weight, torch.zeros_like(embeddings[0]))
        return AffineHead(weight, (embeddings - linear.embed(activations))[0].detach())


def dimension_gradients(embedding: Tensor, activations: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Yield the gradients of the dimensions of one embedding, several at a time.

    Args:
        embedding: Embedding of shape (1, D), with a graph to the activations.
        activations: Activations of one image, shape (1, …).
        batch_size: Number of dimensions k in one backward pass.

    Yields:
        Gradients of the next dimensions, shape (k, …).

    Example:
        >>> x = torch.ones(1, 2, requires_grad=True)
        >>> f = x @ torch.tensor([[1.0, 3.0], [2.0, 4.0]])
        >>> [g.tolist() for g in dimension_gradients(f, x, 1)]
        [[[1.0, 2.0]], [[3.0, 4.0]]]
    """
    identity = torch.eye(embedding.shape[1], dtype=embedding.dtype, device=embedding.device)
    options = {"retain_graph": True, "is_grads_batched": True}
    for ones in torch.split(identity, batch_size):
        (gradients,) = differentiate(embedding, activations, grad_outputs=ones[:, None], **options)
        yield gradients[:, 0]


class GapDecomposition(PositionDecomposition):
    r"""Exact decomposition of the cosine over positions, for global average pooling (GAP).

    If a network averages its last feature map A of h × w positions, the cosine to a reference g is a sum with one term per position p:

    .. math:: M_p = \frac{1}{hw}\, \frac{\langle A_p, \hat g\rangle}{\|f\|}

    where f is the embedding. Linear layers after the pooling are allowed. Use it for ResNets and similar networks with GAP; it is
    :class:`PositionDecomposition` with a check that all positions have equal weights.

    ``attribute`` returns signed maps at the size of the images, shape (N, 1, H, W), and ``decompose`` returns them at the size of the
    layer.

    Source: Stylianou, Souvenir, Pless, "Visualizing Deep Similarity Networks", WACV 2019, arXiv 1901.00536.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), with only global average pooling and linear layers after the layer.
        layer: Module whose output (N, C, h, w) is pooled.
        reshape: Function that brings the output of the layer to (N, C, h, w), see :mod:`captum_leam.layers`. Default: None.
        field: Part (top, left, height, width) of the images that the model reads, in pixels. Default: the whole image.
        seed: Not used. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    Raises:
        CaptumLeamError: When called, if the model is not affine after the layer, or if its weights differ between positions.

    See Also:
        :class:`~captum_leam.explainers.PositionDecomposition`: Any affine head.

    Example:
        This model averages two positions with two channels. The reference points along the first channel, in which only the left position
        is active. The contributions sum to the cosine:

        >>> model = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> image, reference = torch.tensor([[[[6.0, 0.0]], [[0.0, 8.0]]]]), torch.tensor([1.0, 0.0])  # 2 channels, 1 × 2 positions
        >>> maps = GapDecomposition(model, model[0]).decompose(image, reference=reference)
        >>> print(maps[0, 0].numpy().round(2), round(maps.sum().item(), 2))
        [[0.6 0. ]] 0.6
    """

    def _read_head(self, image: Tensor) -> AffineHead:
        head = super()._read_head(image)
        spread = (head.weight - head.weight.mean((2, 3), keepdim=True)).norm() / head.weight.norm()
        if bool(spread > noise_floor(head.weight)):
            raise CaptumLeamError(
                f"Expected the head after layer {layer_name(self.layer, self.model)} to have equal weights at all positions, got a "
                f"relative difference of {spread.item():.2g}. Use PositionDecomposition for heads without global average pooling."
            )
        return head
