r"""Deletion and insertion for face verification: how the decision changes as pixels are replaced or put back.

Two faces match if the cosine of their embeddings reaches a threshold. Three curves over the fraction of pixels are measured: the genuine
accept rate (GAR), the impostor reject rate (IRR), and the balanced accuracy (GAR + IRR) / 2, which is 50 % if all pairs get the same
decision. Maps of *similar* parts are scored by the GAR, and maps of *dissimilar* parts by the IRR.

Source: the protocol of CorrRISE (Lu et al., WACV 2024, arXiv 2305.08546), FGGB (Lu et al., FG 2024, arXiv 2403.04549) and FAME
(Zhang & Günther 2026, arXiv 2605.12017), written from the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm.auto import tqdm

from captum_leam._engine.arithmetic import as_tensor
from captum_leam._engine.checks import rows_from
from captum_leam._optional import pd
from captum_leam.controls import SHARED_CONTROLS, ControlContext
from captum_leam.errors import CaptumLeamError
from captum_leam.faithfulness.fills import Fill, as_fill
from captum_leam.maps import as_maps, rank_pixels
from captum_leam.objectives import embed, unit
from captum_leam.stats.decisions import Pairs, area_under, decision_rates, threshold_at_eer, threshold_at_fmr
from captum_leam.stats.inference import interval_of_pairs
from captum_leam.stats.labels import people_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Embed = Callable[[Tensor], Tensor]

EER = "eer"
PROTOCOLS = ("deletion", "insertion")
FRACTIONS = tuple(i / 10 for i in range(11))
RATES = ["gar", "irr", "accuracy"]
CURVE = ["explained", "model", "kind", "method", "protocol", "operating_point"]

SCORED_BY = {"similar": "gar", "dissimilar": "irr"}
"""Kind of map → rate that it is scored by."""


# -- the evaluator ---------------------------------------------------------------------------------------


class VerificationEvaluator:
    """Deletion and insertion test of maps for face verification, measured by the decisions of the model.

    Two faces match if the cosine of their embeddings is at least a threshold. The pixels with the highest values of a map are replaced
    (deletion), or put back into a filled image (insertion), and three shares of right decisions are measured at each fraction of pixels:

    * *GAR*: genuine accept rate, the share of the genuine pairs that match. Maps of similar parts are scored by it.
    * *IRR*: impostor reject rate, the share of the impostor pairs that do not match. Maps of dissimilar parts are scored by it.
    * *Balanced accuracy*: (GAR + IRR) / 2, which is 0.5 if all pairs get the same decision.

    Source: the protocol of CorrRISE (Lu et al., WACV 2024, arXiv 2305.08546), FGGB (Lu et al., FG 2024, arXiv 2403.04549) and FAME
    (Zhang & Günther 2026, arXiv 2605.12017).

    Args:
        models: Function from images (N, C, H, W) to embeddings (N, D), or a dictionary of such functions by name. A single function is
            named "model".
        fractions: Fractions of the pixels to delete or insert, at least two in rising order, in [0, 1]. Default: 0, 0.1, …, 1.
        operating_points: Points at which thresholds are set from the scores without changed pixels: ``"eer"`` for the equal error rate,
            or false match rates in (0, 1), such as 1e-3. Default: ``("eer",)``.
        fill: Replacement of pixels: ``"zero"``, ``"mean"``, ``"blur"``, ``"noisy linear"``, ``"shuffle"``, or a function. Default:
            ``"zero"``, black as in the papers.
        protocols: Protocols, one or both of these. Default: both.

            * ``"deletion"``: The highest pixels are replaced first.
            * ``"insertion"``: The highest pixels are put back first into a filled image.
        occluded: Images of a pair to change. Default: ``"probe"``.

            * ``"probe"``: First image of the pair.
            * ``"both"``: Both images.
        controls: Control maps to compare with: ``"random pixels"``, ``"random face pixels"``, ``"centre"``, ``"edges"`` or
            ``"random field"``. Default: ``("random pixels",)``.
        seed: Seed of ties and controls. Default: 0.
        batch_size: Number of images in one pass. Default: 64.
        progress: Whether to show a progress bar. Default: False.

    Raises:
        CaptumLeamError: If an option is unknown or out of range.

    See Also:
        * :class:`~captum_leam.faithfulness.OcclusionEvaluator`: Drops of the cosine instead of decisions.
        * :func:`~captum_leam.verification.draw_pairs`: Genuine and impostor pairs.

    Example:
        >>> from captum_leam.stats.decisions import draw_pairs
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> faces, pairs = torch.rand(4, 3, 8, 8), draw_pairs(["ann", "ann", "bob", "bob"])
        >>> evaluator = VerificationEvaluator(model, fractions=(0, 0.5, 1))
        >>> result = evaluator.evaluate(faces, pairs, {"noise": torch.rand(4, 8, 8)})
        >>> result.summary()[["method", "protocol", "scored by", "better"]].head(2)
          method   protocol scored by  better
        0  noise   deletion       gar   lower
        1  noise  insertion       gar  higher
    """

    def __init__(
        self,
        models: Embed | Mapping[str, Embed],
        fractions: Sequence[float] = FRACTIONS,
        *,
        operating_points: Sequence[str | float] = (EER,),
        fill: str | Fill | Callable[..., Tensor] = "zero",
        protocols: Sequence[str] = PROTOCOLS,
        occluded: str = "probe",
        controls: Sequence[str] = ("random pixels",),
        seed: int = 0,
        batch_size: int = 64,
        progress: bool = False,
    ) -> None:
        self.models = dict(models) if isinstance(models, Mapping) else {"model": models}
        self.fractions, self.protocols = tuple(fractions), tuple(protocols)
        self.operating_points, self.controls = tuple(operating_points), tuple(controls)
        self.fill, self.occluded, self.seed = as_fill(fill), occluded, seed
        self.batch_size, self.progress = batch_size, progress
        self._check()

    def _check(self) -> None:
        steps = self.fractions
        if len(steps) < 2 or any(a >= b for a, b in pairwise(steps)) or not 0 <= steps[0] < steps[-1] <= 1:
            raise CaptumLeamError(f"Expected `fractions` to be two or more rising values in [0, 1], got {steps}.")
        if not self.models or not self.operating_points or not self.protocols:
            raise CaptumLeamError(
                "Expected one entry or more in each of `models`, `operating_points` and `protocols`, got none."
            )
        if not set(self.protocols) <= set(PROTOCOLS):
            raise CaptumLeamError(f"Expected `protocols` to be some of {PROTOCOLS}, got {self.protocols}.")
        if self.occluded not in ("probe", "both"):
            raise CaptumLeamError(f"Expected `occluded` to be 'probe' or 'both', got {self.occluded!r}.")
        unknown = [c for c in self.controls if c not in SHARED_CONTROLS]
        if unknown:
            raise CaptumLeamError(f"Expected `controls` to be some of {', '.join(SHARED_CONTROLS)}, got {unknown}.")
        wrong = [p for p in self.operating_points if p != EER and not (isinstance(p, float) and 0 < p < 1)]
        if wrong:
            raise CaptumLeamError(
                f"Expected `operating_points` to be 'eer' or false match rates in (0, 1), got {wrong}."
            )

    def evaluate(
        self,
        images: Tensor,
        pairs: Pairs,
        similar: Tensor | Mapping[str, Tensor],
        dissimilar: Tensor | Mapping[str, Tensor] | None = None,
        *,
        calibration: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
        labels: Sequence[Any] | None = None,
        explained: str = "",
    ) -> VerificationResult:
        """Measure the scores of all pairs as pixels are deleted or inserted, for all methods and controls.

        Args:
            images: Images, shape (N, C, H, W).
            pairs: P pairs of these images, see :func:`~captum_leam.verification.draw_pairs`.
            similar: Maps of the parts that make the pairs similar, or a dictionary of such maps by method. The shape is (P, H, W) or
                (P, 1, H, W) for the probes. If both images are changed, it is (P, 2, H, W), with the map of the probe first.
            dissimilar: Maps of the parts that make the pairs dissimilar, in the same form, with high values where dissimilar. Default:
                None.
            calibration: Pairs from which thresholds are set instead, a dictionary by model of two arrays of shape (Q,): scores, and whether
                each pair is genuine. Default: None, the scores of ``pairs`` without changed pixels.
            labels: Person of each image, for intervals over people. Default: no intervals.
            explained: Name of the model that the maps explain. Default: ``""``.

        Returns:
            :class:`VerificationResult` with the score of each pair, method, protocol and fraction, and the thresholds.

        Raises:
            CaptumLeamError: If maps have another size or NaN, or there are too few impostor pairs for an operating point.

        Example:
            >>> from captum_leam.stats.decisions import draw_pairs
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> faces, pairs = torch.rand(4, 3, 8, 8), draw_pairs(["ann", "ann", "bob", "bob"])
            >>> evaluator = VerificationEvaluator(model, fractions=(0, 0.5), protocols=("deletion",), controls=())
            >>> result = evaluator.evaluate(faces, pairs, {"noise": torch.rand(4, 8, 8)})
            >>> result.curves()[["method", "protocol", "fraction", "operating_point"]]
              method  protocol  fraction operating_point
            0  noise  deletion       0.0             eer
            1  noise  deletion       0.5             eer
        """
        if images.ndim != 4 or int(torch.stack([pairs.first, pairs.second]).max()) >= len(images):
            raise CaptumLeamError(
                f"Expected `images` of shape (N, C, H, W) and indices below N in `pairs`, got {tuple(images.shape)}."
            )
        sides = [images[pairs.first], images[pairs.second]][: 1 if self.occluded == "probe" else 2]
        clean = {
            name: unit(embed(m, images, self.batch_size).double(), "embeddings") for name, m in self.models.items()
        }
        partner = {name: (e[pairs.first], e[pairs.second]) for name, e in clean.items()}
        whole = {name: (a * b).sum(1) for name, (a, b) in partner.items()}
        ends = {False: whole}  # the filled end is added where a fraction needs it
        people = _people(pairs, labels, len(images))
        curves: dict[bytes, list[tuple[str, float, dict[str, Tensor]]]] = {}  # equal maps are occluded once
        sets = list(self._sets(similar, dissimilar, sides))
        cells, of_cells = [], []
        for kind, method, maps in tqdm(sets, disable=not self.progress, desc="verification", unit="map"):
            key = blake2b(torch.stack(maps, 1).detach().cpu().numpy().tobytes()).digest()
            if key not in curves:
                ranks = torch.stack([rank_pixels(m, seed=self.seed + i) for i, m in enumerate(maps)], 1)
                curves[key] = list(self._curve(sides, ranks, partner, ends))
            for protocol, fraction, scores in curves[key]:
                cells += [(name, kind, method, protocol, fraction) for name in self.models]
                of_cells += [scores[name].cpu().numpy() for name in self.models]
        table = _score_table(pairs, cells, of_cells).assign(explained=explained)
        unknown = sorted(set(calibration or {}) - set(self.models))
        if unknown:
            raise CaptumLeamError(f"Expected `calibration` for some of the models {list(self.models)}, got {unknown}.")
        thresholds = {name: self._thresholds(whole[name], pairs, (calibration or {}).get(name)) for name in self.models}
        return VerificationResult(table, thresholds, people, self._settings(explained))

    # -- parts ---------------------------------------------------------------------------------------------

    def _sets(self, similar: Any, dissimilar: Any, sides: list[Tensor]) -> Iterator[tuple[str, str, list[Tensor]]]:
        """Yield the kind, the method and the maps of each occluded image of the pairs."""
        scenes = [ControlContext(x, seed=self.seed + i) for i, x in enumerate(sides)]
        for kind, of_kind in (("similar", similar), ("dissimilar", dissimilar)):
            if of_kind is None:
                continue
            named = {str(name) for name in of_kind} if isinstance(of_kind, Mapping) else set()
            if named & set(self.controls):
                raise CaptumLeamError(
                    f"Expected names of methods that are not names of controls, got {sorted(named & set(self.controls))}. Rename these "
                    "methods."
                )
            for method, maps in (of_kind if isinstance(of_kind, Mapping) else {"map": of_kind}).items():
                yield kind, str(method), _per_side(str(method), maps, sides)
            for control in self.controls:
                yield kind, control, [SHARED_CONTROLS[control](scene) for scene in scenes]

    def _curve(
        self, sides: list[Tensor], ranks: Tensor, partner: Mapping[str, Any], ends: dict[bool, dict[str, Tensor]]
    ) -> Iterator[tuple[str, float, dict[str, Tensor]]]:
        pixels = ranks.shape[2] * ranks.shape[3]
        for protocol in self.protocols:
            for fraction in self.fractions:
                count = round(fraction * pixels)
                replaced = count if protocol == "deletion" else pixels - count
                if replaced in (0, pixels):  # the ends are the same for all maps and measured once
                    if replaced and True not in ends:
                        ends[True] = self._scores(sides, _constant(sides, True), partner)
                    yield protocol, fraction, ends[replaced == pixels]
                else:
                    masks = ranks < count if protocol == "deletion" else ranks >= count
                    yield protocol, fraction, self._scores(sides, masks, partner)

    def _scores(self, sides: list[Tensor], masks: Tensor, partner: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return model → cosine of each pair with these pixels replaced."""
        embeddings: dict[str, list[list[Tensor]]] = {name: [[] for _ in sides] for name in self.models}
        for i, x in enumerate(sides):
            for rows in torch.split(torch.arange(len(x), device="cpu"), self.batch_size):
                images, mask = x[rows], masks[rows, i].to(x.device)
                occluded = torch.where(mask[:, None], self.fill(images, mask), images)
                for name, model in self.models.items():
                    with rows_from(int(rows[0])):
                        embeddings[name][i].append(unit(embed(model, occluded, self.batch_size).double(), "embeddings"))
        joined = {name: [torch.cat(parts) for parts in of_model] for name, of_model in embeddings.items()}
        return {name: (e[0] * (e[1] if len(e) > 1 else partner[name][1])).sum(1) for name, e in joined.items()}

    def _thresholds(
        self, whole: Tensor, pairs: Pairs, calibration: tuple[ArrayLike, ArrayLike] | None
    ) -> dict[str, float]:
        scores, genuine = (whole.cpu().numpy(), pairs.genuine.cpu().numpy()) if calibration is None else calibration
        return {
            str(p): threshold_at_eer(scores, genuine) if p == EER else threshold_at_fmr(scores, genuine, float(p))
            for p in self.operating_points
        }

    def _settings(self, explained: str) -> dict[str, Any]:
        return {
            "models": list(self.models),
            "explained": explained,
            "fractions": self.fractions,
            "operating_points": self.operating_points,
            "fill": self.fill.name,
            "occluded": self.occluded,
            "controls": self.controls,
            "seed": self.seed,
        }


def _score_table(pairs: Pairs, cells: list[tuple[Any, ...]], scores: list[NDArray[np.float64]]) -> pd.DataFrame:
    """Return a row for each pair in each cell: a model, kind, method, protocol and fraction."""
    heads = pd.DataFrame(cells, columns=["model", "kind", "method", "protocol", "fraction"])
    table = heads.loc[heads.index.repeat(len(pairs))].reset_index(drop=True)
    table.insert(0, "pair", np.tile(np.arange(len(pairs)), len(cells)))
    table.insert(1, "genuine", np.tile(pairs.genuine.cpu().numpy(), len(cells)))
    return table.assign(score=np.concatenate(scores))


def _constant(sides: list[Tensor], value: bool) -> Tensor:
    x = sides[0]
    return torch.full((len(x), len(sides), *x.shape[2:]), value, dtype=torch.bool, device=x.device)


def _per_side(method: str, maps: Tensor, sides: list[Tensor]) -> list[Tensor]:
    stacked = as_tensor(maps)
    split = stacked.unbind(1) if stacked.ndim == 4 and stacked.shape[1] == len(sides) else (stacked,)
    placed = [as_maps(m).to(sides[0].device) for m in split]
    shape = (len(sides[0]), *sides[0].shape[2:])
    if len(placed) != len(sides) or any(m.shape != shape for m in placed):
        both = f"({shape[0]}, 2, {shape[1]}, {shape[2]}), probe first" if len(sides) == 2 else str(shape)
        raise CaptumLeamError(
            f"Expected maps {method!r} to have one map per pair at image size, {both}, got {tuple(stacked.shape)}."
        )
    return placed


def _people(pairs: Pairs, labels: Sequence[Any] | None, images: int) -> NDArray[Any] | None:
    if labels is None:
        return None
    people = np.array([str(p) for p in people_of(labels, images)])
    return np.stack([people[pairs.first.cpu()], people[pairs.second.cpu()]], 1)


# -- the result ------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class VerificationResult:
    """Result of :class:`VerificationEvaluator`: scores of pairs with pixels deleted or inserted.

    :meth:`curves` returns the shares of right decisions at each fraction, :meth:`summary` their areas, and :meth:`plot` draws them.

    Attributes:
        scores: Table with one row per score, and the columns

            * ``pair``: Index of the pair.
            * ``genuine``: Whether both images show one person.
            * ``model``: Model that returned the score.
            * ``kind``: ``"similar"`` or ``"dissimilar"``, the kind of the map.
            * ``method``: Method of the map, or name of the control.
            * ``protocol``: ``"deletion"`` or ``"insertion"``.
            * ``fraction``: Share of the pixels that was deleted or inserted.
            * ``score``: Cosine of the two embeddings.
            * ``explained``: Model that the maps explain, ``""`` if not named.
        thresholds: Threshold of the cosine by model and then by operating point, nested dictionaries.
        people: Both people of each of the P pairs, shape (P, 2); None without labels.
        settings: Settings of the evaluator by name.

    Example:
        >>> from captum_leam.stats.decisions import draw_pairs
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> evaluator = VerificationEvaluator(model, fractions=(0, 1), protocols=("deletion",), controls=())
        >>> pairs = draw_pairs(["ann", "ann", "bob", "bob"])
        >>> result = evaluator.evaluate(torch.rand(4, 3, 8, 8), pairs, {"noise": torch.rand(4, 8, 8)})
        >>> result.curves()["fraction"].tolist(), len(result.to_frame())
        ([0, 1], 8)
    """

    scores: pd.DataFrame
    thresholds: Mapping[str, Mapping[str, float]]
    people: NDArray[Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the scores.

        Returns:
            Table with one row per score, and the columns of :attr:`scores`.

        Example:
            >>> from captum_leam.stats.decisions import draw_pairs
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> evaluator = VerificationEvaluator(model, fractions=(0, 1), protocols=("deletion",), controls=())
            >>> pairs = draw_pairs(["ann", "ann", "bob", "bob"])
            >>> result = evaluator.evaluate(torch.rand(4, 3, 8, 8), pairs, {"noise": torch.rand(4, 8, 8)})
            >>> result.to_frame()[["pair", "genuine", "method", "fraction"]].head(3)
               pair  genuine method  fraction
            0     0     True  noise         0
            1     1     True  noise         0
            2     2    False  noise         0
        """
        return self.scores.copy()

    def curves(self) -> pd.DataFrame:
        """Return the shares of right decisions at each fraction of the pixels.

        Returns:
            Table with one row per curve and fraction, and the columns

            * ``explained``, ``model``, ``kind``, ``method``, ``protocol``, ``fraction``: As in :attr:`scores`.
            * ``operating_point``, ``threshold``: Name and cosine of the threshold.
            * ``gar``: Genuine accept rate, in [0, 1].
            * ``irr``: Impostor reject rate, in [0, 1].
            * ``accuracy``: Balanced accuracy, the mean of both.

        Example:
            >>> from captum_leam.stats.decisions import draw_pairs
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> evaluator = VerificationEvaluator(model, fractions=(0, 1), protocols=("deletion",), controls=())
            >>> pairs = draw_pairs(["ann", "ann", "bob", "bob"])
            >>> result = evaluator.evaluate(torch.rand(4, 3, 8, 8), pairs, {"noise": torch.rand(4, 8, 8)})
            >>> result.curves()[["method", "protocol", "fraction", "operating_point"]]
              method  protocol  fraction operating_point
            0  noise  deletion         0             eer
            1  noise  deletion         1             eer
        """
        rows = []
        keys = ["explained", "model", "kind", "method", "protocol", "fraction"]
        for key, cell in self.scores.groupby(keys, sort=False):
            place = dict(zip(keys, key, strict=True))
            scores, genuine = cell["score"].to_numpy(), cell["genuine"].to_numpy()
            for point, threshold in self.thresholds[str(place["model"])].items():
                rates = dict(zip(RATES, decision_rates(scores >= threshold, genuine), strict=True))
                rows.append({**place, "operating_point": point, "threshold": threshold, **rates})
        return pd.DataFrame(rows)

    def summary(self, *, confidence: float = 0.95) -> pd.DataFrame:
        """Return the area under each curve, and which direction is better.

        Maps of what makes a pair similar are scored by the genuine accept rate, and maps of what makes it dissimilar by the impostor
        reject rate.

        Args:
            confidence: Confidence level of the interval over people, in (0, 1). Default: 0.95.

        Returns:
            Table with one row per curve, and the columns

            * ``explained``, ``model``, ``kind``, ``method``, ``protocol``, ``operating_point``: The curve.
            * ``auc_gar``, ``auc_irr``, ``auc_accuracy``: Areas under the three rates, in [0, 1].
            * ``scored by``: ``"gar"`` for similar and ``"irr"`` for dissimilar maps.
            * ``auc``: Area under that rate.
            * ``low``, ``high``: Ends of the interval of ``auc`` over people, for a fixed threshold; NaN without labels.
            * ``better``: ``"lower"`` for deletion and ``"higher"`` for insertion.

        Example:
            >>> from captum_leam.stats.decisions import draw_pairs
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> evaluator = VerificationEvaluator(model, fractions=(0, 0.5, 1), controls=())
            >>> pairs = draw_pairs(["ann", "ann", "bob", "bob"])
            >>> result = evaluator.evaluate(torch.rand(4, 3, 8, 8), pairs, {"noise": torch.rand(4, 8, 8)})
            >>> result.summary()[["method", "protocol", "scored by", "better"]]
              method   protocol scored by  better
            0  noise   deletion       gar   lower
            1  noise  insertion       gar  higher
        """
        rows = []
        for key, curve in self.curves().groupby(CURVE, sort=False):
            place = dict(zip(CURVE, map(str, key), strict=True))
            areas = {f"auc_{rate}": area_under(curve["fraction"], curve[rate]) for rate in RATES}
            scored = SCORED_BY[place["kind"]]
            low, high = self._interval(place, curve["threshold"].iloc[0], confidence)
            better = "lower" if place["protocol"] == "deletion" else "higher"
            own = {"auc": areas[f"auc_{scored}"], "low": low, "high": high}
            rows.append({**place, **areas, "scored by": scored, **own, "better": better})
        return pd.DataFrame(rows)

    def _interval(self, place: Mapping[str, str], threshold: float, confidence: float) -> tuple[float, float]:
        """Return the interval of the scored area, which is the mean of the areas of the scored pairs."""
        if self.people is None:
            return float("nan"), float("nan")
        rows = self.scores
        for column in ("explained", "model", "kind", "method", "protocol"):
            rows = rows[rows[column] == place[column]]
        wide = rows.pivot_table(index="pair", columns="fraction", values="score")
        genuine = rows.groupby("pair")["genuine"].first().to_numpy()
        scored = genuine if place["kind"] == "similar" else ~genuine
        hit = (wide.to_numpy()[scored] >= threshold) == (place["kind"] == "similar")
        areas = [area_under(wide.columns, row) for row in hit]
        return interval_of_pairs(areas, self.people[scored], confidence=confidence)

    def plot(self, **options: Any) -> Figure:
        """Plot genuine accept rate, impostor reject rate and balanced accuracy against the share of pixels.

        Args:
            **options: ``kind``, ``protocol``, ``model`` and ``operating_point``, which select the curves. Default: deletion by similar
                maps, on the first model and operating point. See :func:`captum_leam.plots.verification_curves`.

        Returns:
            Figure with three axes. It is not shown: call ``figure.savefig(path)``, or let a notebook display it.

        Example:
            >>> from captum_leam.stats.decisions import draw_pairs
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> evaluator = VerificationEvaluator(model, fractions=(0, 0.5, 1))
            >>> pairs = draw_pairs(["ann", "ann", "bob", "bob"])
            >>> result = evaluator.evaluate(torch.rand(4, 3, 8, 8), pairs, {"noise": torch.rand(4, 8, 8)})
            >>> result.plot(protocol="insertion").axes[0].get_xlabel()
            'pixels put back, similar first, %'
        """
        from captum_leam.plots import verification_curves

        figure: Figure = verification_curves(self, **options)
        return figure

    def __repr__(self) -> str:
        table = self.summary().drop(columns=["explained"])
        pairs = self.scores.groupby("pair")["genuine"].first()
        counts = f"{int(pairs.sum())} genuine and {int((~pairs).sum())} impostor pairs"
        return f"Verification of {counts}\n{table.round(3).to_string(index=False)}"
