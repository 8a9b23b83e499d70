"""Overall maps of faces by a preset, and signed maps of their layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from captum_leam._engine.captum_adapter import BaselineType
from captum_leam._engine.checks import check_choice, check_count, check_field, check_images
from captum_leam._engine.guards import with_gradients
from captum_leam._engine.memory import in_batches
from captum_leam._engine.outputs import as_output
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError
from captum_leam.leam import LEAM, Path, Weighting
from captum_leam.maps import normalize_sum, place_on_field, positive_shares
from captum_leam.objectives import Norm, direction, similarity
from captum_leam.refinement import START, contributions, evidence, refine, smooth, transfer_ranks
from captum_leam.suggest import Layers, LayerSuggestion, LayerSuggestions, chosen_layers, find_field, layer_list

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
"""Overall map of a study: that of a preset, or ``"layers"``, the mean of its signed layer maps' distributions."""

Reference = Literal["own", "other face", "other images", "first candidate"]


class PresetForm(NamedTuple):
    """Rounds of occlusion that refine an overall map after its first pass.

    Example:
        >>> PRESETS["default"], PRESETS["default"].passes(own_reference=True)
        (PresetForm(rounds=8), (10, 9))
    """

    rounds: int

    def passes(self, *, own_reference: bool = False) -> tuple[int, int]:
        """Return the forward and backward passes per image, without those that find layers and field.

        Images that are their own reference take one more forward pass, which embeds them.
        """
        return 1 + self.rounds + own_reference, 1 + self.rounds


PRESETS: dict[str, PresetForm] = {"fast": PresetForm(0), "default": PresetForm(8), "best": PresetForm(48)}
"""Forms that take 1, 9 and 49 forward passes and as many backward."""


def path_passes(n_steps: int, path: Path = "mean_gradient") -> tuple[int, int]:
    """Return the forward and backward passes per image of ``LEAM.attribute``.

    Example:
        >>> path_passes(1), path_passes(4), path_passes(4, "conductance")
        ((1, 1), (6, 4), (9, 4))
    """
    if n_steps == 1:
        return 1, 1
    return (n_steps + 2 if path == "mean_gradient" else 2 * n_steps + 1), n_steps


@dataclass(frozen=True)
class MapSettings:
    """How the maps of a result were made.

    Attributes:
        preset: Preset of the overall map; ``"layers"`` in a study whose overall map is the mean of its layer maps.
        reference: Embedding that the maps point towards: each image's ``"own"``, that of the ``"other face"`` of a pair, one of
            ``"other images"``, or that of the ``"first candidate"`` of a gallery against the next.
        overall_layers: Names of the layers that the overall map starts from.
        layers: Names of the layers with a signed map beside the overall map.
        field: (top, left, height, width) that the model reads, in pixels.
        n_steps: Steps of the path of the signed layer maps.
        path: Kind of that path.
        norm: Treatment of the norm of the embedding in the score of the signed layer maps.
        weighting: Weighting of the gradients of the signed layer maps.

    Example:
        >>> MapSettings("fast", "own", ("stem",), ("stem", "last"), (0, 0, 112, 112), n_steps=4).path
        'mean_gradient'
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
        """Return the settings of :func:`explain_faces` and :func:`layer_maps` with these layers, and options of the layer maps."""
        names, overall = ([layer.name for layer in some] for some in (layers, layers.for_overall_map()))
        return cls(preset, reference, tuple(overall), tuple(names), layers.field, n_steps, **options)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name, for a page or a file.

        Example:
            >>> settings = MapSettings("default", "own", ("stem",), ("stem", "last"), (0, 0, 112, 112), n_steps=4)
            >>> settings.to_dict()["passes"], settings.to_dict()["passes of the signed layer maps"]
            ('10 forward, 9 backward', '6 forward, 4 backward')
        """
        return {
            "preset": self.preset,
            **self._of_overall_map(),
            "layers of the overall map": ", ".join(self.overall_layers),
            "layers": ", ".join(self.layers),
            "steps of the signed layer maps": self.n_steps,
            "path of the signed layer maps": self.path if self.n_steps > 1 else "none",
            "passes of the signed layer maps": _passes(path_passes(self.n_steps, self.path)),
            "norm of the signed layer maps": self.norm,
            "weighting of the signed layer maps": self.weighting,
            "reference": self.reference,
            "field (top, left, height, width)": self.field,
        }

    def _of_overall_map(self) -> dict[str, Any]:
        if self.preset == "layers":
            return {
                "overall map": "mean of the signed layer maps' distributions",
                "passes": "none beside those of the layer maps",
            }
        form = PRESETS[self.preset]
        return {
            "rounds of occlusion": form.rounds,
            "passes": _passes(form.passes(own_reference=self.reference == "own")),
        }


def _passes(passes: tuple[int, int]) -> str:
    return f"{passes[0]} forward, {passes[1]} backward"


def check_preset(preset: str) -> None:
    """Raise if a preset is unknown.

    Raises:
        CaptumLeamError: For anything but a key of :data:`PRESETS`.

    Example:
        >>> check_preset("fast")
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
    """Return the overall LEAM map of each aligned face, at the size of the images.

    ``"fast"`` is made in one forward and one backward pass at an image between a baseline and the face. It adds LEAM's maps of the layers
    that :func:`~captum_leam.suggest_layers` finds, placed on the field that the network reads, divided by their sums and averaged (a layer
    without a positive value is left out for that image), and twice LEAM at the input: the positive contributions of the pixels,
    blurred at three scales. The other presets refine this map by rounds of occlusion (:mod:`captum_leam.refinement`). They add it,
    the positive contributions that the rounds find, and twice the map re-ranked by the rounds: the first shows where the evidence
    arises, the others which pixels the score depends on. The sum is squared because it is flatter than each part. One ranking
    serves every fraction. :doc:`/best_form` compares the forms that were tried.

    A preset is the same map in :func:`~captum_leam.explain_pair`, on pages and on the command line. Signed maps of single layers are
    :func:`layer_maps`.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D), or scores (N,) as ``EmbeddingSimilarity`` does.
        x: Faces, shape (N, C, H, W), as the model takes them.
        preset: ``"fast"``: one forward and one backward pass. ``"default"``: 9 of each, 8 of them in rounds of occlusion. ``"best"``: 49 of
            each, 48 in rounds. Finding layers and field and probing the model take a few more passes on two images. Default:
            ``"default"``.
        layers: Layer by name, as a module whose output is (N, C, h, w) or as a suggestion; a list of these; or all suggestions, of which
            the overall map takes its own. Default: those of :func:`~captum_leam.suggest_layers`.
        field: (top, left, height, width) that the model reads, in pixels. Default: found by occlusion.
        reference: Embeddings, shape (D,), (1, D) or (N, D). Default: each image's own, which shows the strength of the embedding and takes
            one forward pass more.
        contrast: Embeddings to tell the person apart from, see :meth:`LEAM.attribute <captum_leam.LEAM.attribute>`.
        batch_size: Images per pass. Halved with a warning where they do not fit into memory. Default: 32.
        baselines: Start of the path and replacement of occluded pixels, in any of Captum's forms. Default: a Gaussian blur.

    Returns:
        Shape (N, H, W), float32 (float64 for a model in float64), not negative, each map sums to 1, on the device of the images.

    Raises:
        CaptumLeamError: For an unknown preset, no images, and what ``LEAM.attribute`` refuses.

    Example:
        >>> from torchvision.models import resnet18
        >>> model = resnet18(num_classes=32).eval()
        >>> explain_faces(model, torch.rand(2, 3, 112, 112), "fast").shape
        torch.Size([2, 112, 112])
    """
    check_preset(preset)
    check_images(x, "x")
    check_count("batch_size", batch_size)
    if field is not None:
        check_field(field, (x.shape[2], x.shape[3]))
    given = layer_list(layers)
    if not given or not all(isinstance(layer, nn.Module) for layer in given):
        found = chosen_layers(model, x, layers, field)
        field = field or found.field
        given = [*found.for_overall_map()]
    start = cast(list[LayerSuggestion | nn.Module], given)
    overall = OverallMap(model, start, field or find_field(model, x), preset)
    overall.leam.check_grids(x, overall.field)

    def explain(rows: slice) -> Tensor:
        towards = {"reference": _rows(reference, rows, 2, len(x)), "contrast": _rows(contrast, rows, 3, len(x))}
        return overall(x[rows], baselines=_rows(baselines, rows, 4, len(x)), **towards)

    return torch.cat(in_batches(explain, len(x), batch_size))


class OverallMap:
    """Overall map of a preset on known layers and a known field, for one batch after another.

    :func:`explain_faces` finds layers and field, checks that the layers' grids lie on the images, and calls this for every batch. Call
    it directly where the same layers explain many batches, as a study does.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D), or scores (N,).
        layers: Layers that the map starts from: suggestions, or modules whose output is (N, C, h, w).
        field: (top, left, height, width) that the model reads, in pixels.
        preset: ``"fast"``, ``"default"`` or ``"best"``. Default: ``"default"``.

    Raises:
        CaptumLeamError: For an unknown preset.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 256, 8)).eval()
        >>> overall = OverallMap(net, [net[1]], (0, 0, 32, 32), "fast")
        >>> overall(torch.rand(2, 3, 32, 32), reference=torch.rand(2, 8)).shape
        torch.Size([2, 32, 32])
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[LayerSuggestion | nn.Module], field: Field, preset: Preset = "default"
    ) -> None:
        check_preset(preset)
        self.leam = LEAM(model, list(layers))
        self.field = field
        self.rounds = PRESETS[preset].rounds

    def __call__(
        self,
        x: Tensor,
        *,
        reference: Tensor | None = None,
        contrast: Tensor | None = None,
        baselines: BaselineType = None,
    ) -> Tensor:
        """Return the maps of one batch: the overall map of one pass, then refined by rounds of occlusion.

        Args:
            x: Faces, shape (N, C, H, W).
            reference: Embeddings, shape (D,), (1, D) or (N, D). Default: each image's own.
            contrast: Embeddings to tell the person apart from.
            baselines: Start of the path and replacement of occluded pixels. Default: a Gaussian blur.

        Returns:
            Shape (N, H, W), not negative, each map sums to 1.

        Raises:
            NoEvidenceError: If neither a layer nor the input has a positive value for an image.
            CaptumLeamError: For what ``LEAM.attribute`` refuses.
        """
        with with_gradients():
            x = x.detach().clone()  # also of what was made under inference_mode
            replaced = self.leam.baselines(x, baselines)
            if reference is None:
                reference = self._own_embeddings(x)
            start = self._first_pass(x, replaced, reference, contrast)
            if not self.rounds:
                return start
            score = _score(self.leam.forward_func, reference, contrast)
            refined = refine(score, x, replaced, start, self.rounds)
            return _sharpen(start + 2 * transfer_ranks(start, refined.heights) + evidence(refined.contributions))

    def _first_pass(self, x: Tensor, replaced: Tensor, reference: Tensor | None, contrast: Tensor | None) -> Tensor:
        """Return the map of one pass: of the layers once, and of the input twice."""
        at = torch.lerp(replaced, x, START)
        maps, gradient = self.leam.attribute_with_inputs(at, ends=x, reference=reference, contrast=contrast)
        placed = torch.stack([place_on_field(m, (x.shape[2], x.shape[3]), self.field) for m in maps], 1)
        of_layers = positive_shares(smooth(positive_shares(placed)[0].mean(1)))[0]
        return normalize_sum(of_layers + 2 * evidence(contributions(x, replaced, gradient)))

    def _own_embeddings(self, x: Tensor) -> Tensor | None:
        """Return the embeddings of the images; None for a model that returns scores, which hold their own reference."""
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
    """Return the signed LEAM map of every layer, at the size of the images.

    Positive values speak for the match and negative values against it, on the raw scale of the score.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        x: Faces, shape (N, C, H, W), as the model takes them.
        layers: Layers to explain, all of them: layer suggestions, or layers as :func:`explain_faces` takes them. None: those of the
            overall map.
        reference: Embeddings, shape (D,), (1, D) or (N, D). Default: each image's own.
        contrast: Embeddings to tell the person apart from, see :meth:`LEAM.attribute <captum_leam.LEAM.attribute>`.
        n_steps: Steps of the path from a blurred image; 1 for no path. Default: 4.
        norm: Treatment of the norm of the embedding in the score, see :class:`~captum_leam.LEAM`. Default: ``"detach"``.
        weighting: Weighting of the gradients, see :class:`~captum_leam.LEAM`. Default: ``"elementwise"``.
        batch_size: Images per pass. Halved with a warning where they do not fit into memory. Default: 32.

    Returns:
        Layer name → (N, H, W), zero outside the field that the model reads.

    Raises:
        CaptumLeamError: For images of another size than the layers were suggested for, and what ``LEAM.attribute`` refuses.

    Example:
        >>> from torchvision.models import resnet18
        >>> model, x = resnet18(num_classes=32).eval(), torch.rand(2, 3, 112, 112)
        >>> maps = layer_maps(model, x, ["layer2", model.layer3], n_steps=1)
        >>> {name: tuple(of_layer.shape) for name, of_layer in maps.items()}["layer2"]
        (2, 112, 112)
    """
    layers = chosen_layers(model, x, layers)
    leam = LEAM(model, layers, norm=norm, weighting=weighting)
    leam.check_grids(x, layers.field)

    def explain(rows: slice) -> list[Tensor]:
        towards = {"reference": _rows(reference, rows, 2, len(x)), "contrast": _rows(contrast, rows, 3, len(x))}
        maps = leam.attribute(x[rows], n_steps=n_steps, **towards)
        return cast(list[Tensor], maps)

    batches = in_batches(explain, len(x), batch_size)
    maps = [torch.cat(of_layer) for of_layer in zip(*batches, strict=True)]
    placed = [place_on_field(m, layers.image_size, layers.field) for m in maps]
    return dict(zip([layer.name for layer in layers], placed, strict=True))


def _score(
    model: Callable[..., Tensor], reference: Tensor | None, contrast: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """Return a function of occluded images: their similarity, norm detached, to the reference, or the score that the model returns."""

    def score(occluded: Tensor) -> Tensor:
        output = as_output(model(occluded), len(occluded))
        if output.ndim == 1:
            return output
        return similarity(output, direction(output, reference, contrast))

    return score


def _sharpen(maps: Tensor) -> Tensor:
    """Return squares that sum to 1, because a sum of several maps is flatter than each."""
    peaks = maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return normalize_sum((maps / peaks).square())  # squares of values that sum to 1 would underflow in float16


def _rows(values: Any, rows: slice, per_image_ndim: int, batch: int) -> Any:
    """Return the rows of a per-image tensor that belong to a part of the batch; a shared value stays as it is."""
    if not isinstance(values, Tensor) or values.ndim < per_image_ndim or len(values) == 1:
        return values
    if len(values) != batch:
        raise CaptumLeamError(f"{len(values)} rows for {batch} images; expected one per image, or one for all.")
    return values[rows]
