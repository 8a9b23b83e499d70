"""Which overall map should a study show? The same study of real people for several settings of ``preset:``.

    python benchmarks/study_presets.py --data ../shared/real [--images 3] [--presets fast default layers]
        [--csv docs/_data/study_presets.csv]

24 people × 3 images, every network of the zoo explained and measured on the others (``--networks``: fewer of them), layer maps with a path
of 4 beside every overall map, one thread.
Of each network and preset: person-specificity (Bhattacharyya coefficients of the same and of different people at the top 1 % with the
gap above the strongest of four controls, AUC at 1 and 10 %), the nose's share of the top 1 %, drops of the cosine after blurring 1 and 5 %
beside random pixels and the mean map of other people, and CPU seconds for an explained image, of the whole study. Intervals: 95 % over
people. Not shown: other people, colour, other fills.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from research_data import load_zoo

from captum_leam.patterns import person_specificity, signatures
from captum_leam.study import Study, StudyResult

Row = dict[str, Any]
CONTROLS = ("random pixels", "other people")
FRACTIONS = (0.01, 0.05)


def write_study(folder: Path, data: Path, networks: list[str], images: int, preset: str) -> Path:
    """Write the configuration of one preset beside a table of the first images of everybody."""
    people = sorted((data / "faces").iterdir())
    rows = [f"{path.resolve()},{person.name}" for person in people for path in sorted(person.iterdir())[:images]]
    (folder / "people.csv").write_text("\n".join(["path,person", *rows]))
    config = {
        "people": "people.csv",
        "models": {name: f"{data.resolve()}/zoo.py:{name}" for name in networks},
        "parser": f"{data.resolve()}/models.py:parser",
        "pictures": "crops",
        "preset": preset,
        "fractions": FRACTIONS,
        "layer_fractions": [],
        "controls": CONTROLS,
        "store_maps": "overall",
        "out": f"results_{preset}",
    }
    path = folder / f"{preset}.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def auc_at_10_percent(result: StudyResult, number: int) -> float:
    """Return the AUC of the coefficients at the top 10 % of the stored overall maps of a network."""
    files = [np.load(path) for path in sorted((result.folder / "maps" / "people").glob(f"{number:02d}-*.npz"))]
    of = result.table("images").set_index("image")["person"]
    people = [of[image] for file in files for image in file["image"]]
    maps = np.concatenate([file["maps"][:, 0] for file in files]).astype(np.float32)
    return float(person_specificity(signatures(maps, fraction=0.1), people, permutations=0, resamples=100)["auc"])


def measures(result: StudyResult, network: str, number: int) -> Iterator[Row]:
    """Yield the measures of the overall map of one network."""
    overall = {"model": network, "layer": "overall"}
    row = result.table("patterns", **overall, kind="top", control="").iloc[0]
    names = {"same": "BC same", "different": "BC different", "auc": "AUC", "above": "gap above controls"}
    for key, measure in names.items():
        value = row["above_control" if key == "above" else key]
        yield {"measure": measure, "value": value, "low": row[f"{key}_low"], "high": row[f"{key}_high"]}
    yield {"measure": "AUC top 10%", "value": auc_at_10_percent(result, number)}
    nose = result.table("region_summary", **overall, region="nose", quantity="share").iloc[0]
    yield {"measure": "nose", "value": nose["mean"], "low": nose["low"], "high": nose["high"]}
    drops = result.table("drop_summary")
    of_map = (drops["explained"] == network) & (drops["layer"] == "overall")
    of_nobody = (drops["explained"] == "") & (drops["control"] == "random pixels")
    for drop in drops[of_map | of_nobody].to_dict("records"):
        where = "own" if drop["measured"] == network else f"on {drop['measured']}"
        control = f" {drop['control']}" if drop["control"] else ""
        measure = f"drop {drop['fraction']:.0%} {where}{control}"
        yield {"measure": measure, "value": drop["drop"], "low": drop["low"], "high": drop["high"]}


def run(path: Path, networks: list[str], preset: str) -> pd.DataFrame:
    """Run one study and return its measures."""
    began = time.process_time()
    result = Study(path).run(progress=False, report=False)
    seconds = (time.process_time() - began) / (len(networks) * result.manifest["data"]["usable"])
    print(result, flush=True)
    rows: list[Row] = []
    for number, network in enumerate(networks):
        found = [*measures(result, network, number), {"measure": "CPU seconds", "value": seconds}]
        rows += [{"network": network, "preset": preset, **row} for row in found]
    return pd.DataFrame(rows)


def main() -> None:
    """Run one study for each preset and write the table, in which other presets keep their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", help="names in the zoo; all by default")
    parser.add_argument("--images", type=int, default=3, help="of each person")
    parser.add_argument("--presets", nargs="+", default=["fast", "default", "layers"])
    parser.add_argument("--out", type=Path, default=Path("results/study_presets"))
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    networks = options.networks or list(load_zoo(options.data))
    options.out.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(options.csv) if options.csv and options.csv.exists() else pd.DataFrame(columns=["preset"])
    for preset in options.presets:
        made = run(write_study(options.out, options.data, networks, options.images, preset), networks, preset)
        table = pd.concat([table[table["preset"] != preset], made.round(4)]) if len(table) else made.round(4)
        if options.csv:
            table.to_csv(options.csv, index=False)
    wide = table.pivot_table(index="measure", columns=["network", "preset"], values="value", sort=False)
    print(wide.round(3).to_string())


if __name__ == "__main__":
    main()
