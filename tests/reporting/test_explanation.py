"""The page and its parts."""

import json
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from captum_leam import EmbeddingSimilarity, explain_faces, suggest_layers
from captum_leam._text import safe_name
from captum_leam.errors import FileError
from captum_leam.explain import layer_maps
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.regions import TemplateParser, region_report
from captum_leam.reporting.explanation import ExplainOptions, explain_images, references_from
from captum_leam.reporting.explanation_page import explanation_page, write_page
from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation


@pytest.fixture(scope="module")
def explained():
    torch.manual_seed(0)
    model, faces = EmbeddingNet().eval(), SyntheticPopulation(2).sample(2, seed=1)
    layers, parser = suggest_layers(model, faces.images), TemplateParser()
    found = explain_images(
        model,
        faces.images,
        ["ann", "<b>bob</b>", "../cy", "dee"],
        layers,
        parser(faces.images),
        parser.scheme,
        references=references_from(model, faces.images),
        options=ExplainOptions(preset="fast", n_steps=1),
    )
    return model, faces, layers, found


def test_maps_are_those_of_the_preset_and_signed_ones_beside(explained):
    model, faces, layers, found = explained
    references = references_from(model, faces.images)
    assert torch.equal(found.overall, explain_faces(model, faces.images, "fast", layers=layers, reference=references))
    for name, signed in layer_maps(model, faces.images, layers, reference=references, n_steps=1).items():
        assert torch.equal(found.layers[name], signed)


def test_regions_and_drops_are_those_of_the_map_that_is_shown(explained):
    model, faces, _, found = explained
    parser, references = TemplateParser(), references_from(model, faces.images)
    again = region_report(found.overall, parser(faces.images), parser.scheme, fraction=0.01, seed=0)
    assert again["share"].tolist() == found.regions["share"].tolist()
    evaluator = OcclusionEvaluator(model, (0.05,), fills=("blur",), controls=(), progress=False)
    drops = evaluator.evaluate(faces.images, found.overall, references).to_frame()["drop"]
    ours = found.occlusion.to_frame().query("method == 'LEAM, overall map' and fraction == 0.05")["drop"]
    assert ours.to_numpy() == pytest.approx(drops.to_numpy(), abs=1e-6)


def test_the_page_states_how_the_maps_were_made(explained, tmp_path):
    *_, found = explained
    skipped = replace(found, skipped=(FileError("bad.png", "the file is empty."),), notes=("a note",))
    write_page([skipped], tmp_path, title="t", lead="l", settings=skipped.settings)
    record = json.loads((tmp_path / "settings.json").read_text())
    expected = {
        "preset": "fast",
        "rounds of occlusion": "1",
        "passes": "2 forward, 2 backward",
        "steps of the signed layer maps": "1",
        "passes of the signed layer maps": "1 forward, 1 backward",
        "norm of the signed layer maps": "detach",
        "weighting of the signed layer maps": "elementwise",
        "reference": "other images",
        "fill": "blur",
    }
    assert record["settings"].items() >= expected.items()
    assert record["notes"] == ["left out: bad.png: the file is empty.", "a note"]


def test_grad_cam_is_captums_of_the_plain_cosine(explained):
    from captum.attr import LayerGradCam

    model, faces, _, found = explained
    references = references_from(model, faces.images)
    objective = EmbeddingSimilarity(model, norm="differentiate")
    cam = LayerGradCam(objective, model.last).attribute(faces.images, additional_forward_args=(references,)).detach()
    drops = found.occlusion.to_frame()
    assert set(drops["method"]) == {"LEAM, overall map", "Grad-CAM, last", ""}
    placed = nn.functional.interpolate(cam, (112, 112), mode="bilinear", align_corners=False)[:, 0]
    again = OcclusionEvaluator(model, (0.05,), fills=("blur",), controls=(), progress=False).evaluate(
        faces.images, placed, references
    )
    ours = drops.query("method == 'Grad-CAM, last' and fraction == 0.05")["drop"].to_numpy()
    assert again.to_frame()["drop"].to_numpy() == pytest.approx(ours, abs=1e-6)


def test_no_pass_holds_more_images_than_a_batch(explained):
    """A folder of hundreds of pictures fits into memory."""
    model, faces, layers, found = explained
    sizes = []
    parser = TemplateParser()
    references = references_from(model, faces.images)
    handle = model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    again = explain_images(
        model,
        faces.images,
        found.names,
        layers,
        parser(faces.images),
        parser.scheme,
        references=references,
        options=ExplainOptions(preset="fast", n_steps=1, batch_size=3),
    )
    handle.remove()
    assert max(sizes) == 3
    torch.testing.assert_close(again.overall, found.overall)
    drops = [e.occlusion.to_frame()["drop"].to_numpy() for e in (again, found)]
    assert drops[0] == pytest.approx(drops[1], abs=1e-5)


def test_references_never_contain_the_image():
    model = nn.Flatten()
    images = torch.rand(3, 1, 2, 2)
    found = references_from(model, images)
    changed = images.clone()
    changed[0] = torch.rand(1, 2, 2)
    torch.testing.assert_close(references_from(model, changed)[0], found[0])
    assert references_from(model, images[:1]) is None


def test_page_is_self_contained_and_escaped(explained):
    *_, found = explained
    page = explanation_page([found], title="<i>t</i>", lead="l", settings={"<u>": "</dl><script>x</script>"}).render()
    assert "<b>" not in page
    assert "<i>" not in page
    assert page.count("<script>") == 1
    assert "<script>x" not in page
    assert not re.search(r'(?:src|href)="(?!data:image/png|data:image/svg|data:text/csv|#)', page)
    assert "default-src 'none'" in page
    assert page.count("<figure>") == 4 * (3 + 3)  # face, overall map, against; three layers


def test_names_of_files_never_leave_the_folder(explained, tmp_path):
    *_, found = explained
    write_page([found, found], tmp_path / "deep" / "out", title="t", lead="l", settings={})
    out = tmp_path / "deep" / "out"
    assert {p.parent for p in tmp_path.rglob("*.*")} == {out, out / "figures"}
    assert len(list((tmp_path / "deep" / "out").glob("*.png"))) == 8


@pytest.mark.parametrize("name", ["../../x", "a/b", "c:\\d", "<>|?*", "é", "x" * 300])
def test_safe_names_hold_plain_characters_only(name):
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", safe_name(name))
