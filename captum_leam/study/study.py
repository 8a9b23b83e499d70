"""A study from its configuration to its tables: what is to be done, in which order, and what of it is done already."""

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_leam._storage import (
    Shard,
    file_sha256,
    hash_of,
    locked,
    read_shard,
    remove_parts,
    shard_digest,
    write_json,
    write_shard,
)
from captum_leam._version import __version__
from captum_leam.errors import ConfigError, EngineError, IncompleteError
from captum_leam.reporting.tables import GROUP_PREFIX, TABLES
from captum_leam.study.assembling import (
    Cut,
    group_rows,
    layer_totals,
    picture_rows,
    verification_rows,
    write_mean_maps,
    write_measurements,
    write_person_maps,
    write_small,
)
from captum_leam.study.comparing import Source
from captum_leam.study.config import Config, config_from, read_config
from captum_leam.study.evaluating import Setting
from captum_leam.study.identity import Fingerprint, as_shard, read_fingerprints
from captum_leam.study.listing import Listing, Picture, cut, hashed, list_people, mark_copy
from captum_leam.study.networks import Network, described, known, notes_on
from captum_leam.study.reading import Parser, crops_of, find_copies, known_parser
from captum_leam.study.result import StudyResult
from captum_leam.study.stages import ENGINES, Engine, Outcome, Task, run, started, steady

if TYPE_CHECKING:
    from captum_leam.study.checking import Check

PACKAGES = (
    "captum-leam",
    "torch",
    "torchvision",
    "captum",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "pyarrow",
    "facexlib",
    "onnx2torch",
)
NUMERIC = ("captum-leam", "torch", "captum", "numpy", "pillow")
FORMAT = 1
NO_CODE = ("reporting/",)


@dataclass(frozen=True)
class Study:
    """Many people, several networks, their layers: from pictures to tables that can be trusted, resumed and repeated.

    Args:
        config: a :class:`~captum_leam.study.Config`, the path of a YAML file, or nothing.
        **settings: instead of a file, or over its values: the keys of the YAML file.

    Raises:
        ConfigError: naming the key, its value, what is allowed, and the line.

    Example:
        >>> Study(people=".", models={"a": "torch.nn:Identity"}, fractions=[2])
        Traceback (most recent call last):
            ...
        captum_leam.errors.ConfigError: Study: fractions[0] is 2; needed is a number over 0 and at most 1.
    """

    config: Config

    def __init__(self, config: Config | str | Path | None = None, **settings: Any) -> None:
        if isinstance(config, Config):
            made = replace(config, **settings)
        elif config is None:
            made = config_from(settings)
        elif settings:
            raise ConfigError(
                "give a file or settings, not both: replace(read_config(path), ...) changes single settings."
            )
        else:
            made = read_config(config)
        object.__setattr__(self, "config", made)

    def run(
        self,
        *,
        engine: Engine = "serial",
        jobs: int = 1,
        progress: bool = True,
        force: bool = False,
        report: bool = True,
    ) -> StudyResult:
        """Do what is not done yet, and write the tables.

        Args:
            engine: ``"serial"``, ``"processes"`` or ``"ray"``; all give the same tables.
            jobs: workers of the last two.
            progress: show progress bars with the time left.
            force: write into a folder that holds other files.
            report: write ``report.html``, too.

        Returns:
            The tables, and what was skipped.

        Raises:
            ConfigError: for wrong settings, people or networks: nothing was done.
            IncompleteError: if shards could not be written (a full disk, no permission) or made: run again.
        """
        if engine not in ENGINES or jobs < 1:
            raise ConfigError(
                f"engine is {engine!r}, jobs {jobs}; needed is one of {', '.join(ENGINES)}, and 1 or more."
            )
        out = _folder(self.config.out, force)
        try:
            with locked(out):
                return _Run(self.config, out, engine, jobs, progress).everything(report)
        except EngineError as error:
            raise IncompleteError(str(error)) from error
        except OSError as error:
            raise IncompleteError(
                f"{error.strerror or error} ({error.filename or out}): the tables are not whole. What was done is kept; make room or "
                "give permission, and run again."
            ) from error

    def check(self, *, recompute: int = 1, progress: bool = True) -> "Check":
        """Look whether the results are what the manifest says, and whether the same study gives them again.

        Args:
            recompute: shards that are made anew from the pictures and compared number by number.
            progress: show progress bars.
        """
        from captum_leam.study.checking import check

        return check(self.config, recompute=recompute, progress=progress)


def _folder(out: Path, force: bool) -> Path:
    for part in (out, *out.parents):
        if part.exists() and not part.is_dir():
            raise ConfigError(f"out: {out}: expected a folder, got the file {part}.")
    ours = (out / "manifest.json").is_file() or (out / "work").is_dir()
    if out.is_dir() and not ours and not force and any(p.name != ".lock" for p in out.iterdir()):
        raise ConfigError(
            f"out: {out} holds files that are no study; choose another folder, or --force to write into it."
        )
    try:
        (out / "work").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out: {out} cannot be made ({error.strerror}).") from None
    return out


# -- what results depend on ----------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Versions of everything that has a say in the numbers, and of Python."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "captum-leam": __version__}


def code_sha256() -> str:
    """Of the package's own sources, but for those that only write pages: shards of other code are made again."""
    package = Path(__file__).resolve().parents[1]
    files = sorted(path for path in package.rglob("*.py") if path.name not in ("cli.py", "command.py"))
    named = [(path.relative_to(package).as_posix(), path) for path in files]
    return hash_of([[name, file_sha256(path)] for name, path in named if not name.startswith(NO_CODE)])


def code_identity() -> list[Any]:
    """What every shard depends on."""
    found = versions()
    return [FORMAT, {name: found.get(name, "") for name in NUMERIC}, code_sha256()]


def hardware() -> dict[str, Any]:
    """What it ran on."""
    import os

    import torch

    told: dict[str, Any] = {"machine": platform.machine(), "system": platform.platform(), "cores": os.cpu_count()}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        told["processor"] = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        told["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, StopIteration, ValueError):
        told["processor"] = platform.processor()
    if torch.cuda.is_available():
        told["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return told


# -- one run -------------------------------------------------------------------------------------------


@dataclass
class _Run:
    config: Config
    out: Path
    engine: Engine
    jobs: int
    progress: bool
    seconds: dict[str, float] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    restarts: list[str] = field(default_factory=list)

    def everything(self, report: bool) -> StudyResult:
        began = time.perf_counter()
        remove_parts(self.out)
        with steady(self.config.threads), started(self.engine, self.jobs):
            plan = self.plan()
            self.shards(plan)
        (self.out / "manifest.json").unlink(missing_ok=True)  # it is written last: with it, all tables are of one run
        (self.out / "tables").mkdir(exist_ok=True)
        with self.timed("tables"):
            images, skipped = self.tables(plan)
        self.seconds["all"] = time.perf_counter() - began
        self.manifest(plan, images, skipped)
        result = StudyResult(self.out)
        if report:
            from captum_leam.reporting.study_report import write_report

            write_report(self.out)
        return result

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    # -- planning

    def plan(self) -> "Plan":
        with self.timed("files"):
            listing = hashed(list_people(self.config), self.config.min_images, progress=self.progress)
        if not listing.usable:
            reasons = "; ".join(dict.fromkeys(p.reason for p in listing.pictures))
            raise ConfigError(f"people: of {len(listing.pictures)} pictures none can be used: {reasons[:500]}")
        with self.timed("models"):
            earlier = read_fingerprints(self.out / "work" / "identities")
            size = self.config.pictures.size
            networks = tuple(known(model, self.config.device, size, earlier) for model in self.config.models)
            plan = plan_of(self.config, listing, networks, known_parser(self.config, earlier), self.out)
        for fingerprint in (*[network.fingerprint for network in networks], plan.parser):
            self.keep(plan.path("identities", fingerprint.sha256), as_shard(fingerprint))
        return plan

    # -- work

    def shards(self, plan: "Plan") -> None:
        setting = Setting(self.config, plan.networks, plan.regions)
        self.work(setting, plan.crops_tasks(), "reading and embedding")
        with self.timed("copies"):
            found = plan.leave_out_copies()
        if found:
            self.work(setting, plan.crops_tasks(), "reading and embedding")
        with self.timed("models"):
            plan.describe()
        setting = Setting(self.config, plan.networks, plan.regions)
        self.work(setting, plan.map_tasks(), "explaining")
        plan.find_totals(self)
        self.work(setting, plan.others_tasks(), "other people")
        self.work(setting, plan.strangers_tasks(), "strangers")
        self.work(setting, plan.pattern_tasks(), "comparing")

    def work(self, setting: Setting, tasks: Sequence[Task], desc: str) -> None:
        """Do the tasks whose shards are not there; all of them have to be there afterwards."""
        with self.timed(desc):
            todo = [task for task in tasks if not self.is_done(task.path)]
            self.made[desc] = self.made.get(desc, 0) + len(todo)
            try:
                outcomes = run(setting, todo, self.engine, self.jobs, desc=desc, progress=self.progress)
            except EngineError as error:  # once more with new workers, what was done is done; then it is said
                self.restarts.append(f"{desc}: {error}")
                left = [task for task in todo if not self.is_done(task.path)]
                outcomes = run(setting, left, self.engine, self.jobs, desc=desc, progress=self.progress)
            self.check_done(todo, outcomes)

    def is_done(self, path: Path) -> bool:
        digest = shard_digest(path)
        if digest is not None:
            self.digests[path.relative_to(self.out).as_posix()] = digest
        return digest is not None

    def check_done(self, tasks: Sequence[Task], outcomes: Sequence[Outcome]) -> None:
        problems = [outcome.problem for outcome in outcomes if outcome.problem]
        lost = [task for task in tasks if not self.is_done(task.path)]
        if lost:
            distinct = "; ".join(list(dict.fromkeys(problems))[:3]) or "the file does not fit its checksum"
            raise IncompleteError(
                f"{len(lost)} of {len(tasks)} shards could not be made or written: {distinct}. What was done is kept; mend this and "
                "run again."
            )

    def keep(self, path: Path, shard: Shard) -> None:
        """A shard that the run itself makes."""
        if not self.is_done(path):
            write_shard(path, shard)
            self.is_done(path)

    # -- tables

    def tables(self, plan: "Plan") -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        cut_, folder = plan.cut(), self.out / "tables"
        images, skipped = picture_rows(cut_)
        told = write_measurements(cut_, folder)
        patterns = [row for path in plan.pattern_paths() for row in read_shard(path).notes["rows"]]
        agreement = [row for path in plan.agreement_paths() for row in read_shard(path).notes["rows"]]
        verification, cosines = verification_rows(cut_)
        rows = {
            "images": images,
            "skipped": skipped,
            "verification": verification,
            "cosines": cosines,
            "layers": _layer_rows(plan.networks),
            "patterns": patterns,
            "agreement": agreement,
            "groups": group_rows(cut_, told),
        }
        write_small(folder, rows, tuple(f"{GROUP_PREFIX}{label}" for label in plan.listing.labels))
        write_mean_maps(cut_, self.out / "maps")
        write_person_maps(cut_, self.out / "maps" / "people")
        return images, skipped

    def manifest(self, plan: "Plan", images: list[dict[str, Any]], skipped: list[dict[str, Any]]) -> None:
        used = [row["person"] for row in images if row["status"] == "ok"]
        reasons: dict[str, int] = {}
        for row in skipped:
            key = f"{row['stage']}: {row.get('model') or 'all'}"
            reasons[key] = reasons.get(key, 0) + 1
        write_json(
            self.out / "manifest.json",
            {
                "format": FORMAT,
                "finished": True,
                "configuration": self.config.to_dict(),
                "versions": versions(),
                "code": code_sha256(),
                "models": {
                    network.name: {
                        "where": network.model.where,
                        **network.fingerprint.to_dict(),
                        "parameters": network.parameters,
                        "preprocessing": network.model.preprocessing,
                        "layers": [layer.name for layer in network.layers],
                        "field": list(network.field),
                    }
                    for network in plan.networks
                },
                "data": {
                    "pictures": len(plan.listing.pictures),
                    "usable": len(used),
                    "people": len(set(used)),
                    "sha256": plan.listing.sha256,
                },
                "parser": plan.parser.to_dict(),
                "notes": notes_on(plan.networks),
                "seeds": {"study": self.config.seed},
                "skipped": {"count": len(skipped), "of": reasons, "reasons": skipped[:100]},
                "tables": _digests(self.out, [f"tables/{name}.parquet" for name in TABLES]),
                "maps": _digests(
                    self.out, sorted(p.relative_to(self.out).as_posix() for p in (self.out / "maps").rglob("*.npz"))
                ),
                "shards": dict(sorted(self.digests.items())),
                "hardware": hardware(),
                "run": {
                    "engine": self.engine,
                    "jobs": self.jobs,
                    "shards made": self.made,
                    "workers lost": self.restarts,
                    "seconds": _rounded(self.seconds),
                },
            },
        )


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def _digests(out: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: file_sha256(out / name) for name in names}


def _layer_rows(networks: Sequence[Network]) -> list[dict[str, Any]]:
    return [
        {
            "model": network.name,
            "layer": layer.name,
            "channels": layer.shape[0],
            "height": layer.shape[1],
            "width": layer.shape[2],
            "in_overall": layer.in_overall,
            "field": ", ".join(map(str, network.field)),
        }
        for network in networks
        for layer in network.layers
    ]


# -- the plan: which shards there are, and what they are called ----------------------------------------


def plan_of(config: Config, listing: Listing, networks: tuple[Network, ...], parser: Parser, out: Path) -> "Plan":
    """The plan of a study, before its networks are described (that needs crops)."""
    scheme = parser.scheme.merge_sides()
    regions = tuple(zip(scheme.labels, scheme.names, strict=True))
    weights = _weights_sha256(config)
    shards = tuple(cut(listing.usable, config.shard_size))
    common = hash_of("crops", code_identity(), config.threads, _kind(config.device), config.batch_size,
                     parser.fingerprint.sha256, weights,
                     config.pictures.how, config.pictures.detector, config.pictures.size, config.min_images,
                     [[n.sha256, n.model.preprocessing] for n in networks])  # fmt: skip
    return Plan(config, listing, networks, out, regions, parser.fingerprint, common, shards, _keys(common, shards))


def _keys(common: str, shards: Sequence[Sequence[Picture]]) -> tuple[str, ...]:
    return tuple(hash_of(common, [[p.sha256, p.person] for p in shard]) for shard in shards)


def _kind(device: str) -> str:
    """Kind of device, cpu or cuda: which card of several makes no difference."""
    return device.partition(":")[0]


def _weights_sha256(config: Config) -> str:
    """Of the detector, where there is one to be found."""
    if config.pictures.how == "crops":
        return ""
    try:
        from captum_leam._weights import find_weights

        return file_sha256(find_weights(config.pictures.detector, config.pictures.weights))
    except (ImportError, ValueError, KeyError, OSError):
        return ""  # told by the first photograph that needs it


@dataclass
class Plan:
    """Shards and the tasks that make them; paths are names of what the shard depends on."""

    config: Config
    listing: Listing
    networks: tuple[Network, ...]
    out: Path
    all_regions: tuple[tuple[int, str], ...]
    parser: Fingerprint
    common: str
    shards: tuple[tuple[Picture, ...], ...]
    keys: tuple[str, ...]
    totals: dict[int, Path] = field(default_factory=dict)

    @property
    def regions(self) -> tuple[int, ...]:
        """Label integers in the order of their names."""
        return tuple(label for label, _ in self.all_regions)

    def path(self, stage: str, key: str) -> Path:
        """Of a shard."""
        return self.out / "work" / stage / f"{key}.shard"

    # -- stage one

    def crops_paths(self) -> list[Path]:
        """Of crops and embeddings."""
        return [self.path("crops", key) for key in self.keys]

    def crops_tasks(self) -> list[Task]:
        """Reading, labelling and embedding."""
        paths = zip(self.crops_paths(), self.shards, strict=True)
        return [Task("crops", path, shard, options=(self.parser,)) for path, shard in paths]

    def leave_out_copies(self) -> bool:
        """Leave out the pictures that show the same as an earlier one, and return whether there are any.

        The shards that held one get another name and are made again, those of other people stay.
        """
        first = find_copies(self.config, self.shards, self.crops_paths())
        pictures = [
            mark_copy(p, first[p.number], "shows the same as") if p.number in first else p
            for p in self.listing.pictures
        ]
        self.listing = replace(self.listing, pictures=tuple(pictures))
        left = (tuple(p for p in shard if p.number not in first) for shard in self.shards)
        self.shards = tuple(shard for shard in left if shard)
        self.keys = _keys(self.common, self.shards)
        return bool(first)

    def describe(self) -> None:
        """Find the layers, with the first crops that there are.

        Raises:
            ConfigError: if there are no crops, or a network does not run on them.
        """
        for path in self.crops_paths():
            shard = read_shard(path)
            if len(shard["kept"]):
                crops = crops_of(shard)[:2]
                self.networks = tuple(described(network, crops, self.config.device) for network in self.networks)
                return
        first = [row for path in self.crops_paths() for row in read_shard(path).notes["failed"]]
        raise ConfigError(f"people: no picture could be used: {first[0][3] if first else 'no reason is known'}")

    # -- stage two

    def setting_key(self) -> list[Any]:
        """What all maps depend on, beside crops and network."""
        c = self.config
        patterns = [c.patterns.fraction, c.patterns.grid]
        return [c.fills, c.fractions, c.region_fraction, patterns, c.seed, [list(r) for r in self.all_regions]]

    def maps_key(self, number: int) -> list[Any]:
        """What the maps of one network depend on."""
        c, network = self.config, self.networks[number]
        own = [name for name in c.controls if name == "moved"]
        leam = [c.leam.n_steps, c.leam.path, c.leam.norm, c.leam.weighting]
        return [
            self.setting_key(),
            number,
            network.identity(),
            leam,
            own,
            c.layer_fractions,
            c.layer_transfer,
            c.transfer,
            c.store_maps,
        ]

    def maps_path(self, i: int, number: int) -> Path | None:
        """Of the maps of one network on one shard; None where it is not explained."""
        if not self.networks[number].layers:
            return None
        return self.path("maps", hash_of("maps", self.keys[i], self.maps_key(number)))

    def untrained_path(self, i: int, number: int) -> Path | None:
        """Of the twin."""
        if not self.networks[number].layers or "untrained" not in self.config.patterns.controls:
            return None
        return self.path("untrained", hash_of("untrained", self.keys[i], self.first_key(), self.maps_key(number)))

    def first_key(self) -> str:
        """Of the crops that the statistics of a twin are taken from."""
        return self.keys[0]

    def controls_path(self, i: int) -> Path:
        """Of controls that need no network."""
        shared = [name for name in self.config.controls if name not in ("moved", "other people")]
        return self.path("controls", hash_of("controls", self.keys[i], self.setting_key(), shared))

    def map_tasks(self) -> list[Task]:
        """Controls and maps, shard by shard, so that pictures are read and blurred once; then twins, network by network: one is kept."""
        count, every = range(len(self.networks)), range(len(self.keys))
        tasks: list[Task | None] = []
        for i, crops in enumerate(self.crops_paths()):
            tasks.append(Task("controls", self.controls_path(i), inputs=(("crops", crops),)))
            tasks += [self._of_network("maps", self.maps_path(i, number), i, number) for number in count]
        tasks += [self._of_network("untrained", self.untrained_path(i, n), i, n) for n in count for i in every]
        return [task for task in tasks if task is not None]

    def _of_network(self, stage: str, path: Path | None, i: int, number: int) -> Task | None:
        inputs = (("crops", self.path("crops", self.keys[i])), ("first", self.path("crops", self.keys[0])))
        return None if path is None else Task(stage, path, inputs=inputs, explained=number, options=(self.first_key(),))

    # -- other people

    def find_totals(self, run: "_Run") -> None:
        """Sums of the overall maps of all people, as shards of their own."""
        if "other people" not in self.config.controls:
            return
        for number in range(len(self.networks)):
            paths = [path for i in range(len(self.keys)) if (path := self.maps_path(i, number)) is not None]
            if not paths:
                continue
            target = self.path("totals", hash_of("totals", [path.stem for path in paths]))
            try:
                _, _, total, images = layer_totals(paths)
            except ValueError:
                continue
            run.keep(target, Shard({"sum": total, "count": np.array([images])}))
            self.totals[number] = target

    def others_path(self, i: int, number: int) -> Path | None:
        """Of the control "other people"."""
        maps = self.maps_path(i, number)
        if maps is None or number not in self.totals:
            return None
        return self.path("others", hash_of("others", maps.stem, self.totals[number].stem))

    def others_tasks(self) -> list[Task]:
        """The control "other people", which needs all maps."""
        tasks = []
        for i, crops in enumerate(self.crops_paths()):
            for number in range(len(self.networks)):
                path, maps = self.others_path(i, number), self.maps_path(i, number)
                if path is not None and maps is not None:
                    inputs = (("crops", crops), ("maps", maps), ("total", self.totals[number]))
                    tasks.append(Task("others", path, inputs=inputs, explained=number))
        return tasks

    # -- stage three

    def sources(self) -> tuple[Source, ...]:
        """All shards, by the people they hold."""
        count = range(len(self.networks))
        return tuple(
            Source(
                crops,
                tuple(self.maps_path(i, n) for n in count),
                tuple(self.untrained_path(i, n) for n in count),
                self.controls_path(i),
            )
            for i, crops in enumerate(self.crops_paths())
        )

    def strangers_path(self) -> Path | None:
        """Of the nearest strangers."""
        if "pose" not in self.config.patterns.controls:
            return None
        return self.path("strangers", hash_of("strangers", self.keys))

    def strangers_tasks(self) -> list[Task]:
        """The nearest strangers."""
        path = self.strangers_path()
        return [] if path is None else [Task("strangers", path, options=(self.sources(),))]

    def _comparison_key(self, number: int) -> list[Any]:
        c = self.config
        paths = [
            path
            for i in range(len(self.keys))
            for path in (self.maps_path(i, number), self.untrained_path(i, number))
            if path
        ]
        controls = [self.controls_path(i).stem for i in range(len(self.keys))]
        return [
            [p.stem for p in paths],
            controls,
            c.patterns.controls,
            c.confidence,
            c.patterns.resamples,
            c.patterns.permutations,
            c.seed,
        ]

    def _explained(self) -> list[int]:
        return [number for number, network in enumerate(self.networks) if network.layers]

    def pattern_paths(self) -> list[Path]:
        """Of the rows of patterns, in the order of the table."""
        strangers = self.strangers_path()
        name = "" if strangers is None else strangers.stem
        return [
            self.path("patterns", hash_of("patterns", self._comparison_key(number), layer, name))
            for number in self._explained()
            for layer in range(1 + len(self.networks[number].layers))
        ]

    def agreement_paths(self) -> list[Path]:
        """Of the rows of agreement: of the models, then of the layers of each."""
        every = [self._comparison_key(number) for number in self._explained()]
        models = self.path("agreement", hash_of("models", every, [self.networks[n].name for n in self._explained()]))
        return [models, *[self.path("agreement", hash_of("layers", key)) for key in every]]

    def pattern_tasks(self) -> list[Task]:
        """Comparisons of signatures."""
        sources, strangers = self.sources(), self.strangers_path()
        paths = iter(self.pattern_paths())
        tasks = [
            Task("patterns", next(paths), explained=number, options=(layer, sources, strangers))
            for number in self._explained()
            for layer in range(1 + len(self.networks[number].layers))
        ]
        models, *layers = self.agreement_paths()
        tasks.append(Task("agreement", models, options=("models", -1, sources)))
        tasks += [
            Task("agreement", path, options=("layers", number, sources))
            for path, number in zip(layers, self._explained(), strict=True)
        ]
        return tasks

    def cut(self) -> Cut:
        """What the tables are made from."""
        count = range(len(self.networks))
        others = tuple(tuple(self.others_path(i, n) for n in count) for i in range(len(self.keys)))
        return Cut(self.config, self.listing, self.networks, self.all_regions, self.shards, self.sources(), others)
