"""What holds for every explainer: counted cost, batches, references, and nothing of the user's changed."""

from functools import partial

import pytest
import torch
from torch import nn

from captum_leam.explainers import (
    FAME,
    FGGB,
    RISE,
    XSSAB,
    CorrRISE,
    Cost,
    ExtremalPerturbation,
    GradCAM,
    HiResCAM,
    LayerCAM,
    PositionDecomposition,
    RegionShapley,
    TwoSidedExplainer,
    XFace,
)
from tests.helpers.networks import Net

# Every method on a network, with the cost that its paper's formula has at these settings.
METHODS = {
    "xSSAB": (lambda net, **o: XSSAB(net, threshold=0.2, **o), Cost(1, 2)),
    "FGGB": (lambda net, **o: FGGB(net, threshold=0.2, **o), Cost(4, 10)),
    "FAME": (lambda net, **o: FAME(net, n_steps=3, **o), Cost(7, 6)),
    "CorrRISE": (lambda net, **o: CorrRISE(net, masks=20, **o), Cost(20, 0)),
    "RISE": (lambda net, **o: RISE(net, masks=20, cells=4, **o), Cost(20, 0)),
    "xFace": (lambda net, **o: XFace(net, patches=(4,), stride=4, **o), Cost(10, 0)),
    "regions": (lambda net, **o: RegionShapley(net, halves, orders=3, **o), Cost(7, 0)),
    "extremal": (lambda net, **o: ExtremalPerturbation(net, n_steps=3, restarts=2, grid=4, **o), Cost(8, 6)),
    "Grad-CAM": (lambda net, **o: GradCAM(net, layer_of(net), **o), Cost(1, 1)),
    "LayerCAM": (lambda net, **o: LayerCAM(net, layer_of(net), **o), Cost(1, 1)),
    "positions": (lambda net, **o: PositionDecomposition(net, layer_of(net), **o), lambda n: Cost((n + 2) / n, 10 / n)),
    "HiResCAM": (lambda net, **o: HiResCAM(net, layer_of(net), **o), Cost(1, 1)),
}


def halves(images):
    return (torch.arange(16)[:, None] > 7).long().expand(len(images), 16, 16)


def layer_of(net):
    return getattr(net, "body", nn.Identity())


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


@pytest.fixture
def make(name):
    return METHODS[name][0]


@pytest.fixture
def near(name):
    """Equal within rounding; Captum keeps Shapley values in single precision, and Adam enlarges rounding."""
    return partial(torch.allclose, atol=1e-7 if name in ("regions", "extremal") else 1e-12)


def test_cost_is_the_number_of_passes_that_run(net, faces, references, name, make):
    """Images that the model sees, counted by a hook; and what the formula says."""
    seen = []
    net.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    method = make(net)
    assert method.cost == Cost(0, 0)
    for _ in range(2):  # the first call probes the model
        seen.clear()
        method.attribute(faces, reference=references)
    assert method.cost.forwards == sum(seen) / 3
    stated = METHODS[name][1]
    assert method.cost == (stated(3) if callable(stated) else stated)
    method.attribute(faces[:2], reference=references[:2])
    assert method.cost == (stated(2) if callable(stated) else stated), "of the last call alone"


def test_batches_change_nothing(net, faces, references, make, near):
    whole = make(net, batch_size=64).attribute(faces, reference=references)
    assert whole.shape == (3, 1, 16, 16)
    assert not whole.requires_grad
    assert near(make(net, batch_size=1).attribute(faces, reference=references), whole)
    assert near(make(net, batch_size=2).attribute(faces, reference=references), whole)
    assert near(make(net).attribute(faces[1:2], reference=references[1:2]), whole[1:2])


@pytest.mark.parametrize("batch_size", [1, 5])
def test_no_pass_is_larger_than_the_batch_size(net, faces, references, make, batch_size):
    """What bounds the memory."""
    seen = []
    net.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    make(net, batch_size=batch_size).attribute(faces, reference=references)
    assert 1 <= max(seen) <= max(batch_size, 2)  # where layers are explained, two images probe the model


def test_references_shared_or_per_image_of_any_length(net, faces, references, make, near):
    shared = make(net).attribute(faces, reference=references[0])
    assert near(make(net, batch_size=2).attribute(faces, reference=references[:1] * 7), shared)
    assert near(make(net).attribute(faces, reference=references[:1].expand(3, 10)), shared)
    with pytest.raises(ValueError, match=r"for 3 images, got \(2, 10\)"):
        make(net).attribute(faces, reference=references[:2])
    with pytest.raises(ValueError, match="7"):
        make(net).attribute(faces, reference=torch.ones(7))
    with pytest.raises(TypeError, match="Expected reference to be a tensor .*, got a list"):
        make(net).attribute(faces, reference=[1.0])


def test_both_maps_are_positive_and_their_difference_is_the_signed_map(net, faces, references, make, near):
    method = make(net)
    if not isinstance(method, TwoSidedExplainer):
        pytest.skip("one map only")
    both = method.attribute_both(faces, reference=references)
    assert (both.similar >= 0).all()
    assert (both.dissimilar >= 0).all()
    assert both.similar.sum() > 0
    assert both.dissimilar.sum() > 0
    assert near(both.signed, method.attribute(faces, reference=references))


def test_works_where_gradients_are_off_and_leaves_everything_as_it_was(faces, references, make, near):
    net = Net().double()
    random = torch.get_rng_state()
    expected = make(net).attribute(faces, reference=references)
    assert torch.equal(torch.get_rng_state(), random)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    copies = faces.clone(), references.clone()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert near(make(net).attribute(faces, reference=references), expected)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not net.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert torch.equal(faces, copies[0])
    assert torch.equal(references, copies[1])


def test_training_mode_integers_and_wrong_shapes_raise(net, faces, references, make):
    with pytest.raises(ValueError, match=r"eval\(\)"):
        make(Net().double().train()).attribute(faces, reference=references)
    with pytest.raises(TypeError, match=r"torch\.int64"):
        make(net).attribute(faces.long(), reference=references)
    with pytest.raises(ValueError, match=r"\(3, 16, 16\)"):
        make(net).attribute(faces[0], reference=references)
    with pytest.raises(ValueError, match="batch_size.* got 0"):
        make(net, batch_size=0)
    with pytest.raises(TypeError, match="got a str"):
        make("net")


def test_gradient_methods_name_a_model_without_gradients(net, faces, references):
    def detached(x):
        return net(x).detach()

    for make in (XSSAB, FGGB, FAME):
        with pytest.raises(ValueError, match=f"differentiable operations for {make.__name__}, got"):
            make(detached).attribute(faces, reference=references)
