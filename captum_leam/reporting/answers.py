"""What a study found, in words: one answer for each of its five questions, no stronger than the numbers behind it."""

import numpy as np
import pandas as pd

from captum_leam.reporting.figures import spoken
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.study_page import Answer, estimate, number, p_value, percent

ALPHA = 0.05


def answers(results: Findings, compared: pd.DataFrame) -> list[Answer]:
    """All answers, in the order in which they are read.

    Args:
        results: of the study.
        compared: of ``Findings.against_controls``.
    """
    return [person_specific(results), regions(results), true(results, compared), agree(results), groups(results)]


def person_specific(results: Findings) -> Answer:
    """Is the gap between same and different people above that of the strongest control?"""
    question = "Are the maps person-specific?"
    table = results.leam()
    table = table[table["layer"] == results.place]
    if not len(table):
        return Answer(question, "not measured", "open", "The study compared no maps of people.", "specific")
    if not (table["strongest"] != "").any():
        text = (
            f"Maps of one person overlap more than maps of two people, {_listed(table, 'gap')}, but no control was run: an edge "
            "detector can show the same. Without controls this is no answer."
        )
        return Answer(question, "no control", "open", text, "specific")
    sure, n = int((table["above_low"] > 0).sum()), len(table)
    verdict, tone = _verdict(sure, n)
    control = " and ".join(dict.fromkeys(c for c in table["strongest"] if c))
    above = _listed(table, "above_control", "above_low", "above_high")
    numbers = f"The gap between same and different people, less that of the strongest control ({control}): {above}."
    if sure == n:
        text = f"Maps of one person overlap more than maps of two people, by more than any control explains. {numbers}"
    elif np.isnan(table["above_low"]).all():
        verdict, tone, text = "unsure", "open", f"There are too few people for an interval. {numbers}"
    else:
        text = f"On {n - sure} of {n} {_networks(n)} the interval does not stay above the strongest control. {numbers}"
    return Answer(question, verdict, tone, text, "specific")


def regions(results: Findings) -> Answer:
    """Which regions hold more of the critical pixels than their area gives them?"""
    question = "Which regions carry recognition?"
    table = results["region_summary"]
    table = table[(table["layer"] == results.place) & np.isfinite(table["mean"])]
    if not len(table):
        return Answer(question, "not measured", "open", "The study had no regions.", "regions")
    means = table.groupby(["region", "quantity"], sort=False)["mean"].mean().unstack("quantity")
    lows = table[table["quantity"] == "lift"].groupby("region")["low"].min().fillna(0)
    means = means[means["share"] > 0].sort_values("lift", ascending=False)
    over = [region for region in means.index if lows.get(region, 0) > 1]
    first = means.iloc[0]
    n = len(results.models)
    text = (
        f"{spoken(means.index[0]).capitalize()}: {percent(first['share'])} of the critical pixels on {percent(first['area'], 1)} "
        f"of the crop, {number(first['lift'], 1)} times its area"
    )
    rest = [f"{spoken(region)} ({number(means.loc[region, 'lift'], 1)})" for region in means.index[1:3]]
    text += f"; then {' and '.join(rest)}." if rest else "."
    most = str(means["share"].idxmax())
    if most != means.index[0]:
        text += (
            f" The largest share is that of {spoken(most)}, {percent(means.loc[most, 'share'])} on {percent(means.loc[most, 'area'], 1)} "
            "of the crop."
        )
    where = "in this network" if n == 1 else "in both networks" if n == 2 else f"in all {n} networks"
    text += (
        f" Clearly over chance {where}: {', '.join(map(spoken, over))}."
        if over
        else " No region is clearly over chance."
    )
    named = [means.index[0], most] if most in over else [means.index[0]]
    return Answer(
        question,
        ", ".join(dict.fromkeys(spoken(name) for name in named)),
        "open",
        text,
        "regions",
    )


def true(results: Findings, compared: pd.DataFrame) -> Answer:
    """Does the cosine fall further than after occluding what the strongest control names?"""
    question = "Are the maps true?"
    if not len(compared):
        return Answer(question, "not measured", "open", "Nothing was occluded, or no control was.", "true")
    hardest = compared.loc[compared.groupby("explained", sort=False)["difference"].idxmin()]
    sure, n = int((hardest["low"] > 0).sum()), len(hardest)
    verdict, tone = _verdict(sure, n)
    if sure < n and (compared["low"] > 0).any():
        verdict, tone = (verdict, "partly") if sure else ("partly", "partly")
    ordered = hardest if n <= 3 else hardest.sort_values("difference", kind="stable").iloc[[0, -1]]
    rows = [
        f"{number(row['map'], 3)} against {number(row['other'], 3)} ({row['control']}) on {row['explained']}, "
        f"difference {estimate(row['difference'], row['low'], row['high'], 3)}"
        for row in ordered.to_dict("records")
    ]
    than = "more than any control does" if sure == n else "; beside it, the control that comes closest"
    text = f"Hiding the {percent(results.fraction)} of the pixels that a map names first lowers the cosine {than}: ".replace(
        " ;", ";"
    )
    text += f"{'; '.join(rows)}." if n <= 3 else f"least {' and most '.join(rows)}."
    behind = list(dict.fromkeys(hardest.loc[~(hardest["low"] > 0), "control"]))
    beaten = [
        c for c in dict.fromkeys(compared["control"]) if (compared.loc[compared["control"] == c, "low"] > 0).all()
    ]
    if behind:
        text += f" The maps are not clearly better than {' and '.join(behind)}" + (
            f"; they are clearly better than {', '.join(beaten)}." if beaten else "."
        )
    return Answer(question, verdict, tone, text, "true")


def agree(results: Findings) -> Answer:
    """Do models look at the same places, more than any two maps of faces do?"""
    question = "Do the networks look at the same places?"
    table = results["agreement"]
    maps = table[table["kind"] == "maps"]
    models, layers = maps[maps["what"] == "models"], maps[maps["what"] == "layers"]
    between = f" Layers of one network: {_range(layers['value'])}." if len(layers) else ""
    if not len(models):
        return Answer(question, "not asked", "open", f"There is one network only.{between}", "agreement")
    sure, n = int((models["low"] > models["chance"]).sum()), len(models)
    verdict = "yes" if sure == n else f"{sure} of {n} pairs"
    text = (
        f"Maps of one image by two networks agree at {_range(models['value'])} (1: the same map); maps of different people by the two "
        f"at {_range(models['chance'])}.{between}"
    )
    return Answer(question, verdict, "yes" if sure == n else "partly" if sure else "no", text, "agreement")


def groups(results: Findings) -> Answer:
    """Which differences between groups stay after correction?"""
    question = "Do groups of people differ?"
    table = results["groups"]
    if not len(table):
        return Answer(question, "not asked", "open", "No groups were given.", "groups")
    tested = table[np.isfinite(table["p_holm"])]
    if not len(tested):
        return Answer(
            question, "not tested", "open", "Groups were given, but none could be tested: see the notes.", "groups"
        )
    found = tested[tested["p_holm"] < ALPHA]
    if not len(found):
        text = (
            f"None of {len(tested)} comparisons stays after Holm's correction. That is no proof that groups are alike."
        )
        return Answer(question, "none found", "open", text, "groups")
    first = found.sort_values("p_holm", kind="stable").iloc[0]
    text = (
        f"{len(found)} of {len(tested)} comparisons stay after Holm's correction. First: {first['quantity']}, {first['label']} "
        f"{first['group_a']} − {first['group_b']}, {estimate(first['difference'], first['low'], first['high'], 3)} on "
        f"{first['model']}, p {p_value(first['p_holm'])}; base similarity {number(first['base_a'])} and {number(first['base_b'])}."
    )
    return Answer(question, f"{len(found)} of {len(tested)}", "partly", text, "groups")


# -- words ---------------------------------------------------------------------------------------------


def _verdict(sure: int, n: int) -> tuple[str, str]:
    if sure == n:
        return "yes", "yes"
    return (f"on {sure} of {n}", "partly") if sure else ("not shown", "no")


def _networks(n: int) -> str:
    return "network" if n == 1 else "networks"


def _listed(table: pd.DataFrame, value: str, low: str = "", high: str = "") -> str:
    """Numbers of models in words; of many models, those of the least and the largest."""
    low, high = low or f"{value}_low", high or f"{value}_high"
    ordered = table if len(table) <= 3 else table.sort_values(value, kind="stable").iloc[[0, -1]]
    texts = [f"{estimate(row[value], row[low], row[high])} on {row['model']}" for row in ordered.to_dict("records")]
    return " and ".join(texts) if len(table) <= 3 else f"from {' to '.join(texts)}"


def _range(values: pd.Series) -> str:
    low, high = number(values.min()), number(values.max())
    return low if low == high else f"{low} to {high}"
