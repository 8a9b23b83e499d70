"""Controls of person specificity: maps that do not depend on identity, and strangers who look alike.

===========  =============================================  ========================================================
control      depends on                                     function
===========  =============================================  ========================================================
edges        the image                                      :func:`edge_maps`, smoothed Sobel edges
untrained    the image, the architecture and the method     :func:`untrained_maps`, random weights
parser       the places of the parts of the face            :func:`region_maps`, painted masks of a parser
pose         the pose of the head                           :func:`closest_strangers` with :func:`pose_features`
===========  =============================================  ========================================================

:data:`captum_leam.controls.CONTROL_NAMES` has their names in texts and figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from captum_leam._engine.arithmetic import as_array, as_tensor
from captum_leam.controls import ControlContext, edges
from captum_leam.errors import CaptumLeamError
from captum_leam.maps import as_maps, gaussian_blur, normalize_sum
from captum_leam.stats.bootstrap import Floats
from captum_leam.stats.labels import person_codes

Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]


def control_maps(
    images: Tensor,
    people: Sequence[Any],
    *,
    model: nn.Module | None = None,
    explain: Explain | None = None,
    labels: Tensor | None = None,
    maps: Tensor | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return control maps, which do not depend on what a network has learned about identity.

    Maps are person-specific only if they are more so than these. The controls that the arguments suffice for are computed:

    * ``"edges"``: Smoothed edges of the image, see :func:`edge_maps`.
    * ``"untrained"``: Maps of the model with random weights, see :func:`untrained_maps`. Needs ``model``.
    * ``"parser"``: Places of the parts of the face, see :func:`region_maps`. Needs ``labels``.

    Args:
        images: Images, shape (N, C, H, W).
        people: Person of each of the N images.
        model: Model for the control "untrained"; it is copied and not changed. Default: no such control.
        explain: Function from a model, images and references (N, D) to maps, which computes the maps that are examined. Default:
            :func:`~captum_leam.explain_faces`.
        labels: Label maps of a parser for the control "parser", shape (N, H, W). Default: no such control.
        maps: Maps of the method, shape (N, H, W), from which the value of each region is computed. Default: values by size.
        batch_size: Number of images in one pass. Default: 64.
        seed: Seed of the random weights. Default: 0.

    Returns:
        Dictionary of control maps by name of the control, shape (N, H, W) each.

    See Also:
        :func:`~captum_leam.patterns.pattern_claim`: Comparison of maps with these controls.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> images, labels = torch.rand(4, 3, 16, 16), torch.ones(4, 16, 16, dtype=torch.int64)
        >>> {name: tuple(maps.shape) for name, maps in control_maps(images, list("aabb"), labels=labels).items()}
        {'edges': (4, 16, 16), 'parser': (4, 16, 16)}
    """
    controls = {"edges": edge_maps(images)}
    if model is not None:
        controls["untrained"] = untrained_maps(model, images, people, explain, batch_size=batch_size, seed=seed)
    if labels is not None:
        controls["parser"] = region_maps(labels, maps)
    return controls


def edge_maps(images: Tensor) -> Tensor:
    """Return the smoothed Sobel edges of images, a control that needs no network.

    Args:
        images: Images, shape (N, C, H, W).

    Returns:
        Maps, shape (N, H, W).

    See Also:
        :func:`~captum_leam.patterns.control_maps`: All controls in one call.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> edge_maps(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 16, 16])
    """
    return edges(ControlContext(images)).cpu()


def untrained_maps(
    model: nn.Module,
    images: Tensor,
    people: Sequence[Any],
    explain: Explain | None = None,
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> Tensor:
    """Return the maps of a model of the same architecture with random weights, by the same method.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps".

    Args:
        model: Model; it is copied and not changed.
        images: Images, shape (N, C, H, W).
        people: Person of each image. References are leave-one-out centroids of the untrained model's own embeddings.
        explain: Function from a model, images and references (N, D) to maps. Default: :func:`~captum_leam.explain_faces`.
        batch_size: Number of images in one pass. Default: 64.
        seed: Seed of the random weights. Default: 0.

    Returns:
        Maps, shape (N, H, W).

    See Also:
        :func:`~captum_leam.models.randomised`: Copy of a model with random weights.

    Example:
        >>> from captum_leam.synthetic import EmbeddingNet
        >>> _ = torch.manual_seed(0)
        >>> untrained_maps(EmbeddingNet(32).eval(), torch.rand(4, 3, 112, 112), list("aabb")).shape
        torch.Size([4, 112, 112])
    """
    from captum_leam.explain import explain_faces
    from captum_leam.models.randomised import randomised
    from captum_leam.objectives import embed, leave_one_out_centroids

    twin = randomised(model, images, seed=seed)
    references = leave_one_out_centroids(embed(twin, images, batch_size), people)
    if explain is None:
        return explain_faces(twin, images, reference=references, batch_size=batch_size)
    return as_maps(explain(twin, images, references))


def region_maps(labels: Tensor | ArrayLike, maps: Tensor | None = None, *, smooth: float = 2.0) -> Tensor:
    """Return maps with one constant value for each region of a parser, the same for all faces.

    The maps only contain the places of the parts of each face.

    Args:
        labels: Region labels, integers, shape (N, H, W).
        maps: Maps, shape (N, H, W), whose mean density (mass / area) over all images is the value of a region. Default: 1 / mean area,
            and 0 for label 0, so that small parts have high values.
        smooth: Standard deviation of the blur in pixels of a 112 px crop. Default: 2.

    Returns:
        Maps, shape (N, H, W), not negative.

    Raises:
        CaptumLeamError: If the labels are not integers (N, H, W), or the maps have another size.

    See Also:
        :func:`~captum_leam.patterns.control_maps`: All controls in one call.

    Example:
        >>> labels = torch.zeros(1, 8, 8, dtype=torch.int64); labels[0, 3:5, 3:5] = 2
        >>> painted = region_maps(labels)
        >>> bool(painted[0, 3, 3] == painted.max()), bool(painted[0, 0, 0] < 0.01)
        (True, True)
    """
    where = as_tensor(labels).cpu()
    if where.ndim != 3 or where.is_floating_point():
        raise CaptumLeamError(f"Expected `labels` to be integers (N, H, W), got {where.dtype} {tuple(where.shape)}.")
    names = torch.unique(where)
    if maps is None:
        heights = [0.0 if name == 0 else 1 / float((where == name).double().mean()) for name in names]
    else:
        density = normalize_sum(as_maps(maps).double().cpu())
        if density.shape != where.shape:
            raise CaptumLeamError(
                f"Expected `labels` and `maps` of one size, got {tuple(where.shape)} and {tuple(density.shape)}."
            )
        heights = [float(density[where == name].mean()) for name in names]
    top = max(heights) or 1.0
    painted = torch.tensor(heights, device="cpu", dtype=torch.float32)[torch.bucketize(where, names)] / top
    return gaussian_blur(painted, smooth * where.shape[2] / 112)


# -- similar strangers ----------------------------------------------------------------------------------


def pose_features(landmarks: ArrayLike) -> Floats:
    """Return landmarks without position, size and tilt, so that the turn of the head and the shape of the face remain.

    Args:
        landmarks: Landmarks as (x, y), the eyes first, shape (N, K, 2).

    Returns:
        Features in units of the distance of the eyes, float64, shape (N, 2 K).

    Raises:
        CaptumLeamError: If the landmarks have another shape or NaN, or both eyes are at the same place.

    See Also:
        * :func:`~captum_leam.patterns.closest_strangers`: People in a similar pose.
        * :func:`~captum_leam.patterns.crop_features`: Features without landmarks.

    Example:
        >>> face = np.array([[0, 0], [4, 0], [2, 2], [1, 4], [3, 4]])
        >>> a, b = pose_features([face, 10 + 2 * face])
        >>> bool(np.allclose(a, b))
        True
    """
    points = as_array(landmarks)
    if points.ndim != 3 or points.shape[1] < 3 or points.shape[2] != 2 or not np.isfinite(points).all():
        raise CaptumLeamError(
            f"Expected `landmarks` without NaN, of shape (N, K, 2) with K >= 3, got shape {points.shape}."
        )
    plane = points[..., 0] + 1j * points[..., 1]
    eyes = plane[:, 1] - plane[:, 0]
    if (eyes == 0).any():
        raise CaptumLeamError(
            f"Expected the eyes at two different places, got one place for faces {np.flatnonzero(eyes == 0).tolist()[:5]}."
        )
    middle = (plane[:, 1] + plane[:, 0]) / 2
    normalised = (plane - middle[:, None]) / eyes[:, None]
    return np.concatenate([normalised.real, normalised.imag], axis=1)


def crop_features(images: Tensor, *, side: int = 28) -> Floats:
    """Return small grey crops with mean 0 and length 1, whose distance depends on their correlation.

    They replace :func:`pose_features` for aligned crops without landmarks. Images that are close look alike in pose, light, hair and
    expression, which is a stricter control than pose.

    Args:
        images: Images, shape (N, C, H, W).
        side: Side of the small crop in pixels. Default: 28.

    Returns:
        Features, float64, shape (N, side²).

    See Also:
        :func:`~captum_leam.patterns.pose_features`: Features from landmarks.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> features = crop_features(torch.rand(2, 3, 32, 32), side=8)
        >>> features.shape, (features**2).sum(1).round(6).tolist()
        ((2, 64), [1.0, 1.0])
    """
    grey = F.adaptive_avg_pool2d(images.detach().cpu().double().mean(1, keepdim=True), side).flatten(1).numpy()
    centred = grey - grey.mean(1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    features: Floats = centred / np.where(lengths > 0, lengths, 1)
    return features


def closest_strangers(
    features: ArrayLike, people: Sequence[Any], k: int = 1, *, block: int = 1024
) -> NDArray[np.int64]:
    """Return the k closest images of other people for each image, the closest first.

    Args:
        features: Features of :func:`pose_features` or :func:`crop_features`, shape (N, D).
        people: Person of each image.
        k: Number of strangers, from 1 to the number of images of other people. Default: 1.
        block: Number of images whose distances are in memory at a time. Default: 1024.

    Returns:
        Indices of images, int64, shape (N, k), the closest first.

    Raises:
        CaptumLeamError: If a feature is NaN, the number of people does not fit, or there are too few strangers.

    See Also:
        * :func:`~captum_leam.patterns.pose_features`: Features of the pose.
        * :func:`~captum_leam.patterns.pattern_claim`: Test in which strangers are a control.

    Example:
        >>> closest_strangers([[0.0], [0.1], [0.3], [5.0]], ["ann", "ann", "bob", "cy"]).tolist()
        [[2], [2], [1], [2]]
    """
    table = as_array(features)
    if table.ndim != 2:
        raise CaptumLeamError(f"Expected `features` to have shape (N, D), got {table.shape}.")
    if not np.isfinite(table).all():
        raise CaptumLeamError("Expected `features` to be finite, got NaN or infinity.")
    _, codes = person_codes(people, len(table))
    fewest = len(codes) - int(np.bincount(codes).max())
    if not 1 <= k <= fewest:
        raise CaptumLeamError(f"Expected `k` from 1 to {fewest}, the number of images of other people, got {k}.")
    lengths = (table**2).sum(1)
    found = []
    for start in range(0, len(table), block):
        part = slice(start, start + block)
        distances = lengths[part, None] + lengths - 2 * table[part] @ table.T
        distances[codes[part, None] == codes] = np.inf
        found.append(np.argsort(distances, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)


@dataclass
class ClosestStrangers:
    """The closest images of other people for some images, as of :func:`closest_strangers`, among images that come part after part.

    Memory does not grow with the number of images that are searched. For the images of a random sample of people (see
    :func:`captum_leam.stats.sampling.sample_people`) the mean over them estimates that over everybody, since each finds what it would find
    among all.

    Args:
        features: Features (n, D) of the images that look for strangers.
        codes: Numbers (n,) of their people.
        k: Number of strangers of each.

    Example:
        >>> found = ClosestStrangers(np.array([[0.0], [0.3]]), np.array([0, 1]), 2)
        >>> found.search(np.array([[0.0], [0.1]]), np.array([0, 0]))
        >>> found.search(np.array([[0.3], [5.0]]), np.array([1, 2]))
        >>> found.nearest.tolist()
        [[2, 3], [1, 0]]
    """

    features: NDArray[Any]
    codes: NDArray[np.int64]
    k: int
    nearest: NDArray[np.int64] = field(init=False)
    _distances: NDArray[Any] = field(init=False)
    _searched: int = 0

    def __post_init__(self) -> None:
        self.nearest = np.full((len(self.codes), self.k), -1, np.int64)
        self._distances = np.full((len(self.codes), self.k), np.inf, self.features.dtype)

    def search(self, features: NDArray[Any], codes: NDArray[np.int64]) -> None:
        """Search further images, numbered from 0 in the order in which they come.

        Args:
            features: Features (m, D).
            codes: Numbers (m,) of their people.
        """
        distances = (self.features**2).sum(1)[:, None] + (features**2).sum(1) - 2 * self.features @ features.T
        distances[self.codes[:, None] == codes] = np.inf
        rows = np.flatnonzero((distances < self._distances[:, -1:]).any(1))
        numbers = np.broadcast_to(self._searched + np.arange(len(codes)), (len(rows), len(codes)))
        both = np.concatenate([self._distances[rows], distances[rows]], 1)
        order = np.argsort(both, axis=1, kind="stable")[:, : self.k]
        self._distances[rows] = np.take_along_axis(both, order, 1)
        self.nearest[rows] = np.take_along_axis(np.concatenate([self.nearest[rows], numbers], 1), order, 1)
        self._searched += len(codes)
