"""Identification, 1 : N: what makes the first candidate of a gallery win over the next, and whether the named pixels decide it."""

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
from captum_leam.controls import CONTROLS, Scene, central_ellipse
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
from captum_leam.suggest import Layers, chosen_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST: Literal["first candidate"] = "first candidate"
PERSON = "person"
"""Whose rank is followed: that of the first candidate, and that of the person on the probe where it is known."""

QUANTITIES = ("rank change", "margin fall", "rank 1 lost")


class Gallery(NamedTuple):
    """Names of a gallery, each with the centroid of its images.

    Attributes:
        names: Names in order of first appearance, P of them.
        centroids: Unit vectors (P, D): means of the unit embeddings of each name, re-normalised.
        images: Number of images of each name.
        portraits: First image of each name, (P, C, H, W); None for a gallery of embeddings.
    """

    names: tuple[str, ...]
    centroids: Tensor
    images: tuple[int, ...]
    portraits: Tensor | None


@dataclass(frozen=True, repr=False)
class MatchExplanation(HtmlResult):
    """Maps of probes towards the first candidate against the next, with the ranking and its change under occlusion.

    A *margin* is the score of a name minus the highest score of any other name: it is positive at rank 1 only.

    Attributes:
        images: Probes, shape (N, C, H, W) in [0, 1].
        gallery: Names, centroids and numbers of images.
        scores: Cosine of every probe to every name, shape (N, P), float64.
        maps: What makes the first candidate win over the next, shape (N, H, W): the overall map with the first candidate as the
            reference and the next as the contrast. Not negative; each sums to 1.
        against: Evidence for the next candidate, shape (N, H, W): the mean negative part of the signed layer maps. Not negative; each
            sums to 1, or is 0.
        layers: Layer name → signed map, shape (N, H, W), on the raw scale of the score.
        changes: One row per probe, ``of`` (``"first candidate"``, or ``"person"`` where the person is known and in the gallery) and
            ``control`` (``""`` for the map): probe, person, of, name, control, draws, rank_before, rank_after, margin_before,
            margin_after, rank_1_lost. Controls are means over their draws.
        settings: How the maps were made.
        candidates: Number of next candidates in the contrast.
        fraction: Share of the pixels that were occluded.
        fill: Replacement of occluded pixels.
        people: Name of the person on each probe, ``""`` where it is not known.
        threshold: Threshold of the decision; a first candidate with a score of at least the threshold is accepted.
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
        """Return the ranking: one row per probe and name, the highest score first.

        Returns:
            Columns probe, person, rank, name, images (of the name in the gallery), score, and behind: the score of the first
            candidate minus this one.
        """
        scores = self.scores.numpy()
        ranks = _standing(self.scores)[0].numpy()
        rows = [
            (i, person, int(ranks[i, j]), self.gallery.names[j], self.gallery.images[j], scores[i, j])
            for i, person in enumerate(self.people)
            for j in self.order[i].tolist()
        ]
        table = pd.DataFrame(rows, columns=["probe", "person", "rank", "name", "images", "score"])
        return table.assign(behind=table.groupby("probe")["score"].transform("max") - table["score"])

    def summary(self, *, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """Return how far ranks and margins change when the named pixels are occluded, beside controls.

        Args:
            confidence: Confidence level of the intervals. Default: 0.95.
            seed: Seed of the bootstrap draws of people. Default: 0.

        Returns:
            One row per ``of``, ``quantity`` and ``control`` (``""`` for the map): mean ``value`` with the interval ``low``, ``high`` over
            people, and ``difference`` of the map from the control with its interval ``difference_low``, ``difference_high``.
            Quantities: ``"rank change"``, the rank after minus before; ``"margin fall"``, the margin before minus after; ``"rank 1
            lost"``, the share of the probes at rank 1 that lose it. Probes without a known person count as people of their own.
            Intervals are NaN with fewer than two people.
        """
        rows = []
        for of, table in self.changes.groupby("of", sort=False):
            for quantity in QUANTITIES:
                rows += _summarised(table, quantity, confidence, seed, {"of": of})
        return pd.DataFrame(rows)

    def sentence(self, probe: int = 0) -> str:
        """Return the result of one probe as a sentence.

        Args:
            probe: Index of the probe. Default: 0.
        """
        order, score = self.order[probe].tolist(), self.scores[probe]
        first, following = (self.gallery.names[i] for i in order[:2])
        text = (
            f"{first} is first of {len(order)} names with cosine {float(score[order[0]]):.3f}, "
            f"{float(self.margins[probe]):.3f} over {following}"
        )
        if (accepted := self.accepted[probe]) is not None:
            text += f" ({'accepted' if accepted else 'rejected'} at threshold {self.threshold:g})"
        own = self.changes[(self.changes["probe"] == probe) & (self.changes["of"] == FIRST)].set_index("control")
        falls = (own["margin_before"] - own["margin_after"]).to_dict()
        of_map = falls.pop("")
        controls = ", ".join(f"{fall:.3f} for {control}" for control, fall in falls.items())
        text += f". Without the top {100 * self.fraction:g} % of the pixels the margin falls by {of_map:.3f}"
        text += f" ({controls})" * bool(controls)
        rank = round(float(own["rank_after"][""]))
        return f"{text}, and {first} {'stays at' if rank == 1 else 'goes to'} rank {rank}."

    def facts(self) -> dict[str, str]:
        """Return what was compared, by name."""
        several = sum(count > 1 for count in self.gallery.images)
        names = f"{len(self.gallery.names)} names, {sum(self.gallery.images)} images"
        if several:
            names += f" (the mean of the unit embeddings for each of {several} names with several)"
        known = {"gallery": names}
        known["contrast"] = "the next candidate" if self.candidates == 1 else f"the next {self.candidates} candidates"
        if self.threshold is not None:
            known["threshold"] = f"{self.threshold:g}"
        known["occluded"] = f"top {100 * self.fraction:g} % of the pixels, fill {self.fill}"
        return known

    def plot(self, *, probes: int = 6) -> Figure:
        """Draw probes with the evidence for the first candidate and for the next, and both candidates where their images are known.

        Args:
            probes: Most probes to draw. Default: 6.
        """
        from matplotlib.figure import Figure

        from captum_leam.plots import add_colour_bar, overlay

        count, portraits = min(probes, len(self.images)), self.gallery.portraits
        columns = 3 if portraits is None else 5
        figure = Figure(figsize=(1.7 * columns, 2.1 * count + 0.4), layout="constrained")
        axes: Any = figure.subplots(count, columns, squeeze=False)
        for i in range(count):
            order, scores = self.order[i, :2].tolist(), self.scores[i]
            drawn = [(_pixels(self.images[i]), f"probe {i}")]
            drawn += [
                (overlay(self.images[i], self.maps[i]), "for the first"),
                (overlay(self.images[i], self.against[i]), "for the next"),
            ]
            if portraits is not None:
                named = [
                    (j, f"{rank}: {self.gallery.names[j]}, {float(scores[j]):.3f}") for rank, j in enumerate(order, 1)
                ]
                drawn += [(_pixels(portraits[j]), title) for j, title in named]
            for axis, (picture, title) in zip(axes[i], drawn, strict=True):
                axis.imshow(picture)
                axis.set_title(title, fontsize=8, parse_math=False)
                axis.set_axis_off()
        add_colour_bar(figure, axes, labels=("no\nevidence", "strongest\nevidence"))
        return figure

    def __repr__(self) -> str:
        lines = [self.sentence(i) for i in range(min(3, len(self.images)))]
        rest = len(self.images) - len(lines)
        return "\n".join([*lines, *([f"... and {rest} more probes"] if rest else [])])


def explain_match(  # noqa: PLR0913  every option is named
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
    r"""Explain an identification: what makes the first candidate of a gallery win over the next.

    The score of a name is the cosine between the embedding of the probe and the centroid of the name: the mean of the unit embeddings of
    its images, re-normalised. The map is that of :func:`~captum_leam.explain_faces` with the centroid of the first candidate as the
    reference and those of the next ``candidates`` as the contrast: with one, it explains the margin
    :math:`\cos(f, \hat r_1) - \cos(f, \hat r_2)`. Then the top ``fraction`` of its pixels is occluded, and as many pixels of control maps,
    and the gallery is ranked again. All names count in the new ranking, not the contrasted ones alone.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        probe: Probe as the model takes it, shape (C, H, W); several, shape (N, C, H, W); or an aligned face.
        gallery: Images of the gallery, shape (G, C, H, W), or their embeddings, shape (G, D).
        names: Name of each image of the gallery, G of them. Several images may share a name.
        preset: Preset of :func:`~captum_leam.explain_faces`. Default: ``"default"``.
        candidates: Number of next candidates that the first is contrasted with. Default: 1.
        people: Name of the person on each probe, None where it is not known: the person's rank is followed too, where the gallery has the
            name, and intervals are over people. Default: not known.
        threshold: Threshold of the decision about the first candidate, a cosine. Default: no decision.
        layers: Layers as :func:`~captum_leam.explain_faces` takes them. Default: those of the overall map.
        n_steps: Steps of the path of the signed layer maps. Default: 4.
        fraction: Share of the pixels that are occluded, in (0, 1]. Default: 0.05.
        fill: Replacement of occluded pixels, see :mod:`captum_leam.faithfulness.fills`. Default: ``"blur"``.
        controls: Names of :data:`~captum_leam.controls.CONTROLS`. Default: ``("random pixels", "moved")``.
        draws: Number of draws of each random control. Default: 10.
        seed: Seed of ties and controls. Default: 0.
        batch_size: Images per pass. Default: 32.

    Returns:
        The ranking, the maps, and how ranks and margins change.

    Raises:
        NoEvidenceError: For a probe whose map has no positive value.
        CaptumLeamError: For an empty gallery, a single name, as many names as do not fit, names with equal embeddings, too many
            ``candidates``, embeddings of another model, images of another size, and what ``LEAM.attribute`` refuses.

    Example:
        >>> from torchvision.models import resnet18
        >>> model, faces = resnet18(num_classes=32).eval(), torch.rand(4, 3, 112, 112)
        >>> match = explain_match(model, faces[3], faces[:3], ["ann", "bob", "cy"], preset="fast", draws=2)
        >>> match.maps.shape, match.to_frame()["rank"].tolist()
        (torch.Size([1, 112, 112]), [1, 2, 3])
        >>> match.summary()["control"].unique().tolist()
        ['', 'random pixels', 'moved']
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
    known = _people(people, len(images))
    embeddings = unit(embed(model, images, batch_size), "embeddings of the probes")
    stored = _gallery(model, gallery, names, images, embeddings, batch_size)
    if candidates >= len(stored.names):
        raise CaptumLeamError(
            f"Expected candidates to be at most {len(stored.names) - 1}, the number of names after the first, got {candidates}."
        )
    scores = _cosines(embeddings, stored)
    order = scores.argsort(dim=1, descending=True, stable=True).to(stored.centroids.device)
    ranked = stored.centroids[order].to(images)
    towards: dict[str, Any] = {"reference": ranked[:, 0], "contrast": ranked[:, 1 : 1 + candidates]}
    chosen = chosen_layers(model, images, layers)
    maps = evidence_for(model, images, ranked[:, 0], chosen, preset, towards["contrast"], batch_size)
    if empty := (~maps.flatten(1).any(1)).nonzero().flatten().tolist():
        raise NoEvidenceError(
            f"Expected a map with a positive value for each probe, got none for probes {empty}. Leave these out."
        )
    signed = layer_maps(model, images, chosen, n_steps=n_steps, batch_size=batch_size, **towards)

    def score(occluded: Tensor) -> Tensor:
        return _cosines(unit(embed(model, occluded, batch_size), "embeddings of occluded probes"), stored)

    occlusion = Occlusion(images, maps, known, fraction, replacement, seed)
    return MatchExplanation(
        images=images,
        gallery=stored,
        scores=scores,
        maps=maps,
        against=evidence_against([*signed.values()]),
        layers=signed,
        changes=occlusion.changes(score, scores, stored.names, controls, draws),
        settings=MapSettings.of(preset, FIRST, chosen, n_steps),
        candidates=candidates,
        fraction=fraction,
        fill=replacement.name,
        people=known,
        threshold=threshold,
    )


# -- what is given -------------------------------------------------------------------------------------


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


def _people(people: Sequence[Any] | None, count: int) -> tuple[str, ...]:
    """Return the name of the person on each probe, empty where it is not known."""
    if people is None:
        return ("",) * count
    labels = as_list(people)
    if len(labels) != count:
        raise CaptumLeamError(f"Expected one person for each of the {count} probes, got {len(labels)}.")
    return tuple("" if is_missing(label) else str(label) for label in labels)


def _gallery(
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
    of_images = unit(_embedded(model, gallery, probes, embeddings, batch_size).double(), "embeddings of the gallery")
    person = torch.from_numpy(codes)
    sums = torch.zeros(len(labels), of_images.shape[1], dtype=torch.float64, device="cpu").index_add_(
        0, person, of_images.cpu()
    )
    centroids = unit(sums, "centroids of the gallery").to(embeddings.device)
    _check_distinct(centroids, labels)
    _warn_of_probes_inside(embeddings, of_images, [labels[code] for code in codes.tolist()])
    first = [int(np.flatnonzero(codes == i)[0]) for i in range(len(labels))]
    counts = tuple(np.bincount(codes).tolist())
    return Gallery(labels, centroids, counts, gallery[first].detach() if gallery.ndim == 4 else None)


def _embedded(model: nn.Module, gallery: Tensor, probes: Tensor, embeddings: Tensor, batch_size: int) -> Tensor:
    """Return the embeddings (G, D) of a gallery, which may be embeddings already."""
    if gallery.ndim == 4:
        check_images(gallery, "gallery")
        if gallery.shape[1:] != probes.shape[1:]:
            raise CaptumLeamError(
                f"Expected probe and gallery to have images of one size, got {tuple(probes.shape[1:])} and {tuple(gallery.shape[1:])}."
            )
        return embed(model, gallery.to(probes), batch_size)
    if gallery.shape[1] != embeddings.shape[1]:
        raise CaptumLeamError(
            f"Expected embeddings of the gallery of {embeddings.shape[1]} dimensions, as the model returns, got {gallery.shape[1]}."
        )
    return gallery.detach().to(embeddings.device)


def _check_distinct(centroids: Tensor, names: tuple[Any, ...]) -> None:
    """Raise if two names have the same embedding: the one cannot win over the other."""
    distances = torch.cdist(centroids, centroids, compute_mode="donot_use_mm_for_euclid_dist")
    if pairs := (distances.triu(1) + torch.ones_like(distances).tril() <= SAME_PICTURE).nonzero().tolist():
        first, other = (names[i] for i in pairs[0])
        raise CaptumLeamError(
            f"Expected different faces under different names, got equal embeddings for {first!r} and {other!r}. Leave one of them out."
        )


def _warn_of_probes_inside(embeddings: Tensor, of_images: Tensor, names: list[Any]) -> None:
    """Warn of probes that are in the gallery themselves: their first candidate is no recognition."""
    distances = torch.cdist(embeddings.double(), of_images, compute_mode="donot_use_mm_for_euclid_dist")
    if inside := (distances <= SAME_PICTURE).nonzero().tolist():
        found = ", ".join(f"probe {i} under {names[j]!r}" for i, j in inside[:3])
        warnings.warn(
            f"Expected probes that are not in the gallery, got the same picture for {found}. Leave it out of the gallery, because a "
            "picture matches itself whoever it shows.",
            stacklevel=4,
        )


# -- ranks ---------------------------------------------------------------------------------------------


def _cosines(embeddings: Tensor, gallery: Gallery) -> Tensor:
    return (embeddings.double() @ gallery.centroids.T).cpu()


def _standing(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank of every name, 1 for the highest score, and its margin, both (N, P).

    Example:
        >>> ranks, margins = _standing(torch.tensor([[0.5, 0.75, 0.25]]))
        >>> ranks.tolist(), margins.tolist()
        ([[2, 1, 3]], [[-0.25, 0.25, -0.5]])
    """
    ranks = 1 + (scores[:, None] > scores[:, :, None]).sum(2)
    top = scores.topk(2, 1).values
    is_best = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.argmax(1, keepdim=True), True)
    return ranks, scores - torch.where(is_best, top[:, 1:], top[:, :1])


@dataclass(frozen=True)
class Occlusion:
    """Probes that are occluded where maps and controls are highest, and ranked again."""

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
        """Return the table of :attr:`MatchExplanation.changes`."""
        followed: list[tuple[str, Tensor]] = [(FIRST, before.argmax(1))]
        if any(person in names for person in self.people):
            codes = [names.index(person) if person in names else -1 for person in self.people]
            followed.append((PERSON, torch.tensor(codes, dtype=torch.int64, device="cpu")))
        clean = _standing(before)
        tables = []
        for control in ("", *controls):
            after = [_standing(score(occluded)) for occluded in self._occluded(control, draws)]
            tables += [self._rows(of, names, column, clean, after).assign(control=control) for of, column in followed]
        table = pd.concat(tables, ignore_index=True).sort_values("of", key=lambda of: of != FIRST, kind="stable")
        head = ["probe", "person", "of", "name", "control", "draws"]
        return table[head + [name for name in table if name not in head]].reset_index(drop=True)

    def _occluded(self, control: str, draws: int) -> list[Tensor]:
        """Return the probes occluded by the map, or once for each draw of a control; a control without chance has one."""
        drawn = [self.maps] if not control else []
        for i in range(draws if control else 0):
            one = CONTROLS[control](self._scene(self.seed + i))
            if drawn and torch.equal(one, drawn[0]):
                break
            drawn.append(one)
        masks = [top_fraction(maps, self.fraction, seed=self.seed) for maps in drawn]
        return [occlude(self.images, mask, self.fill) for mask in masks]

    def _scene(self, seed: int) -> Scene:
        _, _, height, width = self.images.shape
        face = central_ellipse((height, width)).expand(len(self.images), height, width)
        people = self.people if all(self.people) else None
        return Scene(self.images, face, people, self.maps, seed)

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
        at = (rows, column[rows])
        rank = clean[0][at].numpy()
        later = np.stack([ranks[at].numpy() for ranks, _ in after])
        return pd.DataFrame(
            {
                "probe": rows.numpy(),
                "person": [self.people[i] for i in rows.tolist()],
                "of": of,
                "name": [names[i] for i in at[1].tolist()],
                "draws": len(after),
                "rank_before": rank,
                "rank_after": later.mean(0),
                "margin_before": clean[1][at].numpy(),
                "margin_after": torch.stack([margins[at] for _, margins in after]).mean(0).numpy(),
                "rank_1_lost": np.where(rank == 1, (later > 1).mean(0), np.nan),
            }
        )


def _summarised(
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
