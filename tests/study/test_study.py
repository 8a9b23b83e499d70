"""A whole study of seconds: its tables against the package's own functions, engines, resuming, and what is left out."""

import json
import os
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from captum_leam import LEAM, bhattacharyya, leave_one_out_centroids, overall_map
from captum_leam._text import as_text
from captum_leam.controls import CONTROLS, ControlContext, central_ellipse
from captum_leam.errors import BrokenFileError, ConfigError, ReliabilityWarning
from captum_leam.faces import read_crops
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.models import load_model
from captum_leam.regions import TemplateParser, region_report
from captum_leam.reporting.schema import TABLES
from captum_leam.study import Study, StudyResult
from captum_leam.study.worker import Worker
from captum_leam.verification import verify
from tests.helpers.tiny_study import tables_of, write_faces, write_study


def run(path, **more):
    return Study(path).run(progress=False, report=False, **more)


# -- the numbers are those of the package's functions ----------------------------------------------------


@pytest.fixture(scope="module")
def result(undisturbed) -> StudyResult:
    return StudyResult(undisturbed / "results")


@pytest.fixture(scope="module")
def by_hand(undisturbed):
    """Images, people, models, references and overall maps, without the study."""
    paths = sorted((undisturbed / "faces").rglob("*.png"))
    images, people = read_crops(paths), [path.parent.name for path in paths]
    models = {name: load_model(f"{undisturbed}/nets.py:{name}") for name in ("one", "two")}
    with torch.no_grad():
        references = {name: leave_one_out_centroids(model(images), people) for name, model in models.items()}
    return images, people, models, references


def overall_of(by_hand, name, fast=True):
    images, _, models, references = by_hand
    model = models[name]
    return overall_map([LEAM(model, model.stem).attribute(images, reference=references[name])], (48, 48))


def test_all_tables_are_there_with_their_columns(result):
    for name, table in TABLES.items():
        assert list(result.table(name).columns) == table.names


def test_scores_and_verification_equal_those_of_verify(result, by_hand):
    images, people, models, references = by_hand
    for name, model in models.items():
        with torch.no_grad():
            cosine = torch.nn.functional.cosine_similarity(model(images), references[name])
        assert np.allclose(result.table("scores", model=name)["cosine"], cosine, atol=1e-6)
        found = verify(model, images, people)
        row = result.table("verification", model=name).iloc[0]
        assert row["eer"] == pytest.approx(found.eer)
        assert (row["genuine"], row["impostor"]) == (len(found.genuine), len(found.impostor))
        assert row["separates"] == (found.eer <= 0.2)


def test_regions_are_those_of_region_report(result, by_hand):
    maps = overall_of(by_hand, "one")
    labels = TemplateParser()(by_hand[0])
    expected = region_report(maps, labels, TemplateParser.scheme.merge_sides(), fraction=0.01)
    found = result.table("regions", model="one", layer="overall")
    assert found["region"].tolist() == expected["region"].tolist()
    for quantity in ("share", "mass", "area", "lift"):
        assert np.allclose(found[quantity], expected[quantity], atol=1e-5, equal_nan=True), quantity


def test_drops_are_those_of_the_evaluator(result, by_hand):
    images, people, models, _ = by_hand
    maps = overall_of(by_hand, "two")
    evaluator = OcclusionEvaluator(models, (0.02, 0.1), controls=("other people",))
    expected = evaluator.evaluate(images, {"LEAM": maps}, labels=people).drops
    found = result.table("drops", explained="two", layer="overall")
    keys = ["control", "model", "fraction", "image"]
    both = found.rename(columns={"measured": "model"}).merge(expected, on=keys, suffixes=("", "_expected"))
    assert len(both) == 2 * 2 * 2 * 15
    assert np.allclose(both["drop"], both["drop_expected"], atol=1e-5)
    means = result.table("drop_summary", explained="two", layer="overall", control="", measured="one", fraction=0.1)
    assert means["drop"].iloc[0] == pytest.approx(
        both.query("control == '' and model == 'one' and fraction == 0.1")["drop"].mean()
    )


def test_layers_are_occluded_on_their_own_network(result):
    found = result.table("drops", explained="one", layer="body")
    assert set(found["measured"]) == {"one"}
    assert set(found["fraction"]) == {0.05}


def test_patterns_are_bhattacharyya_coefficients(result, by_hand):
    _, people, _, _ = by_hand
    table = bhattacharyya(overall_of(by_hand, "one"), fraction=0.05).numpy()
    person = np.array(people)
    same = (person[:, None] == person) & ~np.eye(15, dtype=bool)
    row = result.table("patterns", model="one", layer="overall", kind="top", control="").iloc[0]
    assert row["same"] == pytest.approx(table[same].mean(), abs=1e-5)
    assert row["different"] == pytest.approx(table[person[:, None] != person].mean(), abs=1e-5)
    edges = CONTROLS["edges"](ControlContext(by_hand[0], central_ellipse((48, 48)).expand(15, 48, 48)))
    table = bhattacharyya(edges, fraction=0.05).numpy()
    row = result.table("patterns", model="one", layer="overall", kind="top", control="edges").iloc[0]
    assert row["same"] == pytest.approx(table[same].mean(), abs=1e-5)
    assert row["strongest"] == ""
    kinds = result.table("patterns", model="one", layer="overall").groupby("kind", sort=False)["control"].agg(list)
    assert kinds.to_dict() == {
        kind: ["", "edges", "untrained", "parser", "pose"] for kind in ("top", "dense", "regions")
    }


def test_mean_maps_equal_those_by_hand(result, by_hand):
    maps = result.mean_maps()
    assert set(maps) == {(model, layer) for model in ("one", "two") for layer in ("overall", "stem", "body")}
    assert np.allclose(maps["one", "overall"], overall_of(by_hand, "one").mean(0), atol=1e-7)


def test_agreement_compares_models_and_layers(result):
    table = result.table("agreement")
    assert set(table["what"]) == {"models", "layers"}
    assert table["value"].between(0, 1).all()
    assert (table["value"] >= table["chance"] - 0.01).all()


def test_the_manifest_states_data_models_and_shards(result):
    told = result.manifest
    assert told["finished"]
    assert told["data"] == {**told["data"], "pictures": 15, "usable": 15, "people": 5}
    assert set(told["models"]) == {"one", "two"}
    assert len(told["tables"]) == len(TABLES)
    assert told["run"]["shards made"]["explaining"] == 3 * (1 + 2 * 2)
    assert "BC same" in repr(result)
    assert result.complete


# -- the same again --------------------------------------------------------------------------------------


def test_a_finished_study_computes_nothing_again(undisturbed, right):
    again = run(undisturbed / "study.yaml")
    assert set(again.manifest["run"]["shards made"].values()) == {0}
    assert tables_of(undisturbed / "results") == right


def test_torch_is_left_as_it_was(undisturbed):
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        run(undisturbed / "study.yaml")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)


def test_adding_people_keeps_the_earlier_shards(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "more")
    extra = write_faces(tmp_path, people=6)
    shutil.copytree(extra / "p05", tmp_path / "more" / "faces" / "p05")
    path = tmp_path / "more" / "study.yaml"
    made = run(path).manifest["run"]["shards made"]
    assert made["reading and embedding"] == 1
    assert made["explaining"] == 1 + 2 * 2


def test_other_settings_make_other_shards_and_keep_embeddings(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "other")
    settings = replace(Study(tmp_path / "other" / "study.yaml").config, fractions=(0.1, 0.3))
    made = Study(settings).run(progress=False, report=False).manifest["run"]["shards made"]
    assert made["reading and embedding"] == 0
    assert made["explaining"] == 3 * (1 + 2)  # controls and maps; untrained twins are not occluded


def test_shard_and_batch_sizes_do_not_change_the_numbers(undisturbed, tmp_path, result):
    """Other batches change the last bits, nothing else; controls that draw are drawn anew."""
    settings = replace(Study(undisturbed / "study.yaml").config, shard_size=15, batch_size=5, out=tmp_path / "out")
    other = Study(settings).run(progress=False, report=False)
    one, two = (
        r.table("scores").merge(r.table("regions")).sort_values(["model", "layer", "image"]) for r in (result, other)
    )
    assert len(one) == 2 * 3 * 15 * 9
    for value in ("cosine", "mass", "share"):
        assert np.allclose(one[value], two[value], atol=1e-4), value
    keys = ["explained", "layer", "measured", "control", "fraction", "image"]
    both = result.table("drops").merge(other.table("drops"), on=keys)
    steady = ~both["control"].isin(["random pixels", "moved"])
    apart = (both.loc[steady, "drop_x"] - both.loc[steady, "drop_y"]).abs()
    assert apart.quantile(0.98) < 1e-5
    assert apart.max() < 0.01  # where two pixels are equal but for the last bit, either may be the last that is taken


# -- check -----------------------------------------------------------------------------------------------


def test_check_passes_and_sees_what_changed(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "copy")
    path = tmp_path / "copy" / "study.yaml"
    found = Study(path).check(progress=False)
    assert found.passed, found
    assert "the same bytes" in repr(found)
    assert "bit for bit" in repr(found)
    table = tmp_path / "copy" / "results" / "tables" / "scores.parquet"
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    shard = next((tmp_path / "copy" / "results" / "work" / "maps").iterdir())
    shard.write_bytes(shard.read_bytes()[:-200])
    found = Study(path).check(progress=False)
    assert "12 of 13 tables fit their checksums; not: tables/scores.parquet" in repr(found)
    assert "38 of 39 shards fit" in repr(found)
    with pytest.raises(BrokenFileError, match="expected the file of the manifest"):
        StudyResult(tmp_path / "copy" / "results").table("scores")


def test_check_names_changed_settings_networks_and_pictures(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "copy")
    nets = tmp_path / "copy" / "nets.py"
    nets.write_text(nets.read_text().replace("manual_seed(2)", "manual_seed(3)"))
    Image.new("RGB", (48, 48), "red").save(tmp_path / "copy" / "faces" / "p00" / "0.png")
    settings = replace(Study(tmp_path / "copy" / "study.yaml").config, seed=5)
    found = repr(Study(settings).check(progress=False))
    assert "WRONG: configuration: other values of seed" in found
    assert "WRONG: networks: others: one, two" in found
    assert "WRONG: 15 pictures: not those of the manifest" in found


def test_check_without_results_raises(undisturbed, tmp_path):
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path)
    with pytest.raises(ConfigError, match="expected a finished study"):
        Study(settings).check(progress=False)


def test_check_without_shards_looks_at_the_tables(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "results" / "work")
    assert "shards were deleted" in repr(Study(tmp_path / "copy" / "study.yaml").check(progress=False))


# -- what is left out ------------------------------------------------------------------------------------


@pytest.fixture
def messy(tmp_path):
    """People with everything that goes wrong with pictures; those of p00 and p01 are in order."""
    faces = write_faces(tmp_path, people=5)
    (faces / "p02" / "0.png").write_bytes(b"not an image")
    (faces / "p02" / "1.png").write_bytes(b"")
    Image.new("RGB", (60, 48)).save(faces / "p03" / "0.png")
    shutil.copy(faces / "p03" / "1.png", faces / "p03" / "2.png")
    shutil.copy(faces / "p00" / "0.png", faces / "p04" / "0.png")
    (faces / "alone").mkdir()
    Image.new("RGB", (48, 48), "green").save(faces / "alone" / "one.png")
    (faces / "empty").mkdir()
    (faces / "p01" / "notes.txt").write_text("not a picture")
    (faces / "p01" / "folder.png").mkdir()
    hostile = faces / "<script>alert('ß')</script>"[:-9].replace("/", "")
    shutil.copytree(faces / "p04", hostile)
    for i, path in enumerate(sorted(hostile.iterdir())):
        with Image.open(path) as image:
            image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(hostile / f"new\n{i}.png")
        path.unlink()
    os.rename(os.fsencode(faces / "p04" / "1.png"), os.fsencode(faces / "p04") + b"/\xff1.png")
    return write_study(tmp_path)


def test_pictures_that_cannot_be_used_are_named_and_the_rest_goes_on(messy, tmp_path):
    result = run(messy)
    images = result.table("images").set_index("path")
    reasons = images["reason"].to_dict()
    assert "not a picture" in reasons["p02/0.png"]
    assert "empty" in reasons["p02/1.png"]
    assert reasons["p02/2.png"] == "only 1 usable picture of p02; expected 2 or more"
    assert reasons["p03/0.png"].startswith("the crop has 60 × 48 px")
    assert reasons["p03/2.png"] == "the same bytes as p03/1.png"
    assert reasons["p04/0.png"] == "the same bytes as p00/0.png of p00, another person"
    assert reasons["alone/one.png"] == "only 1 usable picture of alone; expected 2 or more"
    assert images.loc["p04/\\xff1.png", "status"] == "ok"
    assert set(images.loc[images["status"] == "ok", "person"]) == {"p00", "p01", "p04", "<script>alert('ß')"}
    skipped = result.table("skipped")
    pictures = skipped[skipped["what"] == "image"]
    assert set(pictures["image"]) == set(images.loc[images["status"] == "skipped", "image"])
    others = skipped[skipped["what"] != "image"].set_index("path")["reason"].to_dict()
    assert set(others) == {"empty", "p01/notes.txt", "p01/folder.png"}
    assert others["empty"] == "no image file of empty in it"
    assert not result.complete
    assert set(result.table("scores")["person"]) == {"p00", "p01", "p04", "<script>alert('ß')"}
    json.loads((tmp_path / "results" / "manifest.json").read_text())
    assert {p.name for p in tmp_path.iterdir()} == {"faces", "nets.py", "study.yaml", "results"}


def visible(folder):
    """Every file below a folder that is neither hidden nor in a hidden folder, as tables call it."""
    names = [
        os.fsdecode(os.path.relpath(os.path.join(root, name), folder))
        for root, _, files in os.walk(folder)
        for name in files
    ]
    return {as_text(name) for name in names if not any(part.startswith(".") for part in name.split("/"))}


MESSES = {
    "nested": lambda p: shutil.copytree(p, p / "2020"),
    "deeply nested": lambda p: shutil.copytree(p, p / "a" / "b"),
    "loose": lambda p: shutil.copy(p / "1.png", p.parent / "loose.png"),
    "link": lambda p: (p / "link.png").symlink_to("1.png"),
    "hard link": lambda p: os.link(p / "1.png", p / "hard.png"),
    "broken link": lambda p: (p / "gone.png").symlink_to("nowhere.png"),
    "link to a folder": lambda p: (p / "round").symlink_to(".."),
    "hidden": lambda p: shutil.copy(p / "1.png", p / ".1.png"),
    "empty": lambda p: (p / "empty.png").touch(),
    "not a picture": lambda p: (p / "page.png").write_text("<html>"),
    "text": lambda p: (p / "Thumbs.db").write_bytes(b"x" * 99),
    "heic": lambda p: (p / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(400)),
    "pipe": lambda p: os.mkfifo(p / "pipe.png"),
    "other ending": lambda p: shutil.copy(p / "1.png", p / "1.bak"),
    "no UTF-8": lambda p: shutil.copy(p / "1.png", os.fsdecode(os.fsencode(p) + b"/\xff.png")),
    "re-encoded": lambda p: Image.open(p / "1.png").save(p / "again.bmp"),
    "jfif": lambda p: Image.open(p / "1.png").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(p / "new.jfif", "JPEG"),
    "somebody else's": lambda p: Image.open(p / "1.png").save(p.parent / "p01" / "theirs.gif"),
    "nobody": lambda p: (p.parent / "nobody").mkdir(),
}


@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_is_used_or_skipped(tmp_path, seed):
    """Every visible file of a folder with five kinds of mess has one row, and the reason names no other file."""
    faces = write_faces(tmp_path, people=3)
    drawn = np.random.default_rng(seed).permutation(list(MESSES))[:5]
    for mess in drawn:
        MESSES[mess](faces / "p00")
    result = run(write_study(tmp_path, models={"one": "nets.py:one"}, layer_fractions=[], patterns={"controls": []}))
    images, skipped = result.table("images"), result.table("skipped")
    used = images.loc[images["status"] == "ok", "path"].tolist()
    files = skipped.loc[skipped["what"].isin(["image", "file"]), "path"].tolist()
    assert len(used) + len(files) == len(visible(faces)) - sum(name.startswith("p00/round") for name in files), drawn
    assert set(used) | set(files) == visible(faces), drawn
    assert (skipped["reason"] != "").all()
    assert set(images.loc[images["status"] != "ok", "path"]) <= set(files)
    assert len(used) == result.manifest["data"]["usable"] == len(result.table("scores"))
    assert result.complete == (not len(skipped))


def test_results_beside_the_people_are_not_looked_at(tmp_path):
    """The folder of results grows while the study runs: named in its own table, it would change with every run."""
    faces = write_faces(tmp_path, people=3)
    path = write_study(tmp_path, models={"one": "nets.py:one"}, patterns={"controls": []}, out="faces/results")
    first = run(path)
    assert first.complete
    before = tables_of(first.folder)
    assert tables_of(run(path).folder) == before
    (faces / "notes.txt").write_text("mine")
    assert "WRONG: 9 pictures: not those of the manifest" in repr(Study(path).check(progress=False))


def copies_of(path):
    """Files that show the same as a picture, by their ending."""
    with Image.open(path) as image:
        image.load()
    image.save(path.with_name("copy.bmp"))
    image.save(path.with_name("copy.jpg"), quality=50)
    image.save(path.with_name("copy.webp"), quality=70)
    image.save(path.with_name("copy.gif"))
    image.convert("L").convert("RGB").save(path.with_name("grey.png"))
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 270 degrees when it is read
    turned.save(path.with_name("turned.png"), exif=exif)
    return ["copy.bmp", "copy.gif", "copy.jpg", "copy.webp", "grey.png", "turned.png"]


def test_pictures_that_show_the_same_are_no_references_of_each_other(tmp_path):
    faces = write_faces(tmp_path)
    names = copies_of(faces / "p01" / "1.png")
    (faces / "p03" / "theirs.bmp").write_bytes((faces / "p01" / "copy.bmp").read_bytes())
    (faces / "p01" / "copy.bmp").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error", ReliabilityWarning
        )  # the table names the copies; rows of a shard would name nothing
        result = run(write_study(tmp_path))
    reasons = result.table("images").set_index("path")["reason"]
    assert set(reasons[[f"p01/{name}" for name in names if name != "copy.bmp"]]) == {"shows the same as p01/1.png"}
    assert reasons["p03/theirs.bmp"] == "shows the same as p01/1.png of p01, another person"
    assert (reasons != "").sum() == 6
    clean = run(write_study(write_faces(tmp_path / "clean").parent))
    with_copies, without = (r.table("scores").drop(columns="image") for r in (result, clean))
    pd.testing.assert_frame_equal(with_copies, without, atol=1e-5)
    made = run(tmp_path / "study.yaml").manifest["run"]["shards made"]
    assert set(made.values()) == {0}
    assert Study(tmp_path / "study.yaml").check(progress=False).passed


@pytest.mark.ci
@pytest.mark.real
def test_copies_of_photographs_and_several_faces_are_skipped(tmp_path, real_dir):
    """Resized and turned photographs are found, although the detector places its landmarks elsewhere on them."""
    pytest.importorskip("facexlib")
    faces = tmp_path / "faces"
    for person, names in {"ann": ("img20.jpg", "img21.jpg"), "bob": ("img29.jpg", "img8.jpg")}.items():
        (faces / person).mkdir(parents=True)
        for name in names:
            shutil.copy(real_dir / "photos" / name, faces / person / name)
    with Image.open(real_dir / "photos" / "img20.jpg") as one, Image.open(real_dir / "photos" / "img29.jpg") as other:
        one.convert("RGB").resize((450, 450)).save(faces / "ann" / "small.jpg", quality=60)
        other.convert("RGB").transpose(Image.Transpose.ROTATE_90).save(faces / "ann" / "turned.png")
        both = Image.new("RGB", (1300, 900))
        both.paste(one.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT), (0, 0))
        both.paste(other.convert("RGB").resize((300, 400)), (950, 200))
    both.save(faces / "bob" / "two.png")
    how = {"how": "photos", "size": 48, "weights": str(real_dir)}
    result = run(write_study(tmp_path, pictures=how, patterns={"controls": []}, controls=[]))
    images = result.table("images").set_index("path")
    assert images.loc["ann/small.jpg", "reason"] == "shows the same as ann/img20.jpg"
    assert images.loc["bob/img29.jpg", "reason"] == "shows the same as ann/turned.png of ann, another person"
    assert images.loc["ann/turned.png", ["faces_found", "turn"]].tolist() == [1, 270]
    assert images.loc["bob/two.png", ["faces_found", "turn", "status"]].tolist() == [2, 0, "ok"]
    assert (images["status"] == "ok").sum() == 5


def test_people_of_whom_nothing_was_measured_are_not_counted(tmp_path):
    """One network, which raises on one of two images: the other has no reference."""
    faces = write_faces(tmp_path)
    (faces / "p01" / "2.png").unlink()
    with Image.open(faces / "p01" / "0.png") as image:
        bright = np.asarray(image).astype(int) + 250
    Image.fromarray(bright.clip(0, 255).astype(np.uint8)).save(faces / "p01" / "0.png")
    result = run(write_study(tmp_path, models={"touchy": "nets.py:touchy"}))
    told = result.manifest["data"]
    assert (told["pictures"], told["usable"], told["people"]) == (14, 12, 4)
    assert repr(result).startswith("Study of 4 people, 12 pictures")
    assert "p01/1.png, touchy: no reference: the network embeds no other image of the person" in repr(result)
    assert set(result.table("skipped", what="image")["image"]) == {3, 4}


@pytest.mark.parametrize("px", [250, 48])
def test_small_pictures_that_are_not_aligned_raise(tmp_path, px):
    """As LFW has them: of another size than the study's, or at a size at which the network returns something else."""
    write_faces(tmp_path, px=px)
    (tmp_path / "pooled.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 8, 1), "
        "nn.Conv2d(8, 4, 7), nn.Flatten())\n"
    )
    models, auto = {"a": "pooled.py:net"}, {"how": "auto", "size": 112}
    with pytest.raises(ConfigError, match=f"the crop has {px} × {px} px.*set pictures: photos"):
        run(write_study(tmp_path, models=models, pictures=auto))
    if px == 250:
        with pytest.raises(
            ConfigError, match=r"models\.a: Expected crops of 112 × 112 px.*, got 250 × 250 px.*pictures: photos"
        ):
            run(write_study(tmp_path, models=models, pictures={"how": "auto", "size": 250}))


def test_unreadable_files_and_folders_are_skipped_and_named(tmp_path, monkeypatch):
    faces = write_faces(tmp_path)
    from captum_leam.study import listing

    real = listing.file_sha256

    def closed(path):
        if path.parent.name == "p01" and path.name == "0.png":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(listing, "file_sha256", closed)
    images = run(write_study(tmp_path)).table("images").set_index("path")
    assert images.loc["p01/0.png", "reason"] == "the file cannot be read (Permission denied)"
    assert images.loc["p01/1.png", "status"] == "ok"
    assert faces.is_dir()


def test_an_image_on_which_a_network_raises_is_left_out_of_that_network(tmp_path):
    """Only the image that is to blame is left out, of this network; the other network has it."""
    faces = write_faces(tmp_path)
    for name in ("0.png", "1.png"):
        with Image.open(faces / "p01" / name) as image:
            bright = np.asarray(image).astype(int) + (250 if name == "0.png" else 0)
        Image.fromarray(bright.clip(0, 255).astype(np.uint8)).save(faces / "p01" / name)
    models = {"touchy": "nets.py:touchy", "two": "nets.py:two"}
    result = run(write_study(tmp_path, models=models))
    skipped = result.table("skipped")
    left_out = list(
        zip(skipped["what"], skipped["model"], skipped["stage"], skipped["image"], skipped["reason"], strict=True)
    )
    assert left_out == [
        ("image", "touchy", "embed", 3, "RuntimeError: too bright for me"),
        ("model", "touchy", "patterns", -1, "no untrained twin: RuntimeError: too bright for me"),
    ]
    assert set(result.table("scores", model="touchy")["image"]) == set(range(15)) - {3}
    assert set(result.table("scores", model="two")["image"]) == set(range(15))
    transfer = result.table("drops", explained="two", measured="touchy", layer="overall")
    assert 3 not in set(transfer["image"])
    assert len(result.table("patterns", model="touchy", layer="overall", kind="top", control="")) == 1


def test_a_network_that_is_only_measured_is_not_explained(tmp_path):
    models = {"one": "nets.py:one", "flat": {"model": "nets.py:flat", "explain": False}}
    result = run(write_study(tmp_path, models=models))
    assert set(result.table("verification")["model"]) == {"one", "flat"}
    assert set(result.table("layers")["model"]) == {"one"}
    assert set(result.table("drops")["measured"]) == {"one", "flat"}
    assert set(result.table("drops")["explained"]) == {"", "one"}


def test_named_layers_and_fills_are_those_of_the_tables(tmp_path):
    path = write_study(
        tmp_path, layers=["body"], fills=["zero", "noisy linear"], store_maps="all", transfer=False, controls=[]
    )
    result = run(path)
    assert set(result.table("layers")["layer"]) == {"body"}
    assert set(result.table("drops")["fill"]) == {"zero", "noisy linear"}
    drops = result.table("drops")
    assert (drops["explained"] == drops["measured"]).all()
    stored = sorted((tmp_path / "results" / "maps" / "people").iterdir())
    with np.load(stored[0]) as file:
        assert file["maps"].shape == (6, 2, 48, 48)
        assert file["image"].tolist() == [0, 1, 2, 3, 4, 5]


def test_conductance_and_a_users_parser_are_used(tmp_path):
    (tmp_path / "halves.py").write_text(
        "import torch\nfrom captum_leam.regions import RegionScheme\n"
        "class Halves:\n    scheme = RegionScheme({0: 'background', 1: 'top'}, name='halves')\n"
        "    def __call__(self, images):\n        out = torch.zeros(len(images), *images.shape[2:], dtype=torch.long)\n"
        "        out[:, :24] = 1\n        return out\n"
    )
    leam = {"n_steps": 2, "path": "conductance", "weighting": "positive", "norm": "fixed"}
    result = run(write_study(tmp_path, leam=leam, parser="halves.py:Halves"))
    assert set(result.table("regions")["region"]) == {"background", "top"}
    assert np.allclose(result.table("regions")["area"], 0.5)


# -- tables of pictures and groups -----------------------------------------------------------------------


def table_study(tmp_path, rows, **changes):
    write_faces(tmp_path, people=8)
    pd.DataFrame(rows).to_csv(tmp_path / "people.csv", index=False)
    return write_study(tmp_path, people="people.csv", **changes)


def all_rows(**more):
    return [
        {"path": f"faces/p{p:02d}/{i}.png", "person": f"p{p:02d}", "kind": "ab"[p % 2], **more}
        for p in range(8)
        for i in range(3)
    ]


def test_groups_of_a_table_are_compared(tmp_path):
    result = run(table_study(tmp_path, all_rows(), groups=["kind"], min_group=4))
    assert set(result.table("images")["group_kind"]) == {"a", "b"}
    groups = result.table("groups")
    assert set(zip(groups["group_a"], groups["group_b"], strict=True)) == {("a", "b")}
    assert set(groups["people_a"]) == {4}
    assert groups["p_holm"].dropna().between(0, 1).all()
    one = groups.query("model == 'one' and quantity == 'drop at 10%'").iloc[0]
    drops = result.table("drops", explained="one", layer="overall", measured="one", control="", fraction=0.1)
    kind = result.table("images").set_index("image")["group_kind"]
    means = (
        drops.assign(kind=drops["image"].map(kind)).groupby(["kind", "person"])["drop"].mean().groupby("kind").mean()
    )
    assert one["value_a"] == pytest.approx(means["a"], abs=1e-6)
    assert one["difference"] == pytest.approx(means["a"] - means["b"], abs=1e-6)


def test_groups_below_the_minimum_have_a_note_and_no_p_value(tmp_path):
    groups = run(table_study(tmp_path, all_rows(), groups=["kind"], min_group=5)).table("groups")
    assert groups["note"].str.contains("expected 5 or more").all()
    assert groups["p"].isna().all()


def test_groups_of_a_table_of_their_own_are_compared(tmp_path):
    write_faces(tmp_path, people=8)
    rows = [{"who": f"p{p:02d}", "age": "old" if p < 4 else "young"} for p in range(7)]
    pd.DataFrame(rows).to_csv(tmp_path / "ages.csv", index=False)
    result = run(write_study(tmp_path, groups={"file": "ages.csv", "columns": ["age"], "person": "who"}))
    assert result.table("images").query("person == 'p07'")["group_age"].tolist() == [""] * 3
    assert set(result.table("groups")["people_b"]) == {3}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[0].update(kind="c"), "expected one value of each label for"),
        (
            lambda rows: rows.append(dict(rows[0])),
            "line 26: expected each picture once, got faces/p00/0.png again, after line 2",
        ),
        (lambda rows: rows[4].update(person=""), "line 6: expected a picture and a person, got an empty cell"),
        (lambda rows: [row.pop("person") for row in rows], "expected the column person, got path, kind"),
    ],
)
def test_wrong_tables_of_people_raise(tmp_path, change, said):
    rows = all_rows()
    change(rows)
    with pytest.raises(ConfigError, match=said):
        run(table_study(tmp_path, rows, groups=["kind"]))


def test_paths_that_lead_out_of_the_folder_only_read(tmp_path):
    """A table may name any file; nothing is ever written under a name from it."""
    (tmp_path / "secret.txt").write_text("secret")
    inner = tmp_path / "inner"
    inner.mkdir()
    rows = [*all_rows(), {"path": "../secret.txt", "person": "../../evil", "kind": "a"}]
    rows += [{"path": "../lost.png", "person": "../../evil", "kind": "a"}]
    result = run(table_study(inner, rows))
    reasons = result.table("images").set_index("path")["reason"]
    assert "not a picture" in reasons["../secret.txt"] or "only" in reasons["../secret.txt"]
    assert reasons["../lost.png"] == "the file cannot be read (No such file or directory)"
    assert {p.name for p in tmp_path.iterdir()} == {"secret.txt", "inner"}
    assert (tmp_path / "secret.txt").read_text() == "secret"


# -- wrong input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": {"a": "nets.py:lost"}}, "models.a: .*nets.py, got 'lost'"),
        ({"models": {"a": "nets.py:PX"}}, "models.a: .* got a int"),
        (
            {"models": {"a": "nets.py:flat"}},
            "models.a: on crops of 48 × 48 px it raised CaptumLeamError: Expected a layer with a spatial map",
        ),
        ({"layers": ["lost"]}, "models.one: .* layer of the model, got 'lost'"),
        (
            {"pictures": {"how": "crops", "size": 64}},
            "people: expected one usable picture or more, got none .the crop has 48 × 48 px",
        ),
    ],
)
def test_networks_and_pictures_that_do_not_fit_raise_and_write_no_manifest(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        run(write_study(tmp_path, **changes))
    assert not (tmp_path / "results" / "manifest.json").exists()


def test_a_folder_without_pictures_raises(tmp_path):
    (tmp_path / "faces").mkdir()
    with pytest.raises(ConfigError, match="expected image files"):
        run(write_study(tmp_path))


def test_folders_of_others_are_left_alone(undisturbed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    settings = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="expected an empty folder or that of a study"):
        Study(settings).run(progress=False)
    with pytest.raises(ConfigError, match="expected a folder, got the file"):
        Study(replace(settings, out=tmp_path / "out" / "mine.txt")).run(progress=False)
    with pytest.raises(ConfigError, match="got 'cluster' and jobs 1"):
        Study(settings).run(engine="cluster", progress=False)


def test_a_network_that_works_in_place_leaves_the_crops_to_the_others():
    class InPlace(torch.nn.Flatten):
        def forward(self, x):
            return super().forward(x.mul_(2).sub_(1))

    crops, network, worker = torch.rand(3, 3, 4, 4), InPlace(), Worker()
    before = crops.clone()
    for _ in range(2):  # it is looked at once, and remembered
        assert torch.equal(worker.embed(network, crops), (2 * before - 1).flatten(1))
        assert torch.equal(crops, before)
    plain = torch.nn.Flatten()
    worker.embed(plain, crops)
    assert worker.embed(plain, crops).data_ptr() == crops.data_ptr()  # without a copy
