"""What a model does is found out before anything is drawn: rows, chance, the rest of the batch, and the place of the grid."""

import contextlib
import random
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity, explain_faces, explain_pair, suggest_layers
from captum_leam._engine.fingerprint import entries
from captum_leam._engine.probe import check_model
from captum_leam.explainers import XSSAB, CorrRISE, GradCAM
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.layers import tokens_to_map
from captum_leam.objectives import embed
from captum_leam.verification import verify
from tests.helpers.networks import SIZE, Around, Inner

Change = Callable[[Inner, Tensor], Tensor]


def attention(net: Inner, x: Tensor) -> Tensor:
    f = net(x)
    return torch.softmax(f @ f.T, 1) @ f


def halves(f: Tensor, n: int) -> Tensor:
    return f[:n] + f[n : 2 * n]


def tiles(net: Inner, x: Tensor) -> Tensor:
    parts = torch.cat([x[..., :24, :24], x[..., :24, 24:], x[..., 24:, :24], x[..., 24:, 24:]])
    return net(parts).view(4, len(x), -1).sum(0)


def windows(net: Inner, x: Tensor) -> Tensor:
    cut = x.unfold(2, 24, 24).unfold(3, 24, 24).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    return net(cut).view(len(x), 4, -1).mean(1)


def padded(net: Inner, x: Tensor) -> Tensor:
    return net(torch.cat([x, x.new_zeros(8 - len(x) % 8, *x.shape[1:])]))[: len(x)]


def distinct(net: Inner, x: Tensor) -> Tensor:
    more = torch.cat([x, x[:1], x[:1]])
    first = (more.flatten(1)[:, None] == more.flatten(1)).all(2).int().argmax(1)
    kept = first.unique()
    return net(torch.cat([more[kept], more[:1]]))[torch.searchsorted(kept, first)][: len(x)]


VIEWS: dict[str, Change] = {
    "flip": lambda net, x: halves(net(torch.cat([x, x.flip(3)])), len(x)),
    "shifted crops": lambda net, x: halves(net(torch.cat([F.pad(x, (4, -4)), x])), len(x)),
    "ten views": lambda net, x: net(torch.cat([x] * 10)).view(10, len(x), -1).mean(0),
    "tiles": tiles,
    "windows, image by image": windows,
    "padding of the batch": padded,
    "one row for equal images": distinct,
}


def reordered(order_of: Callable[[Tensor], Tensor], undo: bool) -> Change:
    def change(net: Inner, x: Tensor) -> Tensor:
        order = order_of(x)
        f = net(x[order])
        return f[order.argsort()] if undo else f

    return change


ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "reversed": lambda x: torch.arange(len(x) - 1, -1, -1),
    "rolled": lambda x: torch.arange(len(x)).roll(1),
    "brightest first": lambda x: x.mean((1, 2, 3)).argsort(descending=True),
    "darkest first": lambda x: x.mean((1, 2, 3)).argsort(),
    "drawn by torch": lambda x: torch.randperm(len(x)),
    "drawn by numpy": lambda x: torch.from_numpy(np.random.permutation(len(x))),
    "drawn by python": lambda x: torch.tensor(random.sample(range(len(x)), len(x))),
}
SHUFFLED = {f"{name}, put back": reordered(order, True) for name, order in ORDERS.items()}
MISPLACED = {name: reordered(order, False) for name, order in ORDERS.items()}

BATCH: dict[str, Change] = {
    "batch_norm of embeddings": lambda net, x: F.batch_norm(net(x), None, None, training=True),
    "batch_norm of a layer": lambda net, x: net.head(F.batch_norm(net.blocks(x), None, None, training=True)),
    "the mean taken off": lambda net, x: net(x - x.mean(0)),
    "the mean taken off, detached": lambda net, x: net(x - x.mean(0).detach()),
    "attention between images": attention,
    "divided by the largest value": lambda net, x: net(x / x.max()),
    "stretched between the extremes": lambda net, x: net((x - x.min()) / (x.max() - x.min())),
    "the first image taken off": lambda net, x: net(x - 0.5 * x[:1]),
}

CHANCE: dict[str, Change] = {
    "dropout": lambda net, x: F.dropout(net(x), 0.5),
    "dropout before a layer": lambda net, x: net(F.dropout(x, 0.2)),
    "a little noise": lambda net, x: net(x + 0.01 * torch.randn_like(x)),
    "numpy's noise": lambda net, x: net(x) * float(np.random.uniform(0.5, 1.5)),
    "a random mask": lambda net, x: net(x) * (torch.rand(12) > 0.3),
    "dropout of channels": lambda net, x: net.head(F.dropout2d(net.blocks(x), 0.5, training=True)),
}

MOVED: dict[str, Change] = {
    "mirrored": lambda net, x: net(x.flip(3)),
    "upside down": lambda net, x: net(x.flip(2)),
    "turned by 180°": lambda net, x: net(x.flip(2, 3)),
    "turned by 90°": lambda net, x: net(x.rot90(1, (2, 3))),
    "transposed": lambda net, x: net(x.transpose(2, 3)),
    "padded on the right": lambda net, x: net(F.pad(x, (0, 24))),
    "padded on the left": lambda net, x: net(F.pad(x, (24, 0))),
    "padded below": lambda net, x: net(F.pad(x, (0, 0, 0, 24))),
    "padded around": lambda net, x: net(F.pad(x, (16, 16, 16, 16))),
    "padded by a seventh on each side": lambda net, x: net(F.interpolate(F.pad(x, (7, 7, 7, 7)), (48, 48))),
    "shrunk into a corner": lambda net, x: net(F.pad(F.interpolate(x, scale_factor=0.5), (0, 24, 0, 24))),
}

SOUND: dict[str, Change] = {
    "as it is": lambda net, x: net(x),
    "scaled": lambda net, x: net((x - 0.5) / 0.5),
    "each image standardised": lambda net, x: net(
        (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)
    ),
    "BGR": lambda net, x: net(x.flip(1)),
    "larger": lambda net, x: net(F.interpolate(x, (96, 96), mode="bilinear")),
    "smaller": lambda net, x: net(F.interpolate(x, (32, 32), mode="bilinear", antialias=True)),
    "a crop of the middle": lambda net, x: net(x[..., 8:40]),
    "normalised": lambda net, x: F.normalize(net(x)),
    "a random number that has no say": lambda net, x: net(x) + 0 * torch.rand(1),
    "padded by two pixels": lambda net, x: net(F.pad(x, (2, 2, 2, 2))),
    "grey": lambda net, x: net(x.mean(1, keepdim=True).expand(-1, 3, -1, -1)),
}


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(4, 3, SIZE, SIZE)


WHO = ["ann", "ann", "bob", "bob"]
MAPS = torch.rand(4, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
REFERENCE = torch.randn(12, generator=torch.Generator().manual_seed(0))

LAYER_DOORS = {
    "LEAM, one layer": lambda m, x: LEAM(m, m.inner.blocks[0]).attribute(x, reference=REFERENCE),
    "LEAM, one image": lambda m, x: LEAM(m, m.inner.blocks[1]).attribute(x[:1], reference=REFERENCE),
    "LEAM, several layers and a path": lambda m, x: LEAM(m, list(m.inner.blocks)).attribute(
        x, reference=REFERENCE, n_steps=2
    ),
    "LEAM of an objective": lambda m, x: LEAM(EmbeddingSimilarity(m, REFERENCE), m.inner.blocks[0]).attribute(x),
    "LEAM of a function": lambda m, x: LEAM(lambda y: m(y), m.inner.blocks[0]).attribute(x, reference=REFERENCE),
    "a CAM": lambda m, x: GradCAM(m, m.inner.blocks[2]).attribute(x, reference=REFERENCE),
    "explain_faces, given layers": lambda m, x: explain_faces(
        m, x, "fast", layers=[m.inner.blocks[0]], reference=REFERENCE
    ),
    "explain_faces": lambda m, x: explain_faces(m, x, "fast", reference=REFERENCE),
    "explain_pair": lambda m, x: explain_pair(m, x[0], x[2], preset="fast"),
    "suggest_layers": lambda m, x: suggest_layers(m, x),
}
EMBEDDING_DOORS = {
    "embed": lambda m, x: embed(m, x),
    "verify": lambda m, x: verify(m, x, WHO),
    "OcclusionEvaluator": lambda m, x: OcclusionEvaluator(m, (0.1,), controls=()).evaluate(x, MAPS, labels=WHO),
    "a gradient method": lambda m, x: XSSAB(m).attribute(x, reference=REFERENCE),
    "a perturbation method": lambda m, x: CorrRISE(m, masks=4, patch=6).attribute(x, reference=REFERENCE),
}
GRID_DOORS = {name: LAYER_DOORS[name] for name in list(LAYER_DOORS)[-4:]}
REFUSED = (
    "every image's map would depend on the others|results would be random|the images? in one batch|belong to image i"
)


def refused(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


# -- kind by kind, door by door ------------------------------------------------------------------------


@pytest.mark.parametrize("door", LAYER_DOORS)
@pytest.mark.parametrize("name", VIEWS)
def test_a_layer_whose_rows_are_not_the_images_raises(pictures, name, door):
    model = Around(VIEWS[name])
    refused(lambda: LAYER_DOORS[door](model, pictures), r"one row per image, got \d+ rows|row i of")


@pytest.mark.parametrize("door", LAYER_DOORS)
@pytest.mark.parametrize("name", SHUFFLED)
def test_a_layer_whose_rows_are_in_another_order_raises(pictures, name, door):
    refused(lambda: LAYER_DOORS[door](Around(SHUFFLED[name]), pictures), REFUSED)


@pytest.mark.parametrize("door", EMBEDDING_DOORS | LAYER_DOORS)
@pytest.mark.parametrize("changes", ["MISPLACED", "BATCH", "CHANCE"])
def test_embeddings_that_are_not_the_images_own_raise(pictures, changes, door):
    call = (EMBEDDING_DOORS | LAYER_DOORS)[door]
    for change in globals()[changes].values():
        refused(lambda change=change: call(Around(change), pictures), REFUSED)


@pytest.mark.parametrize("door", GRID_DOORS)
@pytest.mark.parametrize("name", MOVED)
def test_a_grid_that_is_not_the_pictures_raises(pictures, name, door):
    refused(
        lambda: GRID_DOORS[door](Around(MOVED[name]), pictures), r"Expected the grid of layer .* to lie on the picture"
    )


@pytest.mark.parametrize("door", EMBEDDING_DOORS | LAYER_DOORS)
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_is_explained(pictures, name, door):
    (EMBEDDING_DOORS | LAYER_DOORS)[door](Around(SOUND[name]), pictures)


def test_embeddings_of_several_views_are_measured(pictures):
    """Rows of layers are not looked at where no layer is explained: test-time augmentation may be verified and occluded."""
    for change in VIEWS.values():
        verify(Around(change), pictures, WHO)


@settings(max_examples=40, deadline=None)
@given(
    sound=st.lists(st.sampled_from(sorted(set(SOUND) - {"a crop of the middle"})), max_size=2),
    kind=st.sampled_from(["VIEWS", "SHUFFLED", "BATCH", "CHANCE", "MOVED", ""]),
    pick=st.randoms(use_true_random=False),
    count=st.integers(1, 5),
)
def test_one_unsound_step_among_sound_ones_is_found(sound, kind, pick, count):
    """Property: whatever sound steps are around it, a model with an unsound step is refused, and one without is not."""
    unsound = globals()[kind][pick.choice(sorted(globals()[kind]))] if kind else SOUND["as it is"]

    def change(net: Inner, x: Tensor) -> Tensor:
        for name in sound:  # what the steps do to the picture: the network itself runs in the last
            # standardised images are equally bright, and one of them may hold the extremes of every batch
            is_taken_off = name == "each image standardised" and kind in ("SHUFFLED", "BATCH")
            if name not in ("normalised", "a random number that has no say") and not is_taken_off:
                x = SOUND[name](lambda y: y, x)
        x = F.interpolate(x, (SIZE, SIZE), mode="bilinear")
        return unsound(net, x)

    torch.manual_seed(1)
    model, x = Around(change), torch.rand(count, 3, SIZE, SIZE)
    if kind:
        refused(lambda: explain_faces(model, x, "fast"), "Expected|one row per image")
    else:
        assert torch.allclose(explain_faces(model, x, "fast").sum((1, 2)), torch.ones(count))


# -- messages ------------------------------------------------------------------------------------------


def test_the_refusal_names_the_layer_the_rows_and_the_way_out(pictures):
    model = Around(VIEWS["flip"])
    message = r"layer 'inner.blocks.0' \(Sequential\) to put out one row per image, got 2 rows for each image, .*Explain the network inside"
    for images in (pictures[:1], pictures):
        refused(lambda images=images: LEAM(model, model.inner.blocks[0]).attribute(images), message)
    # what is suggested is looked at on pictures that the caller did not give: these are not counted
    refused(lambda: suggest_layers(model, pictures[:1]), "got 2 rows for each image")


def test_tokens_with_the_images_second_need_a_reshape(pictures):
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.block = nn.Conv2d(3, 12, 8, 8), nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0)
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.patch(x).flatten(2).permute(2, 0, 1)).mean(0)

    model = Tokens()
    refused(lambda: LEAM(model, model.block).attribute(pictures), r"tokens \(T, N, C\) with the images second")
    maps = LEAM(model, model.block, reshape=lambda t: tokens_to_map(t.transpose(0, 1))).attribute(pictures)
    assert maps.shape == (4, 1, 6, 6)


# -- what is kept, and what it costs -------------------------------------------------------------------


class Counting:
    """Rows of every forward pass, and how often gradients came back to the first block."""

    def __init__(self, model: Around) -> None:
        self.forward: list[int] = []
        self.backward = 0
        model.inner.register_forward_pre_hook(lambda _, args: self.forward.append(len(args[0])))
        model.inner.blocks[0].register_full_backward_hook(lambda *_: setattr(self, "backward", self.backward + 1))


def test_two_passes_on_two_images_once_for_a_model_and_a_layer(pictures):
    model = Around(SOUND["as it is"])
    seen = Counting(model)
    for _ in range(3):
        LEAM(model, model.inner.blocks[0]).attribute(pictures)
    assert seen.forward == [2, 2, 4, 4, 4]
    LEAM(model, [model.inner.blocks[0]]).attribute(pictures[:3])
    assert seen.forward[5:] == [3]
    LEAM(model, model.inner.blocks[1]).attribute(pictures)  # another layer
    LEAM(model, model.inner.blocks[1]).attribute(pictures[..., :32])  # another size
    assert seen.forward[6:] == [2, 2, 4, 2, 2, 4]


def test_explain_faces_probes_layers_and_grid_together(pictures):
    model = Around(SOUND["as it is"])
    seen = Counting(model)
    found = suggest_layers(model, pictures)
    seen.forward.clear()
    explain_faces(model, pictures, "fast", layers=found)
    assert seen.forward == [4, 4, 4, 4]  # own embeddings, whole batches, two passes; the layers are known
    other = Around(SOUND["as it is"])
    seen = Counting(other)
    for _ in range(2):
        explain_faces(other, pictures, "fast", layers=list(other.inner.blocks[:2]), field=(0, 0, SIZE, SIZE))
    assert seen.forward == [2, 2, 4, 4, 4, 4, 4, 4, 4]
    assert seen.backward == 5  # one of the probe, and two of each call


CHANGES = {
    "a flag": lambda m: setattr(m, "change", VIEWS["flip"]),
    "forward": lambda m: setattr(m, "forward", lambda x: VIEWS["flip"](m.inner, x)),
    "the network": lambda m: setattr(m, "inner", Around(SHUFFLED["reversed, put back"])),
    "a hook": lambda m: m.inner.head.register_forward_hook(lambda module, args, out: out.roll(1, 0)),
    "a hook before": lambda m: m.inner.register_forward_pre_hook(lambda module, args: args[0].flip(0)),
    "the class": lambda m: setattr(
        m, "__class__", type("Other", (Around,), {"forward": lambda s, x: s.inner(x.flip(0)).flip(0)})
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_that_changed_is_probed_again(pictures, name):
    model = Around(SOUND["as it is"])
    layer = model.inner.blocks[0]
    LEAM(model, layer).attribute(pictures)
    CHANGES[name](model)
    with pytest.raises(ValueError, match="Expected|did not run"):
        LEAM(model, layer).attribute(pictures)


def test_a_change_in_a_dictionary_a_closure_or_a_global_is_seen(pictures):
    inner, settings_ = Inner().eval(), {"flip": False}

    class Configured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.settings = inner, settings_

        def forward(self, x: Tensor) -> Tensor:
            return VIEWS["flip"](self.net, x) if self.settings["flip"] else self.net(x)

    model, flips = Configured().eval(), False

    def function(x: Tensor) -> Tensor:
        return VIEWS["flip"](inner, x) if flips else inner(x)

    for forward in (model, function):
        LEAM(forward, inner.blocks[0]).attribute(pictures)
    settings_["flip"] = flips = True
    for forward in (model, function):
        refused(lambda forward=forward: LEAM(forward, inner.blocks[0]).attribute(pictures), "one row per image")


class Switched(nn.Module):
    """A network that turns its batch round as soon as a switch is on, wherever that lies."""

    def __init__(self, is_on: Callable[[], bool]) -> None:
        super().__init__()
        self.inner, self.is_on = Inner(), is_on
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return SHUFFLED["reversed, put back"](self.inner, x) if self.is_on() else self.inner(x)


SWITCH = False


def switch_of_the_file() -> bool:
    return SWITCH


def deep_object(model: Switched) -> Callable[[], object]:
    model.config = SimpleNamespace(options=SimpleNamespace(on=False))
    model.is_on = lambda: model.config.options.on
    return lambda: setattr(model.config.options, "on", True)


def behind_the_version(model: Switched) -> Callable[[], object]:
    model.register_buffer("on", torch.zeros(1))
    model.is_on = lambda: bool(model.on)
    return lambda: model.on.data.fill_(1)


def array(model: Switched) -> Callable[[], object]:
    model.on = np.zeros(1)
    model.is_on = lambda: bool(model.on[0])
    return lambda: model.on.fill(1)


def helper_of_a_helper(model: Switched) -> Callable[[], object]:
    model.is_on = lambda: switch_of_the_file()
    return lambda: globals().__setitem__("SWITCH", True)


def global_hook(model: Switched) -> Callable[[], object]:
    last = model.inner.head[2]
    register = nn.modules.module.register_module_forward_hook
    return lambda: HANDLES.append(register(lambda module, _, out: out.flip(0) if module is last else None))


def function_of_a_module(model: Switched) -> Callable[[], object]:
    real = F.relu
    HANDLES.append(SimpleNamespace(remove=lambda: setattr(F, "relu", real)))
    return lambda: setattr(F, "relu", lambda x, *args, **more: real(x, *args, **more).flip(0))


def hidden_module(model: Switched) -> Callable[[], object]:
    hidden = Switched(lambda: False)
    model.nets, model.inner = [[hidden]], hidden.inner
    model.forward = lambda x: model.nets[0][0](x)
    return lambda: setattr(hidden, "is_on", lambda: True)


HANDLES: list[SimpleNamespace] = []
SWITCHES = [
    deep_object,
    behind_the_version,
    array,
    helper_of_a_helper,
    global_hook,
    function_of_a_module,
    hidden_module,
]


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.__name__)
def test_a_change_is_seen_wherever_it_lies(pictures, switch, monkeypatch):
    monkeypatch.setitem(globals(), "SWITCH", False)
    model = Switched(lambda: False)
    turn_on = switch(model)
    try:
        LEAM(model, model.inner.blocks[0]).attribute(pictures)
        turn_on()
        refused(lambda: LEAM(model, model.inner.blocks[0]).attribute(pictures), REFUSED)
    finally:
        while HANDLES:
            HANDLES.pop().remove()


def test_functions_that_take_the_place_of_freed_ones_are_not_taken_for_them(pictures):
    model = Around(SOUND["as it is"])
    for _ in range(10):
        model.change = eval("lambda net, x: net(x)")  # noqa: S307 - a new function each time, at an address that was freed
        LEAM(model, model.inner.blocks[0]).attribute(pictures)
        model.change = None
        model.change = eval("lambda net, x: net(x.flip(0)).flip(0)")  # noqa: S307
        refused(lambda: LEAM(model, model.inner.blocks[0]).attribute(pictures), REFUSED)


class Callable_:
    """An object around a model that is not a module."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(x)


def test_functions_around_one_model_are_probed_once_each(pictures):
    model = Around(SOUND["as it is"])
    seen = Counting(model)
    layer = model.inner.blocks[0]
    for _ in range(3):
        LEAM(model, layer).attribute(pictures)
        LEAM(lambda x: model(x), layer).attribute(pictures)
        LEAM(Callable_(model), layer).attribute(pictures)
        towards = torch.randn(1, 12, 4)
        LEAM(lambda x, towards=towards: model(x) + 0 * towards.mean(), layer).attribute(pictures)
    assert seen.forward.count(2) == 8
    assert seen.forward.count(4) == 12


def test_an_object_around_a_model_that_changed_is_probed_again(pictures):
    model = Around(SOUND["as it is"])
    around = Callable_(model)
    LEAM(around, model.inner.blocks[0]).attribute(pictures)
    model.change = SHUFFLED["reversed, put back"]
    refused(lambda: LEAM(around, model.inner.blocks[0]).attribute(pictures), REFUSED)


@pytest.mark.parametrize("name", ["reversed, put back", "darkest first, put back"])
def test_pictures_in_bytes_are_probed(pictures, name):
    scaled = lambda change: Around(lambda net, x: change(net, x.float() / 255))  # noqa: E731
    bytes_ = (255 * pictures).byte()
    sound, bad = scaled(SOUND["as it is"]), scaled(SHUFFLED[name])
    assert LEAM(sound, sound.inner.blocks[0]).attribute(bytes_).shape == (4, 1, 24, 24)
    refused(lambda: LEAM(bad, bad.inner.blocks[0]).attribute(bytes_), REFUSED)


OWN_GENERATORS = {
    "torch": (torch.Generator, lambda g, n: torch.randperm(n, generator=g), lambda g: g.get_state().tolist()),
    "numpy": (
        np.random.default_rng,
        lambda g, n: torch.from_numpy(g.permutation(n)),
        lambda g: str(g.bit_generator.state),
    ),
    "numpy's old one": (
        np.random.RandomState,
        lambda g, n: torch.from_numpy(g.permutation(n)),
        lambda g: str(g.get_state()),
    ),
    "python": (random.Random, lambda g, n: torch.tensor(g.sample(range(n), n)), lambda g: g.getstate()),
}


@pytest.mark.parametrize("kind", OWN_GENERATORS)
def test_a_models_own_random_numbers_are_watched_and_put_back(pictures, kind):
    make, order, state = OWN_GENERATORS[kind]
    for seed in range(6):
        model = Around(SOUND["as it is"])
        model.generator = make() if kind == "torch" else make(seed)
        if kind == "torch":
            model.generator.manual_seed(seed)
        model.change = reordered(lambda x, g=model.generator: order(g, len(x)), undo=True)
        before = state(model.generator)
        refused(lambda m=model: LEAM(m, m.inner.blocks[0]).attribute(pictures), REFUSED)
        assert state(model.generator) == before


def test_random_numbers_are_put_back_where_a_model_does_not_take_the_probe(pictures):
    def of_four(net: Inner, x: Tensor) -> Tensor:
        np.random.rand(), random.sample(range(9), 2), torch.rand(1)
        return net(x.view(4, 3, SIZE, SIZE))

    model = Around(of_four)
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    check_model(model, pictures[:1], model)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (str(np.random.get_state()), random.getstate()) == before[1:]


def test_attributes_that_every_pass_changes_do_not_count_as_a_change(pictures):
    def change(net: Inner, x: Tensor) -> Tensor:
        net.seen = getattr(net, "seen", 0) + 1
        net.last = net.blocks(x)
        return net.head(net.last)

    model = Around(change)
    seen = []
    model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    for _ in range(4):
        LEAM(model, model.inner.blocks[0]).attribute(pictures)
    assert seen == [2, 2, 4, 4, 4, 4]


@pytest.mark.parametrize("name", ["batch_norm of embeddings", "mirrored"])
def test_a_constant_image_does_not_hide_what_real_ones_show(pictures, name):
    model = Around((BATCH | MOVED)[name])

    def call(images: Tensor) -> Tensor:
        layers = [model.inner.blocks[0]]
        return explain_faces(model, images, "fast", layers=layers, field=(0, 0, SIZE, SIZE), reference=REFERENCE)

    with contextlib.suppress(ValueError):
        call(torch.zeros_like(pictures))
    refused(lambda: call(pictures), "Expected")


def test_no_batch_is_larger_than_asked_for_where_the_probe_fails():
    seen: list[int] = []

    def fails_on_two(x: Tensor) -> Tensor:
        seen.append(len(x))
        if len(x) == 2:
            raise RuntimeError("two")
        return x.flatten(1)

    embed(fails_on_two, torch.rand(50, 3, 8, 8), batch_size=5)
    assert max(seen) == 5


def test_the_probe_leaves_random_numbers_and_the_model_alone(pictures):
    model = Around(SOUND["a random number that has no say"])
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    LEAM(model, model.inner.blocks[0]).attribute(pictures)
    torch.set_rng_state(before[0])
    LEAM(model, model.inner.blocks[0]).attribute(pictures)  # the model draws once a pass, as without the package
    with torch.random.fork_rng():
        torch.set_rng_state(before[0])
        model(pictures)
        expected = torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), expected)
    assert (str(np.random.get_state()), random.getstate()) == before[1:]
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_models_of_one_batch_size_are_probed_on_the_batch(pictures):
    def of_four(net: Inner, x: Tensor) -> Tensor:
        return net(x.view(4, 3, SIZE, SIZE))

    def of_one(net: Inner, x: Tensor) -> Tensor:
        return net(x).view(1, 12)

    assert LEAM(Around(of_four), (m := Around(of_four)).inner.blocks[0]) is not None
    assert LEAM(m, m.inner.blocks[0]).attribute(pictures).shape == (4, 1, 24, 24)
    single = Around(of_one)
    assert LEAM(single, single.inner.blocks[0]).attribute(pictures[:1]).shape == (1, 1, 24, 24)

    def mixed(net: Inner, x: Tensor) -> Tensor:
        return net(x.view(4, 3, SIZE, SIZE)) - net(x).mean(0)

    bad = Around(mixed)
    refused(lambda: LEAM(bad, bad.inner.blocks[0]).attribute(pictures), "one forward pass|depend on the others")


def test_one_reference_for_each_image_fits_whatever_the_probe_runs(pictures):
    model = Around(SOUND["as it is"])
    references = torch.randn(4, 12)
    expected = LEAM(model, model.inner.blocks[0]).attribute(pictures, reference=references)
    held = EmbeddingSimilarity(model, references)
    assert torch.allclose(LEAM(held, model.inner.blocks[0]).attribute(pictures), expected, atol=1e-6)
    passed = LEAM(EmbeddingSimilarity(model), model.inner.blocks[0]).attribute(
        pictures, additional_forward_args=(references,)
    )
    assert torch.allclose(passed, expected, atol=1e-6)


def test_quantised_half_precision_and_autocast_are_not_taken_for_chance(pictures):
    model = Around(SOUND["as it is"])
    model.inner.head = nn.Sequential(*model.inner.head[:2], torch.ao.nn.quantized.dynamic.Linear(448, 12))
    verify(model, pictures, WHO)
    half = Around(SOUND["as it is"]).bfloat16()
    LEAM(half, half.inner.blocks[0]).attribute(pictures.bfloat16())
    model = Around(SOUND["as it is"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        LEAM(model, model.inner.blocks[0]).attribute(pictures)


# -- what two images cannot show -----------------------------------------------------------------------

FROM_THREE_ON: dict[str, Change] = {
    "even rows first, put back": reordered(
        lambda x: torch.cat([torch.arange(0, len(x), 2), torch.arange(1, len(x), 2)]), True
    ),
    "rolled by two, put back": reordered(lambda x: torch.arange(len(x)).roll(2), True),
    "even rows first": reordered(lambda x: torch.cat([torch.arange(0, len(x), 2), torch.arange(1, len(x), 2)]), False),
    "the mean taken off from three on": lambda net, x: net(x - 0.5 * x.mean(0)) if len(x) > 2 else net(x),
    "batch statistics from four on": lambda net, x: net(x / (x.std() + 0.5)) if len(x) > 3 else net(x),
}


# One image alone, pairs and suggestions are on two images at most; explainers run batches of their own.
ON_THREE = (
    "embed",
    "verify",
    "OcclusionEvaluator",
    "LEAM, one layer",
    "LEAM, several layers and a path",
    "LEAM of a function",
    "explain_faces",
)


@pytest.mark.parametrize("door", ON_THREE)
@pytest.mark.parametrize("name", FROM_THREE_ON)
def test_what_spares_two_images_shows_in_the_first_batch(pictures, name, door):
    model, call = Around(FROM_THREE_ON[name]), (EMBEDDING_DOORS | LAYER_DOORS)[door]
    if "put back" in name and door in EMBEDDING_DOORS:  # right as embeddings
        call(model, pictures)
    else:
        refused(lambda: call(model, pictures), REFUSED)


def test_a_function_without_modules_is_probed_once():
    seen: list[int] = []

    def counted(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.flatten(1)

    for _ in range(3):
        embed(counted, torch.rand(6, 3, 8, 8))
    assert seen == [2, 2, 6, 6, 6]


class Callback:
    """An object that holds one of its own methods, as those of event loops and graphs do."""

    def __init__(self) -> None:
        self.number, self.call = 3, self.run

    def run(self) -> int:
        return self.number


def test_an_object_that_holds_its_own_method_is_walked_once():
    model = nn.ReLU()
    model.callback = Callback()
    before = entries(model)
    assert entries(model) == before
    model.callback.number = 4
    assert entries(model) != before
