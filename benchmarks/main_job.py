"""LEAM against Captum's LayerGradCam on real faces and networks: occlusion drop, and overlap of the maps.

    python benchmarks/main_job.py --data ../shared/real

Drop: mean cosine drop after blurring (σ 10 px) the top 5 % of pixels of each map, towards the leave-one-out centroid of
the person, on the explained network and on the other. BC: Bhattacharyya coefficient of top-1 % maps, same and
different people. Any folder with faces/PERSON/*.png and models.py (RECOGNISERS, FIELDS, and the layers
stem, stages.0.4, stages.2.5, stages.4.1) works. Not shown: other networks, colour faces, other fills, intervals.
"""

import argparse
import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerGradCam
from PIL import Image
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity, bhattacharyya, leave_one_out_centroids, overall_map
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.maps import Field, place_on_field

LAYERS = {56: "stem", 28: "stages.0.4", 14: "stages.2.5", 7: "stages.4.1"}


def load_models(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("models", folder / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_faces(folder: Path, people: int | None = None, per_person: int | None = None) -> tuple[Tensor, list[str]]:
    chosen = [sorted(p.glob("*.png"))[:per_person] for p in sorted((folder / "faces").iterdir())[:people]]
    paths = [path for person in chosen for path in person]
    arrays = [np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255 for path in paths]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous(), [path.parent.name for path in paths]


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


def maps_of(model: nn.Module, images: Tensor, references: Tensor, field: Field) -> dict[str, Tensor]:
    size = tuple(images.shape[2:])
    layers = {px: model.get_submodule(name) for px, name in LAYERS.items()}
    methods: dict[str, LEAM | LayerGradCam] = {}
    for norm in ("detach", "differentiate"):
        for px, layer in layers.items():
            methods[f"LayerGradCam {px} px, {norm}"] = LayerGradCam(EmbeddingSimilarity(model, norm=norm), layer)
    for px, layer in layers.items():
        methods[f"LEAM elementwise {px} px"] = LEAM(model, layer)
    maps = {name: in_batches(placed_maps(method, size, field), images, references) for name, method in methods.items()}
    leam = LEAM(model, [layers[px] for px in (56, 28, 14)])

    def overall(x: Tensor, r: Tensor) -> Tensor:
        return overall_map(leam.attribute(x, reference=r, n_steps=4), size, field)

    return {**maps, "LEAM overall, path of 4": in_batches(overall, images, references)}


def overlap(maps: Tensor, labels: list[str]) -> tuple[float, float]:
    table = bhattacharyya(maps)
    person = np.asarray(labels)
    same = torch.from_numpy(person[:, None] == person[None])
    others = ~torch.eye(len(maps), dtype=torch.bool)
    return table[same & others].mean().item(), table[~same].mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int)
    parser.add_argument("--per-person", type=int)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Setting forward")
    source = load_models(options.data)
    images, labels = load_faces(options.data, options.people, options.per_person)
    networks = {name: make() for name, make in source.RECOGNISERS.items()}
    print(
        f"{len(images)} faces of {len(set(labels))} people, networks {', '.join(networks)}, references leave-one-out, seed 0"
    )
    evaluator = OcclusionEvaluator(networks, fractions=(0.05,), controls=("random pixels",), seed=0)
    for name, model in networks.items():
        with torch.no_grad():
            references = leave_one_out_centroids(torch.cat([model(x) for x in images.split(64)]), labels)
        maps = maps_of(model, images, references, source.FIELDS[name])
        drops = evaluator.evaluate(images, maps, labels=labels).summary()
        drops["map"] = drops["method"] + drops["control"]  # one of the two is empty
        table = drops.pivot(index="map", columns="model", values="drop").loc[[*maps, "random pixels"]]
        table = table[[name, *[other for other in networks if other != name]]]
        best = table[table.index.str.startswith("LayerGradCam")].max()
        for column in list(table.columns):
            table[f"{column} / best CAM"] = table[column] / best[column]
        pairs = {method: overlap(m, labels) for method, m in maps.items()}
        table["BC same"], table["BC different"] = (pd.Series({k: v[i] for k, v in pairs.items()}) for i in (0, 1))
        print(
            f"\nexplained network: {name}. Mean drop at 5 %, own model first; ratio to the best LayerGradCam of eight"
        )
        print(table.round(3).to_string())


if __name__ == "__main__":
    main()
