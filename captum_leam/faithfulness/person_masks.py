"""Person masks: maps from some images of a person, whose pixels are occluded on other images of that person.

They test directly whether patterns are person-specific, and give the areas that a tailored privacy measure would change.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_leam.controls import random_face_pixels, random_pixels
from captum_leam.errors import CaptumLeamError
from captum_leam.faithfulness.occluded_batch import Embed
from captum_leam.faithfulness.occlusion import OcclusionEvaluator
from captum_leam.faithfulness.occlusion_result import OcclusionResult
from captum_leam.maps import normalize_sum
from captum_leam.stats.labels import people_of

METHOD = "own mask"


def person_mask(maps_of_some_images: Tensor) -> Tensor:
    """Return the mask of a person, the mean map of some of their images.

    Each map counts with its positive part divided by its sum. The mask shows which places of the face matter for this person.

    Args:
        maps_of_some_images: Maps of N aligned images of one person, 1 or more, shape (N, H, W) or (N, 1, H, W).

    Returns:
        Mask, shape (H, W), not negative. It sums to 1.

    Raises:
        CaptumLeamError: If there is no map, or a map has no positive value.

    See Also:
        :func:`~captum_leam.faithfulness.evaluate_person_masks`: Occlusion with masks from other images.

    Example:
        >>> person_mask(torch.tensor([[[1.0, 0.0]], [[1.0, 3.0]]])).tolist()
        [[0.625, 0.375]]
    """
    if not len(maps_of_some_images):
        raise CaptumLeamError("Expected one map or more, got none.")
    return normalize_sum(maps_of_some_images).mean(0)


def evaluate_person_masks(
    models: Embed | Mapping[str, Embed],
    images: Tensor,
    maps: Tensor,
    labels: Sequence[Any],
    *,
    explained: str = "",
    seed: int = 0,
    **options: Any,
) -> OcclusionResult:
    """Test whether maps show patterns of a person that hold for other images of this person.

    The images of each person are split at random into two halves. Each image is occluded with the mask (mean map) of the half that it is
    not in. If the patterns are person-specific, the cosine falls more than with the mask of another person, with that of all other people,
    or with random pixels.

    Args:
        models: Function from images (N, C, H, W) to embeddings (N, D), or a dictionary of such functions by name.
        images: Images of at least two people with at least two images each, shape (N, C, H, W).
        maps: Maps of these images by any method, shape (N, H, W) or (N, 1, H, W).
        labels: Person of each image.
        explained: Name of the model that the maps explain. Default: ``""``.
        seed: Seed of the halves, of the other people, and of the evaluator. Default: 0.
        **options: Options of :class:`~captum_leam.faithfulness.OcclusionEvaluator`, such as ``fractions`` and ``fills``.

    Returns:
        :class:`OcclusionResult` with the drops of the method ``"own mask"`` and of these controls, with which its method ``compare`` tests
        it:

        * ``"another person's mask"``: Mask of one other person, drawn at random.
        * ``"population mean"``: Mean mask of all other people.
        * ``"random pixels"``, ``"random face pixels"``: As many pixels of the crop, or of the face.

    Raises:
        CaptumLeamError: If there is one person only, or a person has one image only.

    See Also:
        * :func:`~captum_leam.faithfulness.person_mask`: Mask of one person.
        * :class:`~captum_leam.faithfulness.OcclusionEvaluator`: Occlusion with the maps of the images themselves.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> faces, maps, people = torch.rand(4, 3, 8, 8), torch.rand(4, 8, 8), ["ann", "ann", "bob", "bob"]
        >>> result = evaluate_person_masks(model, faces, maps, people, fractions=(0.1,))
        >>> result.compare()[["method", "control", "people"]]
             method                control  people
        0  own mask  another person's mask       2
        1  own mask        population mean       2
        2  own mask          random pixels       2
        3  own mask     random face pixels       2
    """
    people = people_of(labels, len(images))
    if len(images) != len(maps):
        raise CaptumLeamError(f"Expected one map for each of the {len(images)} images, got {len(maps)}.")
    masks = half_masks(maps, people, seed=seed)
    names = list(dict.fromkeys(people))
    if len(names) < 2:
        raise CaptumLeamError("Expected images of two people or more, got one person only.")
    halves = _halves(people, seed)
    other_person = _another_person(names, seed)
    own = torch.stack([masks[p][1 - h] for p, h in zip(people, halves, strict=True)])
    other = torch.stack([masks[other_person[p]][1 - h] for p, h in zip(people, halves, strict=True)])
    whole = {p: torch.stack(list(both)).mean(0) for p, both in masks.items()}
    everyone = torch.stack([torch.stack([whole[q] for q in names if q != p]).mean(0) for p in names])
    population = everyone[[names.index(p) for p in people]]
    controls = {
        "another person's mask": lambda scene: other,
        "population mean": lambda scene: population,
        "random pixels": random_pixels,
        "random face pixels": random_face_pixels,
    }
    evaluator = OcclusionEvaluator(models, controls=controls, seed=seed, **options)
    return evaluator.evaluate(images, {METHOD: own}, labels=people, explained=explained)


def half_masks(maps: Tensor, people: Sequence[Any], *, seed: int = 0) -> dict[Any, tuple[Tensor, Tensor]]:
    """Return the masks of both halves of each person's images.

    Args:
        maps: Maps, shape (N, H, W) or (N, 1, H, W).
        people: Person of each map.
        seed: Seed of the halves. Default: 0.

    Returns:
        Person → masks of both halves, shape (H, W) each.

    Raises:
        CaptumLeamError: For a person with one image only.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> sorted(half_masks(torch.rand(4, 8, 8), ["ann", "ann", "bob", "bob"]))
        ['ann', 'bob']
    """
    halves = np.asarray(_halves(people, seed))
    person = np.array([str(p) for p in people])
    masks = {}
    for name in dict.fromkeys(people):
        parts = [np.flatnonzero((person == str(name)) & (halves == h)) for h in (0, 1)]
        if not all(map(len, parts)):
            raise CaptumLeamError(f"Expected two images or more of each person, got one image only of: {name}.")
        masks[name] = (person_mask(maps[parts[0]]), person_mask(maps[parts[1]]))
    return masks


def _halves(people: Sequence[Any], seed: int) -> list[int]:
    """Return 0 or 1 for each image, split as evenly as possible for each person."""
    generator = np.random.default_rng(seed)
    halves = np.zeros(len(people), dtype=int)
    person = np.array([str(p) for p in people])
    for name in dict.fromkeys(person.tolist()):
        own = generator.permutation(np.flatnonzero(person == name))
        halves[own[: len(own) // 2]] = 1
    return [int(h) for h in halves]


def _another_person(names: Sequence[Any], seed: int) -> dict[Any, Any]:
    """Return another person for each person by a random cycle, so that each is drawn once."""
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[a]: names[b] for a, b in zip(order, np.roll(order, 1), strict=True)}
