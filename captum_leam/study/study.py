"""A study from its configuration to its tables and page."""

import json
import time
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from captum_leam._progress import begin_step, progress_bar
from captum_leam._storage import Shard, lock_folder, remove_parts, write_bytes
from captum_leam._stores import AnyPath, StorePath
from captum_leam.errors import ConfigError, EngineError, IncompleteError
from captum_leam.reporting.study_report import write_report
from captum_leam.study.assembling import write_tables
from captum_leam.study.config import Config, config_from, read_config
from captum_leam.study.cost import Cost, estimate_cost
from captum_leam.study.engines import ENGINES, Engine
from captum_leam.study.executor import Executor
from captum_leam.study.identity import read_fingerprints
from captum_leam.study.manifest import manifest_of
from captum_leam.study.plan import Plan, make_plan
from captum_leam.study.recheck import Recheck, check
from captum_leam.study.result import StudyResult
from captum_leam.study.stages import STAGES
from captum_leam.study.worker import deterministic_torch, this_worker


@dataclass(frozen=True)
class Study:
    """Study of many people, networks and layers, from pictures to tables.

    A run that was interrupted is resumed by the same call.

    Args:
        config: Settings as a :class:`~captum_leam.study.Config`, or the path of a YAML file. Default: None, for settings by keyword.
        **settings: Keys of the YAML file with their values, instead of a file, or to change values of a ``Config``.

    Raises:
        ConfigError: If a setting is invalid. The message has its key, its value, the expected values and the line.

    See Also:
        * :class:`~captum_leam.study.StudyResult`: Tables of a finished study.
        * :func:`~captum_leam.study.read_config`: Settings from a YAML file.

    Example:
        >>> Study(people=".", models={"a": "torch.nn:Identity"}, fractions=[2])
        Traceback (most recent call last):
            ...
        captum_leam.errors.ConfigError: Study: Expected fractions[0] to be a number over 0 and at most 1, got 2.
    """

    config: Config

    def __init__(self, config: Config | str | Path | None = None, **settings: Any) -> None:
        if isinstance(config, Config):
            config = replace(config, **settings)
        elif config is None:
            config = config_from(settings)
        elif settings:
            raise ConfigError(
                "Expected a file or settings, got both. Use replace(read_config(path), ...) to change single settings."
            )
        else:
            config = read_config(config)
        object.__setattr__(self, "config", config)

    def run(
        self,
        *,
        engine: Engine = "serial",
        jobs: int = 1,
        progress: bool = True,
        force: bool = False,
        report: bool = True,
    ) -> StudyResult:
        """Run the parts of the study that are not finished, and write the tables.

        Args:
            engine: ``"serial"``, ``"processes"`` or ``"ray"``; all give the same tables. Default: ``"serial"``.
            jobs: Number of workers of ``"processes"`` and ``"ray"``. Default: 1.
            progress: Whether to show progress bars. Default: True.
            force: Whether to write into a folder that holds other files. Default: False.
            report: Whether to write ``report.html``. Default: True.

        Returns:
            Tables, manifest and mean maps.

        Raises:
            ConfigError: If settings, people or networks are invalid. Nothing was computed.
            IncompleteError: If shards could not be computed or written, for example on a full disk. Call it again to resume.
        """
        _check_engine(self.config, engine, jobs)
        out = _prepare_folder(self.config.out, force)
        try:
            with lock_folder(out):
                _run(Executor(self.config, engine, jobs, progress))
                if report:
                    with progress_bar(progress):
                        begin_step("report")
                        write_report(out)
        except EngineError as error:
            raise IncompleteError(str(error)) from error
        except OSError as error:
            raise IncompleteError(
                f"{error.strerror or error} ({error.filename or out}): the tables are incomplete. Free disk space or grant "
                "permission, and run again; finished shards are kept."
            ) from error
        return StudyResult(out)

    def plan(self, *, engine: Engine = "serial", jobs: int = 1, progress: bool = False) -> Cost:
        """Estimate the passes, bytes, time and memory of a run before it starts.

        The first shard is timed in a temporary folder. Nothing is written to the results.

        Args:
            engine: Engine of the run. Default: ``"serial"``.
            jobs: Number of workers. Default: 1.
            progress: Whether to show a progress bar while files are read. Default: False.

        Returns:
            Cost by stage, with the memory of a worker and the settings that halve it.

        Raises:
            ConfigError: If settings, people or networks are invalid.
            IncompleteError: If a stage fails on the first shard.
        """
        _check_engine(self.config, engine, jobs)
        try:
            with deterministic_torch(self.config.threads):
                return estimate_cost(self.config, engine, jobs, progress=progress)
        finally:
            this_worker.cache_clear()  # networks need not stay in memory

    def check(self, *, recompute: int = 1, progress: bool = True) -> Recheck:
        """Compare the results with the manifest, and some shards with newly computed ones.

        Args:
            recompute: Number of shards of crops, and of maps, that are recomputed and compared. Default: 1.
            progress: Whether to show progress bars. Default: True.

        Returns:
            Comparisons that agree, and those that differ.
        """
        return check(self.config, recompute=recompute, progress=progress)


def _check_engine(config: Config, engine: str, jobs: int) -> None:
    if engine not in ENGINES or jobs < 1:
        raise ConfigError(
            f"Expected engine to be one of {', '.join(ENGINES)} and jobs to be 1 or more, got {engine!r} and jobs {jobs}."
        )
    if engine != "serial" and "memory://" in json.dumps(config.to_dict()):
        raise ConfigError(
            f"Expected engine to be 'serial' with memory:// paths, got {engine!r}. Other processes do not see what memory:// holds in "
            "this one."
        )


def _prepare_folder(out: AnyPath, force: bool) -> AnyPath:
    """Make the folder of results, unless it holds other files."""
    try:
        for part in (out,) if isinstance(out, StorePath) else (out, *out.parents):
            if part.exists() and not part.is_dir():
                raise ConfigError(f"out: {out}: expected a folder, got the file {part}.")
        is_ours = (out / "manifest.json").is_file() or (out / "work").is_dir()
        if out.is_dir() and not is_ours and not force and any(p.name != ".lock" for p in out.iterdir()):
            raise ConfigError(
                f"out: expected an empty folder or that of a study, got other files in {out}. Choose another folder, or pass --force to "
                "write into it."
            )
        (out / "work").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out: {out} cannot be created ({error.strerror}). Choose another folder.") from None
    return out


def _run(executor: Executor) -> None:
    """Make the shards of all stages, the tables, and last the manifest: with it, all of them are of one run."""
    began, out = time.perf_counter(), executor.config.out
    remove_parts(out)
    with executor.started():
        plan = _make_shards(executor)
        (out / "manifest.json").unlink(missing_ok=True)
        with executor.timed("tables", shown=True):
            images, skipped = write_tables(plan, out)
        executor.seconds["all"] = time.perf_counter() - began
        manifest = manifest_of(plan, executor, images, skipped)
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_bytes(out / "manifest.json", text.encode())


def _make_shards(executor: Executor) -> Plan:
    config, worker, identities = executor.config, this_worker(), executor.config.out / "work" / "identities"
    with executor.timed("files and models"):
        plan = make_plan(config, worker, read_fingerprints(identities), progress=executor.progress)
    for fingerprint in (*[network.fingerprint for network in plan.networks], plan.parser.fingerprint):
        executor.keep(identities / f"{fingerprint.sha256}.shard", Shard({}, fingerprint.to_dict()))
    reading, *others = (list(stages) for _, stages in groupby(STAGES, key=lambda stage: stage.title))
    executor.run(plan.context, plan.tasks(reading), reading[0].title)
    with executor.timed("copies", shown=True):
        has_copies = plan.leave_out_copies(worker)
    if has_copies:
        executor.run(plan.context, plan.tasks(reading), reading[0].title)
    with executor.timed("layers", shown=True):
        plan.describe(worker)
    for stages in others:
        executor.run(plan.context, plan.tasks(stages), stages[0].title)
    return plan
