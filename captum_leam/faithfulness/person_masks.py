"""The person's own mask: a map made from some images of a person, occluded on unseen images of the same person.

The direct proof that patterns are person-specific, and the set of areas that a tailored privacy measure would treat.
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
    """Return a person's mask: the mean of the maps of some of their images, each cut to its positive part and divided by its sum.

    Args:
        maps_of_some_images: (N, H, W) or (N, 1, H, W), of one person, aligned.

    Returns:
        (H, W), not negative, sums to 1.

    Raises:
        CaptumLeamError: without any map, or for one without positive values.

    Example:
        >>> person_mask(torch.tensor([[[1.0, 0.0]], [[1.0, 3.0]]])).tolist()
        [[0.625, 0.375]]
    """
    if not len(maps_of_some_images):
        raise CaptumLeamError("a person's mask needs the map of one image or more.")
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
    """Occlude every image with its person's mask from *unseen* images, beside others' masks, the mean, and random pixels.

    The images of every person are dealt into two halves, by a seeded draw; an image is occluded with the mask of the half that it
    is not in. The controls have masks made the same way: of one other person (drawn, as many images), of all other people.

    Args:
        models: as :class:`~captum_leam.faithfulness.OcclusionEvaluator` takes them.
        images: (N, C, H, W), two or more of every person; two people or more.
        maps: of these images, (N, H, W) or (N, 1, H, W), by any method.
        labels: Person of each image.
        explained: Name of the model that the maps explain.
        seed: of the halves, of the other person drawn, and of the evaluator.
        **options: of the evaluator, for example ``fractions`` and ``fills``.

    Returns:
        :class:`~captum_leam.faithfulness.OcclusionResult` with the method "own mask" and the controls "another person's
        mask", "population mean", "random pixels" and "random face pixels"; ``compare()`` tests them.

    Raises:
        CaptumLeamError: for a person with one image only, or one person only.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> faces, maps, people = torch.rand(4, 3, 8, 8), torch.rand(4, 8, 8), ["ann", "ann", "bob", "bob"]
        >>> evaluate_person_masks(model, faces, maps, people, fractions=(0.1,)).summary()["control"].tolist()
        ['', "another person's mask", 'population mean', 'random pixels', 'random face pixels']
    """
    people = people_of(labels, len(images))
    if len(images) != len(maps):
        raise CaptumLeamError(f"Expected one map for each of the {len(images)} images, got {len(maps)}.")
    masks = half_masks(maps, people, seed=seed)
    names = list(dict.fromkeys(people))
    if len(names) < 2:
        raise CaptumLeamError("one person only: their mask has no other person's to be compared with.")
    halves = _halves(people, seed)
    drawn = _another_person(names, seed)
    own = torch.stack([masks[p][1 - h] for p, h in zip(people, halves, strict=True)])
    other = torch.stack([masks[drawn[p]][1 - h] for p, h in zip(people, halves, strict=True)])
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
    """Masks of the two halves of every person's images.

    Raises:
        CaptumLeamError: naming the people with one image only.

    Example:
        >>> sorted(half_masks(torch.rand(4, 8, 8), ["ann", "ann", "bob", "bob"]))
        ['ann', 'bob']
    """
    halves = np.asarray(_halves(people, seed))
    person = np.array([str(p) for p in people])
    masks = {}
    for name in dict.fromkeys(people):
        parts = [np.flatnonzero((person == str(name)) & (halves == h)) for h in (0, 1)]
        if not all(map(len, parts)):
            raise CaptumLeamError(
                f"one image only of: {name}. A mask for unseen images needs two or more of every person."
            )
        masks[name] = (person_mask(maps[parts[0]]), person_mask(maps[parts[1]]))
    return masks


def _halves(people: Sequence[Any], seed: int) -> list[int]:
    """0 or 1 for every image, as many of both as can be for every person."""
    generator = np.random.default_rng(seed)
    halves = np.zeros(len(people), dtype=int)
    person = np.array([str(p) for p in people])
    for name in dict.fromkeys(person.tolist()):
        own = generator.permutation(np.flatnonzero(person == name))
        halves[own[: len(own) // 2]] = 1
    return [int(h) for h in halves]


def _another_person(names: Sequence[Any], seed: int) -> dict[Any, Any]:
    """For every person another one, each drawn once: a seeded cycle."""
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[a]: names[b] for a, b in zip(order, np.roll(order, 1), strict=True)}
