"""Patch pairs: faces with known patches of someone else's face, where the truth about a decision is known.

Of every pair (a, b), 27 patches of 16 × 16 pixels of the image a are replaced, at seeded cells of a grid. Impostor pair: the patches
are b's own, so they are what makes a resemble b. Genuine pair: they are a third person's, so they are what makes a differ from b.
Then a map is asked for the pixels to give back to a: where the model says *match*, the highest first; where it says *no match*,
the lowest first. A true map corrects the decision early: FMR of the impostor pairs and FNMR of the genuine ones fall (DPR curves).
And since the patches are known, the map is scored against them directly.

Source: Patch-LFW of Huber et al., "Efficient Explainable Face Verification based on Similarity Score Argument Backpropagation", WACV
Workshops 2024, arXiv 2304.13409; written from the paper. Cells of a grid, which do not overlap, are this package's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from captum_leam._engine.arithmetic import uniform
from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError
from captum_leam.faithfulness.ground_truth import iou, pointing_game, roc_auc
from captum_leam.maps import as_maps, rank_pixels
from captum_leam.objectives import embed, unit
from captum_leam.stats.decisions import Pairs, error_rates, threshold_at_eer
from captum_leam.stats.labels import person_codes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Embed = Callable[[Tensor], Tensor]

PATCHES, SIZE = 27, 16
RATIOS = tuple(i / 20 for i in range(20))
RANDOM = "random pixels"


@dataclass(frozen=True)
class PatchPairs:
    """Pairs with known patches in the first image.

    Attributes:
        images: (P, C, H, W), the first images with patches.
        originals: (P, C, H, W), the same without.
        others: (P, C, H, W), what they are compared with.
        patches: boolean (P, H, W), where the patches are.
        genuine: boolean (P,).

    Example:
        >>> from captum_leam.stats.decisions import draw_pairs
        >>> people = ["ann", "ann", "bob", "bob"]
        >>> made = paste_patches(torch.rand(4, 3, 32, 32), draw_pairs(people), people, patches=1)
        >>> len(made), bool((made.images == made.originals)[~made.patches[:, None].expand(-1, 3, -1, -1)].all())
        (4, True)
    """

    images: Tensor
    originals: Tensor
    others: Tensor
    patches: Tensor
    genuine: Tensor

    def __len__(self) -> int:
        return len(self.genuine)


def paste_patches(
    images: Tensor,
    pairs: Pairs,
    labels: Sequence[Any] | Tensor,
    *,
    patches: int = PATCHES,
    size: int = SIZE,
    seed: int = 0,
) -> PatchPairs:
    """Paste patches into the first image of every pair: from the second (impostors), or from a third person (genuine pairs).

    Args:
        images: (N, C, H, W), aligned.
        pairs: of these images.
        labels: Person of each image.
        patches: how many cells of the grid are replaced.
        size: of a cell in pixels; cells start at the top left.
        seed: of the cells and of the third person's image.

    Raises:
        CaptumLeamError: if the grid has fewer cells, or a genuine pair has no other person to take patches from.

    Example:
        >>> from captum_leam.stats.decisions import draw_pairs
        >>> people = ["ann", "ann", "bob", "bob"]
        >>> made = paste_patches(torch.rand(4, 3, 112, 112), draw_pairs(people), people)
        >>> made.patches.sum((1, 2)).tolist()
        [6912, 6912, 6912, 6912]
    """
    people = person_codes(labels, len(images))[1]
    rows, columns = images.shape[2] // size, images.shape[3] // size
    if not 0 < patches <= rows * columns:
        raise CaptumLeamError(f"{patches} patches are asked for; a grid of {size} px has {rows * columns} cells here.")
    generator = np.random.default_rng(seed)
    donors, masks = [], torch.zeros(len(pairs), *images.shape[2:], device="cpu", dtype=torch.bool)
    for i, (a, b, genuine) in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.genuine, strict=True)):
        strangers = np.flatnonzero(people != people[a])
        if bool(genuine) and not len(strangers):
            raise CaptumLeamError("one person only: a genuine pair needs a third person to take patches from.")
        donors.append(int(generator.choice(strangers)) if bool(genuine) else b)
        for cell in generator.permutation(rows * columns)[:patches]:
            top, left = size * (cell // columns), size * (cell % columns)
            masks[i, top : top + size, left : left + size] = True
    masks = masks.to(images.device)
    told = torch.from_numpy(people[pairs.first.cpu()] == people[pairs.second.cpu()])
    if not torch.equal(told, pairs.genuine.cpu()):
        raise CaptumLeamError(
            "labels and pairs disagree on which pairs are genuine; give the labels that the pairs were drawn from."
        )
    originals = images[pairs.first]
    patched = torch.where(masks[:, None], images[donors], originals)
    return PatchPairs(patched, originals, images[pairs.second], masks, pairs.genuine)


def evaluate_patch_pairs(
    model: Embed,
    pairs: PatchPairs,
    maps: Tensor | Mapping[str, Tensor],
    *,
    threshold: float | None = None,
    ratios: Sequence[float] = RATIOS,
    seed: int = 0,
    batch_size: int = 64,
) -> PatchResult:
    """Give pixels back in the order of a map, and compare the map with the known patches.

    Args:
        model: images (N, C, H, W) → embeddings (N, D).
        pairs: of :func:`paste_patches`.
        maps: of the patched images towards the others, (P, H, W) or (P, 1, H, W), *signed*: high where similar, low where
            dissimilar. Or method → maps. Random pixels are always added.
        threshold: on the cosine; at the equal error rate of the pairs without patches by default.
        ratios: shares of the pixels given back, within [0, 1].
        seed: of ties and of the random pixels.
        batch_size: Number of images in one pass.

    Raises:
        CaptumLeamError: for maps of another size or NaN, or ratios outside [0, 1].

    Example:
        >>> from captum_leam.stats.decisions import draw_pairs
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 8)).eval()
        >>> faces, people = torch.rand(4, 3, 16, 16), ["ann", "ann", "bob", "bob"]
        >>> pairs = paste_patches(faces, draw_pairs(people), people, patches=5, size=4)
        >>> evaluate_patch_pairs(model, pairs, torch.rand(4, 16, 16), ratios=(0, 0.5)).curves()["method"].tolist()
        ['map', 'map', 'random pixels', 'random pixels']
    """
    if not len(ratios) or not all(0 <= r <= 1 for r in ratios):
        raise CaptumLeamError(f"ratios are {tuple(ratios)}; expected shares of the pixels within [0, 1].")
    others = unit(embed(model, pairs.others, batch_size).double())

    def scores(images: Tensor) -> Tensor:
        return (unit(embed(model, images, batch_size).double()) * others).sum(1)

    genuine = pairs.genuine.cpu().numpy()
    if threshold is None:
        threshold = threshold_at_eer(scores(pairs.originals).cpu().numpy(), genuine)
    said_match = scores(pairs.images) >= threshold
    noise = uniform(pairs.patches.shape, torch.Generator().manual_seed(seed))
    curves, localisation = [], []
    for method, given in {**_named(maps), RANDOM: noise}.items():
        of_method = _checked(method, given, pairs)
        # what speaks for the decision: similar where it is a match, dissimilar where it is none
        ranks = rank_pixels(
            torch.where(said_match.to(of_method.device)[:, None, None], of_method, -of_method), seed=seed
        )
        for ratio in ratios:
            back = ranks < round(ratio * ranks[0].numel())
            after = scores(torch.where(back[:, None], pairs.originals, pairs.images)).cpu().numpy()
            fmr, fnmr = error_rates(after, genuine, [threshold])
            curves.append({"method": method, "ratio": ratio, "fmr": fmr[0], "fnmr": fnmr[0]})
        localisation.append(_localised(method, of_method, pairs))
    settings = {"threshold": threshold, "pairs": len(pairs), "ratios": tuple(ratios), "seed": seed}
    return PatchResult(pd.DataFrame(curves), pd.concat(localisation, ignore_index=True), settings)


def _named(maps: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    methods = {str(name): m for name, m in maps.items()} if isinstance(maps, Mapping) else {"map": maps}
    if not methods or RANDOM in methods:
        raise CaptumLeamError(f"maps are {list(methods)}; expected one method or more, none named {RANDOM!r}.")
    return methods


def _checked(method: str, given: Tensor, pairs: PatchPairs) -> Tensor:
    maps = as_maps(given).to(pairs.images.device)
    if maps.shape != pairs.patches.shape:
        raise CaptumLeamError(
            f"maps {method!r} have shape {tuple(maps.shape)}; expected one per pair at image size, {tuple(pairs.patches.shape)}."
        )
    return maps


def _localised(method: str, maps: Tensor, pairs: PatchPairs) -> pd.DataFrame:
    """Against the patches: similar evidence should lie in them for impostor pairs, dissimilar evidence for genuine ones."""
    evidence = torch.where(pairs.genuine.to(maps.device)[:, None, None], -maps, maps)
    numbers = {
        "pointing": pointing_game(evidence, pairs.patches),
        "iou": iou(evidence, pairs.patches),
        "roc_auc": roc_auc(evidence, pairs.patches),
    }
    columns = {"pair": range(len(pairs)), "genuine": pairs.genuine.cpu().numpy(), "method": method}
    return pd.DataFrame({**columns, **{name: values.cpu().numpy() for name, values in numbers.items()}})


@dataclass(frozen=True, repr=False)
class PatchResult:
    """DPR curves, and agreement with the known patches.

    Attributes:
        rates: method, ratio (share of the pixels given back), fmr (of the impostor pairs), fnmr (of the genuine pairs).
        localisation: method, pair, genuine, pointing (0 or 1), iou, roc_auc.
        settings: Settings that it was made with.

    Example:
        >>> from captum_leam.stats.decisions import draw_pairs
        >>> people = ["ann", "ann", "bob", "bob"]
        >>> made = paste_patches(torch.rand(4, 3, 32, 32), draw_pairs(people), people, patches=1)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 8)).eval()
        >>> result = evaluate_patch_pairs(model, made, {"noise": torch.rand(4, 32, 32)}, threshold=0.5)
        >>> result.summary().columns.tolist()
        ['fmr', 'fnmr', 'pointing', 'iou', 'roc_auc']
    """

    rates: pd.DataFrame
    localisation: pd.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """Agreement of every pair, a copy."""
        return self.localisation.copy()

    def curves(self) -> pd.DataFrame:
        """FMR and FNMR against the share given back, a copy."""
        return self.rates.copy()

    def summary(self) -> pd.DataFrame:
        """Per method: mean FMR and FNMR over the curve (lower is better), and mean agreement with the patches (higher is better)."""
        curves = self.rates.groupby("method", sort=False)[["fmr", "fnmr"]].mean()
        return curves.join(self.localisation.groupby("method", sort=False)[["pointing", "iou", "roc_auc"]].mean())

    def plot(self) -> Figure:
        """Plot the DPR curves, see :func:`captum_leam.plots.patch_curves`."""
        from captum_leam.plots import patch_curves

        figure: Figure = patch_curves(self)
        return figure

    def __repr__(self) -> str:
        return f"Patch pairs, {self.settings}\n{self.summary().round(3).to_string()}"
