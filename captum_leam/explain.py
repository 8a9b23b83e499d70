"""Overall maps of faces by a preset, and signed maps of their layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from captum_leam._engine.captum_adapter import BaselineType
from captum_leam._engine.checks import check_choice, check_count, check_field, check_images
from captum_leam._engine.guards import enable_gradients
from captum_leam._engine.memory import in_batches
from captum_leam._engine.outputs import as_output
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError
from captum_leam.leam import LEAM, Path, Weighting
from captum_leam.maps import normalize_sum, place_on_field, positive_shares
from captum_leam.objectives import Norm, direction, similarity
from captum_leam.refinement import AREAS, START, contributions, evidence, refine, smooth, transfer_ranks
from captum_leam.suggest import Layers, LayerSuggestion, LayerSuggestions, as_layer_list, find_field, resolve_layers

__all__ = [
    "PRESETS",
    "MapSettings",
    "OverallMap",
    "PresetForm",
    "explain_faces",
    "layer_maps",
    "path_passes",
]

Preset = Literal["fast", "default", "best"]
StudyPreset = Preset | Literal["layers"]
"""Overall map of a study: that of a preset, or ``"layers"`` for the mean of the distributions of its signed layer maps."""

Reference = Literal["own", "other face", "other images", "first candidate"]


class PresetForm(NamedTuple):
    """Form of the overall map of a preset.

    :data:`PRESETS` holds the form of each preset. Use it to compute what a preset costs.

    * ``rounds``: Number of rounds of occlusion after the first pass, 1 or more.
    * ``areas``: Shares of the pixels that successive rounds occlude, repeated. Default: :data:`~captum_leam.refinement.AREAS`.
    * ``rank_weight``: Weight of the re-ranked start in the sum, beside 1 for the start and for the contributions of the rounds. Default: 4.
    * ``power``: Exponent of the sum, which changes no ranking. Default: 2.

    Example:
        >>> PRESETS["default"].rounds, PRESETS["default"].passes(own_reference=True)
        (8, (10, 9))
    """

    rounds: int
    areas: tuple[float, ...] = AREAS
    rank_weight: float = 4.0
    power: float = 2.0

    def passes(self, *, own_reference: bool = False) -> tuple[int, int]:
        """Return the numbers of forward and backward passes per image.

        Passes that find layers and field, once per model, are not counted.

        Args:
            own_reference: Whether images are their own references, which takes one more forward pass. Default: False.

        Returns:
            Number of forward passes and number of backward passes, two integers.

        Example:
            >>> PresetForm(rounds=8).passes(), PresetForm(rounds=8).passes(own_reference=True)
            ((9, 9), (10, 9))
        """
        return 1 + self.rounds + own_reference, 1 + self.rounds


PRESETS: dict[str, PresetForm] = {
    "fast": PresetForm(rounds=1, areas=(0.3,), power=1.0),
    "default": PresetForm(rounds=8),
    "best": PresetForm(rounds=48, rank_weight=6.0),
}
"""Forms by name of the preset, with 2, 9 and 49 forward passes and as many backward passes."""


def path_passes(n_steps: int, path: Path = "mean_gradient") -> tuple[int, int]:
    """Return the numbers of forward and backward passes per image of ``LEAM.attribute``.

    Args:
        n_steps: Number of steps of the path, 1 or more. With 1 there is no path.
        path: Kind of the path, ``"mean_gradient"`` or ``"conductance"``, see :meth:`LEAM.attribute <captum_leam.LEAM.attribute>`. Default:
            ``"mean_gradient"``.

    Returns:
        Number of forward passes and number of backward passes, two integers.

    Example:
        >>> path_passes(1), path_passes(4), path_passes(4, "conductance")
        ((1, 1), (6, 4), (9, 4))
    """
    if n_steps == 1:
        return 1, 1
    return (n_steps + 2 if path == "mean_gradient" else 2 * n_steps + 1), n_steps


@dataclass(frozen=True)
class MapSettings:
    """Settings that the maps of a result were computed with.

    Results of :func:`~captum_leam.explain_pair`, of :func:`~captum_leam.explain_match` and of studies hold them, so that maps can be
    reproduced.

    Attributes:
        preset: Preset of the overall map, or ``"layers"`` in a study whose overall map is the mean of its layer maps.
        reference: Source of the reference embedding.

            * ``"own"``: Embedding of the image itself.
            * ``"other face"``: Other face of a pair.
            * ``"other images"``: Other images of the person.
            * ``"first candidate"``: First candidate of a gallery, with the next one as the contrast.
        overall_layers: Names of the layers that the overall map starts from.
        layers: Names of the layers with a signed map beside the overall map.
        field: Part (top, left, height, width) of the images that the model reads, in pixels.
        n_steps: Number of steps of the path of the signed layer maps.
        path: Kind of that path, ``"mean_gradient"`` or ``"conductance"``. Default: ``"mean_gradient"``.
        norm: Treatment of the length of the embedding in the signed layer maps, as in :class:`~captum_leam.LEAM`. Default: ``"detach"``.
        weighting: Weighting of the gradients in the signed layer maps, as in :class:`~captum_leam.LEAM`. Default: ``"elementwise"``.

    Example:
        >>> settings = MapSettings("fast", "own", ("stem",), ("stem", "last"), field=(0, 0, 112, 112), n_steps=4)
        >>> settings.preset, settings.path
        ('fast', 'mean_gradient')
    """

    preset: StudyPreset
    reference: Reference
    overall_layers: tuple[str, ...]
    layers: tuple[str, ...]
    field: Field
    n_steps: int
    path: Path = "mean_gradient"
    norm: Norm = "detach"
    weighting: Weighting = "elementwise"

    @classmethod
    def of(
        cls, preset: StudyPreset, reference: Reference, layers: LayerSuggestions, n_steps: int, **options: Any
    ) -> "MapSettings":
        """Return the settings of :func:`explain_faces` and :func:`layer_maps` for given layers.

        Args:
            preset: Preset of the overall map.
            reference: Source of the reference embedding.
            layers: Layers with a signed map, some of which the overall map starts from.
            n_steps: Number of steps of the path of the signed layer maps.
            **options: Other attributes of the settings: ``path``, ``norm`` or ``weighting``.

        Returns:
            Settings with the names of the layers and their field.

        Example:
            >>> stem = LayerSuggestion("stem", nn.Identity(), (8, 56, 56), 2.0)
            >>> layers = LayerSuggestions((stem,), (0, 0, 112, 112), (112, 112))
            >>> MapSettings.of("fast", "own", layers, n_steps=4).overall_layers
            ('stem',)
        """
        overall_layers = tuple(layer.name for layer in layers.for_overall_map())
        return cls(
            preset, reference, overall_layers, tuple(layer.name for layer in layers), layers.field, n_steps, **options
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name, to be written to a page or a file.

        Returns:
            Dictionary from readable names, such as ``"preset"`` and ``"passes"``, to text and numbers.

        Example:
            >>> settings = MapSettings("default", "own", ("stem",), ("stem", "last"), (0, 0, 112, 112), n_steps=4)
            >>> settings.to_dict()["passes"], settings.to_dict()["passes of the signed layer maps"]
            ('10 forward, 9 backward', '6 forward, 4 backward')
        """
        return {
            "preset": self.preset,
            **self._overall_map_settings(),
            "layers of the overall map": ", ".join(self.overall_layers),
            "layers": ", ".join(self.layers),
            "steps of the signed layer maps": self.n_steps,
            "path of the signed layer maps": self.path if self.n_steps > 1 else "none",
            "passes of the signed layer maps": _format_passes(path_passes(self.n_steps, self.path)),
            "norm of the signed layer maps": self.norm,
            "weighting of the signed layer maps": self.weighting,
            "reference": self.reference,
            "field (top, left, height, width)": self.field,
        }

    def _overall_map_settings(self) -> dict[str, Any]:
        if self.preset == "layers":
            return {
                "overall map": "mean of the signed layer maps' distributions",
                "passes": "none beside those of the layer maps",
            }
        form = PRESETS[self.preset]
        return {
            "rounds of occlusion": form.rounds,
            "areas of the rounds": ", ".join(f"{area:.0%}" for area in form.areas),
            "weight of the re-ranked start": form.rank_weight,
            "power of the sum": form.power,
            "passes": _format_passes(form.passes(own_reference=self.reference == "own")),
        }


def _format_passes(passes: tuple[int, int]) -> str:
    return f"{passes[0]} forward, {passes[1]} backward"


def check_preset(preset: str) -> None:
    """Raise if a preset is unknown.

    Args:
        preset: Name of the preset.

    Raises:
        CaptumLeamError: If the preset is not a key of :data:`PRESETS`.

    Example:
        >>> check_preset("fast")  # known
    """
    check_choice("preset", preset, PRESETS)


def explain_faces(
    model: nn.Module,
    x: Tensor,
    preset: Preset = "default",
    *,
    layers: Layers = None,
    field: Field | None = None,
    reference: Tensor | None = None,
    contrast: Tensor | None = None,
    batch_size: int = 32,
    baselines: BaselineType = None,
) -> Tensor:
    """Compute one map per face that shows which pixels make it similar to a reference.

    The map is high where a pixel raises the cosine similarity between the embedding of the face and the reference embedding. It combines
    the LEAM maps of several layers with the contributions of the pixels, so no layer has to be chosen. This is the function to start with.

    Args:
        model: Model in evaluation mode, from images (N, C, H, W) to embeddings (N, D); or to scores (N,), such as
            :class:`~captum_leam.EmbeddingSimilarity`.
        x: Aligned faces (N, C, H, W) as the model takes them.
        preset: Trade-off between speed and faithfulness. Default: ``"default"``.

            * ``"fast"``: 2 forward and 2 backward passes; one round of occlusion refines the map.
            * ``"default"``: 9 passes of each kind; 8 rounds of occlusion.
            * ``"best"``: 49 passes of each kind; 48 rounds of occlusion.

            Without a ``reference`` each takes one more forward pass.
        layers: Layers to start from: a name, module or suggestion, or a list of these. Default: None, those that
            :func:`~captum_leam.suggest_layers` finds.
        field: Part (top, left, height, width) of the images that the model reads, in pixels. Default: None, found by
            :func:`~captum_leam.suggest.find_field`.
        reference: Reference embeddings, for example of other images of the person: (D,) or (1, D) for all faces, or (N, D) with one per
            face. Default: None, each face's own embedding.
        contrast: Embeddings of other people, (D,) or (M, D) for all faces, or (N, M, D). Their mean similarity is subtracted, so that the
            map shows what distinguishes the person from them. Default: None.
        batch_size: Number of images per pass, halved with a warning if they do not fit into memory. Default: 32.
        baselines: Start of the path and replacement of occluded pixels: a number, or a tensor (1, C, H, W) or (N, C, H, W). Default: None,
            a Gaussian blur of the faces.

    Returns:
        Maps of shape (N, H, W), 0 or more, on the device of the faces. Each sums to 1. The type is float32, or float64 for a model in
        float64.

    Raises:
        NoEvidenceError: If nothing in an image supports the match.
        CaptumLeamError: If the preset is unknown, there are no images, or ``LEAM.attribute`` would raise it.

    Note:
        The map starts from the mean of the normalised layer maps plus, with twice the weight, the positive contributions of the pixels,
        blurred at three scales; layers without a positive value are omitted for that image. Rounds of occlusion re-rank it
        (:mod:`captum_leam.refinement`). The result is a power of the sum of the start, the re-ranked start with a greater weight, and the
        contributions found in the rounds (:class:`~captum_leam.explain.PresetForm`). :doc:`/best_form` compares the forms that were tried.

        The first call for a model takes a few more passes on two images, to find layers and to check the model.

    See Also:
        * :func:`~captum_leam.explain_pair`: Maps of two faces towards each other.
        * :func:`~captum_leam.explain_match`: Maps of a probe towards the first candidate of a gallery.
        * :func:`~captum_leam.layer_maps`: Signed maps of single layers.
        * :func:`~captum_leam.map_certainty`: Test of each map by occlusion.

    Example:
        >>> from torchvision.models import resnet18
        >>> _ = torch.manual_seed(0)
        >>> model = resnet18(num_classes=32).eval()
        >>> faces, references = torch.rand(2, 3, 112, 112), torch.randn(2, 32)
        >>> maps = explain_faces(model, faces, "fast", reference=references)
        >>> maps.shape, maps.sum((1, 2)).round(decimals=2).tolist()
        (torch.Size([2, 112, 112]), [1.0, 1.0])
    """
    check_preset(preset)
    check_images(x, "x")
    check_count("batch_size", batch_size)
    if field is not None:
        check_field(field, (x.shape[2], x.shape[3]))
    overall_layers = as_layer_list(layers)
    if not overall_layers or not all(isinstance(layer, nn.Module) for layer in overall_layers):
        suggestions = resolve_layers(model, x, layers, field)
        field = field or suggestions.field
        overall_layers = [*suggestions.for_overall_map()]
    modules = cast(list[LayerSuggestion | nn.Module], overall_layers)
    overall_map = OverallMap(model, modules, field or find_field(model, x), preset)
    overall_map.leam.check_grids(x, overall_map.field)

    def explain(rows: slice) -> Tensor:
        return overall_map(x[rows], **_select_rows(rows, len(x), reference, contrast, baselines))

    return torch.cat(in_batches(explain, len(x), batch_size))


class OverallMap:
    """Function that computes the overall maps of one batch, for given layers and field.

    Use it instead of :func:`explain_faces` to explain many batches with the same layers: finding the layers and checking their alignment
    with the images is left to the caller.

    Args:
        model: Model in evaluation mode, from images (N, C, H, W) to embeddings (N, D) or scores (N,).
        layers: Layers that the map starts from: suggestions, or modules whose output is (N, C, h, w).
        field: Part (top, left, height, width) of the images that the model reads, in pixels.
        preset: ``"fast"``, ``"default"`` or ``"best"``, as in :func:`explain_faces`. Default: ``"default"``.

    Raises:
        CaptumLeamError: If the preset is unknown.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 256, 8)).eval()
        >>> overall_map = OverallMap(net, [net[1]], (0, 0, 32, 32), "fast")
        >>> overall_map(torch.rand(2, 3, 32, 32), reference=torch.rand(2, 8)).shape
        torch.Size([2, 32, 32])
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[LayerSuggestion | nn.Module], field: Field, preset: Preset = "default"
    ) -> None:
        check_preset(preset)
        self.leam = LEAM(model, list(layers))
        self.field = field
        self.form = PRESETS[preset]

    def __call__(
        self,
        x: Tensor,
        *,
        reference: Tensor | None = None,
        contrast: Tensor | None = None,
        baselines: BaselineType = None,
    ) -> Tensor:
        """Compute the overall maps of one batch.

        Args:
            x: Faces (N, C, H, W) as the model takes them.
            reference: Reference embeddings, (D,), (1, D) or (N, D). Default: each face's own embedding.
            contrast: Embeddings of other people to contrast with, (D,), (M, D) or (N, M, D). Default: None.
            baselines: Start of the path and replacement of occluded pixels: a number, or a tensor (1, C, H, W) or (N, C, H, W). Default: a
                Gaussian blur.

        Returns:
            Maps of shape (N, H, W), 0 or more. Each sums to 1.

        Raises:
            NoEvidenceError: If nothing in an image supports the match.
            CaptumLeamError: If ``LEAM.attribute`` would raise it.
        """
        with enable_gradients():
            x = x.detach().clone()  # tensors made under inference_mode have no gradients, their copies do
            replacement = self.leam.baselines(x, baselines)
            if reference is None:
                reference = self._own_embeddings(x)
            start = self._first_pass(x, replacement, reference, contrast)
            score = _score(self.leam.forward_func, reference, contrast)
            refined = refine(score, x, replacement, start, self.form.rounds, areas=self.form.areas)
            ranked = transfer_ranks(start, refined.heights)
            return _sharpen(start + self.form.rank_weight * ranked + evidence(refined.contributions), self.form.power)

    def _first_pass(self, x: Tensor, replacement: Tensor, reference: Tensor | None, contrast: Tensor | None) -> Tensor:
        """Return the sum of the mean layer map and twice the map of the input, from one pass."""
        midpoint = torch.lerp(replacement, x, START)
        maps, gradient = self.leam.attribute_with_inputs(midpoint, ends=x, reference=reference, contrast=contrast)
        on_image = torch.stack([place_on_field(m, (x.shape[2], x.shape[3]), self.field) for m in maps], 1)
        layer_mean = positive_shares(smooth(positive_shares(on_image)[0].mean(1)))[0]
        return normalize_sum(layer_mean + 2 * evidence(contributions(x, replacement, gradient)))

    def _own_embeddings(self, x: Tensor) -> Tensor | None:
        """Return the embeddings of the images; None for a model that returns scores, which has its own reference."""
        with torch.no_grad():
            output = as_output(self.leam.forward_func(x.clone()), len(x))
        return output if output.ndim > 1 else None


def layer_maps(
    model: nn.Module,
    x: Tensor,
    layers: Layers,
    *,
    reference: Tensor | None = None,
    contrast: Tensor | None = None,
    n_steps: int = 4,
    norm: Norm = "detach",
    weighting: Weighting = "elementwise",
    batch_size: int = 32,
) -> dict[str, Tensor]:
    """Compute the signed LEAM map of each layer, at the size of the images.

    Positive values support the match and negative values oppose it. Use it to compare layers, or to see evidence against a match, which the
    overall map of :func:`~captum_leam.explain_faces` does not show.

    Args:
        model: Model in evaluation mode, from images (N, C, H, W) to embeddings (N, D).
        x: Aligned faces (N, C, H, W) as the model takes them.
        layers: Layers to explain: a name, module or suggestion, or a list of these. None for those that :func:`~captum_leam.explain_faces`
            starts from.
        reference: Reference embeddings, (D,) or (1, D) for all faces, or (N, D) with one per face. Default: None, each face's own
            embedding.
        contrast: Embeddings of other people to contrast with, see :meth:`LEAM.attribute <captum_leam.LEAM.attribute>`. Default: None.
        n_steps: Number of steps of the path from a blurred image to the face; 1 for no path. Default: 4.
        norm: Treatment of the length of the embedding: ``"detach"``, ``"differentiate"`` or ``"fixed"``, see :class:`~captum_leam.LEAM`.
            Default: ``"detach"``.
        weighting: Weighting of the gradients: ``"elementwise"``, ``"positive"`` or ``"channel"``, see :class:`~captum_leam.LEAM`. Default:
            ``"elementwise"``.
        batch_size: Number of images per pass, halved with a warning if they do not fit into memory. Default: 32.

    Returns:
        Dictionary from the name of each layer to its maps of shape (N, H, W), on the scale of the score. They are 0 outside the field that
        the model reads.

    Raises:
        CaptumLeamError: If the layers were suggested for images of another size, or if ``LEAM.attribute`` would raise it.

    See Also:
        * :func:`~captum_leam.explain_faces`: One map of several layers.
        * :class:`~captum_leam.LEAM`: Maps at the size of the layer, as a Captum method.

    Example:
        >>> from torchvision.models import resnet18
        >>> _ = torch.manual_seed(0)
        >>> model, faces = resnet18(num_classes=32).eval(), torch.rand(2, 3, 112, 112)
        >>> maps = layer_maps(model, faces, ["layer2", "layer3"], n_steps=1)
        >>> {name: tuple(of_layer.shape) for name, of_layer in maps.items()}
        {'layer2': (2, 112, 112), 'layer3': (2, 112, 112)}
    """
    layers = resolve_layers(model, x, layers)
    leam = LEAM(model, layers, norm=norm, weighting=weighting)
    leam.check_grids(x, layers.field)

    def explain(rows: slice) -> list[Tensor]:
        maps = leam.attribute(x[rows], n_steps=n_steps, **_select_rows(rows, len(x), reference, contrast))
        return cast(list[Tensor], maps)

    batches = zip(*in_batches(explain, len(x), batch_size), strict=True)
    return {
        layer.name: place_on_field(torch.cat(maps), layers.image_size, layers.field)
        for layer, maps in zip(layers, batches, strict=True)
    }


def _score(
    model: Callable[..., Tensor], reference: Tensor | None, contrast: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """Return a function from occluded images to their similarities with a detached norm, or to the scores that the model returns."""

    def score(occluded: Tensor) -> Tensor:
        output = as_output(model(occluded), len(occluded))
        if output.ndim == 1:
            return output
        return similarity(output, direction(output, reference, contrast))

    return score


def _sharpen(maps: Tensor, power: float) -> Tensor:
    """Return a power of each map that sums to 1, because a sum of several maps is flatter than each."""
    peaks = maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return normalize_sum((maps / peaks) ** power)  # squares of values that sum to 1 would underflow in float16


PER_IMAGE_NDIM = {"reference": 2, "contrast": 3, "baselines": 4}
"""Number of dimensions from which an argument of ``attribute`` has one row per image."""


def _select_rows(rows: slice, count: int, reference: Any, contrast: Any, baselines: Any = None) -> dict[str, Any]:
    """Return the arguments of ``attribute`` for some of the images; values that all images share stay as they are."""
    arguments = {"reference": reference, "contrast": contrast, "baselines": baselines}
    for name, value in arguments.items():
        if not isinstance(value, Tensor) or value.ndim < PER_IMAGE_NDIM[name] or len(value) == 1:
            continue
        if len(value) != count:
            raise CaptumLeamError(
                f"Expected `{name}` to have {count} rows, one per image, or one for all, got {len(value)}."
            )
        arguments[name] = value[rows]
    return arguments
