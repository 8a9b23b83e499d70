"""Overall maps of faces by a preset, and signed maps of their layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from captum_leam._engine.captum_adapter import BaselineType, baseline_tensors
from captum_leam._engine.checks import check_choice, check_count, check_field, check_images
from captum_leam._engine.guards import with_gradients
from captum_leam._engine.memory import in_batches
from captum_leam._engine.outputs import as_output
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError
from captum_leam.leam import LEAM, Path, Weighting
from captum_leam.maps import default_blur, normalize_sum, overall_map, place_on_field
from captum_leam.objectives import Norm, direction, similarity
from captum_leam.refinement import refine, smooth, transfer_ranks
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
    """Steps of the path at the start of an overall map, and rounds of occlusion that refine it.

    Example:
        >>> PRESETS["default"], PRESETS["default"].passes(own_reference=True)
        (PresetForm(n_steps=3, rounds=5), (10, 7))
    """

    n_steps: int
    rounds: int

    def for_own_reference(self) -> "PresetForm":
        """Return the form for images that are their own reference: embedding them takes the forward pass of one round."""
        return self._replace(rounds=max(0, self.rounds - 1))

    def passes(self, *, own_reference: bool = False) -> tuple[int, int]:
        """Return the forward and backward passes per image, without those that find layers and field."""
        rounds = self.for_own_reference().rounds if own_reference else self.rounds
        forward, backward = path_passes(self.n_steps)
        return forward + self.rounds, backward + rounds

    @property
    def uses_baselines(self) -> bool:
        """Whether a path starts from baselines, or rounds replace pixels by them."""
        return self.n_steps > 1 or self.rounds > 0


PRESETS: dict[str, PresetForm] = {"fast": PresetForm(1, 0), "default": PresetForm(3, 5), "best": PresetForm(3, 45)}
"""Forms that take 1, 10 and 50 forward passes."""


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
            ('10 forward, 7 backward', '6 forward, 4 backward')
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
        own = self.reference == "own"
        form = PRESETS[self.preset]
        return {
            "steps of the path": form.n_steps,
            "rounds of occlusion": (form.for_own_reference() if own else form).rounds,
            "passes": _passes(form.passes(own_reference=own)),
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


def explain_faces(  # noqa: PLR0913  the options of LEAM.attribute are named one by one
    model: nn.Module,
    x: Tensor,
    preset: Preset = "default",
    *,
    layers: Layers = None,
    field: Field | None = None,
    reference: Tensor | None = None,
    contrast: Tensor | None = None,
    batch_size: int = 32,
    n_steps: int | None = None,
    baselines: BaselineType = None,
    path: Path = "mean_gradient",
    internal_batch_size: int | None = None,
    grad_kwargs: dict[str, Any] | None = None,
) -> Tensor:
    """Return the overall LEAM map of each aligned face, at the size of the images.

    The map starts from layers that :func:`~captum_leam.suggest_layers` finds: their maps are placed on the field that the network
    reads, divided by their sums and averaged (:func:`~captum_leam.overall_map`). ``"fast"`` is that map of one pass, smoothed with
    a σ of 2 px per 112. The other presets start with a path of three steps and refine the map by occlusion
    (:mod:`captum_leam.refinement`). They add the two, the map once and the refined map twice: the first shows where the evidence
    arises, the second which pixels the score depends on. The sum is squared because it is flatter than each part. One ranking
    serves every fraction. :doc:`/best_form` compares the forms that were tried.

    A preset is the same map in :func:`~captum_leam.explain_pair`, on pages and on the command line. Signed maps of single layers are
    :func:`layer_maps`.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D), or scores (N,) as ``EmbeddingSimilarity`` does.
        x: Faces, shape (N, C, H, W), as the model takes them.
        preset: ``"fast"``: one forward and one backward pass. ``"default"``: 10 forward and 8 backward passes, 5 of each in rounds of
            occlusion. ``"best"``: 50 and 48, 45 of each in rounds. Finding layers and field and probing the model take a few more
            passes on two images. Default: ``"default"``.
        layers: Layer by name, as a module whose output is (N, C, h, w) or as a suggestion; a list of these; or all suggestions, of which
            the overall map takes its own. Default: those of :func:`~captum_leam.suggest_layers`.
        field: (top, left, height, width) that the model reads, in pixels. Default: found by occlusion.
        reference: Embeddings, shape (D,), (1, D) or (N, D). Default: each image's own, which shows the strength of the embedding,
            with one round fewer because embedding the images takes a forward pass.
        contrast: Embeddings to tell the person apart from, see :meth:`LEAM.attribute <captum_leam.LEAM.attribute>`.
        batch_size: Images per pass. Halved with a warning where they do not fit into memory. Default: 32.
        n_steps: Steps of the path at the start. Default: those of the preset.
        baselines: Start of the path and replacement of occluded pixels, in any of Captum's forms. Default: a Gaussian blur.
        path: Kind of the path at the start, see ``LEAM.attribute``. Default: ``"mean_gradient"``.
        internal_batch_size: Most images in one pass of the path. Default: one step at a time.
        grad_kwargs: Further arguments of ``torch.autograd.grad`` at the start.

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
    options = {"path": path, "internal_batch_size": internal_batch_size, "grad_kwargs": grad_kwargs}
    overall = OverallMap(model, start, field or find_field(model, x), preset, n_steps=n_steps, **options)
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
        n_steps: Steps of the path at the start. Default: those of the preset.
        options: Further options of ``LEAM.attribute`` at the start.

    Raises:
        CaptumLeamError: For an unknown preset.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 256, 8)).eval()
        >>> overall = OverallMap(net, [net[1]], (0, 0, 32, 32), "fast")
        >>> overall(torch.rand(2, 3, 32, 32), reference=torch.rand(2, 8)).shape
        torch.Size([2, 32, 32])
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[LayerSuggestion | nn.Module],
        field: Field,
        preset: Preset = "default",
        *,
        n_steps: int | None = None,
        **options: Any,
    ) -> None:
        check_preset(preset)
        self.leam = LEAM(model, list(layers))
        self.field = field
        self.form = PRESETS[preset]
        self.options = {"n_steps": self.form.n_steps if n_steps is None else n_steps, **options}

    def __call__(
        self,
        x: Tensor,
        *,
        reference: Tensor | None = None,
        contrast: Tensor | None = None,
        baselines: BaselineType = None,
    ) -> Tensor:
        """Return the maps of one batch: the overall map at the start, then refined by rounds of occlusion.

        Args:
            x: Faces, shape (N, C, H, W).
            reference: Embeddings, shape (D,), (1, D) or (N, D). Default: each image's own.
            contrast: Embeddings to tell the person apart from.
            baselines: Start of the path and replacement of occluded pixels. Default: a Gaussian blur.

        Returns:
            Shape (N, H, W), not negative, each map sums to 1.

        Raises:
            NoEvidenceError: If a layer has no positive value for an image.
            CaptumLeamError: For what ``LEAM.attribute`` refuses.
        """
        rounds = (self.form if reference is not None else self.form.for_own_reference()).rounds
        towards: dict[str, Any] = {"reference": reference, "contrast": contrast}
        # without a path, only the rounds take baselines
        starts = None if rounds and self.options["n_steps"] == 1 else baselines
        with with_gradients():
            maps = self.leam.attribute(x, **towards, baselines=starts, **self.options)
            overall = overall_map(maps, (x.shape[2], x.shape[3]), self.field)
            start = smooth(overall)
            if not rounds:
                return normalize_sum(start)
            x = x.detach().clone()  # also of what was made under inference_mode
            replaced = default_blur(x) if baselines is None else baseline_tensors(baselines, (x,))[0].clone()
            heights = refine(_score(self.leam.forward_func, x, **towards), x, replaced, start, rounds)
            return _sharpen(overall + 2 * transfer_ranks(normalize_sum(start), heights))


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


def _sharpen(maps: Tensor) -> Tensor:
    """Return squares that sum to 1, because a sum of two maps is flatter than each."""
    peaks = maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return normalize_sum((maps / peaks).square())  # squares of values that sum to 1 would underflow in float16


def _score(
    model: Callable[..., Tensor], x: Tensor, reference: Tensor | None, contrast: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """Return a function of occluded images: their similarity, norm detached, to the reference or to the images' own embeddings."""
    if reference is None:
        with torch.no_grad():
            output = as_output(model(x.clone()), len(x))
        reference = output if output.ndim > 1 else None

    def score(occluded: Tensor) -> Tensor:
        output = as_output(model(occluded), len(occluded))
        if output.ndim == 1:
            return output
        return similarity(output, direction(output, reference, contrast))

    return score


def _rows(values: Any, rows: slice, per_image_ndim: int, batch: int) -> Any:
    """Return the rows of a per-image tensor that belong to a part of the batch; a shared value stays as it is."""
    if not isinstance(values, Tensor) or values.ndim < per_image_ndim or len(values) == 1:
        return values
    if len(values) != batch:
        raise CaptumLeamError(f"{len(values)} rows for {batch} images; expected one per image, or one for all.")
    return values[rows]
