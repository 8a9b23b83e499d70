"""Stage two, shard by shard and network by network: maps, what they stand on, and what their occlusion does.

The loop that a study spends its time in: whole batches, no tables, no Python per image.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from captum_leam._engine.memory import is_out_of_memory
from captum_leam._engine.modes import own_arithmetic
from captum_leam._storage import Shard
from captum_leam.controls import CONTROLS, Scene, central_ellipse
from captum_leam.errors import CaptumLeamError
from captum_leam.faithfulness.fills import as_fill
from captum_leam.leam import LEAM
from captum_leam.maps import place_on_field
from captum_leam.reporting.tables import OVERALL
from captum_leam.study.config import Config
from captum_leam.study.networks import Network, suggestions
from captum_leam.study.reading import Failure, batches, bisect_failures, embedded, references_of, take_rows
from captum_leam.study.worker import Worker, crops_of

Indices = NDArray[np.intp]
Cell = tuple[str, str, str, float, str]
"""Layer, control, fill, fraction, measured model."""

TWIN_FACES = 32  # crops that the statistics of an untrained twin are taken from


# -- pixels --------------------------------------------------------------------------------------------


def top_pixels(maps: Tensor, counts: Sequence[int], seed: int = 0) -> Tensor:
    """The highest pixels of every map, in an order that begins with the top of every count: of each count, the first so many.

    As :func:`captum_leam.top_fraction` chooses them; ties at one of the counts are broken by a seeded permutation.

    Args:
        maps: (N, P).
        counts: how many pixels will be looked at; the largest is returned.
        seed: of ties.

    Returns:
        (N, max(counts)) int64.

    Example:
        >>> top_pixels(torch.tensor([[0.1, 0.9, 0.5, 0.3]]), [1, 2]).tolist()
        [[1, 2]]
    """
    pixels = maps.shape[1]
    most, cuts = min(max(counts), pixels), sorted({count for count in counts if count < pixels}, reverse=True)
    if maps.device.type == "cpu":
        order, tied = map(torch.from_numpy, _selected(maps.numpy(), cuts, most))
    else:
        order, tied = _sorted(maps, cuts, most)
    if bool(tied.any()):
        shuffle = torch.randperm(pixels, generator=torch.Generator().manual_seed(seed), device="cpu").to(maps.device)
        order[tied] = shuffle[maps[tied][:, shuffle].topk(most, dim=1).indices]
    return order


def _selected(maps: NDArray[Any], cuts: Sequence[int], most: int) -> tuple[Indices, NDArray[np.bool_]]:
    """The top pixels, and which maps have ties at a cut (from large to small): selected, which NumPy is faster at than at sorting."""
    order, values, tied = np.arange(most)[None].repeat(len(maps), 0), maps, np.zeros(len(maps), np.bool_)
    for count in cuts:
        width = values.shape[1]
        at = np.argpartition(values, width - count - 1, axis=1)[:, ::-1]  # above the cut, the one below it, the rest
        known = np.take_along_axis(values, at[:, : count + 1], 1)
        values = known[:, :count]
        tied |= values.min(1) == known[:, count]
        if count < most:  # within those that are in order already
            at = np.concatenate([np.take_along_axis(order[:, :width], at, 1), order[:, width:]], 1)
        order = at[:, :most]
    return np.ascontiguousarray(order), tied


def _sorted(maps: Tensor, cuts: Sequence[int], most: int) -> tuple[Tensor, Tensor]:
    """The same by sorting, which is what a GPU is fast at."""
    values, order = maps.topk(min(most + 1, maps.shape[1]), dim=1)
    below = torch.tensor(cuts, dtype=torch.int64, device=maps.device)
    return order[:, :most], (values[:, below - 1] == values[:, below]).any(1)


def count_of(fraction: float, pixels: int) -> int:
    """How many pixels a fraction is, one at least.

    Example:
        >>> count_of(0.01, 112 * 112), count_of(1e-9, 100)
        (125, 1)
    """
    return max(1, round(fraction * pixels))


def distributions(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Positive part of every map divided by its sum; and whether there is any, where not it is zeros.

    Args:
        maps: (..., H, W), signed.
    """
    least = torch.finfo(maps.dtype).tiny
    positive = maps.clamp(min=0)
    positive = positive / positive.amax((-2, -1), keepdim=True).clamp(min=least)
    total = positive.sum((-2, -1), keepdim=True)
    return positive / total.clamp(min=least), total[..., 0, 0] > 0


# -- maps ----------------------------------------------------------------------------------------------


class Explainer:
    """LEAM with the settings of the study, on one network (or its twin): crops to overall and layer maps."""

    def __init__(self, network: Network, module: nn.Module, config: Config) -> None:
        size = (config.pictures.size, config.pictures.size)
        found = suggestions(network, module, size)
        leam = config.leam
        self.network, self.size = network, size
        self.options: dict[str, Any] = {"n_steps": leam.n_steps}
        if leam.n_steps > 1:
            self.options["path"] = leam.path
        self.method = LEAM(
            module,
            found,
            weighting=leam.weighting,  # type: ignore[arg-type]
            norm=leam.norm,  # type: ignore[arg-type]
        )

    def __call__(self, crops: Tensor, references: Tensor, blurred: Tensor) -> tuple[Tensor, Tensor]:
        """Distributions (N, 1 + layers, H, W), the overall map first, and which of them have anything to show.

        Args:
            crops: (N, 3, H, W).
            references: (N, D).
            blurred: the crops, blurred: where a path begins.

        Raises:
            CaptumLeamError: if an image has no overall map: what LEAM refuses, or no positive value in a layer of it.
        """
        start: dict[str, Any] = {"baselines": blurred} if self.options["n_steps"] > 1 else {}
        found = self.method.attribute(crops, reference=references, **{**start, **self.options})
        placed = torch.stack([place_on_field(m, self.size, self.network.field) for m in found], 1)
        each, shown = distributions(placed)
        inside = torch.tensor([layer.in_overall for layer in self.network.layers], dtype=torch.bool, device=each.device)
        if not bool(shown[:, inside].all()):
            raise CaptumLeamError("nothing speaks for the match at a layer of the overall map")
        overall = each[:, inside].mean(1, keepdim=True)
        return torch.cat([overall, each], 1), torch.cat([shown[:, :1] | True, shown], 1)


# -- what maps stand on, and their signatures ----------------------------------------------------------


@dataclass
class Signing:
    """Region shares and pattern signatures of maps of one batch, collected over batches."""

    setting: Worker
    parts: list[dict[str, Tensor]]

    def add(self, maps: Tensor, labels: Tensor, top: Tensor | None = None) -> None:
        """Maps (n, L, H, W), distributions; labels (n or 1, H, W); top: (n, L, K) pixels of each, where they are known."""
        config, pixels = self.setting.config, maps[0, 0].numel()
        flat = maps.flatten(2)
        n, layers = flat.shape[:2]
        critical, kept = (count_of(f, pixels) for f in (config.region_fraction, config.patterns.fraction))
        if top is None:
            top = top_pixels(flat.flatten(0, 1), (critical, kept), config.seed).view(n, layers, -1)
        where = labels.flatten(1)
        inside = torch.stack([where == region for region in self.setting.regions], -1).float()
        regions = inside[0] if len(inside) == 1 else inside  # of one label map for all, or of each image's own
        with own_arithmetic(flat.device):
            mass = flat @ regions
        where = where.expand(n, -1)
        of_top = where.gather(1, top[..., :critical].flatten(1)).view(n, layers, critical)
        share = torch.stack([(of_top == region).sum(-1) for region in self.setting.regions], -1) / critical
        roots = flat.gather(2, top[..., :kept])
        roots = (roots / roots.sum(-1, keepdim=True).clamp(min=torch.finfo(roots.dtype).tiny)).sqrt()
        grid = config.patterns.grid
        coarse = F.adaptive_avg_pool2d(maps, grid).flatten(2)
        dense = (coarse / coarse.sum(-1, keepdim=True).clamp(min=torch.finfo(coarse.dtype).tiny)).sqrt()
        self.parts.append(
            {
                "share": share.float(),
                "mass": mass,
                "area": inside.mean(1).expand(n, -1),
                "top_pixels": top[..., :kept].to(torch.int32),
                "top_roots": roots,
                "dense": dense.half(),
            }
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything collected, for a shard; pixels as uint16 where that holds them."""
        if not self.parts:
            return {}
        joined = {name: torch.cat([part[name] for part in self.parts]).cpu().numpy() for name in self.parts[0]}
        if self.setting.config.pictures.size <= 256:
            joined["top_pixels"] = joined["top_pixels"].astype(np.uint16)
        return joined


# -- occlusion -----------------------------------------------------------------------------------------


class Occluder:
    """Occludes crops where maps are highest, and takes the fall of the cosine on every network."""

    def __init__(self, setting: Worker, shard: Shard, explained: int | None) -> None:
        self.setting, self.config = setting, setting.config
        self.measured = setting.measured(explained)
        self.fills = [as_fill(fill) for fill in self.config.fills]
        self.references: dict[int, Tensor] = {}
        self.before: dict[int, Tensor] = {}
        self.failed: dict[tuple[str, int], str] = {}
        self.crops, self.rows = torch.zeros(0, device="cpu", dtype=torch.float32), np.zeros(0, np.intp)
        self.of_batch: dict[int, tuple[Tensor, Tensor, Indices]] = {}
        self.filled: list[Tensor | None] = []
        for i in self.measured:
            embeddings = torch.from_numpy(shard[f"embedding.{i}"]).double()
            references = torch.from_numpy(shard[f"reference.{i}"]).double()
            self.references[i] = F.normalize(references, dim=1)
            self.before[i] = (F.normalize(embeddings, dim=1) * self.references[i]).sum(1)

    def cells(
        self, layer: str, controls: Sequence[str], fractions: Sequence[float], measured: Sequence[int]
    ) -> list[Cell]:
        """What the columns of :meth:`drops` mean."""
        names = [self.setting.networks[i].name for i in measured]
        return [
            (layer, control, fill.name, fraction, name)
            for control in controls
            for fill in self.fills
            for fraction in fractions
            for name in names
        ]

    def batch(self, crops: Tensor, rows: Indices, blurred: Tensor) -> None:
        """The crops (n, 3, H, W) that are occluded next, and which rows of the shard they are; fills that see no mask are made once."""
        self.crops, self.rows, at = crops, rows, torch.from_numpy(rows)
        for i in self.measured:
            before = self.before[i][at]
            self.of_batch[i] = before, self.references[i][at], np.flatnonzero(np.isfinite(before.numpy()))
        known = {"blur": blurred}
        self.filled = [
            None if fill.uses_masks else known[fill.name] if fill.name in known else fill(crops) for fill in self.fills
        ]

    def drops(self, top: Tensor, fractions: Sequence[float], measured: Sequence[int]) -> NDArray[np.float32]:
        """Drops (n, fills × fractions × networks) of the batch.

        Args:
            top: (n, K) pixels, the first to be occluded first.
            fractions: of the crop.
            measured: the networks.
        """
        crops = self.crops
        pixels, made = crops[0, 0].numel(), []
        for fill, filled in zip(self.fills, self.filled, strict=True):
            for fraction in fractions:
                masks = torch.zeros(len(crops), pixels, dtype=torch.float32, device=crops.device)
                masks.scatter_(1, top[:, : count_of(fraction, pixels)], 1.0)
                masks = masks.view(len(crops), 1, *crops.shape[2:])
                inside = fill(crops, masks[:, 0] > 0) if filled is None else filled
                occluded = torch.lerp(crops, inside, masks)  # exact at 0 and 1, and three times as fast as torch.where
                made.append([self._embedded(i, occluded) for i in measured])
        if not made or not measured:
            return np.zeros((len(self.rows), 0), np.float32)
        of_networks = [
            self._dropped(i, torch.stack(cells)) for i, cells in zip(measured, zip(*made, strict=True), strict=True)
        ]
        return np.stack(of_networks, 1).reshape(-1, len(self.rows)).T.astype(np.float32)

    def _embedded(self, i: int, occluded: Tensor) -> Tensor:
        """Embeddings (n, D) of the batch, occluded; NaN where the network raises, or there is nothing to compare them with."""
        network = self.setting.networks[i]
        module, (_, towards, measurable) = self.setting.module(network), self.of_batch[i]
        whole = torch.full_like(towards, torch.nan)
        if not len(measurable):
            return whole
        for part, made, reason in bisect_failures(
            lambda r: self.setting.embed(module, take_rows(occluded, r)), measurable
        ):
            if made is None:
                self.failed[(network.name, int(self.rows[part[0]]))] = reason
            elif len(part) == len(whole):
                whole = made.cpu().double()  # as nearly always: without a copy
            else:
                whole[torch.from_numpy(part)] = made.cpu().double()
        return whole

    def _dropped(self, i: int, made: Tensor) -> NDArray[np.float64]:
        """Drops (cells, n) of one network, from embeddings (cells, n, D) of occluded images."""
        before, towards, _ = self.of_batch[i]
        dropped: NDArray[np.float64] = (before - (F.normalize(made, dim=2) * towards).sum(2)).numpy()
        return dropped

    def failures(self, faces: Shard) -> list[Failure]:
        """Occluded images that a network raised on."""
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


def maps_shard(setting: Worker, faces: Shard, explained: int) -> Shard:
    """Maps of one network on a shard: regions, signatures, drops, sums.

    Arrays, by row (an image that has maps): ``rows`` of the shard of crops; ``shown`` (n, L) maps with anything to show; ``cosine``
    (n,); ``share``, ``mass`` (n, L, regions), ``area`` (n, regions); ``top_pixels``, ``top_roots``, ``dense``: signatures; ``drops``
    (n, cells). Sums: ``person_sums`` (people, H, W) and ``person_counts`` of overall maps, ``layer_sums`` (L, H, W), ``layer_counts``.
    ``maps``, float16, where the configuration stores them. L is 1 + layers, the overall map first.
    """
    config, network, people = setting.config, setting.networks[explained], faces.notes["people"]
    explain = Explainer(network, setting.module(network), config)
    occluder = Occluder(setting, faces, explained)
    references = faces[f"reference.{explained}"]
    usable = np.flatnonzero(np.isfinite(references).all(1))
    own = config.own_controls
    work = Collected([], {}, _without_reference(faces, references, network))
    signing, sums = Signing(setting, []), Sums(people)
    everyone, alone = occluder.measured, [explained] if not config.layer_transfer else occluder.measured
    cells = occluder.cells(OVERALL, ["", *own], config.fractions, everyone)
    for layer in network.layers:
        cells += occluder.cells(layer.name, [""], config.layer_fractions, alone)
    for rows, crops, blurred, maps, shown in _explained(setting, explain, faces, references, usable, work):
        labels = _labels_of(faces, rows, crops.device)
        order = _ranked(maps, setting)
        occluder.batch(crops, rows, blurred)
        signing.add(maps, labels, order["critical"])
        drops = [occluder.drops(order["overall"], config.fractions, everyone)]
        for name in own:
            top = _control_top(name, crops, rows, faces, maps[:, 0], config, setting)
            drops.append(occluder.drops(top, config.fractions, everyone))
        for at in range(len(network.layers) if config.layer_fractions else 0):
            drops.append(occluder.drops(order["layers"][:, at], config.layer_fractions, alone))
        sums.add(rows, maps, shown)
        stored = {"none": 0, "overall": 1, "all": maps.shape[1]}[config.store_maps]
        kept = {"maps": maps[:, :stored].half().cpu().numpy()} if stored else {}
        cosine = occluder.before[explained][torch.from_numpy(rows)].numpy()
        work.add(rows, {"drops": np.concatenate(drops, 1), "shown": shown.cpu().numpy(), "cosine": cosine, **kept})
    notes: dict[str, Any] = {"failed": work.failed + occluder.failures(faces), "cells": cells}
    notes["people"] = _people(work, people)
    if not work.rows:
        return Shard({"rows": np.zeros(0, np.int32)}, notes)
    return Shard({**work.joined(), **signing.arrays(), **sums.arrays()}, notes)


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
    setting: Worker,
    explain: Explainer,
    faces: Shard,
    references: NDArray[np.float32],
    usable: Indices,
    work: Collected,
) -> Iterator[tuple[Indices, Tensor, Tensor, Tensor, Tensor]]:
    """Rows with their crops, the crops blurred, maps and which are shown, batch by batch; what is refused goes to ``work.failed``."""
    for chosen in batches(len(usable), setting.config.batch_size):
        rows = usable[chosen]
        crops, blurred = setting.crops_and_blur(faces, rows)
        towards = torch.from_numpy(references[rows]).to(setting.config.device)

        def run(at: Indices, given: tuple[Tensor, ...] = (crops, towards, blurred)) -> tuple[Tensor, Tensor]:
            return explain(*(take_rows(tensor, at) for tensor in given))

        for at, made, reason in bisect_failures(run, np.arange(len(rows))):
            if made is None:
                work.failed.append(("explain", explain.network.name, int(faces["kept"][rows[at[0]]]), reason))
            else:
                yield rows[at], take_rows(crops, at), take_rows(blurred, at), made[0], made[1]


def _labels_of(faces: Shard, rows: Indices, device: torch.device) -> Tensor:
    labels = faces["labels"]
    return torch.from_numpy(labels if len(labels) == 1 else labels[rows]).to(device)


def _ranked(maps: Tensor, setting: Worker) -> dict[str, Tensor]:
    """The highest pixels of the overall map and of the layers, as far down as they are looked at."""
    config, pixels = setting.config, maps[0, 0].numel()
    both = {count_of(f, pixels) for f in (config.region_fraction, config.patterns.fraction)}
    counts = sorted(both | {count_of(f, pixels) for f in config.fractions})
    overall = top_pixels(maps[:, 0].flatten(1), counts, config.seed)
    counts = sorted(both | {count_of(f, pixels) for f in config.layer_fractions})
    n, layers = maps.shape[0], maps.shape[1] - 1
    of_layers = top_pixels(maps[:, 1:].flatten(2).flatten(0, 1), counts, config.seed).view(n, layers, -1)
    most = max(both)
    critical = torch.cat([overall[:, None, :most], of_layers[..., :most]], 1)
    return {"overall": overall, "layers": of_layers, "critical": critical}


def _control_top(
    name: str, crops: Tensor, rows: Indices, faces: Shard, maps: Tensor | None, config: Config, setting: Worker
) -> Tensor:
    """The highest pixels of a control's maps; what it draws depends on the pictures, not on how the study was cut."""
    face = central_ellipse((crops.shape[2], crops.shape[3])).to(crops.device).expand(len(crops), -1, -1)
    seed = (config.seed * 1_000_003 + zlib.crc32(faces["crops"][rows[0]].tobytes())) % (1 << 62)
    made = CONTROLS[name](Scene(crops, face, maps=maps, seed=seed)).float()
    counts = [count_of(f, crops[0, 0].numel()) for f in config.fractions]
    if made.stride(0) == 0:  # one map for all
        return top_pixels(made[:1].flatten(1), counts, config.seed).expand(len(crops), -1)
    return top_pixels(made.flatten(1), counts, config.seed)


class Sums:
    """Sums of maps over the images of each person, and over all."""

    def __init__(self, people: Sequence[str]) -> None:
        self.code = {person: i for i, person in enumerate(dict.fromkeys(people))}
        self.of = np.array([self.code[person] for person in people], dtype=np.int64)
        self.persons: Tensor | None = None
        self.counts = np.zeros(len(self.code), dtype=np.int32)
        self.layers: Tensor | None = None
        self.layer_counts: Tensor | None = None

    def add(self, rows: Indices, maps: Tensor, shown: Tensor) -> None:
        """Maps (n, L, H, W) of some rows of the shard."""
        maps, codes = maps.cpu(), torch.from_numpy(self.of[rows])
        if self.persons is None or self.layers is None or self.layer_counts is None:
            self.persons = torch.zeros(len(self.code), *maps.shape[2:], device="cpu", dtype=torch.float64)
            self.layers = torch.zeros(maps.shape[1:], device="cpu", dtype=torch.float64)
            self.layer_counts = torch.zeros(maps.shape[1], device="cpu", dtype=torch.int64)
        self.persons.index_add_(0, codes, maps[:, 0].double())
        self.counts += np.bincount(self.of[rows], minlength=len(self.code)).astype(np.int32)
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


def untrained_shard(setting: Worker, faces: Shard, explained: int, first: Shard, key: str) -> Shard:
    """Signatures of the maps of an untrained twin, made as those of the network; its BatchNorms see the first shard, named by its key."""
    config, network = setting.config, setting.networks[explained]
    nothing = {"rows": np.zeros(0, np.int32)}
    try:
        module = setting.twin(network, crops_of(first)[:TWIN_FACES], key)
    except Exception as error:  # whatever a user's network raises: there is no such control, the study goes on
        if is_out_of_memory(error):
            raise
        return Shard(nothing, {"failed": [], "problem": f"no untrained twin: {type(error).__name__}: {error}"[:500]})
    crops = crops_of(faces).to(config.device)
    own, _ = embedded(setting, module, crops)
    references = references_of(own, faces.notes["people"])
    work, signing = Collected([], {}, []), Signing(setting, [])
    explain = Explainer(network, module, config)
    usable = np.flatnonzero(np.isfinite(references).all(1))
    for rows, _, _, maps, shown in _explained(setting, explain, faces, references, usable, work):
        signing.add(maps, _labels_of(faces, rows, maps.device))
        work.add(rows, {"shown": shown.cpu().numpy()})
    if not work.rows:
        return Shard({"rows": np.zeros(0, np.int32)}, {"failed": []})
    return Shard(
        {**work.joined(), **signing.arrays()}, {"failed": []}
    )  # a control that fails on an image just lacks it


def controls_shard(setting: Worker, faces: Shard) -> Shard:
    """Controls that need no network to be made: their drops on all networks, and the signatures of the edges."""
    config = setting.config
    shared = config.shared_controls
    occluder = Occluder(setting, faces, None)
    cells = occluder.cells("", shared, config.fractions, occluder.measured)
    work, signing = Collected([], {}, []), Signing(setting, [])
    for rows in batches(len(faces["kept"]), config.batch_size):
        crops, blurred = setting.crops_and_blur(faces, rows)
        drops = [np.zeros((len(rows), 0), np.float32)]
        occluder.batch(crops, rows, blurred)
        for name in shared:
            top = _control_top(name, crops, rows, faces, None, config, setting)
            drops.append(occluder.drops(top, config.fractions, occluder.measured))
        face = torch.ones(len(crops), *crops.shape[2:], dtype=torch.bool, device=crops.device)
        edges, _ = distributions(CONTROLS["edges"](Scene(crops, face)))
        signing.add(edges[:, None], _labels_of(faces, rows, crops.device))
        work.add(rows, {"drops": np.concatenate(drops, 1)})
    notes = {"failed": occluder.failures(faces), "cells": cells}
    if not work.rows:
        return Shard({"rows": np.zeros(0, np.int32)}, notes)
    return Shard({**work.joined(), **signing.arrays()}, notes)


def others_shard(
    setting: Worker,
    faces: Shard,
    made: Shard,
    explained: int,
    total: NDArray[np.float64],
    count: int,
) -> Shard:
    """The control "other people": drops where the mean overall map of all *other* people is highest."""
    config, people = setting.config, faces.notes["people"]
    occluder = Occluder(setting, faces, explained)
    cells = occluder.cells(OVERALL, ["other people"], config.fractions, occluder.measured)
    rows_done = made["rows"].astype(np.intp)
    if not len(rows_done):
        return Shard({"rows": np.zeros(0, np.int32)}, {"failed": [], "cells": cells})
    left = count - made["person_counts"].astype(np.float64)
    others = (total - made["person_sums"].astype(np.float64)) / np.maximum(left, 1)[:, None, None]
    pixels = others[0].size
    tops = top_pixels(torch.from_numpy(others).flatten(1), [count_of(f, pixels) for f in config.fractions], config.seed)
    code = {person: i for i, person in enumerate(dict.fromkeys(people))}
    work = Collected([], {}, [])
    for at in batches(len(rows_done), config.batch_size):
        rows = rows_done[at]
        crops, blurred = setting.crops_and_blur(faces, rows)
        own = torch.tensor([code[people[row]] for row in rows], device="cpu", dtype=torch.int64)
        occluder.batch(crops, rows, blurred)
        drops = occluder.drops(tops[own].to(crops.device), config.fractions, occluder.measured)
        alone = left[own.numpy()] < 1  # nobody else: no such control
        drops[alone] = np.nan
        work.add(rows, {"drops": drops})
    return Shard(work.joined(), {"failed": occluder.failures(faces), "cells": cells})
