"""Pin what the package computes, so that code can move and be rewritten while every number stays.

``python tools/golden.py --write DIR`` computes all cases and writes one compressed npz file per group; ``--compare DIR`` computes
them again and prints, per case, "identical" or the largest absolute difference. It exits with 1 unless every case is identical bit
by bit. On another machine, where sums round differently, ``--tolerance 1e-6`` accepts differences up to this share of a case's
largest stored value. ``--only GROUP`` takes some of the groups.

Everything is small, seeded and synthetic, on one thread. Only public names are imported, since modules move.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from captum_leam import (
    LEAM,
    EmbeddingSimilarity,
    bhattacharyya,
    explain_faces,
    explain_pair,
    leave_one_out_centroids,
    overall_map,
    suggest_layers,
    top_fraction,
)
from captum_leam.explainers import (
    FAME,
    FGGB,
    RISE,
    XSSAB,
    CorrRISE,
    ExtremalPerturbation,
    GapDecomposition,
    GradCAM,
    HiResCAM,
    LayerCAM,
    PositionDecomposition,
    RegionShapley,
    XFace,
)
from captum_leam.faithfulness import FILLS, OcclusionEvaluator, sanity_checks
from captum_leam.patterns import agreement, compare_groups, pattern_claim, person_specificity, signatures
from captum_leam.regions import RegionScheme, TemplateParser, region_area, region_mass, region_report, region_share
from captum_leam.study import Study
from captum_leam.verification import VerificationEvaluator, draw_pairs, verify
from tests.helpers.tiny_study import write_faces, write_study

Array = NDArray[Any]
Cases = dict[str, Array]
Norm = Literal["detach", "differentiate"]

THIRDS = RegionScheme({0: "upper", 1: "middle", 2: "lower"})

# -- models --------------------------------------------------------------------------------------------


def strengthen(model: nn.Module) -> None:
    """Multiply the weights of convolutions by 4: as initialised, all images would have nearly one embedding."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(4)


class Convolutions(nn.Module):
    """Three convolutions that halve (or keep, the first one) the size, and a linear head."""

    def __init__(self, px: int, first_stride: int = 2, dimensions: int = 8) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, first_stride, 1), nn.Softplus())
        self.two = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1), nn.Softplus())
        self.head = nn.Sequential(nn.Flatten(), nn.LazyLinear(dimensions))
        self.eval()
        with torch.no_grad():
            self(torch.zeros(1, 3, px, px))
        strengthen(self)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of images."""
        result: Tensor = self.head(self.three(self.two(self.one(x))))
        return result


class Tokens(nn.Module):
    """Patches of 4 px, a class token first, two transformer blocks, the embedding read from the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.last = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 8)  # a LayerNorm at the end would fix the length of the embedding
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of images."""
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), patches], 1)
        result: Tensor = self.head(self.last(self.block(tokens))[:, 0])
        return result


class Two(nn.Module):
    """Two maps of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 5, 3, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both maps."""
        return self.left(x).tanh(), nn.functional.softplus(self.right(x))


class OfTwo(nn.Module):
    """Embeddings from a layer that puts out a tuple."""

    def __init__(self, px: int) -> None:
        super().__init__()
        self.body, self.head = Two(), nn.Linear(9 * (px // 2) ** 2, 8)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of images."""
        result: Tensor = self.head(torch.cat(self.body(x), 1).flatten(1))
        return result


class Pooled(nn.Module):
    """Convolutions and global average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Softplus())
        strengthen(self)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of images."""
        result: Tensor = self.body(x).mean((2, 3))
        return result


def without_class_token(tokens: Tensor) -> Tensor:
    """Return tokens (N, 1 + h·w, C) as a map (N, C, h, w)."""
    side = round((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)


def thirds(images: Tensor) -> Tensor:
    """Label three horizontal bands, (N, H, W)."""
    height, width = images.shape[2:]
    rows = torch.arange(height) * 3 // height
    return rows[:, None].expand(len(images), height, width)


# -- results as arrays ---------------------------------------------------------------------------------


def flat(result: Any) -> Array:
    """Return a tensor or nested lists and tuples of tensors as one array (N, …): several are flattened and joined."""
    if isinstance(result, Tensor):
        array: Array = result.detach().numpy()
        return array
    return np.concatenate([flat(part).reshape(-1) for part in result])


PROSE = ("note", "needed", "meaning", "reason")
"""Columns of sentences, which only the tables of a study pin."""


def framed(name: str, table: pd.DataFrame, has_prose: bool = False) -> Cases:
    """Return the columns of a table as arrays: numbers as they are, everything else as text, columns of prose on request."""
    cases: Cases = {}
    if not isinstance(table.index, pd.RangeIndex):
        cases[f"{name}.index"] = np.array([str(i) for i in table.index], dtype=str)
    for column, values in table.items():
        if column in PROSE and not has_prose:
            continue
        is_number = pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)
        texts = ["" if value is None else str(value) for value in values]
        cases[f"{name}.{column}"] = values.to_numpy() if is_number else np.array(texts, dtype=str)
    return cases


# -- the groups ----------------------------------------------------------------------------------------

FORMS: dict[str, dict[str, Any]] = {
    "1": {},
    "4 mean": {"n_steps": 4},
    "4 conductance": {"n_steps": 4, "path": "conductance"},
}


def leam() -> Cases:
    """LEAM: every weighting, norm, path and kind of reference on convolutions and on tokens; then its options."""
    x, net, tokens = torch.rand(2, 3, 12, 12), Convolutions(12), Tokens()
    towards = {
        "own": {},
        "shared": {"reference": torch.randn(8)},
        "each": {"reference": torch.randn(2, 8)},
        "contrast": {"reference": torch.randn(2, 8), "contrast": torch.randn(3, 8)},
    }
    cases: Cases = {}
    for weighting in ("elementwise", "positive", "channel"):
        for norm in ("detach", "differentiate", "fixed"):
            how: dict[str, Any] = {"weighting": weighting, "norm": norm}
            methods = {
                "convolutions": LEAM(net, [net.one, net.two, net.three], **how),
                "tokens": LEAM(tokens, [tokens.block], reshape=without_class_token, **how),
            }
            for form, options in FORMS.items():
                for kind, target in towards.items():
                    for model, method in methods.items():
                        name = f"{model}/{weighting}/{norm}/{form}/{kind}"
                        if not (norm == "differentiate" and kind == "own"):
                            cases[name] = flat(method.attribute(x, **target, **options))
    return cases | leam_options(x, net, towards["each"]["reference"])


def leam_options(x: Tensor, net: Convolutions, reference: Tensor) -> Cases:
    """The options of LEAM, each on its own, and its other kinds of model and layer."""
    one, of_two = LEAM(net, net.two), OfTwo(12)
    two = LEAM(of_two, of_two.body)
    path, conductance = FORMS["4 mean"], FORMS["4 conductance"]
    cases: Cases = {}
    for form, options in FORMS.items():
        more: dict[str, Any] = {"reference": reference, **options}
        cases |= {
            f"channels/{form}": flat(one.attribute(x, attr_dim_summation=False, **more)),
            f"layer input/{form}": flat(one.attribute(x, attribute_to_layer_input=True, **more)),
            f"positive part/{form}": flat(one.attribute(x, relu_attributions=True, **more)),
            f"tuple/{form}": flat(two.attribute(x, **more)),
            f"tuple channels/{form}": flat(two.attribute(x, attr_dim_summation=False, **more)),
        }
    for each in ("detach", "differentiate", "fixed"):
        method = LEAM(net, [net.one, net.three], norm=each)
        found = method.attribute(x, reference=reference, return_convergence_delta=True, **conductance)
        cases[f"delta/{each}/maps"], cases[f"delta/{each}/deltas"] = flat(found[0]), flat(found[1])
    for size in (2, 3, 4, 8):
        cases[f"batched/{size}"] = flat(one.attribute(x, reference=reference, internal_batch_size=size, **path))
    for name, start in {"zero": 0, "image": torch.rand(1, 3, 12, 12), "images": torch.rand(2, 3, 12, 12)}.items():
        cases[f"baselines/{name}"] = flat(one.attribute(x, reference=reference, baselines=start, **path))
    norms: tuple[Norm, Norm] = ("detach", "differentiate")
    for norm in norms:
        held = LEAM(EmbeddingSimilarity(net, reference=reference, norm=norm), net.two)
        cases[f"similarity/{norm}/1"] = flat(held.attribute(x))
        cases[f"similarity/{norm}/4"] = flat(held.attribute(x, **path))
        given = LEAM(EmbeddingSimilarity(net, norm=norm), net.two)
        cases[f"similarity/{norm}/given"] = flat(given.attribute(x, additional_forward_args=(reference,)))
    differentiable = LEAM(EmbeddingSimilarity(net, reference=reference, norm="differentiate"), net.two)
    cases["similarity/conductance"] = flat(differentiable.attribute(x, **conductance))
    cases["similarity/scores"] = flat(EmbeddingSimilarity(net, reference=reference)(x))
    return cases


def explainers() -> Cases:
    """Every explainer with a small budget, towards a reference of each image and towards its own embedding."""
    x, net, pooled, tokens = torch.rand(2, 3, 16, 16), Convolutions(16), Pooled(), Tokens()
    references = {id(net): torch.randn(2, 8), id(pooled): torch.randn(2, 6), id(tokens): torch.randn(2, 8)}
    methods = {
        "FAME": FAME(net, n_steps=4),
        "FGGB": FGGB(net),
        "RISE": RISE(net, masks=20, cells=4),
        "XSSAB": XSSAB(net),
        "CorrRISE": CorrRISE(net, masks=20),
        "ExtremalPerturbation": ExtremalPerturbation(net, n_steps=6, restarts=2, grid=4),
        "GapDecomposition": GapDecomposition(pooled, pooled.body),
        "GradCAM": GradCAM(net, net.two),
        "GradCAM of tokens": GradCAM(tokens, tokens.block, reshape=without_class_token),
        "HiResCAM": HiResCAM(net, net.two),
        "LayerCAM": LayerCAM(net, net.two),
        "PositionDecomposition": PositionDecomposition(net, net.three),
        "RegionShapley": RegionShapley(net, thirds, orders=3),
        "XFace": XFace(net, patches=(5, 8), stride=4),
    }
    cases: Cases = {}
    for name, method in methods.items():
        reference = references[id(method.model)]
        cases[f"{name}/reference"] = flat(method.attribute(x, reference=reference))
        cases[f"{name}/cost"] = np.array([method.cost.forwards, method.cost.backwards])
        if hasattr(method, "attribute_both"):
            both = method.attribute_both(x, reference=reference)
            cases[f"{name}/similar"], cases[f"{name}/dissimilar"] = flat(both.similar), flat(both.dissimilar)
        if name == "XSSAB":  # nothing but rounding
            continue
        try:
            cases[f"{name}/own"] = flat(method.attribute(x))
        except ValueError:  # the cosine to the own embedding has no gradient
            cases[f"{name}/own"] = np.array(["refused"])
    found = methods["PositionDecomposition"].correspondences(x, x.flip(0))  # type: ignore[attr-defined]
    return cases | {"correspondences": flat(found.matrix), "correspondences/rest": flat(found.rest)}


def faces() -> Cases:
    """explain_faces and explain_pair at every preset, and the layers that are suggested."""
    x, net, tokens = torch.rand(2, 3, 28, 28), Convolutions(28, first_stride=1), Tokens()
    references, contrast = torch.randn(2, 8), torch.randn(3, 8)
    cases: Cases = {}
    for preset in ("fast", "default", "best"):
        for towards, reference in {"own": None, "reference": references}.items():
            for kind, layers in {"suggested": None, "given": [net.one, net.two]}.items():
                maps = explain_faces(net, x, preset, reference=reference, layers=layers)
                cases[f"explain_faces/{preset}/{towards}/{kind}"] = flat(maps)
        pair = explain_pair(net, x[0], x[1], preset=preset, threshold=0.5, same_person=False)
        cases[f"explain_pair/{preset}/similar"] = flat(pair.similar)
        cases[f"explain_pair/{preset}/dissimilar"] = flat(pair.dissimilar)
        cases[f"explain_pair/{preset}/layers"] = flat(list(pair.layers.values()))
        cases[f"explain_pair/{preset}/names"] = np.array(list(pair.layers))
        cases[f"explain_pair/{preset}/numbers"] = np.array([pair.score, pair.sine])
        cases[f"explain_pair/{preset}/outcome"] = np.array([str(pair.outcome)])
    cases["explain_faces/contrast"] = flat(explain_faces(net, x, reference=references, contrast=contrast, batch_size=1))
    cases["explain_faces/tokens"] = flat(explain_faces(tokens, x, reference=references))
    for name, model in {"convolutions": net, "tokens": tokens}.items():
        found = suggest_layers(model, x)
        cases |= framed(f"suggest_layers/{name}", found.to_frame())
        cases[f"suggest_layers/{name}/field"] = np.array(found.field)
        cases[f"suggest_layers/{name}/overall"] = np.array([layer.name for layer in found.for_overall_map()])
    return cases


def maps() -> Cases:
    """Overall maps, top fractions, overlaps, leave-one-out centroids."""
    fine, coarse, whole = torch.randn(3, 1, 12, 10), torch.randn(3, 1, 6, 5), torch.rand(3, 16, 14)
    tied, within = (whole * 4).round(), torch.rand(3, 16, 14) > 0.4
    return {
        "overall": flat(overall_map([fine, coarse], (24, 20))),
        "overall/field": flat(overall_map([fine, coarse], (24, 20), (2, 3, 18, 15), [1.0, 3.0])),
        "top": flat(top_fraction(whole, 0.05)),
        "top/ties": flat(top_fraction(tied, 0.1, seed=3)),
        "top/within": flat(top_fraction(tied, 0.1, within=within)),
        "overlap": flat(bhattacharyya(whole, fraction=0.2)),
        "overlap/two": flat(bhattacharyya(whole[:2], tied, fraction=0.2)),
        "centroids": flat(leave_one_out_centroids(torch.randn(6, 8), list("aabbbb"))),
    }


def population(people: int, px: int) -> tuple[Tensor, list[str]]:
    """Two images of every person, more alike than those of two people."""
    own = torch.rand(people, 3, px, px).repeat_interleave(2, 0)
    return (0.7 * own + 0.3 * torch.rand(2 * people, 3, px, px)), [f"p{i // 2:02d}" for i in range(2 * people)]


def faithfulness() -> Cases:
    """Occlusion with all fills and controls, verification, decisions over pairs, sanity checks."""
    x, people = population(11, 16)
    models = {"first": Convolutions(16), "second": Convolutions(16)}
    net = models["first"]
    found = {"LEAM": explain_faces(net, x, "fast"), "chance": torch.rand(len(x), 16, 16)}
    cases: Cases = {}
    for fill in FILLS:
        evaluator = OcclusionEvaluator(models, (0.1,), fills=(fill,), orders=("most", "least"))
        result = evaluator.evaluate(x, found, labels=people, explained="first")
        numbers = result.to_frame()[["drop", "changed"]].astype({"drop": "float32"})
        texts = result.to_frame().drop(columns=["drop", "changed"])
        cases |= framed(f"occlusion/{fill}", numbers if fill != "blur" else numbers.join(texts))
        cases |= framed(f"occlusion/{fill}/summary", result.summary().select_dtypes("number"))
        cases |= framed(f"occlusion/{fill}/compare", result.compare().select_dtypes("number"))
    pairs = draw_pairs(people, 11)
    similar, dissimilar = torch.rand(len(pairs), 16, 16), torch.rand(len(pairs), 16, 16)
    decisions = VerificationEvaluator(models, (0.0, 0.2, 1.0), controls=("random pixels", "edges"))
    judged = decisions.evaluate(x, pairs, similar, dissimilar, labels=people, explained="first")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # untrained networks hardly separate people
        verified = verify(net, x, people)
    checked = sanity_checks(net, x[:8], people[:8], lambda m, i, r: explain_faces(m, i, "fast", reference=r))
    return {
        **cases,
        **framed("decisions", judged.to_frame()),
        **framed("decisions/curves", judged.curves()),
        **framed("decisions/summary", judged.summary()),
        **{f"pairs/{f.name}": flat(getattr(pairs, f.name)) for f in fields(pairs)},
        **{"verify/genuine": verified.genuine, "verify/impostor": verified.impostor},
        **framed("verify", verified.to_frame()),
        **framed("sanity", checked.to_frame()),
        **framed("sanity/cascade", checked.cascade),
    }


def patterns() -> Cases:
    """Signatures, person-specificity with and without controls, groups, agreement."""
    whole, people = population(8, 12)
    found, other = whole.mean(1), torch.rand(16, 12, 12)
    labels = thirds(whole)
    made = {
        "top": signatures(found, fraction=0.1),
        "dense": signatures(found, "dense", grid=(6, 6)),
        "regions": signatures(found, "regions", labels=labels),
    }
    cases: Cases = {}
    for kind, rows in made.items():
        specific = person_specificity(rows, people, resamples=50, permutations=49)
        cases |= {f"signatures/{kind}/{name}": array for name, array in rows.to_arrays(np.float32).items()}
        cases[f"signatures/{kind}/similarity"] = rows.similarity()
        cases |= framed(f"specificity/{kind}", specific.table)
        cases[f"specificity/{kind}/p"] = np.array([specific.p_value, specific.auc_error])
    control = signatures(other, fraction=0.1)
    claim = pattern_claim(made["top"], people, {"chance": control}, resamples=50)
    agreed = agreement({"a": made["top"], "b": control}, people, resamples=50)
    values = {"drop": torch.rand(16).numpy(), "share": torch.rand(16).numpy()}
    groups, base = ["x"] * 8 + ["y"] * 8, torch.rand(16).numpy()
    compared = compare_groups(values, people, groups, base, min_people=4, resamples=50, permutations=49)
    return {
        **cases,
        **framed("claim", claim.to_frame()),
        **framed("agreement", agreed.to_frame()),
        **{"agreement/linkage": agreed.linkage},
        **framed("groups", compared.to_frame()),
    }


def regions() -> Cases:
    """Region reports of crop and face, and the quantities in them."""
    x = torch.rand(3, 3, 56, 56)
    found, labels, bands = torch.rand(3, 56, 56), TemplateParser()(x), thirds(x)
    critical, face = top_fraction(found, 0.05), labels > 0
    return {
        "template": flat(labels[0].to(torch.uint8)),
        "share": flat(region_share(critical, bands, [0, 1, 2])),
        "mass": flat(region_mass(found, bands, [0, 1, 2])),
        "area": flat(region_area(bands, [0, 1, 2])),
        **framed("report", region_report(found, labels, TemplateParser.scheme, fraction=0.05)),
        **framed("report/merged", region_report(found, labels, TemplateParser.scheme.merge_sides())),
        **framed("report/face", region_report(found, bands, THIRDS, fraction=0.05, of="face", face=face)),
    }


STUDY_TABLES = (
    "skipped verification cosines layers scores regions drops region_summary drop_summary patterns agreement groups"
)


OF_OVERALL_MAP = ("skipped", "regions", "drops", "patterns", "agreement", "mean maps")


def study(preset: str, **leam: Any) -> Cases:
    """All tables of a study of seconds, two groups of people and a lone picture in it; but no hashes of files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        people = sorted(write_faces(folder, people=7).iterdir())
        for lone in sorted(people[-1].iterdir())[1:]:
            lone.unlink()
        rows = [f"{person.name},{'old' if i < 3 else 'young'}" for i, person in enumerate(people)]
        (folder / "groups.csv").write_text("\n".join(["person,age", *rows]))
        path = write_study(folder, preset=preset, leam=leam, groups={"file": "groups.csv", "columns": ["age"]})
        result = Study(path).run(progress=False, report=False)
        cases = framed("images", result.table("images").drop(columns="sha256"), has_prose=True)
        for table in STUDY_TABLES.split():
            cases |= framed(table, result.table(table), has_prose=True)
        cases |= {f"mean maps/{model}/{layer}": mean for (model, layer), mean in result.mean_maps().items()}
    return cases


def study_presets() -> Cases:
    """The tables of a study that the overall map of a preset reaches, beside layer maps of one pass."""
    return {
        f"{preset}/{name}": array
        for preset in ("fast", "default")
        for name, array in study(preset, n_steps=1).items()
        if name.startswith(OF_OVERALL_MAP)
    }


GROUPS: Mapping[str, Callable[[], Cases]] = {
    "leam": leam,
    "explainers": explainers,
    "faces": faces,
    "maps": maps,
    "faithfulness": faithfulness,
    "patterns": patterns,
    "regions": regions,
    "study_fast": lambda: study("layers", n_steps=1),
    "study_path": lambda: study("layers", n_steps=4, path="mean_gradient"),
    "study_preset": study_presets,
}


# -- writing and comparing -----------------------------------------------------------------------------


@contextmanager
def one_thread() -> Iterator[None]:
    """Run on one thread at seed 0, and put both back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)


def compute(group: str) -> Cases:
    """Return the cases of a group by name."""
    with one_thread():
        return {name: np.ascontiguousarray(array) for name, array in GROUPS[group]().items()}


def difference(stored: Array, array: Array) -> float:
    """Return 0 for identical bits, else the largest absolute difference: infinite for other shapes, kinds or texts."""
    if stored.dtype == array.dtype and stored.shape == array.shape and stored.tobytes() == array.tobytes():
        return 0.0
    if stored.shape != array.shape or stored.dtype.kind != array.dtype.kind or stored.dtype.kind == "U":
        return float("inf")
    left, right = stored.astype(np.float64), array.astype(np.float64)
    if not np.array_equal(np.isnan(left), np.isnan(right)) or not np.array_equal(np.isinf(left), np.isinf(right)):
        return float("inf")
    finite = np.isfinite(left)
    largest = float(np.abs(left - right)[finite].max(initial=0.0))
    return max(largest, float(np.finfo(np.float64).tiny))  # other bits of the same value, as -0.0 for 0.0


@dataclass(frozen=True)
class Compared:
    """A case beside the stored one: 0 for identical bits, infinite where they cannot be compared."""

    absolute: float
    """Largest absolute difference."""
    share: float
    """The same as a share of the largest stored value."""
    said: str
    """Return the difference as text."""


def compared(stored: Array | None, array: Array | None) -> Compared:
    """Compare a case with the stored one; None where there is none."""
    infinite = float("inf")
    if stored is None or array is None:
        return Compared(infinite, infinite, "is no longer computed" if array is None else "is not stored")
    absolute = difference(stored, array)
    if absolute == 0:
        return Compared(0, 0, "identical")
    if stored.shape != array.shape or stored.dtype.kind != array.dtype.kind:
        kinds = [f"{one.dtype} {one.shape}" for one in (stored, array)]
        return Compared(infinite, infinite, f"was {kinds[0]}, is {kinds[1]}")
    if stored.dtype.kind == "U":
        first = np.flatnonzero((stored != array).reshape(-1))[0]
        return Compared(infinite, infinite, f"was {stored.flat[first]!r}, is {array.flat[first]!r}")
    numbers = np.abs(stored[np.isfinite(stored)].astype(np.float64))
    share = absolute / (float(numbers.max(initial=0.0)) or 1.0)
    return Compared(absolute, share, f"largest difference {absolute:.3g}, {share:.3g} of the largest value")


def compare(folder: Path, group: str) -> dict[str, Compared]:
    """Compute the cases of a group and compare each with the stored one."""
    with np.load(folder / f"{group}.npz", allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    cases = compute(group)
    return {name: compared(stored.get(name), cases.get(name)) for name in sorted({*stored, *cases})}


def write(folder: Path, groups: list[str]) -> None:
    """Compute groups and write one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for group in groups:
        cases = compute(group)
        np.savez_compressed(folder / f"{group}.npz", **cases)  # type: ignore[arg-type]
        print(f"{group}: {len(cases)} cases, {(folder / f'{group}.npz').stat().st_size / 1024:.0f} kB")


def report(folder: Path, groups: list[str], tolerance: float) -> bool:
    """Print every case and whether it is what it was; return whether all are."""
    results = []
    for group in groups:
        for name, result in compare(folder, group).items():
            results.append(result.share <= tolerance)
            print(f"{group}: {name}: {result.said}")
    print(f"{sum(results)} of {len(results)} cases are {f'within {tolerance:g}' if tolerance else 'identical'}.")
    return all(results)


def main() -> int:
    """Write or compare, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="DIR", help="compute all cases and write them")
    action.add_argument("--compare", type=Path, metavar="DIR", help="compute all cases and compare them with these")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="share of a case's largest value (default: 0, bit by bit)"
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="groups (default: all)")
    options = parser.parse_args()
    if options.write:
        write(options.write, options.only)
        return 0
    return 0 if report(options.compare, options.only, options.tolerance) else 1


if __name__ == "__main__":
    sys.exit(main())
