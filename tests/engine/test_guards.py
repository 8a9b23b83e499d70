"""Models and inputs that would give a wrong map raise, or give the right one."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity, explain_faces, leave_one_out_centroids, suggest_layers
from captum_leam.errors import ReliabilityWarning
from captum_leam.layers import channels_last_to_first, get_layer, tokens_to_map
from captum_leam.objectives import embed
from tests.helpers.networks import Net, Residual, Tokens


@pytest.fixture
def net() -> Net:
    return Net()


class Lambda(nn.Module):
    def __init__(self, net: nn.Module, function: object) -> None:
        super().__init__()
        self.net, self.function = net, function
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.net, x)


# -- objectives with zero gradient ---------------------------------------------------------------------


def test_own_embedding_under_the_differentiated_cosine_raises(net, faces):
    leam = LEAM(net, net.body, norm="differentiate")
    for reference in (None, net(faces).detach(), 3 * net(faces).detach(), -net(faces).detach()):
        with pytest.raises(ValueError, match=r"zero gradient for images \[0, 1, 2\]"):
            leam.attribute(faces, reference=reference)
    mixed = torch.randn(3, 10)
    mixed[1] = net(faces)[1].detach()
    with pytest.raises(ValueError, match=r"zero gradient for images \[1\]"):
        leam.attribute(faces, reference=mixed)
    leam.attribute(faces, reference=torch.randn(10))


def test_own_embedding_in_a_differentiated_objective_raises(net, faces):
    with pytest.raises(ValueError, match="zero gradient"):
        EmbeddingSimilarity(net, norm="differentiate")(faces)
    objective = EmbeddingSimilarity(net, net(faces).detach(), norm="differentiate")
    with pytest.warns(ReliabilityWarning, match="rounding noise"):
        objective(faces)
    with pytest.warns(ReliabilityWarning), pytest.raises(ValueError, match="zero gradient"):
        LEAM(objective, net.body).attribute(faces)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_users_own_score_with_zero_gradient_raises(faces, dtype):
    net, x = Net().to(dtype), faces.to(dtype)
    own = net(x).detach()
    with pytest.raises(ValueError, match="zero gradient"):
        LEAM(lambda x: F.cosine_similarity(net(x), own), net.body).attribute(x)
    with pytest.raises(ValueError, match="zero gradient"):
        LEAM(lambda x: net(x).sum(1) * 0, net.body).attribute(x)


def test_contrast_equal_to_the_reference_raises(net, faces):
    r = torch.randn(10)
    with pytest.raises(ValueError, match="Expected contrast to differ from reference"):
        LEAM(net, net.body).attribute(faces, reference=r, contrast=2 * r)


def test_a_dead_layer_raises_and_names_the_images(faces):
    net = Net(nn.ReLU)
    with torch.no_grad():
        net.body.second.bias.fill_(-1e3)
    with pytest.raises(ValueError, match=r"layer 'body.first' .* got zero gradient for images \[0, 1, 2\]"):
        LEAM(net, net.body.first).attribute(faces)


def test_the_last_block_of_a_transformer_raises(faces):
    net = Tokens()
    from captum_leam.layers import tokens_to_map

    with pytest.raises(ValueError, match="only other positions are used after the layer"):
        LEAM(net, net.last, reshape=tokens_to_map).attribute(faces)


# -- layers --------------------------------------------------------------------------------------------


def test_a_layer_that_did_not_run_raises(net, faces):
    unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="it did not run.*not a module of forward_func"):
        LEAM(net, unused).attribute(faces)
    net.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match=r"layer 'spare' \(Conv2d\) to run in the forward pass, but it did not run"):
        LEAM(net, [net.body, net.spare]).attribute(faces)


def test_a_module_list_raises(faces):
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)])
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x.flatten(1)

    model = Listed()
    with pytest.raises(ValueError, match="ModuleList never runs itself: pass a list"):
        LEAM(model, model.blocks).attribute(faces)
    assert len(LEAM(model, list(model.blocks)).attribute(faces)) == 2


def test_a_layer_that_ran_twice_raises(faces):
    net = nn.Sequential(nn.Conv2d(3, 3, 3, 1, 1), nn.ReLU(), nn.Conv2d(3, 3, 3, 1, 1))
    net.append(net[1]).append(nn.Flatten()).eval()
    with pytest.raises(ValueError, match=r"layer '1' \(ReLU\) to run once, but it ran 2 times"):
        LEAM(net, net[1]).attribute(faces)
    assert LEAM(net, net[2]).attribute(faces).shape == (3, 1, 16, 16)


def test_a_reference_computed_inside_the_forward_raises(net, faces):
    siamese = Lambda(net, lambda net, x: F.cosine_similarity(net(x), net(x.flip(0)).detach()))
    with pytest.raises(ValueError, match="compute the reference outside of the forward function"):
        LEAM(siamese, net.body).attribute(faces)


def test_a_layer_that_the_score_does_not_depend_on_raises(net, faces):
    detached = Lambda(net, lambda net, x: net.head(net.body(x).detach()))
    with pytest.raises(ValueError, match="score to depend on layer 'net.body' .* through differentiable operations"):
        LEAM(detached, net.body).attribute(faces)
    unused = Lambda(net, lambda net, x: (net.body.first(x), net(x))[1])
    with pytest.raises(ValueError, match="ran 2 times"):
        LEAM(unused, net.body.first).attribute(faces)
    numpy = Lambda(net, lambda net, x: torch.from_numpy(net(x).detach().numpy()))
    with pytest.raises(ValueError, match="leaves torch"):
        LEAM(numpy, net.body).attribute(faces)
    without = Lambda(net, no_grad_forward)
    with pytest.raises(ValueError, match="no_grad"):
        LEAM(without, net.body).attribute(faces)


def no_grad_forward(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)


def test_layers_without_positions_raise(net, faces):
    with pytest.raises(ValueError, match=r"layer 'head.1' \(Linear\) .* got shape \(3, 10\), which has no positions"):
        LEAM(net, net.head[1]).attribute(faces)
    tokens = Tokens()
    with pytest.raises(ValueError, match="reshape=captum_leam.layers.tokens_to_map"):
        LEAM(tokens, tokens.block).attribute(faces)
    with pytest.raises(ValueError, match=r"Expected `reshape` to bring layer .* got \(3, 17\)"):
        LEAM(tokens, tokens.block, reshape=lambda t: t[..., 0]).attribute(faces)
    with pytest.raises(ValueError, match="got 2 for 1 layers"):
        LEAM(tokens, tokens.block, reshape=[None, None]).attribute(faces)


def test_channels_last_layers_need_a_reshape(faces):
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 6, 2, 2), nn.LayerNorm(6)
            self.head = nn.Linear(6, 5)
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.norm(self.conv(x).permute(0, 2, 3, 1))).mean((1, 2)))

    model = Last()
    with pytest.raises(ValueError, match="reshape=captum_leam.layers.channels_last_to_first"):
        LEAM(model, model.norm).attribute(faces)
    maps = LEAM(model, model.norm, reshape=channels_last_to_first).attribute(faces)
    assert maps.shape == (3, 1, 8, 8)


@pytest.mark.parametrize("layer", ["body", None, 3])
def test_a_layer_that_is_no_module_raises(net, layer):
    with pytest.raises(TypeError, match="layer to be a torch.nn.Module"):
        LEAM(net, layer)
    with pytest.raises(TypeError, match=r"layers.get_layer\(model, 'body'\)"):
        LEAM(net, "body")
    with pytest.raises(ValueError, match="empty list"):
        LEAM(net, [])


def test_get_layer_names_similar_layers(net):
    assert get_layer(net, "body.act") is net.body.act
    with pytest.raises(ValueError, match=r"layer of the model, got 'body.akt'. Similar names: body.act"):
        get_layer(net, "body.akt")


def test_a_layer_that_returns_no_tensor_raises(faces):
    class Dict(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.d, self.head = Dict(), nn.Linear(768, 4)
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.d(x)["x"].flatten(1))

    model = Model()
    with pytest.raises(TypeError, match=r"layer 'd' \(Dict\) to put out tensors, got a dict"):
        LEAM(model, model.d).attribute(faces)


# -- what the forward function returns -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda net, x: net(x).mean(), ValueError, r"got \(\). Check the model for a mean or sum over the batch"),
        (lambda net, x: net(x).mean((0, 1))[None], ValueError, r"per image \(3,\), got \(1,\)"),
        (lambda net, x: net(x).flatten()[None], ValueError, "fixed batch of 1"),
        (lambda net, x: net(x)[:2], ValueError, r"embeddings \(3, D\), got \(2, 10\)"),
        (lambda net, x: net(x)[:, :1], ValueError, "Squeeze scores"),
        (lambda net, x: net.body(x), ValueError, r"embeddings \(3, D\), got \(3, 8, 4, 4\)"),
        (lambda net, x: [net(x)], TypeError, "got a list"),
        (lambda net, x: net(x).argmax(1), TypeError, "torch.int64"),
        (lambda net, x: net(x) * float("nan"), ValueError, r"got NaN or infinite values for images \[0, 1, 2\]"),
        (lambda net, x: net(x) * 0, ValueError, "are zero"),
    ],
)
def test_outputs_that_are_no_embeddings_raise(net, faces, function, error, message):
    with pytest.raises(error, match=message):
        LEAM(Lambda(net, function), net.body).attribute(faces)


def test_one_by_one_positions_are_flattened(net, faces):
    pooled = Lambda(net, lambda net, x: net(x)[..., None, None])
    assert torch.equal(LEAM(pooled, net.body).attribute(faces), LEAM(net, net.body).attribute(faces))


def test_nan_in_a_map_with_finite_embeddings_raises(net, faces):
    def spoil(net: Net, x: Tensor) -> Tensor:
        return net.head(torch.nan_to_num(net.body(x)))

    faces[1, 0, 0, 0] = float("nan")
    with pytest.raises(
        ValueError, match=r"map of layer 'net.body' \(Body\) .* NaN or infinite values for images \[1\]"
    ):
        LEAM(Lambda(net, spoil), net.body).attribute(faces)


# -- options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 3}, "`target` to be None .* got 3"),
        ({"n_steps": 0}, "n_steps to be a whole number, 1 or more, got 0"),
        ({"n_steps": 2.5}, "n_steps to be a whole number, 1 or more, got 2.5"),
        ({"path": "straight"}, "path to be one of 'mean_gradient', 'conductance', got 'straight'"),
        ({"path": "conductance"}, 'n_steps to be 2 or more with path="conductance", got 1'),
        ({"baselines": 0}, "`baselines` only with a path, got them with n_steps=1"),
        ({"return_convergence_delta": True}, "got path='mean_gradient'"),
        ({"return_convergence_delta": True, "n_steps": 3}, "got path='mean_gradient'"),
        (
            {"n_steps": 2, "path": "conductance", "return_convergence_delta": True, "relu_attributions": True},
            "and relu_attributions=True",
        ),
        (
            {"n_steps": 2, "baselines": torch.zeros(2, 3, 16, 16)},
            "Expected `baselines` to be a number or to have shape",
        ),
        ({"n_steps": 2, "baselines": torch.zeros(3, 16, 16)}, "Expected `baselines` to be a number or to have shape"),
        ({"reference": torch.ones(3, 9)}, r"reference to have shape \(10,\), \(1, 10\) or \(3, 10\), got \(3, 9\)"),
        ({"reference": torch.ones(2, 10)}, r"reference to have shape .*, got \(2, 10\)"),
        ({"reference": torch.zeros(10)}, r"reference to have a direction, got rows \[0\] that are zero"),
        ({"reference": torch.full((10,), float("inf"))}, "NaN or infinite"),
        ({"contrast": torch.ones(4, 9)}, r"contrast to have shape .*, got \(4, 9\)"),
        ({"contrast": torch.ones(2, 4, 10)}, r"contrast to have shape .*, got \(2, 4, 10\)"),
    ],
)
def test_wrong_options_of_attribute_raise(net, faces, options, message):
    with pytest.raises(ValueError, match=message):
        LEAM(net, net.body).attribute(faces, **options)


def test_arguments_of_wrong_types_raise(net, faces):
    leam = LEAM(net, net.body)
    with pytest.raises(TypeError, match="Expected reference to be a tensor .*, got a list"):
        leam.attribute(faces, reference=[1.0] * 10)
    with pytest.raises(TypeError, match="Expected contrast to be a tensor .*, got a list"):
        leam.attribute(faces, contrast=[1.0] * 10)
    with pytest.raises(TypeError, match="a tuple of tensors, got a ndarray"):
        leam.attribute(faces.numpy())
    with pytest.raises(ValueError, match="weighting to be one of .* got 'gradcam'"):
        LEAM(net, net.body, weighting="gradcam")
    with pytest.raises(ValueError, match="norm to be one of .* got 'l2'"):
        LEAM(net, net.body, norm="l2")
    with pytest.raises(TypeError, match="forward_func to be a module or callable .* got a int"):
        LEAM(3, net.body)
    with pytest.raises(ValueError, match="Expected norm to be one of .*, got 'l2'"):
        EmbeddingSimilarity(net, norm="l2")
    with pytest.raises(ValueError, match='weights of the explained images with norm="fixed"'):
        EmbeddingSimilarity(net, norm="fixed")(faces)


def test_scores_take_no_reference(net, faces):
    leam = LEAM(EmbeddingSimilarity(net), net.body)
    with pytest.raises(ValueError, match="Expected reference and contrast to be None"):
        leam.attribute(faces, reference=torch.ones(10))
    with pytest.raises(ValueError, match="Expected reference and contrast to be None"):
        leam.attribute(faces, contrast=torch.ones(10))


def test_paths_of_an_objective_need_a_held_reference(net, faces):
    with pytest.raises(ValueError, match="not those of a function"):
        LEAM(EmbeddingSimilarity(net, torch.ones(10)), net.body).attribute(faces, n_steps=2, path="conductance")
    with pytest.raises(ValueError, match="every point of the path would be its own reference"):
        LEAM(EmbeddingSimilarity(net), net.body).attribute(faces, n_steps=2)
    r = torch.randn(10)
    held = LEAM(EmbeddingSimilarity(net, r), net.body).attribute(faces, n_steps=2)
    assert torch.allclose(held, LEAM(net, net.body).attribute(faces, reference=r, n_steps=2), atol=1e-6)


def test_an_internal_batch_size_below_the_batch_warns(net, faces):
    with pytest.warns(UserWarning, match="internal_batch_size to be at least the number of images, 3, got 1"):
        LEAM(net, net.body).attribute(faces, n_steps=2, internal_batch_size=1)


def test_what_all_images_share_is_not_repeated_along_the_path(faces):
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: Tensor, shift: Tensor, gains: Tensor) -> Tensor:
            return (self.net(x) + shift) * gains[:, None]

    model, shared, gains = Shared().eval(), torch.randn(10), torch.tensor([0.5, 1.0, 3.0])
    leam = LEAM(model, model.net.body)
    options = {"additional_forward_args": (shared, gains), "reference": torch.randn(10), "n_steps": 4}
    one_by_one = leam.attribute(faces, **options)
    torch.testing.assert_close(leam.attribute(faces, **options, internal_batch_size=12), one_by_one)


def test_float16_that_underflows_raises(net, faces):
    conv = nn.Conv2d(3, 4, 3)
    tiny = Lambda(nn.Sequential(conv, nn.ReLU(), nn.Flatten()).half(), lambda net, x: net(x) * 1e-8)
    with torch.no_grad():
        conv.weight *= 1e-8
    with pytest.raises(ValueError, match="This is float16"):
        suggest_layers(tiny, faces.half())
    with pytest.raises(ValueError, match="This is float16"):
        LEAM(tiny, tiny.net[0]).attribute(faces.half())


def test_the_default_baseline_raises_where_inputs_are_no_images(faces):
    net = nn.Sequential(nn.Unflatten(1, (3, 16, 16)), nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    flat = faces.flatten(1)
    with pytest.raises(ValueError, match="Pass `baselines`"):
        LEAM(net, net[1]).attribute(flat, n_steps=2)
    assert LEAM(net, net[1]).attribute(flat, n_steps=2, baselines=0).shape == (3, 1, 14, 14)


def test_a_path_of_integers_raises(faces):
    """Between two whole numbers there is nothing, and the difference of two uint8 wraps around."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 8)).eval()
    leam = LEAM(Lambda(net, lambda net, x: net(x / 255)), net[0])
    whole = (faces * 255).to(torch.uint8)
    assert leam.attribute(whole).shape == (3, 1, 14, 14)
    for baselines in (None, 0):
        with pytest.raises(ValueError, match=r"torch\.uint8.*x\.float\(\)"):
            leam.attribute(whole, n_steps=2, baselines=baselines)
    assert leam.attribute(whole.float(), n_steps=2, baselines=0).shape == (3, 1, 14, 14)


# -- models --------------------------------------------------------------------------------------------


def test_active_batch_norm_and_dropout_raise(faces):
    net = Residual().train()
    with pytest.raises(ValueError, match=r"BatchNorm2d 'block.1' uses the statistics of the batch.*model.eval\(\)"):
        LEAM(net, net.out).attribute(faces)
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        LEAM(lambda x: net(x), net.out).attribute(faces)
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        LEAM(net.forward, net.out).attribute(faces)
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        LEAM(EmbeddingSimilarity(net), net.out).attribute(faces)
    dropping = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Flatten())
    with pytest.raises(ValueError, match="Dropout '1' is active"):
        LEAM(dropping, dropping[0]).attribute(faces)
    dropping[1].p = 0.0
    LEAM(dropping, dropping[0]).attribute(faces)
    forgetful = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()).eval()
    with pytest.raises(ValueError, match="keeps no running statistics"):
        LEAM(forgetful, forgetful[0]).attribute(faces)


def test_training_mode_without_effect_is_explained(faces):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).train()
    LEAM(net, net[0]).attribute(faces)
    assert net.training


def test_inference_tensors_are_taken_and_inference_parameters_raise(net, faces):
    with torch.inference_mode():
        made = faces * 1
        inside = Net()
    assert torch.allclose(LEAM(net, net.body).attribute(made), LEAM(net, net.body).attribute(faces), atol=1e-6)
    with torch.inference_mode():
        reference = net(faces)
    assert torch.allclose(
        LEAM(net, net.body).attribute(faces, reference=reference), LEAM(net, net.body).attribute(faces), atol=1e-6
    )
    with pytest.raises(ValueError, match=r"parameters were made under torch.inference_mode\(\)"):
        LEAM(inside, inside.body).attribute(faces)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_raises(net, faces):
    traced = torch.jit.trace(net, faces)
    for model, layer in ((traced, traced.body), (traced, net.body)):
        with pytest.raises(TypeError, match="TorchScript"):
            LEAM(model, layer).attribute(faces)


def test_exported_programs_raise(net, faces):
    program = torch.export.export(net, (faces,))
    with pytest.raises(TypeError, match="Explain the eager module it was exported from"):
        LEAM(program, net.body).attribute(faces)
    for module in (program.module(), torch.export.unflatten(program)):
        for call in (LEAM(module, module.get_submodule("body.first")).attribute, partial(suggest_layers, module)):
            with pytest.raises(TypeError, match=r"was made by torch\.export, .* Explain the eager module"):
                call(faces)
    with pytest.raises(TypeError, match="Explain the eager module"):
        suggest_layers(program, faces)


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_models_run_eagerly(faces, in_place):
    net = Net()
    expected = LEAM(net, net.body).attribute(faces)
    if in_place:
        net.compile(backend="eager")
        compiled = net
    else:
        compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        compiled(faces)  # compiled once without hooks
    torch.testing.assert_close(LEAM(compiled, net.body).attribute(faces), expected)
    torch.testing.assert_close(
        LEAM(compiled, net.body.act).attribute(faces), LEAM(Net_like(net), net.body.act).attribute(faces)
    )
    torch._dynamo.reset()


def Net_like(net: nn.Module) -> object:
    return net.forward


# -- references ----------------------------------------------------------------------------------------


def test_leave_one_out_centroids_of_a_single_image_raise():
    with pytest.raises(ValueError, match="one image only of: bob, carl"):
        leave_one_out_centroids(torch.randn(4, 5), ["ann", "ann", "bob", "carl"])
    with pytest.raises(ValueError, match="one label for each of the 4 embeddings, got 3"):
        leave_one_out_centroids(torch.randn(4, 5), [1, 1, 2])


def test_leave_one_out_centroids_equal_means_of_the_others():
    f, labels = torch.randn(7, 5), torch.tensor([3, 1, 3, 1, 3, 1, 1])
    u = F.normalize(f)
    for i, centroid in enumerate(leave_one_out_centroids(f, labels)):
        others = [u[j] for j in range(7) if j != i and labels[j] == labels[i]]
        assert torch.allclose(centroid, F.normalize(torch.stack(others).mean(0), dim=0), atol=1e-6)


def test_explain_faces_with_wrong_preset_shape_or_reference_raises(net, faces):
    with pytest.raises(ValueError, match="Expected preset to be one of 'fast', 'default', 'best', got 'slow'"):
        explain_faces(net, faces, "slow")
    with pytest.raises(ValueError, match="Expected x to have shape"):
        explain_faces(net, faces[0])
    with pytest.raises(ValueError, match="`reference` to have 3 rows, one per image, or one for all, got 2"):
        explain_faces(net, faces, reference=torch.ones(2, 10))


# -- what looks right and is not -------------------------------------------------------------------------


class Normalised(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.model(x))


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_model_that_normalises_has_no_map_of_its_own_embedding(faces, scale):
    """A second direction separates rounding noise from a layer of little influence."""
    net = Net()
    with torch.no_grad():
        next(net.body.parameters()).mul_(scale)
    with pytest.raises(ValueError, match="zero gradient"):
        LEAM(Normalised(net), net.body).attribute(faces)
    assert LEAM(net, net.body).attribute(faces).abs().sum() > 0
    with pytest.warns(UserWarning, match="all embeddings have length 1"):
        maps = LEAM(Normalised(net), net.body).attribute(faces, reference=torch.randn(10))
    assert maps.abs().sum() > 0


def test_small_maps_of_a_layer_of_little_influence_are_shown(faces):
    class Faint(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(1e-9 * x) + torch.ones(10)

    net = Faint()
    assert LEAM(net, net.body).attribute(1e-3 * faces).abs().sum() > 0


def test_the_norm_of_scores_is_their_own(faces):
    net = Net()
    objective = EmbeddingSimilarity(net, torch.randn(10))
    with pytest.raises(ValueError, match="Pass the norm to EmbeddingSimilarity"):
        LEAM(objective, net.body, norm="differentiate").attribute(faces)


def test_perturbing_without_a_reference_warns(faces):
    with torch.no_grad(), pytest.warns(ReliabilityWarning, match="it is 1 for every image"):
        EmbeddingSimilarity(Net())(faces)


class Opaque:
    """A callable that shows none of what it runs."""

    def __init__(self, model: nn.Module) -> None:
        self.held = [model]

    def __call__(self, x: Tensor) -> Tensor:
        return self.held[0](x)


def training_net(extra: nn.Module) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), extra, nn.ReLU(), nn.Flatten(), nn.Linear(256, 8))
    return net.train()


class FunctionalDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.dropout(x, 0.5, self.training)


ACTIVE = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "Dropout": nn.Dropout,
    "random": FunctionalDropout,
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    "_SpectralNorm|ParametrizedConv2d": lambda: torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)),
    "Conv2d": lambda: torch.nn.utils.spectral_norm(nn.Conv2d(4, 4, 1)),
}


@pytest.mark.parametrize("kind", list(ACTIVE))
@pytest.mark.parametrize(
    "wrap", [lambda m: m, Opaque, lambda m: Opaque(m).__call__, lambda m: EmbeddingSimilarity(Opaque(m))]
)
def test_active_modules_are_found_wherever_they_hide(faces, kind, wrap):
    net = training_net(ACTIVE[kind]())
    forward = wrap(net)
    before, rng = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    with pytest.raises(ValueError, match=r"call model\.eval\(\)|Call model\.eval\(\)") as error:
        LEAM(forward, net[0]).attribute(faces)
    assert any(name in str(error.value) for name in kind.split("|"))
    assert torch.equal(torch.get_rng_state(), rng)
    if "Spectral" not in kind:
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with pytest.raises(ValueError, match="all model.eval"):
        embed(Opaque(net) if isinstance(forward, EmbeddingSimilarity) else forward, faces)
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_random_numbers_of_another_thread_are_not_taken_for_the_models(faces):
    """Only modules in training mode are suspected."""
    net = Net()

    def drawing(x: Tensor) -> Tensor:
        torch.rand(1)  # stands for another thread
        return net(x)

    assert LEAM(drawing, net.body).attribute(faces).shape == (3, 1, 4, 4)


def test_tokens_that_are_no_square_need_a_grid():
    with pytest.raises(ValueError, match=r"square of patches .* got 193 tokens"):
        tokens_to_map(torch.rand(1, 193, 8))
    assert tokens_to_map(torch.rand(1, 193, 8), (16, 12)).shape == (1, 8, 16, 12)


def test_batches_do_not_change_overall_maps_and_baselines_do(faces):
    net, start = Net(), torch.rand(3, 3, 16, 16)
    whole = explain_faces(net, faces, layers=[net.body], baselines=start)
    parts = explain_faces(net, faces, layers=[net.body], baselines=start, batch_size=2)
    assert torch.allclose(whole, parts, atol=1e-6)
    assert not torch.allclose(whole, explain_faces(net, faces, layers=[net.body], baselines=start.flip(0)))
    with pytest.raises(TypeError, match="unexpected keyword argument 'additional_forward_args'"):
        explain_faces(net, faces, additional_forward_args=(1,))
    with pytest.raises(ValueError, match="Expected batch_size to be a whole number, 1 or more, got 0"):
        explain_faces(net, faces, batch_size=0)


def test_a_vanishing_norm_is_a_thousand_roundings_or_a_twentieth():
    """A thousand roundings of a unit vector; where that is much of it, a twentieth of its length."""
    from captum_leam._engine.outputs import noise_floor

    sizes = {torch.float64: 1e3 * 2**-52, torch.float32: 1e3 * 2**-23, torch.bfloat16: 0.05, torch.float16: 0.05}
    for dtype, size in sizes.items():
        assert noise_floor(torch.zeros(1, dtype=dtype)) == pytest.approx(size)
