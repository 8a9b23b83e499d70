"""Two faces: what speaks for their match, what speaks against it, and what the model decides."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import torch
from torch import Tensor, nn

from captum_leam._engine.checks import check_images
from captum_leam.errors import CaptumLeamError
from captum_leam.explain import PRESETS, Preset
from captum_leam.faces import AlignedFace
from captum_leam.leam import LEAM
from captum_leam.maps import place_on_field
from captum_leam.objectives import embed, reliability, unit
from captum_leam.suggest import LayerSuggestions, chosen_layers

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from captum_leam.regions import RegionScheme

NEARLY_THE_SAME = 0.1
"""Sine of the angle between two embeddings (a cosine of .995) under which they are as good as one."""

SIDES = ("a", "b")

OUTCOMES = {"TA": "true acceptance", "FA": "false acceptance", "TR": "true rejection", "FR": "false rejection"}


@dataclass(frozen=True)
class PairExplanation:
    """Maps of both faces of a pair, each explained towards the other, with the score and the decision."""

    images: Tensor = field(repr=False)
    """(2, C, H, W) in [0, 1]."""
    score: float
    """Cosine of the two embeddings."""
    similar: Tensor = field(repr=False)
    """(2, H, W): what speaks for the match, not negative; each sums to 1, or is 0 where nothing does."""
    dissimilar: Tensor = field(repr=False)
    """(2, H, W): what speaks against it, likewise."""
    layers: dict[str, Tensor] = field(repr=False)
    """Layer name → (2, H, W), signed, raw scale, placed on the image."""
    sine: float
    """Of the angle between the embeddings, in [0, 1]: 0 for the same embedding."""
    threshold: float | None = None
    """Of the decision: a score at or over it is accepted."""
    same_person: bool | None = None
    """What is true, where it is known."""
    faces: tuple[AlignedFace | None, AlignedFace | None] = field(default=(None, None), repr=False)
    """Where the crops lie in their photographs, if they are from any."""

    @property
    def accepted(self) -> bool | None:
        """Whether the score reaches the threshold; None without one."""
        return None if self.threshold is None else self.score >= self.threshold

    @property
    def margin(self) -> float | None:
        """Score less threshold; None without one."""
        return None if self.threshold is None else self.score - self.threshold

    @property
    def outcome(self) -> str | None:
        """``"TA"``, ``"FA"``, ``"TR"`` or ``"FR"``: true or false acceptance or rejection; None if it cannot be known."""
        if self.accepted is None or self.same_person is None:
            return None
        return ("T" if self.accepted == self.same_person else "F") + ("A" if self.accepted else "R")

    @property
    def reliable(self) -> bool:
        """Whether the maps are about the *match*: False where both embeddings are nearly one, and they show its strength only."""
        return self.sine > NEARLY_THE_SAME

    @property
    def truth(self) -> str | None:
        """``"the same person"`` or ``"different people"``, where it is known."""
        return {True: "the same person", False: "different people", None: None}[self.same_person]

    def facts(self) -> dict[str, str]:
        """Score, decision, truth and reliability by name, as far as they are known, in words."""
        known = {"cosine": f"{self.score:.3f}"}
        if self.accepted is not None and self.margin is not None:
            known |= {"threshold": f"{self.threshold:g}", "decision": "accepted" if self.accepted else "rejected"}
            known |= {"margin": f"{self.margin:+.3f}"}
        if self.truth is not None:
            known["in truth"] = self.truth
        if self.outcome is not None:
            known["outcome"] = f"{self.outcome}, {OUTCOMES[self.outcome]}"
        flag = "yes" if self.reliable else "NO: the embeddings are nearly one, and the maps show its strength only"
        return {
            **known,
            "maps about the match": f"{flag} (sine of the angle {self.sine:.3f}; needed is over {NEARLY_THE_SAME:g})",
        }

    def sentence(self) -> str:
        """Score, decision and reliability in words."""
        said = f"Cosine {self.score:.3f}"
        if self.accepted is not None and self.margin is not None:
            said += f": {'accepted' if self.accepted else 'rejected'} at threshold {self.threshold:g} (margin {self.margin:+.3f})"
        if self.outcome is not None:
            said += f"; {self.truth}, so a {'true' if self.outcome[0] == 'T' else 'false'} decision ({self.outcome})"
        elif self.truth is not None:
            said += f"; {self.truth}"
        if not self.reliable:
            said += ". The two embeddings are nearly one: the maps show its strength, not what makes two images match"
        return said + "."

    def regions(self, labels: Tensor, scheme: "RegionScheme", *, fraction: float = 0.01, seed: int = 0) -> pd.DataFrame:
        """Region reports of both faces, for and against.

        Args:
            labels: (2, H, W) or (H, W).
            scheme: names of the labels.
            fraction: of the critical pixels.
            seed: of ties.

        Returns:
            As :func:`~captum_leam.regions.region_report`, with the columns ``face`` ("a" or "b") and ``speaks`` ("for" or "against")
            before. A side without any evidence is left out.
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
        pictures: Sequence["NDArray[np.uint8] | None"] | None = None,
    ) -> "Figure":
        """Both faces side by side with what speaks for and against; below them on the photographs, if these are given.

        Args:
            photographs: of a and b, (3, H, W) in [0, 1], None for one that is not shown.
            pictures: or the maps drawn on them already, by :func:`captum_leam.plots.overlay_on_photo`.
        """
        from matplotlib.figure import Figure

        from captum_leam.plots import overlay, overlay_on_photo

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
        for place, (i, picture) in enumerate(shown):
            axis = rows[1].add_subplot(1, len(shown), place + 1)
            axis.imshow(picture)
            axis.set_title(f"{SIDES[i]}, for the match, on the photograph", fontsize=9)
        for axis in figure.axes:
            axis.set_axis_off()
        figure.suptitle(self.sentence(), fontsize=9, wrap=True)
        return figure


def explain_pair(
    model: nn.Module,
    a: Tensor | AlignedFace,
    b: Tensor | AlignedFace,
    *,
    layers: LayerSuggestions | Sequence[str | nn.Module] | None = None,
    threshold: float | None = None,
    same_person: bool | None = None,
    preset: Preset = "default",
) -> PairExplanation:
    r"""Explain the similarity of two faces: every face towards the other's embedding.

    Maps are averages over layers of the positive (similar) and the negative part (dissimilar) of the signed LEAM maps, each layer
    divided by its sum. The two parts say where, not how much: the signed maps in ``layers`` keep their scale.

    Args:
        model: returns embeddings (N, D), in evaluation mode.
        a: (C, H, W) or (1, C, H, W) as the model takes it, or an aligned face.
        b: another, of the same size.
        layers: names or modules of the model, or suggestions; by default those of the overall map.
        threshold: of the decision.
        same_person: whether they are, where it is known.
        preset: ``"fast"``: one pass; ``"default"`` and ``"best"``: a path of 4 and of 16 steps. Without the rounds of occlusion of
            :func:`~captum_leam.explain_faces`, whose maps have no side that speaks against the match.

    Raises:
        CaptumLeamError: for images of different sizes, an unknown preset or layer, and what ``LEAM.attribute`` refuses.

    Example:
        >>> from torchvision.models import resnet18
        >>> a, b = torch.rand(2, 3, 112, 112)
        >>> pair = explain_pair(resnet18(num_classes=32).eval(), a, b, threshold=2.0, same_person=True, preset="fast")
        >>> pair.accepted, pair.outcome, pair.similar.shape
        (False, 'FR', torch.Size([2, 112, 112]))
    """
    if preset not in PRESETS:
        raise CaptumLeamError(f"preset is {preset!r}; needed is one of {', '.join(map(repr, PRESETS))}.")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    images = _both(a, b).to(device)
    layers = layers.for_images(images) if isinstance(layers, LayerSuggestions) else chosen_layers(model, images, layers)
    embeddings = embed(model, images)
    directions = unit(embeddings, "embeddings")
    leam = LEAM(model, layers)
    leam.check_grids(images, layers.field)
    maps = cast(list[Tensor], leam.attribute(images, reference=directions.flip(0), n_steps=PRESETS[preset]))
    placed = [place_on_field(m, layers.image_size, layers.field) for m in maps]
    return PairExplanation(
        images=images,
        score=float(directions[0].double() @ directions[1].double()),
        similar=_mean_share(placed),
        dissimilar=_mean_share([-m for m in placed]),
        layers=dict(zip([layer.name for layer in layers], placed, strict=True)),
        sine=float(reliability(embeddings[:1], embeddings[1:])),
        threshold=threshold,
        same_person=same_person,
        faces=(a if isinstance(a, AlignedFace) else None, b if isinstance(b, AlignedFace) else None),
    )


def _both(a: Tensor | AlignedFace, b: Tensor | AlignedFace) -> Tensor:
    first, second = (
        _batch_of_one(x.crop if isinstance(x, AlignedFace) else x, name) for x, name in ((a, "a"), (b, "b"))
    )
    if first.shape != second.shape:
        raise CaptumLeamError(
            f"Expected a and b to be two images of one size, got {tuple(first.shape[1:])} and {tuple(second.shape[1:])}."
        )
    return torch.cat([first, second.to(first)])


def _batch_of_one(image: Any, name: str) -> Tensor:
    batch = image[None] if isinstance(image, Tensor) and image.ndim == 3 else image
    check_images(batch, name)
    if len(batch) > 1:
        raise CaptumLeamError(f"Expected {name} to be one image (C, H, W) or (1, C, H, W), got {tuple(batch.shape)}.")
    return batch


def _mean_share(maps: list[Tensor]) -> Tensor:
    """Positive parts divided by their sums, averaged over the layers that have any: (N, H, W)."""
    parts = torch.stack([m.clamp(min=0) for m in maps])
    sums = parts.sum((-2, -1), keepdim=True)
    some = (sums > 0).to(parts).sum(0).clamp_min(1)
    return (parts / torch.where(sums > 0, sums, 1)).sum(0) / some
