"""suggest_layers on the architectures that people use, and the field of a network."""

import pytest
import torch
from torch import Tensor, nn

from captum_leam import LEAM, explain_faces, suggest_layers
from captum_leam._engine.shapes import looks_channels_last
from captum_leam.faces import read_crops
from captum_leam.layers import channels_last_to_first, tokens_to_map
from captum_leam.models import load_model
from captum_leam.suggest import find_field
from tests.helpers.networks import Residual, Tokens, of_torchvision

EXPECTED = {
    ("resnet18", 112): {56: "relu", 28: "layer1", 14: "layer2", 7: "layer3", 4: "layer4"},
    ("resnet50", 112): {56: "relu", 28: "layer1", 14: "layer2", 7: "layer3", 4: "layer4"},
    ("mobilenet_v2", 112): {56: "features.1", 28: "features.3", 14: "features.6", 7: "features.13", 4: "features"},
    ("mobilenet_v3_small", 224): {
        112: "features.0",
        56: "features.1",
        28: "features.3",
        14: "features.8",
        7: "features",
    },
    ("efficientnet_b0", 112): {56: "features.1", 28: "features.2", 14: "features.3", 7: "features.5", 4: "features"},
    ("convnext_tiny", 224): {56: "features.1", 28: "features.3", 14: "features.5", 7: "features"},
    ("vit_b_16", 224): {14: "encoder.layers.encoder_layer_10"},
    ("swin_t", 224): {56: "features.1", 28: "features.3", 14: "features.5", 7: "permute"},
}


@pytest.mark.parametrize(("name", "size"), list(EXPECTED))
def test_suggestions_of_torchvision_networks_are_the_expected_layers_and_give_maps(name, size):
    model, faces = of_torchvision(name), torch.rand(1, 3, size, size)
    found = suggest_layers(model, faces)
    assert {layer.shape[2]: layer.name for layer in found} == EXPECTED[name, size]
    assert found.field == (0, 0, size, size)
    towards = {
        "reference": torch.randn(model(faces).shape[1])
    }  # a ViT ends in a LayerNorm: its own embedding has no gradient
    for layer in found:
        reshape = {"vit": tokens_to_map, "swi": channels_last_to_first}.get(name[:3])
        assert layer.reshape is (None if layer.name == "permute" else reshape)
        maps = LEAM(model, layer.module, reshape=layer.reshape).attribute(faces, **towards)
        assert maps.shape == (1, 1, *layer.shape[1:])
        assert layer.cell == size / layer.shape[2]
    overall = explain_faces(model, faces, "fast", layers=found, **towards)
    assert overall.shape == (1, size, size)


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny"])
def test_channels_last_is_recognised_where_channels_equal_rows(name):
    """(N, 48, 48, 48): the shape alone cannot tell channels-last from channels-first."""
    found = suggest_layers(of_torchvision(name), torch.rand(1, 3, 192, 192))
    assert found["features.1"].shape == (48, 48, 48)
    assert found["features.1"].reshape is (channels_last_to_first if name == "swin_t" else None)


def test_suggestions_print_index_and_convert_to_a_frame():
    found = suggest_layers(of_torchvision("resnet18"), torch.rand(1, 3, 112, 112))
    assert "field (top, left, height, width): (0, 0, 112, 112)" in repr(found)
    assert found["layer2"] is found[2]
    assert found.to_frame()["channels"].tolist() == [64, 64, 128, 256, 512]
    assert [layer.name for layer in found.for_overall_map()] == ["relu", "layer1", "layer2"]
    with pytest.raises(KeyError, match="layer9"):
        found["layer9"]


def test_branches_and_repeated_modules_are_passed_over():
    found = suggest_layers(Residual(), torch.rand(2, 3, 16, 16))
    assert [layer.name for layer in found] == ["out", "head.0"]  # not the block beside the skip connection
    shared = nn.Sequential(nn.Conv2d(3, 3, 3, 1, 1), nn.ReLU())
    net = nn.Sequential(shared[0], shared[1], shared[1], nn.Flatten(), nn.Linear(768, 4)).eval()
    assert [layer.name for layer in suggest_layers(net, torch.rand(1, 3, 16, 16))] == ["0"]


class Bottleneck(nn.Module):
    """Widens, changes the size or adds a skip connection, narrows."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.widen, self.act, self.narrow = nn.Conv2d(6, 12, 1), nn.ReLU6(), nn.Conv2d(12, 6, 3, stride, 1)
        self.add = Sum() if stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(self.act(self.widen(x)))
        return y if self.add is None else self.add(x, y)


class Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Blocks(nn.Module):
    """16 px → 8, 4 and 2 px."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.a, self.b, self.c, self.d = (Bottleneck(stride) for stride in (1, 2, 1, 2))
        self.flat = nn.Flatten()
        self.head = nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flat(self.d(self.c(self.b(self.a(self.stem(2 * x - 1)))))))


class LeavesOnly(torch.fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not [*module.children()]


def as_operators(net: nn.Module, names: bool) -> nn.Module:
    """The same network as operators in a row, as ONNX files have it: under the names of their blocks, or without."""
    traced = torch.fx.GraphModule(net, LeavesOnly().trace(net))
    for i, node in enumerate(n for n in traced.graph.nodes if n.op == "call_module"):
        if not names:
            module = traced.get_submodule(node.target)
            node.target = f"{type(module).__name__.lower()}_{i}"
            traced.add_submodule(node.target, module)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced.eval()


@pytest.mark.parametrize("names", [True, False])
def test_operators_at_the_end_of_blocks_stand_for_blocks_that_do_not_run(names):
    """An inverted bottleneck that changes the size widens first: its first layers are cuts, but not where a block ends."""
    net, faces = Blocks().eval(), torch.rand(2, 3, 16, 16)
    operators = as_operators(net, names)
    assert torch.equal(operators(faces), net(faces))
    assert [layer.name for layer in suggest_layers(net, faces)] == ["a", "c", "d"]
    expected = ["a.add", "c.add", "d.narrow"] if names else ["sum_4", "sum_11", "conv2d_14"]
    assert [layer.name for layer in suggest_layers(operators, faces)] == expected


def test_of_layers_of_nearly_one_size_the_later_is_averaged():
    """Convolutions without padding, as facenet-pytorch's, take off a pixel or two."""
    convs = [nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, 2), nn.Flatten(), nn.Linear(4 * 26 * 26, 4)]
    found = suggest_layers(nn.Sequential(*convs).eval(), torch.rand(1, 3, 112, 112))
    assert [layer.shape[1] for layer in found] == [55, 53, 26]
    assert [layer.shape[1] for layer in found.for_overall_map()] == [53, 26]


def test_a_normalisation_is_no_layer_to_explain():
    class Shift(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x - 1

    net = nn.Sequential(Shift(), nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)).eval()
    assert [layer.name for layer in suggest_layers(net, torch.rand(1, 3, 16, 16))] == ["2"]


def test_the_suggested_token_layer_is_the_last_that_positions_matter_at():
    found = suggest_layers(Tokens(), torch.rand(2, 3, 16, 16))
    assert [(layer.name, layer.shape, layer.reshape) for layer in found] == [("block", (12, 4, 4), tokens_to_map)]


@pytest.mark.parametrize("channels", [64, 128, 144])
def test_positions_in_one_row_are_not_taken_for_tokens(channels):
    """A convolution in one dimension puts out (N, C, T): 64 channels are no 8 × 8 patches."""

    class InARow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, 4, 1), nn.ReLU())
            self.flat, self.conv = nn.Flatten(2), nn.Conv1d(channels, channels, 1)
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.flat(self.stem(x))).relu().mean(2)

    found = suggest_layers(InARow(), torch.rand(1, 3, 64, 64))
    assert [(layer.name, layer.shape) for layer in found] == [("stem", (channels, 16, 16))]


def test_oblong_tokens_are_brought_to_an_oblong_grid():
    class Oblong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.flat = nn.Conv2d(3, 8, 4, 4), nn.Flatten(2)
            self.block = nn.Linear(8, 8)
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.flat(self.patch(x)).transpose(1, 2)).relu().mean(1)

    faces = torch.rand(1, 3, 32, 16)
    found = suggest_layers(Oblong(), faces)
    assert found["block"].shape == (8, 8, 4)
    maps = LEAM(model := Oblong(), model.block, reshape=found["block"].reshape).attribute(faces)
    assert maps.shape == (1, 1, 8, 4)


def test_suggestions_leave_the_model_alone():
    net, faces = Residual(), torch.rand(2, 3, 16, 16)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.random.get_rng_state()
    with torch.no_grad():
        suggest_layers(net, faces)
    assert all(not m._forward_hooks for m in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not faces.requires_grad


def test_models_without_maps_and_wrong_faces_raise():
    faces = torch.rand(1, 3, 16, 16)
    with pytest.raises(TypeError, match="Expected model to be a torch.nn.Module, got a"):
        suggest_layers(lambda x: x.flatten(1), faces)
    with pytest.raises(ValueError, match="Expected faces to have shape"):
        suggest_layers(Residual(), faces[0])
    with pytest.raises(ValueError, match="Expected faces to have shape"):
        suggest_layers(Residual(), faces[:0])
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        suggest_layers(Residual().train(), faces)
    with pytest.raises(ValueError, match="a spatial map that everything passes through, got no such layer"):
        suggest_layers(nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), faces)
    with pytest.raises(ValueError, match="to depend on the images, got zero gradient"):
        find_field(lambda x: torch.ones(len(x), 4), faces)


def test_the_field_of_a_cropping_network_is_its_window():
    class Window(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 3:10, 2:15].relu().flatten(1)

    assert find_field(Window(), torch.rand(1, 3, 16, 16)) == (3, 2, 7, 13)


def test_the_field_is_what_is_read_even_where_little_of_it_matters():
    """The field is what is read, not what matters: a head of two positions still has maps over the whole window."""

    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            features = self.conv(x[..., 8:40])
            return torch.cat([features[:, :, 3, 4], features[:, :, 5, 2]], 1)

    torch.manual_seed(0)
    found = suggest_layers(Blind().eval(), torch.rand(2, 3, 32, 48))
    assert found.field == (0, 8, 32, 32)
    assert [layer.name for layer in found] == ["conv"]


@pytest.mark.parametrize(
    ("shape", "size", "last"),
    [
        ((1, 96, 56, 56), (224, 224), False),
        ((1, 56, 56, 96), (224, 224), True),
        ((1, 8, 14, 12), (112, 96), False),
        ((1, 14, 12, 8), (112, 96), True),
        ((1, 64, 56, 48), (112, 112), False),  # a network that crops
    ],
)
def test_channels_last_is_recognised_by_the_shape(shape, size, last):
    assert looks_channels_last(torch.rand(shape), size) is last


@pytest.mark.real
def test_suggestions_of_real_networks_are_the_four_resolutions(real_models):
    faces = torch.rand(2, 3, 112, 112)
    for name, make in real_models.RECOGNISERS.items():
        found = suggest_layers(make(), faces)
        assert found.field == real_models.FIELDS[name]
        assert [layer.name for layer in found] == ["stem", "stages.0", "stages.2", "expand"]
        assert [layer.name for layer in found.for_overall_map()] == ["stem", "stages.0", "stages.2"]
        assert [layer.cell for layer in found] == [2, 4, 8, 16]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "file", "preprocessing", "layers"),
    [
        (
            "ms1m",
            "mobilefacenet_ms1m_fixed_batch.onnx",
            "imagenet",
            ["network.dw_conv.relu_1", "network.features.4.add", "network.features.11.add", "network.conv2.2"],
        ),
        (
            "casia",
            "mobilefacenet_casia.onnx",
            None,
            ["network.stem.5", "network.stages.0.4.add", "network.stages.2.5.add", "network.expand.2"],
        ),
    ],
)
def test_onnx_files_are_explained_at_the_layers_of_the_native_network(
    real_dir, real_models, name, file, preprocessing, layers
):
    pytest.importorskip("onnx2torch")
    from captum_leam.faces import read_crops
    from captum_leam.models import load_model

    faces = read_crops(sorted((real_dir / "faces" / "s01").glob("*.png"))[:2])
    native, converted = real_models.RECOGNISERS[name](), load_model(str(real_dir / file), preprocessing)
    found, expected = suggest_layers(converted, faces), suggest_layers(native, faces)
    assert [layer.name for layer in found] == layers
    assert (found.field, [layer.shape for layer in found]) == (expected.field, [layer.shape for layer in expected])
    reference = native(faces).detach().flip(0)
    maps = [explain_faces(model, faces, "fast", reference=reference) for model in (native, converted)]
    assert float((maps[0] - maps[1]).abs().max()) < 0.01 * float(maps[0].max())


@pytest.mark.real
@pytest.mark.parametrize("name", ["ms1m", "casia", "dlib", "edgeface", "reid0095"])
def test_suggestions_do_not_depend_on_the_face(real_dir, name):
    """The probe of the grid keeps every layer, whatever the person, the colours and the light."""
    model = load_model(f"{real_dir}/zoo.py:{name}")
    files = (
        "faces/s01/01.png",
        "faces/s13/04.png",
        "faces_colour/p00/00.png",
        "faces_colour/p14/02.png",
        "masks/01.png",
    )
    found = [suggest_layers(model, read_crops([real_dir / file])) for file in files]
    names = [layer.name for layer in found[0]]
    assert len(names) >= 4
    assert all([layer.name for layer in other] == names and other.field == found[0].field for other in found[1:])


# -- suggestions as layers of LEAM -----------------------------------------------------------------------


def test_leam_takes_a_suggestion_with_its_reshape():
    model, faces = Tokens(), torch.rand(2, 3, 16, 16)
    found = suggest_layers(model, faces)
    layer = next(one for one in found if one.reshape is not None)
    expected = LEAM(model, layer.module, reshape=layer.reshape).attribute(faces, reference=torch.arange(12.0))
    assert torch.equal(LEAM(model, layer).attribute(faces, reference=torch.arange(12.0)), expected)
    with pytest.raises(ValueError, match="`reshape` only with modules"):
        LEAM(model, layer, reshape=layer.reshape)


def test_leam_takes_several_suggestions():
    model, faces = Tokens(), torch.rand(2, 3, 16, 16)
    found = suggest_layers(model, faces)
    expected = LEAM(model, [one.module for one in found], reshape=[one.reshape for one in found]).attribute(
        faces, reference=torch.arange(12.0)
    )
    for layers in (found, list(found), tuple(found)):
        maps = LEAM(model, layers).attribute(faces, reference=torch.arange(12.0))
        assert isinstance(maps, list)
        assert all(map(torch.equal, maps, expected))
    mixed = LEAM(model, [found[0], model.patch]).attribute(faces, reference=torch.arange(12.0))
    assert torch.allclose(mixed[0], expected[0], atol=1e-6)
