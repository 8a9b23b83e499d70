"""The table of stages: what makes which shards again."""

import weakref
from dataclasses import replace
from operator import attrgetter

import pytest
import torch

from captum_leam.faces import ARCFACE_112, align
from captum_leam.study import Study, reading
from captum_leam.study import plan as planning
from captum_leam.study.config import Config
from captum_leam.study.plan import STAGE_OF, Plan, make_plan
from captum_leam.study.stages import STAGES, Stage
from captum_leam.study.worker import Worker

EVERYTHING = set(STAGE_OF)
MAPS_AND_AFTER = EVERYTHING - {"crops", "controls", "untrained", "strangers"}
COMPARISONS = {"patterns", "model_agreement", "layer_agreement"}
WITHOUT_SHARDS = {"groups", "min_group", "max_eer", "title", "out"}  # they change tables and the page only
BY_CONTENT = {"people", "models", "layers", "parser", "device", "shard_size"}  # in the name of every shard, as hashes


@pytest.fixture(scope="module")
def plan(undisturbed) -> Plan:
    config = Study(undisturbed / "study.yaml").config
    worker = Worker()
    plan = make_plan(config, worker, [], progress=False)
    plan.describe(worker)
    return plan


def names(plan: Plan) -> dict[str, list[str]]:
    return {stage.name: [plan.path(stage.name, at).stem for at in plan.indices(stage)] for stage in STAGES}


def other_stages(plan: Plan, other: Plan) -> set[str]:
    before, after = names(plan), names(other)
    return {name for name in before if not set(before[name]) & set(after[name])}


def test_photographs_are_let_go_one_by_one(plan, monkeypatch):
    """A shard of photographs of 12 million pixels would take 4.6 GB."""
    real, photos, alive = reading.read_one, [], []

    def watched(picture, worker):
        alive.append(sum(photo() is not None for photo in photos))
        photo = torch.rand(3, 60, 80)
        photos.append(weakref.ref(photo))
        return replace(real(picture, worker), photo=photo, face=align(photo, ARCFACE_112 / 2))

    monkeypatch.setattr(reading, "read_one", watched)
    shard = reading.crops_shard(Worker().works_for(plan.context), plan.shards[0])
    assert alive == [0] * len(plan.shards[0])
    assert len(alive) > 1
    assert shard["photographs"].any(axis=1).all()  # their thumbnails are kept


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"title": "Another", "max_eer": 0.1, "min_group": 5}, set()),
        ({"batch_size": 2}, EVERYTHING),
        ({"fractions": (0.1, 0.3)}, EVERYTHING - {"crops", "untrained", "strangers"}),
        ({"controls": ("centre", "moved", "other people")}, {"controls", "patterns"}),
        ({"layer_transfer": True}, MAPS_AND_AFTER),
        ({"confidence": 0.9}, COMPARISONS),
        ({"max_pairs": 100}, COMPARISONS | {"strangers"}),
        ({"patterns.permutations": 29}, {"patterns"}),
        ({"preset": "fast"}, MAPS_AND_AFTER | {"untrained"}),
        ({"leam.n_steps": 2}, MAPS_AND_AFTER | {"untrained"}),
    ],
)
def test_a_setting_makes_again_what_depends_on_it(plan, change, expected):
    config = plan.config
    for name, value in change.items():
        section, _, key = name.rpartition(".")
        value = replace(getattr(config, section), **{key: value}) if section else value
        config = replace(config, **{section or key: value})
    other = Plan(config, plan.listing, plan.networks, plan.parser, plan.shards)
    assert other_stages(plan, other) == expected


def test_other_code_of_the_package_makes_all_again(plan, monkeypatch):
    monkeypatch.setattr(planning, "code_sha256", lambda: "another")
    other = Plan(plan.config, plan.listing, plan.networks, plan.parser, plan.shards)
    assert other_stages(plan, other) == EVERYTHING


def test_a_renamed_network_makes_all_again(plan):
    """Its name stands in shards and tables."""
    one, two = plan.networks
    networks = (replace(one, model=replace(one.model, name="first")), two)
    other = Plan(plan.config, plan.listing, networks, plan.parser, plan.shards)
    assert other_stages(plan, other) == EVERYTHING


def test_every_setting_is_in_the_table_or_changes_no_shard(plan):
    named = {setting.partition(".")[0] for stage in STAGES for setting in stage.depends_on}
    named |= {"controls"} if {"own_controls", "shared_controls"} <= named else set()
    assert set(Config.__dataclass_fields__) - WITHOUT_SHARDS - BY_CONTENT <= named
    for stage in STAGES:
        for setting in stage.depends_on:
            attrgetter(setting)(plan.config)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_stages_come_after_what_they_read(stage: Stage):
    order = [s.name for s in STAGES]
    assert all(order.index(name.split()[-1]) < order.index(stage.name) for name in stage.inputs)
    together = [s.name for s in STAGES if s.title == stage.title]
    assert not set(stage.inputs) & set(together)
