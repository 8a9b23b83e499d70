"""What a worker does: one task, one shard; and the engines that give tasks to workers.

A task names the shard it writes by what that depends on, so a shard that is there and whole is done, whoever made it and when.
"""

import ctypes
import logging
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm.auto import tqdm

from captum_leam._storage import Shard, read_shard, write_shard
from captum_leam.errors import CaptumLeamError, EngineError, MissingExtraError
from captum_leam.study.comparing import agreement_shard, patterns_shard, strangers_shard
from captum_leam.study.evaluating import Setting, controls_shard, maps_shard, others_shard, untrained_shard
from captum_leam.study.listing import Picture
from captum_leam.study.reading import crops_shard

Engine = Literal["serial", "processes", "ray"]
ENGINES: tuple[Engine, ...] = ("serial", "processes", "ray")


@dataclass(frozen=True)
class Task:
    """One shard to be made.

    Attributes:
        stage: crops, maps, untrained, controls, others, strangers, patterns or agreement.
        path: of the shard.
        pictures: whole people.
        inputs: shards that it is made of, by their role.
        explained: number of the network, or None.
        options: anything else, small.
    """

    stage: str
    path: Path
    pictures: tuple[Picture, ...] = ()
    inputs: tuple[tuple[str, Path], ...] = ()
    explained: int = -1
    options: tuple[Any, ...] = ()

    def read(self, role: str) -> Shard:
        """A shard that it is made of; crops are kept until others are read, since tasks on a shard follow each other."""
        path = dict(self.inputs)[role]
        if role != "crops":
            return read_shard(path)
        if path not in _CROPS:
            _CROPS.clear()
            _CROPS[path] = read_shard(path)
        return _CROPS[path]


_CROPS: dict[Path, Shard] = {}  # of this process; a path names its content


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        path: of its shard.
        stage: of the task.
        seconds: that it took.
        problem: why there is no shard; empty if there is.
    """

    path: Path
    stage: str
    seconds: float
    problem: str = ""


def perform(setting: Setting, task: Task) -> Outcome:
    """Do one task and write its shard; whatever goes wrong is told, not raised, so that the others go on."""
    began = time.perf_counter()
    problem = ""
    try:
        with steady(setting.config.threads):
            shard = _made(setting, task)
        write_shard(task.path, shard)
    except OSError as error:
        problem = f"{task.stage}: {error.strerror or error} ({error.filename or task.path})"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"{task.stage}: {type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
    return Outcome(task.path, task.stage, time.perf_counter() - began, problem)


def _made(setting: Setting, task: Task) -> Shard:
    if task.stage == "crops":
        return crops_shard(setting.config, setting.networks, task.pictures, *task.options)
    if task.stage == "strangers":
        return strangers_shard(task.options[0])
    if task.stage == "patterns":
        return patterns_shard(setting, task.explained, *task.options)
    if task.stage == "agreement":
        return agreement_shard(setting, *task.options)
    faces = task.read("crops")
    if task.stage == "maps":
        return maps_shard(setting, faces, task.explained)
    if task.stage == "controls":
        return controls_shard(setting, faces)
    if task.stage == "untrained":
        return untrained_shard(setting, faces, task.explained, task.read("first"), task.options[0])
    if task.stage == "others":
        total = task.read("total")
        made = task.read("maps")
        return others_shard(setting, faces, made, task.explained, total["sum"], int(total["count"][0]))
    raise CaptumLeamError(f"there is no stage {task.stage!r}.")


def perform_in_worker(setting: Setting, task: Task) -> Outcome:
    """:func:`perform` in a process that does nothing else."""
    keep_memory()
    return perform(setting, task)


@lru_cache(maxsize=1)
def keep_memory() -> None:
    """Let this process keep the memory of a batch for the next one: giving it back and asking again costs some 5 % of the time."""
    with suppress(OSError, AttributeError):  # glibc's; others have no such setting
        mallopt = ctypes.CDLL(None).mallopt
        for option, size in ((-1, 1 << 30), (-3, 32 << 20)):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD (its largest)
            mallopt(option, size)


@contextmanager
def steady(threads: int) -> Iterator[None]:
    """The same numbers on every machine of one kind: a fixed number of threads, and no choice of kernels by speed."""
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[1:]


# -- engines -------------------------------------------------------------------------------------------


def run(
    setting: Setting, tasks: Sequence[Task], engine: Engine, jobs: int, *, desc: str, progress: bool
) -> list[Outcome]:
    """Do tasks, in any order; every engine gives the same shards.

    Args:
        setting: of the study.
        tasks: none of which needs the shard of another.
        engine: ``"serial"``, ``"processes"`` (joblib's loky) or ``"ray"``.
        jobs: workers.
        desc: of the progress bar.
        progress: show it.

    Raises:
        EngineError: if a worker died, or Ray is not there.
    """
    if not tasks:
        return []
    done: list[Outcome] = []
    bar = tqdm(total=len(tasks), desc=desc, unit="shard", disable=not progress, smoothing=0.05)
    with bar:
        for outcome in _outcomes(setting, tasks, engine, jobs):
            done.append(outcome)
            bar.update()
    return done


def _outcomes(setting: Setting, tasks: Sequence[Task], engine: Engine, jobs: int) -> Iterable[Outcome]:
    if engine == "serial":
        return (perform(setting, task) for task in tasks)
    if engine == "processes":
        return _in_processes(setting, tasks, jobs)
    return _on_ray(setting, tasks, jobs)


def _in_processes(setting: Setting, tasks: Sequence[Task], jobs: int) -> Iterator[Outcome]:
    try:
        from joblib import Parallel, delayed, parallel_config
    except ImportError as error:
        raise MissingExtraError(
            f'joblib cannot be imported ({error}). It comes with: pip install "captum-leam[study]"'
        ) from None
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        with parallel_config("loky", inner_max_num_threads=setting.config.threads):
            pool = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
            yield from pool(delayed(perform_in_worker)(setting, task) for task in tasks)
    except TerminatedWorkerError as error:
        raise EngineError(
            "a worker process died, perhaps for lack of memory. What was done is kept: run again with fewer --jobs, a smaller "
            f"batch_size or shard_size. ({str(error).splitlines()[0]})"
        ) from None


@contextmanager
def started(engine: Engine, jobs: int) -> Iterator[None]:
    """Keep the workers of an engine for several calls of :func:`run`."""
    if engine != "ray":
        yield
        return
    with _ray(jobs):
        yield


def _on_ray(setting: Setting, tasks: Sequence[Task], jobs: int) -> Iterator[Outcome]:
    with _ray(jobs) as ray:
        gpu = 1 if setting.config.device.startswith("cuda") else 0
        remote = ray.remote(num_cpus=setting.config.threads, num_gpus=gpu, max_retries=2)(perform_in_worker)
        shared = ray.put(setting)
        waiting = list(reversed(tasks))
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < 2 * jobs:  # a few ahead, so that no worker waits
                running.append(remote.remote(shared, waiting.pop()))
            ready, running = ray.wait(running, num_returns=1)
            try:
                yield from ray.get(ready)
            except ray.exceptions.RayError as error:
                raise EngineError(
                    f"a Ray worker died ({str(error).splitlines()[0]}); what was done is kept, run again."
                ) from None


@contextmanager
def _ray(jobs: int) -> Iterator[Any]:
    """Ray: the one that runs, or one of this machine for as long as it is needed; the environment is put back."""
    before = dict(os.environ)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else it writes a token into the home directory
    try:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError(
                f'ray cannot be imported ({error}). It comes with: pip install "captum-leam[ray]"'
            ) from None
        started = not ray.is_initialized()
        if started:
            local: dict[str, Any] = (
                {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": jobs, "include_dashboard": False}
            )
            ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **local)
        try:
            yield ray
        finally:
            if started:
                ray.shutdown()
    finally:
        for name in set(os.environ) - set(before):  # Ray sets some of its own
            del os.environ[name]
        os.environ.update(before)
