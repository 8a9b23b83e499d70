"""From shards to tables: one shard after the other, rows in a fixed order, sums over people kept for the summaries."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from captum_leam._storage import Shard, atomic_write, read_shard
from captum_leam.errors import CaptumLeamError
from captum_leam.patterns import compare_groups
from captum_leam.reporting.tables import GROUP_PREFIX, OVERALL, TABLES, Table
from captum_leam.stats.bootstrap import divided, interval_of_sums
from captum_leam.stats.inference import PersonTotals, holm
from captum_leam.study.comparing import Source
from captum_leam.study.config import Config
from captum_leam.study.listing import Listing, Picture
from captum_leam.study.networks import Network
from captum_leam.verification.pair_scores import PairScores
from captum_leam.verification.verify_model import Verification

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

BUFFER = 1 << 17  # rows of a table that are in memory at a time
QUANTITIES = ("share", "mass", "area", "lift")
MAX_PAIRS = 1_000_000  # of each kind that verification compares; of more, so many are drawn
RESAMPLES = 2000
COSINE_BINS = np.round(np.linspace(-1, 1, 41), 2)
"""Edges of the bins of the table of cosines."""


@dataclass(frozen=True)
class Coded:
    """A text column as numbers of names: millions of rows without as many strings."""

    codes: NDArray[Any]
    names: Sequence[str]


@dataclass
class Writer:
    """One table, written row group by row group."""

    table: Table
    place: Path
    more: tuple[str, ...] = ()
    rows: int = 0
    _held: list["pa.Table"] = field(default_factory=list)
    _count: int = 0
    _file: Any = None

    def add(self, columns: Mapping[str, Any]) -> None:
        """More rows: arrays, lists, :class:`Coded`, or one value for all of them."""
        import pyarrow as pa

        lengths = [len(v.codes) if isinstance(v, Coded) else len(v) for v in columns.values() if _is_many(v)]
        count = lengths[0] if lengths else 1
        schema = self.table.schema(self.more)
        arrays = [_arrow(columns[name], schema.field(name).type, count) for name in schema.names]
        self._held.append(pa.Table.from_arrays(arrays, schema=schema))
        self.rows += count
        self._count += count
        if self._count >= BUFFER:
            self._flush()

    def add_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Few rows, one mapping each; what is missing is NaN or empty."""
        if rows:
            columns = self.table.columns
            empty = {c.name: {"string": "", "int32": -1}.get(c.kind, float("nan")) for c in columns}
            names = [*empty, *self.more]
            self.add({n: [empty.get(n, "") if row.get(n) is None else row[n] for row in rows] for n in names})

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self.table.schema(self.more)
        if self._file is None:
            self._file = pq.ParquetWriter(self.place, schema, compression="zstd", version="2.6")
        if self._held:
            joined = pa.concat_tables(self._held).combine_chunks()
            self._file.write_table(joined, row_group_size=max(1, len(joined)))
        self._held, self._count = [], 0

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._file.close()


def _is_many(value: Any) -> bool:
    return isinstance(value, Coded | list | np.ndarray)


def _arrow(value: Any, kind: Any, count: int) -> Any:
    import pyarrow as pa

    if isinstance(value, Coded):
        codes = pa.array(np.asarray(value.codes, dtype=np.int32))
        return pa.DictionaryArray.from_arrays(codes, pa.array(list(value.names), pa.string())).cast(kind)
    if _is_many(value):
        return pa.array(value, type=kind)
    return pa.repeat(pa.scalar(value, type=kind), count)


@contextmanager
def writing(folder: Path, names: Sequence[str], more: tuple[str, ...] = ()) -> Iterator[dict[str, Writer]]:
    """Writers of some tables; the files take their names together, once all of them are whole."""
    with ExitStack() as stack:
        writers = {}
        for name in names:
            table = TABLES[name]
            place = stack.enter_context(atomic_write(folder / f"{name}.parquet"))
            writers[name] = Writer(table, place, more if table.grows else ())
        yield writers
        for writer in writers.values():
            writer.close()


# -- pictures ------------------------------------------------------------------------------------------

UNMEASURED = "no network has both an embedding of it and a reference from the person's other images"


@dataclass(frozen=True)
class StudyShards:
    """The shards of a study: their pictures and their files, in order."""

    config: Config
    listing: Listing
    networks: tuple[Network, ...]
    regions: tuple[tuple[int, str], ...]
    pictures: tuple[tuple[Picture, ...], ...]
    sources: tuple[Source, ...]
    others: tuple[tuple[Path | None, ...], ...] = ()

    def people(self) -> list[str]:
        """Everybody with a usable picture, in order."""
        return list(dict.fromkeys(picture.person for shard in self.pictures for picture in shard))


def picture_rows(shards: StudyShards) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of ``images`` and of ``skipped``."""
    reasons = {p.number: p.reason for p in shards.listing.pictures if p.reason}
    how: dict[int, dict[str, Any]] = {}
    failed: list[dict[str, Any]] = []
    unmeasured: list[Picture] = []
    for pictures, source, others in zip(shards.pictures, shards.sources, shards.others, strict=True):
        shard = read_shard(source.crops)
        told = zip(shard["kept"].tolist(), shard.notes["how"], shard.notes["faces"], shard.notes["turns"], strict=True)
        how |= {pictures[i].number: {"crop": kind, "faces_found": n, "turn": turn} for i, kind, n, turn in told}
        unmeasured += [pictures[i] for i in shard["kept"][~_has_cosine(shard, len(shards.networks))]]
        paths = [p for p in (*source.maps, *others, source.controls) if p is not None]
        for notes in (shard.notes, *(read_shard(path).notes for path in paths)):
            for stage, model, at, reason in notes["failed"]:
                picture = pictures[at]
                if stage == "read":
                    reasons[picture.number] = reason
                else:
                    head = {"what": "image", "stage": stage, "model": model, "layer": ""}
                    failed.append({**head, **_of_picture(picture), "reason": reason})
    left_out = reasons | {picture.number: UNMEASURED for picture in unmeasured}
    images = [_image_row(picture, left_out, how, shards.listing.labels) for picture in shards.listing.pictures]
    read = [
        {"what": "image", "stage": "read", **_of_picture(p), "reason": reasons[p.number]}
        for p in shards.listing.pictures
        if p.number in reasons
    ]
    read += [
        {"what": o.what, "stage": "read", "person": o.person, "path": o.name, "reason": o.reason}
        for o in shards.listing.skipped_paths
    ]
    by = {network.name: i for i, network in enumerate(shards.networks)}
    failed.sort(key=lambda row: (by[row["model"]], row["image"], row["stage"], row["reason"]))
    distinct = list({tuple(row.items()): row for row in failed}.values())
    return images, read + distinct + _twinless(shards)


def _has_cosine(shard: Shard, networks: int) -> NDArray[np.bool_]:
    """Return for each crop of a shard whether any network has its embedding and its reference."""
    pairs = [np.concatenate([shard[f"embedding.{i}"], shard[f"reference.{i}"]], axis=1) for i in range(networks)]
    found: NDArray[np.bool_] = np.any([np.isfinite(pair).all(1) for pair in pairs], axis=0)
    return found


def _of_picture(picture: Picture) -> dict[str, Any]:
    return {"image": picture.number, "person": picture.person, "path": picture.name}


def _twinless(shards: StudyShards) -> list[dict[str, Any]]:
    """Networks of which there is no untrained twin."""
    rows: dict[str, dict[str, Any]] = {}
    for source in shards.sources:
        for network, path in zip(shards.networks, source.untrained, strict=True):
            if path is not None and (problem := read_shard(path).notes.get("problem")):
                head = {"what": "model", "stage": "patterns", "model": network.name, "image": -1}
                rows.setdefault(network.name, {**head, "reason": problem})
    return list(rows.values())


def _image_row(
    picture: Picture, reasons: Mapping[int, str], how: Mapping[int, Mapping[str, Any]], labels: Sequence[str]
) -> dict[str, Any]:
    reason = reasons.get(picture.number, "")
    return {
        **_of_picture(picture),
        "sha256": picture.sha256,
        "status": "skipped" if reason else "ok",
        "reason": reason,
        **how.get(picture.number, {}),
        **{f"{GROUP_PREFIX}{label}": value for label, value in zip(labels, picture.groups, strict=True)},
    }


# -- verification --------------------------------------------------------------------------------------


def verification_rows(shards: StudyShards) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Whether each network tells these people apart, and the cosines behind that, counted."""
    rows, cosines = [], []
    for number, network in enumerate(shards.networks):
        scores = _pair_scores(shards, number)
        head = {"model": network.name, "images": len(scores.people), "people": len(set(scores.people))}
        found = scores.compute(MAX_PAIRS, shards.config.seed)
        if not found.has_both_kinds:
            why = "no pair of one person, or none of two people, can be compared" if scores.people else NO_IMAGE
            rows.append({**head, "genuine": 0, "impostor": 0, "separates": False, "warning": why})
        else:
            rows.append({**head, **_rates(found, shards.config.max_eer)})
            cosines += [{"model": network.name, **row} for row in counted(found)]
    return rows, cosines


NO_IMAGE = "it embedded no image"


def _pair_scores(shards: StudyShards, number: int) -> PairScores:
    """Return the embeddings of a network that have a direction, with their people."""
    scores = PairScores()
    for source in shards.sources:
        shard = read_shard(source.crops)
        embeddings = shard[f"embedding.{number}"]
        usable = np.isfinite(embeddings).all(1) & (np.linalg.norm(embeddings, axis=1) > 0)
        if usable.any():
            people = [name for name, is_usable in zip(shard.notes["people"], usable, strict=True) if is_usable]
            scores.update(embeddings[usable], people)
    return scores


def _rates(found: Verification, max_eer: float) -> dict[str, Any]:
    """Error rates of a network, and a warning where they are high."""
    rates, eer = found.to_frame(), found.eer
    row = {"genuine": len(found.genuine), "impostor": len(found.impostor), "eer": eer}
    row["eer_threshold"] = found.eer_threshold
    if len(rates):
        row |= {"tar": float(rates["tar"].iloc[-1]), "fmr": float(rates["fmr"].iloc[-1])}
    at = rates[rates["fmr"] == 1e-3]
    if len(at):
        row |= {"tar_1e3": float(at["tar"].iloc[0]), "threshold_1e3": float(at["threshold"].iloc[0])}
    warning = (
        f"the network hardly separates these people: equal error rate {eer:.0%}, mean cosine {found.genuine.mean():.2f} within people and "
        f"{found.impostor.mean():.2f} between; check the alignment and the preprocessing"
    )
    return {**row, "separates": eer <= max_eer, "warning": "" if eer <= max_eer else warning}


def counted(found: Verification) -> list[dict[str, Any]]:
    """Rows of the table of cosines: pairs in each of :data:`COSINE_BINS`, genuine and impostor.

    Example:
        >>> made = counted(Verification(np.array([0.99, 1.0]), np.array([-1.0])))
        >>> made[39]["pairs"], made[39]["high"], made[40]["kind"], made[40]["pairs"]
        (2, 1.0, 'impostor', 1)
    """
    rows = []
    for kind, scores in (("genuine", found.genuine), ("impostor", found.impostor)):
        pairs, _ = np.histogram(np.clip(scores, -1, 1), COSINE_BINS)  # rounding may lead just over 1
        bins = zip(COSINE_BINS[:-1].tolist(), COSINE_BINS[1:].tolist(), pairs.tolist(), strict=True)
        rows += [{"kind": kind, "low": low, "high": high, "pairs": n} for low, high, n in bins]
    return rows


# -- images, maps and drops ----------------------------------------------------------------------------


@dataclass
class PersonMeans:
    """What the tables of images leave for those of groups: means of every person, by model."""

    people: list[str]
    cosine: dict[str, Floats] = field(default_factory=dict)
    drop: dict[str, Floats] = field(default_factory=dict)
    regions: dict[str, Floats] = field(default_factory=dict)


def write_measurements(shards: StudyShards, folder: Path) -> PersonMeans:
    """Write ``scores``, ``regions``, ``drops`` and their summaries, in one pass over the shards of every network."""
    means = PersonMeans(shards.people())
    code = {person: i for i, person in enumerate(means.people)}
    with writing(folder, ("scores", "regions", "drops", "region_summary", "drop_summary")) as writers:
        _shared_drops(shards, code, writers)
        for number, network in enumerate(shards.networks):
            if network.layers:
                _of_network(shards, number, code, writers, means)
    return means


def _rows_of(shards: StudyShards, i: int, shard: Shard) -> list[Picture]:
    """Return the pictures of the rows of a shard."""
    kept = read_shard(shards.sources[i].crops)["kept"]
    return [shards.pictures[i][k] for k in kept[shard["rows"]]]


def _of_network(
    shards: StudyShards, number: int, code: Mapping[str, int], writers: Mapping[str, Writer], means: PersonMeans
) -> None:
    network, config = shards.networks[number], shards.config
    places = [OVERALL, *[layer.name for layer in network.layers]]
    names = [name for _, name in shards.regions]
    regions = PersonTotals(len(code), len(places) * len(names) * len(QUANTITIES))
    scores = PersonTotals(len(code), 1)
    drops: _Drops | None = None
    for i, source in enumerate(shards.sources):
        path, other = source.maps[number], shards.others[i][number]
        if path is None:
            continue
        shard = read_shard(path)
        more = None if other is None else read_shard(other)
        cells = [tuple(cell) for cell in shard.notes["cells"]] + (
            [] if more is None else [tuple(c) for c in more.notes["cells"]]
        )
        drops = drops or _Drops(network.name, cells, PersonTotals(len(code), len(cells)))
        if not len(shard["rows"]):
            continue
        pictures = _rows_of(shards, i, shard)
        codes = np.array([code[p.person] for p in pictures])
        who = RowOwners(np.array([p.number for p in pictures], dtype=np.int32), codes, means.people)
        writers["scores"].add({"model": network.name, **who.columns(1), "cosine": shard["cosine"]})
        scores.update(codes, shard["cosine"][:, None])
        values = _region_values(shard)
        regions.update(codes, values.reshape(len(values), -1))
        _region_rows(writers["regions"], network.name, places, names, who, values)
        together = shard["drops"] if more is None else np.concatenate([shard["drops"], more["drops"]], 1)
        drops.add(writers["drops"], who, together)
    if drops is not None:
        drops.summarise(writers["drop_summary"], config.confidence, config.seed)
        own = drops.column(OVERALL, "", config.fills[0], middle(config.fractions), network.name)
        means.drop[network.name] = drops.sums.means()[:, own]
    means.cosine[network.name] = scores.means()[:, 0]
    means.regions[network.name] = regions.means()[:, : len(names) * len(QUANTITIES)]
    _region_summary(writers["region_summary"], network.name, places, names, regions, config)


def middle(fractions: Sequence[float]) -> float:
    """Return the fraction nearest to 5 %, at which groups are compared.

    Example:
        >>> middle((0.01, 0.05, 0.2))
        0.05
    """
    return min(fractions, key=lambda fraction: abs(np.log(fraction / 0.05)))


@dataclass(frozen=True)
class RowOwners:
    """Images of rows and whose they are."""

    images: NDArray[np.int32]
    codes: NDArray[np.int64]
    people: Sequence[str]

    def columns(self, times: int) -> dict[str, Any]:
        """``image`` and ``person``, all rows ``times`` times over."""
        there, at = np.unique(self.codes, return_inverse=True)
        names = [self.people[i] for i in there]
        return {"image": np.tile(self.images, times), "person": Coded(np.tile(at, times), names)}


def _region_values(shard: Shard) -> NDArray[np.float32]:
    """(n, L, regions, quantities); NaN for maps that show nothing, and the lift of regions that are not there."""
    share, mass, area = shard["share"], shard["mass"], shard["area"][:, None]
    area = np.broadcast_to(area, share.shape)
    lift = np.divide(share, area, out=np.full_like(share, np.nan), where=area > 0)
    values: NDArray[np.float32] = np.stack([share, mass, area, lift], -1)
    values[~shard["shown"]] = np.nan
    return values


def _region_rows(
    writer: Writer, model: str, places: Sequence[str], names: Sequence[str], who: RowOwners, values: NDArray[np.float32]
) -> None:
    """Layer by layer, image by image, region by region."""
    for layer, place in enumerate(places):
        shown = ~np.isnan(values[:, layer, 0, 0])
        if not shown.any():
            continue
        there = RowOwners(who.images[shown].repeat(len(names)), who.codes[shown].repeat(len(names)), who.people)
        flat = values[shown, layer].reshape(-1, len(QUANTITIES))
        region = Coded(np.tile(np.arange(len(names)), int(shown.sum())), names)
        quantities = {quantity: flat[:, q] for q, quantity in enumerate(QUANTITIES)}
        writer.add({"model": model, "layer": place, **there.columns(1), "region": region, **quantities})


def _region_summary(
    writer: Writer, model: str, places: Sequence[str], names: Sequence[str], regions: PersonTotals, config: Config
) -> None:
    means = regions.means()
    known = ~np.isnan(means)
    filled = np.where(known, means, 0)
    low, high = interval_of_sums(
        filled, known, confidence=config.confidence, resamples=RESAMPLES, seed=config.seed, bounds=(0.0, np.inf)
    )
    people = known.sum(0)
    mean = divided(filled.sum(0), people)
    columns = [(place, name, quantity) for place in places for name in names for quantity in QUANTITIES]
    writer.add(
        {
            "model": model,
            "layer": [place for place, _, _ in columns],
            "region": [name for _, name, _ in columns],
            "quantity": [quantity for _, _, quantity in columns],
            "people": people.astype(np.int32),
            "mean": mean,
            "low": low,
            "high": high,
        }
    )


@dataclass
class _Drops:
    """Drops of one explained network (or of controls made without one), cell by cell."""

    explained: str
    cells: list[tuple[Any, ...]]
    sums: PersonTotals

    def _head(self, cell: tuple[Any, ...]) -> dict[str, Any]:
        layer, control, fill, fraction, measured = cell
        method = "LEAM" if layer else ""
        return {
            "explained": self.explained,
            "layer": layer,
            "measured": measured,
            "method": method,
            "control": control,
            "fill": fill,
            "fraction": fraction,
        }

    def add(self, writer: Writer, who: RowOwners, values: NDArray[np.float32]) -> None:
        """Add drops (n, cells) and write their rows."""
        self.sums.update(who.codes, values)
        for at, cell in enumerate(self.cells):
            known = ~np.isnan(values[:, at])
            if known.any():
                there = RowOwners(who.images[known], who.codes[known], who.people)
                writer.add({**self._head(cell), **there.columns(1), "drop": values[known, at]})

    def column(self, *cell: Any) -> int:
        """Which column a cell is."""
        return self.cells.index(cell)

    def summarise(self, writer: Writer, confidence: float, seed: int) -> None:
        """Means over images, intervals over people."""
        if not self.cells:
            return
        sums, counts = self.sums.sums, self.sums.counts
        low, high = interval_of_sums(sums, counts, confidence=confidence, resamples=RESAMPLES, seed=seed)
        images = counts.sum(0)
        mean = divided(sums.sum(0), images)
        for at, cell in enumerate(self.cells):
            head = {**self._head(cell), "images": int(images[at]), "people": int((counts[:, at] > 0).sum())}
            if images[at]:
                writer.add({**head, "drop": float(mean[at]), "low": float(low[at]), "high": float(high[at])})


def _shared_drops(shards: StudyShards, code: Mapping[str, int], writers: Mapping[str, Writer]) -> None:
    drops: _Drops | None = None
    people = list(code)
    for i, source in enumerate(shards.sources):
        if source.controls is None:
            continue
        shard = read_shard(source.controls)
        cells = [tuple(cell) for cell in shard.notes["cells"]]
        drops = drops or _Drops("", cells, PersonTotals(len(code), len(cells)))
        if len(shard["rows"]) and cells:
            pictures = _rows_of(shards, i, shard)
            images = np.array([p.number for p in pictures], dtype=np.int32)
            who = RowOwners(images, np.array([code[p.person] for p in pictures]), people)
            drops.add(writers["drops"], who, shard["drops"])
    if drops is not None:
        drops.summarise(writers["drop_summary"], shards.config.confidence, shards.config.seed)


# -- mean maps -----------------------------------------------------------------------------------------


def layer_totals(paths: Sequence[Path]) -> tuple[Floats, NDArray[np.int64], Floats, int]:
    """Return sums (L, H, W) and counts of the maps of one network over all shards, the sum of its overall maps, and the images.

    Raises:
        CaptumLeamError: if no image has a map.
    """
    layers: Floats | None = None
    counts: NDArray[np.int64] = np.zeros(1, np.int64)
    total, images = np.zeros((1, 1)), 0
    for path in paths:
        shard = read_shard(path)
        if not len(shard["rows"]):
            continue
        if layers is None:
            layers = np.zeros(shard["layer_sums"].shape)
            counts = np.zeros(len(layers), np.int64)
            total = np.zeros(layers.shape[1:])
        layers += shard["layer_sums"]
        counts = counts + shard["layer_counts"]
        total += shard["person_sums"].sum(0, dtype=np.float64)
        images += int(shard["person_counts"].sum())
    if layers is None:
        raise CaptumLeamError("no image has a map.")
    return layers, counts, total, images


def write_mean_maps(shards: StudyShards, folder: Path) -> None:
    """Write ``maps/mean.npz``: mean maps that sum to 1, the same bytes for the same study."""
    means: dict[str, NDArray[np.float32]] = {}
    for number, network in enumerate(shards.networks):
        paths = [path for source in shards.sources if (path := source.maps[number]) is not None]
        try:
            layers, counts, _, _ = layer_totals(paths)
        except ValueError:
            continue
        for place, values, count in zip([OVERALL, *[x.name for x in network.layers]], layers, counts, strict=True):
            if count:
                means[f"{network.name}/{place}"] = (values / count).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "mean.npz") as place_, open(place_, "wb") as file:
        np.savez(file, allow_pickle=False, **means)


def write_person_maps(shards: StudyShards, folder: Path) -> None:
    """Write float16 maps of single images where the configuration asks for them: ``maps/people/MODEL-SHARD.npz``."""
    if shards.config.store_maps == "none":
        return
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(shards.networks)):
        for i, source in enumerate(shards.sources):
            if (path := source.maps[number]) is None or not len((shard := read_shard(path))["rows"]):
                continue
            images = np.array([picture.number for picture in _rows_of(shards, i, shard)], dtype=np.int32)
            with atomic_write(folder / f"{number:02d}-{i:05d}.npz") as place, open(place, "wb") as file:
                np.savez(file, allow_pickle=False, image=images, maps=shard["maps"])


# -- groups --------------------------------------------------------------------------------------------


def group_rows(shards: StudyShards, means: PersonMeans) -> list[dict[str, Any]]:
    """Differences between groups, all p-values adjusted together."""
    rows: list[dict[str, Any]] = []
    for at, label in enumerate(shards.listing.labels):
        of = {p.person: (p.groups[at] or None) for p in shards.listing.pictures}
        groups = {person: of[person] for person in means.people}
        named = sorted({group for group in groups.values() if group is not None})
        for network in shards.networks:
            if network.layers and network.name in means.drop:
                rows += _group_rows(shards, means, label, groups, named, network.name)
    adjusted = holm([row["p"] for row in rows]) if rows else np.zeros(0)
    return [{**row, "p_holm": float(value)} for row, value in zip(rows, adjusted, strict=True)]


def _group_rows(
    shards: StudyShards,
    means: PersonMeans,
    label: str,
    groups: Mapping[str, str | None],
    named: Sequence[str],
    model: str,
) -> list[dict[str, Any]]:
    head = {"label": label, "model": model}
    if len(named) < 2:
        few = f"{len(named)} group{'s' * (len(named) != 1)} of people; needed are two or more"
        return [{**head, "quantity": "all", "p": float("nan"), "people_a": 0, "people_b": 0, "note": few}]
    config = shards.config
    regions = means.regions[model].reshape(len(means.people), len(shards.regions), len(QUANTITIES))
    values = {f"drop at {middle(config.fractions):.0%}": means.drop[model]}
    for quantity in ("share", "lift"):
        of_quantity = regions[..., QUANTITIES.index(quantity)]
        values |= {f"{quantity} of {name}": of_quantity[:, k] for k, (_, name) in enumerate(shards.regions)}
    order = sorted(range(len(means.people)), key=lambda i: (groups[means.people[i]] or "", i))
    people = [means.people[i] for i in order]
    table = compare_groups(
        {name: column[order] for name, column in values.items()},
        people,
        dict(groups),
        means.cosine[model][order],
        min_people=max(3, config.min_group),
        confidence=config.confidence,
        resamples=config.patterns.resamples,
        permutations=max(config.patterns.permutations, 199),
        seed=config.seed,
    ).table
    columns = {
        "group_a": "first",
        "group_b": "second",
        "quantity": "quantity",
        "value_a": "mean_first",
        "value_b": "mean_second",
        "difference": "difference",
        "low": "low",
        "high": "high",
        "p": "p",
        "people_a": "people_first",
        "people_b": "people_second",
        "base_a": "base_first",
        "base_b": "base_second",
        "note": "refused",
    }
    return [{**head, **{new: row[old] for new, old in columns.items()}} for row in table.to_dict("records")]


def write_small(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]], more: tuple[str, ...]) -> None:
    """Write tables of few rows."""
    with writing(folder, tuple(rows), more) as writers:
        for name, of_table in rows.items():
            writers[name].add_rows(of_table)
