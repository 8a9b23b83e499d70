"""Stage two, shard by shard and network by network: maps, what they stand on, and what their occlusion does.

The loop that a study spends its time in: whole batches, no tables, no Python per image.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from captum_leam._engine.memory import is_out_of_memory
from captum_leam._storage import Shard
from captum_leam.controls import CONTROLS, ControlContext
from captum_leam.errors import NoEvidenceError
from captum_leam.explain import MapSettings, OverallMap
from captum_leam.faithfulness.fills import as_fill
from captum_leam.faithfulness.occluded_batch import MeasuredModel, OccludedBatch
from captum_leam.leam import LEAM
from captum_leam.maps import pixel_count, place_on_field, positive_shares, top_pixels
from captum_leam.patterns.signatures import dense_roots, top_roots
from captum_leam.regions.report import region_area, region_share, region_sums
from captum_leam.reporting.schema import OVERALL
from captum_leam.stats.labels import person_codes
from captum_leam.study.config import Config
from captum_leam.study.networks import Network, suggestions
from captum_leam.study.reading import Failure, batches, bisect_failures, embedded, references_of, take_rows
from captum_leam.study.worker import Worker, crops_of

Indices = NDArray[np.intp]
Columns = dict[str, NDArray[Any]]
Cell = tuple[str, str, str, float, str]
"""Layer, control, fill, fraction, measured model."""

TWIN_FACES = 32  # crops that the statistics of an untrained twin are taken from


NO_EVIDENCE = "no positive value at a layer of the overall map"

# -- maps ----------------------------------------------------------------------------------------------


def map_settings(network: Network, config: Config) -> MapSettings:
    """Return how a study makes the maps of a network."""
    names, overall = [layer.name for layer in network.layers], [n.name for n in network.layers if n.in_overall]
    how: dict[str, Any] = {name: getattr(config.leam, name) for name in ("n_steps", "path", "norm", "weighting")}
    preset: Any = config.preset
    return MapSettings(preset, "other images", tuple(overall), tuple(names), network.field, **how)


class StudyMaps:
    """Overall map of the preset of a study, and signed layer maps beside it, on one network (or its twin)."""

    def __init__(self, network: Network, module: nn.Module, config: Config) -> None:
        size = (config.pictures.size, config.pictures.size)
        found = suggestions(network, module, size)
        leam = config.leam
        self.network, self.size = network, size
        self.options: dict[str, Any] = {"n_steps": leam.n_steps}
        if leam.n_steps > 1:
            self.options["path"] = leam.path
        self.of_layers = LEAM(
            module,
            found,
            weighting=leam.weighting,  # type: ignore[arg-type]
            norm=leam.norm,  # type: ignore[arg-type]
        )
        inside = [layer.in_overall for layer in network.layers]
        self.inside = torch.tensor(inside, dtype=torch.bool, device=config.device)
        chosen = [layer for layer, is_inside in zip(found, inside, strict=True) if is_inside]
        self.overall = None if config.preset == "layers" else OverallMap(module, chosen, network.field, config.preset)  # type: ignore[arg-type]

    def __call__(self, crops: Tensor, references: Tensor, blurred: Tensor) -> tuple[Tensor, Tensor]:
        """Return distributions (N, 1 + layers, H, W), the overall map first, and which of them have a positive value.

        Args:
            crops: Crops, shape (N, 3, H, W).
            references: Embeddings, shape (N, D).
            blurred: Blurred crops, shape (N, 3, H, W): start of paths and replacement of occluded pixels.

        Raises:
            NoEvidenceError: If an image has no positive value at a layer of the overall map.
            CaptumLeamError: For what LEAM refuses.
        """
        start: dict[str, Any] = {"baselines": blurred} if self.options["n_steps"] > 1 else {}
        found = self.of_layers.attribute(crops, reference=references, **{**start, **self.options})
        placed = torch.stack([place_on_field(m, self.size, self.network.field) for m in found], 1)
        each, has_positive = positive_shares(placed)
        overall = self._overall(each, has_positive, crops, references, blurred)
        everywhere = torch.ones_like(has_positive[:, :1])
        return torch.cat([overall[:, None], each], 1), torch.cat([everywhere, has_positive], 1)

    def _overall(
        self, each: Tensor, has_positive: Tensor, crops: Tensor, references: Tensor, blurred: Tensor
    ) -> Tensor:
        """Return the overall map (N, H, W): of the preset, or the mean of the layer maps' distributions."""
        if self.overall is not None:
            try:
                return self.overall(crops, reference=references, baselines=blurred).to(each)
            except NoEvidenceError:
                raise NoEvidenceError(NO_EVIDENCE) from None  # without the rows of a batch that the user does not know
        if not bool(has_positive[:, self.inside].all()):
            raise NoEvidenceError(NO_EVIDENCE)
        return each[:, self.inside].mean(1)


# -- what maps stand on, and their signatures ----------------------------------------------------------


def describe_maps(worker: Worker, maps: Tensor, labels: Tensor, top: Tensor | None = None) -> Columns:
    """Return region shares and pattern signatures of maps, by the name of their array in a shard.

    Args:
        worker: Worker of this process.
        maps: Maps (n, L, H, W) that sum to 1.
        labels: Regions (n, H, W), or (1, H, W) for all.
        top: Highest pixels (n, L, K) of each map. Default: they are found.
    """
    config, pixels = worker.config, maps[0, 0].numel()
    critical, kept = (pixel_count(f, pixels) for f in (config.region_fraction, config.patterns.fraction))
    if top is None:
        flat = maps.flatten(2).flatten(0, 1)
        top = top_pixels(flat, (critical, kept), seed=config.seed).view(*maps.shape[:2], -1)
    described = {
        "share": region_share(top[..., :critical], labels, worker.regions).float(),
        "mass": region_sums(maps, labels, worker.regions),
        "area": region_area(labels, worker.regions).float().expand(len(maps), -1),
        "top_pixels": top[..., :kept].to(torch.int32),
        "top_roots": top_roots(maps.flatten(2), top[..., :kept]),
        "dense": dense_roots(maps, config.patterns.grid).half(),
    }
    columns = {name: values.cpu().numpy() for name, values in described.items()}
    if config.pictures.size <= 256:
        columns["top_pixels"] = columns["top_pixels"].astype(np.uint16)
    return columns


# -- occlusion -----------------------------------------------------------------------------------------


class ShardOccluder:
    """Occludes the crops of a shard where maps are highest, and measures the drop of the cosine on every network."""

    def __init__(self, worker: Worker, shard: Shard, explained: int | None) -> None:
        self.worker, self.config = worker, worker.config
        self.measured = worker.measured(explained)
        self.fills = [as_fill(fill) for fill in self.config.fills]
        self.references: dict[int, Tensor] = {}
        self.cosines: dict[int, Tensor] = {}
        self.failed: dict[tuple[str, int], str] = {}
        for i in self.measured:
            embeddings = torch.from_numpy(shard[f"embedding.{i}"]).double()
            references = torch.from_numpy(shard[f"reference.{i}"]).double()
            self.references[i] = F.normalize(references, dim=1)
            self.cosines[i] = (F.normalize(embeddings, dim=1) * self.references[i]).sum(1)

    def cells(
        self, layer: str, controls: Sequence[str], fractions: Sequence[float], measured: Sequence[int]
    ) -> list[Cell]:
        """Return the cells of the columns of :meth:`drops`."""
        names = [self.worker.networks[i].name for i in measured]
        return [
            (layer, control, fill.name, fraction, name)
            for control in controls
            for fill in self.fills
            for fraction in fractions
            for name in names
        ]

    def batch(self, crops: Tensor, rows: Indices, blurred: Tensor) -> OccludedBatch:
        """Return a batch to occlude: crops (n, 3, H, W), their rows in the shard, and the same blurred."""
        at = torch.from_numpy(rows)
        models = {
            i: MeasuredModel(self._embedder(i, rows), self.references[i][at], self.cosines[i][at])
            for i in self.measured
        }
        return OccludedBatch(crops, self.fills, models, {"blur": blurred})

    def _embedder(self, i: int, rows: Indices) -> Callable[[Tensor], Tensor]:
        """Return a function from the occluded crops to embeddings (n, D): NaN where the network raises or nothing can be compared."""
        network = self.worker.networks[i]
        module, size = self.worker.module(network), self.references[i].shape[1]
        measurable = np.flatnonzero(np.isfinite(self.cosines[i].numpy()[rows]))

        def embed_occluded(occluded: Tensor) -> Tensor:
            embeddings = torch.full((len(rows), size), torch.nan, dtype=torch.float32, device=occluded.device)
            if not len(measurable):
                return embeddings
            for part, found, reason in bisect_failures(
                lambda r: self.worker.embed(module, take_rows(occluded, r)), measurable
            ):
                if found is None:
                    self.failed[(network.name, int(rows[part[0]]))] = reason
                elif len(part) == len(rows):
                    return found.clone()  # type: ignore[no-any-return]  # as nearly always; it may be a view of what is occluded
                else:
                    embeddings = embeddings.to(found.dtype)
                    embeddings[torch.from_numpy(part)] = found
            return embeddings

        return embed_occluded

    def drops(
        self, batch: OccludedBatch, top: Tensor, fractions: Sequence[float], measured: Sequence[int]
    ) -> NDArray[np.float32]:
        """Return drops (n, fills × fractions × networks) of a batch.

        Args:
            batch: Batch to occlude.
            top: Pixels (n, K), the first to be occluded first.
            fractions: Fractions of the crop.
            measured: Numbers of the networks.
        """
        counts = [pixel_count(fraction, batch.images[0, 0].numel()) for fraction in fractions]
        return batch.measure_top(top, counts, measured).astype(np.float32)

    def failures(self, faces: Shard) -> list[Failure]:
        """Return the occluded images that a network raised on."""
        return [("occlude", name, int(faces["kept"][row]), reason) for (name, row), reason in self.failed.items()]


# -- the stages ----------------------------------------------------------------------------------------


@dataclass
class Collected:
    """Rows of a shard in the order in which they were done, and what was not done."""

    rows: list[Indices]
    columns: dict[str, list[NDArray[Any]]]
    failed: list[Failure]

    def add(self, rows: Indices, columns: Mapping[str, NDArray[Any]]) -> None:
        """More rows."""
        self.rows.append(rows)
        for name, values in columns.items():
            self.columns.setdefault(name, []).append(values)

    def joined(self) -> dict[str, NDArray[Any]]:
        """Everything, by row."""
        return {
            "rows": np.concatenate(self.rows).astype(np.int32),
            **{k: np.concatenate(v) for k, v in self.columns.items()},
        }


def maps_shard(worker: Worker, faces: Shard, explained: int) -> Shard:
    """Explain a shard by one network: regions, signatures, drops and sums of its maps.

    Arrays, by row (an image that has maps): ``rows`` of the shard of crops; ``shown`` (n, L) maps with anything to show; ``cosine``
    (n,); ``share``, ``mass`` (n, L, regions), ``area`` (n, regions); ``top_pixels``, ``top_roots``, ``dense``: signatures; ``drops``
    (n, cells). Sums: ``person_sums`` (people, H, W) and ``person_counts`` of overall maps, ``layer_sums`` (L, H, W), ``layer_counts``.
    ``maps``, float16, where the configuration stores them. L is 1 + layers, the overall map first.
    """
    config, network, people = worker.config, worker.networks[explained], faces.notes["people"]
    explain = StudyMaps(network, worker.module(network), config)
    occluder = ShardOccluder(worker, faces, explained)
    references = faces[f"reference.{explained}"]
    usable = np.flatnonzero(np.isfinite(references).all(1))
    own = config.own_controls
    work = Collected([], {}, _without_reference(faces, references, network))
    sums = PersonMapSums(people)
    everyone, alone = occluder.measured, [explained] if not config.layer_transfer else occluder.measured
    cells = occluder.cells(OVERALL, ["", *own], config.fractions, everyone)
    for layer in network.layers:
        cells += occluder.cells(layer.name, [""], config.layer_fractions, alone)
    for rows, crops, blurred, maps, shown in _explained(worker, explain, faces, references, usable, work):
        labels = _labels_of(faces, rows, crops.device)
        order = _ranked(maps, worker)
        batch = occluder.batch(crops, rows, blurred)
        described = describe_maps(worker, maps, labels, order["critical"])
        drops = [occluder.drops(batch, order["overall"], config.fractions, everyone)]
        for name in own:
            top = _control_top(name, crops, rows, faces, maps[:, 0], config)
            drops.append(occluder.drops(batch, top, config.fractions, everyone))
        for at in range(len(network.layers) if config.layer_fractions else 0):
            drops.append(occluder.drops(batch, order["layers"][:, at], config.layer_fractions, alone))
        sums.add(rows, maps, shown)
        stored = {"none": 0, "overall": 1, "all": maps.shape[1]}[config.store_maps]
        kept = {"maps": maps[:, :stored].half().cpu().numpy()} if stored else {}
        cosine = occluder.cosines[explained][torch.from_numpy(rows)].numpy()
        own_columns = {"drops": np.concatenate(drops, 1), "shown": shown.cpu().numpy(), "cosine": cosine}
        work.add(rows, {**own_columns, **kept, **described})
    notes: dict[str, Any] = {"failed": work.failed + occluder.failures(faces), "cells": cells}
    notes["people"] = _people(work, people)
    if not work.rows:
        return Shard({"rows": np.zeros(0, np.int32)}, notes)
    return Shard({**work.joined(), **sums.arrays()}, notes)


def _people(work: Collected, people: Sequence[str]) -> list[str]:
    """Whose the rows are."""
    return [people[row] for rows in work.rows for row in rows]


def _without_reference(faces: Shard, references: NDArray[np.float32], network: Network) -> list[Failure]:
    embeddings_of = np.isfinite(references).all(1)
    failed = {index for stage, name, index, _ in faces.notes["failed"] if stage == "embed" and name == network.name}
    reason = "no reference: the network embeds no other image of the person"
    without = faces["kept"][~embeddings_of].tolist()
    return [("explain", network.name, index, reason) for index in without if index not in failed]


def _explained(
    worker: Worker,
    explain: StudyMaps,
    faces: Shard,
    references: NDArray[np.float32],
    usable: Indices,
    work: Collected,
) -> Iterator[tuple[Indices, Tensor, Tensor, Tensor, Tensor]]:
    """Rows with their crops, the crops blurred, maps and which are shown, batch by batch; what is refused goes to ``work.failed``."""
    for chosen in batches(len(usable), worker.config.batch_size):
        rows = usable[chosen]
        crops, blurred = worker.crops_and_blur(faces, rows)
        towards = torch.from_numpy(references[rows]).to(worker.config.device)

        def run(at: Indices, given: tuple[Tensor, ...] = (crops, towards, blurred)) -> tuple[Tensor, Tensor]:
            with worker.in_precision():
                return explain(*(take_rows(tensor, at) for tensor in given))

        for at, made, reason in bisect_failures(run, np.arange(len(rows))):
            if made is None:
                work.failed.append(("explain", explain.network.name, int(faces["kept"][rows[at[0]]]), reason))
            else:
                yield rows[at], take_rows(crops, at), take_rows(blurred, at), made[0], made[1]


def _labels_of(faces: Shard, rows: Indices, device: torch.device) -> Tensor:
    labels = faces["labels"]
    return torch.from_numpy(labels if len(labels) == 1 else labels[rows]).to(device)


def _ranked(maps: Tensor, worker: Worker) -> dict[str, Tensor]:
    """Return the highest pixels of the overall map and of the layers, as many as are used."""
    config, pixels = worker.config, maps[0, 0].numel()
    both = {pixel_count(f, pixels) for f in (config.region_fraction, config.patterns.fraction)}
    counts = sorted(both | {pixel_count(f, pixels) for f in config.fractions})
    overall = top_pixels(maps[:, 0].flatten(1), counts, seed=config.seed)
    counts = sorted(both | {pixel_count(f, pixels) for f in config.layer_fractions})
    n, layers = maps.shape[0], maps.shape[1] - 1
    of_layers = top_pixels(maps[:, 1:].flatten(2).flatten(0, 1), counts, seed=config.seed).view(n, layers, -1)
    most = max(both)
    critical = torch.cat([overall[:, None, :most], of_layers[..., :most]], 1)
    return {"overall": overall, "layers": of_layers, "critical": critical}


def _control_top(name: str, crops: Tensor, rows: Indices, faces: Shard, maps: Tensor | None, config: Config) -> Tensor:
    """Return the highest pixels of a control's maps; what it draws depends on the pictures, not on the shards."""
    seed = (config.seed * 1_000_003 + zlib.crc32(faces["crops"][rows[0]].tobytes())) % (1 << 62)
    made = CONTROLS[name](ControlContext(crops, maps=maps, seed=seed)).float()
    counts = [pixel_count(f, crops[0, 0].numel()) for f in config.fractions]
    if made.stride(0) == 0:  # one map for all
        return top_pixels(made[:1].flatten(1), counts, seed=config.seed).expand(len(crops), -1)
    return top_pixels(made.flatten(1), counts, seed=config.seed)


class PersonMapSums:
    """Sums of maps over the images of each person, and over all."""

    def __init__(self, people: Sequence[str]) -> None:
        names, self.codes = person_codes(people)
        self.persons: Tensor | None = None
        self.counts = np.zeros(len(names), dtype=np.int32)
        self.layers: Tensor | None = None
        self.layer_counts: Tensor | None = None

    def add(self, rows: Indices, maps: Tensor, shown: Tensor) -> None:
        """Add maps (n, L, H, W) of some rows of the shard."""
        maps, codes = maps.cpu(), torch.from_numpy(self.codes[rows])
        if self.persons is None or self.layers is None or self.layer_counts is None:
            self.persons = torch.zeros(len(self.counts), *maps.shape[2:], device="cpu", dtype=torch.float64)
            self.layers = torch.zeros(maps.shape[1:], device="cpu", dtype=torch.float64)
            self.layer_counts = torch.zeros(maps.shape[1], device="cpu", dtype=torch.int64)
        self.persons.index_add_(0, codes, maps[:, 0].double())
        self.counts += np.bincount(self.codes[rows], minlength=len(self.counts)).astype(np.int32)
        self.layers += maps.sum(0, dtype=torch.float64)
        self.layer_counts += shown.cpu().sum(0)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For a shard."""
        if self.persons is None or self.layers is None or self.layer_counts is None:
            return {}
        return {
            "person_sums": self.persons.float().numpy(),
            "person_counts": self.counts,
            "layer_sums": self.layers.float().numpy(),
            "layer_counts": self.layer_counts.int().numpy(),
        }


def untrained_shard(worker: Worker, faces: Shard, explained: int, first: Shard, key: str) -> Shard:
    """Signatures of the maps of an untrained twin, made as those of the network; its BatchNorms see the first shard, named by its key."""
    config, network = worker.config, worker.networks[explained]
    nothing = {"rows": np.zeros(0, np.int32)}
    try:
        module = worker.twin(network, crops_of(first)[:TWIN_FACES], key)
    except Exception as error:  # whatever a user's network raises: there is no such control, the study goes on
        if is_out_of_memory(error):
            raise
        return Shard(nothing, {"failed": [], "problem": f"no untrained twin: {type(error).__name__}: {error}"[:500]})
    crops = crops_of(faces).to(config.device)
    own, _ = embedded(worker, module, crops)
    references = references_of(own, faces.notes["people"])
    work = Collected([], {}, [])
    explain = StudyMaps(network, module, config)
    usable = np.flatnonzero(np.isfinite(references).all(1))
    for rows, _, _, maps, shown in _explained(worker, explain, faces, references, usable, work):
        described = describe_maps(worker, maps, _labels_of(faces, rows, maps.device))
        work.add(rows, {"shown": shown.cpu().numpy(), **described})
    if not work.rows:
        return Shard({"rows": np.zeros(0, np.int32)}, {"failed": []})
    return Shard(work.joined(), {"failed": []})  # a control that fails on an image just lacks it


def controls_shard(worker: Worker, faces: Shard) -> Shard:
    """Measure the controls that need no network: their drops on all networks, and the signatures of the edges."""
    config = worker.config
    shared = config.shared_controls
    occluder = ShardOccluder(worker, faces, None)
    cells = occluder.cells("", shared, config.fractions, occluder.measured)
    work = Collected([], {}, [])
    for rows in batches(len(faces["kept"]), config.batch_size):
        crops, blurred = worker.crops_and_blur(faces, rows)
        drops = [np.zeros((len(rows), 0), np.float32)]
        batch = occluder.batch(crops, rows, blurred)
        for name in shared:
            top = _control_top(name, crops, rows, faces, None, config)
            drops.append(occluder.drops(batch, top, config.fractions, occluder.measured))
        edges, _ = positive_shares(CONTROLS["edges"](ControlContext(crops)))
        described = describe_maps(worker, edges[:, None], _labels_of(faces, rows, crops.device))
        work.add(rows, {"drops": np.concatenate(drops, 1), **described})
    notes = {"failed": occluder.failures(faces), "cells": cells}
    if not work.rows:
        return Shard({"rows": np.zeros(0, np.int32)}, notes)
    return Shard(work.joined(), notes)


def others_shard(
    worker: Worker,
    faces: Shard,
    made: Shard,
    explained: int,
    total: NDArray[np.float64],
    count: int,
) -> Shard:
    """Measure the control "other people": drops where the mean overall map of all *other* people is highest."""
    config, people = worker.config, faces.notes["people"]
    occluder = ShardOccluder(worker, faces, explained)
    cells = occluder.cells(OVERALL, ["other people"], config.fractions, occluder.measured)
    rows_done = made["rows"].astype(np.intp)
    if not len(rows_done):
        return Shard({"rows": np.zeros(0, np.int32)}, {"failed": [], "cells": cells})
    left = count - made["person_counts"].astype(np.float64)
    others = (total - made["person_sums"].astype(np.float64)) / np.maximum(left, 1)[:, None, None]
    pixels = others[0].size
    tops = top_pixels(
        torch.from_numpy(others).flatten(1), [pixel_count(f, pixels) for f in config.fractions], seed=config.seed
    )
    _, codes = person_codes(people)
    work = Collected([], {}, [])
    for at in batches(len(rows_done), config.batch_size):
        rows = rows_done[at]
        crops, blurred = worker.crops_and_blur(faces, rows)
        own = codes[rows]
        batch = occluder.batch(crops, rows, blurred)
        drops = occluder.drops(batch, tops[torch.from_numpy(own)].to(crops.device), config.fractions, occluder.measured)
        alone = left[own] < 1  # nobody else: no such control
        drops[alone] = np.nan
        work.add(rows, {"drops": drops})
    return Shard(work.joined(), {"failed": occluder.failures(faces), "cells": cells})
