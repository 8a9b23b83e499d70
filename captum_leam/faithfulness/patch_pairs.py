"""Patch pairs: faces with known patches of another face, so that the evidence for a decision is known.

In each pair (a, b), 27 patches of 16 × 16 pixels of the image a are replaced, at seeded cells of a grid. In an impostor pair the patches
come from b and make a resemble b; in a genuine pair they come from a third person and make a differ from b. The original pixels of a are
then restored in the order of a map, the highest first if the model decides *match* and the lowest first if it decides *no match*. A
faithful map corrects the decision early, so that the FMR of impostor pairs and the FNMR of genuine pairs fall (DPR curves). The map is also
compared with the known patches directly.

Source: Patch-LFW of Huber et al., "Efficient Explainable Face Verification based on Similarity Score Argument Backpropagation", WACV
Workshops 2024, arXiv 2304.13409, written from the paper. Cells of a grid, which do not overlap, are a choice of this package.
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
    """Pairs of images with known patches in the first image, as returned by :func:`paste_patches`.

    P is the number of pairs.

    Attributes:
        images: First images with patches, shape (P, C, H, W).
        originals: First images without patches, shape (P, C, H, W).
        others: Second images, shape (P, C, H, W).
        patches: Pixels of the patches, boolean, shape (P, H, W).
        genuine: Whether each pair is genuine, boolean, shape (P,).

    Example:
        >>> from captum_leam.stats.decisions import draw_pairs
        >>> people = ["ann", "ann", "bob", "bob"]
        >>> _ = torch.manual_seed(0)
        >>> patched = paste_patches(torch.rand(4, 3, 32, 32), draw_pairs(people), people, patches=1)
        >>> len(patched), patched.genuine.tolist()
        (4, [True, True, False, False])
        >>> patched.patches.sum((1, 2)).tolist()  # one patch of 16 × 16 pixels in each pair
        [256, 256, 256, 256]
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
    """Paste patches of another face into the first image of each pair, so that the evidence is known.

    In impostor pairs the patches come from the second image and make the pair more similar. In genuine pairs they come from a third person
    and make the pair less similar. They lie in random cells of a grid.

    Args:
        images: Aligned images, shape (N, C, H, W).
        pairs: Pairs of these images, see :func:`~captum_leam.verification.draw_pairs`.
        labels: Person of each of the N images.
        patches: Number of cells of the grid to replace, 1 or more. Default: 27.
        size: Side of a cell in pixels; the grid starts at the top left. Default: 16.
        seed: Seed of the cells and of the image of the third person. Default: 0.

    Returns:
        :class:`PatchPairs` with the images before and after, and the masks of the patches.

    Raises:
        CaptumLeamError: If the grid has fewer cells, a genuine pair has no third person, or labels and pairs disagree.

    See Also:
        * :func:`~captum_leam.faithfulness.evaluate_patch_pairs`: Measurement of maps on these pairs.
        * :func:`~captum_leam.verification.draw_pairs`: Genuine and impostor pairs.

    Example:
        >>> from captum_leam.stats.decisions import draw_pairs
        >>> people = ["ann", "ann", "bob", "bob"]
        >>> _ = torch.manual_seed(0)
        >>> patched = paste_patches(torch.rand(4, 3, 112, 112), draw_pairs(people), people)
        >>> patched.patches.sum((1, 2)).tolist()  # 27 patches of 16 × 16 pixels
        [6912, 6912, 6912, 6912]
    """
    people = person_codes(labels, len(images))[1]
    rows, columns = images.shape[2] // size, images.shape[3] // size
    if not 0 < patches <= rows * columns:
        raise CaptumLeamError(
            f"Expected `patches` from 1 to the {rows * columns} cells of a grid of {size} px, got {patches}."
        )
    generator = np.random.default_rng(seed)
    donors, masks = [], torch.zeros(len(pairs), *images.shape[2:], device="cpu", dtype=torch.bool)
    for i, (a, b, genuine) in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.genuine, strict=True)):
        strangers = np.flatnonzero(people != people[a])
        if bool(genuine) and not len(strangers):
            raise CaptumLeamError(
                "Expected images of a third person for the patches of genuine pairs, got one person only."
            )
        donors.append(int(generator.choice(strangers)) if bool(genuine) else b)
        for cell in generator.permutation(rows * columns)[:patches]:
            top, left = size * (cell // columns), size * (cell % columns)
            masks[i, top : top + size, left : left + size] = True
    masks = masks.to(images.device)
    is_same = torch.from_numpy(people[pairs.first.cpu()] == people[pairs.second.cpu()])
    if not torch.equal(is_same, pairs.genuine.cpu()):
        raise CaptumLeamError(
            "Expected `labels` to agree with `pairs` on which pairs are genuine, got a contradiction. Pass the labels that the pairs were "
            "drawn from."
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
    """Measure whether maps find the known patches of pairs.

    Two measurements are made. First, the pixels of the patched image are restored in the order of the map, the highest first if the model
    accepts the pair and the lowest first if it rejects it. The sooner the error rates fall, the better the map. Second, the highest pixels
    of the map are compared with the patches.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), such as a module.
        pairs: Pairs with patches, as returned by :func:`paste_patches`.
        maps: *Signed* maps of the patched images towards the others, high where similar and low where dissimilar, shape (P, H, W) or
            (P, 1, H, W), or a dictionary of such maps by method. Random pixels are always added.
        threshold: Threshold of the cosine. Default: that of the equal error rate of the pairs without patches.
        ratios: Shares of the pixels to restore, in [0, 1]. Default: 0, 0.05, …, 0.95.
        seed: Seed of ties and of the random pixels. Default: 0.
        batch_size: Number of images in one pass. Default: 64.

    Returns:
        :class:`PatchResult` with the error rates and the agreement with the patches, for each method and for random pixels.

    Raises:
        CaptumLeamError: If maps have another size or NaN, or a ratio is outside [0, 1].

    See Also:
        :func:`~captum_leam.faithfulness.paste_patches`: Pairs with known patches.

    Example:
        >>> from captum_leam.stats.decisions import draw_pairs
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 8)).eval()
        >>> faces, people = torch.rand(4, 3, 16, 16), ["ann", "ann", "bob", "bob"]
        >>> pairs = paste_patches(faces, draw_pairs(people), people, patches=5, size=4)
        >>> result = evaluate_patch_pairs(model, pairs, torch.rand(4, 16, 16), ratios=(0, 0.5))
        >>> result.curves()[["method", "ratio"]]
                  method  ratio
        0            map    0.0
        1            map    0.5
        2  random pixels    0.0
        3  random pixels    0.5
    """
    if not len(ratios) or not all(0 <= r <= 1 for r in ratios):
        raise CaptumLeamError(f"Expected `ratios` to be shares of the pixels in [0, 1], got {tuple(ratios)}.")
    others = unit(embed(model, pairs.others, batch_size).double())

    def scores(images: Tensor) -> Tensor:
        return (unit(embed(model, images, batch_size).double()) * others).sum(1)

    genuine = pairs.genuine.cpu().numpy()
    if threshold is None:
        threshold = threshold_at_eer(scores(pairs.originals).cpu().numpy(), genuine)
    is_match = scores(pairs.images) >= threshold
    noise = uniform(pairs.patches.shape, torch.Generator().manual_seed(seed))
    curves, localisation = [], []
    for method, method_maps in {**_by_method(maps), RANDOM: noise}.items():
        of_method = _check_maps(method, method_maps, pairs)
        # evidence for the decision is similarity for a match, and dissimilarity for no match
        ranks = rank_pixels(torch.where(is_match.to(of_method.device)[:, None, None], of_method, -of_method), seed=seed)
        for ratio in ratios:
            is_restored = ranks < round(ratio * ranks[0].numel())
            after = scores(torch.where(is_restored[:, None], pairs.originals, pairs.images)).cpu().numpy()
            fmr, fnmr = error_rates(after, genuine, [threshold])
            curves.append({"method": method, "ratio": ratio, "fmr": fmr[0], "fnmr": fnmr[0]})
        localisation.append(_localisation(method, of_method, pairs))
    settings = {"threshold": threshold, "pairs": len(pairs), "ratios": tuple(ratios), "seed": seed}
    return PatchResult(pd.DataFrame(curves), pd.concat(localisation, ignore_index=True), settings)


def _by_method(maps: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    methods = {str(name): m for name, m in maps.items()} if isinstance(maps, Mapping) else {"map": maps}
    if not methods or RANDOM in methods:
        raise CaptumLeamError(f"Expected `maps` of one method or more, none named {RANDOM!r}, got {list(methods)}.")
    return methods


def _check_maps(method: str, method_maps: Tensor, pairs: PatchPairs) -> Tensor:
    maps = as_maps(method_maps).to(pairs.images.device)
    if maps.shape != pairs.patches.shape:
        raise CaptumLeamError(
            f"Expected maps {method!r} to have one map per pair at image size, {tuple(pairs.patches.shape)}, got {tuple(maps.shape)}."
        )
    return maps


def _localisation(method: str, maps: Tensor, pairs: PatchPairs) -> pd.DataFrame:
    """Return the agreement with the patches, which have similar evidence in impostor pairs and dissimilar in genuine ones."""
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
    """Curves of restored patches and overlap of the maps with the patches, as returned by :func:`evaluate_patch_pairs`.

    Attributes:
        rates: Table with one row per method and ratio, and the columns

            * ``method``: Method of the map, or ``"random pixels"``.
            * ``ratio``: Share of the pixels of the image that is restored, in [0, 1].
            * ``fmr``: False match rate of the impostor pairs, in [0, 1].
            * ``fnmr``: False non-match rate of the genuine pairs, in [0, 1].
        localisation: Table with one row per method and pair, and the columns

            * ``pair``: Index of the pair.
            * ``method``: Method of the map.
            * ``genuine``: Whether the pair is genuine.
            * ``pointing``: 1 if the highest pixel lies in a patch, else 0.
            * ``iou``: Intersection over union of the highest pixels and the patches, in [0, 1].
            * ``roc_auc``: Area under the ROC curve of the map as a classifier of the pixels in patches; 0.5 is chance.
        settings: Settings by name: threshold, pairs, ratios and seed.

    Example:
        >>> from captum_leam.stats.decisions import draw_pairs
        >>> people = ["ann", "ann", "bob", "bob"]
        >>> _ = torch.manual_seed(0)
        >>> patched = paste_patches(torch.rand(4, 3, 32, 32), draw_pairs(people), people, patches=1)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 8)).eval()
        >>> result = evaluate_patch_pairs(model, patched, {"noise": torch.rand(4, 32, 32)}, threshold=0.5)
        >>> result.summary().columns.tolist()
        ['fmr', 'fnmr', 'pointing', 'iou', 'roc_auc']
    """

    rates: pd.DataFrame
    localisation: pd.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """Return how well the map of each pair agrees with its patches.

        Returns:
            Table with one row per method and pair, and the columns of :attr:`localisation`.

        Example:
            >>> table = pd.DataFrame({"method": ["noise"], "genuine": [True], "pointing": [0], "iou": [0.1], "roc_auc": [0.5]})
            >>> PatchResult(pd.DataFrame(), table).to_frame()
              method  genuine  pointing  iou  roc_auc
            0  noise     True         0  0.1      0.5
        """
        return self.localisation.copy()

    def curves(self) -> pd.DataFrame:
        """Return the error rates against the share of restored pixels.

        Returns:
            Table with one row per method and ratio, and the columns of :attr:`rates`.

        Example:
            >>> rates = pd.DataFrame({"method": "noise", "ratio": [0.0, 1.0], "fmr": [1.0, 0.0], "fnmr": [1.0, 0.0]})
            >>> PatchResult(rates, pd.DataFrame()).curves()
              method  ratio  fmr  fnmr
            0  noise    0.0  1.0   1.0
            1  noise    1.0  0.0   0.0
        """
        return self.rates.copy()

    def summary(self) -> pd.DataFrame:
        """Return the mean error rates and the mean agreement with the patches of each method.

        Returns:
            Table with one row per method, its name as the index, and the columns

            * ``fmr``, ``fnmr``: Error rates, means over the curve. Lower is better.
            * ``pointing``, ``iou``, ``roc_auc``: Agreement with the patches, means over pairs. Higher is better.

        Example:
            >>> rates = pd.DataFrame({"method": "noise", "ratio": [0.0, 1.0], "fmr": [1.0, 0.0], "fnmr": [1.0, 0.0]})
            >>> table = pd.DataFrame({"method": ["noise"], "genuine": [True], "pointing": [0], "iou": [0.1], "roc_auc": [0.5]})
            >>> PatchResult(rates, table).summary()
                    fmr  fnmr  pointing  iou  roc_auc
            method
            noise   0.5   0.5       0.0  0.1      0.5
        """
        curves = self.rates.groupby("method", sort=False)[["fmr", "fnmr"]].mean()
        return curves.join(self.localisation.groupby("method", sort=False)[["pointing", "iou", "roc_auc"]].mean())

    def plot(self) -> Figure:
        """Plot false match and false non-match rate against the share of restored pixels, a line per method.

        The faster both fall, the better a method finds the patches. See :func:`captum_leam.plots.patch_curves`.

        Returns:
            Figure with two axes. It is not shown: call ``figure.savefig(path)``, or let a notebook display it.

        Example:
            >>> rates = pd.DataFrame({"method": "noise", "ratio": [0.0, 1.0], "fmr": [1.0, 0.0], "fnmr": [1.0, 0.0]})
            >>> [axis.get_title() for axis in PatchResult(rates, pd.DataFrame()).plot().axes]
            ['false match rate', 'false non-match rate']
        """
        from captum_leam.plots import patch_curves

        figure: Figure = patch_curves(self)
        return figure

    def __repr__(self) -> str:
        return f"Patch pairs, {self.settings}\n{self.summary().round(3).to_string()}"
