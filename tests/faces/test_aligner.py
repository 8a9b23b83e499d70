"""Alignment against closed forms, OpenCV and a painted detector; facexlib's own code on checkpoints made here."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from captum_leam.faces.aligned import align, resolve_template
from captum_leam.faces.aligner import FaceAligner
from captum_leam.faces.detections import Detection, find_problem
from captum_leam.faces.formats import readable_formats
from captum_leam.faces.geometry import ARCFACE_112, inverse, misfit, similarity_transform, transform_points, warp
from captum_leam.faces.photos import read_photo
from captum_leam.faces.turns import CLOSE_UP, CLOSE_UP_POINTS
from captum_leam.regions import ARCFACE_LANDMARKS
from captum_leam.regions.template import rescale


def turn(degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """A similarity transform written down by hand."""
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def blob(size: tuple[int, int], centre: tuple[float, float], sigma: float) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return torch.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / (2 * sigma**2)).float()


def centroid(values: torch.Tensor) -> np.ndarray:
    rows, columns = torch.meshgrid(*[torch.arange(n).double() for n in values.shape], indexing="ij")
    total = values.double().sum()
    return np.array([float((columns * values).sum() / total), float((rows * values).sum() / total)])


# -- geometry ------------------------------------------------------------------------------------------


def test_the_template_is_that_of_the_regions():
    assert np.array_equal(ARCFACE_112, ARCFACE_LANDMARKS)
    for size in (56, 224):
        points, sides = resolve_template("arcface112", size)
        assert sides == (size, size)
        assert points == pytest.approx(rescale(ARCFACE_LANDMARKS, (112, 112), sides))


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 0.3), (-170, 4)])
def test_similarity_recovers_a_known_transform(degrees, scale):
    matrix = turn(degrees, scale, (-7.0, 300.5))
    assert similarity_transform(ARCFACE_112, transform_points(ARCFACE_112, matrix)) == pytest.approx(matrix, abs=1e-9)
    assert transform_points(transform_points(ARCFACE_112, matrix), inverse(matrix)) == pytest.approx(ARCFACE_112)
    assert misfit(transform_points(ARCFACE_112, matrix)) == pytest.approx(0, abs=1e-9)


def test_similarity_never_mirrors():
    matrix = similarity_transform(ARCFACE_112 * (-1, 1), ARCFACE_112)
    assert np.linalg.det(matrix[:, :2]) > 0
    assert misfit(ARCFACE_112 * (-1, 1)) > 0.8


def test_warp_is_near_opencvs():
    cv2 = pytest.importorskip("cv2")
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    back = turn(20, 0.9, (12.25, -4.5))
    expected = cv2.warpAffine(picture.astype(np.float32), back, (50, 40), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    drawn = warp(torch.from_numpy(picture).movedim(-1, 0).float(), back, (40, 50)).movedim(0, -1).numpy()
    assert np.abs(drawn - expected).mean() < 1  # OpenCV rounds positions to 1/32 px
    assert np.abs(drawn - expected).max() < 16


def test_a_shrunk_pixel_is_the_mean_over_its_area():
    """Whole pixels of a ramp by 4: means of 4 × 4 blocks; without it, one pixel of sixteen counts."""
    values = torch.rand(2, 32, 48)
    back = np.array([[4.0, 0, 1.5], [0, 4.0, 1.5]])
    expected = values.unfold(1, 4, 4).unfold(2, 4, 4).mean((-1, -2))
    torch.testing.assert_close(warp(values, back, (8, 12), antialias=True), expected, atol=2e-5, rtol=0)
    assert (warp(values, back, (8, 12)) - expected).abs().max() > 0.1


def test_labels_take_the_nearest_and_beyond_is_outside():
    labels = torch.arange(12).view(3, 4)
    shift = np.array([[1.0, 0, 1.4], [0, 1.0, -0.6]])
    assert warp(labels, shift, (2, 4), outside=-1).tolist() == [[-1, -1, -1, -1], [1, 2, 3, -1]]
    flags = labels > 5
    assert warp(flags, np.eye(3)[:2], (3, 4)).equal(flags)
    assert warp(labels.float(), np.eye(3)[:2], (4, 5), outside=9.0)[3].tolist() == [9.0] * 5


def test_half_precision_is_kept():
    drawn = warp(torch.ones(4, 4, dtype=torch.float16), np.eye(3)[:2], (4, 4))
    assert drawn.dtype == torch.float16
    assert bool((drawn == 1).all())


# -- one face there and back ---------------------------------------------------------------------------


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1.0), (25, 2.7), (-40, 6.0), (10, 0.6)])
def test_a_blob_returns_to_its_place(degrees, scale):
    """From the crop to the photograph, from the photograph to the crop, and round: within half a pixel of the photograph."""
    onto = turn(degrees, scale, (400.0, 300.0))
    shift = transform_points(np.array([[56.0, 56.0]]), onto)[0] - (400, 300)
    onto[:, 2] -= shift
    photo = torch.rand(3, 700, 900)
    face = align(photo, transform_points(ARCFACE_112, onto))
    assert face.scale == pytest.approx(1 / scale)
    for place in ((56.0, 72.0), (40.25, 50.5)):
        there = transform_points(np.array([place]), onto)[0]
        on_photo = face.to_photo(blob((112, 112), place, 4))
        assert np.linalg.norm(centroid(on_photo) - there) < 0.1
        on_crop = face.to_crop(blob((700, 900), tuple(there), 4 * scale))
        assert np.linalg.norm(centroid(on_crop) - place) * scale < 0.5
        returned = face.to_crop(on_photo)
        assert np.linalg.norm(centroid(returned) - place) * scale < 0.5


def test_label_maps_return_to_the_photograph_unmixed():
    face = align(torch.rand(3, 500, 500), transform_points(ARCFACE_112, turn(15, 3, (80, 60))))
    labels = torch.zeros(112, 112, dtype=torch.int64)
    labels[60:80, 50:62] = 7
    on_photo = face.to_photo(labels, outside=-1)
    assert on_photo.unique().tolist() == [-1, 0, 7]
    assert int((on_photo == 7).sum()) == pytest.approx(20 * 12 * 9, rel=0.02)
    expected = transform_points(np.array([[55.5, 69.5]]), inverse(face.transform))[0]
    assert np.linalg.norm(centroid(on_photo == 7) - expected) < 0.5
    assert (face.to_crop(on_photo) != labels).float().mean() < 0.002
    both = face.to_photo(torch.stack([labels, labels + 1])[None])
    assert both.shape == (1, 2, 500, 500)


def test_a_crop_beyond_the_photograph_is_black_and_comes_back_cut():
    face = align(torch.ones(3, 120, 120), ARCFACE_112 - (60, 60))
    assert bool((face.crop[:, :58] == 0).all())
    assert bool((face.crop[:, 62:, 62:] == 1).all())
    assert face.to_photo(torch.ones(112, 112)).sum() == pytest.approx(52 * 52, rel=0.05)
    far = align(torch.ones(3, 120, 120), ARCFACE_112 + 900)
    assert far.to_photo(torch.ones(112, 112)).sum() == 0


def test_maps_of_other_sizes_raise():
    face = align(torch.rand(3, 100, 120), ARCFACE_112)
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 112, 112\), as the crop, got \(28, 28\)"):
        face.to_photo(torch.rand(28, 28))
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 100, 120\), as the photograph"):
        face.to_crop(torch.rand(112, 112))


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (torch.rand(1, 3, 50, 50), r"shape \(1, 3, 50, 50\)"),
        (torch.randint(0, 255, (3, 50, 50)), "torch.int64"),
        (255 * torch.rand(3, 50, 50), r"RGB values in \[0, 1\], got values from"),
        (torch.full((3, 50, 50), torch.nan), "values from nan"),
    ],
)
def test_photographs_of_wrong_shape_type_or_range_raise(photo, message):
    with pytest.raises(ValueError, match=message):
        align(photo, ARCFACE_112)


def test_own_templates_align_and_wrong_ones_raise():
    own = np.array([(20, 20), (44, 20), (32, 34), (22, 46), (42, 46)])
    points, size = resolve_template(own, (80, 64))
    assert size == (80, 64)
    face = align(torch.rand(3, 300, 300), transform_points(own, turn(5, 2, (100, 50))), points, size)
    assert face.crop.shape == (3, 80, 64)
    assert face.crop_landmarks == pytest.approx(own.astype(float), abs=1e-6)
    with pytest.raises(ValueError, match="Expected size with a template of five points"):
        resolve_template(own, None)
    with pytest.raises(ValueError, match="five points of a face within a crop"):
        resolve_template(own, (40, 40))
    with pytest.raises(ValueError, match="five points of a face within a crop"):
        resolve_template(own[[1, 0, 2, 4, 3]], (80, 64))
    with pytest.raises(ValueError, match=r"ratio \(112, 112\) of 'arcface112', got .* template='arcface112x96'"):
        resolve_template("arcface112", (112, 96))
    with pytest.raises(ValueError, match="'ffhq'"):
        resolve_template("ffhq", 112)
    with pytest.raises(ValueError, match=r"got shape \(68, 2\)"):
        resolve_template(np.zeros((68, 2)), 112)


# -- what a face cannot be -----------------------------------------------------------------------------

BOX = np.array([10.0, 15.0, 100.0, 110.0])


@pytest.mark.parametrize(
    ("box", "landmarks", "message"),
    [
        (BOX, ARCFACE_112, None),
        (BOX, transform_points(ARCFACE_112, turn(20, 0.9, (20, -10))), None),
        (BOX, np.add(ARCFACE_112, (60, 0)), "outside its box"),
        (BOX, ARCFACE_112[[1, 0, 2, 3, 4]], "wrong order"),
        (BOX, ARCFACE_112[[3, 4, 2, 0, 1]], "wrong order"),
        (BOX, np.tile(ARCFACE_112[2], (5, 1)), "coincide"),
        (BOX, ARCFACE_112 * np.nan, "NaN"),
        (np.array([50.0, 50.0, 69.0, 90.0]), ARCFACE_112 / 6 + 50, "too small (19 × 40 px"),
        (BOX + 280, ARCFACE_112 + 280, "outside the photograph"),
        (BOX - 90, ARCFACE_112 - 90, "outside the photograph"),
        (BOX[[2, 1, 0, 3]], ARCFACE_112, "too small (0 × 95 px"),
    ],
)
def test_implausible_detections_are_named(box, landmarks, message):
    said = find_problem(box, landmarks, (200, 300))
    assert said is None if message is None else message in said


def head(yaw: float) -> np.ndarray:
    """Five points of a head in millimetres, turned and seen from far."""
    points = np.array([(-31, -30, -20.0), (31, -30, -20), (0, 3, 22), (-26, 38, -8), (26, 38, -8)])
    turned = points[:, 0] * math.cos(math.radians(yaw)) + points[:, 2] * math.sin(math.radians(yaw))
    return np.stack([turned, points[:, 1]], 1) + 100


def test_turned_heads_are_faces_up_to_nearly_profile():
    box = np.array([40.0, 40.0, 160.0, 170.0])
    assert all(find_problem(box, head(yaw), (200, 200)) is None for yaw in (-60, -40, 0, 40, 60))
    assert find_problem(box, head(85), (200, 200)) is not None


# -- the detector, painted -----------------------------------------------------------------------------


class Painted:
    """Stand-in for facexlib's network that keeps the pictures it gets and returns given rows."""

    def __init__(self, *faces: np.ndarray, scores=None) -> None:
        rows = []
        for i, points in enumerate(faces):
            spread = np.ptp(points, axis=0).max()
            box = [*(points.min(0) - spread / 2), *(points.max(0) + spread / 2)]
            rows.append([*box, 0.9 if scores is None else scores[i], *points.ravel()])
        self.rows = np.array(rows, dtype=np.float32).reshape(-1, 15)

    def detect_faces(self, picture, conf_threshold):
        assert not torch.is_grad_enabled()
        if picture.shape[:2] == (CLOSE_UP, CLOSE_UP):
            return self.close_up()
        if not hasattr(self, "picture"):
            self.picture, self.threshold = picture, conf_threshold
        return self.rows

    def close_up(self):
        """The same face in every first look, and none in the second, of the close-up upside down."""
        self.looks = getattr(self, "looks", 0) + 1
        box, points = (40.0, 30.0, 184.0, 200.0), CLOSE_UP_POINTS.ravel()
        return np.array([[*box, 0.9, *points]] if self.looks % 2 else []).reshape(-1, 15)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights of the real architecture, in the format of the published file."""
    from facexlib.detection.retinaface import RetinaFace

    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = RetinaFace("mobile0.25", device="cpu").state_dict()
    torch.save({f"module.{name}": value for name, value in state.items()}, folder / "detection_mobilenet0.25_Final.pth")
    return folder


@pytest.fixture
def painted(checkpoint):
    def make(*faces, scores=None, **options):
        aligner = FaceAligner(weights=checkpoint, device="cpu", **options)
        aligner._network = Painted(*faces, scores=scores)
        return aligner

    return make


LARGE = transform_points(ARCFACE_112, turn(10, 1.5, (20, 10)))
SMALL = transform_points(ARCFACE_112, turn(-5, 0.5, (220, 200)))
WRONG = (ARCFACE_112 * 2 + 20)[[1, 0, 2, 4, 3]]


def test_the_detector_reads_what_it_was_trained_on(painted):
    """BGR, 0 to 255, height × width × colours, without a graph."""
    aligner = painted(LARGE, min_score=0.7)
    photo = torch.zeros(3, 300, 320)
    photo[0], photo[2, 5, 7] = 1.0, 0.5
    aligner(photo)
    seen = aligner._network.picture
    assert seen.shape == (300, 320, 3)
    assert seen[0, 0].tolist() == [0, 0, 255]
    assert seen[5, 7].tolist() == [128, 0, 255]
    assert aligner._network.threshold == 0.7


def test_a_face_lands_on_the_template(painted):
    photo = torch.rand(3, 300, 320)
    for size in (112, 224):
        (face,) = painted(LARGE, size=size)(photo)
        assert face.crop.shape == (3, size, size)
        assert face.crop_landmarks == pytest.approx(resolve_template("arcface112", size)[0], abs=1e-3)
        assert face.score == pytest.approx(0.9)
        assert face.photo_size == (300, 320)
        assert face.landmarks == pytest.approx(LARGE, abs=1e-3)


def test_large_photographs_are_detected_small_and_aligned_from_the_original(painted):
    """Landmarks are of the small copy: pixel centres (x + ½) · ratio − ½ on the original."""
    photo = torch.rand(3, 600, 801)
    aligner = painted(LARGE, max_side=400)
    (face,) = aligner(photo)
    assert aligner._network.picture.shape == (300, 400, 3)
    assert face.landmarks == pytest.approx((LARGE + 0.5) * (801 / 400, 2) - 0.5, abs=1e-3)
    assert face.to_crop(photo).equal(face.crop)


def test_several_faces_the_largest_first(painted):
    aligner = painted(SMALL, LARGE, scores=[0.99, 0.85])
    photo = torch.rand(3, 300, 320)
    everyone = aligner(photo)
    assert [face.score for face in everyone] == pytest.approx([0.85, 0.99])
    assert [face.index for face in everyone] == [0, 1]
    assert everyone.crops.shape == (2, 3, 112, 112)
    assert [face.score for face in aligner(photo, "largest")] == pytest.approx([0.85])
    assert [face.score for face in aligner(photo, 1)] == pytest.approx([0.99])
    assert aligner(photo, 1)[0].index == 1
    assert everyone.to_frame()["index"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="face index below 2, .* got 2"):
        aligner(photo, 2)
    for wrong in (True, "first", -1, 1.0):
        with pytest.raises(ValueError, match="Expected faces|expected a face index .* got -1"):
            aligner(photo, wrong)


def test_an_implausible_face_is_never_replaced_in_silence(painted):
    aligner = painted(SMALL, WRONG)
    photo = torch.rand(3, 300, 320)
    everyone = aligner(photo)
    assert [face.index for face in everyone] == [1]
    assert "wrong order" in everyone.rejected[0].problem
    assert everyone.to_frame()["problem"].notna().tolist() == [False, True]
    for faces in ("largest", 0):
        with pytest.raises(
            ValueError,
            match=r"of 2 cannot be aligned: its landmarks are in the wrong order.*faces=<index>",
        ):
            aligner(photo, faces)
    with pytest.raises(
        ValueError, match=r"none of the 2 detected faces can be aligned.*weights belong to this detector"
    ):
        painted(WRONG, WRONG)(photo)
    with pytest.raises(ValueError, match="too small .* expected 200"):
        painted(SMALL, min_face=200)(photo)


def test_no_face_and_more_faces_than_the_maximum_raise(painted, tmp_path):
    photo = torch.rand(3, 300, 320)
    with pytest.raises(ValueError, match=r"^no face was found .*read_crop"):
        painted()(photo)
    crowd = painted(*[np.add(SMALL, (i % 4, -i)) for i in range(40)])
    for faces in ("all", "largest"):
        with pytest.raises(ValueError, match="^40 faces were found, but max_faces is 20"):
            crowd(photo, faces)
    assert len(crowd(photo, 39)) == 1
    crowd.max_faces = 40
    assert len(crowd(photo)) == 40
    Image.new("RGB", (64, 64)).save(tmp_path / "crowd.png")
    crowd.max_faces = 20
    with pytest.raises(ValueError, match=r"crowd\.png: 40 faces"):
        crowd(tmp_path / "crowd.png")


def test_files_that_fail_in_a_batch_leave_the_others(painted, tmp_path):
    aligner = painted(LARGE)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 320, 3), np.uint8))
    for name in ("a.png", "z.png"):
        picture.save(tmp_path / name)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    Image.new("L", (20_000, 20)).save(tmp_path / "wide.png")
    (tmp_path / "notes.txt").write_text("who is who")
    (tmp_path / "more").mkdir()
    result = aligner.align_files(tmp_path)
    assert [path.name for path, _ in result.done] == ["a.png", "z.png"]
    unreadable = f"not a picture that this Pillow can read ({', '.join(readable_formats())})."
    assert {path.name: reason for path, reason in result.failed} == {
        "empty.png": "the file is empty.",
        "text.jpg": unreadable,
        "notes.txt": unreadable,
        "more": "a folder; the pictures in it are not read.",
        "wide.png": "expected a photograph with at most 16384 px a side and 64 million pixels, got 20000 × 20 px. Shrink it, or crop "
        "the face.",
    }
    assert result.crops.shape == (2, 3, 112, 112)
    assert [path.name for path in result.paths] == ["a.png", "z.png"]
    assert repr(result).splitlines()[0] == "AlignedFiles: 2 done, 5 failed"
    table = result.to_frame()
    assert len(table) == 7
    assert table["reason"].ne("").sum() == 5
    lost = aligner.align_files([tmp_path / "lost.png"])
    assert lost.failed[0][1] == "there is no such file."
    with pytest.raises(ValueError, match="at least one aligned file, got none"):
        _ = lost.crops
    with pytest.raises(ValueError, match="at least one picture, got none"):
        aligner.align_files([])


# -- facexlib's own code -------------------------------------------------------------------------------


def test_the_real_detector_runs_on_random_weights(checkpoint):
    """Whatever random weights detect, nothing of it is a face, and nothing but words comes out."""
    before = torch.random.get_rng_state()
    aligner = FaceAligner(weights=checkpoint, device="cpu", min_score=0.01)
    assert torch.equal(torch.random.get_rng_state(), before)
    found = aligner.detect(torch.rand(3, 64, 96))
    assert all(isinstance(one, Detection) for one in found)
    assert found == sorted(found, key=lambda face: -face.area)
    with pytest.raises(ValueError, match="found"):
        FaceAligner(weights=checkpoint, device="cpu", min_score=0.99)(torch.rand(3, 64, 96))
    assert aligner.sha256 in FaceAligner(weights=checkpoint, sha256=aligner.sha256, device="cpu").sha256
    assert aligner.sha256[:12] in repr(aligner)
    with pytest.raises(ValueError, match="SHA-256"):
        FaceAligner(weights=checkpoint, sha256="ab", device="cpu")


def test_the_large_detector_is_loaded(tmp_path, checkpoint):
    from facexlib.detection.retinaface import RetinaFace

    state = RetinaFace("resnet50", device="cpu").state_dict()
    torch.save(state, tmp_path / "detection_Resnet50_Final.pth")
    aligner = FaceAligner(detector="resnet50", weights=tmp_path, device="cpu", min_score=0.99)
    assert torch.equal(aligner._network.state_dict()["body.conv1.weight"], state["body.conv1.weight"])
    assert all(one.problem for one in aligner.detect(torch.rand(3, 64, 64)))
    with pytest.raises(ValueError, match="expected weights of RetinaFace, got those of another network"):
        FaceAligner(weights=tmp_path / "detection_Resnet50_Final.pth", device="cpu")


def test_options_are_checked(checkpoint):
    with pytest.raises(ValueError, match="'mtcnn'"):
        FaceAligner(detector="mtcnn", weights=checkpoint)
    for wrong in ({"min_score": 0}, {"max_side": 1}, {"max_faces": 0}):
        with pytest.raises(ValueError, match="Expected (min|max)_"):
            FaceAligner(weights=checkpoint, **wrong)


# -- real photographs ----------------------------------------------------------------------------------


@pytest.mark.real
def test_landmarks_of_real_photographs_align_with_the_template(real_aligner, real_dir):
    result = real_aligner.align_files(real_dir / "photos")
    assert result.failed == ()
    assert len(result.done) == 6
    for path, faces in result.done:
        off = np.linalg.norm(faces[0].crop_landmarks - ARCFACE_112, axis=1)
        assert off.max() < 7, path  # a turned head: noses lie up to 6.5 px beside the template's
        assert off.mean() < 5, path
        assert faces[0].score > 0.99


@pytest.mark.real
def test_the_same_person_matches_after_alignment(real_aligner, real_dir, real_models):
    """img20 and img21 show one person; a wrong channel order or template would not give this."""
    names = ["img20.jpg", "img21.jpg", "img8.jpg", "img14.jpg", "img16.jpg", "img29.jpg"]
    crops = real_aligner.align_files([real_dir / "photos" / name for name in names]).crops
    with torch.no_grad():
        embedded = torch.nn.functional.normalize(real_models.ms1m()(crops))
    cosines = embedded @ embedded.T
    assert cosines[0, 1] > 0.8
    assert cosines[:2, 2:].max() < 0.35


@pytest.mark.real
def test_a_smaller_photograph_gives_nearly_the_same_crop(real_aligner, real_dir):
    photo = read_photo(real_dir / "photos" / "img21.jpg")
    (plain,) = real_aligner(photo, "largest")
    half = torch.nn.functional.interpolate(photo[None], scale_factor=0.5, mode="bilinear", antialias=True)[0]
    (small,) = real_aligner(half.clamp(0, 1), "largest")
    (other,) = real_aligner(real_dir / "photos" / "img20.jpg", "largest")
    assert (plain.crop - small.crop).abs().mean() < 0.05 < 0.15 < (plain.crop - other.crop).abs().mean()
    eyes = np.linalg.norm(plain.landmarks[1] - plain.landmarks[0])
    assert np.abs(2 * small.landmarks - plain.landmarks).max() < 0.15 * eyes


@pytest.mark.real
def test_a_photograph_turned_by_exif_gives_the_upright_crop(real_aligner, real_dir, tmp_path):
    """As cameras write them: turned pixels, and a note that says so."""
    upright = Image.open(real_dir / "photos" / "img14.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    (plain,) = real_aligner(real_dir / "photos" / "img14.jpg", "largest")
    (turned,) = real_aligner(tmp_path / "turned.png", "largest")
    assert plain.crop.equal(turned.crop)
    assert turned.photo_size == (533, 800)
