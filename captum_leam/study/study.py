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
from captum_leam.study.worker import deterministic_arithmetic, this_worker


@dataclass(frozen=True)
class Study:
    """Study of many people, networks and layers, from image files to tables and a report.

    A study reads the images of a folder with one subfolder per person, explains them with every network, and writes tables, mean maps and
    ``report.html`` into a results folder. The usual order is :meth:`plan` to estimate the cost, :meth:`run`, and :meth:`check` to verify
    stored results later. A run that was interrupted is resumed by calling :meth:`run` again.

    Args:
        config: Settings as a :class:`~captum_leam.study.Config`, or the path of a YAML file. Default: None, for settings by keyword.
        **settings: Settings by keyword, with the keys of the YAML file; see :class:`~captum_leam.study.Config` for all of them. Allowed
            without ``config``, or with a ``Config``, whose values they replace. Not allowed with a path.

    Raises:
        ConfigError: If a setting is invalid. The message has its key, its value, the expected values and the line.

    See Also:
        * :class:`~captum_leam.study.StudyResult`: Tables of a finished study.
        * :func:`~captum_leam.study.read_config`: Settings from a YAML file.

    Example:
        >>> study = Study(people=".", models={"mine": "torchvision.models:resnet18"}, fractions=[0.05], out="results")
        >>> study.config.fractions, study.config.preset, study.config.seed
        ((0.05,), 'default', 0)
        >>> print(study.plan())  # doctest: +SKIP
        >>> result = study.run(engine="processes", jobs=4)  # doctest: +SKIP
        >>> result.to_frame()[["model", "control", "gap"]]  # doctest: +SKIP
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
        """Run the study and write its tables, mean maps and report into the results folder.

        Parts that an earlier run finished with the same settings are read from the folder instead of being computed again.

        Args:
            engine: Where the work runs: ``"serial"`` in this process, ``"processes"`` on several cores, ``"ray"`` on a Ray cluster. All
                give the same tables. Default: ``"serial"``.
            jobs: Number of workers of ``"processes"`` and ``"ray"``, 1 or more. Default: 1.
            progress: Whether to show progress bars. Default: True.
            force: Whether to write into a folder that holds other files. Default: False.
            report: Whether to write ``report.html``. Default: True.

        Returns:
            The results as a :class:`~captum_leam.study.StudyResult`, which reads tables, manifest and mean maps from the folder on access.

        Raises:
            ConfigError: If settings, people or networks are invalid. Nothing was computed.
            IncompleteError: If parts could not be computed or written, for example on a full disk. Call it again to resume.

        Example:
            >>> study = Study(people="photographs/", models={"mine": "mine.py:network"}, out="results")  # doctest: +SKIP
            >>> result = study.run(engine="processes", jobs=4)  # doctest: +SKIP
            >>> result.table("regions", model="mine")  # doctest: +SKIP
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

        The first part of the study (a shard of some people) is computed in a temporary folder and timed, and the time of the rest is
        extrapolated. Nothing is written to the results folder.

        Args:
            engine: Engine of the planned run, ``"serial"``, ``"processes"`` or ``"ray"``. Default: ``"serial"``.
            jobs: Number of workers of the planned run, 1 or more. Default: 1.
            progress: Whether to show a progress bar while files are read. Default: False.

        Returns:
            Cost of the run. Print it for a table of passes, bytes and seconds by stage, the memory of a worker in MiB, and the settings
            that would halve the passes.

        Raises:
            ConfigError: If settings, people or networks are invalid.
            IncompleteError: If a stage fails on the first part.

        Example:
            >>> study = Study(people="photographs/", models={"mine": "mine.py:network"})  # doctest: +SKIP
            >>> print(study.plan(engine="processes", jobs=4))  # doctest: +SKIP
        """
        _check_engine(self.config, engine, jobs)
        try:
            with deterministic_arithmetic(self.config.threads):
                return estimate_cost(self.config, engine, jobs, progress=progress)
        finally:
            this_worker.cache_clear()  # networks need not stay in memory

    def check(self, *, recompute: int = 1, progress: bool = True) -> Recheck:
        """Verify that stored results are complete, unchanged and reproducible.

        Use it before publishing results, after copying them, or after an update of the software. It compares

        1. the checksum of every file with the one recorded in the manifest,
        2. the present settings, images, networks and software versions with those of the run,
        3. the tables with tables that are computed again from the stored parts of the study,
        4. some of the stored parts with parts that are computed again from the images.

        Differences do not raise. They are listed in the result.

        Args:
            recompute: Number of parts that step 4 computes again, 0 or more. Each part holds the crops or maps of some people. More parts
                take longer and find more. Default: 1.
            progress: Whether to show progress bars. Default: True.

        Returns:
            Outcome as a ``Recheck``, whose attributes are:

            * passed: Whether nothing differs, a bool.
            * good: Comparisons that agree, a tuple of sentences.
            * bad: Comparisons that differ, a tuple of sentences. Empty if ``passed``.

        Raises:
            ConfigError: If the results folder has no ``manifest.json``, because the study is not finished.

        Example:
            >>> study = Study(people="photographs/", models={"mine": "mine.py:network"}, out="results")  # doctest: +SKIP
            >>> outcome = study.check(recompute=2)  # doctest: +SKIP
            >>> outcome.passed, outcome.bad  # doctest: +SKIP
            (True, ())
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
