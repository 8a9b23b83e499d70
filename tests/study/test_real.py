"""The study on real faces and networks: maps are person-specific, on both networks, beyond every control; and its report."""

import csv
import re

import numpy as np
import pytest

from captum_leam.reporting.numbers import interval, number
from captum_leam.reporting.study_report import write_report
from captum_leam.study import StudyResult
from tests.helpers.browser import opened

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.ci]


def test_maps_of_real_people_are_specific_and_networks_separate(real_study):
    result = StudyResult(real_study)
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
    for explained, on in drops.index:
        assert drops[explained, on] > 5 * random[on]
    lift = result.table("region_summary", layer="overall", quantity="lift").set_index(["model", "region"])["mean"]
    for model in ("ms1m", "casia"):
        assert lift[model, "nose"] > 3
        assert lift[model, "hair"] < 1


@pytest.fixture(scope="module")
def page(real_study):
    return write_report(real_study)


def test_the_report_says_what_the_tables_hold(real_study, page):
    text = page.read_text(encoding="utf-8")
    found = StudyResult(real_study).table("patterns", layer="overall", kind="top", control="")
    headline = text[text.index('<div class="headline">') : text.index('<div class="short')]
    for row in found.to_dict("records"):
        for value in (row["same"], row["different"], row["auc"], row["above_control"]):
            assert f">{number(value)}<" in headline
        assert interval(row["above_low"], row["above_high"]) in headline
    links = re.findall(r'<a download="(\w+\.csv)"', text)
    assert {"headline.csv", "pairs.csv", "gaps.csv", "regions.csv", "drops.csv", "transfer.csv"} <= set(links)
    for name in links:
        with open(page.parent / "figures" / name, newline="", encoding="utf-8") as file:
            assert len(list(csv.reader(file))) > 1


def test_pairs_are_counted_and_their_rates_told(real_study):
    result = StudyResult(real_study)
    faces = len(result.table("images"))
    pairs = result.table("cosines").groupby(["model", "kind"])["pairs"].sum()
    for row in result.table("verification").to_dict("records"):
        assert pairs[row["model"], "genuine"] == row["genuine"] == faces
        assert pairs[row["model"], "impostor"] == row["impostor"] == faces * (faces - 1) // 2 - faces
        above = result.table("cosines", model=row["model"], kind="impostor")
        sure = above.loc[above["low"] >= row["threshold_1e3"], "pairs"].sum()
        assert sure <= 0.001 * row["impostor"]
        assert row["tar_1e3"] > 0.8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_of_real_people_works_in_a_browser(chromium, page, scheme):
    script = """
        const sections = [...document.querySelectorAll("main > section")].map((s) => s.id);
        const empty = [...document.querySelectorAll("main > section")].filter((s) => s.offsetHeight < 60).length;
        const table = document.querySelector(".headline table");
        const cells = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[1].dataset.v));
        table.tHead.rows[0].cells[1].querySelector("button").click();
        const inside = table.getBoundingClientRect().right <= table.parentElement.getBoundingClientRect().right + 1;
        return {sections, empty, same: cells(), inside, bottom: table.getBoundingClientRect().bottom,
                inner: window.innerWidth, wide: document.documentElement.scrollWidth};
    """
    with opened(chromium, page, width=390, height=3000, scheme=scheme) as visit:
        found = visit.page.evaluate(f"() => {{ {script} }}")
        pixels = visit.screenshot()
        assert visit.console == []
    assert found["sections"] == [
        "short",
        "data",
        "specific",
        "regions",
        "faithful",
        "agreement",
        "groups",
        "paper",
        "reading",
        "limits",
        "made",
    ]
    assert found["empty"] == 0
    assert found["wide"] <= found["inner"]
    assert found["inside"]  # all of the claim's numbers, on a phone, without scrolling ...
    assert found["bottom"] < 844  # ... in the first screen
    assert found["same"] == sorted(found["same"], reverse=True)
    assert (np.median(pixels) > 200) == (scheme == "light")
    assert ((np.abs(pixels - np.median(pixels)) > 60).any(axis=1)).mean() > 0.3
