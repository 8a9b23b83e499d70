"""Every public name that can be called, with a tiny call: what it returns, as numbers.

Inputs are made beforehand (:class:`Inputs`), so that a call can run under any mode of PyTorch and be compared with the same
call without. Tensors that a call makes itself name their device and dtype, as a careful caller's do.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from captum_leam import (
    LayerSuggestions,
    PairExplanation,
    bhattacharyya,
    explain_match,
    layer_maps,
    leave_one_out_centroids,
    overall_map,
    suggest_layers,
    top_fraction,
)
from captum_leam._engine.arithmetic import plain_torch
from captum_leam.certainty import MapCertainty, map_certainty
from captum_leam.controls import CONTROLS, ControlContext, PersonMaps, central_ellipse, placements
from captum_leam.explain import MapSettings, OverallMap, PresetForm, path_passes
from captum_leam.explainers import (
    Correspondences,
    Cost,
    Explainer,
    GapDecomposition,
    SimilarityMaps,
    TwoSidedExplainer,
)
from captum_leam.explainers.base import cosines
from captum_leam.faces import (
    ARCFACE_112,
    AlignedFaces,
    AlignedFiles,
    Detection,
    FaceAligner,
    FaceSource,
    align,
    picture_files,
    read_crop,
    read_crops,
    read_face,
    read_faces,
    read_photo,
    template_for,
)
from captum_leam.faithfulness import (
    FILLS,
    AdditiveSimilarity,
    Fill,
    LayerRanking,
    OcclusionResult,
    PatchPairs,
    SanityReport,
    as_fill,
    evaluate_patch_pairs,
    input_attributions,
    iou,
    mass_accuracy,
    occlude,
    part_agreement,
    part_importance,
    paste_patches,
    person_mask,
    pointing_game,
    rank_accuracy,
    roc_auc,
)
from captum_leam.faithfulness.sanity import Check
from captum_leam.models import (
    BYTES,
    IMAGENET,
    INSIGHTFACE,
    UNIT,
    BlackBox,
    Prepared,
    Preprocessing,
    facexlib_arcface,
    from_onnx,
    load_model,
    randomised,
)
from captum_leam.objectives import direction
from captum_leam.patterns import (
    agreement,
    closest_strangers,
    compare_groups,
    control_maps,
    crop_features,
    edge_maps,
    pattern_claim,
    person_specificity,
    pose_features,
    profile_signatures,
    region_maps,
    signatures,
    untrained_maps,
)
from captum_leam.regions import (
    COARSE,
    FaceRegions,
    FacexlibParser,
    Fragments,
    LabelMapParser,
    RegionReport,
    TemplateParser,
    effective_number,
    fragments,
    label_faces,
    landmark_table,
    lift_drawing,
    merge_regions,
    over_people,
    parse,
    parse_on_photo,
    per_person,
    read_labels,
    region_area,
    region_mass,
    region_report,
    region_share,
    superpixels,
)
from captum_leam.synthetic import (
    EmbeddingNet,
    SwapTest,
    SyntheticFaces,
    SyntheticPopulation,
    centroids,
    has_weights,
    load_trained,
    render,
    swap,
    swap_test,
    train,
)
from captum_leam.verification import Pairs, PairScores, Verification, VerificationEvaluator, draw_pairs
from tests.helpers.entry_points import CALLS, EXPLAINERS, HALVES, PEOPLE, Scene, halves

MODULES = (
    "",
    ".explainers",
    ".faces",
    ".faithfulness",
    ".models",
    ".patterns",
    ".regions",
    ".synthetic",
    ".verification",
    ".controls",
    ".explain",
)
SETTINGS = MapSettings("fast", "other face", (), (), (0, 0, 16, 16), 4)
"""How the maps of a pair were made that is put together by hand."""
REAL = Path(__file__).resolve().parents[3] / "shared" / "real"


class Pooled(nn.Module):
    """A convolution and global average pooling: embeddings of 6 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Softplus())
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))


@dataclass
class Inputs(Scene):
    """What the calls are about."""

    pooled: nn.Module = field(default_factory=Pooled)
    of_112: nn.Module = field(default_factory=lambda: EmbeddingNet(8).eval())
    labels: Tensor = field(default_factory=lambda: torch.arange(4 * 256).view(4, 16, 16) // 64 % 3)
    truth: Tensor = field(default_factory=lambda: torch.rand(4, 16, 16) > 0.7)
    crops: Tensor = field(default_factory=lambda: torch.rand(4, 3, 112, 112))
    photo: Tensor = field(default_factory=lambda: torch.rand(3, 200, 300))
    weights: Tensor = field(default_factory=lambda: torch.rand(16, 16))
    importance: Tensor = field(default_factory=lambda: torch.rand(4, 3))

    def __post_init__(self) -> None:
        self.additive = AdditiveSimilarity(self.weights)
        self.face = align(self.photo, ARCFACE_112 + 40)
        self.population = SyntheticPopulation(2)

    def models(self) -> list[nn.Module]:
        return [self.net, self.parser, self.pooled, self.of_112]

    @property
    def report(self) -> pd.DataFrame:
        return region_report(self.maps, self.labels)

    @property
    def pairs(self) -> PatchPairs:
        return paste_patches(self.faces, draw_pairs(PEOPLE), PEOPLE, patches=5, size=4)

    @property
    def dense(self) -> Any:
        return signatures(self.maps, "dense")


@cache
def files() -> Path:
    """A folder with a crop, a photograph, label maps, an ONNX file and checkpoints."""
    folder, draw = Path(mkdtemp()), np.random.default_rng(0)
    for name, side in (("a.png", 112), ("b.png", 112), ("photo.png", 300)):
        Image.fromarray(draw.integers(0, 255, (side, side, 3), np.uint8)).save(folder / name)
    np.save(folder / "labels.npy", draw.integers(0, 3, (112, 112)))
    (folder / "model.py").write_text("from torch import nn\ndef net(): return nn.Flatten().eval()\n")
    with plain_torch():  # whichever mode the first test runs under
        torch.save(_Backbone().state_dict(), folder / "arcface.pth")
        torch.save(_Segments().state_dict(), folder / "bisenet.pth")
    return folder


class _Backbone(nn.Module):
    """In place of facexlib's ArcFace, whose weights are large."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer, self.body = nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4)
        self.output_layer = nn.Sequential(nn.Flatten(), nn.Linear(4 * 14 * 14, 8))


class _Segments(nn.Module):
    """In place of facexlib's BiSeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Conv2d(3, 19, 8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.scores(x),)


class _Gradient(Explainer):
    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        x = images.requires_grad_()
        embeddings = self._embed(x)
        return self._gradient(cosines(embeddings, direction(embeddings, reference)), x).sum(1, keepdim=True)


class _TwoSided(TwoSidedExplainer):
    def _both(self, images: Tensor, reference: Tensor | None) -> SimilarityMaps:
        maps = _Gradient._signed(self, images, reference)
        return SimilarityMaps(maps.clamp(min=0), -maps.clamp(max=0))


def _onnx(s: Inputs) -> Any:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx2torch")
    pytest.importorskip("onnxruntime")
    t, h, n = onnx.TensorProto, onnx.helper, onnx.numpy_helper
    drawn = np.random.default_rng(0).standard_normal
    shapes = {"w": (4, 3, 3, 3), "f": (8, 4 * 7 * 7)}
    inits = [n.from_array(drawn(shape).astype(np.float32), name) for name, shape in shapes.items()]
    nodes = [
        h.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2]),
        h.make_node("Flatten", ["c"], ["r"]),
        h.make_node("Gemm", ["r", "f"], ["e"], transB=1),
    ]
    ends = [h.make_tensor_value_info(k, t.FLOAT, d) for k, d in (("x", ["N", 3, 16, 16]), ("e", ["N", 8]))]
    graph = h.make_graph(nodes, "g", ends[:1], ends[1:], inits)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8), path := files() / "net.onnx")
    return list(from_onnx(path, INSIGHTFACE).parameters())


def _arcface(s: Inputs) -> Any:
    pytest.importorskip("facexlib")
    with patch("captum_leam.models.published._ir_se50", _Backbone):
        net = facexlib_arcface(weights=files() / "arcface.pth", device="cpu")
    return [p for p in net.parameters() if p.dtype == torch.float32]


def _bisenet(s: Inputs) -> Any:
    pytest.importorskip("facexlib")
    with patch("captum_leam.regions.parsers._bisenet", _Segments):
        parser = FacexlibParser("bisenet", weights=files() / "bisenet.pth", device="cpu")
    return [parser(s.faces[:1]), parser.scores(s.faces[:1])]


def _certainty(s: Inputs) -> MapCertainty:
    return map_certainty(s.net, s.faces, s.maps, reference=s.references, explain=None, placements=3)


def _detector(s: Inputs) -> Any:
    pytest.importorskip("facexlib")
    if not REAL.is_dir():
        pytest.skip("needs ../shared/real (research faces and networks, not in the repository)")
    found = FaceAligner(weights=REAL, device="cpu", max_side=320)(REAL / "photos" / "img20.jpg", "largest")
    return [found.crops, found.faces[0].landmarks, found.faces[0].score]


def _verification(s: Inputs) -> Any:
    evaluator = VerificationEvaluator(s.net, (0, 0.5, 1), controls=("edges",), operating_points=("eer",))
    result = evaluator.evaluate(s.faces, draw_pairs(PEOPLE), {"m": s.maps[[0, 1, 2, 3]]}, labels=PEOPLE)
    return [result.curves(), result.to_frame()]


def _of_people(s: Inputs) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return over_people(s.report, PEOPLE).select_dtypes("number")


def _streamed_report(s: Inputs) -> Any:
    report = RegionReport()
    for half in (slice(0, 2), slice(2, None)):
        report.update(s.maps[half], s.labels[half])
    return report.compute().select_dtypes("number")


def _pair_scores(s: Inputs) -> Any:
    scores = PairScores()
    scores.update(torch.eye(4, device="cpu", dtype=torch.float64)[[0, 0, 1, 1]], list("aabb"))
    return scores.compute().genuine


def _swap(s: Inputs) -> SyntheticFaces:
    a, b = (s.population.sample([0, 1], seed=seed) for seed in (1, 2))
    return swap(a, b, ["nose"])


def _trained(s: Inputs) -> Any:
    return list(train(SyntheticPopulation(2), steps=2, batch_size=4, progress=False).parameters())


def _groups(s: Inputs) -> pd.DataFrame:
    drop = [0.1, 0.2, 0.15, 0.12, 0.6, 0.7, 0.65, 0.72]
    return compare_groups({"drop": drop}, list("abcdefgh"), list("xxxxyyyy"), [0.5] * 8, min_people=4).to_frame()


def _person_maps(s: Inputs) -> Tensor:
    sums = PersonMaps()
    sums.update(s.maps, PEOPLE)
    return sums.of_others(PEOPLE)


def _controlled(s: Inputs) -> Any:
    scene = ControlContext(s.faces, s.truth, PEOPLE, s.maps)
    return [control(scene) for control in CONTROLS.values()]


def _filled(s: Inputs) -> Any:
    return [as_fill(name)(s.faces, s.truth) for name in FILLS]


PUBLIC: dict[str, Callable[[Inputs], Any]] = {
    **{name: CALLS[name] for name in EXPLAINERS},
    **{
        name: CALLS[name]
        for name in (
            "LEAM",
            "EmbeddingSimilarity",
            "OcclusionEvaluator",
            "NetworkParser",
            "UpTo",
            "evaluate_patch_pairs",
            "evaluate_person_masks",
            "explain_faces",
            "explain_match",
            "explain_pair",
            "infidelity",
            "layer_before_division",
            "rank_layers",
            "sanity_checks",
            "sensitivity_max",
            "suggest_layers",
            "verify",
        )
    },
    # explainers
    "Correspondences": lambda s: Correspondences(s.maps, s.maps[:, 0, 0], (4, 4)).lines((16, 16), count=3),
    "Cost": lambda s: Cost(1, 2).forwards,
    "Explainer": lambda s: _Gradient(s.net).attribute(s.faces, reference=s.references),
    "GapDecomposition": lambda s: GapDecomposition(s.pooled, s.pooled.body).attribute(s.faces),
    "SimilarityMaps": lambda s: SimilarityMaps(s.maps[:, None], s.maps[:, None] / 2).signed,
    "TwoSidedExplainer": lambda s: _TwoSided(s.net).attribute(s.faces, reference=s.references),
    # results of suggest_layers, explain_match and explain_pair
    "LayerSuggestions": lambda s: len(LayerSuggestions((), (0, 0, 16, 16), (16, 16)).for_overall_map()),
    "MatchExplanation": lambda s: explain_match(
        s.net, s.faces[:1], s.references[1:3], ["a", "b"], preset="fast", draws=1
    ).summary(),
    "PairExplanation": lambda s: (
        PairExplanation(s.faces[:2], 0.5, s.maps[:2], s.maps[:2], {}, 0.8, SETTINGS, threshold=0.4).margin
    ),
    # certainty
    "MapCertainty": lambda s: _certainty(s).to_frame(),
    "map_certainty": lambda s: _certainty(s).stability,
    "placements": lambda s: placements(s.truth[0], torch.ones_like(s.truth[0]), 5),
    # maps
    "bhattacharyya": lambda s: bhattacharyya(s.maps, fraction=0.2),
    "layer_maps": lambda s: list(layer_maps(s.pooled, s.faces, suggest_layers(s.pooled, s.faces), n_steps=2).values()),
    "MapSettings": lambda s: len(SETTINGS.to_dict()),
    "OverallMap": lambda s: OverallMap(s.pooled, [s.pooled.body], (0, 0, 16, 16))(s.faces),
    "PresetForm": lambda s: list(PresetForm(5).passes()),
    "path_passes": lambda s: list(path_passes(4)),
    "leave_one_out_centroids": lambda s: leave_one_out_centroids(s.references, PEOPLE),
    "overall_map": lambda s: overall_map([s.maps[:, None, ::2, ::2], s.maps[:, None, ::4, ::4]], (20, 20)),
    "top_fraction": lambda s: [top_fraction(s.maps, 0.2), top_fraction(s.maps, 0.2, within=s.truth)],
    # faces
    "AlignedFace": lambda s: s.face.to_photo(s.crops[0, 0]),
    "AlignedFaces": lambda s: AlignedFaces((s.face,)).crops,
    "AlignedFiles": lambda s: len(AlignedFiles((), ((Path("a.jpg"), "no face"),)).failed),
    "Detection": lambda s: Detection(np.array([25.0, 20.0, 85.0, 105.0]), ARCFACE_112, 0.99).area,
    "FaceAligner": _detector,
    "FaceSource": lambda s: FaceSource(Path("a.png"), s.crops[0]).crop,
    "align": lambda s: [align(s.photo, 1.5 * ARCFACE_112).crop, align(s.photo, 0.3 * ARCFACE_112, antialias=True).crop],
    "picture_files": lambda s: len(picture_files(files())),
    "read_crop": lambda s: read_crop(files() / "a.png"),
    "read_crops": lambda s: read_crops([files() / "a.png", files() / "b.png"]),
    "read_face": lambda s: read_face(files() / "a.png").crop,
    "read_faces": lambda s: read_faces([files() / "a.png"], lambda: None)[0].crop,
    "read_photo": lambda s: read_photo(files() / "photo.png"),
    "template_for": lambda s: len(template_for((160, 160))),
    # faithfulness
    "AdditiveSimilarity": lambda s: [
        AdditiveSimilarity(s.weights)(s.faces),
        s.additive.contributions(s.faces),
        s.additive.reference,
        s.additive.template(),
    ],
    "Fill": lambda s: Fill("grey", lambda images, masks: images / 2)(s.faces),
    "LayerRanking": lambda s: len(LayerRanking(pd.DataFrame({"name": ["a"], "drop": [0.3]}), {}).names),
    "OcclusionResult": lambda s: OcclusionResult(CALLS["OcclusionEvaluator"](s)).summary(),
    "Pairs": lambda s: len(Pairs(s.pairs.genuine, s.pairs.genuine, s.pairs.genuine)),
    "PersonMaps": _person_maps,
    "PatchPairs": lambda s: [s.pairs.images, s.pairs.patches],
    "PatchResult": lambda s: evaluate_patch_pairs(s.net, s.pairs, s.maps, threshold=0.5, ratios=(0, 1)).summary(),
    "SanityReport": lambda s: SanityReport((Check("a", True, 0.7, 0.6, 0.8, "", ""),), pd.DataFrame()).passed,
    "ControlContext": _controlled,
    "VerificationEvaluator": _verification,
    "VerificationResult": _verification,
    "as_fill": _filled,
    "central_ellipse": lambda s: central_ellipse((16, 12)),
    "draw_pairs": lambda s: list(vars(draw_pairs(PEOPLE)).values()),
    "input_attributions": lambda s: input_attributions(s.maps[:, None, ::2, ::2], s.faces),
    "iou": lambda s: iou(s.maps, s.truth),
    "mass_accuracy": lambda s: mass_accuracy(s.maps, s.truth),
    "occlude": lambda s: [occlude(s.faces, s.truth, fill) for fill in FILLS],
    "part_agreement": lambda s: part_agreement(s.maps, s.labels, [0, 1, 2], s.importance),
    "part_importance": lambda s: part_importance(s.net, s.faces, s.labels, [0, 1, 2], s.references),
    "paste_patches": lambda s: [s.pairs.images, s.pairs.patches, s.pairs.genuine],
    "person_mask": lambda s: person_mask(s.maps),
    "pointing_game": lambda s: pointing_game(s.maps, s.truth, tolerance=1),
    "randomised": lambda s: list(randomised(s.net, s.faces).parameters()),
    "rank_accuracy": lambda s: rank_accuracy(s.maps, s.truth),
    "roc_auc": lambda s: roc_auc(s.maps, s.truth),
    # models
    "BYTES": lambda s: BYTES(s.faces),
    "IMAGENET": lambda s: IMAGENET(s.faces),
    "INSIGHTFACE": lambda s: INSIGHTFACE(s.faces),
    "UNIT": lambda s: UNIT(s.faces),
    "BlackBox": lambda s: BlackBox(lambda pictures: pictures.mean((2, 3)))(s.faces),
    "Prepared": lambda s: Prepared(nn.Flatten(), INSIGHTFACE)(s.faces),
    "Preprocessing": lambda s: Preprocessing((0.1, 0.2, 0.3), (0.5,) * 3, colour="bgr")(s.faces),
    "Verification": lambda s: Verification(np.array([0.6, 0.8]), np.array([-0.1, 0.0, 0.1])).to_frame(),
    "facexlib_arcface": _arcface,
    "from_onnx": _onnx,
    "load_model": lambda s: load_model(f"{files() / 'model.py'}:net")(s.faces),
    # patterns
    "Agreement": lambda s: agreement({"a": s.dense, "b": s.dense}, list("wxyz")).matrix(),
    "GroupComparison": _groups,
    "PatternClaim": lambda s: pattern_claim(s.dense, PEOPLE, {"same": s.dense}).table,
    "Signatures": lambda s: s.dense.similarity(),
    "Specificity": lambda s: person_specificity(s.dense, PEOPLE, permutations=19).curve,
    "agreement": lambda s: agreement({"a": s.dense, "b": s.dense}, list("wxyz")).to_frame(),
    "closest_strangers": lambda s: closest_strangers([[0.0], [0.1], [0.3], [5.0]], PEOPLE),
    "compare_groups": _groups,
    "control_maps": lambda s: list(control_maps(s.faces, PEOPLE, labels=s.labels).values()),
    "crop_features": lambda s: crop_features(s.faces, side=8),
    "edge_maps": lambda s: edge_maps(s.faces),
    "pattern_claim": lambda s: pattern_claim(s.dense, PEOPLE, {"same": s.dense}).headline,
    "person_specificity": lambda s: person_specificity(s.dense, PEOPLE, permutations=19).table,
    "pose_features": lambda s: pose_features([ARCFACE_112, ARCFACE_112 + 1]),
    "profile_signatures": lambda s: profile_signatures([[0.5, 0.5], [1.0, 0.0]]).similarity(),
    "region_maps": lambda s: [region_maps(s.labels), region_maps(s.labels, s.maps)],
    "signatures": lambda s: [
        signatures(s.maps).similarity(),
        signatures(s.maps, "dense", grid=4).similarity(),
        signatures(s.maps, "regions", labels=s.labels).similarity(),
    ],
    "untrained_maps": lambda s: untrained_maps(s.net, s.faces, PEOPLE),
    # regions
    "FaceRegions": lambda s: FaceRegions(s.labels, COARSE, "painted").labels,
    "FacexlibParser": _bisenet,
    "Fragments": lambda s: Fragments(count=2, largest=0.75, centroid=(10.0, 20.5)).largest,
    "LabelMapParser": lambda s: LabelMapParser([files() / "labels.npy"])(s.crops[:1]),
    "RegionScheme": lambda s: [HALVES.relabel(s.labels.clamp(max=1)), HALVES.mask(s.labels.clamp(max=1), "upper")],
    "TemplateParser": lambda s: TemplateParser()(s.crops),
    "effective_number": lambda s: effective_number(s.importance / s.importance.sum(1, keepdim=True)),
    "fragments": lambda s: list(vars(fragments(s.truth[0])).values()),
    "label_faces": lambda s: label_faces("template", [FaceSource(Path("a.png"), s.crops[0])], s.crops[:1]).labels,
    "landmark_table": lambda s: landmark_table(s.maps, fraction=0.2),
    "lift_drawing": lambda s: len(lift_drawing(s.report).axes),
    "merge_regions": lambda s: len(merge_regions(HALVES, {"all": ["upper", "lower"]}, "x").names),
    "over_people": _of_people,
    "RegionReport": _streamed_report,
    "PairScores": _pair_scores,
    "parse": lambda s: parse(lambda x: torch.stack([x.mean(1), 1 - x.mean(1)], 1), s.faces),
    "parse_on_photo": lambda s: parse_on_photo(lambda x: (x[:, 0] > 0.5).long(), s.photo, s.face),
    "per_person": lambda s: per_person(s.report, PEOPLE),
    "read_labels": lambda s: read_labels(files() / "labels.npy"),
    "region_area": lambda s: region_area(s.labels, [0, 1, 2]),
    "region_mass": lambda s: region_mass(s.maps, s.labels, [0, 1, 2]),
    "region_report": lambda s: [
        s.report,
        region_report(s.maps, halves(s.faces), HALVES, of="face", face=s.truth, fraction=0.2),
    ],
    "region_share": lambda s: region_share(s.truth, s.labels, [0, 1, 2]),
    "superpixels": lambda s: superpixels(s.faces, 4)[0],
    # synthetic
    "EmbeddingNet": lambda s: [sum(p.numel() for p in EmbeddingNet().parameters()), s.of_112(s.crops)],
    "SwapTest": lambda s: SwapTest(("nose",), 0.98, 1.0, 0.02, 48).part_flips,
    "SyntheticFaces": lambda s: s.population.sample([0, 1]).images,
    "SyntheticPopulation": lambda s: list(SyntheticPopulation(3, evidence="nose", seed=1).identity.values()),
    "centroids": lambda s: centroids(s.of_112, s.population, images_per_person=1),
    "render": lambda s: render(_swap(s).parts, _swap(s).nuisance, _swap(s).people).images,
    "swap": lambda s: [_swap(s).images, _swap(s).labels],
    "swap_test": lambda s: list(vars(swap_test(s.of_112, s.population, images_per_person=2)).values())[1:],
    "has_weights": lambda s: has_weights(s.population),
    "load_trained": lambda s: list(load_trained(SyntheticPopulation(12, evidence="nose")).parameters()),
    "train": _trained,
}
"""Name → call."""


def public_names() -> set[str]:
    """All public names that can be called."""
    modules = [import_module(f"captum_leam{name}") for name in MODULES]
    return {name for module in modules for name in module.__all__ if _computes(getattr(module, name))}


def _computes(value: object) -> bool:
    return callable(value) and not (isinstance(value, type) and issubclass(value, Exception))
