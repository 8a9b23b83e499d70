"""Are the results what the manifest says, and does the same study give them again?"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captum_leam._storage import file_sha256, read_shard, shard_digest
from captum_leam.errors import BrokenFileError, ConfigError
from captum_leam.study.config import Config
from captum_leam.study.evaluating import Setting
from captum_leam.study.identity import Fingerprint, from_dict
from captum_leam.study.listing import hashed, list_people
from captum_leam.study.networks import known
from captum_leam.study.reading import known_parser
from captum_leam.study.stages import perform, steady

TOLERANCE = 5e-3
"""How far cosines, drops and shares may lie apart between devices or versions; on one machine it is 0."""


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was found.

    Attributes:
        good: what fits, in words.
        bad: what does not.
    """

    good: tuple[str, ...]
    bad: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Nothing was found that does not fit."""
        return not self.bad

    def __repr__(self) -> str:
        return "\n".join([*[f"ok: {line}" for line in self.good], *[f"WRONG: {line}" for line in self.bad]])


def check(config: Config, *, recompute: int = 1, progress: bool = True) -> Check:
    """Compare a results folder with its manifest, with its inputs of today, and with itself made again.

    1. every table and mean map has the SHA-256 of the manifest, every shard its own checksum and that of the manifest;
    2. configuration, pictures, networks, parser, package and versions are those of the manifest;
    3. the tables made again from the shards are the same bytes;
    4. ``recompute`` shards made again from the pictures are the same numbers (bit for bit, or within 0.005).
    """
    found: list[tuple[bool, str]] = []
    try:
        manifest = json.loads((config.out / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{config.out} holds no manifest of a finished study ({error}); run it first.") from None
    found += _files(config.out, manifest)
    found += _inputs(config, manifest, recompute, progress)
    return Check(tuple(line for fine, line in found if fine), tuple(line for fine, line in found if not fine))


def _files(out: Path, manifest: dict[str, Any]) -> Iterator[tuple[bool, str]]:
    for what in ("tables", "maps"):
        wrong = [name for name, digest in manifest[what].items() if not _fits(out / name, digest)]
        yield (
            not wrong,
            f"{len(manifest[what]) - len(wrong)} of {len(manifest[what])} {what} fit their checksums{_listed(wrong)}",
        )
    shards = manifest["shards"]
    gone = [name for name in shards if not (out / name).exists()]
    if len(gone) == len(shards):
        yield True, f"the {len(shards)} shards were deleted: only tables and maps could be looked at"
        return
    wrong = [name for name, digest in shards.items() if shard_digest(out / name) != digest]
    yield not wrong, f"{len(shards) - len(wrong)} of {len(shards)} shards fit their checksums{_listed(wrong)}"


def _fits(path: Path, digest: str) -> bool:
    try:
        return file_sha256(path) == digest
    except OSError:
        return False


def _listed(names: list[str]) -> str:
    return f"; not: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if names else ""


def _inputs(config: Config, manifest: dict[str, Any], recompute: int, progress: bool) -> Iterator[tuple[bool, str]]:
    from captum_leam.study.study import code_sha256, plan_of, versions

    then, now = _without_places(manifest["configuration"]), _without_places(config.to_dict())
    changed = [key for key in now if now[key] != then.get(key)]
    yield not changed, f"configuration: {'as it was' if not changed else 'other values of ' + ', '.join(changed)}"
    installed = versions()
    other = [
        f"{k} {v} (was {manifest['versions'].get(k)})" for k, v in installed.items() if manifest["versions"].get(k) != v
    ]
    same_code = code_sha256() == manifest["code"] and not other
    yield (
        True,
        f"versions: {'as they were' if same_code else 'others: ' + (', '.join(other) or 'the sources of captum-leam')}",
    )
    with steady(config.threads):
        listing = hashed(list_people(config), config.min_images, progress=progress)
        stored = {name: _fingerprints(entry) for name, entry in manifest["models"].items()}
        size = config.pictures.size
        networks = tuple(known(m, config.device, size, stored.get(m.name, [])) for m in config.models)
        parser = known_parser(config, _fingerprints(manifest["parser"]))
        plan = plan_of(config, listing, networks, parser, config.out)
        models = [n.name for n in networks if n.fingerprint not in stored.get(n.name, [])]
        same_parser = parser.fingerprint in _fingerprints(manifest["parser"])
        if any(stored.values()):
            yield not models, f"networks: {'as they were' if not models else 'others: ' + ', '.join(models)}"
            yield same_parser, f"parser: {'as it was' if same_parser else 'another'}"
        else:
            yield True, "networks and parser: not compared, the manifest is of a version without their outputs"
        same = listing.sha256 == manifest["data"]["sha256"]
        yield same, f"{len(listing.pictures)} pictures: {'as they were' if same else 'not those of the manifest'}"
        there = all(shard_digest(path) for path in plan.crops_paths())
        if there:
            plan.leave_out_copies()
            there = all(shard_digest(path) for path in plan.crops_paths())
        if same_code and there and same and not models and not changed:
            plan.describe()
            yield _tables_again(config, plan, manifest)
        if there and same and not models and recompute:
            plan.describe()
            yield from _shards_again(config, plan, recompute)


def _fingerprints(entry: Any) -> list[Fingerprint]:
    """Return the identity in an entry of the manifest; none in one of an earlier version."""
    return [from_dict(entry)] if isinstance(entry, dict) and "outputs" in entry else []


def _without_places(configuration: dict[str, Any]) -> dict[str, Any]:
    """Settings without where files lie: what is in them is compared by its hash."""
    kept = {key: value for key, value in configuration.items() if key not in ("out", "title", "people")}
    places = {"groups": ("path",), "parser": ("where", "weights"), "pictures": ("weights",)}
    for key, names in places.items():
        kept[key] = {name: value for name, value in kept.get(key, {}).items() if name not in names}
    kept["models"] = [{k: v for k, v in model.items() if k != "where"} for model in kept.get("models", [])]
    return kept


def _tables_again(config: Config, plan: Any, manifest: dict[str, Any]) -> tuple[bool, str]:
    """Make all tables from the shards, elsewhere."""
    from captum_leam.study.study import _Run

    with tempfile.TemporaryDirectory() as folder:
        run = _Run(config, Path(folder), "serial", 1, False)
        (Path(folder) / "tables").mkdir()
        try:
            _with_totals(plan)
            run.tables(plan)
        except BrokenFileError as error:
            return False, f"tables cannot be made again: {error}"
        wrong = [name for name, digest in manifest["tables"].items() if not _fits(Path(folder) / name, digest)]
    return (
        not wrong,
        f"tables made again from the shards: {'the same bytes' if not wrong else 'others' + _listed(wrong)}",
    )


def _with_totals(plan: Any) -> None:
    from captum_leam._storage import hash_of

    if "other people" not in plan.config.controls:
        return
    for number in range(len(plan.networks)):
        paths = [path for i in range(len(plan.keys)) if (path := plan.maps_path(i, number)) is not None]
        target = plan.path("totals", hash_of("totals", [path.stem for path in paths]))
        if paths and shard_digest(target):
            plan.totals[number] = target


def _shards_again(config: Config, plan: Any, recompute: int) -> Iterator[tuple[bool, str]]:
    """Make some shards of crops and maps from the pictures, and compare them number by number."""
    setting = Setting(config, plan.networks, plan.regions)
    maps = [task for task in plan.map_tasks() if task.stage == "maps"]
    chosen = [*plan.crops_tasks()[:recompute], *maps[:recompute]]
    with tempfile.TemporaryDirectory() as folder:
        for i, task in enumerate(chosen):
            again = Path(folder) / f"{i}.shard"
            outcome = perform(
                setting, type(task)(task.stage, again, task.pictures, task.inputs, task.explained, task.options)
            )
            if outcome.problem or not shard_digest(task.path):
                yield False, f"shard {task.path.name}: {outcome.problem or 'not there'}"
                continue
            yield _same_numbers(task.path, again, task.stage)


def _same_numbers(before: Path, after: Path, stage: str) -> tuple[bool, str]:
    if shard_digest(before) == shard_digest(after):
        return True, f"a shard of {stage} made again: bit for bit the same"
    old, new = read_shard(before), read_shard(after)
    if set(old.arrays) != set(new.arrays) or any(old[name].shape != new[name].shape for name in old.arrays):
        return False, f"a shard of {stage} made again has other arrays"
    names = [name for name in ("cosine", "drops", "share", "mass") if name in old.arrays] or [
        name for name in old.arrays if name.startswith("embedding") or name == "crops"
    ]
    apart = max((float(np.nanmax(np.abs(old[n].astype(np.float64) - new[n]), initial=0)) for n in names), default=0.0)
    return apart <= TOLERANCE, f"a shard of {stage} made again: at most {apart:.2g} apart ({', '.join(names)})"
