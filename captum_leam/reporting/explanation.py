"""Explain faces by maps, regions and an occlusion check, as data for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from captum_leam._engine.checks import check_choice, check_count
from captum_leam._notebook import framed
from captum_leam._optional import pd
from captum_leam._progress import begin_step, has_bar
from captum_leam.certainty import MapCertainty
from captum_leam.errors import CaptumLeamError, FileError, InputTypeError, NoEvidenceError
from captum_leam.explain import MapSettings, Preset, Reference, check_preset, explain_faces, layer_maps
from captum_leam.faithfulness import FILLS, OcclusionEvaluator, OcclusionResult
from captum_leam.match import MatchExplanation
from captum_leam.objectives import Norm, embed, leave_one_out_centroids, unit
from captum_leam.pairs import SIDES, PairExplanation, evidence_against
from captum_leam.regions import FaceRegions, RegionScheme, label_faces, region_report
from captum_leam.reporting.correspondences import Correspondences, find_correspondences
from captum_leam.reporting.curves import measure_curves, passes_per_face, ranked_maps
from captum_leam.suggest import LayerSuggestions

OWN_REFERENCE = "no reference: embedding-strength map"
LABELS = {
    "own": OWN_REFERENCE,
    "other face": "Reference: the other picture.",
    "other images": "Reference: the person's other images.",
    "first candidate": "Reference: the first candidate of the gallery, in contrast to the next.",
}
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2)


def is_number(value: Any) -> bool:
    """Return whether a value is a real number.

    Example:
        >>> is_number(0.5), is_number("0.5"), is_number(True)
        (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class ExplainOptions:
    """Options of the maps of faces and of their measurements.

    Attributes:
        preset: Preset of the overall map, see :func:`~captum_leam.explain_faces`. Default: ``"default"``.
        n_steps: Number of steps of the path of the signed layer maps. Default: 4.
        fraction: Share of the pixels that are critical, in (0, 1]. Default: 0.01.
        fill: Replacement of occluded pixels. Default: ``"blur"``.
        seed: Seed of ties and random pixels. Default: 0.
        batch_size: Number of images per pass. Default: 16.
        progress: Whether to show a progress bar. Default: False.
        explored: Maximum number of faces with interactive controls on the page, about half a megabyte each; other faces are shown as
            pictures. Each takes 12 × (4 + 2 L) + 2 forward passes with L layers. Default: 6.

    Raises:
        CaptumLeamError: If the preset or fill is unknown, or a number is out of range or of the wrong type.

    Example:
        >>> ExplainOptions(preset="fast").n_steps
        4
    """

    preset: Preset = "default"
    n_steps: int = 4
    fraction: float = 0.01
    fill: str = "blur"
    seed: int = 0
    batch_size: int = 16
    progress: bool = False
    explored: int = 6

    def __post_init__(self) -> None:
        check_preset(self.preset)
        check_count("n_steps", self.n_steps)
        if not is_number(self.fraction) or not 0 < self.fraction <= 1:
            raise CaptumLeamError(f"Expected `fraction` to be a share of the pixels in (0, 1], got {self.fraction!r}.")
        check_choice("fill", self.fill, FILLS)
        check_count("seed", self.seed, least=0)
        check_count("batch_size", self.batch_size)
        check_count("explored", self.explored, least=0)
        if not isinstance(self.progress, bool):
            raise InputTypeError(f"Expected `progress` to be True or False, got {self.progress!r}.")


@dataclass(frozen=True)
class Explanation:
    """Explanation of N faces, with maps, tables and a page.

    :func:`explain_images` and :func:`explain_files` return it. Its most used attributes are ``overall`` (the maps), ``regions`` (a table of
    the regions) and ``occlusion`` (a test of the maps). :meth:`to_html` returns a page of everything.

    Attributes:
        names: Names of the images, a list of N unique strings.
        images: Images, shape (N, C, H, W), in [0, 1].
        overall: Overall attribution maps, shape (N, H, W). High values mark the pixels on which the match rests.
        layers: Signed attribution maps by layer name, shape (N, H, W) each.
        maps: Settings of the maps.
        options: Options of the maps and measurements, as :class:`ExplainOptions`.
        regions: Attribution of each region, the table of :func:`captum_leam.regions.region_report`.
        occlusion: Drops of the score if the critical pixels of the overall map, of Grad-CAM, or random pixels are occluded, as
            :class:`~captum_leam.faithfulness.OcclusionResult`; None if they were not measured.
        label: Reference of the maps, as a sentence.
        title: Title of the section.
        text: Text under the title.
        source: Settings of the model and the pictures, by name.
        against: Evidence against the match, shape (N, H, W): the mean negative part of the signed layer maps.
        labels: Region labels, shape (N, H, W).
        scheme: Names of the labels.
        curves: Drops of the first faces over a grid of shares, one row per face, map, side, control and share; None if not measured.
        correspondences: Contributions of pairs of positions of both faces of a pair to their cosine; None if unknown.
        pair: Explanation of the two faces of a pair, with the decision and the evidence against the match.
        match: Identification of the faces in a gallery, with the rankings.
        parts: Labels of the regions whose outlines are drawn; None for no outlines.
        photographs: RGB pictures of the maps on the photographs; None for images without a photograph.
        certainty: Certainty of each map; None if not measured.
        hashes: SHA-256 of the model and of the files of the images, see :func:`captum_leam.reporting.json_result.hashes_of`.
        skipped: Files that were left out.
        notes: Warnings to the reader.

    Example:
        >>> from captum_leam import suggest_layers
        >>> from captum_leam.regions import TemplateParser
        >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
        >>> population, parser = SyntheticPopulation(12, evidence="nose"), TemplateParser()
        >>> model, faces = load_trained(population), population.sample([0], seed=1).images
        >>> layers, options = suggest_layers(model, faces), ExplainOptions(preset="fast", n_steps=1, explored=0)
        >>> explanation = explain_images(model, faces, ["ann"], layers, parser(faces), parser.scheme, options=options)
        >>> explanation.overall.shape
        torch.Size([1, 112, 112])
        >>> explanation.regions.nlargest(2, "lift")[["region", "share", "area", "lift"]].round(2)
                region  share  area   lift
        7         nose   0.79  0.04  22.58
        9  right_cheek   0.18  0.11   1.57
        >>> page = explanation.to_html(title="Ann")
    """

    names: list[str]
    images: Tensor
    overall: Tensor
    layers: dict[str, Tensor]
    maps: MapSettings
    options: ExplainOptions
    regions: pd.DataFrame
    occlusion: OcclusionResult | None
    label: str
    against: Tensor
    labels: Tensor
    scheme: RegionScheme
    curves: pd.DataFrame | None = None
    correspondences: Correspondences | None = None
    title: str = "Faces"
    text: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    pair: PairExplanation | None = None
    match: MatchExplanation | None = None
    parts: FaceRegions | None = None
    photographs: tuple[NDArray[np.uint8] | None, ...] = ()
    certainty: MapCertainty | None = None
    hashes: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[FileError, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def messages(self) -> tuple[str, ...]:
        """Messages about files that were left out, followed by the notes."""
        return (*(f"left out: {error}" for error in self.skipped), *self.notes)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the maps and measurements, by name."""
        names = ("fraction", "seed") if self.occlusion is None else ("fill", "fraction", "seed")
        measured = {name: getattr(self.options, name) for name in names}
        regions = {} if self.parts is None else {"regions": self.parts.source}
        curves = {} if self.curves is None else {"passes of the curves": f"{passes_per_face(len(self.layers))} forward"}
        return {**self.source, **self.maps.to_dict(), **measured, **curves, **regions}

    @property
    def mean_drops(self) -> pd.DataFrame:
        """Mean drops over the faces, see :meth:`OcclusionResult.summary`; no rows where drops were not measured."""
        return (
            pd.DataFrame(columns=["method", "control", "fraction", "drop"])
            if self.occlusion is None
            else self.occlusion.summary()
        )

    def to_html(self, *, title: str = "", lead: str = "") -> str:
        """Return the page of this explanation as the text of one HTML file.

        The page contains all pictures and makes no request to any network.

        Args:
            title: Title of the page. Default: that of the explanation.
            lead: Sentence under the title, above the summary. Default: ``""``, for none.

        Returns:
            HTML document, a string.
        """
        from captum_leam.reporting.explanation_page import explanation_page

        return explanation_page([self], title=title or self.title, lead=lead, settings=self.settings).render()

    def _repr_html_(self) -> str:
        """Return the page in a frame, which notebooks show."""
        return framed(self.title, self.to_html())


def explain_images(
    model: nn.Module,
    images: Tensor,
    names: Sequence[str],
    layers: LayerSuggestions,
    labels: Tensor,
    scheme: RegionScheme,
    *,
    references: Tensor | None = None,
    pair: PairExplanation | None = None,
    match: MatchExplanation | None = None,
    landmarks: ArrayLike | None = None,
    options: ExplainOptions | None = None,
) -> Explanation:
    """Explain faces, report their regions, and check the maps by occlusion beside Grad-CAM and random pixels.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        images: Images in [0, 1], shape (N, C, H, W).
        names: Unique names of the images.
        layers: Layers with a signed map. The overall map uses those of :meth:`LayerSuggestions.for_overall_map`.
        labels: Region labels, shape (N, H, W) or (H, W).
        scheme: Names of the labels.
        references: Embeddings of other images, shape (N, D). Default: each image's own embedding, for maps and drops.
        pair: Explanation of the two images towards each other, whose maps are used. Default: none.
        match: Identification of the images in a gallery, whose maps are used; drops are then those of the cosine to the first candidate.
            Default: none.
        landmarks: Five landmarks (x, y) in pixels of the images, shape (5, 2) or (N, 5, 2). Default: those of the standard crop.
        options: Options of maps and measurements. The maps of a pair keep their own preset and steps. Default: ``ExplainOptions()``.

    Returns:
        Maps, regions and drops of the images.

    Raises:
        NoEvidenceError: If the map of an image has no positive value.
        CaptumLeamError: If :func:`~captum_leam.explain_faces` would raise it.

    See Also:
        * :func:`~captum_leam.reporting.explain_files`: Images in files.
        * :func:`~captum_leam.reporting.write_page`: Page of the explanation.

    Example:
        >>> from captum_leam import suggest_layers
        >>> from captum_leam.regions import TemplateParser
        >>> from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation
        >>> model, faces, parser = EmbeddingNet().eval(), SyntheticPopulation(2).sample(1).images[:1], TemplateParser()
        >>> options = ExplainOptions(preset="fast", n_steps=1, explored=0)
        >>> layers = suggest_layers(model, faces)
        >>> explain_images(model, faces, ["ann"], layers, parser(faces), parser.scheme, options=options).overall.shape
        torch.Size([1, 112, 112])
    """
    options = options or ExplainOptions()
    batch_size = options.batch_size
    if match is not None:
        references = match.references
    towards = unit(embed(model, images, batch_size), "embeddings") if references is None else references
    if match is not None:
        settings, overall, signed = match.settings, match.maps, match.layers
    elif pair is None:
        reference: Reference = "own" if references is None else "other images"
        settings = MapSettings.of(options.preset, reference, layers, options.n_steps)
        begin_step("overall maps", len(images))
        overall = explain_faces(
            model, images, options.preset, layers=layers, reference=references, batch_size=batch_size
        )
        begin_step("signed layer maps", len(images))
        signed = layer_maps(model, images, layers, reference=towards, n_steps=options.n_steps, batch_size=batch_size)
    else:
        settings, overall, signed = pair.settings, pair.similar, pair.layers
        _check_evidence(overall)
    evaluator = OcclusionEvaluator(
        model,
        FRACTIONS,
        fills=(options.fill,),
        controls=("random pixels",),
        seed=options.seed,
        batch_size=batch_size,
        progress=options.progress and not has_bar(),
    )
    # Grad-CAM explains the plain cosine, which has no gradient towards the image's own embedding
    last = replace(layers, layers=layers.layers[-1:])
    norm: Norm = "detach" if references is None else "differentiate"
    cams = layer_maps(
        model, images, last, reference=towards, n_steps=1, norm=norm, weighting="channel", batch_size=batch_size
    )
    begin_step("occluding", len(images) * (1 + 3 * len(FRACTIONS)))
    methods = {"LEAM, overall map": overall} | {f"Grad-CAM, {name}": cam for name, cam in cams.items()}
    against = evidence_against([*signed.values()]) if pair is None else pair.dissimilar
    correspondences, place = (None, "") if pair is None else find_correspondences(model, images, layers)
    notes = () if pair is None or correspondences else (f"no correspondences between the faces: {place}.",)
    return Explanation(
        names=list(names),
        images=images,
        overall=overall,
        layers=signed,
        maps=settings,
        options=options,
        regions=region_report(
            overall, labels, scheme, fraction=options.fraction, landmarks=landmarks, seed=options.seed
        ),
        occlusion=evaluator.evaluate(images, methods, towards),
        label=LABELS[settings.reference],
        against=against,
        labels=labels.cpu().expand(len(images), -1, -1),
        scheme=scheme,
        curves=_curves(model, images, overall, against, signed, towards, options),
        correspondences=correspondences,
        pair=pair,
        match=match,
        notes=notes,
    )


def explanation_of(
    result: PairExplanation | MatchExplanation,
    *,
    names: Sequence[str] | None = None,
    labels: Tensor | None = None,
    scheme: RegionScheme | None = None,
) -> Explanation:
    """Return the explanation of a result without its model: maps and regions, no drops.

    Args:
        result: Pair or identification.
        names: Name of each face. Default: "a" and "b" for a pair, "probe 0" and so on for probes.
        labels: Region labels, shape (N, H, W) or (H, W). Default: those of the template, or superpixels for faces without one.
        scheme: Names of the labels, given with them.

    Raises:
        NoEvidenceError: For a face of a pair without evidence for the match.
        CaptumLeamError: For another number of names than of faces, and labels without a scheme or of another size.
    """
    of: dict[str, Any]
    if isinstance(result, PairExplanation):
        of, usual, text = {"pair": result}, list(SIDES), result.sentence()
        images, overall, against = result.images, result.similar, result.dissimilar
    else:
        of, usual, text = {"match": result}, [f"probe {i}" for i in range(len(result.images))], ""
        images, overall, against = result.images, result.maps, result.against
    named = usual if names is None else list(names)
    if len(named) != len(images):
        raise CaptumLeamError(f"Expected a name for each of the {len(images)} faces, got {named!r}.")
    _check_evidence(overall)
    parts = _parts(images, labels, scheme)
    settings = result.settings
    options = ExplainOptions(n_steps=settings.n_steps)
    return Explanation(
        names=named,
        images=images,
        overall=overall,
        layers=result.layers,
        maps=settings,
        options=options,
        regions=region_report(overall, parts.labels, parts.scheme, fraction=options.fraction, seed=options.seed),
        occlusion=None,
        label=LABELS[settings.reference],
        title=" and ".join(named[:2]) if len(named) < 3 else f"{named[0]} and {len(named) - 1} more",
        text=text,
        against=against,
        labels=parts.labels.expand(len(images), -1, -1),
        scheme=parts.scheme,
        parts=parts,
        **of,
    )


def _check_evidence(overall: Tensor) -> None:
    if not bool(overall.flatten(1).any(1).all()):
        raise NoEvidenceError("Expected evidence for the match in both faces, got a map without any positive value.")


def _parts(images: Tensor, labels: Tensor | None, scheme: RegionScheme | None) -> FaceRegions:
    """Return the labels that are given, those of the template, or superpixels."""
    if labels is not None and scheme is not None:
        if labels.shape not in (images.shape[2:], (len(images), *images.shape[2:])):
            raise CaptumLeamError(
                f"Expected labels of shape {(len(images), *images.shape[2:])} or {tuple(images.shape[2:])}, got {tuple(labels.shape)}."
            )
        return FaceRegions(labels.cpu().expand(len(images), *images.shape[2:]), scheme, "labels that were passed")
    if labels is not None or scheme is not None:
        raise CaptumLeamError("Expected labels and their scheme, got one without the other. Pass both, or neither.")
    crops = images.detach().cpu().float().expand(-1, 3, -1, -1)
    try:
        return label_faces("template", (), crops)
    except CaptumLeamError:
        return label_faces("superpixels", (), crops)


def _curves(
    model: nn.Module,
    images: Tensor,
    overall: Tensor,
    against: Tensor,
    layers: dict[str, Tensor],
    references: Tensor,
    options: ExplainOptions,
) -> pd.DataFrame | None:
    """Return the curves of the faces to explore; None if there are none."""
    if not options.explored:
        return None
    maps = {key: m[: options.explored] for key, m in ranked_maps(overall, against, layers, seed=options.seed).items()}
    begin_step("curves", min(len(images), options.explored) * passes_per_face(len(layers)))
    return measure_curves(
        model,
        images[: options.explored],
        maps,
        references[: options.explored],
        fill=options.fill,
        seed=options.seed,
        batch_size=options.batch_size,
        progress=options.progress and not has_bar(),
    )


def references_from(model: nn.Module, images: Tensor) -> Tensor | None:
    """Return the centroid of the other images of a person for each image; None for one image.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        images: Images of one person, shape (N, C, H, W).

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> references_from(nn.Flatten(), torch.rand(3, 1, 2, 2)).shape
        torch.Size([3, 4])
    """
    if len(images) < 2:
        return None
    return leave_one_out_centroids(embed(model, images), [0] * len(images))
