"""ONNX files against ONNX Runtime, one image at a time, and every way in which a file can be bad."""

import pathlib
import pickle
import sys

import numpy as np
import pytest
import torch

from captum_leam.errors import NormalisedWarning
from captum_leam.leam import LEAM
from captum_leam.models import IMAGENET, INSIGHTFACE, UNIT, Preprocessing, from_onnx, onnx_file
from captum_leam.models.preprocessing import smooth_images

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")
runtime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIZE = 8


def weights(shape, name, seed=0):
    return numpy_helper.from_array(np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32), name)


def network(
    *,
    batch=1,
    opset=17,
    shape=(1, -1),
    before=(),
    after=(),
    more=(),
    outputs=("embedding",),
    inputs=1,
    names=True,
    head="flat",
):
    """conv → relu → reshape → gemm, with steps before and after."""
    start = before[-1].output[0] if before else "pictures"
    label = (lambda text: text) if names else (lambda text: "")
    nodes = [
        *before,
        helper.make_node(
            "Conv", [start, "stem.0.weight" if names else "685"], ["a"], label("node_Conv_1"), pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["a"], ["b"], label("/stem/stem.1/Relu")),
        helper.make_node("GlobalAveragePool", ["b"], ["pooled"], label("/pool/Pool")),
        helper.make_node("Reshape", ["pooled", "shape"], [head], label("")),
        helper.make_node("Gemm", [head, "head.weight"], ["embedding"], label("node_Gemm"), transB=1),
        *after,
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info(f"pictures{i or ''}", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])
            for i in range(inputs)
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"n_{name}", f"d_{name}"]) for name in outputs],
        [
            weights((4, 3, 3, 3), "stem.0.weight" if names else "685"),
            weights((5, 4), "head.weight", 1),
            numpy_helper.from_array(np.array(shape, np.int64), "shape"),
            *more,
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(tmp_path, model, name="net.onnx"):
    onnx.save(model, tmp_path / name)
    return tmp_path / name


def one_by_one(path, pictures):
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return torch.from_numpy(np.concatenate([session.run(None, {name: x[None]})[0] for x in pictures.numpy()]))


@pytest.mark.parametrize("shape", [(1, -1), (1, 4), (-1, 4)])
@pytest.mark.parametrize("batch", [1, "batch"])
def test_any_batch_equals_one_by_one(tmp_path, batch, shape):
    path = saved(tmp_path, network(batch=batch, shape=(0, -1) if batch == "batch" else shape))
    model = from_onnx(path, INSIGHTFACE)
    images = smooth_images(8, (SIZE, SIZE), seed=7)
    expected = one_by_one(path, INSIGHTFACE(images))
    for count in (1, 8):
        torch.testing.assert_close(model(images[:count]), expected[:count], atol=1e-5, rtol=0)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_leam_runs_on_it_by_name(tmp_path):
    model = from_onnx(saved(tmp_path, network()), UNIT)
    maps = LEAM(model, model.get_submodule("network.stem.1")).attribute(smooth_images(3, (SIZE, SIZE)))
    assert maps.shape == (3, 1, SIZE, SIZE)


def test_layers_have_names_that_can_be_read(tmp_path):
    found = [name for name, _ in from_onnx(saved(tmp_path, network()), UNIT).named_modules()]
    assert {"network.stem.0", "network.stem.1", "network.pool", "network.reshape_0", "network.head"} <= set(found)
    unnamed = [name for name, _ in from_onnx(saved(tmp_path, network(names=False)), UNIT).named_modules()]
    assert {"network.conv_0", "network.relu_0", "network.head"} <= set(unnamed)


@pytest.mark.parametrize("outputs", [("mixed",), ("sum",)])
def test_a_network_that_mixes_the_images_of_a_batch_raises(tmp_path, outputs):
    """The mean over the batch is the image itself at batch 1; a file that is fixed to that batch can mean nothing else."""
    mix = helper.make_node("ReduceMean", ["embedding"], ["mixed"], axes=[0], keepdims=1)
    after = [mix, helper.make_node("Add", ["mixed", "embedding"], ["sum"])]
    images = smooth_images(3, (SIZE, SIZE))
    alone = saved(tmp_path, network(after=after, outputs=outputs))
    torch.testing.assert_close(from_onnx(alone, UNIT)(images), one_by_one(alone, images), atol=1e-5, rtol=0)
    for batch in ("batch", 3):
        path = saved(tmp_path, network(batch=batch, shape=(0, -1), after=after, outputs=("sum",)), "mixing.onnx")
        with pytest.raises(
            ValueError, match=r"mixing\.onnx: expected embeddings that do not depend on the other images"
        ):
            from_onnx(path, UNIT)


@pytest.mark.parametrize(("factor", "what"), [(1.01, "one image"), (float("nan"), "one image")])
def test_a_result_that_differs_from_onnx_runtime_raises(tmp_path, monkeypatch, factor, what):
    convert = onnx_file.convert

    def wrong(model):
        converted = convert(model)
        with torch.no_grad():
            converted.get_submodule("head").weight.mul_(factor)
        return converted

    monkeypatch.setattr(onnx_file, "convert", wrong)
    with pytest.raises(
        ValueError, match=rf"within 0\.0001 of the largest value, got a difference of .* on {what}\. Use the"
    ):
        from_onnx(saved(tmp_path, network()), UNIT)


def test_a_fixed_batch_that_cannot_be_freed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "separate_images", lambda *args: None)
    with pytest.raises(ValueError, match=r"fails on a batch of 3 \(.*Export the file with a dynamic batch axis"):
        from_onnx(saved(tmp_path, network(shape=(1, 4))), UNIT)
    mean = helper.make_node("ReduceMean", ["embedding"], ["mixed"], axes=[0], keepdims=1)
    path = saved(tmp_path, network(shape=(0, -1), after=[mean], outputs=("mixed",)))
    with pytest.raises(ValueError, match=r"expected embeddings of shape \(3, 5\) for a batch of 3, got \(1, 5\)"):
        from_onnx(path, UNIT)


def test_newer_operators_are_converted(tmp_path):
    """Operator set 20, and a reshape with allowzero that says nothing."""
    model = network(opset=20, batch="batch", shape=(-1, 4))
    next(node for node in model.graph.node if node.op_type == "Reshape").attribute.append(
        helper.make_attribute("allowzero", 1)
    )
    path = saved(tmp_path, model)
    images = smooth_images(3, (SIZE, SIZE))
    torch.testing.assert_close(from_onnx(path, UNIT)(images), one_by_one(path, images), atol=1e-5, rtol=0)


def test_weights_that_are_computed_from_the_image_raise(tmp_path):
    """The converter raises a KeyError, whose text is the name alone."""
    kernel = [
        helper.make_node("GlobalAveragePool", ["pictures"], ["kernel"]),
        helper.make_node("Conv", ["pictures", "kernel"], ["one"]),
        helper.make_node("Concat", ["one", "one", "one"], ["x"], axis=1),
    ]
    with pytest.raises(ValueError, match=r"net\.onnx: this network cannot be converted .* KeyError: 'kernel'"):
        from_onnx(saved(tmp_path, network(before=kernel)), UNIT)


def test_operators_without_a_counterpart_raise_and_are_named(tmp_path):
    model = network(after=[helper.make_node("Hardmax", ["embedding"], ["hard"])], outputs=("hard",))
    with pytest.raises(ValueError, match=r"net\.onnx: this network cannot be converted.*Hardmax.*opset_version=17"):
        from_onnx(saved(tmp_path, model), UNIT)


# -- pixels --------------------------------------------------------------------------------------------


def test_pixels_are_never_guessed(tmp_path):
    path = saved(tmp_path, network())
    with pytest.raises(
        ValueError,
        match=r"net\.onnx: expected preprocessing, because an ONNX file does not state it, got None.* INSIGHTFACE",
    ):
        from_onnx(path)
    assert from_onnx(path, INSIGHTFACE).preprocessing == Preprocessing((0.5,) * 3, (0.5,) * 3, size=(SIZE, SIZE))
    with pytest.raises(ValueError, match="preprocessing with layout NCHW, as the file, got NHWC"):
        from_onnx(path, Preprocessing(layout="NHWC"))
    with pytest.raises(ValueError, match=r"preprocessing with size \(8, 8\), as the file, got \(112, 112\)"):
        from_onnx(path, Preprocessing(size=(112, 112)))
    with pytest.raises(ValueError, match=r"images of size \(8, 8\), as the network reads, got \(9, 9\)"):
        from_onnx(path, UNIT)(smooth_images(1, (9, 9)))


@pytest.mark.parametrize(("mean", "std"), [(0.5, 1.0), (127.5, 1 / 255)])
def test_a_mean_within_the_graph_gives_the_preprocessing(tmp_path, mean, std):
    first = helper.make_node("Sub", ["pictures", "mean"], ["centred"])
    model = network(before=[first], more=[numpy_helper.from_array(np.full((1, 3, 1, 1), mean, np.float32), "mean")])
    loaded = from_onnx(saved(tmp_path, model))
    assert loaded.preprocessing == Preprocessing(std=(std,) * 3, size=(SIZE, SIZE))


# -- outputs -------------------------------------------------------------------------------------------


def test_one_of_several_outputs_must_be_chosen(tmp_path):
    path = saved(tmp_path, network(outputs=("flat", "embedding")))
    with pytest.raises(ValueError, match=r"got 2 outputs \['flat', 'embedding'\]\. Select one with output="):
        from_onnx(path, UNIT)
    images = smooth_images(2, (SIZE, SIZE))
    assert from_onnx(path, UNIT, output="embedding")(images).shape == (2, 5)
    chosen = from_onnx(path, UNIT, output="flat")
    assert chosen(images).shape == (2, 4)
    assert "network.head" not in dict(chosen.named_modules())
    with pytest.raises(ValueError, match=r"net\.onnx: expected output to be the name of a value, .* got 'lost'"):
        from_onnx(path, UNIT, output="lost")


def test_a_length_of_one_is_seen_and_can_be_left_out(tmp_path):
    length = helper.make_node("ReduceL2", ["embedding"], ["length"], axes=[1], keepdims=1)
    model = network(after=[length, helper.make_node("Div", ["embedding", "length"], ["unit"])], outputs=("unit",))
    path = saved(tmp_path, model)
    with pytest.warns(NormalisedWarning, match="output= 'embedding', the value before"):
        from_onnx(path, UNIT)
    images = smooth_images(2, (SIZE, SIZE))
    norms = from_onnx(path, UNIT, output="embedding")(images).norm(dim=1)
    assert (norms - 1).abs().min() > 0.01


def test_shared_weights_and_open_clips_of_exporters_are_read(tmp_path):
    """Equal weights once, with an Identity for the other; and a division by the length whose Clip has no upper bound, ``""``."""
    shared = [
        helper.make_node("Identity", ["gain"], ["onnx::Gain_2"]),
        helper.make_node("Conv", ["pictures", "onnx::Gain_2"], ["x"]),
    ]
    division = [
        helper.make_node("ReduceL2", ["embedding"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Constant", [], ["least"], value=numpy_helper.from_array(np.array(1e-12, np.float32))),
        helper.make_node("Clip", ["length", "least", ""], ["clipped"]),
        helper.make_node("Div", ["embedding", "clipped"], ["unit"]),
    ]
    model = network(before=shared, after=division, outputs=("unit",), more=[weights((3, 3, 1, 1), "gain", 5)])
    path = saved(tmp_path, model)
    images = smooth_images(3, (SIZE, SIZE))
    with pytest.warns(NormalisedWarning):
        converted = from_onnx(path, UNIT)
    torch.testing.assert_close(converted(images), one_by_one(path, images), atol=1e-5, rtol=0)


def test_graphs_with_other_inputs_raise(tmp_path):
    with pytest.raises(ValueError, match=r"2 inputs \['pictures', 'pictures1'\]"):
        from_onnx(saved(tmp_path, network(inputs=2)), UNIT)
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    with pytest.raises(ValueError, match=r"shape \[1, 1, 8, 8\]"):
        from_onnx(saved(tmp_path, model), UNIT)
    wrong = network()
    wrong.graph.node[0].input[0] = "photos"
    with pytest.raises(
        ValueError, match=r"net\.onnx: expected an ONNX network, got a file that cannot be read .*photos"
    ):
        from_onnx(saved_unchecked(tmp_path, wrong), UNIT)


def saved_unchecked(tmp_path, model):
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "net.onnx"


# -- bad files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x00" * 300, "half", "tail"])
def test_bad_files_are_named(tmp_path, content):
    whole = network().SerializeToString()
    broken = {"half": whole[: len(whole) // 2], "tail": whole[:-7]}
    (tmp_path / "bad.onnx").write_bytes(broken.get(content, content) if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=r"bad\.onnx: "):
        from_onnx(tmp_path / "bad.onnx", UNIT)


def test_fuzzed_files_load_or_are_named(tmp_path):
    """A byte changed somewhere: the network of the file, or one line."""
    whole = network().SerializeToString()
    random = np.random.default_rng(0)
    refused = 0
    for i in range(40):
        bytes_ = bytearray(whole)
        bytes_[random.integers(0, len(whole))] = random.integers(0, 256)
        (tmp_path / f"{i}.onnx").write_bytes(bytes_)
        try:
            from_onnx(tmp_path / f"{i}.onnx", UNIT)
        except ValueError as error:
            refused += 1
            assert f"{i}.onnx: " in str(error)  # noqa: PT017
    assert 0 < refused < 40


def test_missing_weights_beside_the_file_raise(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(network(), path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert from_onnx(path, UNIT)(smooth_images(1, (SIZE, SIZE))).shape == (1, 5)
    (tmp_path / "net.data").unlink()
    with pytest.raises(ValueError, match=r"net\.onnx: weights beside the file are missing"):
        from_onnx(path, UNIT)


def test_a_pickle_is_not_run(tmp_path):
    class Touch:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "run",))

    (tmp_path / "net.onnx").write_bytes(pickle.dumps(Touch()))
    with pytest.raises(ValueError, match=r"net\.onnx: "):
        from_onnx(tmp_path / "net.onnx", UNIT)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["onnx", "onnx2torch", "onnxruntime"])
def test_a_missing_package_names_its_command(tmp_path, monkeypatch, package):
    path = saved(tmp_path, network())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "captum-leam\[onnx\]"'):
        from_onnx(path, UNIT)


# -- real files ----------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "file", "preprocessing"),
    [("ms1m", "mobilefacenet_ms1m_fixed_batch.onnx", IMAGENET), ("casia", "mobilefacenet_casia.onnx", None)],
)
def test_real_files_equal_the_networks_they_were_exported_from(real_dir, real_models, name, file, preprocessing):
    model, native = from_onnx(real_dir / file, preprocessing), real_models.RECOGNISERS[name]()
    for batch in (1, 8):
        images = smooth_images(batch, (112, 112), seed=batch)
        torch.testing.assert_close(model(images), native(images), atol=1e-4, rtol=0)
    layers = dict(model.named_modules())
    assert {"ms1m": "network.features.14.add", "casia": "network.stages.2.5.add"}[name] in layers
