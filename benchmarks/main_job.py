"""LEAM against Captum's LayerGradCam on real faces and networks: occlusion drop, and overlap of the maps.

    python benchmarks/main_job.py --data ../shared/real [--presets fast default best] [--csv docs/_data/main_job.csv]

Drop: mean cosine drop after blurring (σ 10 px) the top 5 % of pixels of each map, towards the leave-one-out centroid of
the person, on the explained network and on the other. BC: Bhattacharyya coefficient of top-1 % maps, same and
different people. Any folder with faces/PERSON/*.png and models.py (RECOGNISERS, FIELDS, and the layers
stem, stages.0.4, stages.2.5, stages.4.1) works. Not shown: other networks, colour faces, other fills.
"""

import argparse
import importlib.util
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerGradCam
from PIL import Image
from torch import Tensor, nn

from captum_leam import (
    LEAM,
    EmbeddingSimilarity,
    bhattacharyya,
    explain_faces,
    leave_one_out_centroids,
    overall_map,
    suggest_layers,
)
from captum_leam._engine.types import Field
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.maps import place_on_field

LAYERS = {56: "stem", 28: "stages.0.4", 14: "stages.2.5", 7: "stages.4.1"}
PRESETS = ("fast", "default", "best")


def load_models(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("models", folder / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_zoo(folder: Path) -> dict[str, Callable[[], nn.Module]]:
    """Return name → function that makes the network: ``ZOO`` of the folder's zoo.py, or else ``RECOGNISERS`` of its models.py."""
    if not (folder / "zoo.py").is_file():
        return dict(load_models(folder).RECOGNISERS)
    spec = importlib.util.spec_from_file_location("zoo", folder / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.ZOO)


def load_faces(
    folder: Path, people: int | None = None, per_person: int | None = None, *, name: str = "faces"
) -> tuple[Tensor, list[str]]:
    chosen = [sorted(p.glob("*.png"))[:per_person] for p in sorted((folder / name).iterdir())[:people]]
    paths = [path for person in chosen for path in person]
    arrays = [np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255 for path in paths]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    return images, [path.parent.name for path in paths]


def load_networks(source: ModuleType) -> dict[str, nn.Module]:
    """Name → network, channels last in memory: the same numbers to rounding in two thirds of the time."""
    return {name: make().eval().to(memory_format=torch.channels_last) for name, make in source.RECOGNISERS.items()}


def placed_maps(method, size: tuple[int, int], field: Field):
    """A function of images and references that gives the maps of a Captum method at image size."""

    def run(images: Tensor, references: Tensor) -> Tensor:
        takes_references = (
            {"reference": references} if isinstance(method, LEAM) else {"additional_forward_args": (references,)}
        )
        return place_on_field(method.attribute(images, **takes_references).detach(), size, field)

    return run


def in_batches(function, images: Tensor, references: Tensor, batch: int = 32) -> Tensor:
    parts = [function(x, r) for x, r in zip(images.split(batch), references.split(batch), strict=True)]
    return torch.cat(parts)


def maps_of(
    model: nn.Module, images: Tensor, references: Tensor, field: Field, presets: list[str]
) -> dict[str, Tensor]:
    size = tuple(images.shape[2:])
    layers = {px: model.get_submodule(name) for px, name in LAYERS.items()}
    methods: dict[str, LEAM | LayerGradCam] = {}
    for norm in ("detach", "differentiate"):
        for px, layer in layers.items():
            methods[f"LayerGradCam {px} px, {norm}"] = LayerGradCam(EmbeddingSimilarity(model, norm=norm), layer)
    for px, layer in layers.items():
        methods[f"LEAM elementwise {px} px"] = LEAM(model, layer)
    methods["LEAM elementwise 28 px, plain cosine"] = LEAM(model, layers[28], norm="differentiate")
    leam = LEAM(model, [layers[px] for px in (56, 28, 14)])
    found = suggest_layers(model, images)

    def overall(x: Tensor, r: Tensor) -> Tensor:
        return overall_map(leam.attribute(x, reference=r, n_steps=4), size, field)

    def of_preset(preset: str, x: Tensor, r: Tensor) -> Tensor:
        return explain_faces(model, x, preset, layers=found, field=field, reference=r)

    functions = {name: placed_maps(method, size, field) for name, method in methods.items()}
    functions["LEAM overall, path of 4"] = overall
    functions |= {f"LEAM {preset}": partial(of_preset, preset) for preset in presets}
    return {name: in_batches(function, images, references) for name, function in functions.items()}


def overlap(maps: Tensor, labels: list[str]) -> tuple[float, float]:
    table = bhattacharyya(maps)
    person = np.asarray(labels)
    same = torch.from_numpy(person[:, None] == person[None])
    others = ~torch.eye(len(maps), dtype=torch.bool)
    return table[same & others].mean().item(), table[~same].mean().item()


def measured(summary: pd.DataFrame, name: str, pairs: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Of one explained network: every drop with its interval, and both coefficients, one number in a row."""
    drops = summary[["map", "model", "drop", "low", "high"]].rename(columns={"drop": "value"})
    own = drops["model"] == name
    drops["quantity"] = own.map({True: "drop on itself", False: "drop on the other"})
    same, different = (
        pd.DataFrame({"map": list(pairs), "quantity": said, "value": [both[i] for both in pairs.values()]})
        for i, said in enumerate(("BC same person", "BC different people"))
    )
    return pd.concat([drops.drop(columns="model"), same, different], ignore_index=True).assign(explained=name)


def with_best_cam(table: pd.DataFrame) -> pd.DataFrame:
    """The largest drop of the eight LayerGradCam in place of them all; what is left for the documentation."""
    cams = table["map"].str.startswith("LayerGradCam")
    drops = table[cams & table["low"].notna()]
    best = drops.loc[drops.groupby(["explained", "quantity"])["value"].idxmax()]
    best = best.assign(map="Captum LayerGradCam, best of 4 layers × 2 norms")
    left = table[~cams & ~table["map"].str.contains("elementwise (?:56|14|7) px$")]
    said = (
        left["map"].replace("elementwise 28 px", "28 px, one pass", regex=True).replace("^LEAM ", "LEAM, ", regex=True)
    )
    return pd.concat([best, left.assign(map=said)])[["explained", "map", "quantity", "value", "low", "high"]]


def show(table: pd.DataFrame, name: str, maps: list[str]) -> None:
    wide = table.pivot(index="map", columns="quantity", values="value").loc[maps]
    drops = wide[["drop on itself", "drop on the other"]]
    best = drops[drops.index.str.startswith("LayerGradCam")].max()
    ratios = (drops / best).add_suffix(" / best CAM")
    print(f"\nexplained network: {name}. Mean drop at 5 %, own model first; ratio to the best LayerGradCam of eight")
    print(pd.concat([drops, ratios, wide[["BC same person", "BC different people"]]], axis=1).round(3).to_string())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int)
    parser.add_argument("--per-person", type=int)
    parser.add_argument("--presets", nargs="*", choices=PRESETS, default=list(PRESETS), help="of explain_faces")
    parser.add_argument("--csv", type=Path, help="also write the documentation's numbers to this file")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore", "Setting forward")
    source = load_models(options.data)
    images, labels = load_faces(options.data, options.people, options.per_person)
    networks = load_networks(source)
    print(
        f"{len(images)} faces of {len(set(labels))} people, networks {', '.join(networks)}, references leave-one-out, seed 0"
    )
    evaluator = OcclusionEvaluator(networks, fractions=(0.05,), controls=("random pixels",), seed=0)
    tables = []
    for name, model in networks.items():
        with torch.no_grad():
            references = leave_one_out_centroids(torch.cat([model(x) for x in images.split(64)]), labels)
        maps = maps_of(model, images, references, source.FIELDS[name], options.presets)
        drops = evaluator.evaluate(images, maps, labels=labels).summary()
        drops["map"] = drops["method"] + drops["control"]  # one of the two is empty
        tables.append(measured(drops, name, {method: overlap(m, labels) for method, m in maps.items()}))
        show(tables[-1], name, [*maps, "random pixels"])
    if options.csv:
        with_best_cam(pd.concat(tables, ignore_index=True)).round(4).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
