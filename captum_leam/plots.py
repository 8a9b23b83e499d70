"""Matplotlib figures with a palette that is safe in colour blindness (Okabe & Ito 2008); returned, never shown."""

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
"""Colours of lines, which can be distinguished in every common form of colour blindness."""
POSITIVE = "inferno"
SIGNED = "PuOr_r"
"""Colour maps of positive and of signed maps."""


def overlay(image: Tensor, maps: Tensor, *, signed: bool = False, strength: float = 0.75) -> NDArray[np.uint8]:
    """Draw an attribution map over its image.

    The image is shown in grey, and the map in colour, more opaque where it is stronger.

    Args:
        image: Image (C, H, W) with values in [0, 1], C = 1 or 3.
        maps: Map (H, W), which is divided by its largest absolute value.
        signed: Whether to show negative values, too: orange for the match and purple against it. Default: False, the positive part only.
        strength: Opacity of the map where it is strongest, in [0, 1]. Default: 0.75.

    Returns:
        RGB picture, array of shape (H, W, 3), uint8.

    Raises:
        CaptumLeamError: If the sizes differ, or if the values of the image are far from [0, 1].

    See Also:
        * :func:`~captum_leam.plots.overlay_grid`: Several faces in one figure.
        * :func:`~captum_leam.plots.overlay_on_photo`: A map on its photograph.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> picture = overlay(torch.rand(3, 112, 112), torch.rand(112, 112))
        >>> picture.shape, picture.dtype
        ((112, 112, 3), dtype('uint8'))
    """
    from matplotlib import colormaps

    if tuple(image.shape[-2:]) != tuple(maps.shape[-2:]):
        raise CaptumLeamError(
            f"Expected a map of the size of the image, {tuple(image.shape[-2:])}, got {tuple(maps.shape[-2:])}. Call "
            "captum_leam.maps.place_on_field first."
        )
    low, high = (float(v) for v in image.detach().aminmax())
    # Noise and changes of light leave [0, 1] a little, but normalised pixels would be drawn as another picture.
    if low < -0.5 or high > 1.5:
        raise CaptumLeamError(
            f"Expected an image in RGB with values in [0, 1], got values from {low:.3g} to {high:.3g}. Move the normalisation into the "
            "model: captum_leam.models.Prepared(network, preprocessing)."
        )
    scaled = normalize_max(maps)[0].detach().cpu().double().numpy()
    grey = image.detach().cpu().double().clamp(0, 1).mean(0).numpy()[..., None].repeat(3, -1)
    values = scaled if signed else scaled.clip(min=0)
    colours = colormaps[SIGNED]((values + 1) / 2) if signed else colormaps[POSITIVE](0.15 + 0.8 * values)
    opacity = strength * np.abs(values)[..., None] ** 0.7
    blended = grey * (1 - opacity) + colours[..., :3] * opacity
    picture: NDArray[np.uint8] = (blended * 255).round().astype(np.uint8)
    return picture


def region_outlines(image: Tensor, labels: Tensor, *, side: int = 448) -> NDArray[np.uint8]:
    """Draw the outlines of face regions over a face.

    Use it to check that a parser has found the nose, eyes and other regions in the right places.

    Args:
        image: Image (C, H, W) with values in [0, 1], C = 1 or 3.
        labels: Region of each pixel, integers (H, W), as the parsers of :mod:`captum_leam.regions` return them for one image.
        side: Minimum width of the picture in pixels. Default: 448.

    Returns:
        RGB picture, array of shape (k H, k W, 3), uint8, where k is the smallest factor that makes it at least ``side`` wide.

    See Also:
        :class:`~captum_leam.regions.TemplateParser`: Region labels of aligned crops.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> labels = torch.zeros(112, 112, dtype=torch.int64)
        >>> labels[60:80, 46:66] = 1  # a nose
        >>> region_outlines(torch.rand(3, 112, 112), labels).shape
        (448, 448, 3)
    """
    find_boundaries = import_optional("skimage.segmentation").find_boundaries

    times = max(1, -(-side // image.shape[-1]))
    picture = image.detach().cpu().float().clamp(0, 1).expand(3, -1, -1).movedim(0, -1).numpy()
    large = picture.repeat(times, 0).repeat(times, 1)
    lines = find_boundaries(labels.cpu().numpy().repeat(times, 0).repeat(times, 1), mode="thick")
    large[lines] = np.array([0x00, 0x72, 0xB2]) / 255  # COLOURS[0]
    outlined: NDArray[np.uint8] = (large * 255).round().astype(np.uint8)
    return outlined


def overlay_on_photo(
    photo: Tensor, face: AlignedFace, maps: Tensor, *, signed: bool = False, side: int = 720
) -> NDArray[np.uint8]:
    """Draw the map of an aligned face on the photograph that the face was cropped from.

    The outline of the crop is drawn, too.

    Args:
        photo: Photograph (3, H, W) with values in [0, 1].
        face: Aligned face that the map belongs to, as :func:`captum_leam.faces.align` returns it.
        maps: Map (h, w) of the size of the crop.
        signed: Whether to show negative values, see :func:`overlay`. Default: False.
        side: Maximum side of the picture in pixels. Smaller photographs keep their size. Default: 720.

    Returns:
        RGB picture, array of shape (H', W', 3), uint8.

    Raises:
        CaptumLeamError: If the values of the photograph are far from [0, 1].

    See Also:
        :func:`~captum_leam.plots.overlay`: A map on its crop.

    Example:
        >>> import torch
        >>> from captum_leam.faces import ARCFACE_112, align
        >>> _ = torch.manual_seed(0)
        >>> photo = torch.rand(3, 200, 300)
        >>> face = align(photo, ARCFACE_112 + 40)  # five landmarks of the face in the photograph
        >>> overlay_on_photo(photo, face, torch.rand(112, 112)).shape
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
    """Draw several faces with their maps below them, and a colour bar.

    Args:
        images: Images (N, C, H, W) with values in [0, 1], C = 1 or 3.
        maps: Maps (N, H, W) or (N, 1, H, W), one per image.
        titles: Titles of the images, N strings. Default: None, no titles.
        columns: Maximum number of faces in a row. Default: 6.
        signed: Whether to show negative values, see :func:`overlay`. Default: False.

    Returns:
        Matplotlib figure with a row of faces, a row of their maps, and so on. Save it with ``figure.savefig``.

    Raises:
        CaptumLeamError: If there is not one map and one title per image.

    See Also:
        :func:`~captum_leam.plots.overlay`: A single picture.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> figure = overlay_grid(torch.rand(2, 3, 112, 112), torch.rand(2, 112, 112), titles=["ann", "bob"])
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['ann', 'bob']
    """
    maps = as_maps(maps)
    if len(images) != len(maps) or (titles is not None and len(titles) != len(images)):
        and_titles = "" if titles is None else f" and {len(titles)} titles"
        raise CaptumLeamError(
            f"Expected one map and one title for each of the {len(images)} images, got {len(maps)} maps{and_titles}."
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
    labels: tuple[str, str] = ("no\nevidence", "for the\nmatch"),
) -> None:
    r"""Add the colour bar of :func:`overlay` to a figure.

    Args:
        figure: Figure or subfigure of the axes.
        axes: Array of axes that the bar stands beside.
        signed: Whether the maps show negative values, too. Default: False.
        labels: Texts at the lower and the upper end of the bar of maps without negative values. Default: those of evidence for the match.

    Example:
        >>> figure = Figure()
        >>> add_colour_bar(figure, figure.subplots(1, 2), signed=True)
        >>> [label.get_text().replace("\n", " ") for label in figure.axes[2].get_yticklabels()]
        ['against the match', 'neither', 'for the match']
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
    """Draw two faces with lines between the places that make them similar.

    A line is wider the more its two places add to the similarity of the faces.

    Args:
        image: Image (C, H, W) with values in [0, 1], C = 1 or 3.
        partner: Image of the other face, (C, H, W), which is drawn to the right and lower.
        lines: Ends of K lines, shape (K, 4), in pixels: x and y in the image, x and y in the partner. Pass one row of
            :meth:`Correspondences.lines <captum_leam.explainers.Correspondences.lines>`.
        strengths: Contributions of the lines, K numbers, of which negative ones are drawn as 0. Pass one row of
            :meth:`Correspondences.strengths <captum_leam.explainers.Correspondences.strengths>`. Default: None, equal widths.

    Returns:
        Matplotlib figure with one axis.

    Raises:
        CaptumLeamError: If the images differ in size, or if lines or strengths have another shape.

    See Also:
        :class:`~captum_leam.explainers.PositionDecomposition`: Contributions of pairs of positions.

    Example:
        >>> import torch
        >>> from captum_leam.explainers import PositionDecomposition
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 8, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 8))
        >>> ann, bob = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
        >>> pairs = PositionDecomposition(net.eval(), net[1]).correspondences(ann, bob)
        >>> figure = correspondence_lines(ann[0], bob[0], pairs.lines((32, 32), count=5)[0], pairs.strengths(count=5)[0])
        >>> len(figure.axes[0].lines)
        5
    """
    if image.shape[-2:] != partner.shape[-2:]:
        raise CaptumLeamError(
            f"Expected two images of one size, got {tuple(image.shape[-2:])} and {tuple(partner.shape[-2:])}."
        )
    widths = [1.0] * len(lines) if strengths is None else [float(s) for s in strengths]
    if lines.ndim != 2 or lines.shape[1] != 4 or len(widths) != len(lines):
        raise CaptumLeamError(
            f"Expected lines of shape (K, 4) and K strengths of one pair of images, got {tuple(lines.shape)} and {len(widths)} strengths."
        )
    height, width = image.shape[-2:]
    # The partner is drawn lower so that lines between equal places do not cover each other.
    right, down = width + width // 8, height // 3
    left, other = (side.detach().cpu().double().clamp(0, 1).mean(0).numpy() for side in (image, partner))
    picture = np.ones((height + down, right + width))
    picture[:height, :width], picture[down:, right:] = left, other
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    strongest = max([*widths, 0.0]) or 1.0
    for (x, y, u, v), strength in zip(lines.tolist(), widths, strict=True):
        share = max(strength, 0.0) / strongest
        ends = (
            [x - 0.5, u + right - 0.5],
            [y - 0.5, v + down - 0.5],
        )  # imshow draws centres of pixels at whole numbers
        axis.plot(*ends, "-o", color=COLOURS[4], linewidth=0.5 + 2.5 * share, markersize=3, alpha=0.35 + 0.6 * share)
    axis.set_axis_off()
    axis.set_title("what adds most to the similarity of the two faces: thicker is more", fontsize=9)
    return figure


def region_bars(report: pd.DataFrame) -> Figure:
    """Draw how strongly the maps concentrate on each region of the face.

    The lift of a region is its share of the critical pixels divided by its share of the area. Bars show the mean over the images, dots show
    single images, and a line at 1 shows chance.

    Args:
        report: Table of :func:`captum_leam.regions.region_report`, with one row per image and region. These columns are read:

            * region: Name of the region.
            * lift: Lift of the critical pixels.

    Returns:
        Matplotlib figure with one axis.

    See Also:
        :func:`~captum_leam.regions.lift_drawing`: Lift on a schematic face.

    Example:
        >>> report = pd.DataFrame({"image": [0, 0, 1, 1], "region": ["nose", "skin"] * 2, "lift": [5.0, 0.5, 3.0, 0.7]})
        >>> axes = region_bars(report).axes[0]
        >>> [label.get_text() for label in axes.get_yticklabels()], [round(float(bar.get_width()), 1) for bar in axes.patches]
        (['skin', 'nose'], [0.6, 4.0])
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
    """Draw how far the similarity falls when the critical pixels are occluded.

    The mean fall of the cosine is drawn over the share of pixels occluded, with 95 % bands over people. A faithful method lies above the
    control maps, which are drawn in grey. There is one panel per measured model.

    Args:
        result: Result of :meth:`OcclusionEvaluator.evaluate <captum_leam.faithfulness.OcclusionEvaluator.evaluate>`.
        fill: Name of what replaces the pixels, as in ``result.summary()["fill"]``. Default: None, the first one.
        order: Order in which pixels are occluded, as in ``result.summary()["order"]``. Default: None, the first one.

    Returns:
        Matplotlib figure with one axis per pair of explained and measured model.

    See Also:
        :class:`~captum_leam.faithfulness.OcclusionEvaluator`: Measurement of the drops.

    Example:
        >>> import torch
        >>> from captum_leam.faithfulness import OcclusionEvaluator
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> evaluator = OcclusionEvaluator(model, fractions=(0.1, 0.2), controls=("random pixels",))
        >>> people, maps = ["ann", "ann", "bob", "bob"], {"my method": torch.rand(4, 8, 8)}
        >>> figure = occlusion_curves(evaluator.evaluate(torch.rand(4, 3, 8, 8), maps, labels=people))
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['my method', 'random pixels']
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
    """Draw methods in colour and shared controls in grey; controls of single methods are in the tables only."""
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
    """Draw how verification decisions change as the critical pixels are replaced.

    Three panels show the share of genuine pairs accepted, the share of impostor pairs rejected, and their mean, the balanced accuracy. The
    legends give the area under each curve.

    Args:
        result: Result of :meth:`VerificationEvaluator.evaluate <captum_leam.verification.VerificationEvaluator.evaluate>`.
        kind: Kind of the maps. Default: ``"similar"``.

            * ``"similar"``: Evidence for the match.
            * ``"dissimilar"``: Evidence against the match.
        protocol: Order of the changes. Default: ``"deletion"``.

            * ``"deletion"``: The highest pixels are replaced first.
            * ``"insertion"``: The highest pixels are restored first.
        model: Name of the model that decides. Default: None, the first one.
        operating_point: Name of the threshold. Default: None, the first one.

    Returns:
        Matplotlib figure with three axes.

    Raises:
        CaptumLeamError: If the result has no such curves.

    See Also:
        :class:`~captum_leam.verification.VerificationEvaluator`: Measurement of the decisions.

    Example:
        >>> import torch
        >>> from captum_leam.verification import VerificationEvaluator, draw_pairs
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> evaluator, pairs = VerificationEvaluator(model, fractions=(0, 0.5, 1)), draw_pairs(["ann", "ann", "bob", "bob"])
        >>> result = evaluator.evaluate(torch.rand(4, 3, 8, 8), pairs, {"my method": torch.rand(4, 8, 8)})
        >>> [axes.get_title() for axes in verification_curves(result).axes]
        ['genuine pairs accepted', 'impostor pairs rejected', 'balanced accuracy']
    """
    table = result.curves()
    model, operating_point = model or table["model"].iloc[0], operating_point or table["operating_point"].iloc[0]
    query = {"kind": kind, "protocol": protocol, "model": model, "operating_point": operating_point}
    for column, value in query.items():
        known = table[column].unique().tolist()
        if value not in known:
            raise CaptumLeamError(f"Expected {column} to be one of {known}, as in result.curves(), got {value!r}.")
        table = table[table[column] == value]
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
    """Draw how verification errors fall as pasted patches are removed by each map.

    Patches of another face, pasted into an image, cause wrong decisions. Pixels are restored in the order of a map. If the map finds the
    patches, the false match rate (FMR) and the false non-match rate (FNMR) fall quickly. Both are drawn over the share of pixels restored.

    Args:
        result: Result of :func:`captum_leam.faithfulness.evaluate_patch_pairs`.

    Returns:
        Matplotlib figure with two axes, FMR and FNMR in percent of the pairs.

    See Also:
        :func:`~captum_leam.faithfulness.paste_patches`: Pairs with pasted patches.

    Example:
        >>> import torch
        >>> from captum_leam.faithfulness import evaluate_patch_pairs, paste_patches
        >>> from captum_leam.verification import draw_pairs
        >>> _ = torch.manual_seed(0)
        >>> model, people = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 8)).eval(), ["ann", "ann", "bob", "bob"]
        >>> pairs = paste_patches(torch.rand(4, 3, 32, 32), draw_pairs(people), people, patches=1)
        >>> result = evaluate_patch_pairs(model, pairs, {"my method": torch.rand(4, 32, 32)}, threshold=0.5)
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
    """Remove the frame above and to the right of a plot, and make its tick labels smaller.

    Args:
        axis: Axis to change.

    Example:
        >>> axis = Figure().subplots()
        >>> tidy(axis)
        >>> axis.spines["top"].get_visible()
        False
    """
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
