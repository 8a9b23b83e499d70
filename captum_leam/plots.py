"""Figures: matplotlib, returned and never shown; colour-blind safe (Okabe & Ito 2008), readable in print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from captum_leam._optional import import_optional, pd
from captum_leam.errors import CaptumLeamError
from captum_leam.faces import AlignedFace
from captum_leam.maps import as_maps, normalize_max
from captum_leam.stats.decisions import area_under

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "COLOURS",
    "correspondence_lines",
    "occlusion_curves",
    "overlay",
    "overlay_grid",
    "overlay_on_photo",
    "patch_curves",
    "region_bars",
    "region_outlines",
    "verification_curves",
]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
"""Colours of lines, told apart in every common form of colour blindness."""
POSITIVE = "inferno"
SIGNED = "PuOr_r"


def overlay(image: Tensor, maps: Tensor, *, signed: bool = False, strength: float = 0.75) -> NDArray[np.uint8]:
    """Draw a map over its grey image and return an RGB picture.

    Args:
        image: (C, H, W) in [0, 1], C of 1 or 3.
        maps: one map of the image's size, (H, W); divided by its largest absolute value.
        signed: show negative values too (purple against the match, orange for it); else the positive part.
        strength: how much of the picture is map where the map is strongest, in [0, 1].

    Returns:
        (H, W, 3), uint8.

    Raises:
        CaptumLeamError: if the sizes differ, or the image is far from [0, 1].

    Example:
        >>> import torch
        >>> overlay(torch.rand(3, 8, 8), torch.rand(8, 8)).shape
        (8, 8, 3)
    """
    from matplotlib import colormaps

    if tuple(image.shape[-2:]) != tuple(maps.shape[-2:]):
        raise CaptumLeamError(
            f"the map is {tuple(maps.shape[-2:])}, the image {tuple(image.shape[-2:])}; place the map first."
        )
    least, most = (float(v) for v in image.detach().aminmax())
    if (
        least < -0.5 or most > 1.5
    ):  # noise and light leave [0, 1] a little; normalised pixels would be drawn as another picture
        raise CaptumLeamError(
            f"the image has values from {least:.3g} to {most:.3g}; to be drawn it must be RGB in [0, 1]. Keep the normalisation "
            "inside the model: captum_leam.models.Prepared(network, preprocessing)."
        )
    scaled = normalize_max(maps)[0].detach().cpu().double().numpy()
    grey = image.detach().cpu().double().clamp(0, 1).mean(0).numpy()[..., None].repeat(3, -1)
    values = scaled if signed else scaled.clip(min=0)
    colours = colormaps[SIGNED]((values + 1) / 2) if signed else colormaps[POSITIVE](0.15 + 0.8 * values)
    cover = strength * np.abs(values)[..., None] ** 0.7
    blended = grey * (1 - cover) + colours[..., :3] * cover
    picture: NDArray[np.uint8] = (blended * 255).round().astype(np.uint8)
    return picture


def region_outlines(image: Tensor, labels: Tensor, *, side: int = 448) -> NDArray[np.uint8]:
    """Where the regions of a face end, as lines on it: to see whether a parser was right.

    Args:
        image: (C, H, W) in [0, 1], C of 1 or 3.
        labels: (H, W), integers.
        side: width of the picture in pixels, at least.

    Returns:
        (H', W', 3), uint8, a whole number of times the size of the image.

    Example:
        >>> import torch
        >>> region_outlines(torch.rand(3, 8, 8), torch.zeros(8, 8, dtype=torch.int64), side=20).shape
        (24, 24, 3)
    """
    find_boundaries = import_optional("skimage.segmentation").find_boundaries

    times = max(1, -(-side // image.shape[-1]))
    picture = image.detach().cpu().float().clamp(0, 1).expand(3, -1, -1).movedim(0, -1).numpy()
    large = picture.repeat(times, 0).repeat(times, 1)
    lines = find_boundaries(labels.cpu().numpy().repeat(times, 0).repeat(times, 1), mode="thick")
    large[lines] = np.array([0x00, 0x72, 0xB2]) / 255  # COLOURS[0]
    drawn: NDArray[np.uint8] = (large * 255).round().astype(np.uint8)
    return drawn


def overlay_on_photo(
    photo: Tensor, face: AlignedFace, maps: Tensor, *, signed: bool = False, side: int = 720
) -> NDArray[np.uint8]:
    """Draw the map of a crop on its photograph, with the outline of the crop, and return an RGB picture.

    Args:
        photo: (3, H, W) in [0, 1].
        face: that the map belongs to.
        maps: (h, w), of the size of the crop.
        signed: see :func:`overlay`.
        side: longest side of the picture in pixels; smaller photographs stay as they are.

    Returns:
        (H', W', 3), uint8.

    Example:
        >>> import torch
        >>> from captum_leam.faces import ARCFACE_112, align
        >>> photo = torch.rand(3, 200, 300)
        >>> overlay_on_photo(photo, align(photo, ARCFACE_112 + 40), torch.rand(112, 112)).shape
        (200, 300, 3)
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(overlay(photo, face.to_photo(maps.detach().cpu()), signed=signed))
    ratio = min(1.0, side / max(picture.size))
    small = picture.resize((round(picture.width * ratio), round(picture.height * ratio)), Image.Resampling.LANCZOS)
    corners = [((x + 0.5) * ratio - 0.5, (y + 0.5) * ratio - 0.5) for x, y in face.outline]
    ImageDraw.Draw(small).polygon(corners, outline=COLOURS[5], width=2)
    return np.asarray(small)


def overlay_grid(
    images: Tensor, maps: Tensor, titles: Sequence[str] | None = None, *, columns: int = 6, signed: bool = False
) -> Figure:
    """Faces above their maps, in rows, with a legend that says what the colours mean.

    Args:
        images: (N, C, H, W) in [0, 1].
        maps: (N, H, W) or (N, 1, H, W).
        titles: one per image.
        columns: faces in a row.
        signed: see :func:`overlay`.

    Example:
        >>> import torch
        >>> figure = overlay_grid(torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8), ["a", "b"])
        >>> len(figure.axes)
        5
    """
    maps = as_maps(maps)
    if len(images) != len(maps) or (titles is not None and len(titles) != len(images)):
        given = "" if titles is None else f" and {len(titles)} titles"
        raise CaptumLeamError(
            f"Expected one map and one title for each of the {len(images)} images, got {len(maps)} maps{given}."
        )
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.5 * columns + 0.6, 3.25 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, (image, of_image) in enumerate(zip(images, maps, strict=True)):
        row, column = divmod(i, columns)
        axes[2 * row, column].imshow(
            image.detach().cpu().float().clamp(0, 1).movedim(0, -1).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1
        )
        axes[2 * row + 1, column].imshow(overlay(image, of_image, signed=signed))
        if titles is not None:
            axes[2 * row, column].set_title(titles[i], fontsize=9)
    add_colour_bar(figure, axes, signed=signed)
    return figure


def add_colour_bar(
    figure: Any,
    axes: NDArray[Any],
    *,
    signed: bool = False,
    labels: tuple[str, str] = ("nothing", "speaks for\nthe match"),
) -> None:
    """Add the colour bar of :func:`overlay` to a figure.

    Args:
        figure: Figure or subfigure of the axes.
        axes: Array of axes that the bar stands beside.
        signed: Whether the maps show negative values, too. Default: False.
        labels: Texts at both ends of the bar of maps without negative values. Default: those of evidence for the match.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(-1 if signed else 0, 1), SIGNED if signed else POSITIVE)
    bar = figure.colorbar(colours, ax=axes.ravel().tolist(), shrink=0.6, aspect=30, pad=0.02)
    bar.set_ticks([-1, 0, 1] if signed else [0, 1])
    bar.set_ticklabels(["against\nthe match", "neither", "for the\nmatch"] if signed else labels)
    bar.ax.tick_params(labelsize=8)


def correspondence_lines(
    image: Tensor, partner: Tensor, lines: Tensor, strengths: Tensor | Sequence[float] | None = None
) -> Figure:
    """Two faces, the partner to the right and lower, and lines between places that correspond: thicker where they add more.

    Args:
        image: (C, H, W) in [0, 1], C of 1 or 3.
        partner: (C, H, W), of the same size.
        lines: (K, 4): x and y in the image, x and y in the partner, in pixels, as
            :meth:`captum_leam.explainers.Correspondences.lines` gives them for one pair.
        strengths: K numbers, what each pair of places adds (below 0 as 0), as ``Correspondences.strengths`` gives them; equal by default.

    Raises:
        CaptumLeamError: for images of different size, or another shape of the lines or strengths.

    Example:
        >>> import torch
        >>> figure = correspondence_lines(torch.rand(3, 8, 8), torch.rand(3, 8, 8), torch.tensor([[2.0, 2.0, 6.0, 4.0]]))
        >>> len(figure.axes[0].lines)
        1
    """
    if image.shape[-2:] != partner.shape[-2:]:
        raise CaptumLeamError(
            f"the images are {tuple(image.shape[-2:])} and {tuple(partner.shape[-2:])}; expected one size for both."
        )
    given = [1.0] * len(lines) if strengths is None else [float(s) for s in strengths]
    if lines.ndim != 2 or lines.shape[1] != 4 or len(given) != len(lines):
        raise CaptumLeamError(
            f"lines have shape {tuple(lines.shape)}, and there are {len(given)} strengths; expected (K, 4) and K, of one pair of images."
        )
    height, width = image.shape[-2:]
    right, down = (
        width + width // 8,
        height // 3,
    )  # the partner lower: lines between equal places do not cover each other
    left, other = (side.detach().cpu().double().clamp(0, 1).mean(0).numpy() for side in (image, partner))
    picture = np.ones((height + down, right + width))
    picture[:height, :width], picture[down:, right:] = left, other
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    strongest = max([*given, 0.0]) or 1.0
    for (x, y, u, v), strength in zip(lines.tolist(), given, strict=True):
        share = max(strength, 0.0) / strongest
        ends = ([x - 0.5, u + right - 0.5], [y - 0.5, v + down - 0.5])  # imshow has pixels' centres at whole numbers
        axis.plot(*ends, "-o", color=COLOURS[4], linewidth=0.5 + 2.5 * share, markersize=3, alpha=0.35 + 0.6 * share)
    axis.set_axis_off()
    axis.set_title("what adds most to the similarity of the two faces: thicker is more", fontsize=9)
    return figure


def region_bars(report: pd.DataFrame) -> Figure:
    """Lift of every region: the mean over images as a bar, every image as a dot, chance as a line at 1.

    Args:
        report: of :func:`captum_leam.regions.region_report`.

    Example:
        >>> report = pd.DataFrame({"image": [0, 0], "region": ["nose", "skin"], "lift": [5.0, 0.5], "share": [0.5, 0.5]})
        >>> region_bars(report).axes[0].get_xlabel()
        'lift of the critical pixels (share / area); 1 is chance'
    """
    means = report.groupby("region", sort=False)["lift"].mean().dropna().sort_values()
    figure = Figure(figsize=(6, 0.32 * len(means) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh(means.index.astype(str), means.to_numpy(), color=COLOURS[0], alpha=0.75)
    for i, region in enumerate(means.index):
        dots = report.loc[report["region"] == region, "lift"].dropna()
        axes.plot(dots, [i] * len(dots), "o", color=COLOURS[7], markersize=3, alpha=0.5)
    axes.axvline(1, color=COLOURS[1], linewidth=1)
    axes.set_xlabel("lift of the critical pixels (share / area); 1 is chance")
    tidy(axes)
    return figure


def occlusion_curves(result: Any, *, fill: str | None = None, order: str | None = None) -> Figure:
    """Mean drop against the fraction occluded, with 95 % bands over people; a panel per model the drop was measured on.

    Args:
        result: :class:`captum_leam.faithfulness.OcclusionResult`.
        fill: which fill; the first by default.
        order: which order; the first by default.

    Example:
        >>> import torch
        >>> from captum_leam.faithfulness import OcclusionEvaluator
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> evaluator = OcclusionEvaluator(model, fractions=(0.1, 0.2), controls=("random pixels",))
        >>> people = ["ann", "ann", "bob", "bob"]
        >>> result = evaluator.evaluate(torch.rand(4, 3, 8, 8), {"noise": torch.rand(4, 8, 8)}, labels=people)
        >>> occlusion_curves(result).axes[0].get_ylabel()
        'mean fall of the cosine'
    """
    table = result.summary()
    table = table[
        (table["fill"] == (fill or table["fill"].iloc[0])) & (table["order"] == (order or table["order"].iloc[0]))
    ]
    panels = list(dict.fromkeys(table[["explained", "model"]].itertuples(index=False, name=None)))
    figure = Figure(figsize=(4.2 * len(panels) + 2.2, 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (explained, model) in zip(axes, panels, strict=True):
        _curves(axis, table[(table["explained"] == explained) & (table["model"] == model)])
        axis.set_title(
            f"{explained} explained, {model} measured" if explained and explained != model else model, fontsize=10
        )
        axis.set_xlabel(f"pixels occluded ({table['fill'].iloc[0]}, {table['order'].iloc[0]}), %")
        tidy(axis)
    axes[0].set_ylabel("mean fall of the cosine")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _curves(axis: Axes, table: pd.DataFrame) -> None:
    """Methods in colour, shared controls in grey; a method's own controls are left to the tables."""
    methods = [m for m in dict.fromkeys(table["method"]) if m]
    shared = [c for c in dict.fromkeys(table.loc[table["method"] == "", "control"]) if c]
    styles = [(m, "", COLOURS[i % 7], "-") for i, m in enumerate(methods)]
    styles += [("", c, str(0.25 + 0.5 * i / max(1, len(shared))), ":") for i, c in enumerate(shared)]
    for method, control, colour, line in styles:
        part = table[(table["method"] == method) & (table["control"] == control)].sort_values("fraction")
        percent = 100 * part["fraction"]
        axis.plot(percent, part["drop"], line, marker="o", markersize=3, color=colour, label=method or control)
        axis.fill_between(percent, part["low"], part["high"], color=colour, alpha=0.12, linewidth=0)


RATE_NAMES = {
    "gar": "genuine pairs accepted",
    "irr": "impostor pairs rejected",
    "accuracy": "balanced accuracy",
}


def verification_curves(
    result: Any,
    *,
    kind: str = "similar",
    protocol: str = "deletion",
    model: str | None = None,
    operating_point: str | None = None,
) -> Figure:
    """Genuine accept rate, impostor reject rate and balanced accuracy, with the area under each; the 50 % floor is drawn.

    Args:
        result: :class:`captum_leam.verification.VerificationResult`.
        kind: ``"similar"`` or ``"dissimilar"`` maps.
        protocol: ``"deletion"`` or ``"insertion"``.
        model: which model decides; the first by default.
        operating_point: which threshold; the first by default.

    Raises:
        CaptumLeamError: if there are no such curves.

    Example:
        >>> import torch
        >>> from captum_leam.verification import VerificationEvaluator, draw_pairs
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> evaluator = VerificationEvaluator(model, fractions=(0, 0.5, 1))
        >>> pairs = draw_pairs(["ann", "ann", "bob", "bob"])
        >>> result = evaluator.evaluate(torch.rand(4, 3, 8, 8), pairs, {"noise": torch.rand(4, 8, 8)})
        >>> [axes.get_title() for axes in verification_curves(result).axes]
        ['genuine pairs accepted', 'impostor pairs rejected', 'balanced accuracy']
    """
    table = result.curves()
    model, operating_point = model or table["model"].iloc[0], operating_point or table["operating_point"].iloc[0]
    query = {"kind": kind, "protocol": protocol, "model": model, "operating_point": operating_point}
    for column, value in query.items():
        table = table[table[column] == value]
    if not len(table):
        raise CaptumLeamError(f"there are no curves of {query}.")
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    panels = figure.subplots(1, len(RATE_NAMES), sharey=True)
    for axis, (rate, name) in zip(panels, RATE_NAMES.items(), strict=True):
        for i, (method, curve) in enumerate(table.groupby("method", sort=False)):
            label = f"{method} ({area_under(curve['fraction'], curve[rate]):.2f})"
            axis.plot(
                100 * curve["fraction"], 100 * curve[rate], marker="o", markersize=3, color=COLOURS[i % 8], label=label
            )
        axis.set_title(name, fontsize=10)
        axis.set_xlabel(f"pixels {'replaced' if protocol == 'deletion' else 'put back'}, {kind} first, %")
        axis.legend(fontsize=8, frameon=False, title="area", title_fontsize=8)
        tidy(axis)
    panels[2].axhline(50, color="0.5", linewidth=1, linestyle=":")
    panels[2].annotate("one decision for all", (0.01, 50), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
    panels[0].set_ylabel("%")
    return figure


def patch_curves(result: Any) -> Figure:
    """FMR and FNMR as more and more of the pasted patches is given back, see :mod:`captum_leam.faithfulness.patch_pairs`.

    Args:
        result: :class:`captum_leam.faithfulness.PatchResult`.

    Example:
        >>> import torch
        >>> from captum_leam.faithfulness import evaluate_patch_pairs, paste_patches
        >>> from captum_leam.verification import draw_pairs
        >>> people = ["ann", "ann", "bob", "bob"]
        >>> pairs = paste_patches(torch.rand(4, 3, 32, 32), draw_pairs(people), people, patches=1)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 8)).eval()
        >>> result = evaluate_patch_pairs(model, pairs, {"noise": torch.rand(4, 32, 32)}, threshold=0.5)
        >>> [axes.get_title() for axes in patch_curves(result).axes]
        ['false match rate', 'false non-match rate']
    """
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    table = result.curves()
    for axis, (rate, name) in zip(
        panels, {"fmr": "false match rate", "fnmr": "false non-match rate"}.items(), strict=True
    ):
        for i, (method, curve) in enumerate(table.groupby("method", sort=False)):
            axis.plot(
                100 * curve["ratio"], 100 * curve[rate], marker="o", markersize=3, color=COLOURS[i % 8], label=method
            )
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("pixels given back, %")
        tidy(axis)
    panels[0].set_ylabel("% of the pairs")
    panels[1].legend(fontsize=8, frameon=False)
    return figure


def tidy(axis: Axes) -> None:
    """Without the frame above and to the right, small figures at the ticks."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
