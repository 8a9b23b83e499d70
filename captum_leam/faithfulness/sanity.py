"""Sanity checks, which a faithful explanation passes and convincing pictures of something else fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from captum_leam._engine.seeds import at_seed
from captum_leam._optional import pd
from captum_leam.controls import ControlContext, edges
from captum_leam.errors import CaptumLeamError
from captum_leam.explain import explain_faces
from captum_leam.faithfulness.occlusion import OcclusionEvaluator
from captum_leam.maps import as_maps, bhattacharyya
from captum_leam.models.randomised import randomised
from captum_leam.objectives import embed, leave_one_out_centroids, unit
from captum_leam.stats.decisions import error_rates
from captum_leam.stats.inference import bootstrap_interval
from captum_leam.stats.labels import people_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]

STAGES = (0.25, 0.5, 0.75, 1.0)
TOP = 0.1
"""Share of the pixels on which two maps are compared; independent maps overlap by about this share, and equal maps by 1."""


@dataclass(frozen=True)
class Rule:
    """Condition under which a check is passed.

    Attributes:
        needed: Kind of the condition: "at most" or "at least" for the mean over images, or "interval above".
        limit: Limit of an overlap or of a difference.
        meaning: Meaning of a failure.
    """

    needed: str
    limit: float
    meaning: str

    def passes(self, value: float, low: float) -> bool:
        """Return whether the check is passed.

        Args:
            value: Mean over images.
            low: Low end of its interval.
        """
        if self.needed == "interval above":
            return low > self.limit
        return value <= self.limit if self.needed == "at most" else value >= self.limit


RULES = {
    "weights": Rule("at most", 0.5, "The map does not depend on what the network learnt"),
    "reference": Rule("at most", 0.9, "The map does not depend on the reference"),
    "edges": Rule("at most", 0.5, "The map is an edge detector"),
    "seed": Rule("at least", 0.95, "The map depends on chance"),
    "evidence": Rule(
        "interval above",
        0.0,
        "The mean map of other people does as well, so that the map shows faces and not this person",
    ),
    "training": Rule("interval above", 0.05, "The network separates people hardly better than an untrained one"),
}
"""Check → its condition; ``limits`` of :func:`sanity_checks` changes the numbers."""


@dataclass(frozen=True)
class Check:
    """Result of one check of :func:`sanity_checks`.

    Attributes:
        name: ``"weights"``, ``"reference"``, ``"edges"``, ``"seed"``, ``"evidence"`` or ``"training"``.
        passed: Whether the check is passed.
        value: Measured overlap or difference, mean over images.
        low: Low end of its 95 % interval over people.
        high: High end of the interval.
        needed: Condition, e.g. "at most 0.5".
        meaning: Meaning of a failure.

    Example:
        >>> Check("edges", False, 0.7, 0.6, 0.8, "at most 0.5", "The map is an edge detector").passed
        False
    """

    name: str
    passed: bool
    value: float
    low: float
    high: float
    needed: str
    meaning: str


@dataclass(frozen=True, repr=False)
class SanityReport:
    """Result of :func:`sanity_checks`: whether each check is passed, with the measured values.

    Attributes:
        checks: Results of the six checks, in the order of the table in :func:`sanity_checks`.
        cascade: Change of the map as layers get random weights, a table with one row per stage and the columns

            * ``randomised``: Share of the layers with random weights, from the head down, in [0, 1].
            * ``overlap``: Mean overlap of the map with that of the trained network, in [0, 1].
        settings: Settings by name: images, people, limits, fill, seed, fraction and stages.

    Example:
        >>> check = Check("edges", False, 0.7, 0.6, 0.8, "at most 0.5", "The map is an edge detector")
        >>> report = SanityReport((check,), pd.DataFrame())
        >>> report.passed, report.failed
        (False, ['edges'])
    """

    checks: tuple[Check, ...]
    cascade: pd.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether all checks are passed."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> list[str]:
        """Names of the checks that are not passed."""
        return [check.name for check in self.checks if not check.passed]

    def to_frame(self) -> pd.DataFrame:
        """Return the checks as a table.

        Returns:
            Table with one row per check, and the columns

            * ``name``: Name of the check.
            * ``passed``: Whether it is passed.
            * ``value``: Measured overlap or difference, mean over images.
            * ``low``, ``high``: Ends of its 95 % interval over people.
            * ``needed``: Condition, such as ``"at most 0.5"``.
            * ``meaning``: Meaning of a failure.

        Example:
            >>> check = Check("edges", False, 0.7, 0.6, 0.8, "at most 0.5", "The map is an edge detector")
            >>> SanityReport((check,), pd.DataFrame()).to_frame()[["name", "passed", "value", "needed"]]
                name  passed  value       needed
            0  edges   False    0.7  at most 0.5
        """
        return pd.DataFrame([asdict(check) for check in self.checks])

    def plot(self) -> Figure:
        """Plot how the maps change as the layers of the network get random weights.

        The curve is the overlap with the original map over the share of layers with random weights. It falls to the dotted line, which
        is the overlap of independent maps, if the maps depend on what the network has learned.

        Returns:
            Figure with one axis. It is not shown: call ``figure.savefig(path)``, or let a notebook display it.

        Example:
            >>> cascade = pd.DataFrame({"randomised": [0.0, 0.5, 1.0], "overlap": [1.0, 0.4, 0.1]})
            >>> SanityReport((), cascade).plot().axes[0].get_ylabel()
            'overlap with the map of the trained network'
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot(100 * self.cascade["randomised"], self.cascade["overlap"], marker="o", color="#0072b2")
        axes.axhline(TOP, color="0.5", linewidth=1, linestyle=":")
        axes.annotate(
            "independent maps", (1, TOP), xycoords=("axes fraction", "data"), fontsize=8, ha="right", va="bottom"
        )
        axes.set_xlabel("layers randomised, from the head down, %")
        axes.set_ylabel("overlap with the map of the trained network")
        axes.set_ylim(0, 1.02)
        axes.spines[["top", "right"]].set_visible(False)
        return figure

    def __repr__(self) -> str:
        rows = [
            f"{'passed' if c.passed else 'FAILED'}  {c.name:9}  {c.value:6.3f} [{c.low:.3f}, {c.high:.3f}]  needed: {c.needed}"
            + ("" if c.passed else f". {c.meaning}")
            for c in self.checks
        ]
        return "\n".join(["Sanity checks", *rows])


def sanity_checks(
    model: nn.Module,
    images: Tensor,
    labels: Sequence[Any] | Tensor,
    explain: Explain | None = None,
    *,
    limits: Mapping[str, float] | None = None,
    stages: Sequence[float] = STAGES,
    fraction: float = 0.05,
    fill: str = "blur",
    batch_size: int = 64,
    seed: int = 0,
) -> SanityReport:
    """Run six sanity checks of an attribution method.

    Use it before maps are interpreted. A method that fails a check shows something else than what the network uses for the person. Overlap
    is the Bhattacharyya coefficient of the top 10 % of two maps: 1 for equal maps, about 0.1 for independent ones.

    =========  =====================================================================================  ==========================
    check      condition                                                                              source
    =========  =====================================================================================  ==========================
    weights    the map changes when layers of a copy get random weights, from the head down           Adebayo et al. 2018 (MPRT)
    reference  the map changes with the reference of another person                                   design of this package
    edges      the map differs from smoothed Sobel edges                                              Adebayo et al. 2018
    seed       the map does not change with the global random seed                                    design of this package
    evidence   occluding its pixels lowers the cosine more than those of the mean map of others       design of this package
    training   the model separates people better than the same model without training                 Adebayo et al. 2018
    =========  =====================================================================================  ==========================

    Args:
        model: Model in evaluation mode that returns embeddings (N, D). It does not change: weights are randomised on copies.
        images: Images of at least two people with at least two images each, shape (N, C, H, W). Intervals are useful from about twenty
            people.
        labels: Person of each image.
        explain: Method to check, a function of a model, images and references (N, D) that returns maps of image size. Default:
            :func:`~captum_leam.explain_faces`.
        limits: Limits by name of the check, which replace the usual ones. Default: ``{"weights": 0.5, "reference": 0.9, "edges": 0.5,
            "seed": 0.95, "evidence": 0, "training": 0.05}``.
        stages: Rising shares of the layers to randomise, the last one 1. Default: 0.25, 0.5, 0.75 and 1.
        fraction: Share of the pixels that are occluded for "evidence", in (0, 1]. Default: 0.05.
        fill: Replacement of occluded pixels: ``"zero"``, ``"mean"``, ``"blur"``, ``"noisy linear"`` or ``"shuffle"``. Default:
            ``"blur"``.
        batch_size: Number of images in one pass, except for those of ``explain``. Default: 64.
        seed: Seed of random weights, other references, and the bootstrap. Default: 0.

    Returns:
        :class:`SanityReport` with the result of each check, whether all are passed, and the names of those that are not.

    Raises:
        CaptumLeamError: If there are fewer than two people or two images of a person, a limit is unknown, or ``explain`` raises it.

    See Also:
        * :class:`~captum_leam.faithfulness.OcclusionEvaluator`: Drops of the cosine beside controls.
        * :func:`~captum_leam.models.randomised`: Copy of a model with random weights.

    Example:
        >>> import torch
        >>> from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation
        >>> _ = torch.manual_seed(0)
        >>> faces, network = SyntheticPopulation(3).sample(2), EmbeddingNet().eval()  # an untrained network
        >>> report = sanity_checks(network, faces.images, faces.people, stages=(1.0,))
        >>> report.to_frame()["name"].tolist()
        ['weights', 'reference', 'edges', 'seed', 'evidence', 'training']
        >>> "training" in report.failed  # it separates people no better than random weights do
        True
    """
    unknown = sorted(set(limits or {}) - set(RULES))
    if unknown:
        raise CaptumLeamError(f"Expected `limits` of some of the checks {', '.join(RULES)}, got {unknown}.")
    rules = {name: replace(rule, limit=(limits or {}).get(name, rule.limit)) for name, rule in RULES.items()}
    people = [str(p) for p in people_of(labels, len(images))]
    if len(set(people)) < 2:
        raise CaptumLeamError(
            "Expected images of two people or more, for the reference of another person, got one person only."
        )
    if not stages or stages[-1] != 1 or list(stages) != sorted(set(stages)) or stages[0] <= 0:
        raise CaptumLeamError(
            f"Expected `stages` to be rising shares of the layers, the last one 1, got {tuple(stages)}."
        )
    make = _seeded(_default_explain if explain is None else explain, seed)
    references = leave_one_out_centroids(embed(model, images, batch_size), people)
    maps = as_maps(make(model, images, references))
    copies = {share: randomised(model, images, share, seed=seed) for share in stages}
    cascade = {share: _overlap(maps, make(copy_, images, references)) for share, copy_ in copies.items()}
    twin = copies[stages[-1]]
    other = references[_of_another_person(people, seed)]
    values = {
        "weights": cascade[stages[-1]],
        "reference": _overlap(maps, make(model, images, other)),
        "edges": _overlap(maps, edges(ControlContext(images))),
        "seed": _overlap(maps, _seeded(explain or _default_explain, seed + 1)(model, images, references)),
        "evidence": _ahead_of_other_people(model, images, maps, people, fraction, fill, seed, batch_size),
        "training": _separation(model, images, people, batch_size) - _separation(twin, images, people, batch_size),
    }
    checks = tuple(_check(name, of_images, people, rules[name], seed) for name, of_images in values.items())
    table = pd.DataFrame({"randomised": [0.0, *cascade], "overlap": [1.0, *(v.mean() for v in cascade.values())]})
    settings = {
        "images": len(images),
        "people": len(set(people)),
        "limits": {n: r.limit for n, r in rules.items()},
        "fill": fill,
        "seed": seed,
    }
    return SanityReport(checks, table, {**settings, "fraction": fraction, "stages": tuple(stages)})


def _default_explain(model: nn.Module, images: Tensor, references: Tensor) -> Tensor:
    return explain_faces(model, images, reference=references)


def _overlap(maps: Tensor, others: Tensor) -> np.ndarray:
    """Return the overlap of each map with its counterpart, shape (N,)."""
    pairs = zip(as_maps(maps).clamp(min=0), as_maps(others).clamp(min=0).to(maps.device), strict=True)
    # two empty maps are equal, and an empty map has no overlap with another
    return np.array(
        [
            float(bhattacharyya(a, b, fraction=TOP)) if a.any() and b.any() else float(a.any() == b.any())
            for a, b in pairs
        ]
    )


def _of_another_person(people: Sequence[str], seed: int) -> list[int]:
    """Return the index of a random image of another person for each image."""
    generator = np.random.default_rng(seed)
    who = np.array(people)
    return [int(generator.choice(np.flatnonzero(who != person))) for person in people]


def _seeded(explain: Explain, seed: int) -> Explain:
    """Return the method run with the global random numbers at a seed."""

    def make(model: nn.Module, images: Tensor, references: Tensor) -> Tensor:
        with at_seed(seed):
            return explain(model, images, references)

    return make


def _ahead_of_other_people(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    people: Sequence[str],
    fraction: float,
    fill: str,
    seed: int,
    batch_size: int,
) -> np.ndarray:
    controls = ("other people",)
    evaluator = OcclusionEvaluator(
        model, (fraction,), fills=(fill,), controls=controls, seed=seed, batch_size=batch_size
    )
    table = evaluator.evaluate(images, maps, labels=people).to_frame()
    wide = table.pivot_table(index="image", columns="control", values="drop")
    difference: np.ndarray = (wide[""] - wide["other people"]).to_numpy()
    return difference


def _separation(model: nn.Module, images: Tensor, people: Sequence[str], batch_size: int) -> np.ndarray:
    """Return the chance (AUC) for each image that an image of its person is more similar to it than one of another person."""
    embeddings = unit(embed(model, images, batch_size).double(), "embeddings")
    similarity, who = (embeddings @ embeddings.T).cpu().numpy(), np.array(people)
    out = []
    for i, row in enumerate(similarity):
        same = who == who[i]
        others, own = row[~same], row[same & (np.arange(len(who)) != i)]
        fmr, _ = error_rates(np.concatenate([own, others]), np.r_[np.ones(len(own)), np.zeros(len(others))], own)
        ties = (others[None] == own[:, None]).mean(1)
        out.append(1 - (fmr - ties / 2).mean())
    return np.array(out)


def _check(name: str, of_images: np.ndarray, people: Sequence[str], rule: Rule, seed: int) -> Check:
    value = float(of_images.mean())
    low, high = (float(end) for end in bootstrap_interval(of_images, people, seed=seed))
    return Check(name, rule.passes(value, low), value, low, high, f"{rule.needed} {rule.limit:g}", rule.meaning)
