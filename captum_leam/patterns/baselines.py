"""Controls of the claim that maps are person-specific: maps that know nothing of identity, and strangers who look alike.

===========  ==========================================  =======================================================
control      knows                                       made by
===========  ==========================================  =======================================================
edges        the picture                                 :func:`edge_maps`, smoothed Sobel
untrained    the picture, the architecture, the method   :func:`untrained_maps`, new random weights
parser       where the parts of this face are            :func:`region_maps`, a parser's masks, painted
pose         how the head is held                        :func:`closest_strangers` of :func:`pose_features`
===========  ==========================================  =======================================================

Texts and figures call them by :data:`captum_leam.controls.CONTROL_NAMES`.
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
from captum_leam.controls import Scene, edges
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
    """Return the maps of all controls that can be computed from the arguments.

    Args:
        images: Images (N, C, H, W).
        people: Person of each image.
        model: for "untrained"; it is copied, not changed.
        explain: model, images, references (N, D) → maps: the method whose maps are examined;
            :func:`~captum_leam.explain_faces` by default.
        labels: a parser's label maps (N, H, W), for "parser".
        maps: of the method, (N, H, W): how strongly each region is painted; alike without them.
        batch_size: Number of images in one pass.
        seed: of the random weights.

    Returns:
        Name → (N, H, W).

    Example:
        >>> sorted(control_maps(torch.rand(4, 3, 16, 16), list("aabb"), labels=torch.ones(4, 16, 16, dtype=torch.int64)))
        ['edges', 'parser']
    """
    made = {"edges": edge_maps(images)}
    if model is not None:
        made["untrained"] = untrained_maps(model, images, people, explain, batch_size=batch_size, seed=seed)
    if labels is not None:
        made["parser"] = region_maps(labels, maps)
    return made


def edge_maps(images: Tensor) -> Tensor:
    """Smoothed Sobel edges, (N, H, W): the picture alone.

    Example:
        >>> edge_maps(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 16, 16])
    """
    return edges(Scene(images)).cpu()


def untrained_maps(
    model: nn.Module,
    images: Tensor,
    people: Sequence[Any],
    explain: Explain | None = None,
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> Tensor:
    """Return the maps of an untrained twin: the same architecture, method and references made the same way, random weights.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps".

    Args:
        model: it is copied, and not changed.
        images: Images (N, C, H, W).
        people: the person of each image; references are leave-one-out centroids of the twin's own embeddings.
        explain: as in :func:`control_maps`.
        batch_size: Number of images in one pass.
        seed: of the weights.

    Example:
        >>> from captum_leam.synthetic import EmbeddingNet
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
    """Paint maps from a parser's masks: each region at one height, the same for everyone, then smoothed.

    What is left of the maps when all that is known of an image is where the parts of the face are.

    Args:
        labels: integers (N, H, W).
        maps: (N, H, W): a region is as high as its mean density over all of them (mass / area). Without them every region but
            label 0 is as high as it is small (1 / mean area): small parts first.
        smooth: standard deviation of the blur, in pixels of a crop of 112.

    Returns:
        (N, H, W), not negative.

    Example:
        >>> labels = torch.zeros(1, 8, 8, dtype=torch.int64); labels[0, 3:5, 3:5] = 2
        >>> painted = region_maps(labels)
        >>> bool(painted[0, 3, 3] == painted.max()), bool(painted[0, 0, 0] < 0.01)
        (True, True)
    """
    where = as_tensor(labels).cpu()
    if where.ndim != 3 or where.is_floating_point():
        raise CaptumLeamError(f"labels are {where.dtype} {tuple(where.shape)}; expected integers (N, H, W).")
    names = torch.unique(where)
    if maps is None:
        heights = [0.0 if name == 0 else 1 / float((where == name).double().mean()) for name in names]
    else:
        density = normalize_sum(as_maps(maps).double().cpu())
        if density.shape != where.shape:
            raise CaptumLeamError(
                f"labels are {tuple(where.shape)}, the maps {tuple(density.shape)}; expected one size."
            )
        heights = [float(density[where == name].mean()) for name in names]
    top = max(heights) or 1.0
    painted = torch.tensor(heights, device="cpu", dtype=torch.float32)[torch.bucketize(where, names)] / top
    return gaussian_blur(painted, smooth * where.shape[2] / 112)


# -- strangers who look alike --------------------------------------------------------------------------


def pose_features(landmarks: ArrayLike) -> Floats:
    """Where landmarks are once position, size and tilt are taken out: what is left is the turn of the head, and the face.

    Args:
        landmarks: (N, K, 2) as (x, y).

    Returns:
        (N, 2 K), in units of the distance of the first two points (the eyes).

    Raises:
        CaptumLeamError: for another shape, NaN, or eyes in one place.

    Example:
        >>> face = np.array([[0, 0], [4, 0], [2, 2], [1, 4], [3, 4]])
        >>> a, b = pose_features([face, 10 + 2 * face])
        >>> bool(np.allclose(a, b))
        True
    """
    points = as_array(landmarks)
    if points.ndim != 3 or points.shape[1] < 3 or points.shape[2] != 2 or not np.isfinite(points).all():
        raise CaptumLeamError(
            f"landmarks have shape {points.shape}; expected (N, K, 2), three points or more, none NaN."
        )
    plane = points[..., 0] + 1j * points[..., 1]
    eyes = plane[:, 1] - plane[:, 0]
    if (eyes == 0).any():
        raise CaptumLeamError(f"faces {np.flatnonzero(eyes == 0).tolist()[:5]} have both eyes in one place.")
    middle = (plane[:, 1] + plane[:, 0]) / 2
    steady = (plane - middle[:, None]) / eyes[:, None]
    return np.concatenate([steady.real, steady.imag], axis=1)


def crop_features(images: Tensor, *, side: int = 28) -> Floats:
    """For aligned crops without landmarks: the grey crop, made small, mean 0 and length 1, so that distance is correlation.

    Who is close then looks alike in pose, light, hair and expression: a stricter control than pose.

    Args:
        images: Images (N, C, H, W).
        side: pixels of the small crop.

    Returns:
        (N, side²).

    Example:
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
    """For every image, the k closest images of other people, the closest first.

    Args:
        features: (N, D), of :func:`pose_features` or :func:`crop_features`.
        people: Person of each image.
        k: how many; at most as many as there are images of other people.
        block: images whose distances are in memory at a time.

    Returns:
        (N, k) indices.

    Raises:
        CaptumLeamError: for NaN features, labels that do not fit, or too few strangers.

    Example:
        >>> closest_strangers([[0.0], [0.1], [0.3], [5.0]], ["ann", "ann", "bob", "cy"]).tolist()
        [[2], [2], [1], [2]]
    """
    table = as_array(features)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise CaptumLeamError(f"features have shape {table.shape}; expected (N, D) without NaN.")
    _, codes = person_codes(people, len(table))
    fewest = len(codes) - int(np.bincount(codes).max())
    if not 1 <= k <= fewest:
        raise CaptumLeamError(
            f"k is {k}; there are only {fewest} images of other people for some image, and 1 is the least."
        )
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
