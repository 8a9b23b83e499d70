"""LEAM against Captum's LayerGradCam and IntegratedGradients on real faces and networks: occlusion drop, and overlap of the maps.

    python benchmarks/main_job.py --data ../shared/real [--faces faces faces_colour masks photos] [--networks NAME ...]
        [--presets fast default best] [--csv docs/_data/main_job.csv]

Drop: mean fall of the cosine to the leave-one-out centroid of the person after blurring (σ 10 px) the top 5 % of the pixels of each map, in
units of the network's gap between genuine and impostor mean cosines, so that networks can be averaged. Own: on the explained network.
Transfer: mean of the networks of other architectures. BC: Bhattacharyya coefficient of top-1 % maps, same and different people. Every
network of the folder is explained (``research_data.py``), its layers are those of `suggest_layers`. LayerGradCam: the largest mean of all
suggested layers × two norms, chosen on the reported faces, which favours it. IntegratedGradients: 20 steps from the blurred image, positive
part, σ 2 px, the reading that ``contest.py`` chose for it on tuning people. Intervals: 95 % over people; seed 0. Not shown: other fills.

``masks`` (aligned crops) and ``photos`` (photographs, aligned here) have one image of each person: the reference is its own embedding, so
that 1 gap is the difference between 1 and the mean cosine of two people. At the image itself the gradient of that cosine is 0, so the forms
that differentiate it there are left out.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from research_data import (
    are_single,
    gap_of,
    load_faces,
    load_networks,
    load_single_faces,
    own_and_transfer,
    references_of,
)
from torch import Tensor, nn

from captum_leam import (
    LEAM,
    EmbeddingSimilarity,
    LayerSuggestions,
    bhattacharyya,
    explain_faces,
    overall_map,
    suggest_layers,
)
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.maps import default_blur, gaussian_blur, place_on_field
from captum_leam.objectives import embed
from captum_leam.stats.inference import bootstrap_interval

PRESETS = ("fast", "default", "best")
CAM = "LayerGradCam, "
BEST_CAM = "Captum LayerGradCam, best of its layers and norms"
PATH = "Captum IntegratedGradients, 20 steps, positive, σ 2 px"
PLAIN = "LEAM, middle layer, one pass, plain cosine"
RANDOM = "random pixels"
ALL = "mean of the networks"
SINGLE = ("masks", "photos")  # folders without a folder for each person
Maps = Callable[[Tensor, Tensor], Tensor]


def methods_of(model: nn.Module, found: LayerSuggestions, presets: list[str], *, is_single: bool) -> dict[str, Maps]:
    """Return name → function of images and references that returns maps (N, H, W).

    Args:
        model: Explained network.
        found: Its layers.
        presets: Presets of ``explain_faces``.
        is_single: Whether the reference of an image is its own embedding.
    """
    size, field = found.image_size, found.field
    layers = found.for_overall_map()
    middle = layers[min(1, len(layers) - 1)]
    leam, signed = LEAM(model, layers), EmbeddingSimilarity(model, norm="fixed")

    def placed(attribute: Callable[[Tensor, Tensor], Tensor], x: Tensor, r: Tensor) -> Tensor:
        return place_on_field(attribute(x, r).detach(), size, field)

    def cam(norm: str, layer: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        method = LayerGradCam(EmbeddingSimilarity(model, norm=norm), layer)
        return lambda x, r: method.attribute(x, additional_forward_args=(r,))

    def one_pass(norm: str) -> Callable[[Tensor, Tensor], Tensor]:
        method = LEAM(model, middle, norm=norm)
        return lambda x, r: method.attribute(x, reference=r)

    def integrated(x: Tensor, r: Tensor) -> Tensor:
        options = {"baselines": default_blur(x), "n_steps": 20, "internal_batch_size": 64}
        attributions = IntegratedGradients(signed).attribute(
            x, additional_forward_args=(signed.fixed_weights(x, r),), **options
        )
        return gaussian_blur(attributions.detach().double().sum(1).clamp(min=0), 2.0)

    cams = {
        f"{CAM}{layer.name}, {norm}": partial(placed, cam(norm, layer.module))
        for layer in found
        if layer.reshape is None
        for norm in (("detach",) if is_single else ("detach", "differentiate"))
    }
    return {
        **cams,
        PATH: integrated,
        "LEAM, middle layer, one pass": partial(placed, one_pass("detach")),
        **({} if is_single else {PLAIN: partial(placed, one_pass("differentiate"))}),
        "LEAM, layers, path of 4": lambda x, r: overall_map(leam.attribute(x, reference=r, n_steps=4), size, field),
        **{
            f"LEAM, {preset}": lambda x, r, preset=preset: explain_faces(model, x, preset, layers=found, reference=r)
            for preset in presets
        },
    }


def in_batches(function: Maps, images: Tensor, references: Tensor, batch: int = 16) -> Tensor:
    """Return the maps of all images."""
    parts = [function(x, r) for x, r in zip(images.split(batch), references.split(batch), strict=True)]
    return torch.cat(parts)


def overlap(maps: Tensor, labels: list[str]) -> tuple[float, float]:
    """Return the mean Bhattacharyya coefficient of maps of the same person, and of different people."""
    table = bhattacharyya(maps)
    person = np.asarray(labels)
    same = torch.from_numpy(person[:, None] == person[None])
    others = ~torch.eye(len(maps), dtype=torch.bool)
    return table[same & others].mean().item(), table[~same].mean().item()


def drops_of(
    networks: dict[str, nn.Module], explained: str, images: Tensor, labels: list[str], maps: dict[str, Tensor]
) -> pd.DataFrame:
    """Return one row per map, image and where (own, transfer): the drop in gaps."""
    evaluator = OcclusionEvaluator(networks, fractions=(0.05,), controls=(RANDOM,), seed=0)
    gaps = {name: gap_of(model, images, labels) for name, model in networks.items()}
    references = {name: references_of(embed(model, images, 16), labels) for name, model in networks.items()}
    result = own_and_transfer(evaluator.evaluate(images, maps, references, labels, explained=explained), networks, gaps)
    table = result.to_frame().rename(columns={"model": "where", "drop": "in_gaps"})
    table["map"] = table["method"] + table["control"]  # one of the two is empty
    return with_best_cam(table[["map", "where", "image", "person", "in_gaps"]])


def with_best_cam(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with LayerGradCam of the layer and norm with the largest mean, for each of own and transfer, in place of all."""
    is_cam = table["map"].str.startswith(CAM)
    best = table[is_cam].groupby(["where", "map"])["in_gaps"].mean().groupby(level=0).idxmax()
    kept = [
        table[is_cam & (table["where"] == where) & (table["map"] == name)].assign(map=BEST_CAM) for where, name in best
    ]
    return pd.concat([*kept, table[~is_cam]], ignore_index=True)


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean drops with 95 % intervals over people, for each explained network and for the mean of all.

    Args:
        table: One row per faces, explained network, map, where, image and person, with ``in_gaps``.
    """
    cell = ["faces", "map", "where", "image", "person"]
    of_all = table.groupby(cell, sort=False)["in_gaps"].mean().reset_index().assign(explained=ALL)
    rows = []
    for key, part in pd.concat([table, of_all]).groupby(["faces", "explained", "map", "where"], sort=False):
        low, high = bootstrap_interval(part["in_gaps"], part["person"].tolist())
        names = dict(zip(("faces", "explained", "map", "quantity"), key, strict=True))
        rows.append({**names, "value": part["in_gaps"].mean(), "low": float(low), "high": float(high)})
    return pd.DataFrame(rows)


def explained(
    networks: dict[str, nn.Module], name: str, images: Tensor, labels: list[str], presets: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the drops of all maps of one network, and the coefficients of those that are not LayerGradCam's."""
    model = networks[name]
    references, is_single = references_of(embed(model, images, 16), labels), are_single(labels)
    methods = methods_of(model, suggest_layers(model, images[:4]), presets, is_single=is_single)
    maps = {method: in_batches(function, images, references) for method, function in methods.items()}
    rows = []
    for method, of_method in maps.items():
        if not method.startswith(CAM):
            same, different = overlap(of_method, labels)
            if not is_single:
                rows.append({"map": method, "quantity": "BC same person", "value": same})
            rows.append({"map": method, "quantity": "BC different people", "value": different})
    return drops_of(networks, name, images, labels, maps), pd.DataFrame(rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--faces", nargs="+", default=["faces"], help="folders of the data folder")
    parser.add_argument("--networks", nargs="+", help="names in the zoo; all by default")
    parser.add_argument("--people", type=int)
    parser.add_argument("--per-person", type=int)
    parser.add_argument("--presets", nargs="*", choices=PRESETS, default=list(PRESETS), help="of explain_faces")
    parser.add_argument("--csv", type=Path, help="also write the documentation's numbers to this file")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore", "(Setting forward|Input Tensor)")
    networks = load_networks(options.data, options.networks)
    drops, overlaps = [], []
    for faces in options.faces:
        if faces in SINGLE:
            images, labels = load_single_faces(options.data, options.people, name=faces)
        else:
            images, labels = load_faces(options.data, options.people, options.per_person, name=faces)
        how = "the image itself" if are_single(labels) else "leave-one-out"
        print(f"{faces}: {len(images)} images of {len(set(labels))} people; references: {how}; seed 0")
        for name in networks:
            of_images, of_pairs = explained(networks, name, images, labels, options.presets)
            drops.append(of_images.assign(faces=faces, explained=name))
            overlaps.append(of_pairs.assign(faces=faces, explained=name))
            print(f"  {name} explained, gap {gap_of(networks[name], images, labels):.2f}", flush=True)
    table = pd.concat([means(pd.concat(drops, ignore_index=True)), *overlaps], ignore_index=True)
    for (faces, name), part in table.groupby(["faces", "explained"], sort=False):
        print(f"\n{faces}, {name} explained: mean drop at 5 % in gaps, own and transfer; overlap of maps")
        print(part.pivot_table(index="map", columns="quantity", values="value", sort=False).round(3).to_string())
    if options.csv:
        table.round(4).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
