"""Engines give the same bytes; workers that die, engines that are not there."""

import os
import sys
from dataclasses import replace

import pytest

from captum_leam.errors import EngineError, IncompleteError
from captum_leam.study import Study, executor
from captum_leam.study.executor import Executor
from captum_leam.study.task import Index, Task
from tests.helpers.tiny_study import tables_of


def _die(context, task):
    os._exit(9)


def test_processes_give_the_same_bytes(undisturbed, right, tmp_path):
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    Study(settings).run(engine="processes", jobs=2, progress=False, report=False)
    assert tables_of(tmp_path / "out") == right


@pytest.mark.slow
@pytest.mark.ci
def test_a_killed_process_is_an_engine_error(undisturbed, monkeypatch):
    """After the test above: joblib keeps its workers, and they need not import everything again."""
    pytest.importorskip("joblib", reason="needs pip install 'captum-leam[study]'")
    monkeypatch.setattr(executor, "perform_in_worker", _die)
    config = Study(undisturbed / "study.yaml").config
    task = Task("crops", Index(0), undisturbed / "never", {})
    with (
        pytest.raises(EngineError, match=r"a worker process died, perhaps for lack of memory\. What was done is kept"),
        Executor(config, "processes", 2).started() as workers,
    ):
        workers.perform_all(None, [task] * 2, "")


@pytest.mark.slow
@pytest.mark.ci
def test_ray_gives_the_same_bytes_and_leaves_the_environment(undisturbed, right, tmp_path, monkeypatch):
    """Two workers; joblib does the work of one in this process."""
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
    monkeypatch.setattr(executor, "keep_freed_memory", lambda: pytest.fail("called in the caller's process"))
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    Study(settings).run(engine=engine, jobs=1, progress=False, report=False)


def test_a_worker_that_dies_once_costs_its_shard_only(undisturbed, right, tmp_path, monkeypatch):
    real, calls = Executor.perform_all, []

    def perform_all(self, context, tasks, title):
        calls.append(len(tasks))
        if len(calls) == 2:  # of the maps, three are made, then the worker is gone
            real(self, context, tasks[:3], title)
            raise EngineError("a worker process died")
        return real(self, context, tasks, title)

    monkeypatch.setattr(Executor, "perform_all", perform_all)
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    result = Study(settings).run(progress=False, report=False)
    assert calls[:3] == [3, 15, 12]
    assert result.manifest["run"]["workers lost"] == ["explaining: a worker process died"]
    assert tables_of(tmp_path / "out") == right


def test_workers_that_die_again_and_again_are_reported(undisturbed, tmp_path, monkeypatch):
    def perform_all(*args):
        raise EngineError("a worker process died")

    monkeypatch.setattr(Executor, "perform_all", perform_all)
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    with pytest.raises(IncompleteError, match="a worker process died"):
        Study(settings).run(progress=False, report=False)


@pytest.mark.parametrize(("module", "engine", "extra"), [("joblib", "processes", "study"), ("ray", "ray", "ray")])
def test_engines_that_are_not_installed_raise(undisturbed, tmp_path, monkeypatch, module, engine, extra):
    monkeypatch.setitem(sys.modules, module, None)
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    with pytest.raises(ImportError, match=rf"pip install \"captum-leam\[{extra}\]\""):
        Study(settings).run(engine=engine, jobs=2, progress=False, report=False)
