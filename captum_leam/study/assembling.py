"""Write the tables and mean maps of a study from its shards: one shard after the other, rows in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from captum_leam._optional import import_optional, pd
from captum_leam._storage import Shard, atomic_write
from captum_leam._stores import AnyPath
from captum_leam.patterns import compare_groups
from captum_leam.reporting.schema import GROUP_PREFIX, OVERALL, TABLES
from captum_leam.stats.bootstrap import Floats, divided, interval_of_sums
from captum_leam.stats.inference import PersonTotals, holm
from captum_leam.stats.sampling import sample_images
from captum_leam.study.listing import Picture
from captum_leam.study.plan import Plan
from captum_leam.study.stages import map_totals
from captum_leam.study.task import Index
from captum_leam.verification.pair_scores import PairScores
from captum_leam.verification.verify_model import Verification

if TYPE_CHECKING:
    import pyarrow as pa

BUFFER = 1 << 17  # rows of a table that are in memory at a time
QUANTITIES = ["share", "mass", "area", "lift"]
CELL = ["layer", "control", "fill", "fraction", "measured"]
MAX_PAIRS = 1_000_000  # of each kind that verification compares of a sample; of more, so many are drawn
VERIFIED = 100  # times max_pairs: pairs of the images of that sample
RESAMPLES = 2000
COSINE_BINS = np.round(np.linspace(-1, 1, 41), 2)
"""Edges of the bins of the table of cosines."""

Rows = list[dict[str, Any]]


def write_tables(plan: Plan, out: AnyPath) -> tuple[pd.DataFrame, Rows]:
    """Write the folders ``tables`` and ``maps``; the same shards always give the same bytes.

    Args:
        plan: The study, whose shards are all there.
        out: Folder of results.

    Returns:
        Table ``images``, and rows of the table ``skipped``.
    """
    folder = out / "tables"
    folder.mkdir(exist_ok=True)
    images, skipped = picture_tables(plan)
    means = write_measurements(plan, folder)
    verification, cosines = verification_rows(plan)
    tables: dict[str, Any] = {
        "images": images,
        "skipped": skipped,
        "verification": verification,
        "cosines": cosines,
        "layers": layer_rows(plan),
        "patterns": plan.rows("patterns"),
        "agreement": plan.rows("model_agreement", "layer_agreement"),
        "groups": group_rows(plan, means),
    }
    with open_tables(folder, list(tables), [f"{GROUP_PREFIX}{label}" for label in plan.listing.labels]) as writers:
        for name, rows in tables.items():
            writers[name].add(pd.DataFrame(rows))
    write_mean_maps(plan, out / "maps")
    write_person_maps(plan, out / "maps" / "people")
    return images, skipped


# -- Parquet -------------------------------------------------------------------------------------------


@dataclass
class TableWriter:
    """One table, written row group by row group."""

    schema: pa.Schema
    file: Any
    _tables: list[pa.Table] = field(default_factory=list)

    def add(self, frame: pd.DataFrame) -> None:
        """Add rows; what is missing is NaN, -1 or an empty text."""
        pa = import_optional("pyarrow")

        columns = frame.reindex(columns=self.schema.names)
        arrays = [_as_arrow(columns[column.name], column.type) for column in self.schema]
        self._tables.append(pa.Table.from_arrays(arrays, schema=self.schema))
        if sum(map(len, self._tables)) >= BUFFER:
            self.flush()

    def flush(self) -> None:
        """Write a row group."""
        pa = import_optional("pyarrow")

        if self._tables:
            table = pa.concat_tables(self._tables).combine_chunks()
            self.file.write_table(table, row_group_size=max(1, len(table)))
        self._tables = []


def _as_arrow(values: pd.Series, kind: pa.DataType) -> pa.Array:
    pa = import_optional("pyarrow")

    if pa.types.is_floating(kind):
        return pa.array(values.to_numpy(dtype=kind.to_pandas_dtype()), type=kind)
    array = pa.array(values, from_pandas=True).cast(kind)
    return array.fill_null("" if pa.types.is_string(kind) else -1) if array.null_count else array


@contextmanager
def open_tables(folder: AnyPath, names: Sequence[str], more: Sequence[str] = ()) -> Iterator[dict[str, TableWriter]]:
    """Open writers of some tables, whose files take their names together, once all of them are complete."""
    pq = import_optional("pyarrow.parquet")

    with ExitStack() as stack:
        places = {name: stack.enter_context(atomic_write(folder / f"{name}.parquet")) for name in names}
        with ExitStack() as files:
            writers = {}
            for name, place in places.items():
                schema = TABLES[name].schema(tuple(more) if TABLES[name].grows else ())
                file = pq.ParquetWriter(place, schema, compression="zstd", version="2.6")
                writers[name] = TableWriter(schema, files.enter_context(file))
            yield writers
            for writer in writers.values():
                writer.flush()


# -- pictures and layers -------------------------------------------------------------------------------

UNMEASURED = "no network has both an embedding of it and a reference from the person's other images"


def picture_tables(plan: Plan) -> tuple[pd.DataFrame, Rows]:
    """Return the table ``images``, and the rows of ``skipped``."""
    pictures, crops, failures = plan.listing.pictures, _crop_columns(plan), list(_failures(plan))
    unread = {picture.number: picture.reason for picture in pictures if picture.reason}
    unread |= {row["image"]: row["reason"] for row in failures if row["stage"] == "read"}
    rows = [(picture.number, picture.person, picture.name, picture.sha256) for picture in pictures]
    images = pd.DataFrame(rows, columns=["image", "person", "path", "sha256"])
    reasons = images["image"].map(unread | dict.fromkeys(crops.index[~crops["is_measured"]], UNMEASURED))
    images = images.assign(status=np.where(reasons.isna(), "ok", "skipped"), reason=reasons).join(crops, on="image")
    for at, label in enumerate(plan.listing.labels):
        images[f"{GROUP_PREFIX}{label}"] = [picture.groups[at] for picture in pictures]
    skipped: Rows = [
        {"what": "image", "stage": "read", **_picture_columns(picture), "reason": unread[picture.number]}
        for picture in pictures
        if picture.number in unread
    ]
    skipped += [
        {"what": path.what, "stage": "read", "person": path.person, "path": path.name, "reason": path.reason}
        for path in plan.listing.skipped_paths
    ]
    order = {network.name: i for i, network in enumerate(plan.networks)}
    failed = [row for row in failures if row["stage"] != "read"]
    failed.sort(key=lambda row: (order[row["model"]], row["image"], row["stage"], row["reason"]))
    distinct = list({tuple(row.items()): row for row in failed}.values())
    return images, skipped + distinct + _networks_without_twin(plan)


def _failures(plan: Plan) -> Iterator[dict[str, Any]]:
    """Yield the images that could not be read, embedded, explained or occluded."""
    for name in ("crops", "maps", "others", "controls"):
        for index, shard in plan.read(name):
            for stage, model, k, reason in shard.notes["failed"]:
                picture = _picture_columns(plan.shards[index.shard][k])
                yield {"what": "image", "stage": stage, "model": model, **picture, "reason": reason}


def _crop_columns(plan: Plan) -> pd.DataFrame:
    """Return, for each picture that was read, how, and whether any network has its embedding and its reference."""
    parts = []
    for index, shard in plan.read("crops"):
        pairs = [[shard[f"embedding.{i}"], shard[f"reference.{i}"]] for i in range(len(plan.networks))]
        is_measured = np.any([np.isfinite(np.concatenate(pair, axis=1)).all(1) for pair in pairs], axis=0)
        columns = {"crop": "how", "faces_found": "faces", "turn": "turns"}
        notes = {column: shard.notes[name] for column, name in columns.items()}
        numbers = [picture.number for picture in plan.pictures(index.shard)]
        parts.append(pd.DataFrame({**notes, "is_measured": is_measured}, index=numbers))
    return pd.concat(parts)


def _picture_columns(picture: Picture) -> dict[str, Any]:
    return {"image": picture.number, "person": picture.person, "path": picture.name}


def _networks_without_twin(plan: Plan) -> Rows:
    problems = {
        index.network: problem for index, shard in plan.read("untrained") if (problem := shard.notes.get("problem"))
    }
    head = {"what": "model", "stage": "patterns", "image": -1}
    return [{**head, "model": plan.networks[i].name, "reason": problem} for i, problem in problems.items()]


def layer_rows(plan: Plan) -> Rows:
    """Return the rows of ``layers``."""
    return [
        {
            "model": network.name,
            "layer": layer.name,
            **dict(zip(("channels", "height", "width"), layer.shape, strict=True)),
            "in_overall": layer.in_overall,
            "field": ", ".join(map(str, network.field)),
        }
        for network in plan.networks
        for layer in network.layers
    ]


# -- verification --------------------------------------------------------------------------------------

NO_IMAGE = "it embedded no image"
NO_PAIR = "no pair of one person, or none of two people, can be compared"


def verification_rows(plan: Plan) -> tuple[Rows, Rows]:
    """Return the rows of ``verification`` and of ``cosines``.

    All pairs are compared up to ``max_pairs`` of them. Of more, images of a random sample of people are
    (:func:`~captum_leam.stats.sampling.sample_images`, of a hundred times as many pairs): all their genuine pairs, and of their impostor
    pairs 1 million drawn. Rates and counts of cosines are then shares of these pairs, which estimate those of all; the standard error of a
    share respects that pairs have people in common, as :func:`~captum_leam.stats.interval_of_pairs` does.
    """
    rows, cosines = [], []
    for number, network in enumerate(plan.networks):
        scores, sizes = _pair_scores(plan, number)
        count = len(scores.people)
        is_sample = count < sizes["images"] or count * (count - 1) // 2 > plan.config.max_pairs
        verification = scores.compute(MAX_PAIRS if is_sample else plan.config.max_pairs, plan.config.seed)
        head = {"model": network.name, **sizes}
        if verification.has_both_kinds:
            rows.append({**head, **_error_rates(verification, plan.config.max_eer)})
            cosines += [{"model": network.name, **row} for row in cosine_counts(verification)]
        else:
            warning = NO_PAIR if scores.people else NO_IMAGE
            rows.append({**head, "genuine": 0, "impostor": 0, "separates": False, "warning": warning})
    return rows, cosines


def _pair_scores(plan: Plan, number: int) -> tuple[PairScores, dict[str, int]]:
    """Return the embeddings of a network that have a direction, with their people: all, or those of a sample; and how many there are."""
    config, pictures = plan.config, [picture for shard in plan.shards for picture in shard]
    codes = np.array([plan.person_numbers[picture.person] for picture in pictures], dtype=np.int64)
    sampled = sample_images(plan.people, codes, max_pairs=config.max_pairs, seed=config.seed)
    if len(sampled) < len(codes):
        sampled = sample_images(plan.people, codes, max_pairs=VERIFIED * config.max_pairs, seed=config.seed)
    chosen = {pictures[i].number for i in sampled}
    scores, images, people = PairScores(), 0, 0
    for index, shard in plan.read("crops"):
        embeddings, owners = shard[f"embedding.{number}"], shard.notes["people"]
        usable = np.isfinite(embeddings).all(1) & (np.linalg.norm(embeddings, axis=1) > 0)
        images += int(usable.sum())
        people += len({name for name, is_usable in zip(owners, usable, strict=True) if is_usable})
        usable &= np.array([picture.number in chosen for picture in plan.pictures(index.shard)], dtype=bool)
        if usable.any():
            scores.update(embeddings[usable], [owners[i] for i in np.flatnonzero(usable)])
    return scores, {"images": images, "people": people}


def _error_rates(verification: Verification, max_eer: float) -> dict[str, Any]:
    """Return the error rates of a network, and a warning where they are high."""
    rates, eer = verification.to_frame(), verification.eer
    genuine, impostor = verification.genuine, verification.impostor
    row = {"genuine": len(genuine), "impostor": len(impostor), "eer": eer, "eer_threshold": verification.eer_threshold}
    if len(rates):
        row |= {name: rates[name].iloc[-1] for name in ("tar", "fmr")}
    at_1e3 = rates[rates["fmr"] == 1e-3]
    if len(at_1e3):
        row |= {"tar_1e3": at_1e3["tar"].iloc[0], "threshold_1e3": at_1e3["threshold"].iloc[0]}
    warning = (
        f"the network hardly separates these people: equal error rate {eer:.0%}, mean cosine {genuine.mean():.2f} within people and "
        f"{impostor.mean():.2f} between; check the alignment and the preprocessing"
    )
    return {**row, "separates": eer <= max_eer, "warning": "" if eer <= max_eer else warning}


def cosine_counts(verification: Verification) -> Rows:
    """Return the rows of ``cosines``: pairs in each of :data:`COSINE_BINS`, genuine and impostor.

    Example:
        >>> rows = cosine_counts(Verification(np.array([0.99, 1.0]), np.array([-1.0])))
        >>> rows[39]["pairs"], rows[39]["high"], rows[40]["kind"], rows[40]["pairs"]
        (2, 1.0, 'impostor', 1)
    """
    rows = []
    for kind, scores in (("genuine", verification.genuine), ("impostor", verification.impostor)):
        pairs, _ = np.histogram(np.clip(scores, -1, 1), COSINE_BINS)  # rounding may lead just over 1
        bins = zip(COSINE_BINS[:-1].tolist(), COSINE_BINS[1:].tolist(), pairs.tolist(), strict=True)
        rows += [{"kind": kind, "low": low, "high": high, "pairs": count} for low, high, count in bins]
    return rows


# -- scores, regions and drops -------------------------------------------------------------------------


def write_measurements(plan: Plan, folder: AnyPath) -> dict[str, pd.DataFrame]:
    """Write ``scores``, ``regions``, ``drops`` and their summaries.

    Returns:
        Model → means of each person: the cosine, and the quantities in which groups are compared.
    """
    means = {}
    with open_tables(folder, ("scores", "regions", "drops", "region_summary", "drop_summary")) as writers:
        _write_drops(plan, -1, writers)
        for number, network in enumerate(plan.networks):
            if network.layers:
                columns = _write_drops(plan, number, writers) | _write_maps(plan, number, writers)
                means[network.name] = pd.DataFrame(columns, index=plan.people)
    return means


def _write_maps(plan: Plan, number: int, writers: Mapping[str, TableWriter]) -> dict[str, Floats]:
    """Write the cosines and the regions of a network, and return their means by person."""
    network = plan.networks[number]
    layers = pd.DataFrame({"model": network.name, "layer": [OVERALL, *[layer.name for layer in network.layers]]})
    names = [name for _, name in plan.parser.regions]
    columns = layers.merge(pd.DataFrame(product(names, QUANTITIES), columns=["region", "quantity"]), how="cross")
    scores, regions = PersonTotals(len(plan.people), 1), PersonTotals(len(plan.people), len(columns))
    for index, shard in plan.read("maps", network=number):
        if not len(shard["rows"]):
            continue
        images, codes = _owners(plan, index, shard)
        writers["scores"].add(images.assign(model=network.name, cosine=shard["cosine"]))
        scores.update(codes, shard["cosine"][:, None])
        values = _region_values(shard)
        regions.update(codes, values.reshape(len(values), -1))
        rows = layers.merge(images, how="cross").merge(pd.DataFrame({"region": names}), how="cross")
        rows[QUANTITIES] = values.swapaxes(0, 1).reshape(-1, len(QUANTITIES))
        writers["regions"].add(rows.dropna(subset="share"))
    means = regions.means()
    has_value = ~np.isnan(means)
    summary = _summary(columns, np.where(has_value, means, 0), has_value, plan, bounds=(0.0, np.inf))
    writers["region_summary"].add(summary)
    overall = means.reshape(len(means), len(layers), len(names), len(QUANTITIES))[:, 0]
    of_groups = {
        f"{quantity} of {name}": overall[:, k, QUANTITIES.index(quantity)]
        for quantity in ("share", "lift")
        for k, name in enumerate(names)
    }
    return {"cosine": scores.means()[:, 0], **of_groups}


def _owners(plan: Plan, index: Index, shard: Shard) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the columns ``image`` and ``person`` of the rows of a shard, and the numbers of the people."""
    pictures = plan.pictures(index.shard)
    images = pd.DataFrame([_picture_columns(pictures[i]) for i in shard["rows"]], columns=["image", "person"])
    return images, np.array([plan.person_numbers[person] for person in images["person"]], dtype=np.int64)


def _region_values(shard: Shard) -> NDArray[np.float32]:
    """Return (n, L, regions, quantities), NaN for maps that show nothing and for the lift of regions that an image lacks."""
    share, mass, area = shard["share"], shard["mass"], shard["area"][:, None]
    area = np.broadcast_to(area, share.shape)
    lift = np.divide(share, area, out=np.full_like(share, np.nan), where=area > 0)
    values: NDArray[np.float32] = np.stack([share, mass, area, lift], -1)
    values[~shard["shown"]] = np.nan
    return values


def _write_drops(plan: Plan, number: int, writers: Mapping[str, TableWriter]) -> dict[str, Floats]:
    """Write the drops of an explained network (-1: of the controls made without one); return the means by person that groups need."""
    explained, stages = ("", ("controls",)) if number < 0 else (plan.networks[number].name, ("maps", "others"))
    notes = [shard.notes["cells"] for stage in stages for _, shard in plan.read(stage, shard=0, network=number)]
    cells = pd.DataFrame([cell for of_stage in notes for cell in of_stage], columns=CELL)
    if cells.empty:
        return {}
    cells = cells.assign(explained=explained, method=cells["layer"].map(lambda layer: "LEAM" if layer else ""))
    totals = PersonTotals(len(plan.people), len(cells))
    for i in range(len(plan.shards)):
        parts = [part for stage in stages for part in plan.read(stage, shard=i, network=number)]
        index, shard = parts[0]
        if len(shard["rows"]):
            images, codes = _owners(plan, index, shard)
            drops = np.concatenate([part["drops"] for _, part in parts], 1)
            totals.update(codes, drops)
            rows = cells.merge(images, how="cross").assign(drop=drops.T.ravel())
            writers["drops"].add(rows.dropna(subset="drop"))
    summary = _summary(cells, totals.sums, totals.counts, plan)
    summary = summary.assign(images=totals.counts.sum(0)).rename(columns={"mean": "drop"})
    writers["drop_summary"].add(summary[summary["images"] > 0])
    fraction = middle(plan.config.fractions)
    is_own = (cells[CELL] == [OVERALL, "", plan.config.fills[0], fraction, explained]).all(axis=1)
    return {f"drop at {fraction:.0%}": means for means in totals.means()[:, is_own].T}


def middle(fractions: Sequence[float]) -> float:
    """Return the fraction nearest to 5 %, at which groups are compared.

    Example:
        >>> middle((0.01, 0.05, 0.2))
        0.05
    """
    return min(fractions, key=lambda fraction: abs(np.log(fraction / 0.05)))


def _summary(
    heads: pd.DataFrame, sums: Floats, counts: Floats | NDArray[np.bool_], plan: Plan, **bounds: tuple[float, float]
) -> pd.DataFrame:
    """Return means, intervals over people, and the number of people, a row for each column of the sums."""
    options: dict[str, Any] = {"confidence": plan.config.confidence, "seed": plan.config.seed, **bounds}
    low, high = interval_of_sums(sums, counts, resamples=RESAMPLES, **options)
    mean = divided(sums.sum(0), counts.sum(0))
    return heads.assign(people=(counts > 0).sum(0), mean=mean, low=low, high=high)


# -- mean maps -----------------------------------------------------------------------------------------


def write_mean_maps(plan: Plan, folder: AnyPath) -> None:
    """Write ``maps/mean.npz``: mean maps that sum to 1, the same bytes for the same study."""
    means: dict[str, NDArray[np.float32]] = {}
    for number, network in enumerate(plan.networks):
        totals = map_totals(shard for _, shard in plan.read("maps", network=number))
        names = [OVERALL, *[layer.name for layer in network.layers]]
        if totals:
            for name, values, count in zip(names, totals["layer_sums"], totals["layer_counts"], strict=True):
                if count:
                    means[f"{network.name}/{name}"] = (values / count).astype(np.float32)
    _write_arrays(folder / "mean.npz", means)


def write_person_maps(plan: Plan, folder: AnyPath) -> None:
    """Write float16 maps of single images where the configuration asks for them: ``maps/people/MODEL-SHARD.npz``."""
    if plan.config.store_maps == "none":
        return
    for index, shard in plan.read("maps"):
        if len(shard["rows"]):
            images = _owners(plan, index, shard)[0]["image"].to_numpy(np.int32)
            _write_arrays(
                folder / f"{index.network:02d}-{index.shard:05d}.npz", {"image": images, "maps": shard["maps"]}
            )


def _write_arrays(path: AnyPath, arrays: Mapping[str, NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as place, open(place, "wb") as file:
        # no allow_pickle=: older NumPy would store it as an array
        np.savez(file, **arrays)  # type: ignore[arg-type]


# -- groups --------------------------------------------------------------------------------------------


def group_rows(plan: Plan, means: Mapping[str, pd.DataFrame]) -> Rows:
    """Return the differences between groups, all p-values adjusted together.

    Args:
        plan: The study.
        means: Result of :func:`write_measurements`.
    """
    rows: Rows = []
    for at, label in enumerate(plan.listing.labels):
        groups = {p.person: p.groups[at] or None for p in plan.listing.pictures}
        for model, of_model in means.items():
            head = {"label": label, "model": model}
            rows += [{**head, **row} for row in _group_differences(plan, of_model, groups)]
    adjusted = holm([row["p"] for row in rows]) if rows else np.zeros(0)
    return [{**row, "p_holm": value} for row, value in zip(rows, adjusted, strict=True)]


def _group_differences(plan: Plan, means: pd.DataFrame, groups: Mapping[str, str | None]) -> Rows:
    config = plan.config
    names = {group for person in means.index if (group := groups[person]) is not None}
    if len(names) < 2:
        few = f"{len(names)} group{'s' * (len(names) != 1)} of people; expected two or more"
        return [{"quantity": "all", "p": float("nan"), "people_a": 0, "people_b": 0, "note": few}]
    ordered = means.loc[sorted(means.index, key=lambda person: groups[person] or "")]
    differences = compare_groups(
        {name: ordered[name].to_numpy() for name in ordered.columns if name != "cosine"},
        list(ordered.index),
        dict(groups),
        ordered["cosine"].to_numpy(),
        min_people=max(3, config.min_group),
        confidence=config.confidence,
        resamples=config.patterns.resamples,
        permutations=max(config.patterns.permutations, 199),
        seed=config.seed,
    )
    table = differences.table.rename(columns={"first": "group_a", "second": "group_b", "refused": "note"})
    for old, new in {"_first": "_a", "_second": "_b", "mean_": "value_"}.items():
        table.columns = table.columns.str.replace(old, new)
    return table.to_dict("records")  # type: ignore[return-value]
