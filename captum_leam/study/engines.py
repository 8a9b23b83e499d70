"""Engines of a study: each gives tasks to its workers and yields the outcomes as they come."""

import logging
import os
import re
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from captum_leam._optional import import_optional
from captum_leam._storage import write_shard
from captum_leam._stores import AnyPath
from captum_leam.errors import EngineError
from captum_leam.study.config import Config
from captum_leam.study.plan import STAGE_OF
from captum_leam.study.task import Task
from captum_leam.study.worker import WorkerContext, deterministic_arithmetic, keep_freed_memory, this_worker

Engine = Literal["serial", "processes", "ray"]

DIED = "a worker process died, perhaps for lack of memory"

START_SECONDS = 300
"""How long Ray may take until the first worker runs."""


@dataclass(frozen=True)
class Outcome:
    """Result of giving a task to a worker.

    Attributes:
        task: The task.
        problem: Why the worker made no shard; empty if it did, or if it was lost.
        lost: Why the worker was lost before it was done; empty if it was not.
        worker: Number of the node and of the worker, without names of machines or processes.
        seconds: Seconds that the task took, without those of loading networks.
        loads: Number of networks that the worker loaded for the task.
    """

    task: Task
    problem: str = ""
    lost: str = ""
    worker: str = "node 1, worker 1"
    seconds: float = 0.0
    loads: int = 0


Pool = Callable[[WorkerContext, Sequence[Task]], Iterator[Outcome]]
"""Started workers. Tasks that no outcome is about were not begun because a worker was lost; they may be given again."""


def perform(context: WorkerContext, task: Task) -> Outcome:
    """Do one task in this process and write its shard; nothing is raised, so that the other tasks go on."""
    worker, began = this_worker(), time.perf_counter()
    loads, loading = worker.loads, worker.load_seconds
    problem = _problem(context, task)
    seconds = time.perf_counter() - began - (worker.load_seconds - loading)
    return Outcome(task, problem, seconds=seconds, loads=worker.loads - loads)


def _problem(context: WorkerContext, task: Task) -> str:
    try:
        with deterministic_arithmetic(context.config.threads):
            shard = STAGE_OF[task.stage].function(this_worker().works_for(context), task)
        write_shard(task.path, shard)
    except OSError as error:
        return f"{task.stage}: {error.strerror or error} ({error.filename or task.path})"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{task.stage}: {type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
    return ""


def perform_in_worker(context: WorkerContext, task: Task) -> tuple[int, Outcome]:
    """Do one task as :func:`perform` does, in a process that is there for nothing else; return its number, too."""
    keep_freed_memory()
    disable_loky_memory_limit()
    return os.getpid(), perform(context, task)


def disable_loky_memory_limit() -> None:
    """Keep loky from restarting this worker when its memory grows by 300 MB, as it does if psutil is installed; networks take more."""
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize


def _cause(error: Exception) -> str:
    """Return why loky or Ray lost a worker, without names of machines and numbers of processes.

    Example:
        >>> _cause(Exception("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"))
        'a worker process died, perhaps for lack of memory'
        >>> _cause(Exception("A worker process ... The exit codes of the workers are {SIGKILL(-9), SIGKILL(-9)}"))
        'a worker process died, perhaps for lack of memory: SIGKILL(-9)'
    """
    text = str(error)
    if "low on memory" in text:
        return "a node was low on memory, and Ray ended a worker there"
    if codes := re.search(r"exit codes of the workers are \{(.+?)\}", text):
        return f"{DIED}: {', '.join(sorted(set(codes[1].split(', '))))}"
    return DIED if "worker process" in text else "a worker, or its node, died or cannot be reached"


# -- this process --------------------------------------------------------------------------------------


@contextmanager
def _serial(jobs: int, config: Config) -> Iterator[Pool]:
    yield lambda context, tasks: (perform(context, task) for task in tasks)


# -- processes of this machine -------------------------------------------------------------------------


@contextmanager
def _processes(jobs: int, config: Config) -> Iterator[Pool]:
    """Start processes by joblib's loky; one job runs in the caller's process."""
    joblib = import_optional("joblib")
    if jobs == 1:
        with _serial(jobs, config) as pool:
            yield pool
        return
    names: dict[int, str] = {}

    def give(context: WorkerContext, tasks: Sequence[Task]) -> Iterator[Outcome]:
        given: dict[AnyPath, Task] = {}

        def calls() -> Iterator[Any]:
            for task in tasks:
                given[task.path] = task
                yield joblib.delayed(perform_in_worker)(context, task)

        # Anew for each call, as results that were late when a worker died would reach the next call. Loky keeps its processes.
        with joblib.parallel_config("loky", inner_max_num_threads=config.threads):
            parallel = joblib.Parallel(jobs, batch_size=1, pre_dispatch="2*n_jobs", return_as="generator_unordered")
        try:
            for process, outcome in parallel(calls()):
                del given[outcome.task.path]
                name = names.setdefault(process, f"node 1, worker {len(names) + 1}")
                yield replace(outcome, worker=name)
        except BrokenProcessPool as error:  # loky ended all of its processes; other exceptions are the task's
            if not given:
                raise EngineError(_cause(error)) from None
            yield from [Outcome(task, lost=_cause(error), worker="node 1") for task in given.values()]

    yield give


# -- Ray -----------------------------------------------------------------------------------------------


class RayWorker:
    """Actor of Ray: a process that keeps its networks for its life."""

    def node(self) -> str:
        """Return the node that it runs on; the answer also says that it has started."""
        import ray

        keep_freed_memory()
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def perform(self, context: WorkerContext, task: Task) -> Outcome:
        """Do one task."""
        return perform(context, task)


class RayPool:
    """Actors of Ray; a lost one is replaced as soon as a node has room, and the others go on meanwhile.

    Args:
        jobs: Number of actors. Those that no node has room for wait for one.
        config: Configuration of the study.
    """

    def __init__(self, jobs: int, config: Config) -> None:
        self.ray = import_optional("ray")
        gpus = min(1, self.ray.cluster_resources().get("GPU", 0) / jobs) or 1  # workers share GPUs where they are more
        gpus = gpus if config.device.startswith("cuda") else 0
        self._actors = self.ray.remote(num_cpus=config.threads, num_gpus=gpus)(RayWorker)
        self._all: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._idle: deque[tuple[str, Any]] = deque()
        self._nodes: dict[str, int] = {}
        self._started = self._failed = 0
        for _ in range(jobs):
            self._start()

    def __call__(self, context: WorkerContext, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Give tasks to idle actors, and yield the outcomes as they come.

        Raises:
            EngineError: If no actor starts.
        """
        shared, waiting = self.ray.put(context), deque(tasks)
        running: dict[Any, tuple[str, Any, Task]] = {}
        while waiting or running:
            while waiting and self._idle:
                name, actor = self._idle.popleft()
                task = waiting.popleft()
                running[actor.perform.remote(shared, task)] = name, actor, task
            done, _ = self.ray.wait([*running, *self._starting], timeout=None if running else START_SECONDS)
            if not done:
                raise EngineError(
                    f"Expected Ray to start a worker within {START_SECONDS} s, got none. Set threads to at most the cores of a node "
                    "and, with device: cuda, check that the cluster has a GPU."
                )
            if done[0] in self._starting:
                self._welcome(done[0])
                continue
            name, actor, task = running.pop(done[0])
            try:
                outcome = replace(self.ray.get(done[0]), worker=name)
                self._idle.append((name, actor))
            except self.ray.exceptions.RayError as error:
                outcome = Outcome(task, lost=_cause(error), worker=name)
                self.ray.kill(actor)  # it may only be out of reach
                self._start()
            yield outcome

    def stop(self) -> None:
        """End all actors."""
        for actor in self._all:
            self.ray.kill(actor)

    def _start(self) -> None:
        actor = self._actors.remote()
        self._all.append(actor)
        self._starting[actor.node.remote()] = actor

    def _welcome(self, ready: Any) -> None:
        """Take up an actor that has started, or start another one if it has not."""
        actor = self._starting.pop(ready)
        try:
            node = self.ray.get(ready)
        except self.ray.exceptions.RayError as error:
            self._failed += 1
            if self._failed > 10:
                raise EngineError(f"Expected Ray's workers to start, got: {error}") from None
            self._start()
            return
        self._started, self._failed = self._started + 1, 0
        number = self._nodes.setdefault(node, len(self._nodes) + 1)
        self._idle.append((f"node {number}, worker {self._started}", actor))


@contextmanager
def _ray(jobs: int, config: Config) -> Iterator[Pool]:
    """Use the Ray of this process or of ``RAY_ADDRESS``, or start one and stop it again; the environment is put back."""
    before = dict(os.environ)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else it writes a token into the home directory
    try:
        ray = import_optional("ray")
        starts = not ray.is_initialized()
        if starts:
            own = {"address": "local", "num_cpus": jobs * config.threads, "include_dashboard": False}
            place: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else own
            ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **place)
        pool = RayPool(jobs, config)
        try:
            yield pool
        finally:
            pool.stop()
            if starts:
                ray.shutdown()
    finally:
        for name in set(os.environ) - set(before):  # Ray sets some of its own
            del os.environ[name]
        os.environ.update(before)


ENGINES: dict[str, Callable[[int, Config], AbstractContextManager[Pool]]] = {
    "serial": _serial,
    "processes": _processes,
    "ray": _ray,
}
"""Engine → context manager of its workers, given their number and the configuration."""
