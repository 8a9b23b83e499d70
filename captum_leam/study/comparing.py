"""Stage three: compare the signatures of all shards: person patterns beside controls, agreement of models and of layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from captum_leam._optional import pd
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
from captum_leam.patterns.baselines import ClosestStrangers
from captum_leam.patterns.claim import MAPS, STRANGERS, claim_table, mean_of_pairs
from captum_leam.patterns.map_agreement import agreement_row
from captum_leam.patterns.person_sums import PersonStream, PersonSums, sums_of_codes
from captum_leam.patterns.signatures import Kind
from captum_leam.patterns.specificity import permutation_p_value, renumbered, same_or_different, specificity_table
from captum_leam.reporting.schema import OVERALL
from captum_leam.stats.bootstrap import Floats
from captum_leam.stats.estimates import Estimate, MeanBetween, people_draws, row_products, weighted_mean
from captum_leam.stats.sampling import sample_images
from captum_leam.study.evaluating import describe_maps
from captum_leam.study.task import Index, Task
from captum_leam.study.worker import Worker

Arrays = dict[str, NDArray[Any]]

ARRAYS: dict[Kind, tuple[str, ...]] = {"top": ("top_roots", "top_pixels"), "dense": ("dense",), "regions": ("mass",)}
"""Kind of signatures → arrays of a shard that they are made from."""

NEAREST = 8
"""Strangers stored for every image; the nearest that is in a comparison, too, counts."""

PART = 4096
"""Images whose signatures are in memory at a time, where those of all are too many."""


# -- images and their people ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Owners:
    """Whose the crops of a study are, in the order of the shards.

    Attributes:
        names: Names of the people, each once.
        codes: Number of the person of each crop, shape (N,).
        starts: Place of the first crop of each shard, and last N.
    """

    names: list[str]
    codes: NDArray[np.int32]
    starts: NDArray[np.int64]

    def exceed(self, max_pairs: int) -> bool:
        """Return whether there are more pairs of images."""
        count = len(self.codes)
        return count * (count - 1) // 2 > max_pairs

    def parts(self) -> list[range]:
        """Return the shards in parts of about :data:`PART` images."""
        number = self.starts[:-1] // PART
        ends = [*np.flatnonzero(np.diff(number)) + 1, len(number)]
        return [range(first, last) for first, last in zip([0, *ends], ends, strict=False)]


def _owners(task: Task) -> Owners:
    """Return whose the crops are that a task reads."""
    numbers: dict[str, int] = {}
    codes, starts = [np.zeros(0, np.int32)], [0]
    for i in range(task.shards):
        people = read_shard(task.inputs["crops", Index(i)]).notes["people"]
        codes.append(np.array([numbers.setdefault(person, len(numbers)) for person in people], np.int32))
        starts.append(starts[-1] + len(people))
    return Owners(list(numbers), np.concatenate(codes), np.array(starts, np.int64))


@dataclass(frozen=True)
class SignatureSet:
    """Signatures of one set of maps over all shards.

    Attributes:
        images: Places (N,) of the images among all crops of the study, ascending.
        people: Numbers (N,) of their people.
        signatures: Their signatures.
    """

    images: NDArray[np.int64]
    people: NDArray[Any]
    signatures: Signatures

    def of(self, images: NDArray[np.int64]) -> "SignatureSet":
        """Return the signatures of some of the images, all of which must be there."""
        rows = np.searchsorted(self.images, images)
        return SignatureSet(self.images[rows], self.people[rows], self.signatures[rows])


def _as_signatures(arrays: Arrays, kind: Kind, worker: Worker) -> Signatures:
    """Return the signatures of the top pixels, of the coarse map, or of the regions."""
    patterns, size = worker.config.patterns, worker.config.pictures.size
    if kind == "dense":
        return Signatures.from_arrays({"values": arrays["dense"]}, kind, {"grid": patterns.grid})
    if kind == "regions":
        return profile_signatures(arrays["mass"], worker.regions, empty="zero")
    roots = arrays["top_roots"]
    starts = np.arange(len(roots) + 1, dtype=np.int64) * roots.shape[1]
    columns = arrays["top_pixels"].astype(np.int32).reshape(-1)
    table = sparse.csr_array((roots.reshape(-1), columns, starts), shape=(len(roots), size * size))
    table.eliminate_zeros()  # a map with fewer positive pixels
    table.sort_indices()
    settings = {"fraction": patterns.fraction, "size": size}
    return Signatures.from_arrays(Signatures(table, kind).to_arrays(np.float32), kind, settings)


def _without_large_arrays(shard: Shard) -> Arrays:
    names = {"rows", "shown", "labels", *(name for kind in ARRAYS.values() for name in kind)}
    return {name: shard[name] for name in names & set(shard.arrays)}


@dataclass
class ShardPart:
    """Some shards of a task; of each only the arrays are kept that signatures are made from.

    Attributes:
        worker: Worker of this process.
        task: Task whose inputs are read.
        owners: Whose the crops of the study are.
        shards: Numbers of the shards.
    """

    worker: Worker
    task: Task
    owners: Owners
    shards: range
    _read: dict[tuple[str, Index], Arrays] = field(default_factory=dict)

    def arrays(self, stage: str, index: Index) -> Arrays:
        """Return the arrays of a shard that signatures are made from."""
        return self.kept(stage, index, lambda: _without_large_arrays(read_shard(self.task.inputs[stage, index])))

    def kept(self, stage: str, index: Index, make: Callable[[], Arrays]) -> Arrays:
        """Return arrays that are made once for these shards."""
        if (stage, index) not in self._read:
            self._read[stage, index] = make()
        return self._read[stage, index]

    def signatures(self, stage: str, number: int, layer: int, kind: Kind) -> SignatureSet | None:
        """Return the signatures of the maps that a stage made, or None if none of them shows anything.

        Args:
            stage: Name of the stage.
            number: Number of the network; -1 where the stage has none.
            layer: Number of the layer; 0 is the overall map.
            kind: Kind of the signatures.
        """
        images, columns = [], []
        for i in self.shards:
            shard = self.arrays(stage, Index(i, number))
            shown = shard["shown"][:, layer] if "shown" in shard else np.ones(len(shard["rows"]), dtype=bool)
            if shown.any():
                images.append(self.owners.starts[i] + shard["rows"][shown].astype(np.int64))
                columns.append([shard[name][shown, layer] for name in ARRAYS[kind]])
        if not images:
            return None
        joined = [np.concatenate(column) for column in zip(*columns, strict=True)]
        signatures = _as_signatures(dict(zip(ARRAYS[kind], joined, strict=True)), kind, self.worker)
        return self.of_images(np.concatenate(images), signatures)

    def of_images(self, images: NDArray[np.int64], signatures: Signatures) -> SignatureSet:
        """Return signatures with the people of their images."""
        return SignatureSet(images, self.owners.codes[images], signatures)


def _joined(parts: Sequence[SignatureSet]) -> SignatureSet:
    images, people, signatures = zip(*[(part.images, part.people, part.signatures) for part in parts], strict=True)
    return SignatureSet(np.concatenate(images), np.concatenate(people), Signatures.concat(signatures))


def _on_common_images(sets: Mapping[str, SignatureSet]) -> dict[str, SignatureSet]:
    common = next(iter(sets.values())).images
    for one in sets.values():
        common = np.intersect1d(common, one.images, assume_unique=True)
    return {name: one.of(common) for name, one in sets.items()}


def _options(worker: Worker) -> dict[str, Any]:
    config = worker.config
    return {"confidence": config.confidence, "resamples": config.patterns.resamples, "seed": config.seed}


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}


# -- strangers who look alike --------------------------------------------------------------------------


def strangers_shard(worker: Worker, task: Task) -> Shard:
    """Return the nearest crops of other people: by landmarks where all have them, else by small grey crops.

    Arrays: ``images`` (n,), the crops that look for strangers: all of the study, or of more than ``max_pairs`` pairs those of
    :func:`~captum_leam.stats.sampling.sample_images`; ``nearest`` (n, 8), found among all crops of the study. The mean over the crops of a
    sample estimates that over all, with the standard error of its influence values
    (:func:`~captum_leam.patterns.claim.mean_of_pairs`).
    """
    owners, config = _owners(task), worker.config
    images = sample_images(owners.names, owners.codes, max_pairs=config.max_pairs, seed=config.seed)
    others = len(owners.codes) - int(np.bincount(owners.codes).max(initial=0))
    has_landmarks = bool(len(images)) and all(
        bool(np.isfinite(shard["landmarks"]).all()) for shard in map(read_shard, task.inputs.values())
    )
    nearest = np.zeros((len(images), 0), np.int64)
    if others and len(images) == len(owners.codes):
        features = np.concatenate([part for _, part in _features(task, has_landmarks)])
        nearest = closest_strangers(features, owners.codes.tolist(), min(NEAREST, others))
    elif others:
        nearest = _nearest_of(images, owners, task, has_landmarks, min(NEAREST, others))
    return Shard({"images": images, "nearest": nearest}, {"by": "landmarks" if has_landmarks else "crops"})


def _features(task: Task, has_landmarks: bool) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the number of each shard of crops, and the features of its crops."""
    for (_, index), path in task.inputs.items():
        shard = read_shard(path)
        yield index.shard, pose_features(shard["landmarks"]) if has_landmarks else shard["thumbnails"]


def _nearest_of(
    images: NDArray[np.intp], owners: Owners, task: Task, has_landmarks: bool, count: int
) -> NDArray[np.int64]:
    """Return the nearest strangers (n, count) of some crops among all."""
    own = []
    for i, features in _features(task, has_landmarks):
        first, last = np.searchsorted(images, owners.starts[[i, i + 1]])
        own.append(features[images[first:last] - owners.starts[i]])
    found = ClosestStrangers(np.concatenate(own), owners.codes[images].astype(np.int64), count)
    waiting: list[NDArray[Any]] = []
    begin = 0
    for i, features in _features(task, has_landmarks):
        waiting.append(features)
        end = int(owners.starts[i + 1])
        if end - begin >= PART or end == len(owners.codes):
            found.search(np.concatenate(waiting), owners.codes[begin:end].astype(np.int64))
            waiting, begin = [], end
    return found.nearest


def with_strangers(
    images: NDArray[np.int64], nearest: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the images that have one of their nearest strangers among them, and the place of that one.

    Example:
        >>> near = np.array([[2, 1], [2, 0], [0, 1], [0, 1]])
        >>> [found.tolist() for found in with_strangers(np.array([0, 1, 3]), near)]
        [[0, 1, 3], [1, 0, 0]]
    """
    inside = np.isin(nearest[images], images)
    while not inside.any(1).all():
        images = images[inside.any(1)]
        inside = np.isin(nearest[images], images)
    first = nearest[images, inside.argmax(1)] if len(images) else images
    return images, np.searchsorted(images, first)


# -- patterns ------------------------------------------------------------------------------------------


def patterns_shard(worker: Worker, task: Task) -> Shard:
    """Return rows of the table of patterns, of one network and layer: LEAM, and the controls on the same images.

    Of the overall map all kinds are compared with all controls; of a layer the top pixels, with those that are made for it.
    """
    network, layer = worker.networks[task.index.network], task.index.layer
    head = {"model": network.name, "layer": OVERALL if layer == 0 else network.layers[layer - 1].name}
    path = task.inputs.get(("strangers", Index()))
    strangers = None if path is None else read_shard(path)
    kinds: tuple[Kind, ...] = ("top", "dense", "regions") if layer == 0 else ("top",)
    compared = PatternSets(worker, task, _owners(task))
    if compared.owners.exceed(worker.config.max_pairs):
        rows = ManyPatterns(compared, kinds, strangers).rows()
    else:
        part = compared.part(range(task.shards))
        rows = [row for kind in kinds for row in _pattern_rows(worker, compared.of(part, kind), kind, strangers)]
    return Shard({}, {"rows": [{**head, **_without_nan(row)} for row in rows]})


@dataclass
class PatternSets:
    """The maps of a network and layer, named "", and their controls.

    Attributes:
        worker: Worker of this process.
        task: Task that compares them.
        owners: Whose the crops of the study are.
    """

    worker: Worker
    task: Task
    owners: Owners
    _heights: Tensor | None = None
    _painted_once: tuple[NDArray[np.uint8], Arrays] | None = None

    def part(self, shards: range) -> ShardPart:
        """Return some of the shards, to be read."""
        return ShardPart(self.worker, self.task, self.owners, shards)

    @cached_property
    def places(self) -> dict[str, tuple[str, int, int]]:
        """Name of the maps and of each control that is read from shards → stage, network and layer, if any shard has signatures of them."""
        number, layer = self.task.index.network, self.task.index.layer
        places = {"": ("maps", number, layer), "edges": ("controls", -1, 0), "untrained": ("untrained", number, layer)}

        def has_any(place: tuple[str, int, int]) -> bool:
            parts = (self.part(range(i, i + 1)) for i in range(self.task.shards))
            return any(part.signatures(*place, "regions") is not None for part in parts)

        wanted = ("", *self.worker.config.patterns.controls)
        return {name: place for name, place in places.items() if name in wanted and has_any(place)}

    def of(self, part: ShardPart, kind: Kind) -> dict[str, SignatureSet]:
        """Return all sets of signatures of some shards, on the images that have them all; nothing if there are none."""
        sets = {name: part.signatures(*place, kind) for name, place in self.places.items()}
        known = {name: one for name, one in sets.items() if one is not None}
        if "" not in known or len(known) < len(sets):
            return {}
        if "parser" in self.worker.config.patterns.controls and self.task.index.layer == 0:
            known["parser"] = self._painted(part, kind)
        return _on_common_images(known)

    def _painted(self, part: ShardPart, kind: Kind) -> SignatureSet:
        """Return the signatures of maps painted from a parser's regions alone: each as high as the maps are there on average, smoothed."""
        parts = []
        for i in part.shards:
            first, last = self.owners.starts[[i, i + 1]]
            if last > first:
                described = part.kept("painted", Index(i), partial(self._describe_painted, part, i))
                # copies, as sparse rows are sorted in place
                arrays = {name: described[name][:, 0].copy() for name in ARRAYS[kind]}
                signatures = _as_signatures(arrays, kind, self.worker)
                if len(signatures) < last - first:  # one label map for all has one painted map
                    signatures = signatures[np.zeros(last - first, dtype=int)]
                parts.append(part.of_images(np.arange(first, last), signatures))
        return _joined(parts)

    def _describe_painted(self, part: ShardPart, shard: int) -> Arrays:
        labels = part.arrays("crops", Index(shard))["labels"]
        if len(labels) > 1 or self._painted_once is None or not np.array_equal(labels, self._painted_once[0]):
            if self._heights is None:
                self._heights = self._mean_heights()
            where = torch.from_numpy(labels)
            painted = gaussian_blur(self._heights[where.long()], 2 * self.worker.config.pictures.size / 112)
            painted = painted / painted.sum((1, 2), keepdim=True).clamp(min=torch.finfo(painted.dtype).tiny)
            self._painted_once = labels, describe_maps(self.worker, painted[:, None], where)
        return self._painted_once[1]

    def _mean_heights(self) -> Tensor:
        """Return the mean density of the overall maps in each region, by the label integer."""
        regions = self.worker.regions
        mass, area = np.zeros(len(regions)), np.zeros(len(regions))
        for i in range(self.task.shards):
            shard = read_shard(self.task.inputs["maps", Index(i, self.task.index.network)])
            if len(shard["rows"]):
                mass += shard["mass"][:, 0].sum(0, dtype=np.float64)
                area += shard["area"].sum(0, dtype=np.float64)
        heights = np.divide(mass, area, out=np.zeros_like(mass), where=area > 0)
        table = torch.zeros(256, device="cpu", dtype=torch.float32)
        table[list(regions)] = torch.from_numpy(heights).float()
        return table


def _pattern_rows(
    worker: Worker, sets: Mapping[str, SignatureSet], kind: Kind, found: Shard | None
) -> list[dict[str, Any]]:
    """Return the rows of one kind, with the signatures of all images in memory."""
    if not sets:
        return []
    strangers = None
    if found is not None and found["nearest"].shape[1]:
        images, strangers = with_strangers(sets[""].images, found["nearest"])
        sets = {name: one.of(images) for name, one in sets.items()}
    people = sets[""].people.tolist()
    if len(set(people)) < 2 or len(set(people)) == len(people):
        return []
    patterns, options = worker.config.patterns, _options(worker)
    head = _head(worker, kind, len(people), len(set(people)))
    controls = {name: one.signatures for name, one in sets.items() if name}
    maps = sets[""].signatures
    limit: dict[str, Any] = {"max_pairs": worker.config.max_pairs}
    specificity = person_specificity(maps, people, permutations=patterns.permutations, **limit, **options)
    leam = {**head, "control": "", **_estimates(specificity.table), "p": specificity.p_value}
    if not controls and strangers is None:
        return [leam]
    claim = pattern_claim(maps, people, controls, strangers=strangers, **options)
    of_controls = {
        name: person_specificity(one, people, permutations=0, **limit, **options).table
        for name, one in controls.items()
    }
    return _rows_with_controls(head, leam, claim.table, of_controls, strangers is not None)


def _head(worker: Worker, kind: Kind, images: int, people: int) -> dict[str, Any]:
    fraction = worker.config.patterns.fraction if kind == "top" else 1.0
    return {"kind": kind, "fraction": fraction, "images": images, "people": people}


def _rows_with_controls(
    head: Mapping[str, Any],
    leam: Mapping[str, Any],
    claim: pd.DataFrame,
    controls: Mapping[str, pd.DataFrame],
    has_strangers: bool,
) -> list[dict[str, Any]]:
    """Return the row of the maps with the headline of the claim, and a row for every control."""
    beyond = claim.iloc[1:]
    above = {"strongest": str(beyond["name"].iloc[0]), "above_control": float(beyond["above"].iloc[0])}
    above |= {"above_low": float(beyond["above_low"].min()), "above_high": float(beyond["above_high"].iloc[0])}
    columns = {"same": "same", "different": "different", "gap": "gap", "low": "gap_low", "high": "gap_high"}
    gaps: dict[Any, Any] = claim.set_index("name")[list(columns)].rename(columns=columns).to_dict("index")
    rows = [{**leam, **above}]
    for name in [*controls, *([STRANGERS] if has_strangers else [])]:
        row = {**head, "control": name, **gaps[name]}
        rows.append(row | _estimates(controls[name]) if name in controls else row)
    return rows


def _estimates(table: pd.DataFrame) -> dict[str, float]:
    """Return same, different, gap and AUC with their intervals."""
    rows = table[["quantity", "value", "low", "high"]].itertuples(index=False)
    return {
        f"{quantity}{end}": float(estimate)
        for quantity, *estimates in rows
        for end, estimate in zip(("", "_low", "_high"), estimates, strict=True)
    }


# -- patterns of many people ---------------------------------------------------------------------------


class ManyPatterns:
    """Patterns of more pairs of images than ``max_pairs``: sums over all people in two passes over the shards, pairs of a sample.

    ``same``, ``different`` and gaps are of all people; AUC, its interval and p-values of the images of
    :func:`~captum_leam.stats.sampling.sample_images`; strangers of those of the stage "strangers". Images without the maps or a control
    count nowhere, also where a whole part lacks them. In memory are a few numbers for each person, the signatures of :data:`PART` images,
    and those of the sample.
    """

    def __init__(self, sets: PatternSets, kinds: Sequence[Kind], strangers: Shard | None) -> None:
        self.sets, self.worker, self.kinds, self.owners = sets, sets.worker, kinds, sets.owners
        self.streams: dict[tuple[Kind, str], PersonStream] = {}
        self.has_maps = np.zeros(len(self.owners.codes), dtype=bool)
        self.sample = np.zeros(0, np.intp)
        self.strangers = None if strangers is None or not strangers["nearest"].shape[1] else strangers
        self.kept: dict[tuple[Kind, str], list[SignatureSet]] = {}

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of all kinds."""
        for kind, sets in self._parts():
            for name, one in sets.items():
                self.streams.setdefault((kind, name), PersonStream()).add(_sums(one))
            self.has_maps[sets[""].images] = True
        self.sample = self._sample()
        probes, partners = self._pairs_of_strangers()
        wanted = np.zeros(len(self.owners.codes), dtype=bool)
        wanted[self.sample] = True
        with_probes = wanted.copy()
        with_probes[probes] = with_probes[partners] = True
        for kind, sets in self._parts():
            for name, one in sets.items():
                self.streams[kind, name].relate(_sums(one))
                chosen = one.images[(wanted if name else with_probes)[one.images]]
                if len(chosen):
                    self.kept.setdefault((kind, name), []).append(one.of(chosen))
        return [row for kind in self.kinds for row in self._rows_of(kind, probes, partners)]

    def _parts(self) -> Iterator[tuple[Kind, dict[str, SignatureSet]]]:
        """Yield the sets of each kind, part after part."""
        for shards in self.owners.parts():
            part = self.sets.part(shards)
            for kind in self.kinds:
                sets = self.sets.of(part, kind)
                if sets and len(sets[""].images):
                    yield kind, sets

    def _sample(self) -> NDArray[np.intp]:
        """Return the images whose pairs are compared, a sample of those that have maps."""
        config, mapped = self.worker.config, np.flatnonzero(self.has_maps)
        codes = self.owners.codes[mapped]
        return mapped[sample_images(self.owners.names, codes, max_pairs=config.max_pairs, seed=config.seed)]

    def _pairs_of_strangers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the images of the sample that have maps and a stranger with maps, and the nearest of these."""
        nothing = np.zeros(0, np.int64)
        if self.strangers is None:
            return nothing, nothing
        images, nearest = self.strangers["images"], self.strangers["nearest"]
        inside = self.has_maps[nearest] & self.has_maps[images][:, None]
        found = inside.any(1)
        return images[found].astype(np.int64), nearest[found, inside[found].argmax(1)]

    def _rows_of(self, kind: Kind, probes: NDArray[np.int64], partners: NDArray[np.int64]) -> list[dict[str, Any]]:
        streams = {name: stream for (of, name), stream in self.streams.items() if of == kind}
        if not streams or not _can_be_compared(streams[""].all_of("images")):
            return []
        config, numbers = self.worker.config, streams[""].all_of("names")
        drawn = people_draws(len(numbers), config.patterns.resamples, config.seed)
        same = {name or MAPS: stream.same(drawn) for name, stream in streams.items()}
        different = {name or MAPS: stream.different(drawn) for name, stream in streams.items()}
        tables, p_value = {}, float("nan")
        for name in streams:
            one = _joined(self.kept[kind, name])
            compared = one.of(one.images[np.isin(one.images, self.sample)])
            codes = renumbered(compared.people)
            auc = same_or_different(compared.signatures, codes)
            tables[name] = specificity_table(same[name or MAPS], different[name or MAPS], auc, drawn, config.confidence)
            if not name:
                options: dict[str, Any] = {"permutations": config.patterns.permutations, "seed": config.seed}
                p_value = permutation_p_value(compared.signatures, codes, **options)
                if len(probes):
                    same[STRANGERS] = self._of_strangers(one, numbers, probes, partners, drawn)
                    different[STRANGERS] = different[MAPS]
        head = _head(self.worker, kind, int(self.has_maps.sum()), len(numbers))
        leam = {**head, "control": "", **_estimates(tables.pop("")), "p": p_value}
        if len(same) == 1:
            return [leam]
        claim = claim_table(same, different, drawn, config.confidence)
        return _rows_with_controls(head, leam, claim, tables, bool(len(probes)))

    def _of_strangers(
        self,
        maps: SignatureSet,
        numbers: NDArray[np.int64],
        probes: NDArray[np.int64],
        partners: NDArray[np.int64],
        drawn: Floats,
    ) -> Estimate:
        """Return the mean coefficient of the images of the sample with their nearest strangers; every person of the sample counts alike."""
        overlap = row_products(maps.of(probes).signatures.roots, maps.of(partners).signatures.roots)
        first, second = (np.searchsorted(numbers, self.owners.codes[images]) for images in (probes, partners))
        load = 1 / np.bincount(first)[first]
        return mean_of_pairs(overlap, load, first, second, drawn)


def _sums(one: SignatureSet) -> PersonSums:
    numbers, codes = np.unique(one.people, return_inverse=True)
    return sums_of_codes(one.signatures, numbers.tolist(), codes)


def _can_be_compared(images: NDArray[np.int64]) -> bool:
    """Return whether there are two people, and two images of one, by the number of images of each person."""
    return len(images) > 1 and bool((images > 1).any())


# -- agreement -----------------------------------------------------------------------------------------


def agreement_shard(worker: Worker, task: Task) -> Shard:
    """Return rows of the table of agreement: of the overall maps of all networks, or of the layers of the one that the task names."""
    number = task.index.network
    if number < 0:
        head = {"what": "models", "model": "", "layer": OVERALL}
        places = {network.name: (i, 0) for i, network in enumerate(worker.networks) if network.layers}
    else:
        network = worker.networks[number]
        head = {"what": "layers", "model": network.name, "layer": ""}
        places = {layer.name: (number, 1 + i) for i, layer in enumerate(network.layers)}
    rows: list[dict[str, Any]] = []
    kinds: dict[str, Kind] = {"maps": "dense", "regions": "regions"}
    owners = _owners(task)
    for name, kind in kinds.items():
        found = AgreementSets(worker, task, owners, places, kind)
        many = owners.exceed(worker.config.max_pairs)
        of_kind = found.rows_of_many() if many else found.rows()
        rows += [{**head, "kind": name, **_without_nan(row)} for row in of_kind]
    return Shard({}, {"rows": rows})


@dataclass
class AgreementSets:
    """Maps of the same images by several networks or layers.

    Attributes:
        worker: Worker of this process.
        task: Task that compares them.
        owners: Whose the crops of the study are.
        places: Name → number of the network and of the layer.
        kind: Kind of the signatures.
    """

    worker: Worker
    task: Task
    owners: Owners
    places: Mapping[str, tuple[int, int]]
    kind: Kind

    def of(self, shards: range) -> dict[str, SignatureSet]:
        """Return the sets of some shards on their common images; nothing where one is missing."""
        part = ShardPart(self.worker, self.task, self.owners, shards)
        sets = {name: part.signatures("maps", *at, self.kind) for name, at in self.places.items()}
        known = {name: one for name, one in sets.items() if one is not None}
        return _on_common_images(known) if len(self.places) > 1 and len(known) == len(sets) else {}

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows, with the signatures of all images in memory."""
        common = self.of(range(self.task.shards))
        people = next(iter(common.values())).people.tolist() if common else []
        if len(set(people)) < 2:
            return []
        made = {name: one.signatures for name, one in common.items()}
        table = agreement(made, people, **_options(self.worker)).table
        renamed = table.rename(columns={"first": "a", "second": "b", "agreement": "value"})
        return renamed[["a", "b", "value", "low", "high", "chance"]].to_dict("records")  # type: ignore[return-value]

    def rows_of_many(self) -> list[dict[str, Any]]:
        """Return the rows from sums over people, in two passes over the shards."""
        pairs = list(combinations(self.places, 2))
        chance, means = [MeanBetween() for _ in pairs], [list[Floats]() for _ in pairs]
        people = 0
        for sums, sets in self._sums():
            people += len(sums[pairs[0][0]].names)
            codes = renumbered(next(iter(sets.values())).people)
            for (a, b), between, of_pair in zip(pairs, chance, means, strict=True):
                between.add(sums[a].vectors, sums[b].vectors, sums[a].mass)
                images = row_products(sets[a].signatures.roots, sets[b].signatures.roots)
                of_pair.append(np.bincount(codes, images) / np.bincount(codes))
        if people < 2:
            return []
        for sums, _ in self._sums():
            for (a, b), between in zip(pairs, chance, strict=True):
                between.relate(sums[a].vectors, sums[b].vectors)
        config = self.worker.config
        drawn, rows = people_draws(people, config.patterns.resamples, config.seed), []
        for (a, b), between, of_pair in zip(pairs, chance, means, strict=True):
            agreed = weighted_mean(np.concatenate(of_pair), np.ones(people), drawn)
            row = agreement_row(agreed, between.estimate(drawn), drawn, config.confidence)
            ends = {name: row[name] for name in ("low", "high", "chance")}
            rows.append({"a": a, "b": b, "value": row["agreement"], **ends})
        return rows

    def _sums(self) -> Iterator[tuple[dict[str, PersonSums], dict[str, SignatureSet]]]:
        """Yield the sums of people and the sets of every part that has them."""
        for shards in self.owners.parts() if len(self.places) > 1 else ():
            sets = self.of(shards)
            if sets and len(next(iter(sets.values())).images):
                yield {name: _sums(one) for name, one in sets.items()}, sets
