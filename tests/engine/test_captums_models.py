"""Captum's own test matrix: its models and configurations, on LEAM and on every explainer of the package.

The oracle is Captum's LayerGradientXActivation of the score written down by hand: its map is LEAM's before the channels are summed. Where
LEAM refuses, the reason it gives must be true of Captum's map.
"""

import copy
import re
from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity, explainers
from captum_leam.explainers import (
    CorrRISE,
    GradCAM,
    HiResCAM,
    LayerCAM,
    PositionDecomposition,
    RegionShapley,
    XFace,
)
from captum_leam.maps import place_on_field
from captum_leam.models import UpTo
from tests.helpers.entry_points import EXPLAINERS

basic_models = pytest.importorskip("captum.testing.helpers.basic_models", reason="this captum ships no test models")
matrix = pytest.importorskip("captum.testing.attr.helpers.test_config", reason="this captum ships no test matrix")

LAYERED = [case for case in matrix.config if "layer" in case]
NAMES = [f"{case['name']}-{i}" for i, case in enumerate(LAYERED)]  # some names come twice


def flat(activations: Tensor) -> Tensor:
    """Any activations as channels of one position: (N, C, 1, 1)."""
    return activations.flatten(1)[:, :, None, None]


def as_tuple(inputs: Any) -> tuple[Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def as_list(maps: Any) -> list[Tensor]:
    return [tensor for part in maps for tensor in as_list(part)] if isinstance(maps, list | tuple) else [maps]


def layers_of(model: nn.Module, case: dict[str, Any]) -> Any:
    names = case["layer"]
    return [model.get_submodule(n) for n in names] if isinstance(names, list) else model.get_submodule(names)


class Case:
    """One entry of the matrix, with a copy of its model and a reference."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.model = copy.deepcopy(case["model"])
        self.layer = layers_of(self.model, case)
        given = case["attribute_args"]
        self.inputs, self.target = given["inputs"], given.get("target")
        extra = given.get("additional_forward_args")
        self.args = extra if isinstance(extra, tuple) else () if extra is None else (extra,)
        self.batched = given.get("internal_batch_size")
        with torch.no_grad():
            self.output = self.model(*as_tuple(self.inputs), *self.args)
        self.reference = torch.randn(self.output.shape[-1], generator=torch.Generator().manual_seed(0))

    def leam(self, rows: list[int] | None = None, model: nn.Module | None = None, **options: Any) -> list[Tensor]:
        inputs, args = self.rows(rows)
        method = LEAM(model or self.model, self.layer, reshape=flat)
        return as_list(
            method.attribute(
                inputs if isinstance(self.inputs, tuple) else inputs[0],
                additional_forward_args=args,
                reference=self.reference,
                attr_dim_summation=False,
                **options,
            )
        )

    def captum(self, rows: list[int] | None = None, **options: Any) -> list[list[Tensor]]:
        """∂s/∂A ⊙ A of every layer, with the length of the embedding held constant."""
        inputs, args = self.rows(rows)

        def score(*given: Any) -> Tensor:
            f = self.model(*given)
            return (f * self.reference / self.reference.norm()).sum(1) / f.norm(dim=1).detach()

        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        maps = [
            LayerGradientXActivation(score, one).attribute(inputs, additional_forward_args=args, **options)
            for one in layers
        ]
        return [[flat(m).detach() for m in as_list(of_layer)] for of_layer in maps]

    def rows(self, rows: list[int] | None) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """Some of the inputs, with what belongs to them."""
        inputs = as_tuple(self.inputs)
        if rows is None:
            return inputs, self.args
        count = len(inputs[0])
        per_image = [isinstance(a, Tensor) and a.ndim > 0 and len(a) == count for a in self.args]
        args = tuple(a[rows] if each else a for a, each in zip(self.args, per_image, strict=True))
        return tuple(x[rows] for x in inputs), args

    def totals(self, **options: Any) -> Tensor:
        """How much there is to show of every image, at the layer that has least."""
        of_layers = [torch.stack([m.abs().flatten(1).sum(1) for m in maps]).sum(0) for maps in self.captum(**options)]
        return torch.stack(of_layers).amin(0)


def agree(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> bool:
    return len(found) == len(expected) and all(
        torch.allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(b.abs().max())))
        for a, b in zip(found, expected, strict=True)
    )


EMPTY = "got only zeros|got zero gradient|got a numerically zero gradient"
ROUNDING = 1e-4
"""What Captum's map sums to where a model's softmax puts out one vector whatever the image, in single precision."""


def explained(case: Case, **options: Any) -> list[int] | None:
    """The images for which LEAM and Captum agree; None where the output is no embedding, which LEAM must say."""
    if case.output.ndim != 2 or case.output.shape[1] == 1:
        with pytest.raises(ValueError, match="to return embeddings|embeddings of two dimensions or more"):
            case.leam(**options)
        return None
    totals = case.totals(**options)
    shown = (totals > ROUNDING).nonzero().flatten().tolist()
    if bool((totals == 0).any()):  # an image with nothing to show is named, not drawn
        with pytest.raises(ValueError, match=EMPTY) as refused:
            case.leam(**options)
        named = re.search(r"for images \[([\d, ]+)\]", str(refused.value))
        assert named
        assert not set(map(int, named[1].split(","))) & set(shown)
    if shown:
        assert agree(case.leam(shown, **options), as_list(case.captum(shown, **options)))
    return shown


@pytest.mark.parametrize("entry", LAYERED, ids=NAMES)
def test_maps_equal_captums_layer_gradient_x_activation(entry):
    """Single and several inputs, additional arguments, in-place layers, layers with several outputs: as configured."""
    case = Case(entry)
    if case.target is not None:
        with pytest.raises(ValueError, match="`target` to be None because embeddings have no classes"):
            case.leam(target=case.target)
    explained(case)


@pytest.mark.parametrize("entry", LAYERED, ids=NAMES)
def test_maps_of_layer_inputs_equal_captums(entry):
    explained(Case(entry), attribute_to_layer_input=True)


def test_most_of_captums_configurations_are_explained():
    """Of how many configurations there are maps, of all images or of some; the others have outputs that are no embeddings."""
    found = [explained(Case(entry)) for entry in LAYERED]
    embeddings = [images for images in found if images is not None]
    assert len(found) >= 30
    assert len(embeddings) >= 0.75 * len(found)
    assert sum(bool(images) for images in embeddings) >= 0.75 * len(embeddings)


@pytest.mark.parametrize("entry", LAYERED, ids=NAMES)
def test_internal_batches_do_not_change_maps_along_a_path(entry):
    """Steps of the path batched two at a time are those one after the other; a conductance sums to the change of the score."""
    case = Case(entry)
    shown = explained(case)
    if not shown:
        pytest.skip("no embeddings, or nothing to show of any image")
    options = {"baselines": tuple(0.3 for _ in as_tuple(case.inputs)), "n_steps": 4}
    if not isinstance(case.inputs, tuple):
        options["baselines"] = 0.3
    one_by_one = case.leam(shown, **options)
    assert agree(case.leam(shown, internal_batch_size=2 * len(shown), **options), one_by_one)
    if case.batched and case.batched < len(shown):
        with pytest.warns(UserWarning, match=f"internal_batch_size to be at least .* got {case.batched}"):
            assert agree(case.leam(shown, internal_batch_size=case.batched, **options), one_by_one)


def test_lists_of_layers_and_data_parallel_give_the_maps_of_one():
    """A list of layers gives what each gives; on the CPU, DataParallel passes through."""
    cases = [case for case in map(Case, LAYERED[1:6]) if explained(case)]
    assert len(cases) >= 3
    for case in cases:
        shown = explained(case)
        single = case.leam(shown)
        assert agree(case.leam(shown, nn.DataParallel(case.model)), single)
        case.layer = [case.layer, next(m for m in case.model.modules() if isinstance(m, nn.Linear | nn.Conv2d))]
        assert agree(case.leam(shown)[: len(single)], single)


# -- networks with positions, on every explainer -------------------------------------------------------


def networks() -> dict[str, tuple[nn.Module, nn.Module, Tensor]]:
    """Captum's convolutional models as embeddings: the model, a layer, images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dilated, deep = basic_models.BasicModel_ConvNetWithPaddingDilation(), basic_models.BasicModel_ConvNet()
        in_place = basic_models.BasicModel_ConvNetWithPaddingDilation(inplace=True)
        with torch.no_grad():  # no unit is dead
            for conv in (dilated.conv1, in_place.conv1, deep.conv1, deep.conv2):
                conv.bias.fill_(0.3)
        # its softmax puts out one vector whatever the image, since all rows of its last weight are equal: the layer before
        whole = UpTo(deep, "relu3")
        return {
            "padding and dilation": (dilated, dilated.relu1, torch.rand(3, 1, 5, 5)),
            "in place": (in_place, in_place.relu1, torch.rand(3, 1, 5, 5)),
            "deep": (whole, deep.relu2, torch.rand(3, 1, 10, 10)),
        }


MADE = {
    **EXPLAINERS,
    "XFace": lambda net, **o: XFace(net, patches=(2, 3), stride=1, **o),
    "CorrRISE": lambda net, **o: CorrRISE(net, masks=20, patch=2, **o),
    "RegionShapley": lambda net, **o: RegionShapley(net, upper_and_lower, orders=2, **o),
}
OF_A_LAYER = {kind.__name__: kind for kind in (GradCAM, LayerCAM, HiResCAM, PositionDecomposition)}


def upper_and_lower(images: Tensor) -> Tensor:
    rows = torch.arange(images.shape[2])[:, None] > images.shape[2] // 2
    return rows.long().expand(len(images), *images.shape[2:])


def test_every_public_explainer_is_in_this_test():
    named = {name for name in explainers.__all__ if name[0].isupper() and name not in NO_METHODS}
    assert set(MADE) == named - {"GapDecomposition"}  # which needs average pooling, and these models have none


NO_METHODS = {
    "AffineHead",
    "Correspondences",
    "Cost",
    "Explainer",
    "SimilarityMaps",
    "TwoSidedExplainer",
    "EmbeddingCAM",
}


@pytest.mark.parametrize("method", MADE)
@pytest.mark.parametrize("name", networks())
def test_every_explainer_gives_finite_maps_of_captums_networks_and_leaves_them_alone(name, method):
    model, layer, images = networks()[name]
    towards = model(images).detach().roll(1, 0) + 0.1
    before = {key: value.clone() for key, value in model.state_dict().items()}
    explainer = OF_A_LAYER[method](model, layer) if method in OF_A_LAYER else MADE[method](model)
    if method == "PositionDecomposition" and name == "deep":
        with pytest.raises(ValueError, match="Expected the model to be affine after layer"):
            explainer.attribute(images, reference=towards)
        return
    maps = explainer.attribute(images, reference=towards)
    assert maps.shape == (3, 1, *images.shape[2:])
    assert maps.isfinite().all()
    assert maps.any()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", networks())
def test_grad_cam_and_hirescam_equal_captums(name):
    model, layer, images = networks()[name]
    towards = torch.randn(3, model(images).shape[1])
    objective = EmbeddingSimilarity(model, norm="differentiate")
    size = (images.shape[2], images.shape[3])
    cam = LayerGradCam(objective, layer).attribute(images, additional_forward_args=(towards,), relu_attributions=True)
    assert torch.allclose(
        GradCAM(model, layer).attribute(images, reference=towards)[:, 0], place_on_field(cam, size), atol=1e-5
    )
    product = LayerGradientXActivation(objective, layer).attribute(images, additional_forward_args=(towards,))
    shown = place_on_field(product.sum(1, keepdim=True), size)
    assert torch.allclose(HiResCAM(model, layer).attribute(images, reference=towards)[:, 0], shown, atol=1e-5)


@pytest.mark.parametrize(("kind", "shape"), [("MaxPool1d", (3, 1, 10)), ("MaxPool3d", (3, 1, 10, 10, 10))])
def test_signals_and_volumes_need_a_reshape_and_explainers_of_images_raise(kind, shape):
    """LEAM takes them with a reshape; explainers of images say that they need images."""
    torch.manual_seed(1)
    net = getattr(basic_models, f"BasicModel_ConvNet_{kind}")()
    model, images, towards = UpTo(net, "relu3"), torch.rand(shape), torch.rand(8)
    with pytest.raises(ValueError, match=r"got tokens \(N, T, C\)|which has no positions"):
        LEAM(model, net.conv2).attribute(images, reference=towards)
    maps = LEAM(model, net.conv2, reshape=lambda a: a.flatten(2)[:, :, None]).attribute(images, reference=towards)
    assert maps.shape == (3, 1, 1, 2 ** (len(shape) - 2))
    for name, make in MADE.items():
        explainer = OF_A_LAYER[name](model, net.conv2) if name in OF_A_LAYER else make(model)
        with pytest.raises(ValueError, match="Expected inputs to have shape"):
            explainer.attribute(images, reference=towards)


def test_an_image_on_which_a_layer_is_all_zero_is_named():
    """The message must not say that the score is at a maximum, because the layer puts out zeros for the image."""
    model = basic_models.BasicModel_MultiLayer()
    inputs = torch.tensor([[1.0, 2.0, 3.0], [-4.0, -4.0, -4.0]])
    with pytest.raises(ValueError, match=r"activations of layer 'relu' \(ReLU\) .* got only zeros for images \[1\]"):
        LEAM(model, model.relu, reshape=flat).attribute(inputs, reference=torch.tensor([1.0, 0.5]))
