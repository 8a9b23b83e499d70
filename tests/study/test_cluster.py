"""A cluster of two nodes on this machine, one of which dies while the study runs; a process that the system kills."""

import os
from dataclasses import replace

import pytest

from captum_leam.study import Study, engines
from tests.helpers.tiny_study import MODELS, tables_of, write_study

pytestmark = [pytest.mark.slow, pytest.mark.ci]

MORTAL = f'''
{MODELS}
import os, signal
from pathlib import Path


class Mortal(Small):
    """Ends its process after the first pass with gradients, as the system does where memory is used up; not in the process of the test."""

    def forward(self, x):
        embeddings, folder = super().forward(x), Path(__file__).parent
        is_worker = os.getpid() != int((folder / "driver").read_text())
        if is_worker and embeddings.requires_grad and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return embeddings


def mortal():
    torch.manual_seed(1)
    return Mortal(4)
'''


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one core each."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs pip install 'captum-leam[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        patch.setenv("RAY_ADDRESS", nodes.address)
        nodes.add_node(num_cpus=1)
        yield nodes
        nodes.shutdown()


def test_a_node_that_dies_in_the_middle_changes_no_table(cluster, undisturbed, right, tmp_path, monkeypatch):
    """The node is ended while its worker explains; the other one does the rest. Each worker loads each network once."""
    real, lost = engines.RayPool.__call__, []

    def watched(pool, context, tasks):
        for ready in [] if lost else [*pool._starting]:  # both nodes take part
            pool._welcome(ready)
        for outcome in real(pool, context, tasks):
            yield outcome
            head = f"node {pool._nodes[cluster.head_node.node_id]},"
            if outcome.task.stage == "maps" and not lost and not outcome.worker.startswith(head):
                lost.append(outcome.worker)
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    monkeypatch.setattr(engines.RayPool, "__call__", watched)
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    run = Study(settings).run(engine="ray", jobs=2, progress=False, report=False).manifest["run"]
    assert tables_of(tmp_path / "out") == right
    (retry,) = run["retries"]
    assert retry["times"] == 1
    assert retry["workers"] == lost
    assert retry["why"] == "a worker, or its node, died or cannot be reached"
    assert len(run["workers"]) == 2
    assert sum(worker["shards"] for worker in run["workers"].values()) == 36
    assert [worker["networks loaded"] for worker in run["workers"].values()] == [2, 2]


def test_a_cluster_that_is_not_named_is_not_joined(cluster, undisturbed, right, tmp_path, monkeypatch):
    """Ray alone joins a cluster that runs on this machine, and refuses the number of cores then."""
    real, nodes = engines.RayPool.__call__, set()

    def watched(pool, context, tasks):
        yield from real(pool, context, tasks)
        nodes.update(pool._nodes)

    monkeypatch.setattr(engines.RayPool, "__call__", watched)
    monkeypatch.delenv("RAY_ADDRESS")
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    run = Study(settings).run(engine="ray", jobs=1, progress=False, report=False).manifest["run"]
    assert tables_of(tmp_path / "out") == right
    assert len(run["workers"]) == 1
    assert nodes
    assert nodes.isdisjoint({node.node_id for node in [cluster.head_node, *cluster.worker_nodes]})


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_a_worker_that_the_system_kills_is_reported(cluster, tmp_path, engine):
    pytest.importorskip("joblib", reason="needs pip install 'captum-leam[study]'")
    path = write_study(tmp_path, models={"one": "nets.py:one", "two": "nets.py:mortal"})
    (tmp_path / "nets.py").write_text(MORTAL)
    (tmp_path / "driver").write_text(str(os.getpid()))
    config = Study(path).config
    Study(replace(config, out=tmp_path / "serial")).run(progress=False, report=False)
    assert not (tmp_path / "died").exists()
    run = Study(config).run(engine=engine, jobs=2, progress=False, report=False).manifest["run"]
    assert (tmp_path / "died").exists()
    assert tables_of(config.out) == tables_of(tmp_path / "serial")
    assert len(run["retries"]) >= 1  # loky ends all processes, and every task that was handed out is given again
    assert {entry["times"] for entry in run["retries"]} == {1}
    assert any("a worker process died, perhaps for lack of memory" in entry["why"] for entry in run["retries"])
    assert any("SIGKILL" in entry["why"] for entry in run["retries"]) == (engine == "processes")
    assert all(worker["networks loaded"] <= 2 for worker in run["workers"].values())
