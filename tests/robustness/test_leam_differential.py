"""LEAM against a second implementation without hooks or modules, over random networks; and what follows from the mathematics."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_leam import LEAM
from tests.helpers.profiles import EXAMPLES
from tests.helpers.programs import LAYOUTS, Program, interpret, laid_out, oracle, own_layers, programs

TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3, torch.bfloat16: 0.25, torch.float16: 0.1}

# What may rightly be said of some of the networks drawn, and when.
NOTHING = ("zero gradient", "score to depend on layer", "got only zeros", "are zero", "to have a direction")


def draw_images(
    data: st.DataObject, program: Program, dtype: torch.dtype = torch.float64, most: int = 3
) -> tuple[Tensor, ...]:
    batch, size = data.draw(st.integers(1, most)), (data.draw(st.integers(4, 7)), data.draw(st.integers(4, 7)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**20)))
    return tuple(torch.randn(batch, 3, *size, generator=generator).to(dtype) for _ in range(program.inputs))


def as_list(maps: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return list(maps) if isinstance(maps, tuple) else [maps]


def explain(
    program: Program, xs: tuple[Tensor, ...], at: int, reference: Tensor, **options: object
) -> list[Tensor] | str:
    """The maps, or why there are none."""
    try:
        return as_list(
            LEAM(program, program.layer(at), reshape=lambda a: a).attribute(xs, reference=reference, **options)
        )
    except ValueError as error:
        return str(error)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        assert pytorch_refuses(program, xs)
        assume(False)  # such as an activation in place after a ReLU: no network that anyone could have trained


def pytorch_refuses(program: Program, xs: tuple[Tensor, ...]) -> bool:
    """Whether the bare network has no gradients either, were they asked for everywhere."""
    trained = copy.deepcopy(program).requires_grad_()
    trained.steps = [replace(step, mode="") for step in trained.steps]  # its own no_grad would hide what LEAM looks at
    with torch.enable_grad():
        leaves = [x.detach().clone().requires_grad_() for x in xs]
        embedding = trained(*[x.clone() for x in leaves])
        try:
            torch.autograd.grad(embedding.sum(), [*leaves, *trained.parameters()], allow_unused=True)
        except RuntimeError:
            return True
    return False


def agree(found: list[Tensor] | str, expected: list[Tensor] | None, program: Program, tolerance: float = 1e-8) -> None:
    if isinstance(found, str):
        if "in place" in found:
            assert any(step.kind in ("relu_", "leaky_", "add_") for step in program.steps)
            return
        if expected is not None and "zero gradient" in found:  # of one image is enough to be refused
            assert any((torch.stack([m.abs().flatten(1).sum(1) for m in expected]).sum(0) < 1e-6).tolist())
            return
        assert expected is None, found
        assert any(word in found for word in NOTHING), found
        return
    assert expected is not None
    scale = max(float(m.abs().max()) for m in expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.double() - theirs.double()).abs().max() <= tolerance * scale + 1e-12


@EXAMPLES
@given(programs(), st.data())
def test_the_interpreter_is_the_network(program, data):
    """What is compared with runs the same function."""
    program = program.double()
    xs = draw_images(data, program)
    with torch.no_grad():
        assert torch.allclose(program(*xs), interpret(program, xs).embedding, atol=1e-10)


@EXAMPLES
@given(programs(), st.booleans(), st.booleans(), st.sampled_from(LAYOUTS), st.data())
def test_maps_equal_the_second_implementation(program, takes_in, frozen, layout, data):
    program = program.double().requires_grad_(not frozen)
    at = data.draw(st.sampled_from(own_layers(program)))
    xs = tuple(laid_out(x, layout) for x in draw_images(data, program))
    towards = torch.randn(len(xs[0]), 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before = [x.clone() for x in xs]
    try:
        found = explain(program, xs, at, towards, attribute_to_layer_input=takes_in)
    except RuntimeError:  # a layer within a checkpoint runs again in the backward pass, without its hook
        assert any(step.mode == "checkpoint" for step in program.steps)
        return
    with torch.enable_grad():
        agree(found, oracle(program, tuple(x.detach() for x in xs), at, towards, takes_in=takes_in), program)
    assert all(torch.equal(x, b) for x, b in zip(xs, before, strict=True))
    assert all(x.grad is None for x in xs)
    assert all(p.grad is None and p.requires_grad is not frozen for p in program.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in program.modules())
    assert torch.is_grad_enabled()


@EXAMPLES
@given(programs(modes=False), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), st.data())
def test_maps_of_lower_precision_are_near_the_exact_ones(program, dtype, data):
    at = data.draw(st.sampled_from(own_layers(program)))
    program = program.to(dtype)
    xs = draw_images(data, program, dtype)
    towards = torch.randn(5, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = explain(program, xs, at, towards)
    if isinstance(found, str):
        return  # whether it is said rightly is the double precision's to tell
    assert all(m.dtype == dtype and m.isfinite().all() for m in found)
    exact = oracle(program.double(), tuple(x.double() for x in xs), at, towards.double())
    assert exact is not None
    scale = max(float(m.abs().max()) for m in exact)
    error = max(float((m.double() - e).abs().mean()) for m, e in zip(found, exact, strict=True))
    assert error <= TOLERANCE[dtype] * max(scale, 1e-2)  # the mean: at a kink one unit may switch


@EXAMPLES
@given(programs(), st.data())
def test_a_list_of_layers_equals_one_by_one(program, data):
    program = program.double()
    layers = data.draw(st.lists(st.sampled_from(own_layers(program)), min_size=1, max_size=3))
    xs = draw_images(data, program)
    towards = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    try:
        alone = [explain(program, xs, at, towards) for at in layers]
        assume(not any(isinstance(found, str) for found in alone))
        modules = [program.layer(at) for at in layers]
        together = LEAM(program, modules, reshape=lambda a: a).attribute(xs, reference=towards)
    except RuntimeError:
        assert any(step.mode == "checkpoint" for step in program.steps)
        return
    for one, of_list in zip(alone, together, strict=True):
        for a, b in zip(one, as_list(of_list), strict=True):
            assert torch.allclose(a, b, atol=1e-9)


@EXAMPLES
@given(programs(), st.data())
def test_no_images_give_no_maps(program, data):
    at = data.draw(st.sampled_from(own_layers(program)))
    xs = tuple(torch.zeros(0, 3, 5, 6) for _ in range(program.inputs))
    try:
        found = explain(program, xs, at, torch.ones(5))
    except RuntimeError:
        assert program.steps[at].mode == "checkpoint"
        return
    if isinstance(found, str):
        assert "score to depend on layer" in found or "in place" in found
    else:
        assert all(m.shape == (0, 1, 5, 6) for m in found)


@EXAMPLES
@given(programs(modes=False), st.integers(2, 4), st.integers(1, 9), st.data())
def test_paths_equal_their_formula(program, n_steps, at_once, data):
    """mean_t G(x_t) ⊙ (A(x) − A(x′)), with the second implementation's gradients."""
    # Of two activations in place on one tensor, PyTorch takes the second one's slope at exactly 0 as 0, also for what is used beside
    # it; LEAM's copy leaves it at 1 there. An elementwise map of one pass is 0 at these places; along a path it is not.
    assume(sum(step.kind in ("relu_", "leaky_") for step in program.steps) < 2)
    program = program.double()
    at = data.draw(st.sampled_from([i for i in own_layers(program) if program.steps[i].kind != "split"]))
    xs = draw_images(data, program)
    towards = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = explain(program, xs, at, towards, n_steps=n_steps, baselines=0, internal_batch_size=at_once * len(xs[0]))
    assume(not isinstance(found, str))

    def parts(t: float) -> tuple[Tensor, Tensor]:
        points = tuple(t * x for x in xs)
        from tests.helpers.programs import Probe

        trace = interpret(program, points, Probe(interpret(program, points).written[at]))
        f = trace.embedding
        score = (f @ (towards / towards.norm())) / f.detach().norm(dim=1)
        return trace.leaves[0].detach(), torch.autograd.grad(score.sum(), trace.leaves[0])[0]

    mean = sum(parts((i + 0.5) / n_steps)[1] for i in range(n_steps)) / n_steps
    expected = (mean * (parts(1.0)[0] - parts(0.0)[0])).sum(1, keepdim=True)
    assert torch.allclose(found[0], expected, atol=1e-9 + 1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["batch norm", "dropout"])
@EXAMPLES
@given(program=programs(modes=False), data=st.data())
def test_training_mode_raises(program, data, kind):
    at = data.draw(st.sampled_from(own_layers(program)))
    active = [m for m in program.modules() if isinstance(m, nn.BatchNorm2d if kind == "batch norm" else nn.Dropout)]
    for module in active:
        module.train()
    found = explain(program, draw_images(data, program, torch.float32), at, torch.ones(5))
    assert not active or (isinstance(found, str) and "eval()" in found)
    assert all(m.training for m in active)


# -- metamorphic: maps change exactly as mathematics says ---------------------------------------------------


class Then(nn.Module):
    """A network with something after it."""

    def __init__(self, net: nn.Module, then: nn.Module) -> None:
        super().__init__()
        self.net, self.then = net, then
        self.eval()

    def forward(self, *xs: Tensor) -> Tensor:
        return self.then(self.net(*xs))


def explained(program: Program, data: st.DataObject) -> tuple[int, tuple[Tensor, ...], Tensor, list[Tensor]]:
    """A layer, images, references and maps of a network that has a map."""
    at = data.draw(st.sampled_from(own_layers(program)))
    xs = draw_images(data, program.double())
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**20)))
    towards = torch.randn(len(xs[0]), 5, dtype=torch.float64, generator=generator)
    found = explain(program, xs, at, towards)
    assume(not isinstance(found, str))
    return at, xs, towards, found


def same(found: list[Tensor] | Tensor | tuple[Tensor, ...], expected: list[Tensor]) -> None:
    for a, b in zip(found if isinstance(found, list) else as_list(found), expected, strict=True):
        assert torch.allclose(a, b, atol=1e-9 * (1 + float(b.abs().max())))


PLAIN = programs(modes=False)


@EXAMPLES
@given(PLAIN, st.floats(1e-3, 1e3), st.data())
def test_lengths_of_references_and_of_the_head_do_not_matter(program, by, data):
    at, xs, towards, maps = explained(program, data)
    same(explain(program, xs, at, by * towards), maps)
    with torch.no_grad():
        program.head.weight *= by
        program.head.bias *= by
    same(explain(program, xs, at, towards), maps)


@EXAMPLES
@given(PLAIN, st.data())
def test_an_orthogonal_change_of_the_embeddings_basis_does_not_matter(program, data):
    at, xs, towards, maps = explained(program, data)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).Q
    turned = nn.Linear(5, 5, bias=False).double()
    turned.weight.data = turn
    leam = LEAM(Then(program, turned), program.layer(at), reshape=lambda a: a)
    same(leam.attribute(xs, reference=towards @ turn.T), maps)


@EXAMPLES
@given(PLAIN, st.data())
def test_the_order_of_the_batch_moves_the_maps_with_it(program, data):
    at, xs, towards, maps = explained(program, data)
    order = torch.tensor(data.draw(st.permutations(range(len(towards)))))
    same(explain(program, tuple(x[order] for x in xs), at, towards[order]), [m[order] for m in maps])


class Mirroring(nn.Module):
    """Convolutions whose kernels are symmetric, of odd width, strides that divide the width, pooling over everything."""

    def __init__(self, widths: list[int], strides: list[int], activation: str, skip: bool, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            sizes = [3, *widths]
            self.parts = nn.ModuleList(
                nn.Conv2d(a, b, k, s, k // 2) for a, b, k, s in zip(sizes, widths, (3, 5, 1), strides, strict=False)
            )
            self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths)
            self.same = nn.Conv2d(widths[-1], widths[-1], 3, 1, 1)
            self.head = nn.Linear(widths[-1], 5)
            for p in self.parameters():
                p.data.normal_(0.1, 0.5)
        self.activation, self.skip = MIRRORED[activation], skip
        for conv in [*self.parts, self.same]:
            conv.weight.data = (conv.weight.data + conv.weight.data.flip(3)) / 2
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.parts, self.norms, strict=True):
            x = self.activation(norm(conv(x)))
        y = self.same(x)
        x = y + x if self.skip else y
        return self.head(torch.tanh(x).mean((2, 3)))


MIRRORED = {"softplus": nn.functional.softplus, "relu": torch.relu, "tanh": torch.tanh}


@EXAMPLES
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.lists(st.sampled_from([1, 1, 3]), min_size=3, max_size=3),
    st.sampled_from(sorted(MIRRORED)),
    st.booleans(),
    st.sampled_from(["elementwise", "positive", "channel"]),
    st.integers(1, 3),
    st.integers(0, 2**20),
    st.data(),
)
def test_mirrored_images_of_a_network_that_mirrors_have_mirrored_maps(
    widths, strides, activation, skip, weighting, n_steps, seed, data
):
    """The map of the mirrored image is the mirrored map: at every layer, of every weighting, along a path, too.

    A stride keeps the mirror where it divides the width less one: 28 columns become 10, then 4, then 2.
    """
    net = Mirroring(widths, strides, activation, skip, seed)
    x = torch.randn(2, 3, 10, 28, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    towards = torch.randn(5, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    assert torch.allclose(net(x.flip(3)), net(x), atol=1e-9)
    layer = data.draw(st.sampled_from([*net.parts, *net.norms, net.same]))
    leam = LEAM(net, layer, weighting=weighting)
    try:
        maps = leam.attribute(x, reference=towards, n_steps=n_steps)
        mirrored = leam.attribute(x.flip(3), reference=towards, n_steps=n_steps)
    except ValueError as error:
        assert any(word in str(error) for word in (*NOTHING, "channels last"))  # noqa: PT017
        return
    assert torch.allclose(mirrored, maps.flip(3), atol=1e-9 * (1 + float(maps.abs().max())))


@EXAMPLES
@given(PLAIN, st.floats(-5, 5), st.data())
def test_channels_that_are_not_used_do_not_matter(program, constant, data):
    """A constant in channels of the image, and of the embedding's head input, that no weight reads."""
    at, xs, towards, maps = explained(program, data)
    with torch.no_grad():
        for stem in program.stem:
            stem.weight[:, 2] = 0
    maps = explain(program, xs, at, towards)
    assume(not isinstance(maps, str))
    moved = tuple(torch.cat([x[:, :2], x[:, 2:] + constant], 1) for x in xs)
    same(explain(program, moved, at, towards), maps)


@EXAMPLES
@given(PLAIN, st.data())
def test_the_weightings_agree_where_they_must(program, data):
    """Positive and negative gradients' parts add up to the elementwise map; at one position all channels have their own mean."""
    at, xs, towards, maps = explained(program, data)

    def weighted(weighting: str, reference: Tensor) -> list[Tensor]:
        leam = LEAM(program, program.layer(at), weighting=weighting, reshape=lambda a: a)
        return as_list(leam.attribute(xs, reference=reference))

    opposite = [-m for m in weighted("positive", -towards)]
    same([p + n for p, n in zip(weighted("positive", towards), opposite, strict=True)], maps)


@EXAMPLES
@given(PLAIN, st.data())
def test_contrasts_are_linear(program, data):
    """The map against a contrast is the map of the person minus the mean map of the others."""
    at, xs, towards, maps = explained(program, data)
    others = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    each = [explain(program, xs, at, one) for one in others]
    assume(not any(isinstance(found, str) for found in each))
    expected = [m - (a + b) / 2 for m, a, b in zip(maps, *each, strict=True)]
    same(explain(program, xs, at, towards, contrast=others), expected)


@EXAMPLES
@given(PLAIN, st.data())
def test_kept_channels_sum_to_the_map(program, data):
    at, xs, towards, maps = explained(program, data)
    channels = explain(program, xs, at, towards, attr_dim_summation=False)
    same([c.sum(1, keepdim=True) for c in channels], maps)
    same(explain(program, xs, at, towards, relu_attributions=True), [m.clamp(min=0) for m in maps])
