"""Cases of pictures, photographs, folders, labels, ONNX files, model files and studies."""

import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from captum_leam import LEAM, leave_one_out_centroids
from captum_leam.faces import FaceAligner, read_crop, read_faces, read_photo
from captum_leam.faces.photos import list_pictures, picture_files
from captum_leam.faces.sources import alignment_doubt
from captum_leam.models import UNIT, from_onnx, load_model
from captum_leam.models.preprocessing import smooth_images
from captum_leam.reporting.files import FileOptions, explain_files
from captum_leam.synthetic import SyntheticPopulation
from tests.helpers.cases import Call, noted, refused, right
from tests.helpers.cases_of_models import IMAGES, WHO, seeded
from tests.helpers.networks import Inner, Tokens

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"

# -- pictures in files ---------------------------------------------------------------------------------

RAMP = np.linspace(0, 1, 600).reshape(20, 30)
"""A picture from black to white."""


def levels(bits: int) -> np.ndarray:
    return np.round(RAMP * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def grey() -> Tensor:
    return torch.from_numpy(np.stack([RAMP] * 3)).float()


def read(name: str, pixels: np.ndarray, **options: Any) -> Call:
    """The picture is read as the ramp."""

    def call(folder: Path) -> tuple[Tensor, Tensor]:
        Image.fromarray(pixels).save(folder / name, **options)
        return read_photo(folder / name), grey()

    return call


def declared(bits: int) -> PngInfo:
    info = PngInfo()
    info.add(b"sBIT", bytes([bits]))
    return info


def print_colours(folder: Path) -> tuple[Tensor, Tensor]:
    Image.fromarray(levels(8)).convert("CMYK").save(folder / "print.tif")
    return read_photo(folder / "print.tif"), grey()


def transparent(folder: Path) -> tuple[Tensor, Tensor]:
    Image.fromarray(np.dstack([levels(8), 0 * levels(8)]), "LA").save(folder / "clear.png")
    return read_photo(folder / "clear.png"), torch.ones(3, 20, 30)


def orientation(folder: Path) -> tuple[Tensor, Tensor]:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.ascontiguousarray(levels(8)[::-1, ::-1])).save(folder / "turned.png", exif=exif)
    return read_photo(folder / "turned.png"), grey()


def telephone(folder: Path) -> tuple[Tensor, Tensor]:
    pictures = [Image.fromarray(levels(8)).convert("RGB"), Image.new("RGB", (30, 20))]
    pictures[0].save(folder / "phone.jpg", "MPO", save_all=True, append_images=pictures[1:], quality=100)
    return read_photo(folder / "phone.jpg"), grey()


def portable(folder: Path) -> tuple[Tensor, Tensor]:
    (folder / "grey.pgm").write_bytes(b"P5 30 20 4095\n" + levels(12).astype(">u2").tobytes())
    return read_photo(folder / "grey.pgm"), grey()


def animation(folder: Path) -> None:
    frames = [Image.fromarray(np.roll(levels(8), i, 0)) for i in range(3)]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    read_photo(folder / "film.gif")


def bytes_of(name: str, content: bytes) -> Call:
    def call(folder: Path) -> None:
        (folder / name).write_bytes(content)
        read_photo(folder / name)

    return call


def truncated(folder: Path) -> None:
    Image.fromarray(levels(8)).save(folder / "whole.png")
    bytes_of("half.png", (folder / "whole.png").read_bytes()[:-80])(folder)


def bomb(folder: Path) -> None:
    Image.new("1", (12_000, 12_000)).save(folder / "bomb.png")
    read_photo(folder / "bomb.png")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)
FILES = [
    right("8-bit grey PNG", "its values / 255", read("a.png", levels(8)), tolerance=0.002),
    right("16-bit grey PNG", "its values / 65535", read("a.png", levels(16))),
    right("12-bit values in a PNG that declares them (sBIT)", "its values / 4095",
        read("a.png", levels(12), pnginfo=declared(12)), tolerance=2e-4),
    right("12-bit values in a PGM that declares them", "its values / 4095", portable, tolerance=2e-4),
    refused("10-bit values in a 16-bit PNG, undeclared", "…: values from 0 to 1023 have no known white. Save the picture …",
        read("a.png", levels(10))),
    right("Float TIFF in [0, 1]", "its values", read("a.tif", RAMP.astype(np.float32))),
    right("Float TIFF that exceeds its white by 0.4 %", "its values, clipped to 1",
        lambda folder: (read("a.tif", (1.004 * RAMP).astype(np.float32))(folder)[0], (1.004 * grey()).clamp(max=1))),
    refused("Float TIFF from 0 to 15", "…: values from 0 to 15 have no known white",
        read("a.tif", (15 * RAMP).astype(np.float32))),
    refused("Signed 16-bit TIFF with negative values", "…: values from … have no known white",
        read("a.tif", levels(8).astype(np.int32) - 128)),
    right("CMYK", "its colours", print_colours, tolerance=0.01),
    right("Transparent pixels", "white", transparent),
    right("EXIF orientation", "the upright picture", orientation, tolerance=0.002),
    right("A JPEG of two pictures (MPO), as telephones write", "the first picture", telephone, tolerance=0.02),
    refused("An animation", "…film.gif: expected a single picture, got an animation", animation),
    refused("A truncated file", "…half.png: the picture cannot be read", truncated),
    refused("Text called `.png`", "…a.png: not a picture that this Pillow can read",
        bytes_of("a.png", b"this is a letter\n" * 20)),
    refused("An empty file", "…a.png: the file is empty", bytes_of("a.png", b"")),
    refused("A decompression bomb", "…bomb.png: the picture is too large and may be a decompression bomb", bomb),
    refused("HEIC without pillow-heif", "…phone.HEIC: not a picture …Run: pip install pillow-heif",
        bytes_of("phone.HEIC", HEIC)),
    refused("A file that is not there", "…a.png: there is no such file", lambda folder: read_photo(folder / "a.png")),
]  # fmt: skip

# -- photographs ---------------------------------------------------------------------------------------

SIZES = """
from torch import nn

def pooled():  # a map of 7 × 7 at 112 px, as MobileFaceNets have it
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 7), nn.Flatten())

def any_size():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(4), nn.Flatten())
"""


def save_crops(folder: Path, px: int = 112) -> list[Path]:
    """Three crops of one synthetic person."""
    faces = SyntheticPopulation(2, seed=1).sample([0, 0, 0], seed=3).images
    paths = [folder / f"{i}.png" for i in range(len(faces))]
    for path, face in zip(paths, F.interpolate(faces, (px, px), mode="bilinear", antialias=True), strict=True):
        Image.fromarray((face.movedim(0, -1) * 255).round().byte().numpy()).save(path)
    return paths


def notes(paths: Any, folder: Path, network: str = "any_size", **options: Any) -> tuple[str, ...]:
    (folder / "sizes.py").write_text(SIZES)
    return explain_files(
        paths, f"{folder}/sizes.py:{network}", FileOptions(preset="fast", certainty=False, **options)
    ).messages


def of_size(network: str, px: int, **options: Any) -> Call:
    return lambda folder: notes(save_crops(folder, px)[:2], folder, network, **options)


@cache
def aligner() -> FaceAligner:
    return FaceAligner(weights=REAL, device="cpu")


def photograph() -> Tensor:
    return read_photo(REAL / "photos" / "img21.jpg")


@cache
def upright_crop() -> Tensor:
    return aligner()(photograph(), "largest")[0].crop


def turned(quarters: int) -> Call:
    return lambda _: (aligner()(photograph().rot90(quarters, (1, 2)), "largest")[0].crop, upright_crop())


def turned_crop(_: Path) -> list[str | None]:
    crop = read_crop(next(iter(sorted((REAL / "faces" / "s01").glob("*.png")))))
    return [alignment_doubt(crop.rot90(2, (1, 2)), aligner)]


def not_there(_: Path) -> None:
    aligner()(photograph(), 3)


def of_one_photograph(folder: Path) -> tuple[str, ...]:
    """Two portraits beside each other, the stranger larger."""
    with Image.open(REAL / "photos" / "img20.jpg") as one, Image.open(REAL / "photos" / "img21.jpg") as other:
        both = Image.new("RGB", (1300, 900))
        both.paste(one.convert("RGB"), (0, 0))
        both.paste(other.convert("RGB").resize((300, 395)), (950, 200))
    both.save(folder / "both.png")
    return notes([folder / "both.png", REAL / "photos" / "img21.jpg"], folder, weights=REAL)


OWN_SIZE = "Expected crops of 112 × 112 px, on which … numbers, got 250 × 250 px"
FACEXLIB: dict[str, Any] = {"needs": ("facexlib",), "is_real": True}
PHOTOGRAPHS = [
    right("A photograph turned by 90°", "the crop of the upright one", turned(1), tolerance=1e-3, **FACEXLIB),
    right("A photograph upside down", "the crop of the upright one", turned(2), tolerance=1e-3, **FACEXLIB),
    refused("No face", "no face was found", lambda _: aligner()(torch.zeros(3, 300, 300)), **FACEXLIB),
    refused("The fourth face of a portrait", "expected a face index below 1, the number of detected faces, got 3", not_there, **FACEXLIB),
    noted("Two faces in one photograph", "both.png: 2 faces were found, the largest was taken", of_one_photograph, **FACEXLIB),
    noted("An aligned crop upside down", "its face is upright only after a turn by 180°", turned_crop, **FACEXLIB),
    refused("250 × 250 px, not aligned, a network for 112 px", OWN_SIZE, of_size("pooled", 250)),
    noted("The same, and `size=(112, 112)`", "…taken for an aligned crop (250 × 250 px)",
        of_size("pooled", 250, size=(112, 112))),
    noted("250 × 250 px, a network for any size", "…taken for an aligned crop (250 × 250 px)", of_size("any_size", 250)),
    noted("A crop, and a face chosen (`faces=[1]`)", "…--face chooses a face of a photograph, and this is a crop",
        of_size("any_size", 112, faces=[1])),
    refused("A picture of 1 × 1 px", "…dot.png: expected a crop with sides of 16 px or more, got 1 × 1 px",
        lambda folder: (Image.new("RGB", (1, 1)).save(folder / "dot.png"), read_faces([folder / "dot.png"], aligner))),
]  # fmt: skip

# -- folders -------------------------------------------------------------------------------------------


def folder_with(mess: Callable[[Path], object]) -> Call:
    """Notes on a folder of three crops and something else."""

    def call(folder: Path) -> tuple[str, ...]:
        pictures = folder / "pictures"
        pictures.mkdir()
        save_crops(pictures)
        mess(pictures)
        return notes([pictures], folder)

    return call


def copied(folder: Path) -> None:
    paths = save_crops(folder)
    with Image.open(paths[0]) as image:
        image.resize((160, 160)).convert("L").save(folder / "copy.jpg", quality=60)
    notes([paths[0], folder / "copy.jpg"], folder, size=(112, 112))


def listed(folder: Path) -> tuple[int, int]:
    """Every entry of a messy folder is a picture or skipped with its reason; hidden ones are not counted."""
    save_crops(folder)
    (folder / "page.html").write_text("<html>")
    (folder / "inner").mkdir()
    (folder / "raw.nef").write_bytes((folder / "0.png").read_bytes())
    (folder / ".hidden.png").touch()
    pictures, skipped = list_pictures(folder)
    return len(pictures) + len([reason for _, reason in skipped if reason]), len(list(folder.iterdir())) - 1


FOLDERS = [
    right("A messy folder, listed", "pictures + skipped files with a reason = entries", listed),
    noted("Text among pictures", "left out: …notes.txt: not a picture that this Pillow can read",
        folder_with(lambda p: (p / "notes.txt").write_text("mine"))),
    noted("A folder within the folder", "left out: …more: ", folder_with(lambda p: (p / "more").mkdir())),
    noted("An empty file", "left out: …empty.png: the file is empty", folder_with(lambda p: (p / "empty.png").touch())),
    noted("A picture called `.bak`", "left out: …c.bak: its content is PNG, but its suffix is .bak",
        folder_with(lambda p: (p / "c.bak").write_bytes((p / "0.png").read_bytes()))),
    noted("HEIC from a telephone", "left out: …phone.HEIC: not a picture …pip install pillow-heif",
        folder_with(lambda p: (p / "phone.HEIC").write_bytes(HEIC))),
    noted("A link to nothing", "left out: …gone.png: ", folder_with(lambda p: (p / "gone.png").symlink_to("nowhere.png"))),
    noted("A link to another picture", "left out: …link.png: the same file as …0.png",
        folder_with(lambda p: (p / "link.png").symlink_to("0.png"))),
    noted("A pipe", "left out: …pipe.png: ", folder_with(lambda p: os.mkfifo(p / "pipe.png"))),
    refused("A picture and its smaller grey JPEG as a pair", "…0.png and …copy.jpg show the same", copied),
    refused("One picture twice", "…0.png and …0.png are the same picture",
        lambda folder: notes([(p := save_crops(folder)[0]), p], folder)),
    refused("A folder without pictures", "…: the folder has no image file", picture_files),
]  # fmt: skip

# -- labels and references -----------------------------------------------------------------------------

NOBODY = 'Expected a label for each of the …, got none (None, NaN or "") in rows [2, 3]'
EMBEDDINGS = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))


def centroids(labels: Any) -> Call:
    return lambda _: leave_one_out_centroids(EMBEDDINGS, labels)


def same_people(labels: Any) -> Call:
    return lambda _: (leave_one_out_centroids(EMBEDDINGS, labels), leave_one_out_centroids(EMBEDDINGS, WHO))


def repeated(_: Path) -> Tensor:
    return leave_one_out_centroids(EMBEDDINGS[[0, 1, 2, 0, 3]], ["ann", "ann", "bob", "ann", "bob"])


def towards(reference: Any, **options: Any) -> Call:
    return lambda _: LEAM(m := seeded(Inner), m.blocks[1], **options).attribute(IMAGES, reference=reference)


def own(_: Path) -> None:
    inner = seeded(Inner)
    with torch.no_grad():
        f = inner(IMAGES)
    LEAM(inner, inner.blocks[1], norm="differentiate").attribute(IMAGES, reference=f)


def each_its_own(_: Path) -> tuple[Tensor, Tensor]:
    inner, references = seeded(Inner), torch.randn(4, 12, generator=torch.Generator().manual_seed(3))
    leam = LEAM(inner, inner.blocks[1])
    single = [leam.attribute(x, reference=r) for x, r in zip(IMAGES.split(1), references.split(1), strict=True)]
    return leam.attribute(IMAGES, reference=references), torch.cat(single)


def zero_third() -> Tensor:
    references = EMBEDDINGS.clone()
    references[2] = 0
    return references


LABELS = [
    refused("`None` for a label", NOBODY, centroids(["ann", "ann", None, None])),
    refused("NaN for a label", NOBODY, centroids(np.array([1.0, 1.0, np.nan, np.nan]))),
    refused("An empty or blank label", NOBODY, centroids(["ann", "ann", "", " "])),
    refused("`pandas.NA` for a label", NOBODY, centroids(pd.array(["ann", "ann", pd.NA, pd.NA], dtype="string"))),
    refused("Three labels for four images", "Expected one label for each of the 4 embeddings, got 3", centroids(list("abc"))),
    right("Labels as numbers", "the references for names", same_people([0, 0, 1, 1])),
    right("Labels as a tensor", "the references for names", same_people(torch.tensor([5, 5, 2, 2]))),
    right("Labels as booleans", "the references for names", same_people([True, True, False, False])),
    refused("One image of a person", "…got one image only of: ann. Leave these people out",
        centroids(["ann", "bob", "bob", "bob"])),
    noted("The same embedding twice for one person", "Expected different images of each person, got equal embeddings in rows [0, 3]",
        repeated),
    right("One reference for each image", "the maps of the images one by one", each_its_own),
    refused("A reference of zeros in the third row",
        "Expected reference to have a direction, got rows [2] that are zero, NaN or infinite", towards(zero_third())),
    refused("A reference of another length",
        "Expected reference to have shape (12,), (1, 12) or (4, 12), got (7,)", towards(torch.ones(7))),
    refused("A numpy array as reference", "Expected reference to be a tensor (D,), (1, D) or (N, D), got a ndarray", towards(np.ones(12))),
    refused("The image's own embedding, `norm=\"differentiate\"`",
        "Expected a reference other than the embedding of the image with norm=\"differentiate\", got zero gradient for images [0, 1, 2, 3]",
        own),
    refused("A target", "Expected `target` to be None because embeddings have no classes, got 0",
        lambda _: LEAM(m := seeded(Inner), m.blocks[1]).attribute(IMAGES, target=0)),
]  # fmt: skip

# -- ONNX files ----------------------------------------------------------------------------------------

ONNX = {"needs": ("onnx", "onnx2torch", "onnxruntime")}


def onnx_file(
    folder: Path,
    batch: int | str = 1,
    opset: int = 17,
    ir: int = 8,
    dtype: Any = np.float32,
    scale: float = 0.3,
    **saving: Any,
) -> Path:
    """A convolution, BatchNorm and a linear layer behind a Reshape to one row, traced with one image as insightface exports."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw, kind = np.random.default_rng(0), TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    shapes = {"w": (6, 3, 3, 3), "s": (6,), "b": (6,), "m": (6,), "v": (6,), "g": (5, 6 * 64), "a": (5,)}
    values = {name: scale * draw.normal(0, 1, shape) + (name in "sv") * 2 for name, shape in shapes.items()}
    weights = [
        numpy_helper.from_array(np.abs(value).astype(dtype) if name == "v" else value.astype(dtype), name)
        for name, value in values.items()
    ]
    weights.append(numpy_helper.from_array(np.array([1, 6 * 64]), "shape"))
    nodes = [
        helper.make_node("Conv", ["data", "w"], ["c"], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "a"], ["e"], transB=1),
    ]
    inputs = [helper.make_tensor_value_info("data", kind, [batch, 3, 8, 8])]
    if ir < 4:  # weights are inputs, too
        inputs += [helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)) for w in weights]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("e", kind, ["n", 5])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    onnx.save(model, folder / "net.onnx", **saving)
    return folder / "net.onnx"


def by_onnx_runtime(path: Path, pictures: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    kind = np.float16 if session.get_inputs()[0].type == "tensor(float16)" else np.float32
    rows = [session.run(None, {"data": picture.numpy().astype(kind)})[0] for picture in pictures.split(1)]
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))


def as_onnx_runtime(**options: Any) -> Call:
    def call(folder: Path) -> tuple[Tensor, Tensor]:
        path = onnx_file(folder, **options)
        images = smooth_images(3, (8, 8))
        return from_onnx(path, UNIT)(images), by_onnx_runtime(path, images)

    return call


def traced_transformer(folder: Path) -> tuple[Tensor, Tensor]:
    model, images = seeded(Tokens), smooth_images(3, (16, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what tracing fixes
        torch.onnx.export(model, (images[:1],), folder / "net.onnx", opset_version=17, dynamo=False)
    return from_onnx(folder / "net.onnx", UNIT)(images), model(images)


def without_weights(folder: Path) -> None:
    path = onnx_file(folder, save_as_external_data=True, location="net.data", size_threshold=0)
    (folder / "net.data").unlink()
    from_onnx(path, UNIT)


def no_onnx(folder: Path) -> None:
    (folder / "net.onnx").write_text("no network")
    from_onnx(folder / "net.onnx", UNIT)


RUNTIME = "the embeddings of ONNX Runtime, image by image"
ONNX_FILES = [
    right("A Reshape to one row, batch 1", RUNTIME, as_onnx_runtime(), **ONNX),
    right("The same with a named batch axis", RUNTIME, as_onnx_runtime(batch="batch"), **ONNX),
    right("Operator set 7, IR 3, weights among the inputs", RUNTIME, as_onnx_runtime(opset=7, ir=3), **ONNX),
    right("Operator set 9, IR 4", RUNTIME, as_onnx_runtime(opset=9, ir=4), **ONNX),
    right("A transformer traced with one image", "the embeddings of the PyTorch module",
        traced_transformer, tolerance=1e-4, **ONNX),
    noted("Half precision throughout",
        "the file computes in half precision. The network computes in float32 with the same weights",
        lambda folder: from_onnx(onnx_file(folder, dtype=np.float16), UNIT), **ONNX),
    refused("Half precision that overflows", "…net.onnx: expected finite embeddings, got NaN or infinity from ONNX Runtime",
        lambda folder: from_onnx(onnx_file(folder, dtype=np.float16, scale=2e4), UNIT), **ONNX),
    refused("Weights beside the file are missing", "…net.onnx: weights beside the file are missing", without_weights, **ONNX),
    refused("Text called `.onnx`", "…net.onnx: expected an ONNX network, got a file that cannot be read", no_onnx, **ONNX),
]  # fmt: skip

# -- model files and studies ---------------------------------------------------------------------------

LOAD = "from torch import nn\nfrom prep import K\nclass N(nn.Module):\n    def forward(s, x): return x.flatten(1) * K\n"
LAZY = "from torch import nn\nclass N(nn.Module):\n    def forward(s, x):\n        from prep import K\n        return x.flatten(1) * K\n"
NET = """
import torch
from torch import nn
from prep import SIGN

class N(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4 * 24 * 24, 16)

    def forward(self, x):
        return {result}
"""
RESULT = "self.head(self.conv(SIGN * (x - 0.5)).relu().flatten(1))"
SMALL: dict[str, Any] = {
    "fractions": [0.1],
    "layer_fractions": [],
    "controls": ["random pixels"],
    "patterns": {"fraction": 0.05, "grid": 12, "permutations": 19, "resamples": 100, "controls": []},
}
STUDY = {"needs": ("pyarrow",)}


def repositories(code: str) -> Call:
    """Two repositories whose modules have the same names; the first is loaded again at the end."""

    def call(folder: Path) -> tuple[list[float], list[float]]:
        for name, value in (("A", 2.0), ("B", 3.0)):
            (folder / name).mkdir()
            (folder / name / "prep.py").write_text(f"K = {value}\n")
            (folder / name / "load.py").write_text(code)
        models = [load_model(f"{folder}/{name}/load.py:N") for name in "ABA"]
        return [float(model(torch.ones(1, 3, 1, 1))[0, 0]) for model in models], [2.0, 3.0, 2.0]

    return call


def loaded(name: str, code: str) -> Call:
    def call(folder: Path) -> nn.Module:
        (folder / "load.py").write_text(code)
        return load_model(f"{folder}/load.py:{name}")

    return call


def network(folder: Path, name: str = "net", result: str = RESULT) -> str:
    (folder / "prep.py").write_text("SIGN = 1.0\n")
    (folder / f"{name}.py").write_text(NET.format(result=result))
    return f"{name}.py:N"


def study(folder: Path, **models: str) -> Any:
    from captum_leam.study import Study
    from tests.helpers.tiny_study import write_faces, write_study

    if not (folder / "faces").exists():
        write_faces(folder, people=3)
    return Study(write_study(folder, models=models, **SMALL))


def unreliable(result: str) -> Call:
    return lambda folder: study(folder, a=network(folder, result=result)).run(progress=False, report=False)


def neighbour_changed(folder: Path) -> tuple[str, ...]:
    name = network(folder)
    study(folder, a=name).run(progress=False, report=False)
    (folder / "prep.py").write_text("SIGN = -1.\n")
    return tuple(repr(study(folder, a=name).check(recompute=0, progress=False)).splitlines())


def twins(folder: Path) -> list[str]:
    models = {name: network(folder, name) for name in ("a", "b")}
    return study(folder, **models).run(progress=False, report=False).manifest["notes"]


def messy_study(folder: Path) -> tuple[set[str], set[str]]:
    """Nested and loose pictures, text, a copy: files found are files used and files skipped."""
    from tests.helpers.tiny_study import write_faces

    faces = write_faces(folder, people=3)
    (faces / "p00" / "2020").mkdir()
    with Image.open(faces / "p00" / "0.png") as image:
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(faces / "p00" / "2020" / "nested.png")
        image.save(faces / "loose.png")
        image.save(faces / "p00" / "copy.jpg", quality=90)
    (faces / "p00" / "notes.txt").write_text("mine")
    result = study(folder, a=network(folder)).run(progress=False, report=False)
    images, skipped = result.table("images"), result.table("skipped")
    used = images.loc[images["status"] == "ok", "path"]
    found = {path.relative_to(faces).as_posix() for path in faces.rglob("*") if path.is_file()}
    return {*used, *skipped.loc[skipped["what"].isin(["image", "file"]), "path"]}, found


def nobody(folder: Path) -> None:
    (folder / "faces").mkdir()
    study(folder, a=network(folder)).run(progress=False, report=False)


MODEL_FILES = [
    right("Two repositories whose modules have one name", "each computes with its own modules", repositories(LOAD)),
    right("The same, imported within `forward`", "each computes with its own modules", repositories(LAZY)),
    refused("A file without the name asked for",
        "Expected the name of an object in …load.py, got 'M'. Similar names: …", loaded("M", LAZY)),
    refused("A file that raises", "…load.py raised ZeroDivisionError", loaded("N", "1 / 0\n")),
    refused("A name that is no network", "Expected math:pi to be a torch.nn.Module", lambda _: load_model("math:pi")),
    noted("A study whose network's neighbour file changed", "…networks: others: a", neighbour_changed, **STUDY),
    noted("Two model files with the same network in a study",
        "Models a (…) and b (…) return the same embeddings for fixed images",
        twins, **STUDY),
    refused("A study of a network with dropout", "models.a: Expected two passes over the same image",
        unreliable(f"nn.functional.dropout({RESULT}, 0.1)"), **STUDY),
    refused("A study of a network with the batch's mean subtracted",
        "models.a: Expected … not to depend on the other images of its batch",
        unreliable(f"(lambda e: e - e.mean(0))({RESULT})"), **STUDY),
    right("A study of a messy folder", "files used + files skipped with a reason = files found", messy_study, **STUDY),
    refused("A study of a folder without pictures", "people: expected image files (…) of people in …faces, got none", nobody, **STUDY),
]  # fmt: skip
