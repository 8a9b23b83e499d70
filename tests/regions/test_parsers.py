"""Parsers: class orders with painted networks, facexlib's own code on checkpoints made here, label files, superpixels, schemes."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_leam.faces.aligned import align
from captum_leam.faces.geometry import ARCFACE_112, transform_points
from captum_leam.models import IMAGENET, INSIGHTFACE
from captum_leam.regions import CELEBAMASK_HQ, TEMPLATE, RegionScheme, TemplateParser, parse, region_report
from captum_leam.regions.components import (
    COARSE,
    FISWG_CELEBAMASK_HQ,
    FISWG_COMPONENTS,
    FISWG_TEMPLATE,
    NOT_A_COMPONENT,
    merge_regions,
)
from captum_leam.regions.label_files import LabelMapParser, read_labels
from captum_leam.regions.parsers import (
    BISENET_CLASSES,
    PARSENET_CLASSES,
    WIDE_512,
    FacexlibParser,
    NetworkParser,
    parse_on_photo,
)
from captum_leam.regions.superpixels import superpixels

# what the networks' own documentation says, in its words and order
BISENET_SAYS = "background skin l_brow r_brow l_eye r_eye eye_g l_ear r_ear ear_r nose mouth u_lip l_lip neck neck_l cloth hair hat"
PARSENET_SAYS = "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat ear_r neck_l neck cloth"
MEANT = {
    "l_brow": "left_brow",
    "r_brow": "right_brow",
    "l_eye": "left_eye",
    "r_eye": "right_eye",
    "eye_g": "glasses",
    "l_ear": "left_ear",
    "r_ear": "right_ear",
    "ear_r": "earring",
    "u_lip": "upper_lip",
    "l_lip": "lower_lip",
    "neck_l": "necklace",
}
TRAINED_ON = {"bisenet": IMAGENET, "parsenet": INSIGHTFACE}
FILES = {"bisenet": "parsing_bisenet.pth", "parsenet": "parsing_parsenet.pth"}


class Painted(nn.Module):
    """Stands where a network stands: the class of every pixel is written in its brightness, in steps of 1/20."""

    def __init__(self, classes: int = 19, wrap=lambda scores: scores) -> None:
        super().__init__()
        self.classes, self.wrap, self.seen = classes, wrap, []
        self.mean, self.std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)

    def forward(self, x):
        self.seen.append(x)
        value = ((x * self.std + self.mean) * 20).mean(1)
        steps = torch.arange(self.classes, device=x.device).view(1, -1, 1, 1)
        return self.wrap(-((value[:, None] - steps) ** 2))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Random weights of the real architectures, in the format of the published files."""
    bisenet = pytest.importorskip("facexlib.parsing.bisenet")
    parsenet = pytest.importorskip("facexlib.parsing.parsenet")
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(bisenet.BiSeNet(num_class=19).state_dict(), folder / FILES["bisenet"])
        torch.save(parsenet.ParseNet(in_size=512, out_size=512, parsing_ch=19).state_dict(), folder / FILES["parsenet"])
    return folder


# -- class orders --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "said"), [(BISENET_CLASSES, BISENET_SAYS), (PARSENET_CLASSES, PARSENET_SAYS)])
def test_the_orders_are_the_documented_ones(classes, said):
    assert list(classes) == [MEANT.get(name, name) for name in said.split()]
    assert set(classes) == set(CELEBAMASK_HQ.names)


@pytest.mark.parametrize(("name", "said"), [("bisenet", BISENET_SAYS), ("parsenet", PARSENET_SAYS)])
def test_a_painted_class_comes_out_under_its_name(checkpoints, name, said):
    parser = FacexlibParser(name, weights=checkpoints, device="cpu")
    parser.network = Painted(wrap=lambda scores: (scores, None))
    parser.network.mean, parser.network.std = (
        torch.tensor(v).view(3, 1, 1) for v in (TRAINED_ON[name].mean, TRAINED_ON[name].std)
    )
    images = (torch.arange(19.0) / 20).view(19, 1, 1, 1).expand(19, 3, 16, 16)
    labels = parse(parser, images)
    assert labels.dtype == torch.int64
    for i, word in enumerate(said.split()):
        assert CELEBAMASK_HQ.regions[int(labels[i, 8, 8])] == MEANT.get(word, word)
        assert bool((labels[i] == labels[i, 0, 0]).all())


@pytest.mark.parametrize(
    ("name", "black", "white"),
    [
        ("bisenet", (-2.1179, -2.0357, -1.8044), (2.2489, 2.4286, 2.64)),
        ("parsenet", (-1, -1, -1), (1, 1, 1)),
    ],
)
def test_networks_read_what_they_were_trained_on(checkpoints, name, black, white):
    """512 × 512, RGB; ImageNet's mean and deviation for one, [−1, 1] for the other."""
    parser = FacexlibParser(name, weights=checkpoints, device="cpu")
    parser.network = Painted()
    parser(torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]))
    (seen,) = parser.network.seen
    assert seen.shape == (2, 3, 512, 512)
    assert seen[0, :, 0, 0].tolist() == pytest.approx(black, abs=1e-3)
    assert seen[1, :, 0, 0].tolist() == pytest.approx(white, abs=1e-3)
    colours = torch.zeros(1, 3, 8, 8)
    colours[:, 0] = 1
    parser(colours)
    assert parser.network.seen[1][0, :, 0, 0].tolist() == pytest.approx([white[0], *black[1:]], abs=1e-3)


# -- facexlib's own code -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bisenet", "parsenet"])
def test_real_networks_run_on_random_weights(checkpoints, name):
    before = torch.random.get_rng_state()
    parser = FacexlibParser(name, weights=checkpoints, device="cpu", batch_size=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    parser.size = 64  # the architecture is convolutional; 512 takes seconds
    images = torch.rand(3, 3, 24, 20)
    scores = parser.scores(images)
    assert scores.shape == (3, 19, 24, 20)
    assert not scores.requires_grad
    # the network called by hand, in facexlib's way
    x = TRAINED_ON[name](torch.nn.functional.interpolate(images, (64, 64), mode="bilinear"))
    with torch.no_grad():
        expected = parser.network(x)[0]
    expected = torch.nn.functional.interpolate(expected, (24, 20), mode="bilinear", antialias=True)
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-3)
    order = torch.tensor([CELEBAMASK_HQ.index(one) for one in parser.classes])
    assert torch.equal(parser(images), order[scores.argmax(1)])
    assert parser.sha256[:12] in repr(parser)


def test_weights_of_other_networks_and_hashes_raise(checkpoints, tmp_path):
    with pytest.raises(ValueError, match="expected weights of BiSeNet, got those of another network"):
        FacexlibParser("bisenet", weights=checkpoints / FILES["parsenet"])
    with pytest.raises(ValueError, match="SHA-256"):
        FacexlibParser("bisenet", weights=checkpoints, sha256="0" * 64)
    with pytest.raises(ValueError, match=r"holds no parsing_bisenet\.pth"):
        FacexlibParser("bisenet", weights=tmp_path)
    with pytest.raises(ValueError, match="'segformer'"):
        FacexlibParser("segformer", weights=checkpoints)


# -- any network ---------------------------------------------------------------------------------------


def halves(*classes, **options):
    scheme = RegionScheme({0: "background", 3: "left", 7: "right"}, name="halves")
    return NetworkParser(Painted(len(classes)).eval(), classes, scheme=scheme, size=32, **options)


@pytest.mark.parametrize(
    "options", [{"std": (1.0, 0.0, 1.0)}, {"std": (1.0, 1.0)}, {"mean": (0.5,)}, {"size": 0}, {"batch_size": 0}]
)
def test_wrong_options_of_network_parsers_raise(options):
    with pytest.raises(ValueError, match="Expected (mean and std|size|batch_size) to be"):
        NetworkParser(nn.Conv2d(3, 2, 1).eval(), ("background", "nose"), **options)


def test_classes_come_in_any_order_and_images_in_batches():
    parser = halves("right", "background", "left", batch_size=2)
    images = (torch.arange(3.0) / 20).view(3, 1, 1, 1).expand(3, 1, 8, 8).repeat(2, 1, 1, 1)  # grey, too
    assert parser(images)[:, 0, 0].tolist() == [7, 0, 3] * 2
    assert [len(seen) for seen in parser.network.seen] == [2, 2, 2]
    assert parser.scores(images).shape == (6, 3, 8, 8)
    assert parser(images[:0]).shape == (0, 8, 8)
    assert parser.scores(images[:0]).shape == (0, 3, 8, 8)
    assert halves("left", "right", "left")(images)[:3, 0, 0].tolist() == [3, 7, 3]  # two scores of one region


def test_edges_stay_where_they_are():
    """Up to the size of the network and back: half of the crop, to within a pixel."""
    image = torch.zeros(1, 3, 16, 16)
    image[..., 10:] = 1 / 20
    for size in (16, 50, 512):
        parser = halves("left", "right")
        parser.size = size
        labels = parser(image)[0]
        assert bool((labels[:, :9] == 3).all())
        assert bool((labels[:, 11:] == 7).all())


def test_images_of_wrong_shape_or_range_raise():
    parser = halves("left", "right")
    for wrong in (torch.rand(3, 8, 8), torch.rand(1, 4, 8, 8), torch.ones(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"of shape \(N, 3, H, W\)"):
            parser(wrong)
    for wrong in (2 * torch.rand(1, 3, 8, 8) - 1, 255 * torch.rand(1, 3, 8, 8)):
        with pytest.raises(ValueError, match="Undo the preprocessing"):
            parser(wrong)


def test_networks_with_other_classes_or_in_training_mode_raise():
    with pytest.raises(ValueError, match=r"classes to be regions .* got \['beard'\]"):
        halves("left", "beard")
    scheme = RegionScheme({0: "a", 1: "b"})
    with pytest.raises(ValueError, match="training mode"):
        NetworkParser(Painted(2), ["a", "b"], scheme=scheme)
    parser = NetworkParser(Painted(3).eval(), ["a", "b"], scheme=scheme, size=8)
    with pytest.raises(ValueError, match=r"scores of shape \(1, 2, h, w\), .* got \(1, 3, 8, 8\)"):
        parser(torch.rand(1, 3, 8, 8))
    broken = NetworkParser(Painted(2, wrap=lambda s: s * torch.nan).eval(), ["a", "b"], scheme=scheme, size=8)
    with pytest.raises(ValueError, match="NaN"):
        broken(torch.rand(1, 3, 8, 8))


def test_labels_parsed_on_the_photograph_lie_on_the_crop():
    """A parser that finds the brightest pixel block: the label lies where the photograph was bright, on the crop."""
    c, s = 2.5 * np.cos(0.3), 2.5 * np.sin(0.3)
    onto = np.array([[c, -s, 180.0], [s, c, 60.0]])
    photo = torch.zeros(3, 500, 600)
    nose = transform_points(ARCFACE_112, onto)[2].round().astype(int)
    photo[:, nose[1] - 12 : nose[1] + 13, nose[0] - 12 : nose[0] + 13] = 1
    face = align(photo, transform_points(ARCFACE_112, onto))
    sizes = []

    def bright(images):
        sizes.append(tuple(images.shape))
        return (images[:, 0] > 0.5).long() * 2

    labels = parse_on_photo(bright, photo, face)
    assert sizes == [(1, 3, 512, 512)]
    assert labels.unique().tolist() == [0, 2]
    overlap = (labels == 2) & (face.crop[0] > 0.5)
    assert overlap.sum() / ((labels == 2) | (face.crop[0] > 0.5)).sum() > 0.85
    with pytest.raises(ValueError, match="the size .* of the face's photograph"):
        parse_on_photo(bright, photo[:, :-1], face)
    assert align(photo, WIDE_512, WIDE_512, (512, 512)).transform == pytest.approx(np.eye(3)[:2], abs=1e-9)


# -- label files ---------------------------------------------------------------------------------------

LABELS = np.arange(12).reshape(3, 4)


def test_label_files_of_every_kind_are_read(tmp_path):
    small = LABELS.astype(np.uint8)
    Image.fromarray(small).save(tmp_path / "a.png")
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "b.png")
    palette = Image.fromarray(small, "P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "c.png")
    np.save(tmp_path / "d.npy", LABELS.astype(np.int16))
    Image.fromarray(small).save(tmp_path / "e.tif")
    (tmp_path / "notes.txt").write_text("")
    parser = LabelMapParser(tmp_path)
    assert parser.names == tuple("abcde")
    labels = parse(parser, torch.rand(5, 3, 3, 4))
    assert all(np.array_equal(one, LABELS) for one in labels)
    report = region_report(torch.rand(5, 3, 4), labels, parser.scheme)
    assert report["area"].sum() == pytest.approx(5)


def test_label_files_go_with_names(tmp_path):
    for i, name in enumerate(("10", "9", "1")):
        np.save(tmp_path / f"{name}_labels.npy", np.full((2, 2), i))
        Image.new("RGB", (2, 2)).save(tmp_path / f"{name}.png")
    parser = LabelMapParser(tmp_path, ["1", "10"], suffix="_labels")
    assert parser(torch.rand(2, 3, 2, 2))[:, 0, 0].tolist() == [2, 0]
    assert LabelMapParser([tmp_path / "9_labels.npy"]).names == ("9_labels",)
    with pytest.raises(ValueError, match=r"got none for \['8'\]"):
        LabelMapParser(tmp_path, ["8"], suffix="_labels")
    Image.new("L", (2, 2)).save(tmp_path / "1_labels.png")
    with pytest.raises(ValueError, match="one label file for '1', got"):
        LabelMapParser(tmp_path, ["1"], suffix="_labels")


def test_label_files_of_other_sizes_or_counts_raise(tmp_path):
    np.save(tmp_path / "a.npy", LABELS)
    parser = LabelMapParser([tmp_path / "a.npy"])
    with pytest.raises(ValueError, match=r"a\.npy: expected labels of shape \(6, 8\), as the images, got \(3, 4\)"):
        parser(torch.rand(1, 3, 6, 8))
    with pytest.raises(ValueError, match="each of the 1 label files"):
        parser(torch.rand(2, 3, 3, 4))
    np.save(tmp_path / "a.npy", LABELS + 10)
    with pytest.raises(ValueError, match=r"a\.npy: Expected labels of scheme .* got \[19, 20, 21\]"):
        LabelMapParser([tmp_path / "a.npy"])
    for wrong in (None, ["x"]):
        with pytest.raises(ValueError, match="at least one label file, got none|Expected names only with a folder"):
            LabelMapParser([], wrong)
    with pytest.raises(ValueError, match="cannot be read"):
        LabelMapParser(tmp_path / "lost")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no label file"):
        LabelMapParser(tmp_path / "empty")


def test_bad_label_files_are_named(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "colours.png")
    np.save(tmp_path / "floats.npy", LABELS / 2)
    np.save(tmp_path / "stack.npy", LABELS[None])
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "text.png").write_text("1 2 3")
    said = {
        "colours.png": "got colours",
        "floats.npy": "float64 of shape",
        "stack.npy": r"shape \(1, 3, 4\)",
        "objects.npy": "array of integers .* unreadable file",
        "empty.npy": "array of integers .* unreadable file",
        "text.npy": "array of integers .* unreadable file",
        "text.png": "not a picture",
        "lost.npy": "No such file",
    }
    for name, message in said.items():
        with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
            read_labels(tmp_path / name)


# -- superpixels ---------------------------------------------------------------------------------------


def test_superpixels_follow_colours():
    image = torch.zeros(2, 3, 40, 40)
    image[0, 0, :, 20:] = 1
    image[1, :, 20:] = 1
    labels, scheme = superpixels(image, 20)
    assert labels.shape == (2, 40, 40)
    assert labels.dtype == torch.int64
    for label in labels[0].unique():
        assert image[0, 0][labels[0] == label].unique().numel() == 1  # no region crosses the edge
    assert 10 <= labels[0].unique().numel() <= 30
    assert len(scheme) == int(labels.max()) + 1
    report = region_report(torch.rand(2, 40, 40), labels, scheme)
    assert report.groupby("image")["area"].sum().tolist() == pytest.approx([1, 1])
    grey, _ = superpixels(image[:, 1:2], 20)
    assert grey.shape == labels.shape
    assert superpixels(image, 20)[0].equal(labels)


def test_superpixels_of_wrong_images_raise():
    with pytest.raises(ValueError, match="Expected"):
        superpixels(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"to be in \[0, 1\], got other values"):
        superpixels(torch.rand(1, 3, 8, 8) * 255)
    with pytest.raises(ValueError, match="n_segments to be 1 or more, got 0"):
        superpixels(torch.rand(1, 3, 8, 8), 0)


# -- schemes -------------------------------------------------------------------------------------------


def test_the_coarse_scheme_merges_celebamask_as_documented():
    assert sorted(COARSE.names) == sorted(["eyes", "brows", "nose", "mouth", "skin", "hair", "other"])
    assert COARSE.left is None
    assert COARSE.background == "other"
    named = [COARSE.regions[int(label)] for label in COARSE.relabel(torch.arange(19))]
    assert named == [
        "other",
        "skin",
        "nose",
        "other",
        "eyes",
        "eyes",
        "brows",
        "brows",
        "other",
        "other",
        "mouth",
        "mouth",
        "mouth",
        "hair",
        "other",
        "other",
        "other",
        "other",
        "other",
    ]


def test_fiswg_schemes_use_the_names_of_examiners():
    for scheme, source in ((FISWG_CELEBAMASK_HQ, CELEBAMASK_HQ), (FISWG_TEMPLATE, TEMPLATE)):
        assert set(scheme.names) - {NOT_A_COMPONENT} <= set(FISWG_COMPONENTS)
        assert scheme.background == NOT_A_COMPONENT
        assert set(scheme.origin) == set(source.labels)
    labels = TemplateParser()(torch.rand(1, 3, 112, 112))
    report = region_report(torch.rand(1, 112, 112), labels, FISWG_TEMPLATE).set_index("region")
    plain = region_report(torch.rand(1, 112, 112), labels, TEMPLATE).set_index("region")
    assert report.loc["cheeks", "area"] == pytest.approx(plain.loc[["left_cheek", "right_cheek"], "area"].sum())
    assert FISWG_CELEBAMASK_HQ.relabel(torch.tensor([6, 7])).unique().numel() == 1


def test_merges_of_your_own_are_validated():
    scheme = RegionScheme({0: "background", 1: "left_eye", 2: "right_eye", 3: "nose"}, left="image")
    own = merge_regions(scheme, {"rest": ["background", "nose"], "eyes": ["left_eye", "right_eye"]}, "own")
    assert (own.name, own.left, own.background, own.names) == ("own", None, "rest", ("rest", "eyes"))
    with pytest.raises(ValueError, match="got none for 'nose'"):
        merge_regions(scheme, {"rest": ["background"], "eyes": ["left_eye", "right_eye"]}, "own")
    with pytest.raises(ValueError, match="regions of scheme .* got 'mouth'"):
        merge_regions(scheme, {"rest": list(scheme.names), "mouth": ["mouth"]}, "own")
    with pytest.raises(ValueError, match="more than once"):
        merge_regions(scheme, {"rest": list(scheme.names), "eyes": ["left_eye"]}, "own")


# -- real labels ---------------------------------------------------------------------------------------


@pytest.mark.real
def test_a_real_parser_agrees_with_hand_made_labels(real_dir, real_models):
    """A network of the user's through the same interface as files; noses of both lie on one another."""
    from captum_leam.faces.crops import read_crops

    names = ["00", "05", "11"]
    images = read_crops([real_dir / "masks" / f"{name}.png" for name in names])
    files = LabelMapParser(real_dir / "masks", names, suffix="_labels")
    own = NetworkParser(real_models.parser(), CELEBAMASK_HQ.names, size=112)
    by_hand, by_network = parse(files, images), parse(own, images)
    assert torch.equal(by_network, parse(real_models.parser(), images))
    for name, least in (("nose", 0.7), ("mouth", 0.5), ("eyes", 0.5), ("hair", 0.6)):
        a, b = COARSE.mask(by_hand, name), COARSE.mask(by_network, name)
        assert (a & b).sum() / (a | b).sum() > least, name


@pytest.mark.parametrize("asked", [False, True])
def test_weights_are_downloaded_only_when_asked(monkeypatch, tmp_path, asked):
    def found(network, weights, *, download):
        raise LookupError(f"{network} from {weights.name}, download={download}")

    monkeypatch.setattr("captum_leam.regions.parsers.find_weights", found)
    with pytest.raises(LookupError, match=f"parsenet from {tmp_path.name}, download={asked}"):
        FacexlibParser("parsenet", weights=tmp_path, download=asked)
