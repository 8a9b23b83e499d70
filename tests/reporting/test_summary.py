"""The summary at the top of each page has the measured values of the page, and no more than three sentences."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from captum_leam import explain_match, explain_pair, suggest_layers
from captum_leam.certainty import MapCertainty, PlacementTest
from captum_leam.regions import TemplateParser
from captum_leam.reporting import ExplainOptions, explain_images
from captum_leam.reporting.explanation import references_from
from captum_leam.reporting.explanation_page import explanation_page
from captum_leam.reporting.findings import read_findings
from captum_leam.reporting.numbers import listed, number, value_range
from captum_leam.reporting.summary import (
    CERTAINTY,
    COMPARED,
    DECISIVE,
    explanation_summary,
    person_summary,
    study_summary,
)
from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation
from tests.helpers.fake_study import fake_results


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("−", "-")


def summary_of(*explanations) -> dict[str, str]:
    return {label: plain(sentence) for label, sentence in explanation_summary(explanations)}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return EmbeddingNet().eval()


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    return SyntheticPopulation(2).sample(2, seed=1).images


@pytest.fixture(scope="module")
def explain(model):
    parser = TemplateParser()
    options = ExplainOptions(preset="fast", n_steps=1, explored=0)

    def explain(images, names, **given):
        layers = suggest_layers(model, images)
        return explain_images(model, images, names, layers, parser(images), parser.scheme, options=options, **given)

    return explain


@pytest.fixture(scope="module")
def of_others(model, faces, explain):
    return explain(faces, ["a", "b", "c", "d"], references=references_from(model, faces))


def test_decisive_names_the_region_with_the_largest_share_beyond_its_area(of_others):
    shares = of_others.regions.groupby("region")[["share", "area"]].mean()
    region = (shares["share"] - shares["area"]).idxmax()
    share, area = shares.loc[region]
    text = summary_of(of_others)[DECISIVE]
    assert text.startswith(f"{100 * share:.0f} % of the critical pixels (the top 1 % of the map, mean over 4 faces)")
    assert text.endswith(f"in the region “{region.replace('_', ' ')}”, which covers {100 * area:.1f} % of the crop.")


def test_certainty_has_the_mean_drops_of_the_map_and_of_random_pixels(of_others):
    drops = of_others.occlusion.to_frame().query("fraction == 0.05")
    of_map = drops.query("method == 'LEAM, overall map'")["drop"].mean()
    of_random = drops.query("control == 'random pixels'")["drop"].mean()
    text = summary_of(of_others)[CERTAINTY]
    assert text.startswith(
        "For this network and these images only, occluding the top 5 % of the map lowers the cosine by "
    )
    assert f"lowers the cosine by {plain(number(of_map, 3))} on average" in text
    assert f"{plain(number(of_random, 3))} for random pixels" in text


@pytest.mark.parametrize(("factor", "words"), [(1.0, "against"), (-1.0, "is not shown to be faithful")])
def test_a_map_that_a_control_beats_is_not_called_faithful(of_others, factor, words):
    table = of_others.occlusion.to_frame()
    is_map = (table["method"] != "") & (table["control"] == "")
    changed = table.assign(drop=np.where(is_map, factor * (1 + table["drop"].abs()), 0.0))
    assert words in summary_of(replace(of_others, occlusion=type(of_others.occlusion)(changed)))[CERTAINTY]


def test_certainty_counts_the_maps_whose_place_matters(of_others):
    none = pd.DataFrame(columns=["image", "kind", "change", "overlap", "rank_correlation"])
    tests = tuple({"model": PlacementTest(0.3, np.zeros(9), p)} for p in (0.01, 0.05, 0.06, np.nan))
    certainty = MapCertainty(tests, none, none.rename(columns={"kind": "model"}), {}, {"fraction": 0.05})
    assert (
        "the place of 2 of 3 maps is shown to matter (p ≤ 0.05)"
        in summary_of(replace(of_others, certainty=certainty))[CERTAINTY]
    )
    alone = MapCertainty(tests[2:3], none, none, {}, {"fraction": 0.05})
    assert "its place is not shown to matter (p = 0.06)" in summary_of(replace(of_others, certainty=alone))[CERTAINTY]


@pytest.mark.parametrize(
    ("threshold", "same_person", "words"),
    [
        (None, None, []),
        (-1.0, None, ["the pair is accepted at the threshold -1"]),
        (1.0, True, ["the pair is rejected at the threshold 1", "wrong because the images show the same person"]),
        (1.0, False, ["the pair is rejected at the threshold 1", "right because the images show different people"]),
    ],
)
def test_a_pair_is_summarised_by_its_score_and_decision(model, faces, explain, threshold, same_person, words):
    pair = explain_pair(model, *faces[:2], preset="fast", n_steps=1, threshold=threshold, same_person=same_person)
    text = summary_of(explain(faces[:2], ["a", "b"], references=references_from(model, faces[:2]), pair=pair))[COMPARED]
    assert text.startswith(f"The cosine of the embeddings of a and b is {pair.score:.3f}")
    assert all(part in text for part in words)


@pytest.mark.parametrize("count", [1, 2])
def test_probes_are_summarised_by_lead_and_its_fall(model, faces, explain, count):
    probes, stored = faces[:count], SyntheticPopulation(3).sample(1, seed=5).images
    match = explain_match(model, probes, stored, ["ann", "bob", "cy"], preset="fast", n_steps=1, threshold=-1)
    found = summary_of(explain(probes, ["a", "b"][:count], match=match))
    behind = plain(value_range(match.margins.tolist()))
    assert found[COMPARED].startswith(f"{count} probe")
    assert "compared with a gallery of 3 names" in found[COMPARED]
    assert behind in found[COMPARED]
    assert (match.first[0] in found[COMPARED]) == (count == 1)
    assert f"{count} of {count} first candidate" in found[COMPARED]
    own = match.changes.query("of == 'first candidate' and control == ''")
    fall = (own["margin_before"] - own["margin_after"]).mean()
    assert f"lowers the lead of the first candidate by {plain(number(fall, 3))}" in found[CERTAINTY]


def test_an_embedding_strength_map_is_no_match(faces, explain):
    alone = explain(faces[:1], ["a"])
    assert summary_of(alone)[COMPARED].startswith("a was explained by its own embedding")
    assert "no match" in summary_of(alone)[COMPARED]
    assert summary_of(explain(faces[:2], ["a", "b"]))[COMPARED].startswith(
        "2 faces were explained by their own embeddings"
    )


def test_several_explanations_are_summarised_together(of_others, explain, faces):
    named = [replace(of_others, title="first"), replace(explain(faces[:1], ["a"]), title="second")]
    found = summary_of(*named)
    assert found[COMPARED] == "5 faces in 2 sections were explained: “first” and “second”."
    assert "first)" in found[DECISIVE]
    assert "second)" in found[DECISIVE]
    assert found[CERTAINTY].startswith("For these networks and these images only")


def test_the_page_opens_with_the_summary(of_others):
    page = explanation_page([of_others], title="t", settings={}).render()
    start = page.index('<dl class="summary">')
    assert page.index("<h1>") < start < page.index("<nav")
    sentences = re.findall(r"<dd>(.*?)</dd>", page[start : page.index("</dl>", start)])
    assert sentences == [sentence for _, sentence in explanation_summary([of_others])]
    assert len(sentences) == 3


# -- studies -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = fake_results(tmp_path_factory.mktemp("study") / "results", people=4, layers=("l", "m"))
    return read_findings(folder)


def test_a_study_is_summarised_by_its_tables(study):
    compared = study.against_controls()
    found = {label: plain(sentence) for label, sentence in study_summary(study, compared)}
    used = int((study["images"]["status"] == "ok").sum())
    assert (
        found[COMPARED]
        == f"{used} images of 4 people were embedded by 2 networks (ms1m and casia) and explained at 2 layers each."
    )
    means = study.at_place("region_summary").groupby(["quantity", "region"])["mean"].mean()
    region = (means["share"] - means["area"]).idxmax()
    assert (
        f"{100 * means['share', region]:.0f} % of the critical pixels lie in the region “{region}”" in found[DECISIVE]
    )
    clear = int((study.headline()["above_low"] > 0).sum())
    better = int((compared.groupby("explained")["low"].min() > 0).sum())
    assert f"beyond every control on {clear} of 2 networks" in found[CERTAINTY]
    assert f"more than every control on {better} of 2 networks" in found[CERTAINTY]


def test_a_person_is_summarised_by_their_rows(study):
    found = {label: plain(sentence) for label, sentence in person_summary(study, "s02")}
    means = study["scores"].query("person == 's02'").groupby("model", sort=False)["cosine"].mean()
    assert found[COMPARED].startswith("4 images of this person were used")
    assert listed([f"{mean:.2f} on {model}" for model, mean in means.items()]) in found[COMPARED]
    rows = (
        study.rows("regions", model="ms1m", layer="overall", person="s02").groupby("region")[["share", "area"]].mean()
    )
    region = (rows["share"] - rows["area"]).idxmax()
    assert f"“{region}” on ms1m ({100 * rows['share'][region]:.0f} %)" in found[DECISIVE]
    drops = study.own(study.rows("drops", person="s02", fill="blur", fraction=0.05, measured="ms1m"))
    drops = drops.groupby("control")["drop"].mean()
    assert (
        f"{drops['']:.3f} on ms1m (the strongest control, {drops.drop('').idxmax()}: {drops.drop('').max():.3f})"
        in found[CERTAINTY]
    )
