"""Stage three: compare the signatures of all shards: person patterns beside controls, agreement of models and of layers."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
from captum_leam.patterns.specificity import Specificity
from captum_leam.reporting.schema import OVERALL
from captum_leam.study.evaluating import describe_maps
from captum_leam.study.task import Index, Task
from captum_leam.study.worker import Worker

Arrays = dict[str, NDArray[Any]]

ARRAYS: dict[Kind, tuple[str, ...]] = {"top": ("top_roots", "top_pixels"), "dense": ("dense",), "regions": ("mass",)}
"""Kind of signatures → arrays of a shard that they are made from."""

NEAREST = 8
"""Strangers stored for every image; the nearest that is in a comparison, too, counts."""


@dataclass(frozen=True)
class SignatureSet:
    """Signatures of one set of maps over all shards.

    Attributes:
        images: Places (N,) of the images among all crops of the study, ascending.
        people: Their people.
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


def _read_set(worker: Worker, task: Task, stage: str, number: int, layer: int, kind: Kind) -> SignatureSet | None:
    """Return the signatures of the maps that a stage made, or None if none of them shows anything.

    Args:
        worker: Worker of this process.
        task: Task whose inputs are read.
        stage: Name of the stage.
        number: Number of the network; -1 where the stage has none.
        layer: Number of the layer; 0 is the overall map.
        kind: Kind of the signatures.
    """
    parts, offset = [], 0
    for i in range(task.shards):
        people = read_shard(task.inputs["crops", Index(i)]).notes["people"]
        shard = read_shard(task.inputs[stage, Index(i, number)])
        shown = shard["shown"][:, layer] if "shown" in shard.arrays else np.ones(len(shard["rows"]), dtype=bool)
        if shown.any():
            rows = shard["rows"][shown].astype(np.int64)
            arrays = {name: shard[name][shown, layer] for name in ARRAYS[kind]}
            parts.append(
                SignatureSet(offset + rows, np.array(people, dtype=object)[rows], _as_signatures(arrays, kind, worker))
            )
        offset += len(people)
    return _joined(parts) if parts else None


def _joined(parts: Iterable[SignatureSet]) -> SignatureSet:
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
    """Return for every crop of the study the nearest ones of other people: by landmarks where all have them, else by small grey crops."""
    shards = [read_shard(path) for path in task.inputs.values()]
    people = [person for shard in shards for person in shard.notes["people"]]
    points, thumbnails = (np.concatenate([shard[name] for shard in shards]) for name in ("landmarks", "thumbnails"))
    has_landmarks = len(points) and np.isfinite(points).all()
    nearest = np.zeros((len(people), 0), np.int64)
    others = len(people) - max(Counter(people).values(), default=0)
    if others:
        features = pose_features(points) if has_landmarks else thumbnails
        nearest = closest_strangers(features, people, min(NEAREST, others))
    return Shard({"nearest": nearest}, {"by": "landmarks" if has_landmarks else "crops"})


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
    strangers = task.inputs.get(("strangers", Index()))
    nearest = None if strangers is None else read_shard(strangers)["nearest"]
    rows: list[dict[str, Any]] = []
    kinds: tuple[Kind, ...] = ("top", "dense", "regions") if layer == 0 else ("top",)
    for kind in kinds:
        sets = _pattern_sets(worker, task, kind)
        rows += _pattern_rows(worker, sets, kind, nearest) if sets else []
    return Shard({}, {"rows": [{**head, **_without_nan(row)} for row in rows]})


def _pattern_sets(worker: Worker, task: Task, kind: Kind) -> dict[str, SignatureSet]:
    """Return the maps, named "", and their controls, on the images that have them all; nothing without maps."""
    controls, number, layer = worker.config.patterns.controls, task.index.network, task.index.layer
    maps = _read_set(worker, task, "maps", number, layer, kind)
    if maps is None:
        return {}
    sets: dict[str, SignatureSet | None] = {"": maps}
    if "edges" in controls:
        sets["edges"] = _read_set(worker, task, "controls", -1, 0, kind)
    if "untrained" in controls:
        sets["untrained"] = _read_set(worker, task, "untrained", number, layer, kind)
    if "parser" in controls and layer == 0:
        sets["parser"] = _painted_set(worker, task, kind)
    return _on_common_images({name: one for name, one in sets.items() if one is not None})


def _painted_set(worker: Worker, task: Task, kind: Kind) -> SignatureSet:
    """Return the signatures of maps painted from a parser's regions alone: each as high as the maps are there on average, smoothed."""
    number, size = task.index.network, worker.config.pictures.size
    mass, area = np.zeros(len(worker.regions)), np.zeros(len(worker.regions))
    for i in range(task.shards):
        shard = read_shard(task.inputs["maps", Index(i, number)])
        if len(shard["rows"]):
            mass += shard["mass"][:, 0].sum(0, dtype=np.float64)
            area += shard["area"].sum(0, dtype=np.float64)
    heights = np.divide(mass, area, out=np.zeros_like(mass), where=area > 0)
    table = torch.zeros(256, device="cpu", dtype=torch.float32)
    table[list(worker.regions)] = torch.from_numpy(heights).float()
    parts, offset = [], 0
    for i in range(task.shards):
        crops = read_shard(task.inputs["crops", Index(i)])
        people, labels = crops.notes["people"], torch.from_numpy(crops["labels"])
        if people:
            painted = gaussian_blur(table[labels.long()], 2 * size / 112)
            painted = painted / painted.sum((1, 2), keepdim=True).clamp(min=torch.finfo(painted.dtype).tiny)
            described = describe_maps(worker, painted[:, None], labels)
            signatures = _as_signatures({name: described[name][:, 0] for name in ARRAYS[kind]}, kind, worker)
            if len(labels) == 1:  # one label map for all has one painted map
                signatures = signatures[np.zeros(len(people), dtype=int)]
            images = offset + np.arange(len(people))
            parts.append(SignatureSet(images, np.array(people, dtype=object), signatures))
        offset += len(people)
    return _joined(parts)


def _pattern_rows(
    worker: Worker, sets: Mapping[str, SignatureSet], kind: Kind, nearest: NDArray[np.int64] | None
) -> list[dict[str, Any]]:
    strangers = None
    if nearest is not None and nearest.shape[1]:
        images, strangers = with_strangers(sets[""].images, nearest)
        sets = {name: one.of(images) for name, one in sets.items()}
    people = sets[""].people.tolist()
    if len(set(people)) < 2 or len(set(people)) == len(people):
        return []
    patterns, options = worker.config.patterns, _options(worker)
    fraction = patterns.fraction if kind == "top" else 1.0
    head = {"kind": kind, "fraction": fraction, "images": len(people), "people": len(set(people))}
    controls = {name: one.signatures for name, one in sets.items() if name}
    maps = sets[""].signatures
    specificity = person_specificity(maps, people, permutations=patterns.permutations, **options)
    leam = {**head, "control": "", **_estimates(specificity), "p": specificity.p_value}
    if not controls and strangers is None:
        return [leam]
    claim = pattern_claim(maps, people, controls, strangers=strangers, **options)
    leam |= {"strongest": claim.strongest, "above_control": claim.headline}
    leam |= {"above_low": claim.low, "above_high": claim.high}
    columns = {"same": "same", "different": "different", "gap": "gap", "low": "gap_low", "high": "gap_high"}
    gaps: dict[Any, Any] = claim.table.set_index("name")[list(columns)].rename(columns=columns).to_dict("index")
    rows = [leam]
    for name in [*controls, *([STRANGERS] if strangers is not None else [])]:
        row = {**head, "control": name, **gaps[name]}
        if name in controls:
            row |= _estimates(person_specificity(controls[name], people, permutations=0, **options))
        rows.append(row)
    return rows


def _estimates(specificity: Specificity) -> dict[str, float]:
    """Return same, different, gap and AUC with their intervals."""
    rows = specificity.table[["quantity", "value", "low", "high"]].itertuples(index=False)
    return {
        f"{quantity}{end}": float(estimate)
        for quantity, *estimates in rows
        for end, estimate in zip(("", "_low", "_high"), estimates, strict=True)
    }


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
    for name, kind in kinds.items():
        sets = {place: _read_set(worker, task, "maps", *at, kind) for place, at in places.items()}
        rows += [{**head, "kind": name, **_without_nan(row)} for row in _agreement_rows(worker, sets)]
    return Shard({}, {"rows": rows})


def _agreement_rows(worker: Worker, sets: Mapping[str, SignatureSet | None]) -> list[dict[str, Any]]:
    known = {name: one for name, one in sets.items() if one is not None}
    if len(sets) < 2 or len(known) < len(sets):
        return []
    common = _on_common_images(known)
    people = next(iter(common.values())).people.tolist()
    if len(set(people)) < 2:
        return []
    table = agreement({name: one.signatures for name, one in common.items()}, people, **_options(worker)).table
    renamed = table.rename(columns={"first": "a", "second": "b", "agreement": "value"})
    return renamed[["a", "b", "value", "low", "high", "chance"]].to_dict("records")  # type: ignore[return-value]
