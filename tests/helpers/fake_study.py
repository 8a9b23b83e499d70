"""A results folder drawn from the schemas of ``captum_leam.reporting.tables``: what the report needs, without running a study.

The numbers are invented (seeded) and roughly of the size that real studies give; names may be hostile.
"""

import json
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from captum_leam.explain import MapSettings
from captum_leam.reporting.tables import OVERALL, TABLES

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</style></title></table>{{ 7*7 }} $x_2$ & ümlaut 山田",
    '=HYPERLINK("http://example.invalid")',
    "javascript:document.title='owned'",
    "a\u202eb\x07c\nd",
    "x" * 300,
)
REGIONS = {  # area, share of the critical pixels
    "nose": (0.036, 0.37),
    "brows": (0.015, 0.16),
    "eyes": (0.012, 0.11),
    "mouth": (0.024, 0.06),
    "skin": (0.43, 0.29),
    "hair": (0.22, 0.005),
    "background": (0.263, 0.005),
}
CONTROLS = {"edges": 0.15, "untrained": 0.06, "parser": 0.02, "pose": 0.24}
SHARED = {"random pixels": 0.09, "centre of the crop": 0.66}
OF_MAP = {"moved": 0.12, "other people": 0.92}
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2)


def fake_results(
    folder: Path,
    *,
    people: int = 12,
    images: int = 4,
    models: tuple[str, ...] = ("ms1m", "casia"),
    layers: tuple[str, ...] = ("stem", "stages.0.4", "stages.1.6", "stages.2.5", "stages.4.1"),
    names: tuple[str, ...] = (),
    groups: bool = True,
    controls: bool = True,
    overall: bool = True,
    seed: int = 0,
) -> Path:
    """Write manifest, tables and mean maps; ``names`` are the first people's names."""
    draw = np.random.default_rng(seed)
    who = [*names, *[f"s{i + 1:02d}" for i in range(people - len(names))]]
    table = _images(who, images, groups, draw)
    used = table[table["status"] == "ok"]
    places = ((OVERALL,) if overall else ()) + layers
    tables: dict[str, pd.DataFrame] = {
        "images": table,
        "skipped": pd.DataFrame(
            [
                ("image", "read", "", "", int(row.image), row.person, row.path, row.reason)
                for row in table[table["status"] != "ok"].itertuples()
            ]
            + [
                (
                    "layer",
                    "explain",
                    models[0],
                    "head.fc",
                    -1,
                    "",
                    "",
                    "it has no spatial map: give a reshape for its output",
                )
            ],
            columns=TABLES["skipped"].names,
        ),
        "verification": _verification(models, used, draw),
        "cosines": _cosines(models, np.random.default_rng(7)),
        "layers": pd.DataFrame(
            [
                (m, layer, 64 * 2**i, 56 // 2**i or 1, 56 // 2**i or 1, i < 3, "0, 0, 112, 112")
                for m in models
                for i, layer in enumerate(layers)
            ],
            columns=TABLES["layers"].names,
        ),
        "scores": pd.DataFrame(
            [(m, row.image, row.person, draw.beta(14, 5)) for m in models for row in used.itertuples()],
            columns=TABLES["scores"].names,
        ),
        "region_summary": _region_summary(models, places, len(who), draw),
        "patterns": _patterns(models, places, controls, len(used), len(who), draw),
        "agreement": _agreement(models, layers, overall, draw),
        "groups": _groups(models, groups, draw),
    }
    tables["regions"] = _regions(tables["region_summary"], used, draw)
    tables["drops"], tables["drop_summary"] = _drops(models, places, used, controls, draw)
    (folder / "tables").mkdir(parents=True)
    for name, frame in tables.items():
        more = tuple(c for c in frame.columns if c not in TABLES[name].names)
        schema = TABLES[name].schema(more)
        pq.write_table(
            pa.Table.from_pandas(frame, schema=schema, preserve_index=False), folder / "tables" / f"{name}.parquet"
        )
    _mean_maps(folder, models, places, draw)
    (folder / "manifest.json").write_text(json.dumps(_manifest(models, names, seed)), encoding="utf-8")
    return folder


def _images(who: list[str], images: int, groups: bool, draw: np.random.Generator) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for i, (person, k) in enumerate(product(who, range(images))):
        bad = i == 3
        row = {
            "image": i,
            "person": person,
            "path": f"{person}/{k}.png".replace("\x07", ""),
            "sha256": "" if bad else f"{draw.integers(2**63):064x}",
            "status": "skipped" if bad else "ok",
            "reason": "cannot be read as a picture: truncated after 1024 bytes <b>" if bad else "",
            "crop": "photograph" if i == 1 else "crop",
            "faces_found": 2 if i == 1 else -1,
            "turn": 90 if i == 1 else -1,
        }
        rows.append({**row, "group_light": ("dim", "bright")[who.index(person) % 2]} if groups else row)
    return pd.DataFrame(rows)


def _verification(models: tuple[str, ...], used: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    rows = []
    for i, model in enumerate(models):
        eer = 0.27 if i == 2 else draw.uniform(0.005, 0.03)
        warning = "" if eer < 0.2 else "it hardly separates these people: check the preprocessing"
        rows.append(
            (
                model,
                len(used),
                used["person"].nunique(),
                140,
                2100,
                eer,
                0.36,
                1 - 2 * eer,
                0.001,
                1 - 2 * eer,
                0.44,
                eer <= 0.2,
                warning,
            )
        )
    return pd.DataFrame(rows, columns=TABLES["verification"].names)


def _cosines(models: tuple[str, ...], draw: np.random.Generator) -> pd.DataFrame:
    edges = np.round(np.linspace(-1, 1, 41), 2)
    rows = []
    for model in models:
        for kind, mean, pairs in (("genuine", 0.66, 140), ("impostor", 0.08, 2100)):
            counts, _ = np.histogram(draw.normal(mean, 0.12, pairs).clip(-1, 1), edges)
            rows += [(model, kind, *row) for row in zip(edges[:-1], edges[1:], counts, strict=True)]
    return pd.DataFrame(rows, columns=TABLES["cosines"].names)


def _region_summary(models: Any, places: Any, people: int, draw: np.random.Generator) -> pd.DataFrame:
    rows = []
    for model, layer in product(models, places):
        noise = draw.uniform(0.8, 1.25, len(REGIONS))
        shares = np.array([share for _, share in REGIONS.values()]) * noise
        for (region, (area, _)), share in zip(REGIONS.items(), shares / shares.sum(), strict=True):
            for quantity, value in {
                "share": share,
                "mass": 0.6 * share + 0.4 * area,
                "area": area,
                "lift": share / area,
            }.items():
                rows.append((model, layer, region, quantity, people, value, 0.88 * value, 1.13 * value))
    return pd.DataFrame(rows, columns=TABLES["region_summary"].names)


def _regions(summary: pd.DataFrame, used: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    wide = summary.pivot_table(
        index=["model", "layer", "region"], columns="quantity", values="mean", sort=False
    ).reset_index()
    table = wide.merge(used[["image", "person"]], how="cross")
    table["share"] *= draw.uniform(0.6, 1.4, len(table))
    table["lift"] = table["share"] / table["area"]
    return table[TABLES["regions"].names]


def _drops(
    models: Any, places: Any, used: pd.DataFrame, controls: bool, draw: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    cells = []
    for fill, fraction in product(("blur", "zero"), FRACTIONS):
        size = 0.62 * (1 - np.exp(-fraction / 0.07)) * (1.3 if fill == "zero" else 1)
        for explained, measured in product(models, models):
            own = 1 if explained == measured else 0.9
            for i, layer in enumerate(places):
                cells.append((explained, layer, measured, "LEAM", "", fill, fraction, size * own * (1 - 0.08 * i)))
            for control, factor in OF_MAP.items() if controls else ():
                cells.append((explained, places[0], measured, "LEAM", control, fill, fraction, size * factor))
        for measured, (control, factor) in product(models, SHARED.items() if controls else ()):
            cells.append(("", "", measured, "", control, fill, fraction, size * factor))
    names = TABLES["drops"].names[:7]
    frame = pd.DataFrame(cells, columns=[*names, "size"]).merge(used[["image", "person"]], how="cross")
    frame["drop"] = frame.pop("size") * draw.uniform(0.7, 1.3, len(frame))
    grouped = frame.groupby(names, sort=False)
    summary = grouped.agg(
        images=("image", "size"), people=("person", "nunique"), drop=("drop", "mean"), sd=("drop", "std")
    ).reset_index()
    half = 2 * summary.pop("sd") / np.sqrt(summary["images"])
    return frame, summary.assign(low=summary["drop"] - half, high=summary["drop"] + half)


def _patterns(
    models: Any, places: Any, controls: bool, images: int, people: int, draw: np.random.Generator
) -> pd.DataFrame:
    rows = []
    for model, (i, layer), kind in product(models, enumerate(places), ("top", "dense", "regions")):
        gap = (0.34 - 0.03 * i + draw.normal(0, 0.015)) * {"top": 1, "dense": 0.4, "regions": 0.3}[kind]
        strongest = max(CONTROLS, key=CONTROLS.__getitem__) if controls else ""
        for control, value in [("", gap), *(CONTROLS.items() if controls else ())]:
            value = gap if not control else value * {"top": 1, "dense": 0.4, "regions": 0.3}[kind]
            different = 0.1 if kind == "top" else 0.5
            auc, p = min(0.5 + 1.5 * value, 0.99), 0.0005
            row = [model, layer, kind, control, 0.01 if kind == "top" else 1.0, images, people]
            for number in (different + value, different, auc, value):
                row += [number, number - 0.02, number + 0.02]
            above = gap - row_value(controls, kind) if not control and controls else np.nan
            rows.append([*row, p, "" if control else strongest, above, above - 0.03, above + 0.03])
    return pd.DataFrame(rows, columns=TABLES["patterns"].names)


def row_value(controls: bool, kind: str) -> float:
    return max(CONTROLS.values()) * {"top": 1, "dense": 0.4, "regions": 0.3}[kind] if controls else np.nan


def _agreement(models: Any, layers: Any, overall: bool, draw: np.random.Generator) -> pd.DataFrame:
    rows = []
    for kind in ("maps", "regions"):
        for a, b in combinations(models, 2):
            value = draw.uniform(0.7, 0.92)
            rows.append(("models", kind, "", OVERALL, a, b, value, value - 0.02, value + 0.02, 0.61))
        for model, (a, b) in product(models, combinations(layers, 2)):
            value = 0.9 - 0.12 * abs(layers.index(a) - layers.index(b)) + draw.normal(0, 0.02)
            rows.append(("layers", kind, model, "", a, b, value, value - 0.02, value + 0.02, 0.5))
    return pd.DataFrame(rows, columns=TABLES["agreement"].names)


def _groups(models: Any, groups: bool, draw: np.random.Generator) -> pd.DataFrame:
    rows = []
    for model in models if groups else ():
        for quantity in ("drop at 5 %", "lift of nose", "lift of eyes", "share of nose", "share of eyes"):
            unit = 3.0 if quantity.startswith("lift") else 0.3
            difference = unit * draw.normal(0, 0.08)
            half = 0.12 * unit
            p = float(np.clip(2 * np.exp(-abs(difference) / half * 1.4), 0.0002, 1))
            row = (
                "light",
                "bright",
                "dim",
                quantity,
                model,
                unit + difference,
                unit,
                difference,
                difference - half,
                difference + half,
            )
            rows.append((*row, p, min(1.0, 10 * p), 12, 12, 0.74, 0.69, ""))
        rows.append(
            (
                "light",
                "bright",
                "dusk",
                "drop at 5 %",
                model,
                *[np.nan] * 7,
                12,
                3,
                0.74,
                0.7,
                "fewer than 10 people in dusk",
            )
        )
    return pd.DataFrame(rows, columns=TABLES["groups"].names)


def _mean_maps(folder: Path, models: Any, places: Any, draw: np.random.Generator) -> None:
    y, x = np.mgrid[:112, :112]
    maps = {}
    for model, (i, layer) in product(models, enumerate(places)):
        width = 8 + 4 * i
        spot = np.exp(-((x - 56) ** 2 + (y - 70 - draw.normal(0, 3)) ** 2) / 2 / width**2)
        spot += 0.6 * sum(np.exp(-((x - cx) ** 2 + (y - 50) ** 2) / 2 / (width / 2) ** 2) for cx in (38, 74))
        maps[f"{model}/{layer}"] = (spot / spot.sum()).astype(np.float32)
    (folder / "maps").mkdir()
    np.savez(folder / "maps" / "mean.npz", **maps)


def _manifest(models: Any, names: Any, seed: int) -> dict[str, Any]:
    settings = MapSettings("default", "other images", ("stem",), ("stem", "stages.4.1"), (0, 0, 112, 112), n_steps=4)
    return {
        "format": 1,
        "finished": True,
        "configuration": {
            "people": "faces",
            "models": [{"name": m, "load": f"models.py:{m}"} for m in models],
            "preset": "default",
            "leam": {"n_steps": 4, "weighting": "elementwise", "norm": "detach"},
            "fractions": list(FRACTIONS),
            "fills": ["blur", "zero"],
            "note": names[0] if names else "",
        },
        "models": {
            m: {"sha256": f"{i:064x}", "parameters": 1_200_000, "maps": settings.to_dict()}
            for i, m in enumerate(models)
        },
        "versions": {"captum-leam": "0.1.0", "torch": "2.13.0", "captum": "0.9.0", "python": "3.12.3"},
        "data": {"sha256": "ab" * 32},
        "seeds": {"study": seed},
        "hardware": {"cpu": "2 cores", "device": "cpu"},
        "durations": {"read": 1.2, "verify": 3.9, "explain": 143.2, "patterns": 12.0, "total": 161.5},
    }
