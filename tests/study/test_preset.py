"""The overall map of a study is that of explain_faces at the same preset."""

import numpy as np
import pytest
import torch

from captum_leam import explain_faces, leave_one_out_centroids, suggest_layers
from captum_leam.errors import NoEvidenceError
from captum_leam.explain import OverallMap
from captum_leam.faces import read_crops
from captum_leam.maps import default_blur
from captum_leam.models import load_model
from captum_leam.regions import TemplateParser, region_report
from captum_leam.study import Study
from captum_leam.study.config import read_config
from captum_leam.study.evaluating import StudyMaps
from captum_leam.study.networks import describe, identify
from tests.helpers.tiny_study import write_study


@pytest.fixture(scope="module")
def by_hand(undisturbed):
    """Model, images and references, without the study."""
    paths = sorted((undisturbed / "faces").rglob("*.png"))
    images, model = read_crops(paths), load_model(f"{undisturbed}/nets.py:two")
    with torch.no_grad():
        return model, images, leave_one_out_centroids(model(images), [path.parent.name for path in paths])


@pytest.mark.parametrize("preset", ["fast", "default"])
def test_tables_and_mean_maps_are_those_of_explain_faces(by_hand, tmp_path, preset):
    model, images, references = by_hand
    maps = explain_faces(model, images, preset, reference=references)
    result = Study(write_study(tmp_path, preset=preset)).run(progress=False, report=False)
    assert np.allclose(result.mean_maps()["two", "overall"], maps.mean(0), atol=1e-7)
    scheme = TemplateParser.scheme.merge_sides()
    expected = region_report(maps, TemplateParser()(images), scheme, fraction=0.01)
    found = result.table("regions", model="two", layer="overall")
    assert np.allclose(found["mass"], expected["mass"], atol=1e-6)
    assert np.allclose(found["share"], expected["share"], atol=1e-6)


@pytest.mark.parametrize("preset", ["fast", "default", "best"])
def test_a_batch_has_the_maps_of_explain_faces_bit_for_bit(undisturbed, by_hand, preset, tmp_path):
    model, images, references = (part[:4] if isinstance(part, torch.Tensor) else part for part in by_hand)
    config = read_config(write_study(tmp_path, preset=preset))
    network, module = identify(config.models[1], "cpu", 48)
    explain = StudyMaps(describe(network, module, images[:2], "cpu"), module, config)
    maps, _ = explain(images, references, default_blur(images))
    layers = suggest_layers(model, images)
    assert torch.equal(maps[:, 0], explain_faces(model, images, preset, layers=layers, reference=references))


def test_layer_maps_do_not_depend_on_the_preset(undisturbed, tmp_path):
    maps = {}
    for preset in ("fast", "layers"):
        folder = tmp_path / preset
        folder.mkdir()
        result = Study(write_study(folder, preset=preset, leam={"n_steps": 2})).run(progress=False, report=False)
        maps[preset] = result.mean_maps()
    assert np.array_equal(maps["fast"]["one", "stem"], maps["layers"]["one", "stem"])
    assert not np.array_equal(maps["fast"]["one", "overall"], maps["layers"]["one", "overall"])


def test_a_face_without_evidence_is_skipped_with_a_reason(tmp_path, monkeypatch):
    make = OverallMap.__call__

    def refuse_one(self, x, **towards):
        if bool((x.mean((1, 2, 3)) == brightness).any()):
            raise NoEvidenceError(
                "Expected maps with a positive value, got no positive value in maps [2]. Leave these images out."
            )
        return make(self, x, **towards)

    path = write_study(tmp_path, preset="fast")
    brightness = read_crops([tmp_path / "faces" / "p01" / "1.png"]).mean()
    monkeypatch.setattr(OverallMap, "__call__", refuse_one)
    result = Study(path).run(progress=False, report=False)
    skipped = result.table("skipped")
    assert skipped["path"].tolist() == ["p01/1.png"] * 2
    reason = "NoEvidenceError: no positive value at a layer of the overall map"
    assert set(zip(skipped["stage"], skipped["reason"], strict=True)) == {("explain", reason)}
    assert result.table("scores", model="one")["image"].nunique() == 14
    assert result.table("regions", model="one", layer="overall")["image"].nunique() == 14


def test_the_manifest_says_how_the_maps_were_made(undisturbed, tmp_path):
    result = Study(write_study(tmp_path, preset="default", leam=None)).run(progress=False, report=True)
    maps = result.manifest["models"]["one"]["maps"]
    assert maps["preset"] == "default"
    assert maps["passes"] == "9 forward, 9 backward"
    assert maps["layers of the overall map"] == "stem"
    assert maps["passes of the signed layer maps"] == "6 forward, 4 backward"
    page = (result.folder / "report.html").read_text()
    assert "preset default, passes per image: 9 forward, 9 backward" in page
