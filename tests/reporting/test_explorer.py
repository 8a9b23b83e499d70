"""The explorable page: what it shows is what was measured, every control moves what it should, and it asks nothing of any network."""

import base64
import io
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from html import unescape
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from captum_leam import cli, synthetic
from captum_leam.errors import CaptumLeamError, NoEvidenceError
from captum_leam.explain import MapSettings
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.maps import gaussian_blur, pixel_count, rank_pixels, top_fraction
from captum_leam.objectives import embed
from captum_leam.pairs import PairExplanation
from captum_leam.plots import overlay
from captum_leam.regions import region_report
from captum_leam.reporting import explanation_record, explanation_schema
from captum_leam.reporting.curves import OVERALL, SHARES, measure_curves, passes_per_face, ranked_maps
from captum_leam.reporting.explanation import Explanation, explanation_of
from captum_leam.reporting.explanation_page import write_page
from captum_leam.reporting.files import FileOptions, explain_files
from captum_leam.synthetic import SyntheticPopulation
from tests.helpers.browser import WEB, axe, measured, opened

MODEL = """
import torch
from captum_leam.synthetic import EmbeddingNet

class Centred(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = EmbeddingNet().eval()
        with torch.no_grad():
            self.centre = torch.nn.Parameter(self.network(torch.full((1, 3, 112, 112), 0.5)))

    def forward(self, x):
        return self.network(x) - self.centre

def small():
    torch.manual_seed(0)
    return Centred()
"""
"""A network whose embeddings lie around 0, so that drops are larger than the digits that are shown."""
FRACTION = 0.03


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Explanations and pages of a pair and of three images of one person."""
    folder = tmp_path_factory.mktemp("explorer")
    (folder / "nets.py").write_text(MODEL)
    images = SyntheticPopulation(2, seed=1).sample([0, 0, 1], seed=3).images
    files = []
    for i, image in enumerate(images):
        files.append(folder / f"face {i}.png")
        Image.fromarray((image.movedim(0, -1) * 255).round().byte().numpy()).save(files[-1])
    found = {}
    for kind, some in (("pair", files[:2]), ("many", files)):
        threshold = 0.9 if kind == "pair" else None
        options = FileOptions(preset="fast", pictures="crops", n_steps=2, fraction=FRACTION, threshold=threshold)
        explanation = explain_files(some, f"{folder / 'nets.py'}:small", options)
        page = write_page(
            [explanation],
            folder / kind,
            title=explanation.title,
            settings=explanation.settings,
        )
        found[kind] = explanation, page
    return found


@pytest.fixture(scope="module")
def pair(pages) -> tuple[Explanation, pd.DataFrame]:
    explanation, page = pages["pair"]
    return explanation, pd.read_csv(page.parent / "curves.csv", keep_default_na=False)


# -- what was measured ---------------------------------------------------------------------------------


def test_every_map_has_a_drop_at_every_share_and_passes_are_counted(pair):
    explanation, _ = pair
    maps = ranked_maps(explanation.overall, explanation.against, explanation.layers, seed=0)
    seen, model = [], torch.nn.Flatten()
    references = embed(model, explanation.images.flip(0))  # and the model is checked, which takes passes of its own
    model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    embed(model, explanation.images)
    seen.clear()
    table = measure_curves(model, explanation.images, maps, references, fill="blur", seed=0, batch_size=16)
    assert sum(seen) == 2 * passes_per_face(len(explanation.layers))
    per_map = table.groupby(["map", "speaks", "control"])["fraction"].agg(list)
    assert all(sorted(set(fractions)) == list(SHARES) for fractions in per_map)
    assert set(per_map.index) == {
        *((name, speaks, "") for name, speaks in maps),
        (OVERALL, "for", "moved"),
        ("", "", "random pixels"),
    }


def test_drops_are_those_of_the_evaluator_at_the_shares_that_both_have(pair):
    explanation, curves = pair
    assert curves["drop"].abs().median() > 0.01
    drops = explanation.occlusion.to_frame()
    for control, name in (("", "LEAM, overall map"), ("random pixels", "")):
        ours = curves[
            (curves["control"] == control) & curves["map"].isin([OVERALL, ""]) & (curves["speaks"] != "against")
        ]
        theirs = drops[(drops["control"] == control) & (drops["method"] == name)]
        both = ours.merge(theirs, on=["image", "fraction"])
        assert len(both) == len(theirs) == 10
        assert both["drop_x"].to_numpy() == pytest.approx(both["drop_y"].to_numpy(), abs=1e-6)


def test_against_the_match_are_the_lowest_values_of_a_layer(pair):
    explanation, curves = pair
    name, signed = "layer", torch.randn(2, 112, 112)
    maps = ranked_maps(explanation.overall, explanation.against, {name: signed}, seed=0)
    assert torch.equal(top_fraction(maps[name, "against"], 0.05), top_fraction(-signed, 0.05))
    evaluator = OcclusionEvaluator(torch.nn.Flatten(), (0.05,), controls=())
    references = explanation.images.flatten(1).flip(0)
    drops = evaluator.evaluate(explanation.images, -signed, references).to_frame()["drop"]
    table = measure_curves(torch.nn.Flatten(), explanation.images, maps, references, fill="blur", seed=0, batch_size=4)
    ours = table.query("map == @name and speaks == 'against' and fraction == 0.05")["drop"]
    assert ours.to_numpy() == pytest.approx(drops.to_numpy(), abs=1e-9)
    assert len(curves) == 2 * len(SHARES) * (2 + 2 * len(explanation.layers) + 2)


def test_maps_beside_the_page_are_those_of_the_explanation(pair, pages):
    explanation, _ = pair
    with np.load(pages["pair"][1].parent / "maps.npz") as held:
        assert held["names"].tolist() == explanation.names
        assert held["layers"].tolist() == list(explanation.layers)
        assert np.array_equal(held["overall"], explanation.overall.numpy())
        assert np.array_equal(held["against"], explanation.against.numpy())
        assert np.array_equal(held["signed"], torch.stack([*explanation.layers.values()]).numpy())


def test_only_the_first_faces_are_explored(pages, tmp_path):
    _, page = pages["many"]
    files = sorted(page.parent.parent.glob("*.png"))
    options = FileOptions(preset="fast", pictures="crops", explored=2, certainty=False)
    explanation = explain_files(files, f"{page.parent.parent / 'nets.py'}:small", options)
    assert sorted(set(explanation.curves["image"])) == [0, 1]
    page = write_page([explanation] * 2, tmp_path, title="t", lead="l", settings={}).read_text()
    assert page.count('class="explorer') == 2
    assert page.count('class="face"') == 2 * 2
    assert page.count('class="card"') == 2


def test_script_and_page_are_small(pages):
    script = (resources.files("captum_leam.reporting") / "templates" / "explorer.js").read_bytes()
    assert len(script) < 300_000
    assert pages["pair"][1].stat().st_size < 3_000_000


def test_the_scripts_are_valid_typed_and_linted():
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node to check the script")
    folder = resources.files("captum_leam.reporting") / "templates"
    subprocess.run([node, "--check", str(folder / "explorer.js")], check=True)  # noqa: S603
    compiler, linter = WEB / ".bin" / "tsc", WEB / ".bin" / "eslint"
    if not (compiler.exists() and linter.exists()):
        pytest.skip("needs TypeScript and ESLint to check the scripts: make web")
    settings = Path(__file__).resolve().parents[1] / "web"
    scripts = [str(folder / name) for name in ("explorer.js", "page.js")]
    rules = ["--config", str(settings / "eslint.config.mjs"), "--max-warnings", "0"]
    for command in ([compiler, "-p", settings / "tsconfig.json"], [linter, *rules, *scripts]):
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)  # noqa: S603
        assert done.returncode == 0, done.stdout + done.stderr


# -- what the page shows -------------------------------------------------------------------------------


def canvas(visit, i: int, name: str = "map") -> np.ndarray:
    """Pixels of the map of a face, (H, W, 4); ``"over"`` has its outlines, (5 H, 5 W, 4)."""
    address = visit.page.locator(f"canvas.{name}").nth(i).evaluate("(canvas) => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA"), dtype=int)


def colours(visit, i: int) -> np.ndarray:
    """Colours of the map of a face, (H, W, 3)."""
    return canvas(visit, i)[..., :3]


def upper(visit, i: int) -> np.ndarray:
    return canvas(visit, i, "over")


def text(visit, name: str, i: int = 0) -> str:
    return visit.page.locator(f"[data-text={name}]").nth(i).inner_text().replace("\u00a0", " ").replace("−", "-")


def slide(visit, control: str, value: int) -> None:
    visit.page.locator(f"input[data-control={control}]").evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def slide_to_share(visit, share: float) -> None:
    """Move the slider by the keyboard, as a reader does, until it stands at a share."""
    slider = visit.page.locator("input[data-control=share]")
    slider.focus()
    slider.press("Home")
    for _ in range(80):
        if slider.get_attribute("aria-valuetext").replace("\u00a0", " ") == f"{100 * share:.3g} %":
            return
        slider.press("ArrowRight")
    raise AssertionError(f"no step at {share}")


def point(visit, i: int, x: int, y: int, size: int = 112) -> None:
    over = visit.page.locator("canvas.over").nth(i)
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    position = {"x": (x + 0.5) * box["width"] / size, "y": (y + 0.5) * box["height"] / size}
    over.hover(position=position, force=True)


def cells(visit, i: int) -> dict[str, dict[str, float]]:
    """Numbers of the table of regions of a face."""
    return visit.page.evaluate(
        """(i) => {
          const rows = [...document.querySelectorAll(".face")[i].querySelectorAll("tr[data-region]")];
          const read = (row) => [...row.querySelectorAll("td[data-cell]")].map((c) => [c.dataset.cell, Number(c.dataset.v)]);
          return Object.fromEntries(rows.map((row) => [row.dataset.region, Object.fromEntries(read(row))]));
        }""",
        i,
    )


def test_the_map_is_the_picture_beside_the_page(chromium, pages):
    explanation, page = pages["pair"]
    pictures = sorted(page.parent.glob("0*_face*.png"))
    with opened(chromium, page) as visit:
        for i in range(2):
            drawn = colours(visit, i)
            expected = overlay(explanation.images[i], explanation.overall[i]).astype(int)
            assert np.abs(drawn - expected).max() <= 1  # grey values of the page have 8 bits
            larger = Image.fromarray(drawn.astype(np.uint8)).resize((448, 448), Image.Resampling.BICUBIC)
            beside = np.asarray(Image.open(pictures[i]), dtype=int)
            assert np.abs(np.asarray(larger, dtype=int) - beside).max() <= 3


def test_layers_and_sides_are_the_signed_maps(chromium, pages):
    explanation, page = pages["pair"]
    with opened(chromium, page) as visit:
        for index, (name, signed) in enumerate(explanation.layers.items(), 1):
            visit.page.select_option("select[data-control=map]", str(index))
            for side, of_side in (("for", signed > 0), ("against", signed < 0)):
                visit.page.check(f"input[value={side}]")
                expected = overlay(explanation.images[0], signed[0], signed=True).astype(int)
                inside = of_side[0].numpy()
                assert inside.any()
                drawn = colours(visit, 0)
                assert np.abs(drawn - expected)[inside].max() <= 1
                grey = explanation.images[0].mean(0).mul(255).round().numpy()
                assert np.abs(drawn - grey[..., None])[~inside].max() <= 1
                assert text(visit, "shown").startswith(f"Layer {name}, {side} the match")
        visit.page.select_option("select[data-control=map]", "0")
        assert np.abs(colours(visit, 1) - overlay(explanation.images[1], explanation.against[1])).max() <= 1
        assert visit.console == []


def test_opacity_and_scale(chromium, pages):
    explanation, page = pages["pair"]
    with opened(chromium, page) as visit:
        slide(visit, "opacity", 0)
        grey = explanation.images[0].mean(0).mul(255).round().numpy()
        assert np.abs(colours(visit, 0) - grey[..., None]).max() <= 1
        slide(visit, "opacity", 40)
        expected = overlay(explanation.images[0], explanation.overall[0], strength=0.4)
        assert np.abs(colours(visit, 0) - expected).max() <= 1
        slide(visit, "opacity", 75)

        peaks = [float(m.max()) for m in explanation.overall]
        high = visit.page.locator("[data-bar=high]")
        assert [float(t) for t in high.all_inner_texts()] == pytest.approx(peaks, rel=5e-3)
        low = int(np.argmin(peaks))
        before = colours(visit, low)
        visit.page.check("input[value=shared]")
        assert [float(t) for t in high.all_inner_texts()] == pytest.approx([max(peaks)] * 2, rel=5e-3)
        assert np.abs(colours(visit, low) - before).max() > 2
        assert (
            np.abs(colours(visit, 1 - low) - overlay(explanation.images[1 - low], explanation.overall[1 - low])).max()
            <= 1
        )
        visit.page.click("[data-control=reset]")
        assert np.array_equal(colours(visit, low), before)


@pytest.mark.parametrize("share", [0.005, 0.02, FRACTION, 0.2, 0.5])
def test_the_share_outlines_its_pixels_and_shows_their_drop(chromium, pages, pair, share):
    explanation, page = pages["pair"]
    _, curves = pair
    with opened(chromium, page) as visit:
        slide_to_share(visit, share)
        count = pixel_count(share, 112 * 112)
        assert f"the top {100 * share:.3g} %, {count} pixels" in text(visit, "shown")
        assert text(visit, "drop") == f"At {100 * share:.3g} % of the pixels: measured."
        for i in range(2):
            shown = visit.page.locator(".chart").nth(i).locator("li b").all_inner_texts()
            rows = curves[(curves["image"] == i) & (np.isclose(curves["fraction"], share))].set_index(
                ["map", "speaks", "control"]
            )["drop"]
            expected = [rows[OVERALL, "for", ""], rows[OVERALL, "for", "moved"], rows["", "", "random pixels"]]
            assert [float(t.replace("−", "-")) for t in shown] == pytest.approx(expected, abs=5.1e-4)
            inside = top_fraction(explanation.overall[i : i + 1], share)[0].numpy()
            drawn = upper(visit, i)[2::5, 2::5, 3] > 0  # lines lie on the sides of pixels, not in their middle
            assert not drawn[inside].all()
            edge = np.zeros_like(inside)
            edge[:, 1:] |= inside[:, 1:] != inside[:, :-1]
            lines = upper(visit, i)[2::5, 0::5, 3] > 0  # the left side of every pixel
            assert np.array_equal(lines[:, 1:], edge[:, 1:])


def test_the_drop_between_two_shares_is_interpolated_and_said_to_be(chromium, pages, pair):
    _, page = pages["pair"]
    _, curves = pair
    with opened(chromium, page) as visit:
        slide_to_share(visit, 0.1)
        visit.page.locator("input[data-control=share]").press("ArrowRight")
        assert text(visit, "drop").endswith("on the line between the measured 10 % and 15 %.")
        shown = visit.page.locator(".chart").first.locator("li b").first.inner_text()
        own = curves[
            (curves["image"] == 0)
            & (curves["map"] == OVERALL)
            & (curves["speaks"] == "for")
            & (curves["control"] == "")
        ]
        low, high = (float(own[np.isclose(own["fraction"], f)]["drop"].iloc[0]) for f in (0.1, 0.15))
        assert float(shown.replace("−", "-")) == pytest.approx(low + (high - low) / 5, abs=5.1e-4)


def test_curves_follow_map_and_side(chromium, pages, pair):
    explanation, page = pages["pair"]
    _, curves = pair
    name = list(explanation.layers)[1]
    with opened(chromium, page) as visit:
        visit.page.select_option("select[data-control=map]", "2")
        visit.page.check("input[value=against]")
        items = visit.page.locator(".chart").first.locator("li").all_inner_texts()
        names = [re.sub(r" [−\d.]+$", "", t.strip()) for t in items]
        assert names == [
            "this map",
            "overall map, for the match",
            "overall map, moved",
            "random pixels",
        ]
        rows = curves[(curves["image"] == 0) & np.isclose(curves["fraction"], FRACTION)].set_index(
            ["map", "speaks", "control"]
        )["drop"]
        assert float(items[0].split()[-1].replace("−", "-")) == pytest.approx(rows[name, "against", ""], abs=5.1e-4)
        signed = explanation.layers[name][0]
        x, y = int(signed.argmin()) % 112, int(signed.argmin()) // 112
        point(visit, 0, x, y)
        assert "; rank 1 of 12544" in text(visit, "read")
        assert float(re.search(r"value (\S+);", text(visit, "read"))[1]) == pytest.approx(
            float(signed.min()), rel=5.1e-3
        )
        visit.page.mouse.move(2, 2)
        inside = top_fraction(-signed[None], FRACTION)[0].numpy()
        lines = upper(visit, 0)[2::5, 0::5, 3] > 0  # the left side of every pixel
        assert np.array_equal(lines[:, 1:], inside[:, 1:] != inside[:, :-1])


def test_a_pixel_is_read_by_the_pointer(chromium, pages):
    explanation, page = pages["pair"]
    with np.load(page.parent / "maps.npz") as held:
        overall = held["overall"]
    ranks = rank_pixels(explanation.overall)
    with opened(chromium, page) as visit:
        for i, (x, y) in [(0, (56, 70)), (1, (3, 100)), (1, (111, 0))]:
            point(visit, i, x, y)
            read = text(visit, "read", i)
            region = explanation.scheme.regions[int(explanation.labels[i, y, x])]
            assert read.startswith(f"x {x}, y {y}: {region};")
            assert float(re.search(r"value (\S+);", read)[1]) == pytest.approx(overall[i, y, x], rel=5.1e-3)
            assert f"rank {int(ranks[i, y, x]) + 1} of 12544" in read
        visit.page.mouse.move(2, 2)
        assert text(visit, "read", 1).startswith("Point at the map")


def test_every_pixel_has_its_rank(chromium, pages):
    explanation, page = pages["pair"]
    find = "([side, i]) => [...allEvidence(JSON.parse(document.querySelector('.explorer').dataset.explorer))[0][side][i].ranks]"
    with opened(chromium, page) as visit:
        for side, maps in (("for", explanation.overall), ("against", explanation.against)):
            ranks = rank_pixels(maps)
            for i in range(2):
                assert visit.page.evaluate(find, [side, i]) == ranks[i].flatten().tolist()
    assert (explanation.against == 0).float().mean() > 0.1  # ties


def test_a_page_of_a_large_pair_is_small():
    faces = gaussian_blur(torch.randn(6, 224, 224, generator=torch.Generator().manual_seed(0)), 6).view(2, 3, 224, 224)
    maps = [gaussian_blur(torch.randn(2, 224, 224), 6) for _ in range(5)]
    shares = [m.relu() / m.relu().sum((1, 2), keepdim=True) for m in maps[:2]]
    layers = dict(zip(("first", "second", "third"), maps[2:], strict=True))
    settings = MapSettings("default", "other face", tuple(layers), tuple(layers), (0, 0, 224, 224), n_steps=4)
    pair = PairExplanation((3 * faces + 0.5).clamp(0, 1), 0.5, *shares, layers, 0.8, settings)
    assert len(pair.to_html()) < 4_500_000


def test_a_pixel_is_read_by_the_keyboard(chromium, pages):
    explanation, page = pages["pair"]
    best = int(explanation.overall[0].argmax())
    with opened(chromium, page) as visit:
        over = visit.page.locator("canvas.over").first
        over.focus()
        x, y = best % 112, best // 112
        assert text(visit, "read").startswith(f"x {x}, y {y}:")
        assert "rank 1 of" in text(visit, "read")
        over.press("ArrowRight")
        over.press("Shift+ArrowUp")
        assert text(visit, "read").startswith(f"x {min(x + 1, 111)}, y {max(y - 8, 0)}:")
        for _ in range(20):
            over.press("Shift+ArrowUp")
        assert ", y 0:" in text(visit, "read")
        over.press("Enter")
        chosen = visit.page.locator(".face").first.locator("tr.chosen").get_attribute("data-region")
        assert f": {chosen};" in text(visit, "read")
        over.press("Escape")
        assert visit.page.locator("tr.chosen").count() == 0


def test_a_region_is_chosen_by_a_click_on_the_map_or_its_row(chromium, pages):
    explanation, page = pages["pair"]
    nose = explanation.scheme.index("nose")
    with opened(chromium, page) as visit:
        slide_to_share(visit, 0.005)
        y, x = (int(v) for v in (explanation.labels[0] == nose).nonzero().double().mean(0))
        box = visit.page.locator("canvas.over").first.bounding_box()
        visit.page.locator("canvas.over").first.click(
            position={"x": x * box["width"] / 112, "y": y * box["height"] / 112}
        )
        visit.page.mouse.move(2, 2)
        rows = visit.page.locator("tr.chosen")
        assert [rows.nth(i).get_attribute("data-region") for i in range(rows.count())] == ["nose", "nose"]
        assert rows.first.locator("button").get_attribute("aria-pressed") == "true"
        for i in range(2):
            inside = (explanation.labels[i] == nose).numpy()
            dark = upper(visit, i)[2::5, 2::5]
            assert (dark[..., 3][~inside] > 0).all()  # all but the region is dimmed
            assert (dark[..., 3][inside] == 0).mean() > 0.6  # but for lines
        rows.first.locator("button").click()
        assert visit.page.locator("tr.chosen").count() == 0
        assert (upper(visit, 0)[2::5, 2::5, 3] == 0).mean() > 0.9


def test_the_table_of_regions_is_the_csv_and_follows_the_share(chromium, pages):
    explanation, page = pages["pair"]
    table = pd.read_csv(page.parent / "regions.csv")
    with opened(chromium, page) as visit:
        for share in (None, 0.1):
            if share:
                slide_to_share(visit, share)
                table = region_report(explanation.overall, explanation.labels, explanation.scheme, fraction=share)
            for i in range(2):
                rows = table[table["image"] == i].set_index("region")
                shown = cells(visit, i)
                assert set(shown) == set(rows.index)
                for region, values in shown.items():
                    for name, value in values.items():
                        assert value == pytest.approx(rows.loc[region, name], rel=1e-5, abs=1e-6, nan_ok=True)
        plain = visit.page.locator("tr[data-region=nose] td[data-cell=area]").first.inner_text()
        assert plain.replace("\u00a0", " ") == f"{100 * cells(visit, 0)['nose']['area']:.1f} %"


def test_correspondences_are_those_of_the_decomposition(chromium, pages):
    explanation, page = pages["pair"]
    found = explanation.correspondences
    assert found is not None
    score = explanation.pair.score
    assert float(found.matrix.double().sum() + found.rest.double()) == pytest.approx(score, abs=1e-4)
    rows, columns = found.grid
    with opened(chromium, page) as visit:
        matrix = found.matrix[0]
        cell = int((matrix.amax(1) - matrix.amax(0)).abs().argmax())  # where rows and columns differ most
        assert abs(float(matrix[cell].max() - matrix[:, cell].max())) > 2e-4
        y, x = int((cell // columns + 0.5) * 112 / rows), int((cell % columns + 0.5) * 112 / columns)
        for face, values in ((0, matrix[cell]), (1, matrix[:, cell])):
            point(visit, face, x, y)
            added = float(re.search(r"adds (-?\d+\.\d+) to the cosine", text(visit, "read", face))[1])
            assert added == pytest.approx(float(values.max()), abs=5.1e-5)
            other = int(values.argmax())
            top, left = 5 * (other // columns) * 112 // rows, 5 * (other % columns) * 112 // columns
            assert (upper(visit, 1 - face)[top + 20, left][:2] > 200).all()  # the yellow side of the cell
        before = upper(visit, 0)
        visit.page.check("input[data-control=marks]")
        assert (upper(visit, 0) != before).any()
    figure = pd.read_csv(page.parent / "figures" / "correspondences.csv")
    assert figure["strength"].to_numpy() == pytest.approx(found.strengths(count=10)[0].numpy(), rel=1e-4)


def test_a_head_that_is_not_affine_has_no_correspondences_and_says_so(pages, tmp_path):
    wave = "class Wave(torch.nn.Module):\n    def forward(self, x):\n        return torch.sin(1e4 * x)\n\n"
    code = MODEL.replace("Centred()", "torch.nn.Sequential(Centred(), Wave())").replace("def small", f"{wave}def small")
    (tmp_path / "nets.py").write_text(code)
    explanation, page = pages["pair"]
    files = [page.parent.parent / name for name in explanation.names]
    found = explain_files(
        files,
        f"{tmp_path / 'nets.py'}:small",
        FileOptions(preset="fast", pictures="crops", explored=0, certainty=False),
    )
    assert found.correspondences is None
    assert any(
        note.startswith("no correspondences between the faces: the model is not affine after") for note in found.notes
    )
    assert found.curves is None
    assert 'class="explorer' not in found.to_html()


# -- everywhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pair", "many"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_issue_no_message_and_no_request(chromium, pages, kind, scheme):
    page = pages[kind][1]
    with opened(chromium, page, scheme=scheme) as visit:
        visit.page.check("input[value=against]")
        visit.page.locator("tr[data-region] button").first.click()
        visit.page.locator("summary").first.click()
        visit.page.keyboard.press("Tab")
        assert axe(visit) == []
        assert visit.console == []
        assert visit.requests == [page.as_uri()]


@pytest.mark.parametrize("kind", ["pair", "many"])
@pytest.mark.parametrize("width", [390, 768, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_window(chromium, pages, kind, width, scheme):
    with opened(chromium, pages[kind][1], width=width, scheme=scheme) as visit:
        found = visit.page.evaluate(
            """() => ({wide: document.documentElement.scrollWidth,
              tops: [...document.querySelectorAll(".face")].map((face) => face.getBoundingClientRect().top),
              stage: document.querySelector(".stage").getBoundingClientRect().width,
              inputs: [...document.querySelectorAll(":is(.controls) :is(input, select, button)")].map(
                (e) => e.getBoundingClientRect().right)})"""
        )
        pixels = visit.screenshot()
    assert found["wide"] <= width
    assert max(found["inputs"]) <= width
    assert found["stage"] > 280
    assert (len(set(found["tops"])) == 1) == (kind == "pair" and width == 1200)  # side by side where there is room
    assert (np.median(pixels) > 200) == (scheme == "light")


def test_every_control_is_reached_by_the_keyboard(chromium, pages):
    with opened(chromium, pages["pair"][1]) as visit:
        reached = set()
        for _ in range(60):
            visit.page.keyboard.press("Tab")
            reached.add(
                visit.page.evaluate("document.activeElement.dataset.control ?? document.activeElement.className")
            )
    assert {"map", "side", "opacity", "share", "scale", "marks", "reset", "over", "plain"} <= reached


@pytest.mark.parametrize("kind", ["pair", "many"])
def test_a_face_is_printed_on_one_page(chromium, pages, kind, tmp_path):
    page = pages[kind][1]
    count = len(pages[kind][0].names)
    with opened(chromium, page) as visit:
        visit.page.pdf(
            path=tmp_path / "page.pdf", format="A4", margin=dict.fromkeys(("top", "right", "bottom", "left"), "12mm")
        )
        visit.page.set_viewport_size({"width": 703, "height": 1031})  # 186 × 273 mm
        visit.page.emulate_media(media="print")
        visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        found = visit.page.evaluate(
            """() => [...document.querySelectorAll(".face")].map((face) => ({
              height: Math.max(...[face, ...face.querySelectorAll("*")].map((part) => part.getBoundingClientRect().bottom))
                - face.getBoundingClientRect().top,
              table: face.querySelector(".curve table").getBoundingClientRect().height,
              chart: face.querySelector(".chart svg").getBoundingClientRect().height,
              regions: face.querySelector(".parts table").getBoundingClientRect().height,
              layers: face.querySelectorAll(".still img").length}))"""
        )
    assert len(found) == count
    for face in found:
        assert face["height"] < 1031
        assert min(face["table"], face["chart"], face["regions"]) > 100
        assert face["layers"] >= 5
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= count + 2


def test_a_notebook_shows_the_page_in_a_frame(chromium, pages, tmp_path):
    explanation, _ = pages["pair"]
    cell = explanation._repr_html_()
    assert unescape(re.search(r'srcdoc="([^"]*)"', cell)[1]) == explanation.to_html()
    (tmp_path / "cell.html").write_text(f"<!doctype html><title>notebook</title><body>{cell}", encoding="utf-8")
    with opened(chromium, tmp_path / "cell.html") as visit:
        frame = visit.page.frame_locator("iframe")
        frame.locator("input[value=against]").check()
        assert ", against the match" in frame.locator("[data-text=shown]").first.inner_text()
        assert visit.console == []
        assert visit.requests == [(tmp_path / "cell.html").as_uri(), "about:srcdoc"] or len(visit.requests) == 1


def test_a_pair_has_a_page_without_its_model(chromium, pages, tmp_path):
    explanation, _ = pages["pair"]
    names = ["ann <b>", "bob"]
    page = explanation.pair.to_html(names=names, labels=explanation.labels, scheme=explanation.scheme)
    (tmp_path / "pair.html").write_text(page, encoding="utf-8")
    with opened(chromium, tmp_path / "pair.html") as visit:
        assert visit.page.locator("h1").inner_text() == "ann <b> and bob"
        assert visit.page.locator(".face h3").all_inner_texts() == names
        assert "rejected at threshold 0.9" in visit.page.locator("#faces > .lead").inner_text()
        for i in range(2):
            expected = overlay(explanation.images[i], explanation.overall[i]).astype(int)
            assert np.abs(colours(visit, i) - expected).max() <= 1
        areas = explanation.regions[explanation.regions["image"] == 0].set_index("region")["area"]
        for region, row in cells(visit, 0).items():
            assert row["area"] == pytest.approx(areas[region], abs=1e-6)
        visit.page.check("input[value=against]")
        assert "against the match" in text(visit, "shown")
        assert visit.page.locator(".curve, .chart").count() == 0  # drops need the model
        assert axe(visit) == []
        assert visit.console == []


def test_a_page_of_a_pair_needs_labels_with_their_scheme_and_a_name_for_each_face(pages):
    explanation, _ = pages["pair"]
    with pytest.raises(CaptumLeamError, match="Expected labels and their scheme"):
        explanation.pair.to_html(labels=explanation.labels)
    with pytest.raises(CaptumLeamError, match=r"Expected labels of shape \(2, 112, 112\)"):
        explanation.pair.to_html(labels=explanation.labels[..., :-1], scheme=explanation.scheme)
    with pytest.raises(CaptumLeamError, match="Expected a name for each of the 2 faces"):
        explanation.pair.to_html(names=["ann"])
    with pytest.raises(NoEvidenceError, match="Expected evidence for the match in both faces"):
        replace(explanation.pair, similar=0 * explanation.pair.similar).to_html()
    cell = explanation.pair._repr_html_()
    assert unescape(re.search(r'srcdoc="([^"]*)"', cell)[1]) == explanation.pair.to_html()


def test_a_record_without_drops_is_valid(pages):
    explanation, _ = pages["pair"]
    record = explanation_record(explanation_of(explanation.pair))
    jsonschema.validate(record, explanation_schema())
    assert record["drops"] == []
    assert [face["drops"] for face in record["faces"]] == [[], []]
    assert [face["name"] for face in record["faces"]] == ["a", "b"]


def test_the_demo_has_no_serious_issue(chromium, tmp_path, monkeypatch):
    """With networks of three steps; `make demo` is the real one."""
    monkeypatch.setattr(synthetic, "train", partial(synthetic.train, steps=3, batch_size=4))
    result = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path / "demo"), "--people", "3", "--no-progress"])
    assert result.exit_code == 0, result.exception
    with opened(chromium, tmp_path / "demo" / "index.html") as visit:
        assert axe(visit) == []
        assert visit.page.locator(".face").count() == 3 * 2
        assert visit.page.locator(".card").count() == 3 * 1
        assert visit.console == []
        sections = visit.page.locator(".explorer")
        sections.nth(1).locator("input[value=against]").check()
        shown = [sections.nth(i).locator("[data-text=shown]").first.inner_text() for i in range(3)]
        assert [", against the match" in text for text in shown] == [False, True, False]


def test_without_scripts_maps_and_tables_are_there(chromium, pages, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(re.sub(r"<script>.*</script>", "", pages["pair"][1].read_text(), flags=re.DOTALL))
    found = measured(
        chromium,
        page,
        """return {images: [...document.querySelectorAll(".stage img")].filter((i) => i.offsetWidth > 100).length,
          controls: document.querySelector(".controls").offsetHeight, rows: document.querySelectorAll(".curve tbody tr").length}""",
    )
    assert found == {"images": 2, "controls": 0, "rows": 2 * len(SHARES)}
