"""Region reports over people by hand, and the drawing that shows them."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from captum_leam.regions import CELEBAMASK_HQ, COARSE, lift_drawing, over_people, per_person
from captum_leam.regions.region_plots import COLOURS


def report(lifts: list[float], region: str = "nose") -> pd.DataFrame:
    table = pd.DataFrame({"image": range(len(lifts)), "region": region, "lift": lifts})
    return table.assign(share=table["lift"] / 10, mass=0.2, area=0.1)


def test_a_person_counts_once_however_many_images():
    table = over_people(report([2, 2, 2, 8]), ["ann", "ann", "ann", "bob"]).set_index("quantity")
    assert table.loc["lift", "mean"] == 5  # over images it would be 3.5
    assert table.loc["share", "mean"] == pytest.approx(0.5)
    assert table.loc["lift", "people"] == 2


def test_an_image_without_the_region_is_left_out():
    table = per_person(report([2, np.nan, np.nan]), ["ann", "ann", "bob"])
    assert table["lift"].tolist()[0] == 2
    assert np.isnan(table["lift"].tolist()[1])
    over = over_people(report([2, np.nan, np.nan]), ["ann", "ann", "bob"]).set_index("quantity")
    assert over.loc["lift", "people"] == 1
    assert np.isnan(over.loc["lift", "low"])


def test_people_and_regions_stay_in_their_order_and_nobody_is_somebody():
    table = pd.concat([report([2, 4, 6], "nose"), report([1, 1, 1], "eyes")])
    rows = per_person(table, ["zoe", None, "ann"])
    assert rows["region"].tolist() == ["nose"] * 3 + ["eyes"] * 3
    assert [None if pd.isna(p) else p for p in rows["person"]] == ["zoe", None, "ann"] * 2
    assert rows["lift"].tolist() == [2, 4, 6, 1, 1, 1]


def test_intervals_are_those_of_people():
    """The standard error of the mean over people, not over images that repeat each other."""
    values = np.random.default_rng(1).normal(5, 1, 60)
    people = [f"p{i // 4}" for i in range(240)]
    repeated = over_people(report(list(np.repeat(values, 4))), [f"p{i // 4}" for i in range(240)])
    low, high = repeated.set_index("quantity").loc["lift", ["low", "high"]]
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(60), rel=0.1)
    again = over_people(report(list(np.repeat(values, 4))), people)
    pd.testing.assert_frame_equal(repeated, again)
    wider = over_people(report(list(np.repeat(values, 4))), people, confidence=0.99).set_index("quantity")
    assert wider.loc["lift", "high"] > high


def test_groups_have_means_of_their_own_in_the_order_given():
    table = over_people(report([1, 3, 9]), ["ann", "bob", "cy"], groups={"ann": "x", "bob": "x", "cy": "y"})
    means = table[table["quantity"] == "lift"].set_index("group")["mean"]
    assert means.to_dict() == {"x": 2, "y": 9}
    order = over_people(report([1, 3, 9]), ["ann", "bob", "cy"], groups={"ann": "x", "bob": "x", "cy": "a"})
    assert order["group"].drop_duplicates().tolist() == ["x", "a"]  # as they come, not by the alphabet


def test_people_columns_and_groups_that_do_not_fit_raise():
    with pytest.raises(ValueError, match="each of 2 images, got 1"):
        per_person(report([1, 2]), ["ann"])
    with pytest.raises(ValueError, match=r"got a table without share"):
        per_person(report([1]).drop(columns="share"), ["ann"])
    with pytest.raises(ValueError, match=r"got no group for \['bob'\]"):
        over_people(report([1, 2]), ["ann", "bob"], groups={"ann": "x"})
    with pytest.raises(ValueError, match="confidence to be in"):
        over_people(report([1]), ["ann"], confidence=1)


def colours(figure) -> dict[str, tuple[float, ...]]:
    """Colour of every part of the drawing, in the order of the shapes."""
    from captum_leam.regions.template import template_outlines

    return {
        part: patch.get_facecolor()[:3]
        for (part, _, _), patch in zip(template_outlines(), figure.axes[0].patches, strict=False)
    }


def test_colours_say_more_or_less_than_chance():
    table = pd.DataFrame({"region": ["nose", "eyes", "mouth", "hair"], "lift": [8.0, 1.0, 0.125, 2.0]})
    found = colours(lift_drawing(table))
    from matplotlib import colormaps

    assert found["nose"] == pytest.approx(colormaps[COLOURS](1.0)[:3])
    assert found["left_eye"] == found["right_eye"] == pytest.approx(colormaps[COLOURS](0.5)[:3], abs=0.01)
    assert found["mouth"] == pytest.approx(colormaps[COLOURS](0.0)[:3])
    assert found["chin"] == pytest.approx(to_rgb("0.85"))
    assert "hair 2.0" in lift_drawing(table).axes[0].get_xlabel()


def test_the_persons_left_is_drawn_at_larger_x():
    table = pd.DataFrame({"region": ["left_eye", "right_eye"], "lift": [8.0, 0.2]})
    images = colours(lift_drawing(table))
    persons = colours(lift_drawing(table, CELEBAMASK_HQ))
    assert images["left_eye"] == persons["right_eye"] != images["right_eye"]


def test_wrong_tables_raise_and_absent_regions_are_named():
    with pytest.raises(ValueError, match="got a table without lift"):
        lift_drawing(pd.DataFrame({"region": ["nose"]}))
    with pytest.raises(ValueError, match="limit to be a lift above 1, got 1"):
        lift_drawing(pd.DataFrame({"region": ["nose"], "lift": [1.0]}), limit=1)
    absent = lift_drawing(pd.DataFrame({"region": list(COARSE.names), "lift": np.nan}))
    assert absent.axes[0].get_xlabel() == "absent: other, hair"


def test_what_is_absent_is_named_only_where_all_is_listed():
    table = pd.DataFrame({"region": ["nose", "hat", "hair"], "lift": [2.0, np.nan, 0.5]})
    assert lift_drawing(table).axes[0].get_xlabel() == "not drawn: hair 0.5; absent: hat"
    assert lift_drawing(table, min_listed_lift=0.2).axes[0].get_xlabel() == "not drawn: hair 0.5"
    assert lift_drawing(table, min_listed_lift=1.0).axes[0].get_xlabel() == ""


def test_numbers_on_the_drawing_can_be_read():
    """White on the dark ends of the colours, black between; the forehead is an outline only."""
    figure = lift_drawing(pd.DataFrame({"region": ["nose", "left_eye"], "lift": [8.0, 1.0]}))
    inks = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert inks == {"8.0": "white", "1.0": "black"}
    ticks = [tick.get_text() for tick in figure.axes[1].get_yticklabels()]
    assert ticks == ["0.125", "0.25", "0.5", "1", "2", "4", "8"]
    outlines = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    assert len(outlines) == 1
