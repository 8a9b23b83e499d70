"""Do the tasks of a study with one of the engines: shards that are there are kept, lost workers are replaced once."""

import logging
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from captum_leam._optional import import_optional
from captum_leam._progress import begin_step, progress_bar
from captum_leam._storage import Shard, shard_digest, write_shard
from captum_leam.errors import EngineError, IncompleteError
from captum_leam.study.config import Config
from captum_leam.study.plan import STAGE_OF
from captum_leam.study.task import Task
from captum_leam.study.worker import WorkerContext, deterministic_torch, keep_freed_memory, this_worker

Engine = Literal["serial", "processes", "ray"]
BACKENDS = {"serial": "sequential", "processes": "loky", "ray": "ray"}
"""Engine → backend of joblib."""


def perform(context: WorkerContext, task: Task) -> str:
    """Do one task in this process and write its shard.

    Returns:
        Why there is no shard; empty if there is one. Nothing is raised, so that the other tasks go on.
    """
    try:
        with deterministic_torch(context.config.threads):
            shard = STAGE_OF[task.stage].function(this_worker().works_for(context), task)
        write_shard(task.path, shard)
    except OSError as error:
        return f"{task.stage}: {error.strerror or error} ({error.filename or task.path})"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{task.stage}: {type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
    return ""


def perform_in_worker(context: WorkerContext, task: Task) -> str:
    """Do one task as :func:`perform` does, in a process that is there for nothing else."""
    keep_freed_memory()
    return perform(context, task)


@dataclass
class Executor:
    """Workers of a study, kept from one group of stages to the next, once they are :meth:`started`.

    Attributes:
        config: Configuration of the study.
        engine: ``"serial"``, ``"processes"`` (joblib's loky) or ``"ray"``; all give the same shards.
        jobs: Number of workers of the last two.
        progress: Whether to show progress bars.
        seconds: Seconds of each group of tasks.
        new_shards: Number of shards made in each group.
        digests: Path of each shard within the folder of results → its checksum.
        restarts: Groups in which workers were lost.
    """

    config: Config
    engine: Engine = "serial"
    jobs: int = 1
    progress: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    new_shards: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    restarts: list[str] = field(default_factory=list)
    _pool: Any = None

    @contextmanager
    def started(self) -> Iterator["Executor"]:
        """Start the workers, and end them at last."""
        ray = _ray(self.jobs) if self.engine == "ray" else nullcontext()
        with deterministic_torch(self.config.threads), ray, _pool(self.engine, self.jobs, self.config) as self._pool:
            try:
                yield self
            finally:
                this_worker.cache_clear()  # networks need not stay in memory

    @contextmanager
    def timed(self, title: str, *, shown: bool = False) -> Iterator[None]:
        """Add the seconds of a block to those of a title, which is shown as a step if there is no bar for it."""
        began = time.perf_counter()
        with progress_bar(self.progress and shown):
            begin_step(title)
            yield
        self.seconds[title] = self.seconds.get(title, 0.0) + time.perf_counter() - began

    def run(self, context: WorkerContext, tasks: Sequence[Task], title: str) -> None:
        """Do the tasks whose shards are not there.

        Args:
            context: Settings that the tasks share.
            tasks: Tasks of which none reads the shard of another.
            title: Title of the progress bar.

        Raises:
            EngineError: If workers were lost twice.
            IncompleteError: If a shard was not made, or not written.
        """
        with self.timed(title):
            missing = [task for task in tasks if not self.is_done(task.path)]
            self.new_shards[title] = self.new_shards.get(title, 0) + len(missing)
            try:
                problems = self.perform_all(context, missing, title)
            except EngineError as error:
                self.restarts.append(f"{title}: {error}")
                left = [task for task in missing if not self.is_done(task.path)]
                problems = self.perform_all(context, left, title)
            lost = [task for task in missing if not self.is_done(task.path)]
        if lost:
            reasons = "; ".join(list(dict.fromkeys(filter(None, problems)))[:3])
            raise IncompleteError(
                f"{len(lost)} of {len(missing)} shards could not be made or written: "
                f"{reasons or 'the file does not fit its checksum'}. What was done is kept. Remove the cause and run again."
            )

    def perform_all(self, context: WorkerContext, tasks: Sequence[Task], title: str) -> list[str]:
        """Do tasks in any order, and return what went wrong with each.

        Raises:
            EngineError: If a worker was lost.
        """
        from joblib import delayed

        is_own_process = self.engine != "serial" and self.jobs > 1  # one job runs in the caller's
        function = delayed(perform_in_worker if is_own_process else perform)
        with tqdm(total=len(tasks), desc=title, unit="shard", disable=not self.progress or not tasks) as bar:
            self._pool.bar = bar
            try:
                problems: list[str] = self._pool(function(context, task) for task in tasks)
            except Exception as error:  # a task itself raises nothing: it is joblib or Ray that fails
                raise EngineError(
                    "a worker process died, perhaps for lack of memory. What was done is kept: run again with fewer --jobs, a smaller "
                    f"batch_size or shard_size. ({(str(error) or type(error).__name__).splitlines()[0]})"
                ) from None
        return problems

    def is_done(self, path: Path) -> bool:
        """Return whether a shard is there and fits its checksum."""
        digest = shard_digest(path)
        if digest is not None:
            self.digests[path.relative_to(self.config.out).as_posix()] = digest
        return digest is not None

    def keep(self, path: Path, shard: Shard) -> None:
        """Write a shard that no task makes."""
        if not self.is_done(path):
            write_shard(path, shard)
            self.is_done(path)


# -- engines -------------------------------------------------------------------------------------------


@contextmanager
def _pool(engine: Engine, jobs: int, config: Config) -> Iterator[Any]:
    """Start the workers: a call with delayed functions returns their results in order."""
    joblib = import_optional("joblib")

    class ParallelWithBar(joblib.Parallel):  # type: ignore[name-defined, misc]
        """A pool that moves a progress bar; Ray's backend cannot yield results as they come."""

        bar: Any = None

        def print_progress(self) -> None:
            if self.bar is not None:
                self.bar.update(self.n_completed_tasks - self.bar.n)

    options: dict[str, Any] = {}
    if engine == "processes":
        options["inner_max_num_threads"] = config.threads
    elif engine == "ray":
        gpus = 1 if config.device.startswith("cuda") else 0
        options["ray_remote_args"] = {"num_cpus": config.threads, "num_gpus": gpus}
    with joblib.parallel_config(BACKENDS[engine], **options):
        pool = ParallelWithBar(n_jobs=1 if engine == "serial" else jobs, batch_size=1, pre_dispatch="2*n_jobs")
    with pool:
        yield pool


@contextmanager
def _ray(jobs: int) -> Iterator[None]:
    """Use the Ray that runs, or start one on this machine and stop it again; the environment is put back."""
    before = dict(os.environ)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else it writes a token into the home directory
    try:
        ray, register_ray = import_optional("ray"), import_optional("ray.util.joblib").register_ray
        logging.getLogger("ray.util.multiprocessing.pool").setLevel(logging.ERROR)  # it warns of what joblib passes on
        register_ray()
        starts = not ray.is_initialized()
        if starts:
            cluster = os.environ.get("RAY_ADDRESS")
            local: dict[str, Any] = {} if cluster else {"num_cpus": jobs, "include_dashboard": False}
            ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **local)
        try:
            yield
        finally:
            if starts:
                ray.shutdown()
    finally:
        for name in set(os.environ) - set(before):  # Ray sets some of its own
            del os.environ[name]
        os.environ.update(before)
