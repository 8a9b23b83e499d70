"""Measure the certainty of the maps of explained files on each network."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from captum_leam._progress import begin_step, has_bar
from captum_leam.certainty import CHANGES, MAX_LEFT_OUT, MapCertainty, map_certainty
from captum_leam.match import MatchExplanation
from captum_leam.objectives import embed, unit
from captum_leam.pairs import evidence_for
from captum_leam.suggest import LayerSuggestions, resolve_layers

if TYPE_CHECKING:
    from captum_leam.reporting.explanation import Explanation

STEP = "certainty of the maps"
"""Name of the step in the progress bar."""
PLACEMENTS = 99
"""Number of placements of each map; the smallest possible p-value is 0.01."""

Stored = tuple[Tensor, list[str]]
"""Images of a gallery, shape (G, C, H, W), and the name of each."""


def certainty_passes(references: int, models: int, per_map: float) -> float:
    """Return the work of one face in forward passes.

    Args:
        references: Number of references of the face.
        models: Number of networks, including the explained one.
        per_map: Work of one map in forward passes.

    Example:
        >>> certainty_passes(1, 1, 26)
        283
    """
    left_out = min(MAX_LEFT_OUT, references) if references > 1 else 0
    return (2 + PLACEMENTS) * models + (len(CHANGES) + left_out) * per_map


def measure_certainty(
    network: nn.Module, found: "Explanation", others: Mapping[str, nn.Module], stored: Stored | None
) -> MapCertainty:
    """Measure the certainty of the maps of an explanation.

    The references of a face are all other images; that of a probe is its first candidate, in contrast to the next ones.

    Args:
        network: Network that was explained.
        found: Explanation without certainty.
        others: Name → other network on which the maps are tested.
        stored: Gallery of an explanation with a ``match``; None otherwise.

    Returns:
        Certainty of each map.
    """
    options, images = found.options, found.images
    begin_step(STEP, len(images) * (2 + PLACEMENTS) * (1 + len(others)))
    layers = resolve_layers(network, images, list(found.maps.overall_layers), found.maps.field)
    measure = partial(
        map_certainty,
        network,
        images,
        found.overall,
        layers=layers,
        placements=PLACEMENTS,
        fill=options.fill,
        seed=options.seed,
        batch_size=options.batch_size,
        progress=options.progress and not has_bar(),
    )
    if found.match is None or stored is None:
        towards = {name: (other, _others_of(other, images)) for name, other in others.items()}
        return measure(reference=_others_of(network, images), models=towards, explain=options.preset)
    ranked = {name: _candidates(other, found.match, stored) for name, other in others.items()}
    contrasts = {others[name]: following for name, (_, following) in ranked.items()}
    contrasts[network] = found.match.contrast
    return measure(
        reference=found.match.references,
        models={name: (others[name], first) for name, (first, _) in ranked.items()},
        explain=_against_the_next(found, {network: layers}, contrasts),
    )


def _against_the_next(
    found: "Explanation", layers: Mapping[nn.Module, LayerSuggestions], contrasts: Mapping[nn.Module, Tensor]
) -> Callable[[nn.Module, Tensor, Tensor | None], Tensor]:
    """Return the function that makes the maps of an identification as in :func:`~captum_leam.explain_match`."""

    def explain(model: nn.Module, images: Tensor, references: Tensor | None) -> Tensor:
        if references is None:
            raise ValueError("every probe has a first candidate")
        of_model = layers.get(model) or resolve_layers(model, images, None)
        preset, batch_size = found.options.preset, found.options.batch_size
        return evidence_for(model, images, references, of_model, preset, contrasts[model], batch_size)

    return explain


def _candidates(network: nn.Module, match: MatchExplanation, stored: Stored) -> tuple[Tensor, Tensor]:
    """Return the centroids of the first candidates, shape (N, D), and of the next ones, shape (N, M, D), on another network."""
    images, names = stored
    embeddings = unit(embed(network, images.to(match.images)), "embeddings of the gallery")
    of_names = [embeddings[[name == one for one in names]].mean(0) for name in match.gallery.names]
    ranked = torch.stack(of_names)[match.order[:, : 1 + match.candidates].to(embeddings.device)]
    return ranked[:, 0], ranked[:, 1:]


def _others_of(network: nn.Module, images: Tensor) -> Tensor | None:
    """Return the embeddings of all other images for each image, shape (N, N − 1, D); None for one image."""
    if len(images) < 2:
        return None
    embeddings = embed(network, images)
    return torch.stack([torch.cat([embeddings[:i], embeddings[i + 1 :]]) for i in range(len(images))])
