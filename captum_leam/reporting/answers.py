"""Answer the five questions of a study in a sentence or two, no stronger than the numbers allow."""

from __future__ import annotations

import numpy as np

from captum_leam._optional import pd
from captum_leam.reporting.figures import spoken
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.numbers import estimate, number, p_value, percent
from captum_leam.reporting.page import Answer

ALPHA = 0.05


def answers(results: Findings, compared: pd.DataFrame) -> list[Answer]:
    """Return all answers, in the order in which they are read.

    Args:
        results: Findings of the study.
        compared: Table of ``Findings.against_controls``.
    """
    found = [
        ("Are the maps person-specific?", "specific", person_specific(results)),
        ("Which regions carry recognition?", "regions", regions(results)),
        ("Are the maps true?", "true", faithful(results, compared)),
        ("Do the networks look at the same places?", "agreement", agree(results)),
        ("Do groups of people differ?", "groups", groups(results)),
    ]
    return [Answer(question, verdict, tone, text, key) for question, key, (verdict, tone, text) in found]


def person_specific(results: Findings) -> tuple[str, str, str]:
    """Return whether the gap between same and different people is above that of the strongest control."""
    table = results.headline()
    if not len(table):
        return "not measured", "open", "The study compared no maps of people."
    overlap = "Maps of one person overlap more than maps of two people"
    controls = [control for control in dict.fromkeys(table["strongest"]) if control]
    if not controls:
        text = "but no control was run: an edge detector can show the same. Without controls this is no answer."
        return "no control", "open", f"{overlap}, {_per_network(table, 'gap', 'gap_low', 'gap_high')}, {text}"
    sure, n = int((table["above_low"] > 0).sum()), len(table)
    above = _per_network(table, "above_control", "above_low", "above_high")
    numbers = f"The gap between same and different people, less that of the strongest control ({' and '.join(controls)}): {above}."
    if np.isnan(table["above_low"]).all():
        return "unsure", "open", f"There are too few people for an interval. {numbers}"
    if sure == n:
        text = f"{overlap}, by more than any control explains. {numbers}"
    else:
        networks = "network" if n == 1 else "networks"
        text = f"On {n - sure} of {n} {networks} the interval does not stay above the strongest control. {numbers}"
    return *_verdict(sure, n), text


def regions(results: Findings) -> tuple[str, str, str]:
    """Return which regions hold more of the critical pixels than their area gives them."""
    table = results.at_place("region_summary")
    table = table[np.isfinite(table["mean"])]
    if not len(table):
        return "not measured", "open", "The study had no regions."
    means = table.groupby(["region", "quantity"], sort=False)["mean"].mean().unstack("quantity")
    means = means[means["share"] > 0].sort_values("lift", ascending=False)
    lows = table[table["quantity"] == "lift"].groupby("region")["low"].min()
    over = [region for region in means.index if lows.get(region, 0) > 1]
    first, largest, n = means.index[0], str(means["share"].idxmax()), len(results.models)
    rest = " and ".join(f"{spoken(region)} ({number(means.loc[region, 'lift'], 1)})" for region in means.index[1:3])
    times = f"{number(means.loc[first, 'lift'], 1)} times its area{rest and f'; then {rest}'}"
    sentences = [f"{spoken(first).capitalize()}: {_share_of(means, first, 1)}, {times}."]
    if largest != first:
        sentences.append(f"The largest share is that of {spoken(largest)}: {_share_of(means, largest)}.")
    where = {1: "in this network", 2: "in both networks"}.get(n, f"in all {n} networks")
    clearly = f"Clearly over chance {where}: {', '.join(map(spoken, over))}."
    sentences.append(clearly if over else "No region is clearly over chance.")
    named = dict.fromkeys([first, largest] if largest in over else [first])
    return ", ".join(map(spoken, named)), "open", " ".join(sentences)


def _share_of(means: pd.DataFrame, region: str, digits: int = 0) -> str:
    row = means.loc[region]
    return f"{percent(row['share'])} of the critical pixels on {percent(row['area'], digits)} of the crop"


def faithful(results: Findings, compared: pd.DataFrame) -> tuple[str, str, str]:
    """Return whether the cosine falls further than after occluding what the strongest control names."""
    if not len(compared):
        return "not measured", "open", "Nothing was occluded, or no control was."
    hardest = compared.loc[compared.groupby("explained", sort=False)["difference"].idxmin()]
    clear = {str(control): bool((part["low"] > 0).all()) for control, part in compared.groupby("control", sort=False)}
    sure, n = int((hardest["low"] > 0).sum()), len(hardest)
    verdict, tone = _verdict(sure, n)
    if not sure and (compared["low"] > 0).any():
        verdict, tone = "partly", "partly"
    hidden = f"Hiding the {percent(results.fraction)} of the pixels that a map names first lowers the cosine"
    rows = [
        f"{number(row['map'], 3)} against {number(row['other'], 3)} ({row['control']}) on {row['explained']}, "
        f"difference {estimate(row['difference'], row['low'], row['high'], 3)}"
        for row in _few(hardest, "difference").to_dict("records")
    ]
    numbers = "; ".join(rows) if n <= 3 else f"least {' and most '.join(rows)}"
    if sure == n:
        return verdict, tone, f"{hidden} more than any control does: {numbers}."
    text = f"{hidden}; beside it, the control that comes closest: {numbers}."
    behind = " and ".join(dict.fromkeys(map(str, hardest[~(hardest["low"] > 0)]["control"])))
    beaten = ", ".join(control for control, is_clear in clear.items() if is_clear)
    better = f"; they are clearly better than {beaten}" if beaten else ""
    return verdict, tone, f"{text} The maps are not clearly better than {behind}{better}."


def agree(results: Findings) -> tuple[str, str, str]:
    """Return whether models look at the same places, more than any two maps of faces do."""
    table = results["agreement"]
    maps = table[table["kind"] == "maps"]
    models, layers = maps[maps["what"] == "models"], maps[maps["what"] == "layers"]
    between = f" Layers of one network: {_range(layers['value'])}." if len(layers) else ""
    if not len(models):
        return "not asked", "open", f"There is one network only.{between}"
    sure, n = int((models["low"] > models["chance"]).sum()), len(models)
    text = (
        f"Maps of one image by two networks agree at {_range(models['value'])} (1: the same map); maps of different people by the two "
        f"at {_range(models['chance'])}.{between}"
    )
    return "yes" if sure == n else f"{sure} of {n} pairs", _verdict(sure, n)[1], text


def groups(results: Findings) -> tuple[str, str, str]:
    """Return which differences between groups stay after correction."""
    table = results["groups"]
    if not len(table):
        return "not asked", "open", "No groups were given."
    tested = table[np.isfinite(table["p_holm"])]
    if not len(tested):
        return "not tested", "open", "Groups were given, but none could be tested: see the notes."
    found = tested[tested["p_holm"] < ALPHA].sort_values("p_holm", kind="stable")
    if not len(found):
        text = f"None of {len(tested)} comparisons stays after Holm's correction."
        return "none found", "open", f"{text} That is no proof that groups are alike."
    first = found.iloc[0]
    text = (
        f"{len(found)} of {len(tested)} comparisons stay after Holm's correction. First: {first['quantity']}, {first['label']} "
        f"{first['group_a']} − {first['group_b']}, {estimate(first['difference'], first['low'], first['high'], 3)} on "
        f"{first['model']}, p {p_value(first['p_holm'])}; base similarity {number(first['base_a'])} and {number(first['base_b'])}."
    )
    return f"{len(found)} of {len(tested)}", "partly", text


def _verdict(sure: int, n: int) -> tuple[str, str]:
    if sure == n:
        return "yes", "yes"
    return (f"on {sure} of {n}", "partly") if sure else ("not shown", "no")


def _few(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the rows of up to three models; of more, the least and the largest."""
    return table if len(table) <= 3 else table.sort_values(value, kind="stable").iloc[[0, -1]]


def _per_network(table: pd.DataFrame, value: str, low: str, high: str) -> str:
    rows = _few(table, value).to_dict("records")
    texts = [f"{estimate(row[value], row[low], row[high])} on {row['model']}" for row in rows]
    return " and ".join(texts) if len(table) <= 3 else f"from {' to '.join(texts)}"


def _range(values: pd.Series) -> str:
    low, high = number(values.min()), number(values.max())
    return low if low == high else f"{low} to {high}"
