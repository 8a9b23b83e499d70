"""Show an identification on the page of its probes: ranking, margins, and what changes without the named pixels."""

from __future__ import annotations

from captum_leam._optional import pd
from captum_leam.match import MatchExplanation
from captum_leam.reporting.figures import margin_falls
from captum_leam.reporting.numbers import counted, one_digit, percent, three_digits, whole_number
from captum_leam.reporting.page import Block, Column, Facts, PictureRow, Plate, Points, picture, sheet

TOP = 5
"""Number of the names of a ranking that the page shows; the file has all of them."""

OF_MAP = "LEAM, overall map"


def match_tables(match: MatchExplanation, names: list[str]) -> dict[str, pd.DataFrame]:
    """Return the ranking of each probe and the changes under occlusion, with the names of the probes' files."""
    named = dict(enumerate(names))
    tables = {"ranking": match.to_frame(), "rank_changes": match.changes.replace({"control": {"": OF_MAP}})}
    return {kind: table.assign(probe=table["probe"].map(named)) for kind, table in tables.items()}


def match_blocks(match: MatchExplanation, names: list[str], prefix: str) -> list[Block]:
    """Return the blocks of an identification: its facts and sentences, the candidates, the ranking and the changes.

    Args:
        match: Identification of all probes.
        names: Names of the probes' files.
        prefix: Beginning of the names of the files.
    """
    blocks: list[Block] = [Facts("", [*match.facts().items()])]
    alone = len(names) == 1
    blocks.append(
        Points([match.sentence(i) if alone else f"{name}: {match.sentence(i)}" for i, name in enumerate(names)])
    )
    return [*blocks, *_candidates(match, names), _ranking(match, names), *_changes(match, names, prefix)]


def _candidates(match: MatchExplanation, names: list[str]) -> list[Block]:
    """Return the first candidates and the next, as pictures from the gallery."""
    if match.gallery.portraits is None:
        return []
    pictures = []
    for i, name in enumerate(names):
        for rank, j in enumerate(match.order[i, :2].tolist(), 1):
            pixels = match.gallery.portraits[j].detach().cpu().float().clamp(0, 1).expand(3, -1, -1).movedim(0, -1)
            of = "" if len(names) == 1 else f" of {name}"
            caption = f"rank {rank}{of}: {match.gallery.names[j]}, cosine {three_digits(float(match.scores[i, j]))}"
            pictures.append(picture((255 * pixels).round().byte().numpy(), 112, caption, caption))
    return [PictureRow(pictures)]


def _ranking(match: MatchExplanation, names: list[str]) -> Block:
    table = match_tables(match, names)["ranking"]
    columns = [
        Column("probe", "probe"),
        Column("rank", "rank", str),
        Column("name", "name"),
        Column("images", "images", str),
        Column("score", "cosine", three_digits),
        Column("behind", "cosine behind the first", three_digits),
    ]
    note = f"The first {TOP} names by cosine (−1 to 1). The further the next is behind, the clearer is the first candidate."
    return sheet("Ranking", table.groupby("probe", sort=False).head(TOP), columns[len(names) == 1 :], note=note)


def _changes(match: MatchExplanation, names: list[str], prefix: str) -> list[Block]:
    """Return the table and the figure of the changes under occlusion, with intervals over probes where there are several."""
    first = match.changes[match.changes["of"] == "first candidate"]
    summary = match.summary().query("of == 'first candidate'").replace({"control": {"": OF_MAP}})
    wide = summary.pivot(index="control", columns="quantity", values="value").reindex(summary["control"].unique())
    means = first.replace({"control": {"": OF_MAP}}).groupby("control", sort=False)
    wide = wide.join(means[["rank_after", "margin_after", "draws"]].mean())
    columns = [
        Column("control", "pixels named by"),
        Column("rank_after", "rank after", one_digit),
        Column("rank 1 lost", "rank 1 lost", percent),
        Column("margin_after", "margin after", three_digits),
        Column("margin fall", "fall of the margin", three_digits),
        Column("draws", "draws", whole_number),
    ]
    count = len(names)
    occluded = f"the top {100 * match.fraction:g} % of the pixels ({match.fill} fill)"
    caption = (
        "The map names what the identification depends on if its point lies to the right of those of the controls. Points are the fall "
        f"of the margin, the cosine of the first candidate minus the best other cosine, after occluding {occluded}, for "
        f"{counted(count, 'probe')}{', with 95 % intervals over probes; small dots are single probes' * (count > 1)}."
    )
    note = (
        f"Means over {counted(count, 'probe')} after occluding {occluded}. A map that names what decides moves the rank above 1 and lowers "
        "the margin more than its controls."
    )
    figure = margin_falls(summary.query("quantity == 'margin fall'"), _falls(first))
    alt = "fall of the margin for the map and each control"
    return [
        sheet("What changes without these pixels?", wide.reset_index(), columns, note=note),
        Plate(f"{prefix}margin_falls", "", [("", figure)], alt, caption, summary.drop(columns="of")),
    ]


def _falls(first: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {"control": first["control"].replace("", OF_MAP), "fall": first["margin_before"] - first["margin_after"]}
    )
