"""The documentation's pages on peers, made from the tables that peers.py wrote.

    python benchmarks/peers_page.py [--results results/peers] [--docs docs]

Writes docs/peers.md (a summary on one screen), the appendix docs/peers (average.md, NETWORK.md for each network), a figure for each of
these in docs/_static, and benchmarks/peers_readings.csv (the mean of every reading on the tuning people, which a test compares with what it
measures). A method or a control that is ahead of LEAM's default is bold, with a star where the interval of the difference over people
leaves out 0.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from contest import BUDGETS, CHOSEN, DECIDING, METHODS, OWN, PUBLISHED, READINGS, TRANSFER, VIEWS
from jinja2 import Environment
from peers_figure import STYLES as EXPLAINING
from peers_figure import figure, pareto, points
from peers_measures import ALL
from peers_methods import DEFAULT, PRESETS

LOWER_IS_BETTER = ("deletion",)
FOLDER = Path(__file__).parent
FAMILIES = {
    "LEAM": "LEAM",
    "peer": "captum_leam.explainers, SBSM, SANE and XRAI",
    "Captum": "Captum, through EmbeddingSimilarity",
    "pytorch-grad-cam": "pytorch-grad-cam",
    "torch-cam": "torch-cam",
    "control": "controls",
    "limit": "the limit",
}
COMPARED = ("drop", "deletion", "insertion", "AUC", "planted mass", "planted top 1 %")


@dataclass(frozen=True)
class Column:
    """One column: a heading, and the cells that belong to it (own and transfer share one)."""

    heading: str
    cells: tuple[dict[str, object], ...]
    digits: int = 3


def drop_columns(view: str, faces: str = "faces", cells: Sequence[tuple[str, float]] = DECIDING) -> list[Column]:
    """Return a column of own and transfer for every fill and fraction."""
    place = {"measure": "drop", "view": view, "faces": faces}
    return [
        Column(
            f"{fill} {fraction:.0%}".replace("%", " %"),
            tuple({**place, "where": w, "fill": fill, "fraction": fraction} for w in (OWN, TRANSFER)),
        )
        for fill, fraction in cells
    ]


OTHERS = [("blur", 0.01), ("blur", 0.1), ("noisy linear", 0.01), ("noisy linear", 0.1)]
OTHERS += [("mean", fraction) for fraction in (0.01, 0.05, 0.1, 0.2)]
VERIFICATION = [Column(p, ({"measure": p, "where": "similar", "fill": "blur"},), 2) for p in ("deletion", "insertion")]
AGAINST = [
    Column(f"{p}, dissimilar", ({"measure": p, "where": "dissimilar", "fill": "blur"},), 2)
    for p in ("deletion", "insertion")
]
SPECIFIC = [
    Column("BC same / different", ({"measure": "BC same"}, {"measure": "BC different"}), 2),
    Column("AUC", ({"measure": "AUC"},), 2),
]
COST = [
    Column("forwards", ({"measure": "forwards", "faces": "faces"},), 1),
    Column("backwards", ({"measure": "backwards", "faces": "faces"},), 1),
    Column("seconds", ({"measure": "seconds", "faces": "faces"},), 2),
    Column("peak MiB", ({"measure": "peak MiB"},), 0),
]


# -- cells ---------------------------------------------------------------------------------------------


def select(table: pd.DataFrame, cell: dict[str, object]) -> pd.DataFrame:
    """Return the rows of one cell."""
    for column, value in cell.items():
        table = table[table[column] == value]
    return table


def is_ahead(entry: pd.Series, default: pd.DataFrame) -> bool:
    """Return whether a method or a control beats LEAM's default in this cell."""
    if entry["family"] in ("LEAM", "limit") or entry["measure"] not in COMPARED or default.empty:
        return False
    ours = default["value"].iloc[0]
    if entry["measure"] == "drop" and pd.notna(entry["ahead"]):  # on the same images
        return bool(entry["ahead"] < 0)
    return bool(entry["value"] < ours if entry["measure"] in LOWER_IS_BETTER else entry["value"] > ours)


def certain(entry: pd.Series) -> bool:
    """Return whether the interval over people of LEAM's lead is below 0."""
    return bool(entry["ahead_high"] < 0)


def with_leads(table: pd.DataFrame, leads: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the lead of LEAM's default over every method, where drops were paired."""
    keys = ["network", "faces", "where", "view", "fill", "fraction", "method"]
    of_default = leads[leads["preset"] == DEFAULT].assign(measure="drop", view=lambda t: t["view"].astype(str))
    of_default = of_default.rename(columns={"high": "ahead_high"})[[*keys, "measure", "ahead", "ahead_high"]]
    return table.merge(of_default, "left", [*keys, "measure"])


def number(value: float, digits: int) -> str:
    """Return a number without the zero before its point."""
    text = f"{value:.{digits}f}"
    if digits >= 2 and text.lstrip("-").startswith("0."):
        return text.replace("0.", ".", 1)
    return text.removesuffix(".0")


def text_of(table: pd.DataFrame, method: str, column: Column) -> str:
    """Return what a table shows of a method in a column."""
    parts = []
    for cell in column.cells:
        rows = select(table, cell)
        found, default = (rows[rows["method"] == m] for m in (method, DEFAULT))
        if found.empty:
            parts.append("–")
            continue
        entry = found.iloc[0]
        shown = number(entry["value"], column.digits)
        bold = is_ahead(entry, default)
        parts.append(f"**{shown}**" + ("\\*" if certain(entry) else "") if bold else shown)
    return "–" if set(parts) == {"–"} else " / ".join(parts)


def table_of(table: pd.DataFrame, columns: Sequence[Column]) -> str:
    """Return methods in families, a family's name before its rows."""
    return "\n".join(_rows(table, columns))


def _rows(table: pd.DataFrame, columns: Sequence[Column]) -> Iterator[str]:
    columns = [c for c in columns if any(len(select(table, cell)) for cell in c.cells)]
    yield "| method | " + " | ".join(c.heading for c in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for family, title in FAMILIES.items():
        methods = list(dict.fromkeys(table.loc[table["family"] == family, "method"]))
        rows = [(m, [text_of(table, m, c) for c in columns]) for m in methods]
        rows = [(m, cells) for m, cells in rows if set(cells) != {"–"}]
        if not rows:
            continue
        yield f"| *{title}* |" + " |" * len(columns)
        for method, cells in rows:
            yield f"| {method} | " + " | ".join(cells) + " |"


# -- who is ahead --------------------------------------------------------------------------------------


def rivals(table: pd.DataFrame, budget: float) -> list[str]:
    """Return the methods, neither LEAM's nor controls, of at most so many passes on every network."""
    counted = table[table["measure"].isin(["forwards", "backwards"]) & ~table["family"].isin(["LEAM", "limit"])]
    counted = counted.drop_duplicates(["network", "method", "measure"])
    passes = counted.groupby(["network", "method"])["value"].sum().groupby("method").max()
    return list(passes.index[passes <= budget])


def standing(leads: pd.DataFrame, preset: str, methods: Sequence[str]) -> pd.DataFrame:
    """Return the deciding cells of a preset: whether it is ahead of every method, and whether one is surely ahead of it.

    Returns:
        One row per network, view, where, fill and fraction; columns ``ahead`` and ``surely_behind``.
    """
    kept = leads[(leads["preset"] == preset) & leads["method"].isin(methods) & (leads["faces"] == "faces")]
    kept = kept[kept["where"].isin([OWN, TRANSFER])]
    kept = kept[pd.MultiIndex.from_frame(kept[["fill", "fraction"]]).isin(DECIDING)]
    groups = kept.groupby(["network", "view", "where", "fill", "fraction"], sort=False)
    return groups.agg(ahead=("ahead", "min"), surely_behind=("high", "min")).assign(
        ahead=lambda t: t["ahead"] > 0, surely_behind=lambda t: t["surely_behind"] < 0
    )


def counted_cells(cells: pd.DataFrame) -> str:
    """Return the number of cells in which a preset is ahead of every method, or surely behind one, as text."""
    if cells.empty:
        return "not measured"
    behind = int(cells["surely_behind"].sum())
    text = f"ahead of every one in {int(cells['ahead'].sum())} of {len(cells)} cells"
    return text + (f", surely behind one in {behind}" if behind else ", surely behind none in any")


def standings(table: pd.DataFrame, leads: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield each preset, the methods that it is compared with as text, and its deciding cells as :func:`standing` returns them."""
    for preset, budget in zip(PRESETS, (*BUDGETS, float("inf")), strict=True):
        methods = rivals(table, budget)
        among = (
            f"{len(methods)} methods of at most {budget} passes" if budget in BUDGETS else f"all {len(methods)} methods"
        )
        yield preset, among, standing(leads, f"LEAM, {preset}", methods).reset_index()


def short_table(table: pd.DataFrame, leads: pd.DataFrame) -> str:
    """Return a row for each preset: the cells in which it is ahead of every method, and those in which it is surely behind one."""
    lines = [
        "| preset | compared with | average: ahead of all | surely behind one | each network: ahead of all | surely behind one |",
        "|---|---|---|---|---|---|",
    ]
    for preset, among, cells in standings(table, leads):
        is_all = cells["network"] == ALL
        parts = [text for part in (cells[is_all], cells[~is_all]) for text in cells_of(part)]
        lines.append(f'| `"{preset}"` | {among} | {" | ".join(parts)} |')
    return "\n".join(lines)


def cells_of(cells: pd.DataFrame) -> tuple[str, str]:
    """Return in how many of the cells a preset is ahead of every method, and in how many it is surely behind one."""
    if cells.empty:
        return "–", "–"
    return f"{int(cells['ahead'].sum())} of {len(cells)}", str(int(cells["surely_behind"].sum()))


def in_short(table: pd.DataFrame, leads: pd.DataFrame) -> Iterator[str]:
    """Yield how the presets stand, view by view."""
    for preset, among, cells in standings(table, leads):
        everywhere, each = cells[cells["network"] == ALL], cells[cells["network"] != ALL]
        yield f'- `"{preset}"` among {among}, averaged over networks: {counted_cells(everywhere)}.'
        for view in VIEWS:
            name = "in the chosen readings" if view == CHOSEN else f"every map at σ {view}"
            yield f"  - {name}: {counted_cells(everywhere[everywhere['view'].astype(str) == view])}."
        yield f"  - network by network: {counted_cells(each)}."


def shares_of(table: pd.DataFrame, preset: str) -> str:
    """Return what a preset reaches of the limit at 5 %, with intervals."""
    shares = select(table, {"measure": "share of the limit", "method": f"LEAM, {preset}"})
    if shares.empty:
        return ""
    parts = []
    for network, part in shares.groupby("network", sort=False):
        cells = part.set_index("where")[["value", "low", "high"]]
        own, transfer = (cells.loc[w] if w in cells.index else None for w in (OWN, TRANSFER))
        shown = [f"{c['value']:.0%} [{c['low']:.0%}, {c['high']:.0%}]" for c in (own, transfer) if c is not None]
        parts.append(f"{network} {' / '.join(shown)}")
    return f'- `"{preset}"` reaches of the limit at 5 %, own / transfer: {"; ".join(parts)}.'


def deciding_cells(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield every deciding cell in which LEAM's default was measured, averaged over networks.

    Yields:
        The cell, its view, and the rows of the methods and controls that are ahead of the default, furthest first.
    """
    everywhere = table[(table["network"] == ALL) & (table["faces"] == "faces")]
    for view in VIEWS:
        for column in drop_columns(view):
            for cell in column.cells:
                rows = select(everywhere, cell)
                default = rows[rows["method"] == DEFAULT]
                if len(default):
                    ahead = rows[[is_ahead(entry, default) for _, entry in rows.iterrows()]]
                    place = "as chosen" if view == CHOSEN else f"σ {view}"
                    yield f"{column.heading}, {cell['where']}", place, ahead.sort_values("ahead")


def where_not_ahead(table: pd.DataFrame) -> list[str]:
    """Return a line for each cell in which LEAM's default is not ahead, with the four that are furthest ahead."""
    lines = []
    for cell, place, ahead in deciding_cells(table):
        if ahead.empty:
            continue
        leads = [
            f"{e['method'].removeprefix('control: ')} by {number(-e['ahead'], 3)}" + ("\\*" if certain(e) else "")
            for _, e in ahead.head(4).iterrows()
        ]
        more = f" and {len(ahead) - 4} more" if len(ahead) > 4 else ""
        lines.append(f"- {cell}, {place}: {'; '.join(leads)}{more}")
    return lines or ["In no cell that decides."]


def behind_in_short(table: pd.DataFrame) -> str:
    """Return a sentence on the cells in which LEAM's default is not ahead of every method and control."""
    measured = list(deciding_cells(table))
    cells = [cell for cell in measured if len(cell[-1])]
    if not cells:
        return "Averaged over networks, no method and no control is ahead of the default in any cell."
    places = "; ".join(dict.fromkeys(place for _, place, _ in cells))
    furthest = pd.concat([ahead.head(1) for _, _, ahead in cells]).sort_values("ahead").iloc[0]
    is_certain = any(certain(entry) for _, _, ahead in cells for _, entry in ahead.iterrows())
    return (
        f"Averaged over networks, a method or a control is ahead of the default in {len(cells)} of "
        f"{len(measured)} cells ({places}), by at most {number(-furthest['ahead'], 3)} gaps "
        f"({furthest['method']}); the interval over people leaves out 0 in {'some' if is_certain else 'none'} of them."
    )


# -- the pages -----------------------------------------------------------------------------------------


def choice_table(readings: pd.DataFrame) -> str:
    """Return the chosen reading of every method, beside its mean drop in the readings without smoothing."""
    names = [*READINGS[:-1], PUBLISHED]  # the mean over channels ranks pixels as the signed sum does
    lines = [
        "| method | reading | σ (px) | drop | " + " | ".join(f"{n}, σ 0" for n in names) + " |",
        "|---" * (4 + len(names)) + "|",
    ]
    for method, part in readings.groupby("method", sort=False):
        best = part[part["chosen"]].iloc[0]
        raw = part[part["sigma"] == 0].set_index("reading")["in_gaps"]
        shown = [number(raw[n], 3) if n in raw.index else "–" for n in names]
        lines.append(
            f"| {method} | {best['reading']} | {best['sigma']:g} | {number(best['in_gaps'], 3)} | {' | '.join(shown)} |"
        )
    return "\n".join(lines)


def planted_table(planted: pd.DataFrame) -> str:
    """Return planted evidence with the parts in the columns."""
    measures = ("planted mass", "planted top 1 %")
    parts = planted["network"].unique()
    columns = [
        Column(str(p).removeprefix("planted "), tuple({"network": p, "measure": m} for m in measures), 2) for p in parts
    ]
    return table_of(planted, columns)


def of_network(part: pd.DataFrame, settings: dict, name: str) -> str:
    """Return the page of one network."""
    template = environment().from_string((FOLDER / "peers_network.md.j2").read_text())
    found = points(part)
    found = found[found["family"].isin(EXPLAINING)]
    return template.render(
        name=name,
        gap=settings["gaps"][name],
        drops=table_of(part, drop_columns(CHOSEN)),
        matched={view: table_of(part, drop_columns(view)) for view in VIEWS if view != CHOSEN},
        others=table_of(part, drop_columns(CHOSEN, cells=OTHERS)),
        colour=table_of(part, drop_columns(CHOSEN, "faces_colour")) if (part["faces"] == "faces_colour").any() else "",
        verification=table_of(part, [*VERIFICATION, *AGAINST]) if (part["measure"] == "deletion").any() else "",
        cost=table_of(part, [*SPECIFIC, *COST]),
        front=", ".join(pareto(found)["method"]),
        quick=settings["quick"],
    )


def environment() -> Environment:
    """Return what fills the templates in."""
    return Environment(trim_blocks=True, autoescape=False)  # noqa: S701 - Markdown


def pages(table: pd.DataFrame, leads: pd.DataFrame, readings: pd.DataFrame, settings: dict) -> dict[str, str]:
    """Return the summary, ``peers.md``, and the page of averages of the appendix, ``peers/average.md``."""
    is_planted = table["network"].str.startswith("planted")
    real, planted = table[~is_planted], table[is_planted]
    everywhere = real[real["network"] == ALL]
    given = {
        **settings,
        "names": [name for name in settings["gaps"] if name in set(real["network"])],
        "short": short_table(real, leads),
        "behind": behind_in_short(real),
        "count": len(set(real["method"]) & set(METHODS) - {f"LEAM, {preset}" for preset in PRESETS}),
        "in_short": "\n".join(in_short(real, leads)),
        "shares": [text for preset in PRESETS if (text := shares_of(real, preset))],
        "choice": choice_table(readings),
        "drops": table_of(everywhere, drop_columns(CHOSEN)),
        "matched": {view: table_of(everywhere, drop_columns(view)) for view in ("2", "4")},
        "colour": table_of(everywhere, drop_columns(CHOSEN, "faces_colour")),
        "has_colour": bool((everywhere["faces"] == "faces_colour").any()),
        "has_limit": bool((real["family"] == "limit").any()),
        "planted": planted_table(planted) if len(planted) else "",
        "not_ahead": "\n".join(where_not_ahead(real)),
        "left_out": "; ".join(m for m in METHODS if m not in set(real["method"])),
    }
    templates = {"peers.md": "peers_page.md.j2", "peers/average.md": "peers_average.md.j2"}
    return {
        page: environment().from_string((FOLDER / name).read_text()).render(given) for page, name in templates.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/peers"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    families = pd.read_csv(options.results / "peers.csv", dtype={"view": str})
    leads = pd.read_csv(options.results / "leads.csv", dtype={"view": str})
    readings = pd.read_csv(options.results / "chosen.csv")
    settings = json.loads((options.results / "settings.json").read_text())
    table = with_leads(families, leads)
    networks = [name for name in settings["gaps"] if name in set(table["network"])]
    written = pages(table, leads, readings, settings)
    written |= {f"peers/{name}.md": of_network(table[table["network"] == name], settings, name) for name in networks}
    for folder in ("peers", "_static"):
        (options.docs / folder).mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        (options.docs / name).write_text(text.rstrip() + "\n")
    figure(table).savefig(options.docs / "_static" / "peers.png", dpi=90)
    for name in networks:
        figure(table, name).savefig(options.docs / "_static" / f"peers_{name}.png", dpi=90)
    readings.round(4).to_csv(FOLDER / "peers_readings.csv", index=False)
    print(f"written: {options.docs / 'peers.md'} and the appendix {options.docs / 'peers'}")


if __name__ == "__main__":
    main()
