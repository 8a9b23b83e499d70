"""Stage three: signatures of all shards compared: person patterns and their controls, agreement of models and layers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from captum_leam._storage import Shard, read_shard
from captum_leam.maps import gaussian_blur
from captum_leam.patterns import (
    Signatures,
    agreement,
    closest_strangers,
    pattern_claim,
    person_specificity,
    pose_features,
    profile_signatures,
)
from captum_leam.patterns.claim import STRANGERS
from captum_leam.patterns.signatures import Kind
from captum_leam.reporting.tables import OVERALL
from captum_leam.study.evaluating import describe_maps
from captum_leam.study.worker import Worker

KINDS: tuple[Kind, ...] = ("top", "dense", "regions")
NEAREST = 8
"""Strangers remembered for every image: the nearest that is in a comparison, too, counts."""


@dataclass(frozen=True)
class Source:
    """The shards of the same people, by what is in them.

    Attributes:
        crops: of the pictures.
        maps: of each network, None where it is not explained.
        untrained: of each network's twin.
        controls: of edges.
    """

    crops: Path
    maps: tuple[Path | None, ...]
    untrained: tuple[Path | None, ...] = ()
    controls: Path | None = None


@dataclass(frozen=True)
class Rows:
    """Signature arrays of one set of maps over all shards.

    Attributes:
        image: (N,), place of the image among all crops of the study, growing.
        people: whose they are.
        arrays: name → (N, ...).
    """

    image: NDArray[np.int64]
    people: NDArray[Any]
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)

    def of(self, image: NDArray[np.int64]) -> "Rows":
        """Return the rows of some of the images, all of which must be there."""
        at = np.searchsorted(self.image, image)
        return Rows(self.image[at], self.people[at], {name: values[at] for name, values in self.arrays.items()})


def signed(rows: Rows, kind: Kind, worker: Worker) -> Signatures:
    """Signatures from arrays: of the top pixels, of the coarse map, or of the regions."""
    patterns, size = worker.config.patterns, worker.config.pictures.size
    if kind == "dense":
        return Signatures.from_arrays({"values": rows.arrays["dense"]}, kind, {"grid": patterns.grid})
    if kind == "regions":
        return profile_signatures(rows.arrays["mass"], worker.regions, empty="zero")
    roots = rows.arrays["top_roots"]
    starts = np.arange(len(roots) + 1, dtype=np.int64) * roots.shape[1]
    columns = rows.arrays["top_pixels"].astype(np.int32).reshape(-1)
    table = sparse.csr_array((roots.reshape(-1), columns, starts), shape=(len(roots), size * size))
    table.eliminate_zeros()  # a map with fewer positive pixels
    table.sort_indices()
    settings = {"fraction": patterns.fraction, "size": size}
    return Signatures.from_arrays(Signatures(table, kind).to_arrays(np.float32), kind, settings)


def read_rows(sources: Sequence[Source], role: str, number: int, layer: int, names: Sequence[str]) -> Rows:
    """Arrays of one set of maps, shard after shard; only maps that show anything.

    Args:
        sources: all of the study.
        role: maps, untrained or controls.
        number: of the network.
        layer: 0 the overall map, then the layers.
        names: of the arrays.
    """
    images, people, found = [], [], {name: [] for name in names}  # type: ignore[var-annotated]
    offset = 0
    for source in sources:
        whose, rows, arrays = _read(source, role, number, layer, names)
        images.append(offset + rows)
        people.append(np.array(whose, dtype=object)[rows] if len(whose) else np.zeros(0, dtype=object))
        for name in names if arrays else ():
            found[name].append(arrays[name])
        offset += len(whose)
    joined = {name: np.concatenate(parts) if parts else np.zeros((0, 1)) for name, parts in found.items()}
    return Rows(np.concatenate(images), np.concatenate(people), joined)


def _read(
    source: Source, role: str, number: int, layer: int, names: Sequence[str]
) -> tuple[list[str], NDArray[np.int64], dict[str, NDArray[Any]]]:
    whose: list[str] = read_shard(source.crops).notes["people"]
    paths = {"maps": source.maps, "untrained": source.untrained}
    path = source.controls if role == "controls" else paths[role][number]
    if path is None:
        return whose, np.zeros(0, np.int64), {}
    shard = read_shard(path)
    rows = shard["rows"].astype(np.int64)
    if not len(rows):
        return whose, rows, {}
    shown = shard["shown"][:, layer] if role != "controls" else np.ones(len(rows), dtype=bool)
    return whose, rows[shown], {name: shard[name][shown, layer] for name in names}


# -- strangers who look alike --------------------------------------------------------------------------


def strangers_shard(sources: Sequence[Source]) -> Shard:
    """For every crop of the study the nearest of other people: by landmarks where all have them, else by small grey crops."""
    people: list[str] = []
    landmarks, thumbnails = [], []
    for source in sources:
        shard = read_shard(source.crops)
        people += shard.notes["people"]
        landmarks.append(shard["landmarks"])
        thumbnails.append(shard["thumbnails"])
    points, small = np.concatenate(landmarks), np.concatenate(thumbnails)
    by = "landmarks" if len(points) and np.isfinite(points).all() else "crops"
    fewest = len(people) - max(Counter(people).values(), default=0)
    if fewest < 1:
        return Shard({"nearest": np.zeros((len(people), 0), np.int64)}, {"by": by})
    features = pose_features(points) if by == "landmarks" else small
    return Shard({"nearest": closest_strangers(features, people, min(NEAREST, fewest))}, {"by": by})


def with_strangers(image: NDArray[np.int64], nearest: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images that have one of their nearest strangers among them, and the place of that one.

    Example:
        >>> near = np.array([[2, 1], [2, 0], [0, 1], [0, 1]])
        >>> [found.tolist() for found in with_strangers(np.array([0, 1, 3]), near)]
        [[0, 1, 3], [1, 0, 0]]
    """
    while len(image):
        inside = np.isin(nearest[image], image)
        good = inside.any(1)
        if good.all():
            first = nearest[image, inside.argmax(1)]
            return image, np.searchsorted(image, first)
        image = image[good]
    return image, image


# -- patterns ------------------------------------------------------------------------------------------

ARRAYS = {"top": ("top_roots", "top_pixels"), "dense": ("dense",), "regions": ("mass",)}


def patterns_shard(worker: Worker, number: int, layer: int, sources: Sequence[Source], strangers: Path | None) -> Shard:
    """Rows of the table of patterns, of one network and layer: LEAM, and the controls on the same images.

    Of the overall map all kinds are compared with all controls; of a layer the top pixels, with those that are made for it.
    """
    network = worker.networks[number]
    name = OVERALL if layer == 0 else network.layers[layer - 1].name
    nearest = None if strangers is None else read_shard(strangers)["nearest"]
    rows: list[dict[str, Any]] = []
    for kind in KINDS if layer == 0 else KINDS[:1]:
        sets = _sets(worker, number, layer, sources, kind)
        rows += _compared(worker, sets, kind, nearest)
    return Shard({}, {"rows": [{"model": network.name, "layer": name, **_without_nan(row)} for row in rows]})


def _sets(worker: Worker, number: int, layer: int, sources: Sequence[Source], kind: Kind) -> dict[str, Rows]:
    """Return the maps and their controls, on the images that have them all."""
    controls, names = worker.config.patterns.controls, ARRAYS[kind]
    sets = {"": read_rows(sources, "maps", number, layer, names)}
    if "edges" in controls:
        sets["edges"] = read_rows(sources, "controls", number, 0, names)
    if "untrained" in controls:
        sets["untrained"] = read_rows(sources, "untrained", number, layer, names)
    if "parser" in controls and layer == 0:
        sets["parser"] = _painted(worker, number, sources, names)
    image = sets[""].image
    for control, rows in list(sets.items()):
        if len(rows.image) == 0 and control:
            del sets[control]  # a twin that shows nothing anywhere is no control
        else:
            image = np.intersect1d(image, rows.image, assume_unique=True)
    return {control: rows.of(image) for control, rows in sets.items()}


def _painted(worker: Worker, number: int, sources: Sequence[Source], names: Sequence[str]) -> Rows:
    """Return maps painted from a parser's regions alone: each as high as the maps are there on average, smoothed."""
    mass, area = np.zeros(len(worker.regions)), np.zeros(len(worker.regions))
    for source in sources:
        if (path := source.maps[number]) is not None and len((shard := read_shard(path))["rows"]):
            mass += shard["mass"][:, 0].sum(0, dtype=np.float64)
            area += shard["area"].sum(0, dtype=np.float64)
    heights = torch.from_numpy(np.divide(mass, area, out=np.zeros_like(mass), where=area > 0)).float()
    size = worker.config.pictures.size
    people: list[str] = []
    parts: dict[str, list[NDArray[Any]]] = {name: [np.zeros((0, 1))] for name in names}
    for labels, people_of_shard in _labels(sources):
        painted = _paint(labels, heights, worker.regions, 2 * size / 112)
        described = describe_maps(worker, painted[:, None], labels)
        for name in names:  # one label map for all has one painted map
            values = described[name][:, 0]
            parts[name].append(np.broadcast_to(values, (len(people_of_shard), *values.shape[1:])))
        people += people_of_shard
    joined = {name: np.concatenate(values[1:] or values) for name, values in parts.items()}
    return Rows(np.arange(len(people)), np.array(people, dtype=object), joined)


def _labels(sources: Sequence[Source]) -> Iterator[tuple[torch.Tensor, list[str]]]:
    for source in sources:
        shard = read_shard(source.crops)
        if len(shard["kept"]):
            yield torch.from_numpy(shard["labels"]), shard.notes["people"]


def _paint(labels: torch.Tensor, heights: torch.Tensor, regions: Sequence[int], sigma: float) -> torch.Tensor:
    table = torch.zeros(256, device="cpu", dtype=torch.float32)
    table[list(regions)] = heights
    painted = gaussian_blur(table[labels.long()], sigma)
    return painted / painted.sum((1, 2), keepdim=True).clamp(min=torch.finfo(painted.dtype).tiny)


def _compared(
    worker: Worker, sets: Mapping[str, Rows], kind: Kind, nearest: NDArray[np.int64] | None
) -> list[dict[str, Any]]:
    config = worker.config
    image, where = sets[""].image, None
    if nearest is not None and nearest.shape[1]:
        image, where = with_strangers(image, nearest)
    sets = {name: rows.of(image) for name, rows in sets.items()}
    people = sets[""].people.tolist()
    fraction = config.patterns.fraction if kind == "top" else 1.0
    head = {"kind": kind, "fraction": fraction, "images": len(people), "people": len(set(people))}
    if len(set(people)) < 2 or len(set(people)) == len(people):
        return []
    made = {name: signed(rows, kind, worker) for name, rows in sets.items()}
    options = {"confidence": config.confidence, "resamples": config.patterns.resamples, "seed": config.seed}
    permutations = config.patterns.permutations
    found = person_specificity(made[""], people, permutations=permutations, **options)  # type: ignore[arg-type]
    leam = {**head, "control": "", **_quantities(found), "p": found.p_value}
    controls = {name: one for name, one in made.items() if name}
    if not controls and where is None:
        return [leam]
    claim = pattern_claim(made[""], people, controls, strangers=where, **options)  # type: ignore[arg-type]
    of = {str(name): row for name, row in claim.table.set_index("name").iterrows()}
    leam |= {"strongest": claim.strongest, "above_control": claim.headline}
    leam |= {"above_low": claim.low, "above_high": claim.high}
    rows = [leam]
    for name in [*controls, *([STRANGERS] if where is not None else [])]:
        row = {**head, "control": name, **{q: float(of[name][q]) for q in ("same", "different", "gap")}}
        row |= {"gap_low": float(of[name]["low"]), "gap_high": float(of[name]["high"])}
        if name in controls:
            row |= _quantities(person_specificity(made[name], people, permutations=0, **options))  # type: ignore[arg-type]
        rows.append(row)
    return rows


def _quantities(found: Any) -> dict[str, float]:
    told: dict[str, float] = {}
    for row in found.table.itertuples():
        told |= {
            row.quantity: float(row.value),
            f"{row.quantity}_low": float(row.low),
            f"{row.quantity}_high": float(row.high),
        }
    return told


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}


# -- agreement -----------------------------------------------------------------------------------------


def agreement_shard(worker: Worker, what: str, number: int, sources: Sequence[Source]) -> Shard:
    """Rows of the table of agreement: of the overall maps of all models, or of the maps of the layers of one."""
    explained = [i for i, network in enumerate(worker.networks) if network.layers]
    rows: list[dict[str, Any]] = []
    for kind, called in (("dense", "maps"), ("regions", "regions")):
        names = ARRAYS[kind]
        if what == "models":
            sets = {worker.networks[i].name: read_rows(sources, "maps", i, 0, names) for i in explained}
        else:
            layers = worker.networks[number].layers
            sets = {layer.name: read_rows(sources, "maps", number, 1 + i, names) for i, layer in enumerate(layers)}
        context = {"model": "" if what == "models" else worker.networks[number].name}
        context["layer"] = OVERALL if what == "models" else ""
        found = _agreed(worker, sets, kind)  # type: ignore[arg-type]
        rows += [{"what": what, "kind": called, **context, **row} for row in found]
    return Shard({}, {"rows": rows})


def _agreed(worker: Worker, sets: Mapping[str, Rows], kind: Kind) -> list[dict[str, Any]]:
    image = next(iter(sets.values())).image if sets else np.zeros(0, np.int64)
    for rows in sets.values():
        image = np.intersect1d(image, rows.image, assume_unique=True)
    common = {name: rows.of(image) for name, rows in sets.items()}
    people = next(iter(common.values())).people.tolist() if common else []
    if len(common) < 2 or len(set(people)) < 2:
        return []
    config = worker.config
    made = {name: signed(rows, kind, worker) for name, rows in common.items()}
    options = {"confidence": config.confidence, "resamples": config.patterns.resamples, "seed": config.seed}
    table = agreement(made, people, **options).table  # type: ignore[arg-type]
    renamed = table.rename(columns={"first": "a", "second": "b", "agreement": "value"})
    columns = ["a", "b", "value", "low", "high", "chance"]
    return [_without_nan(row) for row in renamed[columns].to_dict("records")]  # type: ignore[arg-type]
