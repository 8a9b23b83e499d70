"""The documentation's page on peers, made from the table that peers.py wrote.

    python benchmarks/peers_page.py [--results results/peers] [--docs docs]

Writes docs/peers.md and docs/_static/peers.png. Where a peer or a control is ahead of LEAM's default the cell is bold, with a star where
the interval of the difference over people leaves out 0; each such cell is listed with what it means.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment
from peers_figure import STYLES as EXPLAINING
from peers_figure import figure, pareto, points
from peers_methods import DEFAULT, PRESETS

FEW = 500  # passes; LEAM is compared with the methods that take no more
LOWER_IS_BETTER = ("deletion",)
LETTERS = "ABCDEFGH"
TEMPLATE = Path(__file__).with_suffix(".md.j2")
FAMILIES = {
    "LEAM": "LEAM",
    "peer": "captum_leam.explainers",
    "Captum": "Captum, through EmbeddingSimilarity",
    "pytorch-grad-cam": "pytorch-grad-cam",
    "torch-cam": "torch-cam",
    "control": "controls",
    "limit": "the limit",
}


@dataclass(frozen=True)
class Column:
    """One column: a heading, and the cells that belong to it (own and transfer share one)."""

    heading: str
    cells: tuple[dict[str, object], ...]
    digits: int = 3


def drop_columns(smooth: float) -> list[Column]:
    cells = [(fill, f) for fill in ("blur", "noisy linear") for f in (0.05, 0.2)]
    return [
        Column(
            f"{fill} {fraction * 100:.0f} %",
            tuple(
                {"measure": "drop", "where": w, "fill": fill, "fraction": fraction, "smooth": smooth}
                for w in ("own", "transfer")
            ),
        )
        for fill, fraction in cells
    ]


LIMITS = [
    Column(f"of the limit, {f * 100:.0f} %", ({"measure": "share of the limit", "fraction": f},), 2)
    for f in (0.05, 0.2)
]
VERIFICATION = [
    Column(
        f"{protocol}, {'black' if fill == 'zero' else fill}",
        ({"measure": protocol, "where": "similar", "fill": fill},),
        2,
    )
    for fill in ("blur", "zero")
    for protocol in ("deletion", "insertion")
]
AGAINST = [
    Column(f"{protocol}, dissimilar", ({"measure": protocol, "where": "dissimilar", "fill": "blur"},), 2)
    for protocol in ("deletion", "insertion")
]
SPECIFIC = [
    Column("BC same / different", ({"measure": "BC same"}, {"measure": "BC different"}), 2),
    Column("AUC", ({"measure": "AUC"},), 2),
]
COST = [
    Column("forwards", ({"measure": "forwards"},), 1),
    Column("backwards", ({"measure": "backwards"},), 1),
    Column("seconds", ({"measure": "seconds"},), 2),
]
MEMORY = [Column("peak MiB", ({"measure": "peak MiB"},), 0)]
PLANTED = [
    Column("mass", ({"measure": "planted mass"},), 2),
    Column("top 1 %", ({"measure": "planted top 1 %"},), 2),
]
COMPARED = [*drop_columns(0.0), *drop_columns(4.0), *VERIFICATION, SPECIFIC[1], *PLANTED]
COMPARED_MEASURES = {cell["measure"] for column in COMPARED for cell in column.cells}


# -- cells ---------------------------------------------------------------------------------------------


def select(table: pd.DataFrame, cell: dict[str, object]) -> pd.DataFrame:
    for column, value in cell.items():
        table = table[table[column] == value]
    return table


def is_ahead(entry: pd.Series, default: pd.DataFrame) -> bool:
    """A peer or a control beats LEAM's default in this cell."""
    if entry["family"] in ("LEAM", "limit") or entry["measure"] not in COMPARED_MEASURES or default.empty:
        return False
    ours = default["value"].iloc[0]
    return bool(entry["value"] < ours if entry["measure"] in LOWER_IS_BETTER else entry["value"] > ours)


def certain(entry: pd.Series) -> bool:
    """The interval over people of LEAM's lead is below 0."""
    return bool(entry["ahead_high"] < 0)


def number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    if digits >= 2 and text.lstrip("-").startswith("0."):
        return text.replace("0.", ".", 1)
    return text.removesuffix(".0")


def text_of(table: pd.DataFrame, method: str, column: Column) -> str:
    parts = []
    for cell in column.cells:
        rows = select(table, cell)
        (found, default) = (rows[rows["method"] == m] for m in (method, DEFAULT))
        if found.empty:
            parts.append("–")
            continue
        entry = found.iloc[0]
        shown = number(entry["value"], column.digits)
        bold = is_ahead(entry, default)
        parts.append(f"**{shown}**" + ("\\*" if certain(entry) else "") if bold else shown)
    return "–" if set(parts) == {"–"} else " / ".join(parts)


def table_of(table: pd.DataFrame, columns: Sequence[Column]) -> str:
    """Methods in families; a family's name before its rows."""
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


# -- what is ahead, and why ----------------------------------------------------------------------------


def losses(table: pd.DataFrame) -> pd.DataFrame:
    """Every compared cell in which a peer or a control is ahead."""
    found = []
    for network, part in table.groupby("network", sort=False):
        for column in COMPARED:
            for cell in column.cells:
                rows = select(part, cell)
                default = rows[rows["method"] == DEFAULT]
                for _, entry in rows.iterrows():
                    if is_ahead(entry, default):
                        ours = default["value"].iloc[0]
                        found.append({**entry, "column": column.heading, "ours": ours, "network": network})
    return pd.DataFrame(found)


REASONS: list[tuple[Callable[[pd.Series], bool], str]] = [
    (
        lambda e: e["measure"] in ("deletion", "insertion") and e["fill"] == "zero",
        "Black pixels, the field's protocol. Scattered black pixels are adversarial noise to these networks: random ones delete as "
        "well as any map, and compact shapes insert best. The cell ranks maps by how scattered they are; the blurred one does not.",
    ),
    (
        lambda e: e["family"] == "control" and e["measure"] == "drop",
        "A control that knows where faces are, not whose this is. Where it is ahead, so many pixels cover what every face has there, "
        "and the drop says nothing about this person.",
    ),
    (
        lambda e: e["family"] == "control",
        "A control that knows nothing of this network or person. Where it is ahead, the measure does not ask for such knowledge.",
    ),
    (
        lambda e: e["measure"] == "drop" and e["smooth"] > 0,
        "At the same blur: a map that scatters its pixels gains by it, one that is smooth already does not.",
    ),
    (
        lambda e: e["measure"] == "drop" and e["where"] == "transfer",
        "On the other network: many passes, or a look from outside (masks, windows), average away what only one network reads; one pass "
        "or a short path keeps it.",
    ),
    (
        lambda e: e["measure"] == "drop",
        "On the explained network itself: the method finds pixels that matter more. Its passes are in the table of costs.",
    ),
    (
        lambda e: e["measure"] in ("deletion", "insertion"),
        "Decisions, not scores: once a pair has crossed the threshold, more drop changes nothing, and the order of the first tenths of "
        "the pixels decides. The pairs are few; the intervals are in the file.",
    ),
    (
        lambda e: e["measure"] == "AUC",
        "Same or different person from two maps: whatever repeats between a person's images tells people apart, pose and light "
        "included; compare the edge detector.",
    ),
    (
        lambda e: e["measure"].startswith("planted"),
        "Synthetic evidence: the last layer of these networks has little but the part left in it, and methods that read it alone "
        "lose least; an overall map also holds earlier layers, whose evidence is spread over more of the face.",
    ),
]


def reason(entry: pd.Series) -> str:
    return next(text for fits, text in REASONS if fits(entry))


def where_not_ahead(table: pd.DataFrame) -> Iterator[str]:
    found = losses(table)
    if found.empty:
        yield "Nowhere in these tables."
        return
    found["reason"] = [reason(e) for _, e in found.iterrows()]
    for text, group in found.groupby("reason", sort=False):
        yield f"**{len(group)} cells.** {text}\n"
        for (network, column, where), cell in group.groupby(["network", "column", "where"], sort=False, dropna=False):
            smooth = " at matched blur" if (cell["smooth"] > 0).any() else ""
            place = f", {where}" if isinstance(where, str) and where in ("own", "transfer") else ""
            who = "; ".join(
                f"{e['method'].removeprefix('control: ')} {number(e['value'], 3)}" + ("\\*" if certain(e) else "")
                for _, e in cell.sort_values("value", ascending=column.startswith("deletion")).head(4).iterrows()
            )
            more = f" and {len(cell) - 4} more" if len(cell) > 4 else ""
            yield f"- {network}, {column}{place}{smooth} (LEAM {number(cell['ours'].iloc[0], 3)}): {who}{more}"
        yield ""


def count_of_cells(table: pd.DataFrame, few: bool) -> str:
    """In how many cells LEAM's default is ahead of every peer and control: of any cost, or of the methods with few passes."""
    passes = points(table).groupby("method")["passes"].min()
    kept = table[[not few or not passes.get(m, 0) > FEW for m in table["method"]]]
    found, counts = losses(kept), []
    groups = {
        "drop": drop_columns(0.0),
        "drop at matched blur": drop_columns(4.0),
        "deletion and insertion": VERIFICATION,
    }
    for name, columns in groups.items():
        every = [
            (network, c.heading, cell)
            for network, part in kept.groupby("network", sort=False)
            for c in columns
            for cell in c.cells
            if len(select(part, {**cell, "method": DEFAULT}))
        ]
        lost = 0
        for network, heading, cell in every:
            lost += bool(len(found)) and bool(len(select(found, {**cell, "network": network, "column": heading})))
        counts.append(f"{len(every) - lost} of {len(every)} cells ({name})")
    return ", ".join(counts)


# -- the page ------------------------------------------------------------------------------------------


def page(table: pd.DataFrame, settings: dict) -> str:
    letters = dict(zip(settings["networks"], LETTERS, strict=False))
    real = table[table["network"].isin(letters)].replace({"network": letters})
    planted = table[table["network"].str.startswith("planted")]
    found = points(real)
    found = found[found["family"].isin(EXPLAINING)]
    template = Environment(trim_blocks=True, autoescape=False).from_string(TEMPLATE.read_text())  # noqa: S701
    return template.render(
        **settings | {"networks": {n: tables_of(part) for n, part in real.groupby("network", sort=False)}},
        names=", ".join(f"{letter} is `{name}`" for name, letter in letters.items()),
        few=FEW,
        cells_of_few=count_of_cells(real, few=True),
        cells_of_all=count_of_cells(real, few=False),
        shares=[shares_of(real, preset) for preset in PRESETS],
        fronts={n: list(pareto(part)["method"]) for n, part in found.groupby("network", sort=False)},
        planted=planted_table(planted),
        not_ahead="\n".join(where_not_ahead(pd.concat([real, planted], ignore_index=True))),
    )


def shares_of(real: pd.DataFrame, preset: str) -> str:
    """What a preset reaches of the limit, with intervals."""
    shares = select(real, {"measure": "share of the limit", "method": f"LEAM, {preset}"}).sort_values("fraction")
    told = [
        f"{network} {' and '.join(f'{v:.0%} [{lo:.0%}, {hi:.0%}]' for v, lo, hi in part[['value', 'low', 'high']].to_numpy())}"
        for network, part in shares.groupby("network", sort=False)
    ]
    passes = points(real).groupby("method")["passes"].max().get(f"LEAM, {preset}", float("nan"))
    return f'`"{preset}"` ({passes:.0f} passes) reaches of the limit at 5 and 20 %: {"; ".join(told)}.'


def tables_of(part: pd.DataFrame) -> dict[str, object]:
    """The tables of one explained network."""
    pairs = select(part, {"measure": "deletion", "where": "similar", "method": DEFAULT})
    memory = MEMORY if len(select(part, {"measure": "peak MiB"})) else []
    return {
        "drops": table_of(part, [*drop_columns(0.0), *LIMITS]),
        "matched": table_of(part, drop_columns(4.0)),
        "pairs": int(pairs["images"].iloc[0]) if len(pairs) else 0,
        "verification": table_of(part, [*VERIFICATION, *AGAINST]),
        "cost": table_of(part, [*SPECIFIC, *COST, *memory]),
        "memory": bool(memory),
    }


def planted_table(planted: pd.DataFrame) -> str:
    """Parts in the columns."""
    measures = ("planted mass", "planted top 1 %")
    parts = planted["network"].unique()
    return table_of(
        planted,
        [
            Column(str(p).removeprefix("planted "), tuple({"network": p, "measure": m} for m in measures), 2)
            for p in parts
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/peers"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    table = pd.read_csv(options.results / "peers.csv")
    settings = json.loads((options.results / "settings.json").read_text())
    (options.docs / "peers.md").write_text(page(table, settings))
    letters = dict(zip(settings["networks"], LETTERS, strict=False))
    figure(table.replace({"network": letters})).savefig(options.docs / "_static" / "peers.png", dpi=110)
    print(f"written: {options.docs / 'peers.md'}, {options.docs / '_static' / 'peers.png'}")


if __name__ == "__main__":
    main()
