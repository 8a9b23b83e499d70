"""ONNX files as exporters and converters write them load, and equal ONNX Runtime on the file, image by image."""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_leam import explain_faces
from captum_leam.errors import HalfPrecisionWarning
from captum_leam.models import IMAGENET, UNIT, from_onnx
from captum_leam.models.onnx_network import PerImage, Slice
from captum_leam.models.preprocessing import smooth_images
from tests.helpers.torch_modes import default_dtype

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")
runtime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIZE, CHANNELS, LENGTH = 8, 6, 5
EXACT, HALF = 1e-4, 0.02  # of the largest value


class Graph:
    """Nodes and weights of a small network, written with one of the ways to keep a weight."""

    def __init__(self, weights="float32", opset=17):
        self.nodes, self.inits, self.weights, self.opset = [], [], weights, opset
        self.random = np.random.default_rng(0)

    def add(self, kind, inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def tensor(self, values):
        name = f"w{len(self.inits) + len(self.nodes)}"
        self.inits.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, *shape, around=0.0):
        values = (around + self.random.normal(0, 0.3, shape)).astype(np.float32)
        if self.weights in ("computed in half", "half throughout"):
            return self.tensor(values.astype(np.float16))
        if self.weights == "half with casts":
            return self.add("Cast", [self.tensor(values.astype(np.float16))], to=TensorProto.FLOAT)
        if self.weights == "bfloat16 with casts":
            kept = helper.make_tensor(f"b{len(self.nodes)}", TensorProto.BFLOAT16, shape, values.ravel())
            self.inits.append(kept)
            return self.add("Cast", [kept.name], to=TensorProto.FLOAT)
        if self.weights == "constants":
            return self.add("Constant", [], value=numpy_helper.from_array(values))
        if self.weights == "identities":
            return self.add("Identity", [self.tensor(values)])
        if self.weights == "integers":
            scale, zero = self.tensor(np.float32(0.02)), self.tensor(np.int8(3))
            return self.add("DequantizeLinear", [self.tensor((values * 50).astype(np.int8)), scale, zero])
        if self.weights == "transposed":
            return self.add("Transpose", [self.tensor(values.T)])
        return self.tensor(values)

    def batch_norm(self, value, channels):
        names = [self.weight(channels, around=around) for around in (1, 0, 0, 2)]
        return self.add("BatchNormalization", [value, *names], **({"spatial": 1} if self.opset < 9 else {}))

    def axes(self, *axes):
        """Axes of a Squeeze: an attribute before operator set 13, an input since."""
        return ([], {"axes": list(axes)}) if self.opset < 13 else ([self.tensor(np.array(axes, np.int64))], {})

    def model(self, output, *, batch, ir=8, as_inputs=False, size=SIZE):
        kind = TensorProto.FLOAT16 if self.weights == "half throughout" else TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info("data", kind, [batch, 3, size, size])]
        if as_inputs or ir < 4:
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in self.inits]
        graph = helper.make_graph(
            self.nodes, "g", inputs, [helper.make_tensor_value_info(output, kind, ["n", "d"])], self.inits
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=ir)


def saved(folder, model):
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def by_runtime(path, pictures):
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    value = session.get_inputs()[0]
    count = value.shape[0] if isinstance(value.shape[0], int) else 1
    kind = np.float16 if value.type == "tensor(float16)" else np.float32
    copies = [np.repeat(picture[None], count, 0).astype(kind) for picture in pictures.numpy()]
    answers = [session.run(None, {value.name: picture})[0].reshape(count, -1)[:1] for picture in copies]
    return torch.from_numpy(np.concatenate(answers).astype(np.float32))


def assert_equal(path, model, tolerance=EXACT):
    images = smooth_images(3, model.preprocessing.size, seed=5)
    expected = by_runtime(path, model.preprocessing(images))
    for count in (1, 3):
        found = model(images[:count])
        assert found.shape == expected[:count].shape
        assert float((found - expected[:count]).abs().max() / expected.abs().max()) <= tolerance


# -- any of them -----------------------------------------------------------------------------------------

HEADS = [
    "Reshape to (batch, -1)", "Reshape to (batch, channels)", "Reshape to (-1, channels)", "Reshape to (0, -1)",
    "Flatten", "Flatten from the first axis", "Squeeze of two axes", "Squeeze of all", "Conv", "class token",
]  # fmt: skip
WEIGHTS = [
    "float32", "half with casts", "bfloat16 with casts", "computed in half", "half throughout", "constants", "identities", "integers",
    "transposed",
]  # fmt: skip
MODES = [
    contextlib.nullcontext,
    torch.no_grad,
    torch.inference_mode,
    lambda: torch.autocast("cpu", torch.bfloat16),
    lambda: torch.device("meta"),
    lambda: default_dtype(torch.float64),
]


def head(graph, value, name, batch):
    """From (batch, channels, 1, 1) to (batch, length)."""
    if name == "Conv":
        return graph.add("Conv", [value, graph.weight(LENGTH, CHANNELS, 1, 1)])
    if name == "class token":  # (batch, 1, channels), behind a row that the exporter wrote for its batch
        flat = graph.add("Reshape", [value, graph.tensor(np.array([batch, 1, CHANNELS]))])
        kind = np.float16 if graph.weights in ("computed in half", "half throughout") else np.float32
        token = graph.tensor(np.full((batch, 1, CHANNELS), 0.5, kind))
        flat = graph.add("ReduceMax", [graph.add("Concat", [token, flat], axis=1)], axes=[1], keepdims=0)
    elif name.startswith("Reshape"):
        last = CHANNELS if "channels" in name else -1
        first = {"(b": batch, "(-": -1, "(0": 0}[name[11:13]]
        flat = graph.add("Reshape", [value, graph.tensor(np.array([first, last]))])
    elif name.startswith("Squeeze"):
        inputs, attributes = ([], {}) if "all" in name else graph.axes(2, 3)
        flat = graph.add("Squeeze", [value, *inputs], **attributes)
    else:
        flat = graph.add("Flatten", [value], **({"axis": 0} if "first" in name else {}))
        if "first" in name and batch > 1:
            flat = graph.add("Reshape", [flat, graph.tensor(np.array([batch, CHANNELS]))])
    if name == "Squeeze of all":
        return graph.add("MatMul", [flat, graph.weight(CHANNELS, LENGTH)])
    return graph.add("Gemm", [flat, graph.weight(LENGTH, CHANNELS), graph.weight(LENGTH)], transB=1)


@st.composite
def networks(draw):
    opset = draw(st.integers(7, 17))
    weights = draw(
        st.sampled_from([w for w in WEIGHTS if opset >= {"integers": 10, "bfloat16 with casts": 13}.get(w, 0)])
    )
    declared = draw(st.sampled_from([1, 2, 4, "batch", "None", "?", -1]))
    batch = declared if isinstance(declared, int) and declared > 0 else 1
    graph, value = Graph(weights, opset), "data"
    if weights == "computed in half":
        value = graph.add("Cast", [value], to=TensorProto.FLOAT16)
    value = graph.add("Conv", [value, graph.weight(CHANNELS, 3, 3, 3)], pads=[1, 1, 1, 1])
    if draw(st.booleans()):
        value = graph.batch_norm(value, CHANNELS)
    value = graph.add("GlobalAveragePool", [graph.add("Relu", [value])])
    name = draw(st.sampled_from(HEADS))
    value = head(graph, value, name, batch)
    if draw(st.booleans()) and not (name == "Squeeze of all" and batch == 1) and name != "Conv":
        value = graph.batch_norm(value, LENGTH)
    if draw(st.booleans()):
        value = graph.add("Dropout", [value])
    if weights == "computed in half":
        value = graph.add("Cast", [value], to=TensorProto.FLOAT)
    ir = draw(st.integers(3, 8))
    return graph.model(value, batch=declared, ir=ir, as_inputs=draw(st.booleans())), "half" in weights.split()[
        -1:
    ] or weights == "half throughout"


@settings(max_examples=100, deadline=None)
@given(networks(), st.sampled_from(MODES))
def test_files_of_every_exporter_equal_onnx_runtime(tmp_path_factory, drawn, mode):
    model, is_half = drawn
    path = saved(tmp_path_factory.mktemp("net"), model)
    with mode(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = from_onnx(path, UNIT)
    assert is_half == any(issubclass(warning.category, HalfPrecisionWarning) for warning in caught)
    assert_equal(path, loaded, HALF if is_half else EXACT)


# -- single writers --------------------------------------------------------------------------------------


def mobile_face_net(batch, weights="float32"):
    """The structure of InsightFace's exporter: traced with one image, the first axis renamed."""
    graph, size = Graph(weights, 11), 16
    value = "data"
    if weights == "computed in half":
        value = graph.add("Cast", [value], to=TensorProto.FLOAT16)
    value = graph.add("Conv", [value, graph.weight(8, 3, 3, 3)], strides=[2, 2], pads=[1] * 4)
    value = graph.add("Reshape", [value, graph.tensor(np.array([1, 8 * 8 * 8]))])
    value = graph.add("Gemm", [value, graph.weight(32, 8 * 8 * 8)], transB=1)
    if weights == "computed in half":
        value = graph.add("Cast", [value], to=TensorProto.FLOAT)
    return graph.model(value, batch=batch, ir=6, size=size)


@pytest.mark.parametrize("batch", [1, "None", "batch", "?", -1, 0])
def test_a_reshape_to_one_row_is_no_obstacle_whatever_the_input_declares(tmp_path, batch):
    path = saved(tmp_path, mobile_face_net(batch))
    loaded = from_onnx(path, UNIT)
    if batch == 0:  # ONNX Runtime takes it for an empty batch
        path = saved(tmp_path, mobile_face_net("batch"))
    assert_equal(path, loaded)
    assert explain_faces(loaded, smooth_images(2, (16, 16)), "fast").shape == (2, 16, 16)


@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (8, 3), (9, 3), (11, 4), (15, 8)])
def test_graphs_like_the_zoos_arcface_equal_onnx_runtime(tmp_path, opset, ir):
    """As MXNet exports: weights among the inputs, pixels up to 255 normalised inside, Dropout, Gemm, and a BatchNorm of vectors."""
    graph, size = Graph("float32", opset), 8
    value = graph.add("Sub", ["data", graph.tensor(np.float32([127.5]))])
    value = graph.add("Mul", [value, graph.tensor(np.float32([0.0078125]))])
    value = first = graph.batch_norm(graph.add("Conv", [value, graph.weight(8, 3, 3, 3)], pads=[1] * 4), 8)
    value = graph.add("PRelu", [value, graph.weight(8, 1, 1)])
    value = graph.add("Conv", [value, graph.weight(8, 8, 3, 3)], pads=[1] * 4)
    value = graph.batch_norm(graph.add("Add", [value, first]), 8)
    value = graph.add("Flatten", [graph.add("Dropout", [value])])
    value = graph.add(
        "Gemm", [value, graph.weight(16, 8 * size * size), graph.weight(16)], transB=1, alpha=1.0, beta=1.0
    )
    path = saved(tmp_path, graph.model(graph.batch_norm(value, 16), batch=1, ir=ir, as_inputs=True, size=size))
    loaded = from_onnx(path)
    assert loaded.preprocessing.std == (1 / 255,) * 3
    assert_equal(path, loaded)


def test_a_file_in_half_precision_is_computed_in_float32_with_a_warning(tmp_path):
    path = saved(tmp_path, mobile_face_net("N", "computed in half"))
    with pytest.warns(
        HalfPrecisionWarning, match=r"in float32 with the same weights; .* by up to \S+ of the largest value"
    ) as caught:
        loaded = from_onnx(path, UNIT)
    assert caught[0].filename == __file__
    assert {value.dtype for value in loaded.state_dict().values() if value.is_floating_point()} == {torch.float32}
    assert_equal(path, loaded, HALF)


def test_half_precision_that_overflows_is_refused(tmp_path):
    graph = Graph("half throughout")
    value = graph.add("Conv", ["data", graph.weight(CHANNELS, 3, 3, 3, around=6e4)])
    path = saved(tmp_path, graph.model(graph.add("Flatten", [value]), batch=1))
    with pytest.raises(
        ValueError, match=r"net\.onnx: expected finite embeddings, got NaN or infinity from ONNX Runtime"
    ):
        from_onnx(path, UNIT)


@pytest.mark.real
def test_a_default_dtype_of_float64_changes_nothing(real_dir):
    with default_dtype(torch.float64):
        loaded = from_onnx(real_dir / "mobilefacenet_ms1m_fixed_batch.onnx", IMAGENET)
        images = smooth_images(2, (112, 112))
        assert images.dtype == torch.float32
        maps = explain_faces(loaded, images, "fast", layers=[loaded.get_submodule("network.features.14.add")])
        found = loaded(images)
    loaded = from_onnx(real_dir / "mobilefacenet_ms1m_fixed_batch.onnx", IMAGENET)
    torch.testing.assert_close(found, loaded(images))
    torch.testing.assert_close(
        maps.float(), explain_faces(loaded, images, "fast", layers=[loaded.get_submodule("network.features.14.add")])
    )


@pytest.mark.real
@pytest.mark.parametrize("keep_io_types", [True, False])
@pytest.mark.filterwarnings("ignore::captum_leam.errors.HalfPrecisionWarning")
def test_a_real_network_converted_to_half_precision_gives_nearly_the_same(tmp_path, real_dir, keep_io_types):
    convert = pytest.importorskip("onnxruntime.transformers.float16").convert_float_to_float16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that float16 rounds
        half = convert(onnx.load(real_dir / "mobilefacenet_casia.onnx"), keep_io_types=keep_io_types)
    path = saved(tmp_path, half)
    loaded = from_onnx(path)
    assert_equal(path, loaded, HALF)
    images = smooth_images(2, (112, 112))
    torch.testing.assert_close(
        loaded(images), from_onnx(real_dir / "mobilefacenet_casia.onnx")(images), atol=0.02, rtol=0
    )


@pytest.mark.parametrize(
    "layout", ["cache of downloads", "link to the file", "weights beside the link", "linked folder"]
)
def test_links_to_a_file_and_its_weights_are_followed(tmp_path, layout):
    store, links = tmp_path / "store", tmp_path / "links"
    store.mkdir()
    kept, data = store / "a", "b" if layout == "cache of downloads" else "net.onnx.data"
    onnx.save(mobile_face_net(1), kept, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    (store / "net.onnx.data").rename(store / data)
    if layout == "linked folder":
        links.symlink_to(store)
        kept.rename(store / "net.onnx")
    else:
        links.mkdir()
        (links / "net.onnx").symlink_to(kept)
    if layout == "cache of downloads":
        (links / "net.onnx.data").symlink_to(store / data)
    if layout == "weights beside the link":
        (store / data).rename(links / data)
    assert from_onnx(links / "net.onnx", UNIT)(smooth_images(2, (16, 16))).shape == (2, 32)


def test_weights_that_are_a_link_to_another_folder_are_named(tmp_path):
    onnx.save(mobile_face_net(1), tmp_path / "net.onnx", save_as_external_data=True, location="d", size_threshold=0)
    (tmp_path / "inner").mkdir()
    (tmp_path / "d").rename(tmp_path / "inner" / "d")
    (tmp_path / "d").symlink_to(tmp_path / "inner" / "d")
    with pytest.raises(ValueError, match=r"weights beside the file are links to another folder \(.*\)\. Copy them"):
        from_onnx(tmp_path / "net.onnx", UNIT)


# -- networks that PyTorch exports -------------------------------------------------------------------------


def vit():
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=32, num_classes=8)


def swin():
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([4, 4], 16, [1, 1], [2, 2], [2, 2], num_classes=8)


@pytest.mark.parametrize("make", [vit, swin])
@pytest.mark.parametrize("batch", [1, 2])
def test_transformers_traced_with_a_fixed_batch_take_any_batch(tmp_path, make, batch):
    """Class tokens, attention with its batch on the second axis, and windows in the batch axis: values and gradients hold."""
    model, images = make().eval(), smooth_images(3, (32, 32))
    for weight in model.parameters():  # the head of a new ViT is zero
        nn.init.normal_(weight, std=0.2) if not weight.any() else None
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what tracing fixes
        torch.onnx.export(model, (images[:batch],), path, opset_version=17, dynamo=False)
    loaded = from_onnx(path, UNIT)
    gradients = []
    for network in (model, loaded):
        x = images.clone().requires_grad_()
        embeddings = network(x)
        embeddings.square().sum().backward()
        gradients.append((embeddings.detach(), x.grad))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-3)


def test_minus_infinity_hides_no_difference(tmp_path):
    """A mask, as in attention, and a sum over the batch that is the image itself in the batch of one that the file declares."""
    graph, mask = Graph(), np.zeros((1, 8), np.float32)
    mask[0, 3] = -np.inf
    value = graph.add("GlobalAveragePool", [graph.add("Conv", ["data", graph.weight(8, 3, 3, 3)])])
    value = graph.add("Add", [graph.add("Flatten", [value]), graph.tensor(mask)])
    value = graph.add("CumSum", [value, graph.tensor(np.array(0))])
    path = saved(tmp_path, graph.model(graph.add("Softmax", [value], axis=1), batch=1))
    assert_equal(path, from_onnx(path, UNIT))


def test_an_operation_that_runs_image_by_image_is_one_layer(tmp_path):
    """A layer puts out one row for each image, and runs once for all of them."""
    loaded = from_onnx(saved(tmp_path, mobile_face_net(1)), IMAGENET)
    layer, rows = loaded.get_submodule("network.reshape_0"), []
    assert isinstance(layer, PerImage)
    layer.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    loaded(smooth_images(3, (16, 16)))
    assert rows == [3]


@pytest.mark.parametrize(
    ("start", "end", "step"), [(0, 9, 1), (-2, 9, 1), (0, -1, 2), (-1, -99, -1), (4, 1, -2), (3, 0, -1)]
)
def test_slices_in_both_directions_equal_pythons(start, end, step):
    x = torch.arange(10).view(2, 5)
    found = Slice()(x, *(torch.tensor([v]) for v in (start, end)), axes=torch.tensor([-1]), steps=torch.tensor([step]))
    assert found.tolist() == [list(range(5 * row, 5 * row + 5))[start:end:step] for row in (0, 1)]
