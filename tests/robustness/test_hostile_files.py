"""Files that others made to harm: nothing in them runs, nothing outside is read for them, none takes the memory or never ends."""

import io
import os
import pickle
import re
import struct
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_leam._weights import load_network, load_state
from captum_leam.errors import ConfigError
from captum_leam.faces import read_crop, read_photo
from captum_leam.faces.formats import FORMATS
from captum_leam.models import from_onnx
from captum_leam.models.preprocessing import UNIT
from captum_leam.regions.label_files import read_labels
from captum_leam.reporting.files import explain_files
from captum_leam.study.config import config_from, read_config
from captum_leam.study.listing import hashed, list_people


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def within(seconds: float, function, *arguments):
    """What a function gives or raises; it has to end."""
    found: list[object] = []

    def work() -> None:
        try:
            found.append(function(*arguments))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, f"{function.__name__} is still at it after {seconds} s"
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


# -- checkpoints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".onnx", ".npy", ".png", ".safetensors"])
@pytest.mark.parametrize("packed", ["bare", "torch", "old torch", "numpy"])
def test_a_pickle_is_never_run(tmp_path, suffix, packed):
    trap, path = tmp_path / "ran", tmp_path / f"weights{suffix}"
    if packed == "bare":
        path.write_bytes(pickle.dumps({"w": Trap(trap)}))
    elif packed == "numpy":
        with path.open("wb") as file:
            np.save(file, np.array([Trap(trap)], dtype=object), allow_pickle=True)
    else:
        torch.save({"w": Trap(trap)}, path, _use_new_zipfile_serialization=packed == "torch")
    readers = {".onnx": lambda p: from_onnx(p, UNIT), ".npy": read_labels, ".png": read_photo}
    with pytest.raises(ValueError, match=re.escape(path.name)):
        readers.get(suffix, load_state)(path)
    assert not trap.exists()


def test_the_trap_of_pickles_runs_where_pickles_are_loaded(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "ran")))  # noqa: S301
    assert (tmp_path / "ran").exists()


def test_a_few_bytes_that_claim_to_be_terabytes_raise(tmp_path):
    """A tensor with strides of 0: the file holds one value, ``isfinite`` would make 4 TB of it."""
    for name, value in {
        "expanded": torch.zeros(1).expand(2**40),
        "sparse": torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (2**20, 2**20)),
        "meta": torch.empty(2**40, device="meta"),
    }.items():
        torch.save({"weight": value}, tmp_path / f"{name}.pth")
        with pytest.raises(
            ValueError,
            match=rf"{name}\.pth: expected dense tensors that are stored in full, got another kind for weight",
        ):
            load_network(lambda: nn.Linear(2, 1), tmp_path / f"{name}.pth")


def test_tied_weights_are_no_bomb(tmp_path):
    shared = torch.rand(3)
    torch.save({"a": shared, "b": shared, "c": shared[1:]}, tmp_path / "tied.pth")
    assert torch.equal(load_state(tmp_path / "tied.pth")[0]["c"], shared[1:])


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path):
    """64 MB of zeros in 64 kB; and the same bytes under two names."""
    torch.save({"w": torch.zeros(2**24)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain:
        entries = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in entries.items():
            bomb.writestr(name, content)
    assert (tmp_path / "bomb.pth").stat().st_size < 200_000
    with pytest.raises(
        ValueError,
        match=r"bomb\.pth: expected a checkpoint written by torch\.save, got a compressed or inconsistent archive",
    ):
        load_state(tmp_path / "bomb.pth")
    assert load_state(tmp_path / "plain.pth")[0]["w"].shape == (2**24,)


# -- pipes and devices -------------------------------------------------------------------------------------


@pytest.fixture
def pipe(tmp_path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs pipes")
    path = tmp_path / "faces" / "ann" / "pipe.png"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    os.mkfifo(path.with_suffix(".npy"))
    os.mkfifo(tmp_path / "people.csv")
    return path


def test_pipes_are_not_waited_for(pipe, tmp_path):
    """Whoever opens a pipe that nobody writes to waits for ever; a device such as /dev/zero never ends."""
    for read in (read_photo, read_crop, load_state, read_labels):
        with pytest.raises(ValueError, match="no such file|no file"):
            within(10, read, pipe)
    with pytest.raises(ValueError, match="no file"):
        within(10, read_labels, pipe.with_suffix(".npy"))
    with pytest.raises(ValueError, match="no such file"):
        within(10, explain_files, [pipe, pipe], "torch.nn:Identity")
    folder = config_from({"people": str(tmp_path / "faces"), "models": {"a": "torch.nn:Identity"}})
    listing = within(10, hashed, list_people(folder), folder.people.folder, 1)
    assert [picture.reason for picture in listing.pictures] == ["the file cannot be read (it is no file)"]
    table = config_from({"people": str(tmp_path / "people.csv"), "models": {"a": "torch.nn:Identity"}})
    with pytest.raises(ConfigError, match="got no regular file"):
        within(10, list_people, table)


# -- pictures ------------------------------------------------------------------------------------------------

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 64 64
%%EndComments
(ran) (w) file closefile
showpage
%%EOF
"""


@pytest.mark.parametrize("name", ["face.eps", "face.png", "face.jpg"])
def test_postscript_is_not_handed_to_ghostscript(tmp_path, monkeypatch, name):
    """Pillow takes it for a picture, whatever its name, and starts a program that runs it."""
    (tmp_path / name).write_bytes(POSTSCRIPT)
    with Image.open(tmp_path / name) as image:
        assert image.format == "EPS"  # what would happen otherwise
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    for read in (read_photo, read_crop):
        with pytest.raises(ValueError, match=rf"{re.escape(name)}: not a picture"):
            read(tmp_path / name)


def test_only_formats_of_photographs_are_decoded(tmp_path):
    Image.init()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    read, refused = set(), set()
    for kind in sorted(Image.SAVE):
        try:
            picture.save(tmp_path / f"x.{kind}", kind)
        except Exception:  # noqa: S112 - Pillow cannot write this one here
            continue
        try:
            assert read_photo(tmp_path / f"x.{kind}").shape == (3, 32, 32)
            read.add(kind)
        except ValueError as error:
            assert "not a picture" in str(error)  # noqa: PT017
            refused.add(kind)
    assert {"PNG", "JPEG", "BMP", "TIFF", "PPM"} <= read <= {*FORMATS, "DIB"}
    assert {"TGA", "PCX", "EPS"} & refused


def test_the_name_says_nothing_about_the_content(tmp_path):
    """A PNG that is called JPEG is read; palette, 16 bits and a wrong orientation in its EXIF give a picture or one line."""
    picture = Image.fromarray((np.arange(32 * 48) % 256).astype(np.uint8).reshape(32, 48))
    picture.save(tmp_path / "png.jpg", "PNG")
    assert read_photo(tmp_path / "png.jpg").shape == (3, 32, 48)
    picture.convert("P").save(tmp_path / "palette.png", transparency=3)
    assert read_photo(tmp_path / "palette.png").shape == (3, 32, 48)
    for orientation in (0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(tmp_path / "odd.jpg", exif=exif)
        assert read_photo(tmp_path / "odd.jpg").shape == (3, 32, 48)
    content = io.BytesIO()
    picture.save(content, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "loop.jpg").write_bytes(content.getvalue())
    assert read_photo(tmp_path / "loop.jpg").shape == (3, 32, 48)


def test_a_bomb_takes_no_memory(tmp_path):
    """A PNG of 60 kB that says 8000 × 8000 and holds it: refused by its head, before a pixel is unpacked."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 8100, 8100, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(8100 * 8101), 9)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(png)
    assert len(png) < 100_000
    for read in (read_photo, read_crop):
        with pytest.raises(ValueError, match="8100 × 8100 px"):
            read(tmp_path / "bomb.png")


def test_an_archive_of_arrays_is_no_label_map(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 2), np.int64))
    os.rename(tmp_path / "a.npz", tmp_path / "labels.npy")
    with pytest.raises(ValueError, match=r"labels\.npy: expected an array of integers .* archive of arrays"):
        read_labels(tmp_path / "labels.npy")


# -- YAML ----------------------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("title: !!python/object/apply:os.mkdir [ran]", 3, "python/object/apply:os.mkdir is no plain list"),
        ("title: !!python/name:os.mkdir x", 3, "could not determine a constructor"),
        ("title: !!python/object/new:os.mkdir {args: [ran]}", 3, "is no plain list or mapping"),
        ("!!python/name:os.mkdir x: 1", 3, "!!python/name:os.mkdir|is not a setting|could not determine"),
        (BOMB, 4, "got the alias .*Write the value out"),
        ("title: &t [*t]", 3, "got the alias"),
        ("<<: {seed: 3}", 3, "<< is not a setting"),
        ("seed: 1\nseed: 2", 4, "seed is there twice"),
        ("leam: {n_steps: 2, n_steps: 3}", 3, "leam.n_steps is there twice"),
        (f"seed: {'9' * 4000}", 3, "a number is at most 9223372036854775807"),
        (f"seed: 0x{'f' * 4000}", 3, "a number is at most"),
        (f"seed: {'9' * 5000}", 3, "has 5000 characters; a value has at most 4096"),
        (f"seed: 1{':59' * 30_000}", 3, "characters; a value has at most"),
        (f"batch_size: {2**64}", 3, "a number is at most"),
        ("title: 2001-02-31", 3, "title is '2001-02-31', which is no timestamp"),
        ("title: !!timestamp never", 3, "title is 'never', which is no timestamp"),
        ("title: !!bool perhaps", 3, "title is 'perhaps', which is no bool"),
        ("seed: !!int ''", 3, "seed is '', which is no int"),
        ("max_eer: .nan", 3, "Expected max_eer to be a number over 0 and at most 0.5, got nan"),
        ("max_eer: .inf", 3, "Expected max_eer to be a number over 0 and at most 0.5, got inf"),
        (f"fractions: {'[' * 30}0.1{']' * 30}", 3, "at most 20 levels of nesting"),
        ('title: "a\\0b"', 3, "without NUL"),
        ("? [a, b]\n: 1", 3, "a list or mapping is no name of a setting"),
    ],
)
def test_tags_of_a_configuration_construct_nothing(tmp_path, monkeypatch, text, line, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(f"people: .\nmodels: {{a: torch.nn:Identity}}\n{text}\n")
    with pytest.raises(ConfigError, match=rf"c\.yaml, line {line}: .*({said})"):
        within(10, read_config, tmp_path / "c.yaml")
    assert not (tmp_path / "ran").exists()


# -- ONNX ----------------------------------------------------------------------------------------------------


def graph(nodes, inputs=("batch", 3, 32, 32), weights=()):
    from onnx import TensorProto, helper

    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "d"])],
            list(weights),
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )


def outside(location: str):
    """A network whose weight lies in another file."""
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3, 1, 1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "48")):
        weight.external_data.add(key=key, value=value)
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Flatten", ["a"], ["y"])]
    return graph(nodes, weights=[weight])


@pytest.mark.parametrize("way", ["..", "absolute", "symlink", "device", "nested"])
def test_weights_outside_the_folder_of_the_file_are_not_read(tmp_path, way):
    pytest.importorskip("onnx")
    secret, folder = tmp_path / "secret.bin", tmp_path / "net"
    secret.write_bytes(np.full(12, 7, np.float32).tobytes())
    folder.mkdir()
    (folder / "inner").mkdir()
    location = {
        "..": "../secret.bin",
        "absolute": str(secret),
        "symlink": "link.bin",
        "device": "/dev/zero",
        "nested": "inner/../../secret.bin",
    }[way]
    if way == "symlink":
        (folder / "link.bin").symlink_to(secret)
    (folder / "net.onnx").write_bytes(outside(location).SerializeToString())
    with pytest.raises(
        ValueError, match=r"net\.onnx: .*(weights beside the file are (missing|links)|points outside the directory)"
    ):
        within(60, from_onnx, folder / "net.onnx", UNIT)
    secret.rename(folder / "own.bin")
    (folder / "net.onnx").write_bytes(outside("own.bin").SerializeToString())
    assert bool((from_onnx(folder / "net.onnx", UNIT)(torch.ones(1, 3, 32, 32)) == 21).all())


def test_a_cyclic_graph_raises(tmp_path):
    pytest.importorskip("onnx")
    from onnx import helper

    cyclic = graph(
        [
            helper.make_node("Add", ["x", "b"], ["a"]),
            helper.make_node("Flatten", ["a"], ["b"]),
            helper.make_node("Identity", ["b"], ["y"]),
        ]
    )
    (tmp_path / "cyclic.onnx").write_bytes(cyclic.SerializeToString())
    for output in (None, "a"):
        with pytest.raises(ValueError, match=r"cyclic\.onnx: expected an ONNX network, .*topolog"):
            within(60, lambda output=output: from_onnx(tmp_path / "cyclic.onnx", UNIT, output=output))


@pytest.mark.parametrize(
    "shape",
    [("n", 3, 2**40, 2**40), ("n", 3, 4097, 32), (10**9, 3, 112, 112), (64, 3, 4000, 4000), (-1, 3, -5, 7)],
    ids=str,
)
def test_absurd_sizes_are_refused_before_anything_is_made_of_them(tmp_path, shape):
    pytest.importorskip("onnx")
    from onnx import helper

    made = graph([helper.make_node("Flatten", ["x"], ["y"])], shape)
    (tmp_path / "huge.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ValueError, match=r"huge\.onnx: ") as error:
        within(60, from_onnx, tmp_path / "huge.onnx", UNIT)
    if min(v for v in shape if isinstance(v, int)) > 0:
        assert "at most 4096 px a side and 64000000 pixels per batch" in str(error.value)


def test_a_weight_that_claims_more_than_it_holds_raises(tmp_path):
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**20, 2**20, 1, 1], raw_data=b"\0" * 16)
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Flatten", ["a"], ["y"])]
    (tmp_path / "claims.onnx").write_bytes(graph(nodes, weights=[weight]).SerializeToString())
    with pytest.raises(ValueError, match=r"claims\.onnx: expected an ONNX network, .*w"):
        within(60, from_onnx, tmp_path / "claims.onnx", UNIT)
