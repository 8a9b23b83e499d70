"""Explanation of identifications (1 : N): evidence for the first candidate of a gallery against the next, and its occlusion."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from captum_leam._engine.checks import check_choice, check_count, check_images
from captum_leam._notebook import HtmlResult
from captum_leam._optional import pd
from captum_leam.controls import CONTROLS, ControlContext, central_ellipse
from captum_leam.errors import CaptumLeamError, InputTypeError, NoEvidenceError
from captum_leam.explain import MapSettings, Preset, check_preset, layer_maps
from captum_leam.faces import AlignedFace
from captum_leam.faithfulness.fills import Fill, as_fill
from captum_leam.faithfulness.occlusion import occlude
from captum_leam.maps import top_fraction
from captum_leam.objectives import SAME_PICTURE, embed, unit
from captum_leam.pairs import evidence_against, evidence_for
from captum_leam.stats.inference import bootstrap_interval
from captum_leam.stats.labels import as_list, is_missing, person_codes
from captum_leam.suggest import Layers, resolve_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST: Literal["first candidate"] = "first candidate"
PERSON = "person"
"""Names whose rank is followed: that of the first candidate, and that of the person on the probe if known."""

QUANTITIES = ("rank change", "margin fall", "rank 1 lost")
"""Changes by occlusion that a summary reports."""


class Gallery(NamedTuple):
    """Gallery with the centroid of the images of each name.

    Attributes:
        names: Names in order of first appearance, P of them.
        centroids: Unit vectors (P, D), the re-normalised means of the unit embeddings of each name.
        images: Number of images of each name.
        portraits: First image of each name, (P, C, H, W); None for a gallery of embeddings.
    """

    names: tuple[str, ...]
    centroids: Tensor
    images: tuple[int, ...]
    portraits: Tensor | None


@dataclass(frozen=True, repr=False)
class MatchExplanation(HtmlResult):
    """Result of :func:`~captum_leam.explain_match`: ranking of a gallery for each probe, maps that explain it, and an occlusion test.

    A *probe* is a face to identify, and the *gallery* is the set of named faces that it is compared with. The *first candidate* is the
    name with the highest score, and the *next candidate* is the name after it. The *margin* of a name is its score minus the highest score
    of any other name, so that it is positive at rank 1 only. N is the number of probes, and P the number of names.

    Read :attr:`first` for the answer, :attr:`maps` for the reason, :meth:`to_frame` for the whole ranking, and :meth:`summary` for the
    test of the maps.

    Attributes:
        images: Probes, shape (N, C, H, W) in [0, 1].
        gallery: Names, centroids (re-normalised mean embeddings), numbers of images and first images of the names.
        scores: Cosine of every probe to every name, shape (N, P), float64.
        maps: Maps (N, H, W) of what makes each probe more similar to the first candidate than to the next. Not negative. Each sums to 1.
        against: Maps (N, H, W) of what makes each probe more similar to the next candidate. They are the mean negative part of the maps
            in ``layers``. Not negative. Each sums to 1, or is 0.
        layers: Signed maps by name of the layer, shape (N, H, W), on the scale of the score.
        changes: Ranks and margins with and without occlusion of the critical pixels, a table with one row per probe, ``of`` and
            ``control``, and the columns

            * ``probe``: Index of the probe.
            * ``person``: Name of the person on the probe, ``""`` if unknown.
            * ``of``: Whose rank it is: ``"first candidate"``, or ``"person"`` if the person is known and in the gallery.
            * ``name``: Name in the gallery.
            * ``control``: ``""`` for the map, or the name of the control whose pixels were occluded instead.
            * ``draws``: Number of draws of the control, whose mean the values are.
            * ``rank_before``, ``rank_after``: Rank without and with occlusion.
            * ``margin_before``, ``margin_after``: Margin without and with occlusion.
            * ``rank_1_lost``: Share of the draws in which rank 1 is lost, in [0, 1]; NaN if the name was not at rank 1.
        settings: Settings that the maps were computed with.
        candidates: Number of next candidates that the first candidate is compared with, 1 or more. Default: 1.
        fraction: Share of the pixels that were occluded, in (0, 1]. Default: 0.05.
        fill: Name of what replaced the occluded pixels. Default: ``"blur"``.
        people: Name of the person on each probe, ``""`` if unknown. Default: no names.
        threshold: Threshold of the decision, a cosine; a first candidate with a score of at least the threshold is accepted. Default:
            None, no decision.

    Example:
        >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
        >>> population = SyntheticPopulation(12, evidence="nose")
        >>> model, gallery = load_trained(population), population.sample([0, 1, 2], seed=1).images
        >>> probe = population.sample([1], seed=2).images  # another image of bob
        >>> match = explain_match(model, probe, gallery, ["ann", "bob", "cy"], preset="fast", draws=2)
        >>> match.first, match.maps.shape
        (['bob'], torch.Size([1, 112, 112]))
        >>> match.changes[["control", "rank_before", "rank_after"]]  # without the pixels of the map, bob falls to rank 2
                 control  rank_before  rank_after
        0                           1         2.0
        1  random pixels            1         1.0
        2          moved            1         1.0
    """

    images: Tensor = field(repr=False)
    gallery: Gallery
    scores: Tensor = field(repr=False)
    maps: Tensor = field(repr=False)
    against: Tensor = field(repr=False)
    layers: dict[str, Tensor] = field(repr=False)
    changes: pd.DataFrame = field(repr=False)
    settings: MapSettings = field(repr=False)
    candidates: int = 1
    fraction: float = 0.05
    fill: str = "blur"
    people: tuple[str, ...] = ()
    threshold: float | None = None

    @property
    def order(self) -> Tensor:
        """Indices of the names of each probe, the highest score first, shape (N, P)."""
        return self.scores.argsort(dim=1, descending=True, stable=True)

    @property
    def first(self) -> list[str]:
        """Name of the first candidate of each probe."""
        return [self.gallery.names[i] for i in self.order[:, 0].tolist()]

    @property
    def next(self) -> list[str]:
        """Name of the next candidate of each probe."""
        return [self.gallery.names[i] for i in self.order[:, 1].tolist()]

    @property
    def references(self) -> Tensor:
        """Centroid of the first candidate of each probe, shape (N, D), in the type of the images and on their device."""
        return self.gallery.centroids[self.order[:, 0].to(self.gallery.centroids.device)].to(self.images)

    @property
    def contrast(self) -> Tensor:
        """Centroids of the next candidates of each probe, shape (N, M, D), in the type of the images and on their device."""
        following = self.order[:, 1 : 1 + self.candidates]
        return self.gallery.centroids[following.to(self.gallery.centroids.device)].to(self.images)

    @property
    def margins(self) -> Tensor:
        """Score of the first candidate minus that of the next, shape (N,)."""
        top: Tensor = self.scores.topk(2, 1).values
        return top[:, 0] - top[:, 1]

    @property
    def accepted(self) -> list[bool | None]:
        """Whether the score of each first candidate reaches the threshold; None without a threshold."""
        best = self.scores.amax(1).tolist()
        return [None if self.threshold is None else score >= self.threshold for score in best]

    def to_frame(self) -> pd.DataFrame:
        """Return the ranking of the gallery for each probe.

        Returns:
            Table with one row per probe and name, the highest score first, and the columns

            * ``probe``: Index of the probe.
            * ``person``: Name of the person on the probe, ``""`` if unknown.
            * ``rank``: Rank of the name, 1 for the highest score.
            * ``name``: Name in the gallery.
            * ``images``: Number of its images in the gallery.
            * ``score``: Cosine of the probe to the mean embedding of the name.
            * ``behind``: Score of the first candidate minus this one, 0 or more.

        Example:
            >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
            >>> population = SyntheticPopulation(12, evidence="nose")
            >>> model, gallery = load_trained(population), population.sample([0, 1, 2], seed=1).images
            >>> probe = population.sample([1], seed=2).images  # another image of bob
            >>> match = explain_match(model, probe, gallery, ["ann", "bob", "cy"], preset="fast", draws=2)
            >>> match.to_frame()[["rank", "name", "score", "behind"]].round(2)
               rank name  score  behind
            0     1  bob   0.93    0.00
            1     2   cy   0.07    0.85
            2     3  ann  -0.20    1.13
        """
        scores = self.scores.numpy()
        ranks = _ranks_and_margins(self.scores)[0].numpy()
        rows = [
            (i, person, int(ranks[i, j]), self.gallery.names[j], self.gallery.images[j], scores[i, j])
            for i, person in enumerate(self.people)
            for j in self.order[i].tolist()
        ]
        table = pd.DataFrame(rows, columns=["probe", "person", "rank", "name", "images", "score"])
        return table.assign(behind=table.groupby("probe")["score"].transform("max") - table["score"])

    def summary(self, *, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """Return the mean changes of ranks and margins when critical pixels are occluded.

        A map explains the ranking if occluding its pixels changes ranks and margins more than occluding as many pixels of every control.

        Args:
            confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
            seed: Seed of the bootstrap over people. Default: 0.

        Returns:
            Table with one row per ``of``, ``quantity`` and ``control``, and the columns

            * ``of``: Whose rank it is: ``"first candidate"`` or ``"person"``.
            * ``quantity``: ``"rank change"`` (rank after minus before), ``"margin fall"`` (margin before minus after) or ``"rank 1
              lost"`` (share of the probes at rank 1 that lose it).
            * ``control``: ``""`` for the map, or the name of the control.
            * ``value``, ``low``, ``high``: Mean over probes, with its interval over people.
            * ``difference``, ``difference_low``, ``difference_high``: Mean of the map minus that of the control, with its interval; NaN
              for the map.
            * ``probes``, ``people``: Numbers of both. A probe without a known person counts as a person of its own.

            Intervals are NaN with fewer than two people.

        Example:
            >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
            >>> population = SyntheticPopulation(12, evidence="nose")
            >>> model, gallery = load_trained(population), population.sample([0, 1, 2], seed=1).images
            >>> probe = population.sample([1], seed=2).images  # another image of bob
            >>> match = explain_match(model, probe, gallery, ["ann", "bob", "cy"], preset="fast", draws=2)
            >>> match.summary()[["quantity", "control", "value"]].head(3)
                  quantity        control  value
            0  rank change                   1.0
            1  rank change  random pixels    0.0
            2  rank change          moved    0.0
        """
        rows = []
        for of, table in self.changes.groupby("of", sort=False):
            for quantity in QUANTITIES:
                rows += _summarise(table, quantity, confidence, seed, {"of": of})
        return pd.DataFrame(rows)

    def sentence(self, probe: int = 0) -> str:
        """Return the result of one probe as text for a caption.

        Args:
            probe: Index of the probe, from 0 to N − 1. Default: 0.

        Returns:
            Two sentences: the first candidate with its score and margin (and the decision, with a threshold), and the change of margin
            and rank when the critical pixels are occluded.

        Example:
            >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
            >>> population = SyntheticPopulation(12, evidence="nose")
            >>> model, gallery = load_trained(population), population.sample([0, 1, 2], seed=1).images
            >>> probe = population.sample([1], seed=2).images  # another image of bob
            >>> match = explain_match(model, probe, gallery, ["ann", "bob", "cy"], preset="fast", draws=2)
            >>> match.sentence().partition(". ")[0]
            'bob is first of 3 names with cosine 0.927, 0.853 over cy'
        """
        order, score = self.order[probe].tolist(), self.scores[probe]
        first, following = (self.gallery.names[i] for i in order[:2])
        text = (
            f"{first} is first of {len(order)} names with cosine {float(score[order[0]]):.3f}, "
            f"{float(self.margins[probe]):.3f} over {following}"
        )
        if (accepted := self.accepted[probe]) is not None:
            text += f" ({'accepted' if accepted else 'rejected'} at threshold {self.threshold:g})"
        changes = self.changes[(self.changes["probe"] == probe) & (self.changes["of"] == FIRST)].set_index("control")
        falls = (changes["margin_before"] - changes["margin_after"]).to_dict()
        map_fall = falls.pop("")
        controls = ", ".join(f"{fall:.3f} for {control}" for control, fall in falls.items())
        text += f". Without the top {100 * self.fraction:g} % of the pixels the margin falls by {map_fall:.3f}"
        text += f" ({controls})" * bool(controls)
        rank = round(float(changes["rank_after"][""]))
        return f"{text}, and {first} {'stays at' if rank == 1 else 'goes to'} rank {rank}."

    def facts(self) -> dict[str, str]:
        """Return the settings of the identification as short texts, for the head of a page or table.

        Returns:
            Dictionary of texts, in the order of display:

            * ``"gallery"``: Numbers of names and images.
            * ``"contrast"``: Number of next candidates that the first candidate is compared with.
            * ``"threshold"``: Threshold of the decision, if there is one.
            * ``"occluded"``: Share of the pixels that were occluded, and their replacement.

        Example:
            >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
            >>> population = SyntheticPopulation(12, evidence="nose")
            >>> model, gallery = load_trained(population), population.sample([0, 1, 2], seed=1).images
            >>> probe = population.sample([1], seed=2).images  # another image of bob
            >>> match = explain_match(model, probe, gallery, ["ann", "bob", "cy"], preset="fast", draws=2)
            >>> match.facts()
            {'gallery': '3 names, 3 images', 'contrast': 'the next candidate', 'occluded': 'top 5 % of the pixels, fill blur'}
        """
        several = sum(count > 1 for count in self.gallery.images)
        names = f"{len(self.gallery.names)} names, {sum(self.gallery.images)} images"
        if several:
            names += f" (the mean of the unit embeddings for each of {several} names with several)"
        facts = {"gallery": names}
        facts["contrast"] = "the next candidate" if self.candidates == 1 else f"the next {self.candidates} candidates"
        if self.threshold is not None:
            facts["threshold"] = f"{self.threshold:g}"
        facts["occluded"] = f"top {100 * self.fraction:g} % of the pixels, fill {self.fill}"
        return facts

    def plot(self, *, probes: int = 6) -> Figure:
        """Draw each probe with the maps for the first and for the next candidate.

        Each row shows a probe, the evidence for the first candidate, and the evidence for the next candidate. If the gallery was passed as
        images, the first image of both names follows, with rank, name and cosine as its title.

        Args:
            probes: Maximum number of probes to draw, 1 or more; the first ones are drawn. Default: 6.

        Returns:
            Figure with one row per probe, of five panels or of three for a gallery of embeddings, and a colour bar. It is not shown: call
            ``figure.savefig(path)``, or let a notebook display it.

        Example:
            >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
            >>> population = SyntheticPopulation(12, evidence="nose")
            >>> model, gallery = load_trained(population), population.sample([0, 1, 2], seed=1).images
            >>> probe = population.sample([1], seed=2).images  # another image of bob
            >>> match = explain_match(model, probe, gallery, ["ann", "bob", "cy"], preset="fast", draws=2)
            >>> [axis.get_title() for axis in match.plot().axes[:4]]
            ['probe 0', 'for the first', 'for the next', '1: bob, 0.927']
        """
        from matplotlib.figure import Figure

        from captum_leam.plots import add_colour_bar, overlay

        count, portraits = min(probes, len(self.images)), self.gallery.portraits
        columns = 3 if portraits is None else 5
        figure = Figure(figsize=(1.7 * columns, 2.1 * count + 0.4), layout="constrained")
        axes: Any = figure.subplots(count, columns, squeeze=False)
        for i in range(count):
            order, scores = self.order[i, :2].tolist(), self.scores[i]
            panels = [
                (_pixels(self.images[i]), f"probe {i}"),
                (overlay(self.images[i], self.maps[i]), "for the first"),
                (overlay(self.images[i], self.against[i]), "for the next"),
            ]
            if portraits is not None:
                titles = [f"{rank}: {self.gallery.names[j]}, {float(scores[j]):.3f}" for rank, j in enumerate(order, 1)]
                panels += [(_pixels(portraits[j]), title) for j, title in zip(order, titles, strict=True)]
            for axis, (picture, title) in zip(axes[i], panels, strict=True):
                axis.imshow(picture)
                axis.set_title(title, fontsize=8, parse_math=False)
                axis.set_axis_off()
        add_colour_bar(figure, axes, labels=("no\nevidence", "strongest\nevidence"))
        return figure

    def __repr__(self) -> str:
        lines = [self.sentence(i) for i in range(min(3, len(self.images)))]
        rest = len(self.images) - len(lines)
        return "\n".join([*lines, *([f"... and {rest} more probes"] if rest else [])])


def explain_match(  # noqa: PLR0913 (every option is a keyword)
    model: nn.Module,
    probe: Tensor | AlignedFace,
    gallery: Tensor,
    names: Sequence[Any],
    *,
    preset: Preset = "default",
    candidates: int = 1,
    people: Sequence[Any] | None = None,
    threshold: float | None = None,
    layers: Layers = None,
    n_steps: int = 4,
    fraction: float = 0.05,
    fill: str | Fill | Callable[..., Tensor] = "blur",
    controls: Sequence[str] = ("random pixels", "moved"),
    draws: int = 10,
    seed: int = 0,
    batch_size: int = 32,
) -> MatchExplanation:
    r"""Explain why a face is identified as one person of a gallery and not as the next.

    Use it for identification (1 : N), where the *probe* is compared with every name of a *gallery*. The score of a name is the cosine
    between the embedding of the probe and the centroid of the name, the re-normalised mean of the unit embeddings of its images. The map
    shows where the probe is more similar to the first candidate, the name with the highest score, than to the next. With one next
    candidate, it explains the margin

    .. math:: \cos(f, \hat r_1) - \cos(f, \hat r_2)

    where :math:`f` is the embedding of the probe, and :math:`\hat r_1` and :math:`\hat r_2` are the centroids of both candidates. To test
    the map, its highest pixels are occluded and the gallery is ranked again, and the same is done with as many pixels of control maps.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        probe: Probe as the model takes it, shape (C, H, W); several probes, shape (N, C, H, W); or an aligned face.
        gallery: Images of the gallery, shape (G, C, H, W), or their embeddings, shape (G, D).
        names: Name of each of the G images of the gallery. Several images may have the same name.
        preset: Preset of the maps, ``"fast"``, ``"default"`` or ``"best"``, see :func:`~captum_leam.explain_faces`. Default: ``"default"``.
        candidates: Number of next candidates that the first is compared with, from 1 to the number of names − 1. Default: 1.
        people: Name of the person on each probe, None if unknown. Ranks of people in the gallery are then reported, too, and intervals
            are over people. Default: None, all unknown.
        threshold: Threshold of the decision, a cosine. The first candidate is accepted if its score is at least this. Default: None, no
            decision.
        layers: Layers in any form that :func:`~captum_leam.explain_faces` takes. Default: those of the overall map.
        n_steps: Number of steps of the path of the signed layer maps. Default: 4.
        fraction: Share of the pixels that are occluded, in (0, 1]. Default: 0.05.
        fill: Replacement of occluded pixels: ``"zero"``, ``"mean"``, ``"blur"``, ``"noisy linear"``, ``"shuffle"``, or a function, see
            :mod:`captum_leam.faithfulness.fills`. Default: ``"blur"``.
        controls: Controls whose pixels are occluded for comparison, names of :data:`~captum_leam.controls.CONTROLS`. Default:
            ``("random pixels", "moved")``.
        draws: Number of draws of each random control. Default: 10.
        seed: Seed of the tie-breaking permutations and of the controls. Default: 0.
        batch_size: Number of images per pass. Default: 32.

    Returns:
        :class:`~captum_leam.MatchExplanation` with the scores, shape (N, P) for N probes and P names, the maps, shape (N, H, W), and
        the changes of ranks and margins by occlusion.

    Raises:
        InputTypeError: If an argument has the wrong type.
        NoEvidenceError: If the map of a probe has no positive value.
        CaptumLeamError: If the gallery has fewer than two names or names with equal embeddings, if names, embeddings, image sizes or
            ``candidates`` do not fit, or if ``LEAM.attribute`` would raise it.

    See Also:
        * :func:`~captum_leam.explain_pair`: Comparison of two faces.
        * :func:`~captum_leam.explain_faces`: Maps of single faces.

    Example:
        >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
        >>> population = SyntheticPopulation(12, evidence="nose")
        >>> model, gallery = load_trained(population), population.sample([0, 1, 2], seed=1).images
        >>> probe = population.sample([1], seed=2).images  # another image of bob
        >>> match = explain_match(model, probe, gallery, ["ann", "bob", "cy"], preset="fast", draws=2)
        >>> match.first, match.maps.shape
        (['bob'], torch.Size([1, 112, 112]))
        >>> print(match.sentence().partition(". ")[0])
        bob is first of 3 names with cosine 0.927, 0.853 over cy
    """
    check_preset(preset)
    _check_model(model)
    for name, value in (("candidates", candidates), ("draws", draws)):
        check_count(name, value)
    for control in controls:
        check_choice("controls", control, CONTROLS)
    replacement = as_fill(fill)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    images = _probes(probe).to(device)
    person_names = _person_names(people, len(images))
    embeddings = unit(embed(model, images, batch_size), "embeddings of the probes")
    enrolled = _enrol(model, gallery, names, images, embeddings, batch_size)
    if candidates >= len(enrolled.names):
        raise CaptumLeamError(
            f"Expected candidates to be at most {len(enrolled.names) - 1}, one less than the names in the gallery, got {candidates}."
        )
    scores = _cosines(embeddings, enrolled)
    order = scores.argsort(dim=1, descending=True, stable=True).to(enrolled.centroids.device)
    ranked = enrolled.centroids[order].to(images)
    reference, contrast = ranked[:, 0], ranked[:, 1 : 1 + candidates]
    suggestions = resolve_layers(model, images, layers)
    maps = evidence_for(model, images, reference, suggestions, preset, contrast, batch_size)
    if empty := (~maps.flatten(1).any(1)).nonzero().flatten().tolist():
        raise NoEvidenceError(
            f"Expected a map with a positive value for each probe, got none for probes {empty}. Omit these probes."
        )
    signed = layer_maps(
        model, images, suggestions, reference=reference, contrast=contrast, n_steps=n_steps, batch_size=batch_size
    )

    def score(occluded: Tensor) -> Tensor:
        return _cosines(unit(embed(model, occluded, batch_size), "embeddings of occluded probes"), enrolled)

    occlusion = Occlusion(images, maps, person_names, fraction, replacement, seed)
    return MatchExplanation(
        images=images,
        gallery=enrolled,
        scores=scores,
        maps=maps,
        against=evidence_against([*signed.values()]),
        layers=signed,
        changes=occlusion.changes(score, scores, enrolled.names, controls, draws),
        settings=MapSettings.of(preset, FIRST, suggestions, n_steps),
        candidates=candidates,
        fraction=fraction,
        fill=replacement.name,
        people=person_names,
        threshold=threshold,
    )


# -- inputs --------------------------------------------------------------------------------------------


def _check_model(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputTypeError(
            f"Expected model to be a torch.nn.Module that returns embeddings, got a {type(model).__name__}."
        )


def _probes(probe: Any) -> Tensor:
    image = probe.crop if isinstance(probe, AlignedFace) else probe
    batch: Tensor = image[None] if isinstance(image, Tensor) and image.ndim == 3 else image
    check_images(batch, "probe")
    return batch


def _person_names(people: Sequence[Any] | None, count: int) -> tuple[str, ...]:
    """Return the name of the person on each probe, empty if it is unknown."""
    if people is None:
        return ("",) * count
    labels = as_list(people)
    if len(labels) != count:
        raise CaptumLeamError(f"Expected one person for each of the {count} probes, got {len(labels)}.")
    return tuple("" if is_missing(label) else str(label) for label in labels)


def _enrol(
    model: nn.Module, gallery: Any, names: Sequence[Any], probes: Tensor, embeddings: Tensor, batch_size: int
) -> Gallery:
    """Return the centroid of each name, from images or from embeddings."""
    if not isinstance(gallery, Tensor):
        raise InputTypeError(
            f"Expected gallery to be a tensor of images (G, C, H, W) or embeddings (G, D), got a {type(gallery).__name__}."
        )
    if gallery.ndim not in (2, 4) or not len(gallery):
        raise CaptumLeamError(
            f"Expected gallery to hold one image or more, (G, C, H, W), or embeddings (G, D), got {tuple(gallery.shape)}."
        )
    labels, codes = person_codes([str(name) for name in as_list(names)], len(gallery), "images of the gallery")
    if len(labels) < 2:
        raise CaptumLeamError(
            f"Expected a gallery of two names or more, got {labels[0]!r} alone. Use explain_pair to compare two faces."
        )
    units = unit(_embed_gallery(model, gallery, probes, embeddings, batch_size).double(), "embeddings of the gallery")
    sums = torch.zeros(len(labels), units.shape[1], dtype=torch.float64, device="cpu").index_add_(
        0, torch.from_numpy(codes), units.cpu()
    )
    centroids = unit(sums, "centroids of the gallery").to(embeddings.device)
    _check_distinct(centroids, labels)
    _warn_of_probes_in_gallery(embeddings, units, [labels[code] for code in codes.tolist()])
    first = [int(np.flatnonzero(codes == i)[0]) for i in range(len(labels))]
    counts = tuple(np.bincount(codes).tolist())
    return Gallery(labels, centroids, counts, gallery[first].detach() if gallery.ndim == 4 else None)


def _embed_gallery(model: nn.Module, gallery: Tensor, probes: Tensor, embeddings: Tensor, batch_size: int) -> Tensor:
    """Return the embeddings (G, D) of a gallery of images or embeddings."""
    if gallery.ndim == 4:
        check_images(gallery, "gallery")
        if gallery.shape[1:] != probes.shape[1:]:
            raise CaptumLeamError(
                f"Expected probe and gallery to have images of one size, got {tuple(probes.shape[1:])} and {tuple(gallery.shape[1:])}."
            )
        return embed(model, gallery.to(probes), batch_size)
    if gallery.shape[1] != embeddings.shape[1]:
        raise CaptumLeamError(
            f"Expected `gallery` embeddings to have {embeddings.shape[1]} dimensions, as the model returns, got {gallery.shape[1]}."
        )
    return gallery.detach().to(embeddings.device)


def _check_distinct(centroids: Tensor, names: tuple[Any, ...]) -> None:
    """Raise if two names have the same embedding, so that neither can be ranked before the other."""
    distances = torch.cdist(centroids, centroids, compute_mode="donot_use_mm_for_euclid_dist")
    if pairs := (distances.triu(1) + torch.ones_like(distances).tril() <= SAME_PICTURE).nonzero().tolist():
        first, other = (names[i] for i in pairs[0])
        raise CaptumLeamError(
            f"Expected different faces under different names, got equal embeddings for {first!r} and {other!r}. Leave one of them out."
        )


def _warn_of_probes_in_gallery(embeddings: Tensor, gallery: Tensor, names: list[Any]) -> None:
    """Warn of probes that are in the gallery, which match themselves."""
    distances = torch.cdist(embeddings.double(), gallery, compute_mode="donot_use_mm_for_euclid_dist")
    if matches := (distances <= SAME_PICTURE).nonzero().tolist():
        examples = ", ".join(f"probe {i} under {names[j]!r}" for i, j in matches[:3])
        warnings.warn(
            f"Expected probes that are not in the gallery, got the same picture for {examples}. Leave it out of the gallery, because a "
            "picture matches itself whoever it shows.",
            stacklevel=4,
        )


# -- ranks ---------------------------------------------------------------------------------------------


def _cosines(embeddings: Tensor, gallery: Gallery) -> Tensor:
    return (embeddings.double() @ gallery.centroids.T).cpu()


def _ranks_and_margins(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank of every name, 1 for the highest score, and its margin, both (N, P).

    Example:
        >>> ranks, margins = _ranks_and_margins(torch.tensor([[0.5, 0.75, 0.25]]))
        >>> ranks.tolist(), margins.tolist()
        ([[2, 1, 3]], [[-0.25, 0.25, -0.5]])
    """
    ranks = 1 + (scores[:, None] > scores[:, :, None]).sum(2)
    top = scores.topk(2, 1).values
    is_best = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.argmax(1, keepdim=True), True)
    return ranks, scores - torch.where(is_best, top[:, 1:], top[:, :1])


@dataclass(frozen=True)
class Occlusion:
    """Occlusion of the critical pixels of maps and controls on probes, and the ranking after it.

    Attributes:
        images: Probes (N, C, H, W).
        maps: Maps of the probes (N, H, W).
        people: Name of the person on each probe, ``""`` if unknown.
        fraction: Share of the pixels that are occluded, in (0, 1].
        fill: Replacement of occluded pixels.
        seed: Seed of the tie-breaking permutations and of the controls.
    """

    images: Tensor
    maps: Tensor
    people: tuple[str, ...]
    fraction: float
    fill: Fill
    seed: int

    def changes(
        self,
        score: Callable[[Tensor], Tensor],
        before: Tensor,
        names: tuple[str, ...],
        controls: Sequence[str],
        draws: int,
    ) -> pd.DataFrame:
        """Return the table of :attr:`MatchExplanation.changes`.

        Args:
            score: Function from images to the scores (N, P) of all names.
            before: Scores (N, P) without occlusion.
            names: Names of the gallery.
            controls: Names of the controls.
            draws: Number of draws of each random control.
        """
        columns: list[tuple[str, Tensor]] = [(FIRST, before.argmax(1))]
        if any(person in names for person in self.people):
            codes = [names.index(person) if person in names else -1 for person in self.people]
            columns.append((PERSON, torch.tensor(codes, dtype=torch.int64, device="cpu")))
        clean = _ranks_and_margins(before)
        tables = []
        for control in ("", *controls):
            after = [_ranks_and_margins(score(images)) for images in self._occluded_images(control, draws)]
            tables += [self._rows(of, names, column, clean, after).assign(control=control) for of, column in columns]
        table = pd.concat(tables, ignore_index=True).sort_values("of", key=lambda of: of != FIRST, kind="stable")
        head = ["probe", "person", "of", "name", "control", "draws"]
        return table[head + [name for name in table if name not in head]].reset_index(drop=True)

    def _occluded_images(self, control: str, draws: int) -> list[Tensor]:
        """Return the probes occluded by the map, or by each draw of a control; deterministic controls have one draw."""
        all_maps = [self.maps] if not control else []
        for i in range(draws if control else 0):
            maps = CONTROLS[control](self._control_context(self.seed + i))
            if all_maps and torch.equal(maps, all_maps[0]):
                break
            all_maps.append(maps)
        masks = [top_fraction(maps, self.fraction, seed=self.seed) for maps in all_maps]
        return [occlude(self.images, mask, self.fill) for mask in masks]

    def _control_context(self, seed: int) -> ControlContext:
        _, _, height, width = self.images.shape
        face = central_ellipse((height, width)).expand(len(self.images), height, width)
        people = self.people if all(self.people) else None
        return ControlContext(self.images, face, people, self.maps, seed)

    def _rows(
        self,
        of: str,
        names: tuple[str, ...],
        column: Tensor,
        clean: tuple[Tensor, Tensor],
        after: list[tuple[Tensor, Tensor]],
    ) -> pd.DataFrame:
        """Return one row per probe whose name is in the gallery, with means over the draws."""
        rows = (column >= 0).nonzero().flatten()
        index = (rows, column[rows])
        rank_before = clean[0][index].numpy()
        ranks_after = np.stack([ranks[index].numpy() for ranks, _ in after])
        return pd.DataFrame(
            {
                "probe": rows.numpy(),
                "person": [self.people[i] for i in rows.tolist()],
                "of": of,
                "name": [names[i] for i in index[1].tolist()],
                "draws": len(after),
                "rank_before": rank_before,
                "rank_after": ranks_after.mean(0),
                "margin_before": clean[1][index].numpy(),
                "margin_after": torch.stack([margins[index] for _, margins in after]).mean(0).numpy(),
                "rank_1_lost": np.where(rank_before == 1, (ranks_after > 1).mean(0), np.nan),
            }
        )


def _summarise(
    table: pd.DataFrame, quantity: str, confidence: float, seed: int, head: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the mean of one quantity for the map and each control, with intervals over people."""
    values = {
        "rank change": table["rank_after"] - table["rank_before"],
        "margin fall": table["margin_before"] - table["margin_after"],
        "rank 1 lost": table["rank_1_lost"],
    }[quantity]
    wide = table.assign(value=values).pivot(index=["probe", "person"], columns="control", values="value").dropna()
    people = [person or f"probe {probe}" for probe, person in wide.index]
    bounds = {"rank 1 lost": (0.0, 1.0)}.get(quantity, (-np.inf, np.inf))
    rows = []
    for control in table["control"].unique():
        low, high = _interval(wide[control], people, confidence, seed, bounds)
        row = {
            **head,
            "quantity": quantity,
            "control": control,
            "value": wide[control].mean(),
            "low": low,
            "high": high,
        }
        if control:
            difference = wide[""] - wide[control]
            low, high = _interval(difference, people, confidence, seed)
            row |= {"difference": difference.mean(), "difference_low": low, "difference_high": high}
        else:
            row |= dict.fromkeys(("difference", "difference_low", "difference_high"), float("nan"))
        rows.append({**row, "probes": len(wide), "people": len(set(people))})
    return rows


def _interval(
    values: pd.Series, people: list[str], confidence: float, seed: int, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float]:
    if not len(values):
        return float("nan"), float("nan")
    low, high = bootstrap_interval(values.to_numpy(), people, confidence=confidence, seed=seed, bounds=bounds)
    return float(low), float(high)


def _pixels(image: Tensor) -> Any:
    return image.detach().cpu().float().movedim(0, -1).clamp(0, 1).expand(-1, -1, 3).numpy()
