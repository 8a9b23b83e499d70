"""What maps are measured by, as tidy tables. Every number has its 95 % interval by a bootstrap over people.

Tables have the columns of :data:`COLUMNS`; a measure that needs no view, fill or fraction leaves them empty.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from contest import CHOSEN, CONTROLS, SAME_ARCHITECTURE, SEED, TRANSFER
from planted_evidence import dilate
from research_data import relation
from torch import Tensor, nn

from captum_leam import bhattacharyya, top_fraction
from captum_leam.faithfulness.fills import as_fill
from captum_leam.maps import normalize_sum, rank_pixels
from captum_leam.objectives import embed
from captum_leam.stats.decisions import Pairs
from captum_leam.stats.inference import bootstrap_interval, by_person
from captum_leam.verification import VerificationEvaluator

COLUMNS = ["faces", "network", "method", "measure", "where", "view", "fill", "fraction", "value", "low", "high"]
COLUMNS += ["images", "in_gaps"]
CONTROL = "control: "
ALL = "all networks"
AT_ONCE = 8  # images in one pass: more fall out of the caches of a core
CELL = 8  # pixels by which planted parts are dilated: one cell of the coarsest layer

Table = list[dict[str, object]]
Cells = Sequence[tuple[str, float]]  # fill and fraction


def row(network: str, method: str, measure: str, value: float, **more: object) -> dict[str, object]:
    return {"network": network, "method": method, "measure": measure, "value": value, **more}


def means(
    network: str, method: str, measure: str, values: Sequence[float], people: Sequence[str], **more: object
) -> dict[str, object]:
    """Return the row of a mean over images, with its interval over people."""
    low, high = (float(v) for v in bootstrap_interval(values, people))
    return row(network, method, measure, float(np.mean(values)), low=low, high=high, images=len(values), **more)


# -- networks ------------------------------------------------------------------------------------------


def next_of_another_architecture(networks: Mapping[str, nn.Module], explained: str) -> list[str]:
    """Return the network after this one whose architecture is another, in the order of the zoo and around; none if there is none."""
    names = list(networks)
    start = names.index(explained)
    around = names[start + 1 :] + names[:start]
    return [n for n in around if relation(networks, explained, n) == TRANSFER][:1]


# -- occlusion -----------------------------------------------------------------------------------------


@dataclass
class Occlusion:
    """Drops of many maps of the same images on several networks; what masks have in common is measured once.

    The ranking, the fills and the drop are those of :class:`~captum_leam.faithfulness.OcclusionEvaluator`.

    Attributes:
        networks: Name to network.
        images: (N, C, H, W).
        references: Name of the network to unit references (N, D).
    """

    networks: Mapping[str, nn.Module]
    images: Tensor
    references: Mapping[str, Tensor]
    before: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        each = torch.arange(len(self.images))
        self.before = {name: self._cosines(name, self.images, each) for name in self.networks}

    def _cosines(self, name: str, images: Tensor, rows: Tensor) -> Tensor:
        found = F.normalize(embed(self.networks[name], images, AT_ONCE).double(), dim=1)
        return (found * F.normalize(self.references[name].double(), dim=1)[rows]).sum(1)

    def drops(self, maps: Mapping[Hashable, Tensor], cells: Mapping[Hashable, Cells]) -> pd.DataFrame:
        """Return one row per map, cell, image and network.

        Args:
            maps: Key to maps (n, H, W) of the first n images.
            cells: Key to the fills and fractions to measure.

        Returns:
            Columns key, fill, fraction, image, measured (the network), drop.
        """
        kinds: dict[tuple[int, str, bytes], int] = {}
        masks: list[Tensor] = []
        rows = []
        for key, of_key in maps.items():
            ranks = rank_pixels(of_key, seed=SEED)
            for fill, fraction in cells[key]:
                top = ranks < max(1, round(fraction * ranks[0].numel()))
                for i, mask in enumerate(top):
                    number = kinds.setdefault((i, fill, mask.numpy().tobytes()), len(masks))
                    if number == len(masks):
                        masks.append(mask)
                    rows.append((key, fill, fraction, i, number))
        table = pd.DataFrame(rows, columns=["key", "fill", "fraction", "image", "number"])
        measured = self._measured([(i, fill) for i, fill, _ in kinds], masks)
        each = [table.assign(measured=name, drop=drop[table["number"]]) for name, drop in measured.items()]
        return pd.concat(each, ignore_index=True).drop(columns="number")

    def _measured(self, kinds: Sequence[tuple[int, str]], masks: Sequence[Tensor]) -> dict[str, np.ndarray]:
        fills = {fill: as_fill(fill) for _, fill in kinds}
        static = {name: fill(self.images) for name, fill in fills.items() if not fill.uses_masks}
        occluded = []
        for (i, name), mask in zip(kinds, masks, strict=True):
            image = self.images[i : i + 1]
            filled = static[name][i] if name in static else fills[name](image, mask[None])[0]
            occluded.append(torch.where(mask, filled, image[0]))
        rows, changed = (
            torch.tensor([i for i, _ in kinds]),
            torch.stack(occluded).contiguous(memory_format=torch.channels_last),
        )
        return {name: (self.before[name][rows] - self._cosines(name, changed, rows)).numpy() for name in self.networks}


# -- faithfulness --------------------------------------------------------------------------------------


CELLS = ["faces", "where", "view", "fill", "fraction"]


def averaged(of_images: pd.DataFrame) -> pd.DataFrame:
    """Return drops averaged over the networks that measured them, then over the networks explained, in gaps (``drop`` and ``in_gaps``).

    The rows of one network come first, those of all networks, named :data:`ALL`, after them.
    """
    keys = [*CELLS, "method", "image", "person"]
    counted = of_images[of_images["where"] != SAME_ARCHITECTURE]
    of_network = of_images.groupby(["network", *keys], sort=False)[["drop", "in_gaps"]].mean().reset_index()
    several = counted.groupby(["network", *keys], sort=False)[["in_gaps"]].mean().groupby(keys, sort=False)["in_gaps"]
    found = several.agg(["mean", "size"]).reset_index()
    full = found["size"] == counted["network"].nunique()  # a method that does not run on a network has no average
    everywhere = found[full].rename(columns={"mean": "in_gaps"}).drop(columns="size")
    return pd.concat([of_network, everywhere.assign(network=ALL, drop=everywhere["in_gaps"])], ignore_index=True)


def faithfulness(of_images: pd.DataFrame) -> Table:
    """Return mean drops with intervals, of every network and of all (those in gaps), from :func:`averaged`."""
    found: Table = []
    for cell, part in of_images.groupby(["network", "method", *CELLS], sort=False):
        network, method, *place = cell
        entry = means(network, method, "drop", part["drop"].to_numpy(), part["person"].tolist())
        found.append({**entry, **dict(zip(CELLS, place, strict=True)), "in_gaps": part["in_gaps"].mean()})
    return found


def leads(of_images: pd.DataFrame, presets: Sequence[str]) -> pd.DataFrame:
    """Return by how much each preset is ahead of every other method, image by image, with intervals over people.

    Args:
        of_images: From :func:`averaged`.
        presets: Names of methods.

    Returns:
        Columns network, faces, where, view, fill, fraction, preset, method, ahead, low, high, images; in gaps.
    """
    found = []
    for cell, part in of_images.groupby(["network", *CELLS], sort=False):
        place = dict(zip(["network", *CELLS], cell, strict=True))
        by_method = {method: rows.set_index("image") for method, rows in part.groupby("method", sort=False)}
        for preset in (p for p in presets if p in by_method):
            for method, rows in by_method.items():
                behind = (by_method[preset]["in_gaps"].reindex(rows.index) - rows["in_gaps"]).dropna()
                if method == preset or behind.empty:
                    continue
                low, high = bootstrap_interval(behind.to_numpy(), rows.loc[behind.index, "person"].tolist())
                entry = {"ahead": behind.mean(), "low": float(low), "high": float(high), "images": len(behind)}
                found.append({**place, "preset": preset, "method": method, **entry})
    return pd.DataFrame(found)


def shares_of_limit(of_images: pd.DataFrame, limit: str) -> Table:
    """Return the mean drop over that of the limit on the same images: blur, each map in its chosen reading, own and transfer."""
    wanted = of_images[(of_images["fill"] == "blur") & (of_images["view"] == CHOSEN) & (of_images["network"] != ALL)]
    found: Table = []
    for cell, table in wanted.groupby(["network", "faces", "where", "fraction"], sort=False):
        place = dict(zip(["faces", "where", "fraction"], cell[1:], strict=True))
        reached = table[table["method"] == limit].set_index("image")["drop"]
        for method, part in table.groupby("method", sort=False):
            both = part[part["image"].isin(reached.index)]
            if both.empty:
                continue
            pair = np.stack([both["drop"].to_numpy(), reached.loc[both["image"]].to_numpy()], 1)
            low, high = ratio_interval(pair, both["person"].tolist())
            value = pair[:, 0].mean() / pair[:, 1].mean()
            more = {**place, "view": CHOSEN, "fill": "blur", "images": len(both)}
            found.append(row(str(cell[0]), str(method), "share of the limit", value, low=low, high=high, **more))
    return found


def drawn_people(people: int, resamples: int = 1000) -> np.ndarray:
    """How often each of the people is drawn, (resamples, people); seed 0."""
    return np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), resamples)


def ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.025, 0.975]) if np.isfinite(values).any() else (np.nan, np.nan)
    return float(low), float(high)


def ratio_interval(pairs: np.ndarray, people: Sequence[str]) -> tuple[float, float]:
    """Return a bootstrap interval of the ratio of two means, with people drawn together with all their images."""
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
    """Return the area under the genuine accept rate of similar maps, or the impostor reject rate of dissimilar ones.

    Args:
        network: Name of the network.
        model: Network that decides.
        images: Images of the pairs, (N, 3, H, W).
        labels: Person of each image.
        pairs: Genuine pairs for similar maps, impostors for dissimilar ones, and one of the other kind, which is not scored.
        maps: Maps of the probes of these pairs.
        calibration: Scores and kinds of pairs, for the threshold at the equal error rate.
        dissimilar: Whether the maps show dissimilarity.
        fill: Fill of the changed pixels.
        fractions: Fractions of the pixels that are changed.
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
    """Return which maps (N, H, W) have a positive value, as booleans (N,); the others are left out and counted."""
    return (maps > 0).flatten(1).any(1)


def scores_of_all_pairs(embeddings: Tensor, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of every pair of images, and which pairs are genuine."""
    f = F.normalize(embeddings.double(), dim=1)
    first, second = np.triu_indices(len(f), 1)
    who = np.asarray(labels)
    return (f[first] * f[second]).sum(1).numpy(), who[first] == who[second]
