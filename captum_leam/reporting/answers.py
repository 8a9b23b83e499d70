"""Answer the questions of a study in one or two sentences from its measured values."""

from __future__ import annotations

import numpy as np

from captum_leam._optional import pd
from captum_leam.reporting.figures import humanise
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.numbers import estimate, listed, number, p_value, percent, value_range
from captum_leam.reporting.page import Answer

ALPHA = 0.05


def answers(results: Findings, compared: pd.DataFrame) -> list[Answer]:
    """Return the answers to all questions, in the order of the page.

    Args:
        results: Findings of the study.
        compared: Table of :meth:`Findings.against_controls`.
    """
    found = [
        ("Are the maps person-specific?", "specific", person_specific(results)),
        ("Which regions carry recognition?", "regions", regions(results)),
        ("Are the maps faithful?", "faithful", faithful(results, compared)),
        ("Do the networks look at the same places?", "agreement", agree(results)),
        ("Do groups of people differ?", "groups", groups(results)),
    ]
    return [Answer(question, verdict, tone, text, key) for question, key, (verdict, tone, text) in found]


def person_specific(results: Findings) -> tuple[str, str, str]:
    """Answer whether the gap between same and different people is above that of the strongest control.

    Returns:
        Verdict, tone and text, as in all functions of this module.
    """
    table = results.headline()
    if not len(table):
        return "not measured", "open", "The study compared no maps of people."
    overlap = "Maps of one person overlap more than maps of two people"
    controls = [control for control in dict.fromkeys(table["strongest"]) if control]
    if not controls:
        text = "No control was run, and even an edge detector can show such a gap."
        return "no control", "open", f"{overlap}, by {_per_network(table, 'gap', 'gap_low', 'gap_high')}. {text}"
    sure, n = int((table["above_low"] > 0).sum()), len(table)
    above = _per_network(table, "above_control", "above_low", "above_high")
    numbers = f"The gap between same and different people minus that of the strongest control ({listed(controls)}) is {above}."
    if np.isnan(table["above_low"]).all():
        return "unsure", "open", f"There are too few people for an interval. {numbers}"
    if sure == n:
        text = f"{overlap}, by more than any control explains. {numbers}"
    else:
        networks = "network" if n == 1 else "networks"
        text = f"On {n - sure} of {n} {networks} the interval reaches the strongest control. {numbers}"
    return *_verdict(sure, n), text


def regions(results: Findings) -> tuple[str, str, str]:
    """Answer which regions have more of the critical pixels than their area."""
    table = results.at_place("region_summary")
    table = table[np.isfinite(table["mean"])]
    if not len(table):
        return "not measured", "open", "The study had no regions."
    means = table.groupby(["region", "quantity"], sort=False)["mean"].mean().unstack("quantity")
    means = means[means["share"] > 0].sort_values("lift", ascending=False)
    lows = table[table["quantity"] == "lift"].groupby("region")["low"].min()
    over = [region for region in means.index if lows.get(region, 0) > 1]
    first, largest, n = means.index[0], str(means["share"].idxmax()), len(results.models)
    rest = listed([f"{humanise(region)} ({number(means.loc[region, 'lift'], 1)})" for region in means.index[1:3]])
    lift = number(means.loc[first, "lift"], 1)
    sentences = [
        f"The {humanise(first)} has the highest lift ({lift}), with {_share_of(means, first, 1)}{rest and f', followed by {rest}'}."
    ]
    if largest != first:
        sentences.append(f"The {humanise(largest)} has the largest share, {_share_of(means, largest)}.")
    where = {1: "in this network", 2: "in both networks"}.get(n, f"in all {n} networks")
    clearly = f"The lift is clearly above 1 {where} for {listed([*map(humanise, over)])}."
    sentences.append(clearly if over else "No region has a lift clearly above 1.")
    named = dict.fromkeys([first, largest] if largest in over else [first])
    return ", ".join(map(humanise, named)), "open", " ".join(sentences)


def _share_of(means: pd.DataFrame, region: str, digits: int = 0) -> str:
    row = means.loc[region]
    return f"{percent(row['share'])} of the critical pixels on {percent(row['area'], digits)} of the crop"


def faithful(results: Findings, compared: pd.DataFrame) -> tuple[str, str, str]:
    """Answer whether the cosine falls further than after occluding the pixels of the strongest control."""
    if not len(compared):
        return "not measured", "open", "The study occluded no pixels, or ran no control."
    hardest = compared.loc[compared.groupby("explained", sort=False)["difference"].idxmin()]
    clear = {str(control): bool((part["low"] > 0).all()) for control, part in compared.groupby("control", sort=False)}
    sure, n = int((hardest["low"] > 0).sum()), len(hardest)
    verdict, tone = _verdict(sure, n)
    if not sure and (compared["low"] > 0).any():
        verdict, tone = "partly", "partly"
    occluding = f"Occluding the {percent(results.fraction)} of the pixels that a map names first lowers the cosine"
    rows = [
        f"by {number(row['map'], 3)} against {number(row['other'], 3)} ({row['control']}) on {row['explained']}, a difference of "
        f"{estimate(row['difference'], row['low'], row['high'], 3)}"
        for row in _few(hardest, "difference").to_dict("records")
    ]
    numbers = "; ".join(rows) if n <= 3 else f"at least {' and at most '.join(rows)}"
    if sure == n:
        return verdict, tone, f"{occluding} more than any control: {numbers}."
    text = f"{occluding} {numbers}, each against its closest control."
    behind = listed([*dict.fromkeys(map(str, hardest[~(hardest["low"] > 0)]["control"]))])
    beaten = [control for control, is_clear in clear.items() if is_clear]
    better = f", and clearly better than {listed(beaten)}" if beaten else ""
    return verdict, tone, f"{text} The maps are not clearly better than {behind}{better}."


def agree(results: Findings) -> tuple[str, str, str]:
    """Answer whether the maps of networks agree more than maps of different people."""
    table = results["agreement"]
    maps = table[table["kind"] == "maps"]
    models, layers = maps[maps["what"] == "models"], maps[maps["what"] == "layers"]
    between = f" Layers of one network agree at {value_range(layers['value'], 2)}." if len(layers) else ""
    if not len(models):
        return "not asked", "open", f"There is one network only.{between}"
    sure, n = int((models["low"] > models["chance"]).sum()), len(models)
    text = (
        f"Maps of one image by two networks agree at {value_range(models['value'], 2)} (1 is the same map), and maps of different people "
        f"at {value_range(models['chance'], 2)}.{between}"
    )
    return "yes" if sure == n else f"{sure} of {n} pairs", _verdict(sure, n)[1], text


def groups(results: Findings) -> tuple[str, str, str]:
    """Answer which differences between groups remain after correction."""
    table = results["groups"]
    if not len(table):
        return "not asked", "open", "The study has no groups."
    tested = table[np.isfinite(table["p_holm"])]
    if not len(tested):
        return "not tested", "open", "No groups could be tested; the section Groups has the reasons."
    found = tested[tested["p_holm"] < ALPHA].sort_values("p_holm", kind="stable")
    if not len(found):
        text = f"None of {len(tested)} comparisons remains after Holm's correction."
        return "none found", "open", f"{text} This does not show that groups are alike."
    first = found.iloc[0]
    text = (
        f"{len(found)} of {len(tested)} comparisons remain after Holm's correction. The smallest p ({p_value(first['p_holm'])}) is that of "
        f"{first['quantity']} on {first['model']}, {first['label']} {first['group_a']} − {first['group_b']}, with a difference of "
        f"{estimate(first['difference'], first['low'], first['high'], 3)} and base similarity {number(first['base_a'])} and "
        f"{number(first['base_b'])}."
    )
    return f"{len(found)} of {len(tested)}", "partly", text


def _verdict(sure: int, n: int) -> tuple[str, str]:
    if sure == n:
        return "yes", "yes"
    return (f"on {sure} of {n}", "partly") if sure else ("not shown", "no")


def _few(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the rows of up to three models, and of more models those with the smallest and the largest value."""
    return table if len(table) <= 3 else table.sort_values(value, kind="stable").iloc[[0, -1]]


def _per_network(table: pd.DataFrame, value: str, low: str, high: str) -> str:
    rows = _few(table, value).to_dict("records")
    texts = [f"{estimate(row[value], row[low], row[high])} on {row['model']}" for row in rows]
    return " and ".join(texts) if len(table) <= 3 else f"from {' to '.join(texts)}"
