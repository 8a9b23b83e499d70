"""Are LEAM's maps person-specific on real faces and networks, and beyond which controls? Do models and layers agree?

    python benchmarks/patterns.py --data ../shared/real [--people N] [--per-person N] [--out results/patterns]

For each network: overall path maps (four steps; layers found by suggest_layers) with leave-one-out references; Bhattacharyya
coefficients of the same and of different people at the top 1 %, dense (on a 28 × 28 grid) and of region profiles, with AUC and the
permutation test of person labels; the gap above the strongest control: smoothed edges, the untrained twin, a parser's masks,
and strangers in the same pose. AT&T faces have no landmarks, so that "in the same pose" is: the crop of another person that
correlates most, which is stricter. Then the agreement of networks and layers. Intervals: 95 % over people; seed 0.
Every network of the folder (``research_data.py``) is explained, with its parser. Not shown: colour faces, more people.
"""

import argparse
from pathlib import Path
from time import perf_counter

import torch
from research_data import load_faces, load_networks, load_parser
from torch import Tensor, nn

from captum_leam import LEAM, leave_one_out_centroids, overall_map, suggest_layers
from captum_leam.maps import place_on_field
from captum_leam.objectives import embed
from captum_leam.patterns import (
    Signatures,
    agreement,
    closest_strangers,
    control_maps,
    crop_features,
    pattern_claim,
    person_specificity,
    signatures,
)
from captum_leam.regions import parse

KINDS = {"top 1 %": "top", "dense": "dense", "regions": "regions"}


def in_form(maps: Tensor, labels: Tensor, empty: str = "raise") -> dict[str, Signatures]:
    regions = list(range(19))
    options = {"top": {}, "dense": {"grid": (28, 28)}, "regions": {"labels": labels, "regions": regions}}
    return {name: signatures(maps, kind, empty=empty, **options[kind]) for name, kind in KINDS.items()}


def explained(model: nn.Module, images: Tensor, references: Tensor) -> dict[str, Tensor]:
    """The overall path map, and that of every suggested layer."""
    found = suggest_layers(model, images)
    leam = LEAM(model, found)
    parts = [
        leam.attribute(x, reference=r, n_steps=4) for x, r in zip(images.split(32), references.split(32), strict=True)
    ]
    layers = {layer.name: torch.cat(of_layer) for layer, of_layer in zip(found, zip(*parts, strict=True), strict=True)}
    chosen = [layers[layer.name] for layer in found.for_overall_map()]
    overall = overall_map(chosen, found.image_size, found.field)
    placed = {name: place_on_field(m, found.image_size, found.field) for name, m in layers.items()}
    return {"overall": overall, **placed}


def report(name: str, value: float, rule: str, limit: float) -> None:
    passed = value >= limit if rule == "≥" else value <= limit
    print(f"  {'passed' if passed else 'FAILED'}  {name} {value:.3f} {rule} {limit}")


def study(
    name: str, model: nn.Module, images: Tensor, people: list[str], labels: Tensor, out: Path
) -> dict[str, Signatures]:
    references = leave_one_out_centroids(embed(model, images, 64), people)
    maps = explained(model, images, references)
    made = in_form(maps["overall"], labels)
    controls = control_maps(images, people, model=model, labels=labels, maps=maps["overall"])
    of_controls = {control: in_form(m, labels, "zero") for control, m in controls.items()}
    strangers = closest_strangers(crop_features(images), people)
    print(f"\n===== {name}: {len(images)} maps of {len(set(people))} people; controls: {', '.join(controls)}")
    for kind, of_kind in made.items():
        found = person_specificity(of_kind, people)
        beside = {control: m[kind] for control, m in of_controls.items()}
        claim = pattern_claim(of_kind, people, beside, strangers={"strangers, crops most alike": strangers})
        print(f"\n--- {kind}\n{found}\n{claim}")
        for control, m in of_controls.items():
            auc = person_specificity(m[kind], people, permutations=0)["auc"]
            print(f"  AUC of {control}: {auc:.3f}")
        found.plot().savefig(out / f"{name}_{of_kind.kind}_specificity.png", dpi=120)
        claim.plot().savefig(out / f"{name}_{of_kind.kind}_claim.png", dpi=120)
        claim.to_frame().to_csv(out / f"{name}_{of_kind.kind}_claim.csv", index=False)
        if kind == "top 1 %":
            print("\nneeded")
            report("BC of the same person", found["same"], "≥", 0.30)
            report("BC of different people", found["different"], "≤", 0.16)
            report("AUC", found["auc"], "≥", 0.90)
    return {f"{name} {layer}": signatures(m.clamp(min=0), empty="zero") for layer, m in maps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", help="names in the zoo; all by default")
    parser.add_argument("--people", type=int)
    parser.add_argument("--per-person", type=int)
    parser.add_argument("--out", type=Path, default=Path("results/patterns"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    started = perf_counter()
    images, people = load_faces(options.data, options.people, options.per_person)
    face_parser = load_parser(options.data)
    labels = torch.cat([parse(face_parser, x) for x in images.split(32)])
    everything: dict[str, Signatures] = {}
    for name, model in load_networks(options.data, options.networks).items():
        everything |= study(name, model, images, people, labels, options.out)
    overall = agreement({name: m for name, m in everything.items() if name.endswith("overall")}, people)
    print(f"\n{overall}")
    layers = agreement(everything, people)
    print(f"\nlayers and networks, at the top 1 %; beside each other in the tree: {', '.join(layers.order)}")
    print(layers.matrix().round(2).to_string())
    layers.plot().savefig(options.out / "agreement.png", dpi=120)
    layers.to_frame().to_csv(options.out / "agreement.csv", index=False)
    print(f"\nwritten to {options.out}; {perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
