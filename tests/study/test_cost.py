"""The cost of a study before it starts, against what a run does."""

import builtins
from collections import Counter
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from captum_leam.cli import app
from captum_leam.errors import ConfigError
from captum_leam.study import Study, engines
from captum_leam.study.config import config_from
from captum_leam.study.cost import passes_of
from captum_leam.study.networks import Layer
from captum_leam.study.plan import make_plan
from captum_leam.study.worker import Worker
from tests.helpers import tiny_study

FORWARD = "return self.head(self.body"


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A study whose networks count their images, its cost, and the passes and bytes of a real run, by stage."""
    with pytest.MonkeyPatch.context() as patch:
        seen: list[int] = []
        patch.setattr(builtins, "seen_images", seen, raising=False)
        count = "__import__('builtins').seen_images.append(len(x))\n        " + FORWARD
        patch.setattr(tiny_study, "MODELS", tiny_study.MODELS.replace(FORWARD, count))
        folder = tmp_path_factory.mktemp("cost")
        study = Study(tiny_study.write_study(folder))
        before = sorted(folder.rglob("*"))
        cost = study.plan()
        after = sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)
        passes, real = Counter(), engines.perform

        def perform(context, task):
            seen.clear()
            problem = real(context, task)
            passes[task.stage] += sum(seen)
            return problem

        patch.setattr(engines, "perform", perform)
        study.run(progress=False, report=False)
        size = Counter()
        for path in (folder / "results" / "work").rglob("*.shard"):
            size[path.parent.name] += path.stat().st_size
        yield study, cost, (before, after), passes, size


def test_passes_and_shards_are_those_of_a_run(counted):
    _, cost, _, passes, _ = counted
    assert {stage.name: stage.forward for stage in cost.stages if stage.forward} == {
        k: n for k, n in passes.items() if n
    }
    shards = {stage.name: stage.shards for stage in cost.stages}
    assert shards == {**shards, "crops": 3, "maps": 6, "untrained": 6, "totals": 2, "patterns": 6, "strangers": 1}


def test_bytes_are_those_of_a_run_within_a_fifth(counted):
    _, cost, _, _, size = counted
    del size["identities"]  # of networks and parser, some 1 kB each
    assert sum(stage.bytes for stage in cost.stages) == pytest.approx(sum(size.values()), rel=0.2)
    for stage in cost.stages:
        assert stage.bytes == pytest.approx(size[stage.name], rel=0.2), stage.name


def test_a_plan_leaves_no_file(counted):
    _, _, (before, after), _, _ = counted
    assert before == after


def test_more_workers_take_less_time_and_do_once_more_what_each_does_once(counted):
    study, cost, *_ = counted
    both = study.plan(engine="processes", jobs=2)
    assert {stage.name: stage.workers for stage in both.stages if stage.workers == 1} == {
        "strangers": 1,
        "model_agreement": 1,
    }
    ours, theirs = (next(s for s in c.stages if s.name == "untrained") for c in (cost, both))
    assert ours.forward < theirs.forward < 2 * ours.forward  # each worker makes its own twins
    with pytest.raises(ConfigError, match="jobs 0"):
        study.plan(jobs=0)


def test_what_halves_the_passes_is_named(counted):
    study, cost, *_ = counted
    assert sum(share for _, share in cost.switches) >= 0.5
    assert cost.switches[0][0] in repr(cost)
    assert study.config.transfer


def test_the_command_prints_the_cost(counted):
    study, *_ = counted
    found = CliRunner().invoke(app, ["study", str(study.config.out.parent / "study.yaml"), "--plan"])
    assert found.exit_code == 0, found.output
    assert "5 people, 15 images; engine serial, 1 worker" in found.output
    assert "time: about" in found.output


def test_the_formula_of_passes_is_that_of_the_page(counted):
    """Two networks, defaults, one layer each: 57 + 27 + 1 + 1 passes for each of them."""
    study, *_ = counted
    plan = make_plan(study.config, Worker(), [], progress=False)
    one = Layer("stem", (4, 24, 24), 2.0, True)
    plan = replace(plan, networks=tuple(replace(network, layers=(one,)) for network in plan.networks))
    config = config_from({"people": ".", "models": {"one": "torch.nn:Identity", "two": "torch.nn:Identity"}})
    assert passes_of(config, plan) == 2 * (57 + 27 + 1 + 1)
