"""Pairs of faces: evidence for and against their match, and the decision of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_leam._engine.arithmetic import at_least_float32
from captum_leam._engine.checks import check_images
from captum_leam._notebook import HtmlResult
from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError, InputTypeError, NoEvidenceError
from captum_leam.explain import MapSettings, Preset, check_preset, explain_faces, layer_maps
from captum_leam.faces import AlignedFace
from captum_leam.layers import LayerSuggestions
from captum_leam.objectives import embed, reliability, unit
from captum_leam.suggest import Layers, chosen_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from captum_leam.regions import RegionScheme

NEARLY_THE_SAME = 0.1
"""Sine of the angle between two embeddings (a cosine of .995) up to which they are nearly the same."""

SIDES = ("a", "b")

OUTCOMES = {"TA": "true acceptance", "FA": "false acceptance", "TR": "true rejection", "FR": "false rejection"}


@dataclass(frozen=True)
class PairExplanation(HtmlResult):
    """Maps of both faces of a pair, each explained towards the other, with the score and the decision.

    Attributes:
        images: Both faces, shape (2, C, H, W) in [0, 1].
        score: Cosine of the two embeddings.
        similar: Evidence for the match, shape (2, H, W): the map of :func:`~captum_leam.explain_faces` of each face towards the
            other, from the layers with a positive value. Not negative; each sums to 1, or is 0 if no layer has one.
        dissimilar: Evidence against the match, shape (2, H, W): the mean negative part of the signed layer maps. Not negative;
            each sums to 1, or is 0 where nothing speaks against the match.
        layers: Layer name → signed map, shape (2, H, W), on the raw scale of the score (:func:`~captum_leam.explain.layer_maps`).
        sine: Sine of the angle between the embeddings, in [0, 1]; 0 for the same embedding.
        settings: How the maps were made.
        threshold: Threshold of the decision; a score of at least the threshold is accepted.
        same_person: Whether both faces show the same person, where it is known.
        faces: Alignments of the crops in their photographs, if they come from photographs.
    """

    images: Tensor = field(repr=False)
    score: float
    similar: Tensor = field(repr=False)
    dissimilar: Tensor = field(repr=False)
    layers: dict[str, Tensor] = field(repr=False)
    sine: float
    settings: MapSettings = field(repr=False)
    threshold: float | None = None
    same_person: bool | None = None
    faces: tuple[AlignedFace | None, AlignedFace | None] = field(default=(None, None), repr=False)

    @property
    def accepted(self) -> bool | None:
        """Whether the score reaches the threshold; None without a threshold."""
        return None if self.threshold is None else self.score >= self.threshold

    @property
    def margin(self) -> float | None:
        """Score minus threshold; None without a threshold."""
        return None if self.threshold is None else self.score - self.threshold

    @property
    def outcome(self) -> str | None:
        """``"TA"``, ``"FA"``, ``"TR"`` or ``"FR"``: true or false acceptance or rejection; None if it is unknown."""
        if self.accepted is None or self.same_person is None:
            return None
        return ("T" if self.accepted == self.same_person else "F") + ("A" if self.accepted else "R")

    @property
    def reliable(self) -> bool:
        """Whether the maps describe the *match*: False where the embeddings are nearly the same, and the maps show their strength only."""
        return self.sine > NEARLY_THE_SAME

    @property
    def angle(self) -> float:
        """Angle between the embeddings in degrees, from 0 to 180."""
        return math.degrees(math.atan2(self.sine, self.score))

    @property
    def truth(self) -> str | None:
        """``"the same person"`` or ``"different people"``; None if it is unknown."""
        return {True: "the same person", False: "different people", None: None}[self.same_person]

    def facts(self) -> dict[str, str]:
        """Return score, decision, truth and reliability by name, as far as they are known."""
        known = {"cosine": f"{self.score:.3f}"}
        if self.accepted is not None and self.margin is not None:
            known |= {"threshold": f"{self.threshold:g}", "decision": "accepted" if self.accepted else "rejected"}
            known |= {"margin": f"{self.margin:+.3f}"}
        if self.truth is not None:
            known["in truth"] = self.truth
        if self.outcome is not None:
            known["outcome"] = f"{self.outcome}, {OUTCOMES[self.outcome]}"
        angles = f"angle {self.angle:.1f}°, more than {math.degrees(math.asin(NEARLY_THE_SAME)):.1f}° is enough"
        if self.reliable:
            known["maps about the match"] = f"yes: the embeddings differ enough ({angles})"
        else:
            known["maps about the match"] = (
                f"NO: the embeddings are nearly the same ({angles}), so that the maps show their strength only"
            )
        return known

    def sentence(self) -> str:
        """Return score, decision and reliability as a sentence."""
        text = f"Cosine {self.score:.3f}"
        if self.accepted is not None and self.margin is not None:
            text += f": {'accepted' if self.accepted else 'rejected'} at threshold {self.threshold:g} (margin {self.margin:+.3f})"
        if self.outcome is not None:
            text += f"; {self.truth}, so a {'true' if self.outcome[0] == 'T' else 'false'} decision ({self.outcome})"
        elif self.truth is not None:
            text += f"; {self.truth}"
        if not self.reliable:
            text += ". The two embeddings are nearly the same: the maps show their strength, not what makes two images match"
        return text + "."

    def regions(self, labels: Tensor, scheme: RegionScheme, *, fraction: float = 0.01, seed: int = 0) -> pd.DataFrame:
        """Return region reports of both faces, for and against the match.

        Args:
            labels: Region labels, shape (2, H, W) or (H, W).
            scheme: Names of the labels.
            fraction: Share of the critical pixels. Default: 0.01.
            seed: Seed that breaks ties. Default: 0.

        Returns:
            Table of :func:`~captum_leam.regions.region_report` with the leading columns ``face`` ("a" or "b") and ``speaks`` ("for"
            or "against"). Maps without evidence are omitted.
        """
        from captum_leam.regions import region_report

        tables = []
        for speaks, maps in (("for", self.similar), ("against", self.dissimilar)):
            some = maps.flatten(1).sum(1) > 0
            if not bool(some.any()):
                continue
            chosen = labels[some] if labels.ndim == 3 else labels
            table = region_report(maps[some], chosen, scheme, fraction=fraction, seed=seed)
            names = [name for name, there in zip(SIDES, some.tolist(), strict=True) if there]
            table.insert(0, "speaks", speaks)
            table.insert(0, "face", table.pop("image").map(dict(enumerate(names))))
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def plot(
        self,
        photographs: Sequence[Tensor | None] | None = None,
        *,
        pictures: Sequence[NDArray[np.uint8] | None] | None = None,
    ) -> Figure:
        """Draw the evidence for and against on both faces, and on their photographs if these are given.

        Args:
            photographs: Photographs of a and b, shape (3, H, W) in [0, 1]; None for one that is not shown.
            pictures: Photographs with the maps drawn already by :func:`captum_leam.plots.overlay_on_photo`.
        """
        from matplotlib.figure import Figure

        from captum_leam.plots import add_colour_bar, overlay, overlay_on_photo

        drawn = list(pictures or ())
        for i, (photo, face) in enumerate(zip(photographs or (), self.faces, strict=False)):
            drawn.append(None if photo is None or face is None else overlay_on_photo(photo, face, self.similar[i]))
        shown = [(i, picture) for i, picture in enumerate(drawn) if picture is not None]
        figure = Figure(figsize=(7.2, 5.2 + 3.8 * bool(shown)), layout="constrained")
        rows: Any = figure.subfigures(2, 1, height_ratios=[5.2, 3.8]) if shown else [figure]
        axes = rows[0].subplots(2, 3)
        for i, image in enumerate(self.images.detach().cpu().float()):
            row = [image.movedim(0, -1).clamp(0, 1).expand(-1, -1, 3).numpy()]
            row += [overlay(image, maps[i]) for maps in (self.similar, self.dissimilar)]
            for axis, picture, title in zip(axes[i], row, (SIDES[i], "for the match", "against it"), strict=True):
                axis.imshow(picture)
                axis.set_title(title, fontsize=9)
                axis.set_axis_off()
        add_colour_bar(rows[0], axes, labels=("no\nevidence", "strongest\nevidence"))
        for place, (i, picture) in enumerate(shown):
            axis = rows[1].add_subplot(1, len(shown), place + 1)
            axis.imshow(picture)
            axis.set_title(f"{SIDES[i]}, for the match, on the photograph", fontsize=9)
            axis.set_axis_off()
        figure.suptitle(self.sentence(), fontsize=9, wrap=True)
        return figure


def explain_pair(
    model: nn.Module,
    a: Tensor | AlignedFace,
    b: Tensor | AlignedFace,
    *,
    layers: Layers = None,
    threshold: float | None = None,
    same_person: bool | None = None,
    preset: Preset = "default",
    n_steps: int = 4,
) -> PairExplanation:
    r"""Explain the similarity of two faces: each face towards the embedding of the other.

    The map for the match is that of :func:`~captum_leam.explain_faces` with the preset. The map against the match is the mean over layers
    of the negative part of the signed layer maps, each divided by its sum, because the overall map has no negative part. The two say where
    evidence lies, not how much: the signed maps in ``layers`` keep their scale.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        a: Face as the model takes it, shape (C, H, W) or (1, C, H, W), or an aligned face.
        b: Face of the same size.
        layers: Layer by name, as a module or as a suggestion; a list of these; or all suggestions. Default: those of the overall map.
        threshold: Threshold of the decision. Default: no decision.
        same_person: Whether both faces show the same person, if it is known.
        preset: Preset of :func:`~captum_leam.explain_faces`. Default: ``"default"``.
        n_steps: Steps of the path of the signed layer maps. Default: 4.

    Raises:
        CaptumLeamError: For images of different sizes, an unknown preset or layer, and what ``LEAM.attribute`` refuses.

    Example:
        >>> from torchvision.models import resnet18
        >>> a, b = torch.rand(2, 3, 112, 112)
        >>> pair = explain_pair(resnet18(num_classes=32).eval(), a, b, threshold=2.0, same_person=True, preset="fast")
        >>> pair.accepted, pair.outcome, pair.similar.shape
        (False, 'FR', torch.Size([2, 112, 112]))
    """
    check_preset(preset)
    check_truth(same_person)
    if not isinstance(model, nn.Module):
        raise InputTypeError(
            f"Expected model to be a torch.nn.Module that returns embeddings, got a {type(model).__name__}."
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    images = _both(a, b).to(device)
    layers = chosen_layers(model, images, layers)
    embeddings = embed(model, images)
    directions = unit(embeddings, "embeddings")
    signed = layer_maps(model, images, layers, reference=directions.flip(0), n_steps=n_steps)
    return PairExplanation(
        images=images,
        score=float(directions[0].double() @ directions[1].double()),
        similar=evidence_for(model, images, directions.flip(0), layers, preset),
        dissimilar=evidence_against([*signed.values()]),
        layers=signed,
        sine=float(reliability(embeddings[:1], embeddings[1:])),
        settings=MapSettings.of(preset, "other face", layers, n_steps),
        threshold=threshold,
        same_person=same_person,
        faces=(a if isinstance(a, AlignedFace) else None, b if isinstance(b, AlignedFace) else None),
    )


def check_truth(same_person: Any) -> None:
    """Raise if what is known about a pair is neither True, False nor None.

    Example:
        >>> check_truth(None)
    """
    if not isinstance(same_person, bool | np.bool_ | None):
        raise InputTypeError(f"Expected same_person to be True, False or None, got {same_person!r}.")


def _both(a: Tensor | AlignedFace, b: Tensor | AlignedFace) -> Tensor:
    first, second = (
        batch_of_one(x.crop if isinstance(x, AlignedFace) else x, name) for x, name in ((a, "a"), (b, "b"))
    )
    if first.shape != second.shape:
        raise CaptumLeamError(
            f"Expected a and b to be two images of one size, got {tuple(first.shape[1:])} and {tuple(second.shape[1:])}."
        )
    return torch.cat([first, second.to(first)])


def batch_of_one(image: Any, name: str) -> Tensor:
    """Return one image (C, H, W) or (1, C, H, W) as a batch."""
    batch = image[None] if isinstance(image, Tensor) and image.ndim == 3 else image
    check_images(batch, name)
    if len(batch) > 1:
        raise CaptumLeamError(f"Expected {name} to be one image (C, H, W) or (1, C, H, W), got {tuple(batch.shape)}.")
    return batch


def evidence_for(
    model: nn.Module,
    images: Tensor,
    references: Tensor,
    layers: LayerSuggestions,
    preset: Preset,
    contrast: Tensor | None = None,
    batch_size: int = 32,
) -> Tensor:
    """Return the overall maps (N, H, W); zero for images without evidence for the match.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        images: Faces (N, C, H, W).
        references: Embeddings (N, D) to match.
        layers: Layers of the overall map.
        preset: Preset of the overall map.
        contrast: Embeddings (N, M, D) to tell the reference apart from. Default: none.
        batch_size: Images per pass. Default: 32.
    """
    towards: dict[str, Any] = (
        {"reference": references} if contrast is None else {"reference": references, "contrast": contrast}
    )
    try:
        return explain_faces(model, images, preset, layers=layers, batch_size=batch_size, **towards)
    except NoEvidenceError:
        rows = [slice(i, i + 1) for i in range(len(images))]
    if len(rows) == 1:
        return torch.zeros_like(at_least_float32(images[:, 0]))
    of_rows = [(images[row], references[row], None if contrast is None else contrast[row]) for row in rows]
    return torch.cat([evidence_for(model, x, r, layers, preset, c) for x, r, c in of_rows])


def evidence_against(maps: list[Tensor]) -> Tensor:
    """Return the negative parts of signed layer maps, each divided by its sum, averaged over the layers that have any.

    Args:
        maps: Signed maps of the layers, shape (N, H, W).

    Returns:
        Shape (N, H, W), not negative; each sums to 1, or is 0 where no layer has a negative value.

    Example:
        >>> evidence_against([torch.tensor([[[1.0, -2.0, -2.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]])]).tolist()
        [[[0.0, 0.5, 0.5]]]
    """
    parts = torch.stack([(-m).clamp(min=0) for m in maps])
    sums = parts.sum((-2, -1), keepdim=True)
    some = (sums > 0).to(parts).sum(0).clamp_min(1)
    return (parts / torch.where(sums > 0, sums, 1)).sum(0) / some
