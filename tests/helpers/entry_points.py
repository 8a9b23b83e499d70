"""Every public call that runs a model, on one small network and four faces: what it returns, as tensors."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from captum.attr import InputXGradient
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity, explain_faces, explain_match, explain_pair, suggest_layers
from captum_leam.explainers import (
    FAME,
    FGGB,
    RISE,
    XSSAB,
    CaptumExplainer,
    CorrRISE,
    ExtremalPerturbation,
    GradCAM,
    HiResCAM,
    LayerCAM,
    PositionDecomposition,
    RegionShapley,
    XFace,
)
from captum_leam.faithfulness import (
    OcclusionEvaluator,
    evaluate_patch_pairs,
    evaluate_person_masks,
    infidelity,
    paste_patches,
    rank_layers,
    sanity_checks,
    sensitivity_max,
)
from captum_leam.maps import place_on_field
from captum_leam.models import UpTo, layer_before_division
from captum_leam.objectives import embed
from captum_leam.patterns import control_maps
from captum_leam.regions import NetworkParser, RegionScheme
from captum_leam.reporting.explanation import ExplainOptions, explain_images
from captum_leam.stats.decisions import draw_pairs
from captum_leam.suggest import find_field
from captum_leam.verification import VerificationEvaluator, verify
from tests.helpers.networks import Net

PEOPLE = list("aabb")
HALVES = RegionScheme({0: "upper", 1: "lower"})


def halves(images: Tensor) -> Tensor:
    return (torch.arange(16, device="cpu")[:, None] > 7).long().expand(len(images), 16, 16)


class Opaque:
    """A callable whose modules cannot be seen from outside."""

    def __init__(self, net: nn.Module) -> None:
        self.held = {"net": net}

    def __call__(self, x: Tensor) -> Tensor:
        return self.held["net"](x)


@dataclass
class Scene:
    """What the calls are about."""

    net: nn.Module = field(default_factory=Net)
    faces: Tensor = field(default_factory=lambda: torch.rand(4, 3, 16, 16))
    references: Tensor = field(default_factory=lambda: torch.randn(4, 10))
    maps: Tensor = field(default_factory=lambda: torch.rand(4, 16, 16))
    parser: nn.Module = field(default_factory=lambda: nn.Conv2d(3, 2, 1).eval())
    batch_size: int = 4

    def modules(self) -> list[nn.Module]:
        return [*self.net.modules(), *self.parser.modules()]

    def tensors(self) -> list[Tensor]:
        return [self.faces, self.references, self.maps]


def _explainer(make: Callable[..., Any]) -> Callable[[Scene], Tensor]:
    return lambda s: make(s.net, batch_size=s.batch_size).attribute(s.faces, reference=s.references)


def _leam(s: Scene, **options: Any) -> Any:
    return LEAM(s.net, s.net.body).attribute(s.faces, reference=s.references, **options)


def _of_layer(model: nn.Module, images: Tensor, references: Tensor) -> Tensor:
    return place_on_field(LEAM(model, model.body).attribute(images, reference=references), (16, 16))


def _of_black_box(s: Scene, method: str) -> Any:
    fewer = s.faces[:2]
    maps = _of_layer(s.net, fewer, s.references[:2])
    if method == "infidelity":
        return infidelity(EmbeddingSimilarity(s.net, s.references[0]), fewer, maps[:, None], n_samples=2)
    leam = LEAM(s.net, s.net.body)
    return sensitivity_max(lambda x, r: leam.attribute(x, reference=r), fewer, s.references[:2], n_samples=2)


def _occlusion(s: Scene) -> pd.DataFrame:
    evaluator = OcclusionEvaluator(
        s.net, (0.1,), fills=("blur", "shuffle"), controls=("moved", "other people"), batch_size=s.batch_size
    )
    return evaluator.evaluate(s.faces, s.maps, labels=PEOPLE).to_frame()


def _verification(s: Scene) -> pd.DataFrame:
    evaluator = VerificationEvaluator(
        s.net, (0, 0.2, 1), operating_points=("eer",), controls=(), batch_size=s.batch_size, progress=False
    )
    pairs = draw_pairs(PEOPLE)
    return evaluator.evaluate(
        s.faces, pairs, torch.rand(len(pairs), 16, 16, generator=_drawn(), device="cpu", dtype=torch.float32)
    ).to_frame()


def _drawn() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _patches(s: Scene) -> pd.DataFrame:
    pairs = paste_patches(s.faces, draw_pairs(PEOPLE), PEOPLE, patches=5, size=4)
    maps = torch.rand(len(pairs), 16, 16, generator=_drawn(), device="cpu", dtype=torch.float32)
    return evaluate_patch_pairs(s.net, pairs, maps, ratios=(0, 0.5), batch_size=s.batch_size).curves()


def _match(s: Scene) -> Any:
    found = explain_match(
        s.net, s.faces[:2], s.references[2:], ["a", "b"], preset="fast", n_steps=1, draws=2, batch_size=s.batch_size
    )
    return [found.maps, found.scores, found.changes]


def _page(s: Scene) -> Any:
    layers, towards = suggest_layers(s.net, s.faces), torch.nn.functional.normalize(s.references)
    names = [f"face {i}" for i in range(len(s.faces))]
    found = explain_images(
        s.net,
        s.faces,
        names,
        layers,
        halves(s.faces),
        HALVES,
        references=towards,
        options=ExplainOptions(preset="fast", batch_size=s.batch_size),
    )
    return [found.overall, found.occlusion.to_frame()]


def _parser(s: Scene) -> Tensor:
    parser = NetworkParser(s.parser, ["upper", "lower"], scheme=HALVES, size=16, batch_size=s.batch_size)
    return parser.scores(s.faces)


def _verify(s: Scene) -> list[Tensor]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the model hardly separates these people")  # untrained as it is
        found = verify(s.net, s.faces, PEOPLE, batch_size=s.batch_size)
    return [torch.from_numpy(found.genuine), torch.from_numpy(found.impostor)]


LAYERED: Mapping[str, Callable[..., Any]] = {"GradCAM": GradCAM, "LayerCAM": LayerCAM, "HiResCAM": HiResCAM}

EXPLAINERS: dict[str, Callable[..., Any]] = {
    "XSSAB": XSSAB,
    "FGGB": FGGB,
    "FAME": lambda net, **o: FAME(net, n_steps=2, **o),
    "CorrRISE": lambda net, **o: CorrRISE(net, masks=8, **o),
    "RISE": lambda net, **o: RISE(net, masks=8, cells=4, **o),
    "XFace": lambda net, **o: XFace(net, patches=(8,), stride=4, **o),
    "CaptumExplainer": lambda net, **o: CaptumExplainer(InputXGradient, net, **o),
    "RegionShapley": lambda net, **o: RegionShapley(net, halves, orders=2, **o),
    "ExtremalPerturbation": lambda net, **o: ExtremalPerturbation(net, n_steps=2, restarts=2, grid=4, **o),
    "PositionDecomposition": lambda net, **o: PositionDecomposition(net, net.body, **o),
    **{name: lambda net, kind=kind, **o: kind(net, net.body, **o) for name, kind in LAYERED.items()},
}

CALLS: dict[str, Callable[[Scene], Any]] = {
    "LEAM": _leam,
    "LEAM, several layers": lambda s: LEAM(s.net, [s.net.body, s.net.body.act]).attribute(s.faces),
    "LEAM, what a layer takes in": lambda s: _leam(s, attribute_to_layer_input=True),
    "LEAM, path": lambda s: _leam(s, n_steps=3, internal_batch_size=8),
    "LEAM, conductance": lambda s: _leam(s, n_steps=2, path="conductance", return_convergence_delta=True),
    "LEAM, opaque": lambda s: LEAM(Opaque(s.net), s.net.body).attribute(s.faces, reference=s.references),
    "explain_faces, fast": lambda s: explain_faces(
        s.net, s.faces, "fast", reference=s.references, batch_size=s.batch_size
    ),
    "explain_faces": lambda s: explain_faces(s.net, s.faces, batch_size=s.batch_size),
    **{name: _explainer(make) for name, make in EXPLAINERS.items()},
    "both sides": lambda s: list(vars(XSSAB(s.net).attribute_both(s.faces, reference=s.references)).values()),
    "correspondences": lambda s: (
        PositionDecomposition(s.net, s.net.body, batch_size=s.batch_size).correspondences(s.faces, s.faces[:1]).matrix
    ),
    "EmbeddingSimilarity": lambda s: EmbeddingSimilarity(s.net)(s.faces, s.references).detach(),
    "embed": lambda s: embed(s.net, s.faces, s.batch_size),
    "verify": lambda s: _verify(s),
    "suggest_layers": lambda s: suggest_layers(s.net, s.faces).to_frame(),
    "find_field": lambda s: find_field(s.net, s.faces),
    "UpTo": lambda s: UpTo(s.net, "head.1")(s.faces).detach(),
    "layer_before_division": lambda s: layer_before_division(s.net, s.faces) is None,
    "OcclusionEvaluator": _occlusion,
    "VerificationEvaluator": _verification,
    "evaluate_patch_pairs": _patches,
    "evaluate_person_masks": lambda s: evaluate_person_masks(
        s.net, s.faces, s.maps, PEOPLE, fractions=(0.1,), batch_size=s.batch_size
    ).to_frame(),
    "rank_layers": lambda s: (
        rank_layers(s.net, s.faces, PEOPLE, n_steps=2, batch_size=s.batch_size)
        .to_frame()
        .drop(columns="seconds")
        .sort_values("name")
    ),
    "sanity_checks": lambda s: sanity_checks(
        s.net, s.faces, PEOPLE, _of_layer, stages=(1.0,), batch_size=s.batch_size
    ).to_frame(),
    "control_maps": lambda s: list(
        control_maps(s.faces, PEOPLE, model=s.net, explain=_of_layer, batch_size=s.batch_size).values()
    ),
    "infidelity": lambda s: _of_black_box(s, "infidelity"),
    "sensitivity_max": lambda s: _of_black_box(s, "sensitivity_max"),
    "explain_pair": lambda s: explain_pair(s.net, *s.faces[:2], preset="fast").similar,
    "explain_match": _match,
    "explain_images": _page,
    "NetworkParser": _parser,
}
"""Name → call."""


def numbers(result: Any) -> list[Tensor]:
    """All numbers of a result, in order."""
    if isinstance(result, Tensor):
        return [result.double()]
    if isinstance(result, pd.DataFrame):
        columns = result.select_dtypes("number")
        return [torch.tensor(columns.to_numpy(dtype="float64"))]
    if isinstance(result, list | tuple):
        return [tensor for part in result for tensor in numbers(part)]
    return [torch.as_tensor(result, dtype=torch.float64)]


def same(left: list[Tensor], right: list[Tensor], tolerance: float = 0.0) -> bool:
    """Equal, or up to a share of the largest number."""
    return len(left) == len(right) and all(
        a.shape == b.shape
        and torch.allclose(
            a, b, rtol=0, atol=tolerance * float(b.nan_to_num().abs().max().clamp(min=1)), equal_nan=True
        )
        for a, b in zip(left, right, strict=True)
        if a.shape != b.shape or a.numel()
    )
