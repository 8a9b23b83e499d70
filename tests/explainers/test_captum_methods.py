"""Captum's methods as explainers give what they give when called by hand."""

import captum.attr as ca
import numpy as np
import pytest
import torch
from torch import nn

from captum_leam import LEAM, EmbeddingSimilarity, suggest_layers
from captum_leam.errors import CaptumLeamError
from captum_leam.explainers import RISE, CaptumExplainer, Cost
from captum_leam.maps import default_blur, place_on_field


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8 * 16, 10)).double().eval()


WINDOWS = {"sliding_window_shapes": (3, 4, 4), "strides": (3, 4, 4)}

# Methods, and the options of their calls.
OF_INPUT = [
    (ca.Saliency, {"abs": False}),
    (ca.InputXGradient, {}),
    (ca.GuidedBackprop, {}),
    (ca.Deconvolution, {}),
    (ca.IntegratedGradients, {"n_steps": 5}),
    (ca.DeepLift, {}),
    (ca.GradientShap, {"n_samples": 3, "baselines": default_blur}),
    (ca.Occlusion, WINDOWS),
    (
        ca.FeatureAblation,
        {"feature_mask": torch.arange(16).view(1, 4, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)[None]},
    ),
]
OF_LAYER = [
    (ca.LayerGradCam, {}),
    (ca.LayerActivation, {}),
    (ca.LayerGradientXActivation, {}),
    (ca.LayerIntegratedGradients, {"n_steps": 5}),
    (ca.LayerConductance, {"n_steps": 5}),
    (ca.LayerDeepLift, {}),
    (LEAM, {}),
]


def by_hand(method, options, model, faces, references, layer=()):
    is_along_path = any(word in method.__name__ for word in ("Shap", "Integrated", "DeepLift", "Conductance"))
    norm = "fixed" if is_along_path else "detach"
    objective = EmbeddingSimilarity(model, norm=norm)
    towards = objective.fixed_weights(faces, references) if norm == "fixed" else references
    options = {name: value(faces) if value is default_blur else value for name, value in options.items()}
    torch.manual_seed(0)
    np.random.seed(0)
    return method(objective, *layer).attribute(
        faces.clone().requires_grad_(), additional_forward_args=(towards,), **options
    )


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.parametrize(("method", "options"), OF_INPUT, ids=lambda v: getattr(v, "__name__", ""))
def test_maps_of_input_methods_equal_captums(model, faces, references, method, options):
    explainer = CaptumExplainer(method, model, **options)
    maps = explainer.attribute(faces, reference=references)
    expected = by_hand(method, options, model, faces, references).sum(1, keepdim=True).detach()
    assert torch.allclose(maps, expected, atol=1e-12)
    assert (maps < 0).any()
    assert not maps.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.parametrize(("method", "options"), OF_LAYER, ids=lambda v: getattr(v, "__name__", ""))
def test_methods_of_a_layer_are_brought_to_the_field(model, faces, references, method, options):
    field = (2, 0, 12, 16)
    explainer = CaptumExplainer(method, model, model[1], field=field, **options)
    found = by_hand(method, options, model, faces, references, [model[1]])
    expected = place_on_field(found.sum(1, keepdim=True).detach(), (16, 16), field)
    assert torch.allclose(explainer.attribute(faces, reference=references)[:, 0], expected, atol=1e-12)


def test_guided_grad_cam_equals_captums(model, faces, references):
    maps = CaptumExplainer(ca.GuidedGradCam, model, model[3]).attribute(faces, reference=references)
    found = by_hand(ca.GuidedGradCam, {}, model, faces, references, [model[3]])
    assert torch.allclose(maps, found.sum(1, keepdim=True).detach(), atol=1e-12)


def test_a_method_around_a_method_equals_captums(model, faces, references):
    noise = {"nt_samples": 3, "stdevs": 0.1}
    explainer = CaptumExplainer(lambda f: ca.NoiseTunnel(ca.Saliency(f)), model, **noise)
    maps = explainer.attribute(faces, reference=references)
    torch.manual_seed(0)
    found = ca.NoiseTunnel(ca.Saliency(EmbeddingSimilarity(model))).attribute(
        faces.clone(), additional_forward_args=(references,), **noise
    )
    assert torch.allclose(maps, found.sum(1, keepdim=True), atol=1e-12)
    state = torch.get_rng_state()
    assert torch.equal(explainer.attribute(faces, reference=references), maps)
    assert torch.equal(torch.get_rng_state(), state)


def test_readings_reduce_the_channels_as_named(model, faces, references):
    found = by_hand(ca.InputXGradient, {}, model, faces, references).detach()
    expected = {
        "sum": found.sum(1),
        "positive": found.sum(1).clamp(min=0),
        "absolute": found.abs().sum(1),
        "mean": found.mean(1),
    }
    for reading, maps in expected.items():
        explainer = CaptumExplainer(ca.InputXGradient, model, reading=reading)
        assert torch.allclose(explainer.attribute(faces, reference=references)[:, 0], maps, atol=1e-12)
    with pytest.raises(ValueError, match="reading to be one of 'sum', .* got 'max'"):
        CaptumExplainer(ca.InputXGradient, model, reading="max")


def test_all_methods_take_the_same_call(model, faces, references):
    layer = suggest_layers(model, faces)[0]
    for method in (
        CaptumExplainer(ca.IntegratedGradients, model, n_steps=4),
        CaptumExplainer(ca.LayerGradCam, model, layer),
        RISE(model, masks=4, cells=4),
    ):
        shared = method.attribute(faces, reference=references[0])
        assert shared.shape == (3, 1, 16, 16)
        assert torch.allclose(method.attribute(faces[1:2], reference=references[:1]), shared[1:2])
        with pytest.raises(ValueError, match=r"`target` to be None .* got a tensor \(3, 10\)\. Pass `reference=`"):
            method.attribute(faces, references)
    with pytest.raises(ValueError, match=r"`target` to be None .* got a tensor \(3, 10\)\. Pass `reference=`"):
        LEAM(model, layer).attribute(faces, references)


def test_own_embeddings_are_the_default_reference(model, faces):
    explainer = CaptumExplainer(ca.Occlusion, model, **WINDOWS)
    assert torch.allclose(explainer.attribute(faces), explainer.attribute(faces, reference=model(faces).detach()))


def test_cost_is_the_number_of_passes_that_run(model, faces, references):
    explainer = CaptumExplainer(ca.IntegratedGradients, model, n_steps=5)
    explainer.attribute(faces, reference=references)
    assert explainer.cost == Cost(6, 5)  # one forward pass for the weights
    seen = []
    model.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    explainer.attribute(faces, reference=references)
    seen.clear()
    explainer.attribute(faces, reference=references)
    assert sum(seen) == 3 * explainer.cost.forwards


def test_wrong_methods_and_inputs_raise(model, faces, references):
    with pytest.raises(TypeError, match="method to be a class of captum"):
        CaptumExplainer("Saliency", model)
    with pytest.raises(ValueError, match="norm to be one of"):
        CaptumExplainer(ca.Saliency, model, norm="l2")
    with pytest.raises(ValueError, match="got 'l2'"):
        CaptumExplainer(ca.Saliency, model, norm="l2")
    with pytest.raises(ValueError, match="attributions"):
        CaptumExplainer(ca.LayerActivation, model, model[5]).attribute(faces, reference=references)
    with pytest.raises(TypeError, match="one tensor, got a tuple"):
        CaptumExplainer(ca.IntegratedGradients, model, return_convergence_delta=True).attribute(
            faces, reference=references
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: CaptumExplainer(ca.LayerGradCam, net), "LayerGradCam to take a model, got: missing .*'layer'"),
        (lambda net: CaptumExplainer(lambda f, layer: ca.LayerGradCam(f, layer), net), "'layer'.* Pass layer"),
        (lambda net: CaptumExplainer(ca.IntegratedGradients, net, net[1]), "no layer with IntegratedGradients"),
        (
            lambda net: CaptumExplainer(ca.LayerGradCam, net, "1"),
            r"got a str\. Pass captum_leam.layers.get_layer\(model, '1'\)",
        ),
        (lambda net: CaptumExplainer(ca.LayerGradCam, net, [net[1]]), "one suggestion of suggest_layers, got a list"),
        (
            lambda net: CaptumExplainer(net, ca.LayerGradCam),
            "method to be a class of captum.attr, got a Sequential.* the method first",
        ),
        (lambda net: CaptumExplainer(ca.Saliency, net, absolute=True), "options of Saliency .* abs, got 'absolute'"),
        (lambda net: CaptumExplainer(ca.Saliency, net, inputs=None), "options of Saliency .* got 'inputs'"),
        (
            lambda net: CaptumExplainer(lambda f: ca.NoiseTunnel(ca.Saliency(f)), net, nt_sample=2),
            "options of NoiseTunnel .*nt_samples.* got 'nt_sample'",
        ),
        (lambda net: CaptumExplainer(lambda f: f, net), "to return a method of Captum"),
        (lambda net: CaptumExplainer(ca.Saliency, net, reading=["sum"]), "Expected reading to be one of"),
    ],
)
def test_what_does_not_make_a_method_is_refused(model, make, message):
    with pytest.raises(CaptumLeamError, match=message):
        make(model)


def test_a_wrapped_path_method_has_the_fixed_norm(model):
    faces, references = torch.rand(2, 3, 16, 16).double(), torch.randn(2, 10).double()
    wrapped = CaptumExplainer(
        lambda f: ca.NoiseTunnel(ca.IntegratedGradients(f)), model, nt_samples=2, stdevs=0.0, n_steps=5
    )
    assert wrapped.norm == "fixed"
    plain = CaptumExplainer(ca.IntegratedGradients, model, n_steps=5)
    torch.testing.assert_close(
        wrapped.attribute(faces, reference=references), plain.attribute(faces, reference=references)
    )
    assert CaptumExplainer(lambda f: ca.NoiseTunnel(ca.Saliency(f)), model).norm == "detach"
