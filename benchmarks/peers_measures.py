"""What maps are measured by, as tidy tables. Every number has its 95 % interval by a bootstrap over people.

Tables have the columns of :data:`COLUMNS`; a measure that needs no fill, fraction or blur leaves them empty.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from planted_evidence import dilate
from torch import Tensor, nn

from captum_leam import bhattacharyya, top_fraction
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.maps import normalize_sum
from captum_leam.stats.decisions import Pairs
from captum_leam.stats.inference import bootstrap_interval, by_person
from captum_leam.verification import VerificationEvaluator

COLUMNS = ["network", "method", "measure", "where", "fill", "fraction", "smooth", "value", "low", "high", "images"]
FRACTIONS = (0.05, 0.2)
FILLS = ("blur", "noisy linear")
SMOOTH = (0.0, 4.0)
CONTROLS = ("random pixels", "centre", "edges")
CONTROL = "control: "
AT_ONCE = 8  # images in one pass: more fall out of the caches of a core
CELL = 8  # pixels by which planted parts are dilated: one cell of the coarsest layer

Table = list[dict[str, object]]


def row(network: str, method: str, measure: str, value: float, **more: object) -> dict[str, object]:
    return {"network": network, "method": method, "measure": measure, "value": value, **more}


def means(
    network: str, method: str, measure: str, values: Sequence[float], people: Sequence[str], **more: object
) -> dict[str, object]:
    """The row of a mean over images, with its interval over people."""
    low, high = (float(v) for v in bootstrap_interval(values, people))
    return row(network, method, measure, float(np.mean(values)), low=low, high=high, images=len(values), **more)


# -- faithfulness --------------------------------------------------------------------------------------


def drops(
    networks: Mapping[str, nn.Module],
    images: Tensor,
    maps: Mapping[str, Tensor],
    references: Mapping[str, Tensor],
    people: Sequence[str],
    explained: str,
    *,
    fractions: tuple[float, ...] = FRACTIONS,
    smooths: tuple[float, ...] = SMOOTH,
    controls: tuple[str, ...] = CONTROLS,
) -> pd.DataFrame:
    """Drop of the cosine of every image: method, where, fill, fraction, smooth, image, person, drop."""
    tables = []
    for smooth in smooths:
        evaluator = OcclusionEvaluator(
            networks, fractions, fills=FILLS, controls=controls, smooth=smooth, batch_size=AT_ONCE
        )
        result = evaluator.evaluate(images, maps, references, people, explained=explained)
        tables.append(result.to_frame().assign(smooth=smooth))
    table = pd.concat(tables, ignore_index=True)
    named = table["method"].where(table["method"] != "", CONTROL + table["control"])
    where = np.where(table["model"] == explained, "own", "transfer")
    kept = table[["fill", "fraction", "smooth", "image", "person", "drop"]]
    return kept.assign(network=explained, method=named, where=where)


def faithfulness(of_images: pd.DataFrame, baseline: str) -> Table:
    """Mean drops, and for each the mean difference of a baseline method to it, image by image."""
    keys = ["network", "where", "fill", "fraction", "smooth"]
    found: Table = []
    for cell, table in of_images.groupby(keys, sort=False):
        place = dict(zip(keys, cell, strict=True))
        network = str(place.pop("network"))
        ours = table[table["method"] == baseline].set_index("image")["drop"]
        for method, part in table.groupby("method", sort=False):
            entry = means(network, str(method), "drop", part["drop"].to_numpy(), part["person"].tolist(), **place)
            behind = ours.loc[part["image"]].to_numpy() - part["drop"].to_numpy()
            low, high = bootstrap_interval(behind, part["person"].tolist())
            found.append({**entry, "ahead": behind.mean(), "ahead_low": float(low), "ahead_high": float(high)})
    return found


def shares_of_limit(of_images: pd.DataFrame, limit: str) -> Table:
    """Mean drop over that of the limit on the same images: blur, own network, maps as they are."""
    own = of_images[(of_images["where"] == "own") & (of_images["fill"] == "blur") & (of_images["smooth"] == 0)]
    found: Table = []
    for (network, fraction), table in own.groupby(["network", "fraction"], sort=False):
        reached = table[table["method"] == limit].set_index("image")["drop"]
        for method, part in table.groupby("method", sort=False):
            both = part[part["image"].isin(reached.index)]
            if both.empty:
                continue
            pair = np.stack([both["drop"].to_numpy(), reached.loc[both["image"]].to_numpy()], 1)
            low, high = ratio_interval(pair, both["person"].tolist())
            value = pair[:, 0].mean() / pair[:, 1].mean()
            more = {"where": "own", "fill": "blur", "fraction": fraction, "smooth": 0.0, "images": len(both)}
            found.append(row(str(network), str(method), "share of the limit", value, low=low, high=high, **more))
    return found


def drawn_people(people: int, resamples: int = 1000) -> np.ndarray:
    """How often each of the people is drawn, (resamples, people); seed 0."""
    return np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), resamples)


def ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.025, 0.975]) if np.isfinite(values).any() else (np.nan, np.nan)
    return float(low), float(high)


def ratio_interval(pairs: np.ndarray, people: Sequence[str]) -> tuple[float, float]:
    """Of the ratio of two means, people drawn with all their images."""
    sums, _ = by_person(pairs, people)
    if len(sums) < 2:
        return np.nan, np.nan
    drawn = drawn_people(len(sums)) @ sums
    return ends(drawn[:, 0] / drawn[:, 1])


# -- person-specificity --------------------------------------------------------------------------------


def specificity(network: str, method: str, maps: Tensor, people: Sequence[str]) -> Table:
    """Bhattacharyya coefficients of top-1 % maps, and how well those of the top 10 % tell same from different people (AUC)."""
    pointing = has_positive(maps)
    maps, who = maps[pointing], np.asarray(people)[pointing.numpy()]
    if len(set(who)) < 2:
        return []
    first, second = np.triu_indices(len(who), 1)
    same = who[first] == who[second]
    names, number = np.unique(who, return_inverse=True)
    drawn = drawn_people(len(names)).astype(float)
    # a pair counts as often as both of its people together
    weights = np.where(same, drawn[:, number[first]], drawn[:, number[first]] * drawn[:, number[second]])
    if not same.any():
        return []
    at_1, at_10 = (bhattacharyya(maps, fraction=f).numpy()[first, second] for f in (0.01, 0.1))
    found: Table = []
    for name, chosen in (("BC same", same), ("BC different", ~same)):
        w = weights[:, chosen]
        with np.errstate(invalid="ignore"):
            low, high = ends(w @ at_1[chosen] / w.sum(1))
        found.append(row(network, method, name, at_1[chosen].mean(), low=low, high=high, images=len(who)))
    higher = at_10[same][:, None] > at_10[~same][None]
    wins = higher + 0.5 * (at_10[same][:, None] == at_10[~same][None])
    ws, wd = weights[:, same], weights[:, ~same]
    with np.errstate(invalid="ignore"):
        low, high = ends(((ws @ wins) * wd).sum(1) / (ws.sum(1) * wd.sum(1)))
    return [*found, row(network, method, "AUC", wins.mean(), low=low, high=high, images=len(who))]


# -- verification --------------------------------------------------------------------------------------


def partners(labels: Sequence[str], probes: Sequence[int], *, same: bool, seed: int = 0) -> list[int]:
    """For every probe another image of its person, no probe where there is one, or an image of another person; drawn."""
    generator = np.random.default_rng(seed)
    chosen = []
    for probe in probes:
        fits = [i for i, person in enumerate(labels) if (person == labels[probe]) == same and i != probe]
        unused = [i for i in fits if i not in probes]
        chosen.append(int(generator.choice(unused or fits)))
    return chosen


def verification(
    network: str,
    model: nn.Module,
    images: Tensor,
    labels: Sequence[str],
    pairs: Pairs,
    maps: Mapping[str, Tensor],
    calibration: tuple[np.ndarray, np.ndarray],
    *,
    dissimilar: bool,
    fill: str,
    fractions: Sequence[float],
) -> Table:
    """Area under the genuine accept rate of similar maps, or the impostor reject rate of dissimilar ones.

    Args:
        network: name.
        model: decides.
        images: of the pairs.
        labels: their people.
        pairs: genuine pairs for similar maps, impostors for dissimilar ones; and one of the other kind, which is not scored.
        maps: of the probes of these pairs.
        calibration: scores and kinds of pairs, for the threshold at the equal error rate.
        dissimilar: maps are of what is dissimilar.
        fill: what is put in place.
        fractions: of the pixels.
    """
    evaluator = VerificationEvaluator({network: model}, fractions, fill=fill, controls=CONTROLS, batch_size=AT_ONCE)
    given = (next(iter(maps.values())), maps) if dissimilar else (maps, None)
    result = evaluator.evaluate(images, pairs, *given, calibration={network: calibration}, labels=labels)
    summary = result.summary()
    summary = summary[summary["kind"] == ("dissimilar" if dissimilar else "similar")]
    count = int((pairs.genuine != dissimilar).sum())
    return [
        row(
            network,
            method if method in maps else CONTROL + method,
            protocol,
            auc,
            low=low,
            high=high,
            where="dissimilar" if dissimilar else "similar",
            fill=fill,
            images=count,
        )
        for method, protocol, auc, low, high in summary[["method", "protocol", "auc", "low", "high"]].itertuples(
            index=False
        )
    ]


# -- planted evidence ----------------------------------------------------------------------------------


def planted(network: str, method: str, maps: Tensor, parts: Tensor, people: Sequence[str]) -> Table:
    """Share of the positive mass, and of the top 1 % of the pixels, inside the planted parts dilated by a cell."""
    pointing = has_positive(maps)
    maps, people = maps[pointing], [p for p, kept in zip(people, pointing.tolist(), strict=True) if kept]
    if not people:
        return []
    inside = dilate(parts[pointing], CELL)
    critical = top_fraction(maps)
    share = (critical & inside).sum((1, 2)) / critical.sum((1, 2))
    mass = (normalize_sum(maps) * inside).sum((1, 2))
    return [
        means(network, method, "planted mass", mass.tolist(), people),
        means(network, method, "planted top 1 %", share.tolist(), people),
    ]


# -- small functions -----------------------------------------------------------------------------------


def has_positive(maps: Tensor) -> Tensor:
    """Which maps (N, H, W) say that anything speaks for the match: the others are left out, and the rest counted; boolean (N,)."""
    return (maps > 0).flatten(1).any(1)


class Remembered(nn.Module):
    """A network that looks up images it has embedded before without gradients: masked images of a probe with another partner.

    Only where time and passes are not measured.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: dict[int, Tensor] = {}
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings, looked up where they can be."""
        if torch.is_grad_enabled():
            return self.model(x)
        keys = [hash(image.numpy().tobytes()) for image in x.contiguous()]
        new = [i for i, key in enumerate(keys) if key not in self.seen]
        if new:
            self.seen |= dict(zip([keys[i] for i in new], self.model(x[new]), strict=True))
        return torch.stack([self.seen[key] for key in keys])


def scores_of_all_pairs(embeddings: Tensor, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of every pair of images, and which pairs are genuine."""
    f = F.normalize(embeddings.double(), dim=1)
    first, second = np.triu_indices(len(f), 1)
    who = np.asarray(labels)
    return (f[first] * f[second]).sum(1).numpy(), who[first] == who[second]
