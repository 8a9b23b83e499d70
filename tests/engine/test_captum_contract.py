"""Every clause of the contract with Captum (design: signatures, return types, state); each can fail."""

import copy
import gc
import inspect
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import (
    FeatureAblation,
    GradientAttribution,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    LayerIntegratedGradients,
    NoiseTunnel,
    Occlusion,
    Saliency,
    ShapleyValueSampling,
)
from captum.attr import visualization as viz
from captum.metrics import infidelity
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity
from captum_leam.layers import tokens_to_map
from captum_leam.maps import place_on_field
from tests.helpers.networks import Net, Residual, Tokens


class Counted(nn.Module):
    """Counts forward passes and the images in them, and keeps the arguments it was given."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.calls, self.images, self.args = net, 0, 0, None
        self.eval()

    def forward(self, x: Tensor, *args: object) -> Tensor:
        self.calls, self.images, self.args = self.calls + 1, self.images + len(x), args
        return self.net(x)


class TwoOutputs(nn.Module):
    """A layer that puts out a tuple."""

    def __init__(self, container: type = tuple) -> None:
        super().__init__()
        self.split = _Split(container)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(2 * 4 * 64, 7))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.split(x)
        return self.head(torch.cat([a, b], 1))


class _Split(nn.Module):
    def __init__(self, container: type) -> None:
        super().__init__()
        self.conv, self.container = nn.Conv2d(3, 8, 3, 2, 1), container

    def forward(self, x: Tensor) -> object:
        return self.container(torch.tanh(self.conv(x)).chunk(2, 1))


# -- class and signature -------------------------------------------------------------------------------


def test_is_a_layer_and_gradient_attribution():
    leam = LEAM(Net(), nn.Identity())
    assert isinstance(leam, LayerAttribution)
    assert isinstance(leam, GradientAttribution)
    assert LEAM.get_name() == "LEAM"
    assert leam.has_convergence_delta() is True
    assert leam.multiplies_by_inputs is True


def test_positional_signature_is_that_of_layer_grad_cam():
    def positional(method: object) -> list[tuple[str, object]]:
        parameters = inspect.signature(method).parameters.values()
        return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert positional(LEAM.attribute.__wrapped__) == positional(LayerGradCam.attribute.__wrapped__)
    assert positional(LEAM.__init__) == positional(LayerGradCam.__init__)


def test_attribute_is_logged_as_captums_are():
    assert hasattr(LEAM.attribute, "__wrapped__")  # NoiseTunnel calls it


# -- what comes back -----------------------------------------------------------------------------------


def test_one_layer_gives_a_tensor_and_a_list_a_list(faces):
    net = Net()
    assert LEAM(net, net.body).attribute(faces).shape == (3, 1, 4, 4)
    assert LEAM(net, net.body).attribute(faces, attr_dim_summation=False).shape == (3, 8, 4, 4)
    maps = LEAM(net, [net.body, net.body.act]).attribute(faces)
    assert isinstance(maps, list)
    assert [tuple(m.shape) for m in maps] == [(3, 1, 4, 4), (3, 1, 8, 8)]
    assert isinstance(LEAM(net, [net.body]).attribute(faces), list)


@pytest.mark.parametrize("container", [tuple, list])
def test_a_layer_with_several_outputs_gives_a_tuple(faces, container):
    net = TwoOutputs(container)
    maps = LEAM(net, net.split).attribute(faces)
    expected = LayerGradCam(EmbeddingSimilarity(net), net.split).attribute(faces)
    assert isinstance(maps, tuple)
    assert [m.shape for m in maps] == [e.shape for e in expected] == [(3, 1, 8, 8)] * 2
    channel = LEAM(net, net.split, weighting="channel").attribute(faces)
    assert all(torch.allclose(a, b) for a, b in zip(channel, expected, strict=True))
    assert isinstance(LEAM(net, [net.split]).attribute(faces)[0], tuple)
    assert isinstance(LEAM(net, net.split).attribute(faces, n_steps=2), tuple)


def test_a_tuple_of_one_comes_back_as_a_tensor(faces):
    """As Captum does: `_format_output(len > 1, …)`."""

    class One(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (x * 2,)

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.head = One(), nn.Sequential(nn.Flatten(), nn.Linear(768, 5))
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.one(x)[0])

    net = Wrapped()
    assert isinstance(LEAM(net, net.one).attribute(faces), Tensor)


def test_maps_are_signed_raw_small_and_detached(faces):
    net = Net()
    maps = LEAM(net, net.body).attribute(faces.requires_grad_())
    assert maps.shape[-2:] == (4, 4)  # not upsampled
    assert (maps < 0).any()
    assert (maps > 0).any()
    assert not maps.requires_grad
    assert torch.equal(LEAM(net, net.body).attribute(faces, relu_attributions=True), maps.clamp(min=0))
    scaled = nn.Sequential(net, Scale(5.0)).eval()
    assert torch.allclose(LEAM(scaled, net.body).attribute(faces), maps, atol=1e-6)  # raw scale is that of the cosine
    assert not torch.allclose(maps.abs().amax((1, 2, 3)), torch.ones(3))  # not normalised


class Scale(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return self.by * x


def test_layers_share_one_forward_and_one_backward_pass(faces, monkeypatch):
    net = Counted(Net())
    backwards = []
    original = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: backwards.append(1) or original(*a, **k))
    for _ in range(2):  # the first call probes the model
        net.calls = net.images = 0
        backwards.clear()
        LEAM(net, [net.net.body, net.net.body.act, net.net.body.first]).attribute(faces)
    assert (net.calls, len(backwards)) == (1, 1)
    net.calls = net.images = 0
    LEAM(net, [net.net.body, net.net.body.act]).attribute(faces, n_steps=4)
    assert (net.calls, len(backwards)) == (6, 5)
    net.calls = net.images = 0
    LEAM(net, net.net.body).attribute(faces, n_steps=4, internal_batch_size=6)
    assert (net.calls, net.images, len(backwards)) == (4, 18, 7)


def test_additional_arguments_reach_the_model_unchanged(faces):
    net, extra = Counted(Net()), {"any": "thing"}
    vector = torch.randn(10)  # looks like a reference, and is none
    maps = LEAM(net, net.net.body).attribute(faces, additional_forward_args=(vector, extra, None))
    assert net.args[0] is vector
    assert net.args[1] is extra
    assert net.args[2] is None
    assert torch.equal(maps, LEAM(net, net.net.body).attribute(faces))
    LEAM(net, net.net.body).attribute(faces, additional_forward_args=(vector, extra), n_steps=3)
    assert net.args[0] is vector


def test_several_inputs_are_explained_together(faces):
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()
            self.eval()

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.net(a + b)

    model = Sum()
    maps = LEAM(model, model.net.body).attribute((faces, faces * 0.5))
    assert torch.allclose(maps, LEAM(model.net, model.net.body).attribute(faces * 1.5), atol=1e-6)
    assert LEAM(model, model.net.body).attribute((faces, faces * 0.5), baselines=(0, 0), n_steps=2).shape == (
        3,
        1,
        4,
        4,
    )


# -- with Captum's own tools ---------------------------------------------------------------------------


def test_noise_tunnel_without_noise_gives_the_map_of_own_embeddings(faces):
    net = Net()
    plain = LEAM(net, net.body).attribute(faces)
    smooth = NoiseTunnel(LEAM(net, net.body)).attribute(faces, nt_samples=3, stdevs=1e-6)
    assert torch.allclose(smooth, plain, atol=1e-4)


def test_noise_tunnel_takes_one_reference_per_image(faces):
    net, references = Net(), torch.randn(3, 10)
    leam = LEAM(EmbeddingSimilarity(net), net.body)
    smooth = NoiseTunnel(leam).attribute(faces, nt_samples=2, stdevs=1e-6, additional_forward_args=(references,))
    assert torch.allclose(smooth, LEAM(net, net.body).attribute(faces, reference=references), atol=1e-4)


def test_noise_tunnel_takes_a_shared_reference(faces):
    net, reference = Net(), torch.randn(10)
    smooth = NoiseTunnel(LEAM(net, net.body)).attribute(faces, nt_samples=2, stdevs=1e-6, reference=reference)
    assert torch.allclose(smooth, LEAM(net, net.body).attribute(faces, reference=reference), atol=1e-4)


def test_noise_tunnel_returns_a_delta_per_sample(faces):
    net = Net()
    options = {"n_steps": 2, "path": "conductance", "reference": torch.randn(10), "return_convergence_delta": True}
    maps, delta = NoiseTunnel(LEAM(net, net.body)).attribute(faces, nt_samples=2, stdevs=1e-6, **options)
    assert maps.shape == (3, 1, 4, 4)
    assert delta.shape == (6,)


def test_a_held_reference_per_image_meets_another_batch_size(faces):
    """Guessing would mix people: NoiseTunnel repeats image by image, IntegratedGradients step by step."""
    objective = EmbeddingSimilarity(Net(), torch.randn(3, 10))
    with pytest.raises(ValueError, match=r"additional_forward_args=\(references,\)"):
        NoiseTunnel(LEAM(objective, objective.model.body)).attribute(faces, nt_samples=2)
    with pytest.raises(ValueError, match="Expected reference to have shape"):
        IntegratedGradients(objective).attribute(faces)
    with pytest.raises(ValueError, match="Expected reference to have shape"):
        LEAM(Net(), nn.Identity()).forward_func and LEAM(objective.model, objective.model.body).attribute(
            faces, reference=torch.randn(2, 10)
        )


def test_captum_interpolates_and_draws_the_maps(faces):
    net = Net()
    maps = LEAM(net, net.body).attribute(faces)
    upsampled = LayerAttribution.interpolate(maps, (16, 16), "bilinear")
    assert upsampled.shape == (3, 1, 16, 16)
    figure, _ = viz.visualize_image_attr(
        upsampled[0].permute(1, 2, 0).numpy(), faces[0].permute(1, 2, 0).numpy(), "blended_heat_map", use_pyplot=False
    )
    assert figure.axes


@pytest.mark.parametrize("method", [FeatureAblation, ShapleyValueSampling])
def test_label_maps_are_feature_masks(faces, method):
    net = Net()
    labels = torch.zeros(1, 1, 16, 16, dtype=torch.long)
    labels[..., 8:, :] = 1
    objective = EmbeddingSimilarity(net, net(faces[:1]).detach())
    values = method(objective).attribute(faces[:1], feature_mask=labels)
    with torch.no_grad():
        without = faces[:1] * (labels != 1)
        drop = objective(faces[:1]) - objective(without)
    assert values[0, 0, 0, 0] == values[0, 0, 7, 15]
    if method is FeatureAblation:
        assert torch.allclose(values[0, 0, 15, 15], drop[0], atol=1e-6)


# -- the same objective for Captum's methods -----------------------------------------------------------


def test_integrated_gradients_is_complete_under_the_fixed_norm():
    net = Net().double()
    faces, references = torch.rand(3, 3, 16, 16).double(), torch.randn(3, 10).double()
    objective = EmbeddingSimilarity(net, norm="fixed")
    weights = objective.fixed_weights(faces, references)
    ig = IntegratedGradients(objective)
    _, delta = ig.attribute(faces, additional_forward_args=(weights,), return_convergence_delta=True)
    change = (objective(faces, weights) - objective(torch.zeros_like(faces), weights)).detach()
    assert (delta.abs() <= 0.01 * change.abs()).all()
    assert torch.allclose(objective(faces, weights), EmbeddingSimilarity(net)(faces, references))


def test_integrated_gradients_is_not_complete_under_the_detached_norm():
    """Which is why the fixed norm exists; a documented trap."""
    net = Net().double()
    faces, references = 4 * torch.rand(3, 3, 16, 16).double(), torch.randn(3, 10).double()
    objective = EmbeddingSimilarity(net)
    _, delta = IntegratedGradients(objective).attribute(
        faces, additional_forward_args=(references,), return_convergence_delta=True, n_steps=200
    )
    change = (objective(faces, references) - objective(torch.zeros_like(faces), references)).detach()
    assert (delta.abs() > 0.05 * change.abs()).any()


@pytest.mark.parametrize("norm", ["detach", "differentiate", "fixed"])
def test_captum_methods_run_on_the_objective(faces, norm):
    net, references = Net(), torch.randn(3, 10)
    objective = EmbeddingSimilarity(net, norm=norm)
    given = objective.fixed_weights(faces, references) if norm == "fixed" else references
    args = {"additional_forward_args": (given,)}
    faces.requires_grad_()
    assert LayerGradCam(objective, net.body).attribute(faces, **args).shape == (3, 1, 4, 4)
    assert LayerIntegratedGradients(objective, net.body).attribute(faces, n_steps=3, **args).shape == (3, 8, 4, 4)
    assert Saliency(objective).attribute(faces, **args).shape == faces.shape
    assert Occlusion(objective).attribute(faces, (3, 8, 8), strides=(3, 8, 8), **args).shape == faces.shape
    assert NoiseTunnel(Saliency(objective)).attribute(faces, nt_samples=2, **args).shape == faces.shape


def test_captums_infidelity_takes_the_objective():
    """It is zero for an exact attribution of a linear score, but not for its negation."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 6)).eval()
    x, r = torch.rand(2, 3, 4, 4), torch.randn(6)
    objective = EmbeddingSimilarity(net, norm="fixed")
    weights = objective.fixed_weights(x, r)
    exact = torch.einsum("nd,dp->np", weights, net[1].weight).view_as(x).detach()

    def noise(inputs: Tensor) -> tuple[Tensor, Tensor]:
        by = 0.1 * torch.randn_like(inputs)
        return by, inputs - by

    good = infidelity(objective, noise, x, exact, additional_forward_args=(weights,), n_perturb_samples=5)
    bad = infidelity(objective, noise, x, -exact, additional_forward_args=(weights,), n_perturb_samples=5)
    assert (good < 1e-8).all()
    assert (bad > 1e-5).all()


# -- state ---------------------------------------------------------------------------------------------


def snapshot(model: nn.Module) -> dict[str, object]:
    return {
        "modes": [m.training for m in model.modules()],
        "flags": [p.requires_grad for p in model.parameters()],
        "grads": [p.grad for p in model.parameters()],
        "values": copy.deepcopy(model.state_dict()),
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
    }


def assert_same(before: dict[str, object], after: dict[str, object]) -> None:
    for key in ("modes", "flags", "hooks"):
        assert before[key] == after[key], key
    assert all(a is b for a, b in zip(before["grads"], after["grads"], strict=True))
    assert all(torch.equal(before["values"][k], after["values"][k]) for k in before["values"])


@pytest.mark.parametrize("options", [{}, {"n_steps": 2}, {"n_steps": 2, "path": "conductance"}])
def test_nothing_of_the_users_is_changed(faces, options):
    net = Residual()
    net.block[0].train()  # a mixed mode that is harmless, to be kept
    net.head[2].weight.requires_grad_(False)
    net.stem[0].weight.grad = torch.ones_like(net.stem[0].weight)
    before, images, numbers = snapshot(net), faces.clone(), torch.random.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    LEAM(net, [net.out, net.block]).attribute(faces, reference=torch.randn(12, generator=torch.Generator()), **options)
    LEAM(net, net.stem).attribute(faces, attribute_to_layer_input=True, **options)
    assert_same(before, snapshot(net))
    assert torch.equal(faces, images)
    assert not faces.requires_grad
    assert faces.grad is None
    assert torch.equal(torch.random.get_rng_state(), numbers)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert torch.is_grad_enabled()


def test_hooks_are_removed_when_the_model_raises(faces):
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            self.net(x)
            raise OSError("disk on fire")

    model = Broken()
    before = snapshot(model)
    with pytest.raises(OSError, match="disk on fire"):
        LEAM(model, [model.net.body, model.net.head]).attribute(faces)
    with pytest.raises(ValueError, match="Expected reference to have shape"):
        LEAM(model.net, model.net.body).attribute(faces, reference=torch.ones(7))
    assert_same(before, snapshot(model))


def test_nothing_is_kept_between_calls(faces):
    net = Net()
    leam = LEAM(net, net.body)
    leam.attribute(faces)
    gc.collect()
    kept = sum(isinstance(o, Tensor) and o.shape == (3, 8, 4, 4) for o in gc.get_objects())
    assert kept == 0


def test_threads_with_one_model_get_the_maps_of_one(faces):
    net = Net()
    images = [torch.rand(2, 3, 16, 16) for _ in range(4)]
    expected = [LEAM(net, net.body).attribute(x, n_steps=3) for x in images]
    results: dict[int, list[Tensor]] = {}

    def work(i: int) -> None:
        results[i] = [LEAM(net, net.body).attribute(images[i], n_steps=3) for _ in range(15)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.allclose(m, expected[i], atol=1e-6) for i, maps in results.items() for m in maps)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_in_any_gradient_mode(faces, context):
    net = Net()
    expected = LEAM(net, net.body).attribute(faces)
    with context():
        assert torch.allclose(LEAM(net, net.body).attribute(faces * 1), expected, atol=1e-6)
        assert LEAM(net, net.body).attribute(faces * 1, n_steps=2).shape == expected.shape


def test_frozen_parameters_and_in_place_activations_do_not_change_the_map(faces):
    net, copied = Residual(), None
    for module in (net.stem, net.out, net.block, net.stem[0], net.block[2], net.block[0]):
        expected = LEAM(net, module).attribute(faces)
        name = next(n for n, m in net.named_modules() if m is module)
        copied = copy.deepcopy(net).requires_grad_(False)
        assert torch.allclose(LEAM(copied, copied.get_submodule(name)).attribute(faces), expected, atol=1e-6)
        plain = copy.deepcopy(net)
        for m in plain.modules():
            m.inplace = False if hasattr(m, "inplace") else None
        assert torch.allclose(LEAM(plain, plain.get_submodule(name)).attribute(faces), expected, atol=1e-6)


def test_data_parallel_on_the_cpu_passes_through(faces):
    net = Net()
    wrapped = nn.DataParallel(net)
    assert torch.allclose(LEAM(wrapped, net.body).attribute(faces), LEAM(net, net.body).attribute(faces), atol=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() < 1, reason="needs a CUDA device")
def test_cuda_gives_the_same_maps(faces):
    net = Net()
    expected = LEAM(net, net.body).attribute(faces, reference=torch.ones(10), n_steps=2)
    on_gpu = copy.deepcopy(net).cuda()
    maps = LEAM(on_gpu, on_gpu.body).attribute(faces.cuda(), reference=torch.ones(10), n_steps=2)
    assert torch.allclose(maps.cpu(), expected, atol=1e-4)


def test_grad_kwargs_reach_autograd(faces):
    net = Net()
    LEAM(net, net.body).attribute(faces, grad_kwargs={"retain_graph": True})
    with pytest.raises(TypeError, match="nonsense"):
        LEAM(net, net.body).attribute(faces, grad_kwargs={"nonsense": True})


def test_token_maps_with_a_reshape_equal_gradient_times_activation(faces):
    net, reference = (
        Tokens(),
        F.normalize(torch.randn(12), dim=0),
    )  # it ends in a LayerNorm: no gradient of its own embedding
    maps = LEAM(net, net.block, reshape=tokens_to_map).attribute(faces, reference=reference)
    assert maps.shape == (3, 1, 4, 4)
    tokens = net.block(torch.cat([net.cls.expand(3, -1, -1), net.patch(faces).flatten(2).transpose(1, 2)], 1))
    tokens = tokens.detach().requires_grad_()
    f = net.last(tokens)[:, 0]
    (g,) = torch.autograd.grad((f @ reference / f.norm(dim=1).detach()).sum(), tokens)
    expected = (g * tokens).sum(2)[:, 1:].view(3, 1, 4, 4).detach()
    assert torch.allclose(maps, expected, atol=1e-5)
    both = LEAM(net, [net.patch, net.block], reshape=[None, tokens_to_map]).attribute(faces, reference=reference)
    assert torch.allclose(both[1], expected, atol=1e-5)


def test_maps_can_be_placed_and_compared(faces):
    net = Net()
    maps = LEAM(net, net.body).attribute(faces)
    assert place_on_field(maps, (16, 16)).shape == (3, 16, 16)
