"""Compose the plain-language summary at the top of each page: what was compared, what decided, how sure the result is.

A summary has at most three sentences. Every number in them is a measured value of the page, and the last sentence begins with its limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from captum_leam._optional import pd
from captum_leam.certainty import SMALL_P
from captum_leam.reporting.figures import humanise
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.numbers import counted, listed, number, percent, three_digits, value_range

if TYPE_CHECKING:
    from captum_leam.match import MatchExplanation
    from captum_leam.pairs import PairExplanation
    from captum_leam.reporting.explanation import Explanation

COMPARED, DECISIVE, CERTAINTY = "Compared", "Decisive", "Certainty"
"""Labels of the sentences."""

DROP_FRACTION = 0.05
"""Share of the pixels whose occlusion an explanation's summary reports."""

Summary = list[tuple[str, str]]
"""Label and sentence of each part."""


# -- explanations --------------------------------------------------------------------------------------


def explanation_summary(explanations: Sequence[Explanation]) -> Summary:
    """Return the summary of the page of one explanation or of several.

    Args:
        explanations: Explanations, one section of the page each.
    """
    if len(explanations) == 1:
        compared, decisive = _compared(explanations[0]), _decisive(explanations[0])
    else:
        faces = sum(len(explanation.names) for explanation in explanations)
        titles = listed([f"“{explanation.title}”" for explanation in explanations])
        compared = f"{counted(faces, 'face')} in {counted(len(explanations), 'section')} were explained: {titles}."
        decisive = _decisive_of_sections(explanations)
    parts = [(COMPARED, compared), (DECISIVE, decisive), (CERTAINTY, _certainty(explanations))]
    return [(label, sentence) for label, sentence in parts if sentence]


def _compared(explanation: Explanation) -> str:
    names = explanation.names
    if explanation.pair is not None:
        return _compared_pair(explanation.pair, names)
    if explanation.match is not None:
        return _compared_probes(explanation.match)
    if explanation.maps.reference == "own":
        faces = f"{names[0]} was explained by its own embedding"
        if len(names) > 1:
            faces = f"{counted(len(names), 'face')} were explained by their own embeddings"
        return f"{faces}, so that the map shows what drives the strength of the embedding and no match."
    return f"{counted(len(names), 'face')} {'was' if len(names) == 1 else 'were'} compared with other images of the same person."


def _compared_pair(pair: PairExplanation, names: Sequence[str]) -> str:
    text = f"The cosine of the embeddings of {listed(names)} is {three_digits(pair.score)}"
    if pair.accepted is not None:
        text += (
            f", so that the pair is {'accepted' if pair.accepted else 'rejected'} at the threshold {pair.threshold:g}"
        )
    if pair.outcome is not None:
        text += (
            f", which is {'right' if pair.outcome.startswith('T') else 'wrong'} because the images show {pair.truth}"
        )
    return f"{text}."


def _compared_probes(match: MatchExplanation) -> str:
    count, behind = len(match.images), value_range(match.margins.tolist())
    probes, names = counted(count, "probe"), counted(len(match.gallery.names), "name")
    text = f"{probes} {'was' if count == 1 else 'were'} compared with a gallery of {names}"
    if count == 1:
        score = three_digits(float(match.scores.max()))
        text += f", {match.first[0]} is first with a cosine of {score}, and {match.next[0]} is {behind} behind"
    else:
        text += f", and the next candidate is {behind} of the cosine behind the first"
    if match.threshold is not None:
        reached = sum(bool(is_accepted) for is_accepted in match.accepted)
        text += f", at a threshold of {match.threshold:g} that {reached} of {counted(count, 'first candidate')} reached"
    return f"{text}."


def top_region(explanation: Explanation) -> tuple[str, float, float] | None:
    """Return the region whose share of the critical pixels exceeds its area most, its mean share and its mean area.

    Returns:
        Name, share and area in [0, 1], means over the faces; None where regions of different faces are different parts.
    """
    if explanation.parts is not None and not explanation.parts.is_comparable and len(explanation.names) > 1:
        return None
    means = explanation.regions.groupby("region", sort=False)[["share", "area"]].mean()
    if means["share"].isna().all():
        return None
    region = str((means["share"] - means["area"]).idxmax())
    return region, float(means["share"][region]), float(means["area"][region])


def _decisive(explanation: Explanation) -> str:
    found, count = top_region(explanation), len(explanation.names)
    if found is None:
        return ""
    region, share, area = found
    mean = f", mean over {count} faces" if count > 1 else ""
    return (
        f"{percent(share)} of the critical pixels (the top {100 * explanation.options.fraction:g} % of the map{mean}) lie in the region "
        f"“{humanise(region)}”, which covers {percent(area, 1)} of the crop."
    )


def _decisive_of_sections(explanations: Sequence[Explanation]) -> str:
    found = [(explanation.title, top_region(explanation)) for explanation in explanations]
    texts = [
        f"“{humanise(region[0])}” ({percent(region[1])}, {title})" for title, region in found if region is not None
    ]
    return (
        f"The region with the most critical pixels beyond its area, on average over the faces, is {listed(texts)}."
        if texts
        else ""
    )


class MeanFall(NamedTuple):
    """Mean fall over the faces of an explanation when pixels are occluded.

    Attributes:
        quantity: What falls.
        fraction: Share of the pixels that are occluded, in (0, 1].
        of_map: Fall without the pixels that the map names first.
        control: Name of the control whose pixels lower it most.
        of_control: Fall without the pixels of that control.
    """

    quantity: str
    fraction: float
    of_map: float
    control: str
    of_control: float


def mean_fall(explanation: Explanation) -> MeanFall | None:
    """Return the mean fall of the first candidate's lead for an identification, else that of the cosine; None if unmeasured."""
    if (match := explanation.match) is not None:
        changes = match.changes[match.changes["of"] == "first candidate"]
        falls = (changes["margin_before"] - changes["margin_after"]).groupby(changes["control"]).mean()
        quantity, fraction = "lead of the first candidate", match.fraction
    elif explanation.occlusion is None:
        return None
    else:
        drops = explanation.occlusion.to_frame()
        drops = drops[np.isclose(drops["fraction"], DROP_FRACTION)]
        drops = drops[drops["method"].isin(["", drops["method"].iloc[0]])]
        falls = drops.groupby("control")["drop"].mean()
        quantity, fraction = "cosine", DROP_FRACTION
    controls = falls.drop("")
    strongest = str(controls.idxmax()) if len(controls) else ""
    return MeanFall(quantity, fraction, float(falls[""]), strongest, float(controls.max()))


def _certainty(explanations: Sequence[Explanation]) -> str:
    falls = [fall for explanation in explanations if (fall := mean_fall(explanation)) is not None]
    if not falls:
        return "No drop was measured, so that the map is not shown to be faithful."
    images = sum(len(explanation.names) for explanation in explanations)
    network = "this network" if len(explanations) == 1 else "these networks"
    text = (
        f"For {network} and {'this image' if images == 1 else 'these images'} only, occluding the top {percent(falls[0].fraction)} of the "
        f"map lowers the {falls[0].quantity} by {value_range(fall.of_map for fall in falls)}{' on average' if images > 1 else ''}"
    )
    if all(fall.control for fall in falls):
        controls = f"{value_range(fall.of_control for fall in falls)} for {listed([*dict.fromkeys(fall.control for fall in falls)])}"
        if all(fall.of_map > fall.of_control for fall in falls):
            text += f", against {controls}"
        else:
            text += f", which is not always more than the {controls}, so that the map is not shown to be faithful"
    return f"{text}{_placed(explanations)}."


def _placed(explanations: Sequence[Explanation]) -> str:
    """Return how many maps lie at a place that matters, by the test of :func:`captum_leam.certainty.map_certainty`."""
    own = [
        next(iter(tests.values()))
        for explanation in explanations
        if explanation.certainty is not None
        for tests in explanation.certainty.tests
    ]
    tested = [test for test in own if not np.isnan(test.p)]
    if not tested:
        return ""
    matters = sum(test.p <= SMALL_P for test in tested)
    if len(tested) == 1:
        return f", and its place {'matters' if matters else 'is not shown to matter'} (p = {tested[0].p:.2g})"
    return f", and the place of {matters} of {len(tested)} maps is shown to matter (p ≤ {SMALL_P:g})"


# -- studies -------------------------------------------------------------------------------------------


def study_summary(study: Findings, compared: pd.DataFrame) -> Summary:
    """Return the summary of the page of a study.

    Args:
        study: Findings of the study.
        compared: Table of :meth:`Findings.against_controls`.
    """
    used = int((study["images"]["status"] == "ok").sum())
    layers = study["layers"].groupby("model")["layer"].nunique()
    few, many = (int(layers.min()), int(layers.max())) if len(layers) else (0, 0)
    span = counted(many, "layer") if few == many else f"{few} to {counted(many, 'layer')}"
    sizes = (
        f"{counted(used, 'image')} of {counted(len(study.people), 'person', 'people')} were embedded by "
        f"{counted(len(study.models), 'network')} ({listed(study.models)})"
    )
    some = f", {len(layers)} of which were explained" if len(layers) < len(study.models) else " and explained"
    parts = [
        (COMPARED, f"{sizes}{some} at {span} each."),
        (DECISIVE, _decisive_of_study(study)),
        (CERTAINTY, _certainty_of_study(study, compared)),
    ]
    return [(label, sentence) for label, sentence in parts if sentence]


def _decisive_of_study(study: Findings) -> str:
    table = study.at_place("region_summary")
    means = table[np.isfinite(table["mean"])].groupby(["quantity", "region"], sort=False)["mean"].mean()
    if "share" not in means.index.get_level_values("quantity"):
        return ""
    region = str((means["share"] - means["area"]).idxmax())
    return (
        f"On average over people{' and networks' if len(study.models) > 1 else ''}, {percent(means['share', region])} of the critical "
        f"pixels lie in the region “{humanise(region)}”, which covers {percent(means['area', region], 1)} of the crop."
    )


def _certainty_of_study(study: Findings, compared: pd.DataFrame) -> str:
    texts = []
    headline = study.headline()
    headline = headline[np.isfinite(headline["above_low"])]
    if len(headline):
        clear = int((headline["above_low"] > 0).sum())
        texts.append(f"maps are person-specific beyond every control on {clear} of {counted(len(headline), 'network')}")
    compared = compared[np.isfinite(compared["low"])] if len(compared) else compared
    if len(compared):
        least = compared.groupby("explained", sort=False)["low"].min()
        texts.append(
            f"occluding the top {percent(study.fraction)} of the map lowers the cosine more than every control on "
            f"{int((least > 0).sum())} of {counted(len(least), 'network')}"
        )
    if not texts:
        return ""
    return f"For these people, photographs and controls only, {listed(texts)} (intervals over people above 0)."


def person_summary(study: Findings, person: str) -> Summary:
    """Return the summary of the page of a person.

    Args:
        study: Findings of the study.
        person: Name of the person.
    """
    scores = study["scores"]
    means = scores[scores["person"] == person].groupby("model", sort=False)["cosine"].mean()
    images = int(((study["images"]["person"] == person) & (study["images"]["status"] == "ok")).sum())
    compared = f"{counted(images, 'image')} of this person {'was' if images == 1 else 'were'} used"
    if len(means):
        cosines = listed([f"{number(mean)} on {model}" for model, mean in means.items()])
        compared += f", and their mean cosine to the person’s other images is {cosines}"
    parts = [
        (COMPARED, f"{compared}."),
        (DECISIVE, _decisive_of_person(study, person)),
        (CERTAINTY, _certainty_of_person(study, person)),
    ]
    return [(label, sentence) for label, sentence in parts if sentence]


def _decisive_of_person(study: Findings, person: str) -> str:
    texts = []
    for model in study.explained:
        rows = study.rows("regions", model=model, layer=study.place, person=person)
        if len(rows):
            shares = rows.groupby("region", sort=False)[["share", "area"]].mean()
            region = str((shares["share"] - shares["area"]).idxmax())
            texts.append(f"“{humanise(region)}” on {model} ({percent(shares['share'][region])})")
    return f"The region with the most critical pixels beyond its area is {listed(texts)}." if texts else ""


def _certainty_of_person(study: Findings, person: str) -> str:
    drops = study.rows("drops", person=person, fill=study.fill, fraction=study.fraction, measured=study.explained)
    own = study.own(drops)
    texts = []
    for model, rows in own.groupby("measured", sort=False):
        by_control = rows.groupby("control", sort=False)["drop"].mean()
        if "" not in by_control:
            continue
        controls = by_control.drop("")
        beside = (
            f" (the strongest control, {controls.idxmax()}: {three_digits(controls.max())})" if len(controls) else ""
        )
        texts.append(f"{three_digits(by_control[''])} on {model}{beside}")
    return (
        f"For these few images only, occluding the top {percent(study.fraction)} of the map lowers the cosine by {listed(texts)}."
        if texts
        else ""
    )
