"""Compare the results of a study with its manifest, and with the same study done again."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from captum_leam._storage import file_sha256, read_shard, shard_digest
from captum_leam._stores import AnyPath
from captum_leam.errors import BrokenFileError, ConfigError
from captum_leam.study.assembling import write_tables
from captum_leam.study.config import Config
from captum_leam.study.engines import perform
from captum_leam.study.executor import Executor
from captum_leam.study.identity import from_dict
from captum_leam.study.manifest import FORMAT
from captum_leam.study.plan import STAGE_OF, Plan, make_plan, versions
from captum_leam.study.task import Task
from captum_leam.study.worker import WorkerContext, this_worker

TOLERANCE = 5e-3
"""Difference of cosines, drops and shares between devices or versions that passes; on one machine it is 0."""

Finding = tuple[bool, str]


@dataclass(frozen=True)
class Recheck:
    """Outcome of :meth:`Study.check <captum_leam.study.Study.check>`.

    Attributes:
        good: Sentences, one for each comparison that agrees.
        bad: Sentences, one for each difference.

    Example:
        >>> outcome = Recheck(good=("tables: 16 files are unchanged",), bad=("maps/mean.npz was changed",))
        >>> print(outcome)
        ok: tables: 16 files are unchanged
        WRONG: maps/mean.npz was changed
        >>> outcome.passed
        False
    """

    good: tuple[str, ...]
    bad: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything fits."""
        return not self.bad

    def __repr__(self) -> str:
        return "\n".join([*[f"ok: {line}" for line in self.good], *[f"WRONG: {line}" for line in self.bad]])


def check(config: Config, *, recompute: int = 1, progress: bool = True) -> Recheck:
    """Compare a folder of results with its manifest, with its inputs of today, and with itself made again.

    1. Every table and mean map has the SHA-256 of the manifest, every shard its own checksum and that of the manifest.
    2. Configuration, pictures, networks, parser, and versions are those of the manifest.
    3. The tables made again from the shards are the same bytes.
    4. ``recompute`` shards made again from the pictures are the same numbers (bit for bit, or within 0.005).

    Raises:
        ConfigError: If the folder holds no manifest.
    """
    try:
        manifest = json.loads((config.out / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{config.out}: expected a finished study, got no valid manifest.json ({error}). Run the study first."
        ) from None
    with Executor(config).started():
        findings = [*_compare_files(config.out, manifest), *_compare_inputs(config, manifest, recompute, progress)]
    return Recheck(tuple(line for fits, line in findings if fits), tuple(line for fits, line in findings if not fits))


# -- files ---------------------------------------------------------------------------------------------


def _compare_files(out: AnyPath, manifest: Mapping[str, Any]) -> Iterator[Finding]:
    for what in ("tables", "maps"):
        yield _fit(what, manifest[what], [name for name, sha in manifest[what].items() if not _fits(out / name, sha)])
    shards = manifest["shards"]
    if not any((out / name).exists() for name in shards):
        yield True, f"the {len(shards)} shards were deleted: only tables and maps could be looked at"
        return
    yield _fit("shards", shards, [name for name, digest in shards.items() if shard_digest(out / name) != digest])


def _fit(what: str, names: Mapping[str, str], wrong: Sequence[str]) -> Finding:
    return not wrong, f"{len(names) - len(wrong)} of {len(names)} {what} fit their checksums{_listed(wrong)}"


def _fits(path: AnyPath, digest: str) -> bool:
    try:
        return file_sha256(path) == digest
    except OSError:
        return False


def _listed(names: Sequence[str]) -> str:
    return f"; not: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if names else ""


# -- inputs, and what is made from them ----------------------------------------------------------------


def _compare_inputs(config: Config, manifest: Mapping[str, Any], recompute: int, progress: bool) -> Iterator[Finding]:
    if manifest["format"] != FORMAT:
        yield True, "inputs: not compared, the manifest is of another version"
        return
    then, now = _without_places(manifest["configuration"]), _without_places(config.to_dict())
    changed = [key for key in now if now[key] != then[key]]
    yield not changed, f"configuration: {'as it was' if not changed else 'other values of ' + ', '.join(changed)}"
    other = _other_versions(manifest)
    yield True, f"versions: {'as they were' if not other else 'others: ' + ', '.join(other)}"
    stored = {name: from_dict(entry) for name, entry in manifest["models"].items()}
    parser = from_dict(manifest["parser"])
    plan = make_plan(config, this_worker(), [*stored.values(), parser], progress=progress)
    models = [network.name for network in plan.networks if network.fingerprint != stored.get(network.name)]
    yield not models, f"networks: {'as they were' if not models else 'others: ' + ', '.join(models)}"
    same = plan.parser.fingerprint == parser
    yield same, f"parser: {'as it was' if same else 'another'}"
    same = plan.listing.sha256 == manifest["data"]["sha256"]
    yield same, f"{len(plan.listing.pictures)} pictures: {'as they were' if same else 'not those of the manifest'}"
    if not plan.has_crops() or not same or models:
        return
    if plan.leave_out_copies(this_worker()) and not plan.has_crops():
        return
    plan.describe(this_worker())
    if not other and not changed:
        yield _compare_tables(plan, manifest)
    tasks = [task for name in ("crops", "maps") for task in plan.tasks([STAGE_OF[name]])[:recompute]]
    with tempfile.TemporaryDirectory() as folder:
        yield from (_recompute(plan.context, task, Path(folder)) for task in tasks)


def _other_versions(manifest: Mapping[str, Any]) -> list[str]:
    """Return the packages of another version than in the manifest."""
    return [
        f"{name} {number} (was {manifest['versions'].get(name)})"
        for name, number in versions().items()
        if manifest["versions"].get(name) != number
    ]


def _without_places(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without the places of files, whose content is compared by hash."""
    kept = {key: value for key, value in configuration.items() if key not in ("out", "title", "people")}
    places = {"groups": ("path",), "parser": ("where", "weights"), "pictures": ("weights",)}
    for key, names in places.items():
        kept[key] = {name: value for name, value in kept[key].items() if name not in names}
    kept["models"] = [{k: v for k, v in model.items() if k != "where"} for model in kept["models"]]
    return kept


def _compare_tables(plan: Plan, manifest: Mapping[str, Any]) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_tables(plan, Path(folder))
        except BrokenFileError as error:
            return False, f"tables cannot be made again: {error}"
        wrong = [name for name, digest in manifest["tables"].items() if not _fits(Path(folder) / name, digest)]
    return not wrong, f"tables made again from the shards: {'others' + _listed(wrong) if wrong else 'the same bytes'}"


def _recompute(context: WorkerContext, task: Task, folder: Path) -> Finding:
    """Make a shard again, and compare its numbers."""
    again = folder / task.path.name
    if problem := perform(context, replace(task, path=again)).problem or (
        "" if shard_digest(task.path) else "not there"
    ):
        return False, f"shard {task.path.name}: {problem}"
    stage = task.stage
    if shard_digest(task.path) == shard_digest(again):
        return True, f"a shard of {stage} made again: bit for bit the same"
    old, new = read_shard(task.path), read_shard(again)
    if set(old.arrays) != set(new.arrays) or any(old[name].shape != new[name].shape for name in old.arrays):
        return False, f"a shard of {stage} made again has other arrays"
    names = [n for n in old.arrays if n in ("cosine", "drops", "share", "mass", "crops") or n.startswith("embedding")]
    apart = max((float(np.nanmax(np.abs(old[n].astype(np.float64) - new[n]), initial=0)) for n in names), default=0.0)
    return apart <= TOLERANCE, f"a shard of {stage} made again: at most {apart:.2g} apart ({', '.join(names)})"
