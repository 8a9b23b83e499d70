"""Engines give the same bytes; workers that die, engines that are not there."""

import os
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest

from captum_leam.errors import EngineError
from captum_leam.study import Study, engines, executor
from captum_leam.study.engines import Outcome
from captum_leam.study.executor import Executor
from captum_leam.study.task import Index, Task
from captum_leam.study.work_log import WorkLog
from captum_leam.study.worker import WorkerContext
from tests.helpers.tiny_study import tables_of


def _die(context, task):
    os._exit(9)


def _fail(context, task):
    raise ArithmeticError("the task's own")


MEMORY = []


def _grow(context, task):
    """In a worker: hold 400 MB more from the second task on, and take longer than loky waits between two looks at the memory."""

    def hold(context, task):
        if len(MEMORY) < 2:
            MEMORY.append(np.ones(len(MEMORY) * 50_000_000))
        time.sleep(1.1)
        return Outcome(task)

    with patch.object(engines, "perform", hold):
        return engines.perform_in_worker(context, task)


@pytest.mark.slow
@pytest.mark.ci
def test_workers_that_grow_are_kept(undisturbed, monkeypatch):
    """Loky would end them for a leak, and the next ones would load all networks again."""
    pytest.importorskip("joblib", reason="needs pip install 'captum-leam[study]'")
    pytest.importorskip("psutil", reason="loky looks at the memory by psutil")
    monkeypatch.setattr(engines, "perform_in_worker", _grow)
    config = Study(undisturbed / "study.yaml").config
    tasks = [Task("crops", Index(i), config.out / f"{i}.never", {}) for i in range(8)]
    with engines.ENGINES["processes"](2, config) as pool:
        workers = [outcome.worker for outcome in pool(None, tasks)]
    assert len(workers) == 8
    assert set(workers) == {"node 1, worker 1", "node 1, worker 2"}


def test_processes_give_the_same_bytes(undisturbed, right, tmp_path):
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    Study(settings).run(engine="processes", jobs=2, progress=False, report=False)
    assert tables_of(tmp_path / "out") == right


def test_loky_has_the_limit_that_workers_lift():
    process_executor = pytest.importorskip("joblib.externals.loky.process_executor")
    assert process_executor._MAX_MEMORY_LEAK_SIZE == 300_000_000


def blas_threads():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="needs pip install 'captum-leam[study]'")
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


def _raise_threads(worker, task):
    raise RuntimeError(f"threads {set(blas_threads())}")


def _perform_raising(context, task):
    with patch.dict(engines.STAGE_OF, crops=SimpleNamespace(function=_raise_threads)):
        return engines.perform_in_worker(context, task)


@pytest.mark.parametrize("threads", [1, 2])
def test_numpy_has_the_threads_of_the_study_and_then_its_own(undisturbed, monkeypatch, threads):
    """With other threads BLAS adds in another order, and tables differ in the last digit."""
    before = blas_threads()
    if not before:
        pytest.skip("NumPy has no BLAS whose threads can be set")
    config = replace(Study(undisturbed / "study.yaml").config, threads=threads)
    context, task = WorkerContext(config, (), (), None), Task("crops", Index(0), config.out / "0.never", {})
    monkeypatch.setitem(engines.STAGE_OF, "crops", SimpleNamespace(function=_raise_threads))
    monkeypatch.setattr(engines, "perform_in_worker", _perform_raising)
    for engine in ("serial", "processes"):
        with engines.ENGINES[engine](2, config) as pool:
            (outcome,) = pool(context, [task])
        assert f"threads {{{threads}}}" in outcome.problem
    assert blas_threads() == before


def test_an_exception_of_a_task_is_no_lost_worker(undisturbed, monkeypatch):
    pytest.importorskip("joblib", reason="needs pip install 'captum-leam[study]'")
    monkeypatch.setattr(engines, "perform_in_worker", _fail)
    config = Study(undisturbed / "study.yaml").config
    tasks = [Task("crops", Index(i), config.out / f"{i}.never", {}) for i in range(2)]
    with (
        pytest.raises(ArithmeticError, match="the task's own"),
        Executor(config, "processes", 2).started() as workers,
    ):
        workers.run(None, tasks, "")
    assert workers.log.to_dict()["retries"] == []


@pytest.mark.slow
@pytest.mark.ci
def test_processes_that_die_again_and_again_are_an_engine_error(undisturbed, monkeypatch):
    """After the test above: joblib keeps its workers, and they need not import everything again."""
    pytest.importorskip("joblib", reason="needs pip install 'captum-leam[study]'")
    monkeypatch.setattr(engines, "perform_in_worker", _die)
    monkeypatch.setattr(executor, "RETRIES", 1)
    config = Study(undisturbed / "study.yaml").config
    tasks = [Task("crops", Index(i), config.out / f"{i}.never", {}) for i in range(2)]
    with (
        pytest.raises(
            EngineError,
            match=r"Expected a worker to compute \d.never, but 2 workers were lost \(a worker process died, perhaps",
        ),
        Executor(config, "processes", 2).started() as workers,
    ):
        workers.run(None, tasks, "")
    assert [entry["times"] for entry in workers.log.to_dict()["retries"]] == [2, 2]


@pytest.mark.slow
@pytest.mark.ci
def test_ray_gives_the_same_bytes_and_leaves_the_environment(undisturbed, right, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs pip install 'captum-leam[ray]'")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    before = dict(os.environ)
    Study(settings).run(engine="ray", jobs=2, progress=False, report=False)
    assert tables_of(tmp_path / "out") == right
    assert "RAY_AUTH_MODE" not in os.environ
    assert {k: v for k, v in os.environ.items() if before.get(k) != v} == {}


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_the_callers_process_keeps_its_own_way_with_freed_memory(undisturbed, tmp_path, monkeypatch, engine):
    monkeypatch.setattr(engines, "keep_freed_memory", lambda: pytest.fail("called in the caller's process"))
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    Study(settings).run(engine=engine, jobs=1, progress=False, report=False)


def test_tasks_of_lost_workers_are_given_again(undisturbed, right, tmp_path, monkeypatch):
    """The second task of each group loses its worker, and the tasks after it are not begun."""

    @contextmanager
    def fragile(jobs, config):
        broken = set()

        def pool(context, tasks):
            yield engines.perform(context, tasks[0])
            if len(tasks) > 1 and tasks[1].stage not in broken:
                broken.add(tasks[1].stage)
                yield Outcome(tasks[1], lost="its node died", worker="node 2, worker 2")
                return
            yield from (engines.perform(context, task) for task in tasks[1:])

        yield pool

    monkeypatch.setitem(engines.ENGINES, "serial", fragile)
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    run = Study(settings).run(progress=False, report=False).manifest["run"]
    assert tables_of(tmp_path / "out") == right
    assert {entry["shard"].split("/")[1] for entry in run["retries"]} >= {"crops", "maps", "others", "patterns"}
    for entry in run["retries"]:
        assert entry["times"] == 1
        assert entry["workers"] == ["node 2, worker 2"]
        assert entry["why"] == "its node died"
    assert run["workers"].keys() == {"node 1, worker 1"}
    assert run["workers"]["node 1, worker 1"]["shards"] == 36  # three identities are written by no task


def test_a_slow_task_is_reported_as_a_straggler():
    log = WorkLog()
    for i, seconds in enumerate([1.0, 1.2, 1.1, 9.0, 1.0]):
        log.add(f"{i}.shard", Outcome(Task("maps", Index(i), Path(f"{i}.shard"), {}), worker="w", seconds=seconds))
    log.add("short", Outcome(Task("crops", Index(0), Path("short"), {}), seconds=0.01))
    log.add("longer", Outcome(Task("crops", Index(1), Path("longer"), {}), seconds=0.9))  # not by a second
    assert log.to_dict()["stragglers"] == [{"shard": "3.shard", "worker": "w", "seconds": 9.0, "median": 1.1}]


@pytest.mark.parametrize(("module", "engine", "extra"), [("joblib", "processes", "study"), ("ray", "ray", "ray")])
def test_engines_that_are_not_installed_raise(undisturbed, tmp_path, monkeypatch, module, engine, extra):
    monkeypatch.setitem(sys.modules, module, None)
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    with pytest.raises(ImportError, match=rf"pip install \"captum-leam\[{extra}\]\""):
        Study(settings).run(engine=engine, jobs=2, progress=False, report=False)
