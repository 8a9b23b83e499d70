"""Probes in a gallery of files: listing, copies, pages and tables."""

import json
import re
from html import unescape
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image
from typer.testing import CliRunner

from captum_leam import cli, explain_match
from captum_leam.errors import CaptumLeamError, FileError
from captum_leam.faces import read_crops
from captum_leam.faithfulness.fills import as_fill
from captum_leam.maps import top_fraction
from captum_leam.models import load_model
from captum_leam.objectives import embed, unit
from captum_leam.reporting import FileOptions, explain_files, explanation_schema
from captum_leam.reporting.gallery import gallery_pictures
from captum_leam.synthetic import SyntheticPopulation

MODEL = """
import torch
from captum_leam.synthetic import EmbeddingNet

def small():
    torch.manual_seed(0)
    return EmbeddingNet()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two probes, and a gallery of ann (two pictures), <b>bob</b> and cy, one of them beside the folders."""
    faces = SyntheticPopulation(3, seed=1).sample([0, 1, 0, 0, 1, 2], seed=3).images
    names = ["p.png", "q.png", "gallery/ann/1.png", "gallery/ann/2.png", "gallery/<b>bob<_b>/1.png", "gallery/cy.png"]
    for name, image in zip(names, faces, strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = (image.movedim(0, -1) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "my_models.py").write_text(MODEL)
    return tmp_path


def options(folder: Path, **changed) -> FileOptions:
    return FileOptions(**{"preset": "fast", "n_steps": 1, "certainty": False, "gallery": folder / "gallery", **changed})


def explained(folder: Path, *probes: str, **changed):
    return explain_files([folder / name for name in probes], f"{folder}/my_models.py:small", options(folder, **changed))


def test_names_are_those_of_folders_and_files(folder):
    (folder / "gallery" / "ann" / "notes.txt").write_text("not an image")
    (folder / "gallery" / "dee").mkdir()
    pictures, skipped = gallery_pictures(folder / "gallery")
    assert [(path.name, name) for path, name in pictures] == [
        ("1.png", "<b>bob<_b>"),
        ("1.png", "ann"),
        ("2.png", "ann"),
        ("cy.png", "cy"),
    ]
    assert [error.path.name for error in skipped] == ["notes.txt"]


@pytest.mark.parametrize("gallery", ["nowhere", "p.png", "empty"])
def test_a_gallery_without_pictures_is_refused(folder, gallery):
    (folder / "empty").mkdir()
    with pytest.raises(FileError, match="folder with pictures|contains no image file"):
        gallery_pictures(folder / gallery)


def test_the_explanation_is_that_of_explain_match(folder):
    found = explained(folder, "p.png", "q.png", threshold=0.2)
    files = [folder / "gallery" / name for name in ("<b>bob<_b>/1.png", "ann/1.png", "ann/2.png", "cy.png")]
    probes, stored = read_crops([folder / "p.png", folder / "q.png"]), read_crops(files)
    model = load_model(f"{folder}/my_models.py:small")
    names = ["<b>bob<_b>", "ann", "ann", "cy"]
    expected = explain_match(model, probes, stored, names, preset="fast", n_steps=1, threshold=0.2)
    torch.testing.assert_close(found.overall, expected.maps)
    torch.testing.assert_close(found.layers, expected.layers)
    pd.testing.assert_frame_equal(found.match.to_frame(), expected.to_frame())
    pd.testing.assert_frame_equal(found.match.changes, expected.changes)
    assert found.match.accepted == expected.accepted
    assert found.pair is None  # two probes are no pair
    assert found.label.startswith("Reference: the first candidate")


def test_drops_are_of_the_cosine_to_the_first_candidate(folder):
    from captum_leam.faithfulness import OcclusionEvaluator

    found = explained(folder, "p.png")
    model = load_model(f"{folder}/my_models.py:small")
    evaluator = OcclusionEvaluator(model, (0.05,), controls=())
    drop = evaluator.evaluate(found.images, found.overall, found.match.references).to_frame()["drop"].item()
    ours = found.occlusion.to_frame().query("method == 'LEAM, overall map' and fraction == 0.05")["drop"].item()
    assert ours == pytest.approx(drop, abs=1e-6)


def test_a_probe_is_left_out_of_its_gallery(folder):
    (folder / "gallery" / "ann" / "3.png").write_bytes((folder / "p.png").read_bytes())
    found = explained(folder, "p.png")
    assert found.match.gallery.images[found.match.gallery.names.index("ann")] == 2
    assert [error.path.name for error in found.skipped] == ["3.png"]
    (folder / "gallery" / "dee.png").write_bytes((folder / "p.png").read_bytes())
    with pytest.raises(
        CaptumLeamError, match=r"dee\.png shows the same as the probe .*p\.png, and is the only picture"
    ):
        explained(folder, "p.png")


def test_bad_files_of_a_gallery_are_left_out_and_named(folder):
    (folder / "gallery" / "dee.png").touch()
    found = explained(folder, "p.png")
    assert "dee" not in found.match.gallery.names
    assert re.search(r"left out: .*dee\.png: the file is empty", found.messages[0])


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        (["<b>bob<_b>/1.png", "cy.png"], "two names or more"),
        (["ann/1.png", "ann/2.png", "cy.png"], "two names or more"),
    ],
)
def test_a_gallery_of_one_name_is_refused(folder, remove, message):
    for name in remove:
        (folder / "gallery" / name).unlink()
    with pytest.raises(CaptumLeamError, match=message):
        explained(folder, "p.png")


def test_crops_of_another_size_are_named(folder):
    Image.new("RGB", (50, 60)).save(folder / "gallery" / "small.png")
    with pytest.raises(FileError, match=r"small\.png: 50 × 60 px"):
        explained(folder, "p.png")


def test_the_truth_about_a_pair_is_refused_beside_a_gallery(folder):
    with pytest.raises(CaptumLeamError, match="`same_person` to be None with a `gallery`"):
        options(folder, same_person=True)


def test_the_command_writes_page_pictures_and_tables(folder):
    out = folder / "out"
    arguments = ["explain", folder / "p.png", folder / "q.png", "--gallery", folder / "gallery", "--out", out]
    arguments += ["--model", f"{folder}/my_models.py:small", "--preset", "fast", "--threshold", "0.3", "--no-progress"]
    result = CliRunner().invoke(cli.app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert result.output.count("is first of 3 names with cosine") == 2
    page = (out / "index.html").read_text()
    assert "2 probes were compared with a gallery of 3 names" in page
    assert "<b>bob" not in page
    assert "&lt;b&gt;bob" in page
    ranking, changes = pd.read_csv(out / "ranking.csv"), pd.read_csv(out / "rank_changes.csv")
    assert ranking.groupby("probe")["rank"].apply(list).tolist() == [[1, 2, 3]] * 2
    assert set(changes["control"]) == {"LEAM, overall map", "random pixels", "moved"}
    assert (out / "match.png").stat().st_size > 10_000
    score = ranking.query("probe == 'p.png' and rank == 1")["score"].item()
    assert f"cosine {score:.3f}" in page
    record = json.loads((out / "settings.json").read_text())
    assert record["settings"]["gallery"].endswith("gallery")
    assert record["settings"]["reference"] == "first candidate"
    result = json.loads((out / "explanation.json").read_text())
    Draft202012Validator(explanation_schema()).validate(result)
    assert result["decision"] is None
    (probe, _) = result["identification"]["probes"]
    assert [row["score"] for row in probe["ranking"]] == pytest.approx(
        ranking.query("probe == 'p.png'")["score"].tolist()
    )
    assert [row["rank_after"] for row in probe["changes"]] == changes.query("probe == 'p.png'")["rank_after"].tolist()
    assert probe["sentence"] in unescape(page)
    assert [face["certainty"]["sentence"] in unescape(page) for face in result["faces"]] == [True] * 2
    assert {"ranking.csv", "rank_changes.csv", "match.png", "figures/margin_falls.svg"} <= set(record["files"])


def test_certainty_is_of_the_cosine_to_the_first_candidate(folder):
    """On the explained model, and on a copy of it, whose own maps and references are the same."""
    found = explained(folder, "p.png", "q.png", certainty=True, other_models=[f"{folder}/my_models.py:small"])
    network = load_model(f"{folder}/my_models.py:small")
    towards = unit(found.match.references)
    pixels = top_fraction(found.overall, 0.05)
    occluded = torch.where(pixels[:, None], as_fill("blur")(found.images), found.images)
    falls = [(unit(embed(network, x)) * towards).sum(1) for x in (found.images, occluded)]
    table = found.certainty.to_frame()
    own, other = (rows.reset_index(drop=True) for _, rows in table.groupby("model", sort=False))
    assert own["drop"].tolist() == pytest.approx((falls[0] - falls[1]).tolist(), abs=1e-5)
    assert other["drop"].tolist() == pytest.approx(own["drop"].tolist(), abs=1e-5)
    assert set(found.certainty.stability["kind"]) == {"shift", "mirror", "light"}
    assert other["overlap"].tolist() == [1, 1]  # against the next candidate, as the maps that were tested


def test_a_gallery_is_one_option_more(folder):
    """Without it the same pictures are a pair, as before."""
    with patch("matplotlib.figure.Figure.savefig"):
        found = explain_files(
            [folder / "p.png", folder / "q.png"],
            f"{folder}/my_models.py:small",
            FileOptions(preset="fast", certainty=False),
        )
    assert found.match is None
    assert found.pair is not None
