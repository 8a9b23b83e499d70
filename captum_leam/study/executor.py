"""Do the tasks of a study with one of the engines: shards that are there are kept, those of lost workers are made by others."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from tqdm.auto import tqdm

from captum_leam._engine.arithmetic import without_autocast
from captum_leam._progress import begin_step, progress_bar
from captum_leam._storage import Shard, shard_digest, write_shard
from captum_leam._stores import AnyPath, relative_path
from captum_leam.errors import EngineError, IncompleteError
from captum_leam.study.config import Config
from captum_leam.study.engines import ENGINES, Engine, Pool
from captum_leam.study.task import Task
from captum_leam.study.work_log import WorkLog
from captum_leam.study.worker import WorkerContext, deterministic_arithmetic, this_worker

RETRIES = 2
"""How often a task is given again after its worker was lost."""

STARTING = "starting workers"


@dataclass
class Executor:
    """Workers of a study, kept from one group of stages to the next, once they are :meth:`started`.

    Attributes:
        config: Configuration of the study.
        engine: ``"serial"``, ``"processes"`` (joblib's loky) or ``"ray"``; all give the same shards.
        jobs: Number of workers of the last two.
        progress: Whether to show progress bars.
        seconds: Seconds of each group of tasks, and until the first worker had started and loaded its networks.
        new_shards: Number of shards made in each group.
        digests: Path of each shard within the folder of results → its checksum.
        log: What each worker did, and what was lost.
    """

    config: Config
    engine: Engine = "serial"
    jobs: int = 1
    progress: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    new_shards: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    log: WorkLog = field(default_factory=WorkLog)
    _pool: Pool | None = None

    @contextmanager
    def started(self) -> Iterator["Executor"]:
        """Start the workers, and end them at last; the caller's autocast, which no worker has, is off meanwhile."""
        autocast = without_autocast(torch.device(self.config.device))
        with deterministic_arithmetic(self.config.threads), autocast, ExitStack() as stack:
            with self.timed(STARTING):
                self._pool = stack.enter_context(ENGINES[self.engine](self.jobs, self.config))
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
        self._add(title, time.perf_counter() - began)

    def _add(self, title: str, seconds: float) -> None:
        self.seconds[title] = self.seconds.get(title, 0.0) + seconds

    def run(self, context: WorkerContext, tasks: Sequence[Task], title: str) -> None:
        """Do the tasks whose shards are not there.

        Args:
            context: Settings that the tasks share.
            tasks: Tasks of which none reads the shard of another.
            title: Title of the progress bar.

        Raises:
            EngineError: If a task lost its worker each time that it was given to one.
            IncompleteError: If a shard was not made, or not written.
        """
        with self.timed(title):
            missing = [task for task in tasks if not self.is_done(task.path)]
            self.new_shards[title] = self.new_shards.get(title, 0) + len(missing)
            with tqdm(total=len(missing), desc=title, unit="shard", disable=not self.progress or not missing) as bar:
                problems = self._perform_all(context, missing, title, bar.update)
            undone = [task for task in missing if not self.is_done(task.path)]
        if undone:
            reasons = "; ".join(list(dict.fromkeys(problems))[:3])
            raise IncompleteError(
                f"{len(undone)} of {len(missing)} shards could not be computed or written: "
                f"{reasons or 'the file does not match its checksum'}. Remove the cause and run again; finished shards are kept."
            )

    def _perform_all(
        self, context: WorkerContext, tasks: Sequence[Task], title: str, advance: Callable[[], object]
    ) -> list[str]:
        """Do tasks in any order, again if their worker was lost, and return what went wrong with each that made no shard."""
        if self._pool is None:
            raise EngineError("Expected started workers, got none. Call run within `with executor.started()`.")
        began, is_first = time.perf_counter(), not self.log.workers
        left, problems = {task.path: task for task in tasks}, list[str]()
        lost = defaultdict[AnyPath, list[str]](list)
        while left:
            for outcome in self._pool(context, [*left.values()]):
                path = outcome.task.path
                self.log.add(self._name(path), outcome)
                if outcome.lost:
                    lost[path].append(outcome.lost)
                    continue
                if is_first:  # the first outcome also waited for its worker to start and load networks
                    self._add(STARTING, starting := time.perf_counter() - began - outcome.seconds)
                    self._add(title, -starting)
                    is_first = False
                del left[path]
                advance()
                problems += filter(None, [outcome.problem])
            for path, reasons in lost.items():
                if len(reasons) > RETRIES:
                    raise EngineError(
                        f"Expected a worker to compute {self._name(path)}, but {len(reasons)} workers were lost ({reasons[-1]}). Run again "
                        "with fewer --jobs or a smaller batch_size or shard_size; finished shards are kept."
                    )
        return problems

    def is_done(self, path: AnyPath) -> bool:
        """Return whether a shard is there and fits its checksum."""
        digest = shard_digest(path)
        if digest is not None:
            self.digests[self._name(path)] = digest
        return digest is not None

    def keep(self, path: AnyPath, shard: Shard) -> None:
        """Write a shard that no task makes."""
        if not self.is_done(path):
            write_shard(path, shard)
            self.is_done(path)

    def _name(self, path: AnyPath) -> str:
        return relative_path(path, self.config.out).as_posix()
