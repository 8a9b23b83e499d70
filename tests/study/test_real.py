"""The study on real faces and networks: maps are person-specific, on both networks, beyond every control."""

import json

import pytest

from captum_leam.study import Study


@pytest.mark.real
@pytest.mark.slow
def test_real_people(real_dir, tmp_path):
    people = sorted((real_dir / "faces").iterdir())
    rows = [f"{path},{person.name}" for person in people for path in sorted(person.iterdir())[:3]]
    (tmp_path / "people.csv").write_text("\n".join(["path,person", *rows]))
    config = {
        "people": "people.csv",
        "models": {name: f"{real_dir}/models.py:{name}" for name in ("ms1m", "casia")},
        "parser": {"parser": f"{real_dir}/models.py:parser"},
        "fractions": [0.05],
        "layer_fractions": [],
        "controls": ["random pixels", "centre", "other people"],
        "patterns": {"permutations": 99, "resamples": 500},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(config))
    result = Study(tmp_path / "study.yaml").run(progress=False, report=False)
    print(result)
    assert len(result.table("layers")) == 2 * 4
    assert result.table("verification")["separates"].all()
    found = result.table("patterns", layer="overall", kind="top", control="").set_index("model")
    assert set(found.index) == {"ms1m", "casia"}
    assert (found["same"] >= 0.30).all()
    assert (found["different"] <= 0.16).all()
    assert (found["auc"] >= 0.90).all()
    assert (found["above_control"] > 0).all()
    assert (found["p"] <= 0.01).all()
    drops = result.table("drop_summary", layer="overall", control="", fraction=0.05).set_index(
        ["explained", "measured"]
    )["drop"]
    random = result.table("drop_summary", control="random pixels").set_index("measured")["drop"]
    for explained, measured in drops.index:
        assert drops[explained, measured] > 5 * random[measured]
    lift = result.table("region_summary", layer="overall", quantity="lift").set_index(["model", "region"])["mean"]
    for model in ("ms1m", "casia"):
        assert lift[model, "nose"] > 3
        assert lift[model, "hair"] < 1
