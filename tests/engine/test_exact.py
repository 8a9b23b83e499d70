"""Maps against closed forms, finite differences, Captum, and slow literal implementations; all in float64."""

import contextlib

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity
from captum_leam.maps import default_blur
from tests.helpers.networks import Net, Residual


@pytest.fixture
def net() -> nn.Module:
    return Net().double()


@pytest.fixture
def faces() -> Tensor:
    return torch.rand(3, 3, 16, 16, dtype=torch.float64)


@pytest.fixture
def references() -> Tensor:
    return torch.randn(3, 10, dtype=torch.float64)


def unit(v: Tensor) -> Tensor:
    return v / v.norm(dim=-1, keepdim=True)


def cosine(net: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    return (unit(net(x)) * unit(r)).sum(1)


def split(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """Activations of the body as a leaf, and the embeddings computed from them: the hook-free oracle."""
    acts = net.body(x).detach().requires_grad_()
    return acts, net.head(acts)


def test_one_pass_equals_the_hook_free_oracle(net, faces, references):
    acts, f = split(net, faces)
    score = (f * unit(references)).sum(1) / f.norm(dim=1).detach()
    (gradient,) = torch.autograd.grad(score.sum(), acts)
    expected = (gradient * acts).sum(1, keepdim=True).detach()
    assert torch.allclose(LEAM(net, net.body).attribute(faces, reference=references), expected, atol=1e-12)


@pytest.mark.parametrize("norm", ["detach", "fixed", "differentiate"])
def test_affine_head_sums_to_the_score(net, faces, references, norm):
    """Sum of the map + ⟨b, ∂s/∂f⟩ is the cosine for the detached norm and 0 for the differentiated cosine."""
    maps = LEAM(net, net.body, norm=norm).attribute(faces, reference=references)
    f = net(faces).detach()
    offset = net.head(torch.zeros(1, 8, 4, 4, dtype=torch.float64)).detach()
    slope = unit(references) / f.norm(dim=1, keepdim=True)
    cos = (unit(f) * unit(references)).sum(1)
    if norm == "differentiate":
        slope = slope - cos[:, None] * unit(f) / f.norm(dim=1, keepdim=True)
    total = maps.sum((1, 2, 3)) + (offset * slope).sum(1)
    expected = torch.zeros(3, dtype=torch.float64) if norm == "differentiate" else cos
    assert torch.allclose(total, expected, atol=1e-12)


def test_own_reference_is_the_map_of_the_log_norm(net, faces):
    acts, f = split(net, faces)
    (gradient,) = torch.autograd.grad(f.norm(dim=1).log().sum(), acts)
    expected = (gradient * acts).sum(1, keepdim=True).detach()
    assert torch.allclose(LEAM(net, net.body).attribute(faces), expected, atol=1e-12)


@pytest.mark.parametrize("norm", ["detach", "differentiate"])
def test_channel_weighting_is_captums_grad_cam(net, faces, references, norm):
    objective = EmbeddingSimilarity(net, norm=norm)
    expected = LayerGradCam(objective, net.body).attribute(faces, additional_forward_args=(references,))
    maps = LEAM(net, net.body, weighting="channel", norm=norm).attribute(faces, reference=references)
    assert torch.allclose(maps, expected.detach(), atol=1e-12)
    relu = LEAM(net, net.body, weighting="channel", norm=norm).attribute(
        faces, reference=references, relu_attributions=True
    )
    assert torch.equal(relu, maps.clamp(min=0))


def test_positive_weighting_is_layer_cam(net, faces, references):
    acts, f = split(net, faces)
    score = (f * unit(references)).sum(1) / f.norm(dim=1).detach()
    (gradient,) = torch.autograd.grad(score.sum(), acts)
    expected = (torch.relu(gradient) * acts).sum(1, keepdim=True).detach()
    maps = LEAM(net, net.body, weighting="positive").attribute(faces, reference=references)
    assert torch.allclose(maps, expected, atol=1e-12)


def test_maps_equal_finite_differences(net, faces, references):
    """Every entry of G ⊙ A is the slope of ⟨f, r̂⟩/c, c fixed, times the activation."""
    kept = LEAM(net, net.body).attribute(faces[:1], reference=references[0], attr_dim_summation=False)
    acts = net.body(faces[:1]).detach()
    c = net(faces[:1]).detach().norm()
    step = 1e-6
    for index in [(0, 0, 0, 0), (0, 3, 2, 1), (0, 7, 3, 3)]:
        up, down = acts.clone(), acts.clone()
        up[index] += step
        down[index] -= step
        slope = ((net.head(up) - net.head(down)) @ unit(references[0])).item() / (2 * step) / c
        assert kept[index].item() == pytest.approx((slope * acts[index]).item(), abs=1e-8)


def test_contrast_is_the_difference_of_two_maps(net, faces, references):
    """M is linear in the direction: contrast = map of r₊ − mean of the maps of r₋, all with the detached norm."""
    others = torch.randn(4, 10, dtype=torch.float64)
    leam = LEAM(net, net.body)
    apart = leam.attribute(faces, reference=references, contrast=others)
    against = torch.stack([leam.attribute(faces, reference=o) for o in others]).mean(0)
    assert torch.allclose(apart, leam.attribute(faces, reference=references) - against, atol=1e-12)
    per_image = leam.attribute(faces, reference=references, contrast=others.expand(3, 4, 10))
    assert torch.allclose(per_image, apart, atol=1e-12)
    single = leam.attribute(faces, reference=references, contrast=others[0])
    assert torch.allclose(single, leam.attribute(faces, reference=references, contrast=others[:1]), atol=1e-12)


def test_list_equals_separate_calls():
    net = Residual().double()
    faces, layers = torch.rand(2, 3, 16, 16, dtype=torch.float64), [net.out, net.stem, net.block, net.block[0], net.out]
    for options in ({}, {"n_steps": 3}, {"n_steps": 2, "path": "conductance"}):
        together = LEAM(net, layers).attribute(faces, **options)
        for layer, maps in zip(layers, together, strict=True):
            assert torch.allclose(maps, LEAM(net, layer).attribute(faces, **options), atol=1e-12)


def test_layer_input_of_the_head_is_the_output_of_the_body(net, faces, references):
    at_input = LEAM(net, net.head).attribute(faces, reference=references, attribute_to_layer_input=True)
    assert torch.allclose(at_input, LEAM(net, net.body).attribute(faces, reference=references), atol=1e-12)


def test_fixed_norm_has_the_gradient_of_the_detached(net, faces, references):
    detached = LEAM(net, net.body).attribute(faces, reference=references)
    assert torch.allclose(
        LEAM(net, net.body, norm="fixed").attribute(faces, reference=references), detached, atol=1e-12
    )


# -- paths ---------------------------------------------------------------------------------------------


def literal_mean_gradient(net: Net, x: Tensor, start: Tensor, r: Tensor, n: int) -> Tensor:
    total = 0
    for i in range(n):
        acts, f = split(net, start + (i + 0.5) / n * (x - start))
        score = (f * unit(r)).sum(1) / f.norm(dim=1).detach()
        total = total + torch.autograd.grad(score.sum(), acts)[0]
    return (total / n * (net.body(x) - net.body(start))).sum(1, keepdim=True).detach()


@pytest.mark.parametrize("at_once", [None, 3, 6, 100])
def test_mean_gradient_equals_the_literal_loop(net, faces, references, at_once):
    maps = LEAM(net, net.body).attribute(faces, reference=references, n_steps=5, internal_batch_size=at_once)
    expected = literal_mean_gradient(net, faces, default_blur(faces), references, 5)
    assert torch.allclose(maps, expected, atol=1e-12)


@pytest.mark.parametrize("weighting", ["positive", "channel"])
def test_path_weighs_the_mean_gradient(net, faces, references, weighting):
    start, r = default_blur(faces), references
    acts = [split(net, start + t * (faces - start)) for t in (0.25, 0.75)]
    grads = [torch.autograd.grad(((f * unit(r)).sum(1) / f.norm(dim=1).detach()).sum(), a)[0] for a, f in acts]
    mean = (grads[0] + grads[1]) / 2
    weights = mean.clamp(min=0) if weighting == "positive" else mean.mean((2, 3), keepdim=True)
    expected = (weights * (net.body(faces) - net.body(start))).sum(1, keepdim=True).detach()
    maps = LEAM(net, net.body, weighting=weighting).attribute(faces, reference=references, n_steps=2)
    assert torch.allclose(maps, expected, atol=1e-12)


def test_path_reference_is_that_of_the_images(net, faces):
    """Own embeddings are those of x, never of points of the path."""
    own = net(faces).detach()
    leam = LEAM(net, net.body)
    assert torch.allclose(leam.attribute(faces, n_steps=3), leam.attribute(faces, reference=own, n_steps=3), atol=1e-12)


@pytest.mark.parametrize("baseline", ["zero", "number", "tensor", "row", "tuple"])
def test_every_type_of_baseline_of_captum_is_taken(net, faces, references, baseline):
    row = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    given, start = {
        "zero": (0, torch.zeros_like(faces)),
        "number": (0.5, torch.full_like(faces, 0.5)),
        "tensor": (row.expand_as(faces) * 0.5, row.expand_as(faces) * 0.5),
        "row": (row, row.expand_as(faces)),
        "tuple": ((row,), row.expand_as(faces)),
    }[baseline]
    maps = LEAM(net, net.body).attribute(faces, reference=references, n_steps=2, baselines=given)
    assert torch.allclose(maps, literal_mean_gradient(net, faces, start, references, 2), atol=1e-12)


def conductance_error(net: Net, x: Tensor, r: Tensor, n: int) -> tuple[Tensor, Tensor]:
    maps, delta = LEAM(net, net.body.act).attribute(
        x, reference=r, n_steps=n, path="conductance", return_convergence_delta=True
    )
    f, start = net(x).detach(), net(default_blur(x)).detach()
    change = ((f - start) * unit(r)).sum(1) / f.norm(dim=1)  # computed independently
    assert torch.allclose(delta, maps.sum((1, 2, 3)) - change, atol=1e-12)
    return delta.abs(), change.abs()


def test_conductance_is_complete(net, references):
    faces = torch.rand(3, 3, 16, 16, dtype=torch.float64) * 4
    at_20, _ = conductance_error(net, faces, references, 20)
    at_80, change = conductance_error(net, faces, references, 80)
    assert (at_80 <= 0.01 * change).all()
    assert (at_80 <= at_20 / 4).all()
    assert (at_20 > 0).all()


def test_conductance_of_the_differentiated_cosine_is_complete_too(net, faces, references):
    leam = LEAM(net, net.body, norm="differentiate")
    maps, delta = leam.attribute(
        faces, reference=references, n_steps=60, path="conductance", return_convergence_delta=True
    )
    change = (cosine(net, faces, references) - cosine(net, default_blur(faces), references)).detach()
    assert torch.allclose(delta, maps.sum((1, 2, 3)) - change, atol=1e-12)
    assert (delta.abs() < 0.01 * change.abs()).all()


def test_conductance_is_not_complete_on_a_parallel_branch():
    """Only at a layer that everything passes through; elsewhere the delta says so."""
    net = Residual().double()
    faces = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    options = {"n_steps": 100, "path": "conductance", "return_convergence_delta": True}
    _, (cut, branch) = LEAM(net, [net.out, net.block]).attribute(faces, **options)
    assert (branch.abs() > 10 * cut.abs()).all()


def test_compute_convergence_delta_equals_the_returned_delta(net, faces, references):
    leam = LEAM(net, net.body)
    maps, delta = leam.attribute(
        faces, reference=references, baselines=0.1, n_steps=4, path="conductance", return_convergence_delta=True
    )
    assert torch.allclose(leam.compute_convergence_delta(maps, 0.1, faces, reference=references), delta, atol=1e-12)


def test_two_steps_of_conductance_equal_those_by_hand():
    """One channel, one pixel: f = (a², a), so every number can be followed."""

    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            a = self.layer(x).flatten(1)
            return torch.cat([a**2, a], 1)

    net = Square()
    x = torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64)
    r = torch.tensor([1.0, 0.0], dtype=torch.float64)
    maps = LEAM(net, net.layer).attribute(x, reference=r, baselines=1.0, n_steps=2, path="conductance")
    # f(3) = (9, 3), norm √90; steps 1→2→3 with slopes 2·1.5 and 2·2.5 at the midpoints
    assert maps.item() == pytest.approx((3.0 + 5.0) / 90**0.5)


class Skip(nn.Module):
    """A block whose input, and an identity, go past it too."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1)
        self.same, self.act = nn.Identity(), nn.ReLU(inplace)
        self.head = nn.Linear(6 * 64, 8)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = y + self.block(y)
        early = y.sin()  # a branch that has run before the layers whose input it shares
        y = early + self.same(y).tanh()
        return self.head((self.act(y) + y).flatten(1))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("layer", "layer_input"), [("block", True), ("same", False), ("same", True), ("act", False), ("act", True)]
)
def test_a_tensor_shared_with_a_skip_connection_is_differentiated_whole(layer, layer_input, inplace, frozen):
    net, x, r = (
        Skip(inplace).double().requires_grad_(not frozen),
        torch.rand(2, 3, 16, 16).double(),
        torch.randn(8).double(),
    )
    chosen = net.get_submodule(layer)
    if inplace and layer == "act" and layer_input:  # Captum shows the map of act(y) + y; the model computes 2 act(y)
        with pytest.raises(ValueError, match="changed in place and used elsewhere"):
            LEAM(net, chosen).attribute(x, reference=r, attribute_to_layer_input=True)
        return
    single = LEAM(net, chosen, weighting="channel").attribute(x, reference=r, attribute_to_layer_input=layer_input)
    listed = LEAM(net, [net.stem, chosen], weighting="channel").attribute(
        x, reference=r, attribute_to_layer_input=layer_input
    )
    assert torch.allclose(single, listed[1], rtol=1e-9)
    thawed = LEAM(net.requires_grad_(), chosen, weighting="channel").attribute(
        x, reference=r, attribute_to_layer_input=layer_input
    )
    assert torch.equal(single, thawed)
    if not frozen:
        cam = LayerGradCam(EmbeddingSimilarity(net, r), chosen)
        assert torch.allclose(single, cam.attribute(x, attribute_to_layer_input=layer_input).detach(), rtol=1e-9)
    assert not x.requires_grad


# -- the fixed norm, arguments and channels along a path -------------------------------------------------


def test_contrast_of_the_fixed_norm_is_linear():
    """It is linear: the map of a contrast is the map of the reference minus that of the others."""
    net, x = Net().double(), torch.rand(2, 3, 16, 16).double()
    r, others = torch.randn(10).double(), torch.randn(3, 10).double()
    unit_others = torch.nn.functional.normalize(others)
    for options in ({"norm": "fixed"}, {}):
        leam = LEAM(net, net.body, **options)
        path = {} if options else {"n_steps": 3, "path": "conductance"}
        of_contrast = leam.attribute(x, reference=r, contrast=others, **path)
        parts = [leam.attribute(x, reference=u, **path) for u in unit_others]
        assert torch.allclose(of_contrast, leam.attribute(x, reference=r, **path) - torch.stack(parts).mean(0))
    objective = EmbeddingSimilarity(net, norm="fixed")
    w = objective.fixed_weights(x, r, others)
    each = torch.stack([objective.fixed_weights(x, u) for u in unit_others]).mean(0)
    assert torch.allclose(w, objective.fixed_weights(x, r) - each)


class Scaled(nn.Module):
    """Takes a second argument, one number per image, which the embedding depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return self.net(x * gain[:, None, None, None])


def test_additional_arguments_stay_with_their_images_along_a_path():
    net, x, r = Scaled().double().eval(), torch.rand(3, 3, 16, 16).double(), torch.randn(3, 10).double()
    gain = torch.tensor([0.5, 1.0, 3.0]).double()
    asked = {"n_steps": 40, "path": "conductance", "return_convergence_delta": True}
    leam = LEAM(net, net.net.body)
    together, delta = leam.attribute(x, additional_forward_args=gain, reference=r, **asked)
    batched = leam.attribute(x, additional_forward_args=gain, reference=r, n_steps=6, internal_batch_size=9)
    for i in range(3):
        alone = {"additional_forward_args": gain[i : i + 1], "reference": r[i : i + 1]}
        assert torch.allclose(leam.attribute(x[i : i + 1], **alone, **asked)[0], together[i : i + 1])
        assert torch.allclose(leam.attribute(x[i : i + 1], n_steps=6, **alone), batched[i : i + 1])
    f, start = net(x, gain), net(default_blur(x), gain)
    change = ((f - start) * torch.nn.functional.normalize(r)).sum(1) / f.norm(dim=1)
    assert torch.allclose(delta, together.sum((1, 2, 3)) - change)
    assert (delta.abs() <= 0.01 * change.abs()).all()
    objective = EmbeddingSimilarity(net, norm="fixed")
    expected = torch.nn.functional.normalize(r) / f.norm(dim=1, keepdim=True)
    assert torch.allclose(objective.fixed_weights(x, r, None, gain), expected)


@pytest.mark.parametrize("path", ["mean_gradient", "conductance"])
def test_kept_channels_along_a_path_sum_to_the_map(path):
    net, x, r = Net(), torch.rand(2, 3, 16, 16), torch.randn(10)
    kept = LEAM(net, net.body).attribute(x, reference=r, n_steps=3, path=path, attr_dim_summation=False)
    assert kept.shape == (2, 8, 4, 4)
    summed = LEAM(net, net.body).attribute(x, reference=r, n_steps=3, path=path)
    assert torch.allclose(kept.sum(1, keepdim=True), summed, atol=1e-6)


def test_a_layer_within_no_grad_of_the_model_is_explained():
    """A frozen backbone that the model runs without gradients: what comes after the layer's map is differentiable all the same."""

    class Frozen(nn.Module):
        def __init__(self, off: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.off = off

        def forward(self, x):
            with torch.no_grad() if self.off else contextlib.nullcontext():
                x = self.first(x)
            return torch.tanh(self.second(x)).mean((2, 3))

    with torch.random.fork_rng():
        frozen, tracked = Frozen(True).eval(), Frozen(False).eval()
        x, reference = torch.randn(2, 3, 8, 8), torch.randn(4)
    maps = LEAM(frozen, frozen.first).attribute(x, reference=reference)
    assert torch.allclose(maps, LEAM(tracked, tracked.first).attribute(x, reference=reference), atol=1e-7)


def test_changing_an_untracked_tensor_in_place_twice_raises():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)

        def forward(self, x):
            with torch.no_grad():
                x = self.first(x)
            self.relu(x)
            return (x.mul_(2) + 1).mean((2, 3))

    model = Twice().eval()
    with pytest.raises(ValueError, match=r"relu. \(ReLU\), but one .* changed in place later in the pass.*or after"):
        LEAM(model, model.relu).attribute(torch.rand(2, 3, 8, 8), reference=torch.ones(4))
    assert not model.relu._forward_hooks


@pytest.mark.parametrize("second", [nn.ReLU(inplace=True), nn.Identity()])
@pytest.mark.parametrize("steps", [1, 3])
def test_two_layers_that_hand_on_one_tensor_equal_one_by_one(second, steps):
    """An activation in place, and another layer on the same tensor, which the model uses beside both: a list equals one by one."""

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.first, self.second = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), second

        def forward(self, x):
            x = self.conv(x)
            return torch.tanh(self.second(self.first(x)) + 0.5 * x).mean((2, 3))

    with torch.random.fork_rng():
        model = Skip().eval()
        x, reference = torch.randn(2, 3, 8, 8), torch.randn(4)
    asked = {"reference": reference, "n_steps": steps}
    together = LEAM(model, [model.first, model.second]).attribute(x, **asked)
    for layer, maps in zip((model.first, model.second), together, strict=True):
        assert torch.allclose(maps, LEAM(model, layer).attribute(x, **asked), atol=1e-8)
