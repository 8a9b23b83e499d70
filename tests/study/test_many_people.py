"""Studies of more pairs than are compared: sums over all people, pairs of a sample, on every engine the same."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from captum_leam._storage import Shard, read_shard, write_shard
from captum_leam.study import Study, StudyResult, assembling, comparing, reading
from tests.helpers.tiny_study import tables_of

OF_PAIRS = [f"auc{end}" for end in ("", "_low", "_high")]
OF_GAPS = [f"{name}{end}" for name in ("same", "different", "gap") for end in ("", "_low", "_high")]


@pytest.fixture(scope="module")
def many(undisturbed, tmp_path_factory) -> StudyResult:
    """The small study with maps as they were, compared as if its 105 pairs were too many."""
    return _run(undisturbed, tmp_path_factory.mktemp("many"))


def _run(undisturbed, folder, max_pairs=40, **options) -> StudyResult:
    shutil.copytree(undisturbed, folder, dirs_exist_ok=True)
    config = replace(Study(folder / "study.yaml").config, max_pairs=max_pairs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "PART", 6)
        patch.setattr(reading, "ALL_PAIRS", 10)
        result = Study(config).run(progress=False, report=False, **options)
    assert result.manifest["run"]["shards made"]["explaining"] == 0
    return result


def test_sums_are_of_all_people(many, undisturbed):
    found, exact = many.table("patterns"), StudyResult(undisturbed / "results").table("patterns")
    by_pairs = found["control"] == "pose"
    assert found[["model", "layer", "kind", "control"]].equals(exact[["model", "layer", "kind", "control"]])
    assert np.allclose(found.loc[~by_pairs, OF_GAPS], exact.loc[~by_pairs, OF_GAPS], atol=1e-6, equal_nan=True)
    assert np.allclose(found.loc[by_pairs, OF_GAPS[3:6]], exact.loc[by_pairs, OF_GAPS[3:6]], atol=1e-6, equal_nan=True)
    agreed = [
        result.table("agreement").drop(columns=["what", "kind", "model", "layer", "a", "b"])
        for result in (many, StudyResult(undisturbed / "results"))
    ]
    assert np.allclose(*agreed, atol=1e-6, equal_nan=True)


def test_pairs_are_of_a_sample(many, undisturbed):
    found, exact = many.table("patterns"), StudyResult(undisturbed / "results").table("patterns")
    has_maps = found["control"] != "pose"
    assert found.loc[has_maps, "auc"].between(0, 1).all()
    assert not np.allclose(found.loc[has_maps, "auc"], exact.loc[has_maps, "auc"])
    assert (found.loc[found["control"] == "", "p"] <= 1).all()
    assert (found["images"] == exact["images"]).all()
    assert (found["people"] == exact["people"]).all()


def test_images_of_a_part_without_a_control_are_left_out(undisturbed, tmp_path):
    """A part in which no map of the untrained twin could be made: its images count nowhere, as if all pairs were compared."""
    source = shutil.copytree(undisturbed, tmp_path / "source")
    shutil.rmtree(source / "results" / "work" / "patterns")
    path = min((source / "results" / "work" / "untrained").iterdir())
    count = len(read_shard(path)["rows"])
    write_shard(path, Shard({"rows": np.zeros(0, np.int32)}, {"failed": []}))
    found, exact = (_run(source, tmp_path / f"{n}", max_pairs=n).table("patterns") for n in (40, 1000))
    same = ["model", "layer", "kind", "control", "images", "people"]
    assert found[same].equals(exact[same])
    assert sorted(set(found["images"])) == [15 - count, 15]
    has_maps = found["control"] != "pose"
    assert np.allclose(found.loc[has_maps, OF_GAPS], exact.loc[has_maps, OF_GAPS], atol=1e-6, equal_nan=True)


def test_other_engines_give_the_same_bytes(many, undisturbed, tmp_path):
    other = _run(undisturbed, tmp_path, engine="processes", jobs=2)
    ours, theirs = tables_of(many.folder), tables_of(other.folder)
    assert set(ours) == set(theirs)
    comparable = {name for name in ours if name != "tables/patterns.parquet"}
    assert all(ours[name] == theirs[name] for name in comparable)
    # the workers of the other engine have the parts of a real study: sums are in another order
    columns = [*OF_GAPS, *OF_PAIRS, "p", "above_control"]
    tables = [result.table("patterns")[columns] for result in (many, other)]
    assert np.allclose(*tables, atol=1e-6, equal_nan=True)


def test_verification_compares_people_of_a_sample(many, undisturbed, monkeypatch, tmp_path):
    exact = StudyResult(undisturbed / "results")
    assert many.table("verification").equals(
        exact.table("verification")
    )  # a hundred times as many pairs hold everybody
    monkeypatch.setattr(assembling, "VERIFIED", 1)
    sampled = _run(undisturbed, tmp_path).table("verification")
    assert (sampled["genuine"] + sampled["impostor"] <= 40).all()
    assert (sampled["images"] == 15).all()
    assert (sampled["people"] == 5).all()
