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
from captum_leam.suggest import Layers, resolve_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from captum_leam.regions import RegionScheme

MIN_SINE = 0.1
"""Sine of the angle between two embeddings, a cosine of .995, up to which they are nearly equal and the maps show their strength only."""

SIDES = ("a", "b")

OUTCOMES = {"TA": "true acceptance", "FA": "false acceptance", "TR": "true rejection", "FR": "false rejection"}


@dataclass(frozen=True)
class PairExplanation(HtmlResult):
    """Result of :func:`~captum_leam.explain_pair`: maps, score and decision of two faces.

    Each face has a map of what is similar to the other face (``similar``), and one of what is different (``dissimilar``).

    Attributes:
        images: Both faces, first a and then b, shape (2, C, H, W) in [0, 1].
        score: Cosine of the two embeddings, in [−1, 1].
        similar: Maps for the match, shape (2, H, W): where each face is similar to the other (:func:`~captum_leam.explain_faces`). Not
            negative. Each sums to 1, or is 0 if no layer has a positive value.
        dissimilar: Maps against the match, shape (2, H, W): where each face is different from the other. They are the mean negative part
            of the maps in ``layers``. Not negative. Each sums to 1, or is 0 if no layer has a negative value.
        layers: Signed maps of both faces by name of the layer, shape (2, H, W), on the scale of the score.
        sine: Sine of the angle between the embeddings, in [0, 1]; 0 for equal embeddings.
        settings: Settings that the maps were computed with.
        threshold: Threshold of the decision, a cosine. The pair is accepted if the score is at least this. Default: None, no decision.
        same_person: Whether both faces show the same person; None if it is unknown. Default: None.
        faces: Position of each crop in its photograph; None for a face that was passed as a tensor. Default: ``(None, None)``.

    Example:
        >>> from captum_leam import explain_pair
        >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
        >>> population = SyntheticPopulation(12, evidence="nose")
        >>> model, faces = load_trained(population), population.sample([0, 0], seed=1).images  # two images of one person
        >>> pair = explain_pair(model, *faces, preset="fast", threshold=0.5, same_person=True)
        >>> pair.similar.shape
        torch.Size([2, 112, 112])
        >>> pair.sentence()
        'Cosine 0.986: accepted at threshold 0.5 (margin +0.486); the same person, so a true decision (TA).'
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
        """Whether the maps describe the *match*; False if the embeddings are nearly equal, so that the maps show their strength only."""
        return self.sine > MIN_SINE

    @property
    def angle(self) -> float:
        """Angle between the embeddings in degrees, from 0 to 180."""
        return math.degrees(math.atan2(self.sine, self.score))

    @property
    def truth(self) -> str | None:
        """``"the same person"`` or ``"different people"``; None if it is unknown."""
        return {True: "the same person", False: "different people", None: None}[self.same_person]

    def facts(self) -> dict[str, str]:
        """Return score, decision, truth and reliability as short texts, for the head of a page or table.

        Returns:
            Dictionary of texts, in the order of display:

            * ``"cosine"``: Score.
            * ``"threshold"``, ``"decision"``, ``"margin"``: Threshold, ``"accepted"`` or ``"rejected"``, and score minus threshold. Only
              with a threshold.
            * ``"in truth"``: Whether both faces show one person. Only if it is known.
            * ``"outcome"``: Whether the decision is right. Only if decision and truth are known.
            * ``"maps about the match"``: "yes", or "NO" if the embeddings are nearly equal, with the angle between them.

        Example:
            >>> from captum_leam import explain_pair
            >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
            >>> population = SyntheticPopulation(12, evidence="nose")
            >>> model, faces = load_trained(population), population.sample([0, 0], seed=1).images
            >>> facts = explain_pair(model, *faces, preset="fast", threshold=0.5, same_person=True).facts()
            >>> for name in ("cosine", "decision", "outcome"):
            ...     print(f"{name}: {facts[name]}")
            cosine: 0.986
            decision: accepted
            outcome: TA, true acceptance
        """
        facts = {"cosine": f"{self.score:.3f}"}
        if self.accepted is not None and self.margin is not None:
            facts |= {"threshold": f"{self.threshold:g}", "decision": "accepted" if self.accepted else "rejected"}
            facts |= {"margin": f"{self.margin:+.3f}"}
        if self.truth is not None:
            facts["in truth"] = self.truth
        if self.outcome is not None:
            facts["outcome"] = f"{self.outcome}, {OUTCOMES[self.outcome]}"
        angles = f"angle {self.angle:.1f}°, more than {math.degrees(math.asin(MIN_SINE)):.1f}° is enough"
        if self.reliable:
            facts["maps about the match"] = f"yes: the embeddings differ enough ({angles})"
        else:
            facts["maps about the match"] = (
                f"NO: the embeddings are nearly the same ({angles}), so that the maps show their strength only"
            )
        return facts

    def sentence(self) -> str:
        """Return score, decision and reliability as text for a caption.

        Returns:
            One sentence, or two if the embeddings are nearly equal, so that the maps do not describe the match.

        Example:
            >>> from captum_leam import explain_pair
            >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
            >>> population = SyntheticPopulation(12, evidence="nose")
            >>> model, faces = load_trained(population), population.sample([0, 1], seed=1).images  # two people
            >>> explain_pair(model, *faces, preset="fast", threshold=0.5).sentence()
            'Cosine -0.187: rejected at threshold 0.5 (margin -0.687).'
        """
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
        """Return how much evidence for and against the match each region holds.

        Args:
            labels: Label maps of the faces, integers, shape (2, H, W), or (H, W) for both.
            scheme: Names of the labels, such as ``captum_leam.regions.TEMPLATE``.
            fraction: Share of the pixels that are critical, in (0, 1]. Default: 0.01.
            seed: Seed of the permutations that break ties. Default: 0.

        Returns:
            Data frame with one row per face, map and region. Maps that are 0 everywhere are omitted. Its columns are:

            * face: ``"a"`` or ``"b"``.
            * speaks: Map that the row describes, ``"for"`` or ``"against"`` the match.
            * region: Name of the region.
            * share, mass, area, lift and others: As in :func:`~captum_leam.regions.region_report`.

        Example:
            >>> from captum_leam import explain_pair
            >>> from captum_leam.regions import TEMPLATE, TemplateParser
            >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
            >>> population = SyntheticPopulation(12, evidence="nose")
            >>> model, faces = load_trained(population), population.sample([0, 0], seed=1).images
            >>> pair = explain_pair(model, *faces, preset="fast")
            >>> table = pair.regions(TemplateParser()(faces), TEMPLATE)
            >>> table.loc[table["region"] == "nose", ["face", "speaks", "share", "area", "lift"]].round(2)
               face   speaks  share  area   lift
            7     a      for   1.00  0.04  28.51
            19    b      for   1.00  0.04  28.51
            31    a  against   0.42  0.04  12.09
            43    b  against   0.50  0.04  14.37
        """
        from captum_leam.regions import region_report

        tables = []
        for speaks, maps in (("for", self.similar), ("against", self.dissimilar)):
            has_evidence = maps.flatten(1).sum(1) > 0
            if not bool(has_evidence.any()):
                continue
            map_labels = labels[has_evidence] if labels.ndim == 3 else labels
            table = region_report(maps[has_evidence], map_labels, scheme, fraction=fraction, seed=seed)
            names = [name for name, has_map in zip(SIDES, has_evidence.tolist(), strict=True) if has_map]
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
        """Draw both faces with the maps for and against their match.

        Each face has a row of three panels: the face, the map of what is similar to the other face, and the map of what is different. The
        title states the score and the decision (:meth:`sentence`). With photographs, a further row shows the map for the match on them.

        Args:
            photographs: The two photographs of a and b, each a tensor of shape (3, H, W) in [0, 1], or None to omit it. Needs
                faces that were passed to :func:`~captum_leam.explain_pair` as :class:`~captum_leam.faces.AlignedFace`; others are
                omitted. Default: None, for no photographs.
            pictures: Two pictures to show in place of ``photographs``, each an RGB array of shape (H, W, 3), uint8, or None to omit it.
                :func:`captum_leam.plots.overlay_on_photo` returns such arrays. Default: None, for no pictures.

        Returns:
            Matplotlib figure with six panels, a colour bar, and one panel per photograph. Notebooks display it. Save it by
            ``figure.savefig(path)``.

        Raises:
            CaptumLeamError: If both ``photographs`` and ``pictures`` are passed, or other than two of either.

        Note:
            Each map has its own colour scale, so colours show where evidence lies, and not how much there is.

        Example:
            >>> from captum_leam import explain_pair
            >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
            >>> population = SyntheticPopulation(12, evidence="nose")
            >>> model, faces = load_trained(population), population.sample([0, 0], seed=1).images
            >>> figure = explain_pair(model, *faces, preset="fast", threshold=0.5).plot()
            >>> [axis.get_title() for axis in figure.axes[:6]]
            ['a', 'for the match', 'against it', 'b', 'for the match', 'against it']
            >>> figure.savefig("pair.png")  # doctest: +SKIP
        """
        from matplotlib.figure import Figure

        from captum_leam.plots import add_colour_bar, overlay, overlay_on_photo

        for name, given in (("photographs", photographs), ("pictures", pictures)):
            if given is not None and len(given) != len(SIDES):
                raise CaptumLeamError(
                    f"Expected two {name}, one per face, got {len(given)}. Pass None for a face without one."
                )
        if photographs is not None and pictures is not None:
            raise CaptumLeamError("Expected photographs or pictures, got both. Pass one of them.")
        overlays = [] if pictures is None else list(pictures)
        for i, (photo, face) in enumerate(zip([] if photographs is None else photographs, self.faces, strict=False)):
            overlays.append(None if photo is None or face is None else overlay_on_photo(photo, face, self.similar[i]))
        panels = [(i, picture) for i, picture in enumerate(overlays) if picture is not None]
        figure = Figure(figsize=(7.2, 5.2 + 3.8 * bool(panels)), layout="constrained")
        rows: Any = figure.subfigures(2, 1, height_ratios=[5.2, 3.8]) if panels else [figure]
        axes = rows[0].subplots(2, 3)
        for i, image in enumerate(self.images.detach().cpu().float()):
            row = [image.movedim(0, -1).clamp(0, 1).expand(-1, -1, 3).numpy()]
            row += [overlay(image, maps[i]) for maps in (self.similar, self.dissimilar)]
            for axis, picture, title in zip(axes[i], row, (SIDES[i], "for the match", "against it"), strict=True):
                axis.imshow(picture)
                axis.set_title(title, fontsize=9)
                axis.set_axis_off()
        add_colour_bar(rows[0], axes, labels=("no\nevidence", "strongest\nevidence"))
        for column, (i, picture) in enumerate(panels, 1):
            axis = rows[1].add_subplot(1, len(panels), column)
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
    """Explain why two faces match, or why they do not.

    Use it for verification (1 : 1), where a model decides from the cosine of two embeddings whether two faces show one person. Each face
    is explained towards the embedding of the other, and gets two maps:

    * *Similar*: what supports the match. It is the map of :func:`~captum_leam.explain_faces` with the other face as the reference.
    * *Dissimilar*: what opposes the match. It is the negative part of the signed layer maps, each divided by its sum, averaged over layers.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        a: First face as the model takes it, shape (C, H, W) or (1, C, H, W), or an :class:`~captum_leam.faces.AlignedFace`.
        b: Second face in one of these forms, of the same size.
        layers: Layers to explain: a name, a module or a suggestion of :func:`~captum_leam.suggest_layers`, or a list of these. Default:
            None, the layers of the overall map.
        threshold: Threshold of the decision, a cosine in [−1, 1]. The pair is accepted if the score is at least this. Default: None, no
            decision.
        same_person: Whether both faces show the same person. Default: None, unknown.
        preset: Preset of the maps, ``"fast"``, ``"default"`` or ``"best"``, see :func:`~captum_leam.explain_faces`. Default:
            ``"default"``.
        n_steps: Number of steps of the path of the signed layer maps, 1 or more. Default: 4.

    Returns:
        :class:`PairExplanation` with the maps of both faces, shape (2, H, W) each, the score (cosine) and the decision.

    Raises:
        InputTypeError: If an argument has the wrong type.
        CaptumLeamError: If the images have different sizes, the preset or a layer is unknown, or ``LEAM.attribute`` would raise it.

    Note:
        Both maps sum to 1, so that they show where evidence lies, and not how much there is. The signed maps in ``layers`` keep the scale
        of the score.

    See Also:
        * :func:`~captum_leam.explain_faces`: Maps of single faces.
        * :func:`~captum_leam.explain_match`: Identification in a gallery.

    Example:
        >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
        >>> population = SyntheticPopulation(12, evidence="nose")
        >>> model, (a, b) = load_trained(population), population.sample([0, 0], seed=1).images  # two images of one person
        >>> pair = explain_pair(model, a, b, threshold=0.5, same_person=True, preset="fast")
        >>> pair.similar.shape, pair.dissimilar.shape
        (torch.Size([2, 112, 112]), torch.Size([2, 112, 112]))
        >>> round(pair.score, 2), pair.accepted, pair.outcome  # TA: a true acceptance
        (0.99, True, 'TA')
    """
    check_preset(preset)
    check_same_person(same_person)
    if not isinstance(model, nn.Module):
        raise InputTypeError(
            f"Expected model to be a torch.nn.Module that returns embeddings, got a {type(model).__name__}."
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    images = _stack_pair(a, b).to(device)
    layers = resolve_layers(model, images, layers)
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


def check_same_person(same_person: Any) -> None:
    """Raise if ``same_person`` is neither True, False nor None.

    Raises:
        InputTypeError: If it has another type.

    Example:
        >>> check_same_person(None)
    """
    if not isinstance(same_person, bool | np.bool_ | None):
        raise InputTypeError(f"Expected same_person to be True, False or None, got {same_person!r}.")


def _stack_pair(a: Tensor | AlignedFace, b: Tensor | AlignedFace) -> Tensor:
    first, second = (
        as_single_image(x.crop if isinstance(x, AlignedFace) else x, name) for x, name in ((a, "a"), (b, "b"))
    )
    if first.shape != second.shape:
        raise CaptumLeamError(
            f"Expected a and b to be two images of one size, got {tuple(first.shape[1:])} and {tuple(second.shape[1:])}."
        )
    return torch.cat([first, second.to(first)])


def as_single_image(image: Any, name: str) -> Tensor:
    """Return one image (C, H, W) or (1, C, H, W) as a batch (1, C, H, W).

    Args:
        image: The image.
        name: Name of the argument, for messages.

    Raises:
        InputTypeError: If it is not a floating-point tensor.
        CaptumLeamError: If it has another shape or several images.
    """
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
    """Return the overall maps (N, H, W), which are zero for images without evidence for the match.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        images: Faces (N, C, H, W).
        references: Reference embeddings (N, D).
        layers: Layers of the overall map.
        preset: Preset of the overall map.
        contrast: Embeddings (N, M, D) to tell the person apart from. Default: None.
        batch_size: Number of images per pass. Default: 32.
    """
    try:
        return explain_faces(
            model, images, preset, layers=layers, batch_size=batch_size, reference=references, contrast=contrast
        )
    except NoEvidenceError:
        rows = [slice(i, i + 1) for i in range(len(images))]
    if len(rows) == 1:
        return torch.zeros_like(at_least_float32(images[:, 0]))
    parts = [(images[row], references[row], None if contrast is None else contrast[row]) for row in rows]
    return torch.cat([evidence_for(model, x, r, layers, preset, c) for x, r, c in parts])


def evidence_against(maps: list[Tensor]) -> Tensor:
    """Return the mean negative part of signed layer maps, each divided by its sum, over the layers that have a negative part.

    Args:
        maps: Signed maps of the layers, shape (N, H, W) each.

    Returns:
        Shape (N, H, W), not negative. Each sums to 1, or is 0 if no layer has a negative value.

    Example:
        >>> evidence_against([torch.tensor([[[1.0, -2.0, -2.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]])]).tolist()
        [[[0.0, 0.5, 0.5]]]
    """
    negative = torch.stack([(-m).clamp(min=0) for m in maps])
    sums = negative.sum((-2, -1), keepdim=True)
    counts = (sums > 0).to(negative).sum(0).clamp_min(1)
    return (negative / torch.where(sums > 0, sums, 1)).sum(0) / counts
