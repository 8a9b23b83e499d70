"""Every serious peer on one harness: occlusion drop, on the explained network and the other, against counted cost.

    python benchmarks/peers.py --data ../shared/real [--people N] [--per-person M] [--quick] [--out results/peers]

References are leave-one-out centroids over all images of the people; the first ``--per-person`` images of each are explained. Every map is
ranked as it is and after the same blur (σ 4 px), and its top 5 and 20 % are replaced by a blur (σ 10 px) or noisy-linear imputation.
Share of the limit: over the drop of the extremal perturbation for that fraction (blur, own network), which is made for that fill
and that network. Passes and seconds are per image; the thresholds of xSSAB and FGGB are the networks' equal error points. Seed 0.
Writes peers.csv and peers.png. Any folder with faces/PERSON/*.png and models.py (RECOGNISERS, FIELDS) works. ``--quick``: 6 people,
50 masks, 20 steps, one restart of 60 steps for the limit. Not shown: verification deletion and insertion, planted evidence,
person-specificity, peak memory, pytorch-grad-cam and torch-cam themselves.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from captum.attr import GradientShap, InputXGradient, IntegratedGradients, Occlusion, Saliency
from main_job import load_faces, load_models
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from captum_leam import LEAM, EmbeddingSimilarity, leave_one_out_centroids, overall_map, suggest_layers
from captum_leam.explainers import (
    FAME,
    FGGB,
    RISE,
    XSSAB,
    CorrRISE,
    Cost,
    Explainer,
    ExtremalPerturbation,
    GradCAM,
    HiResCAM,
    LayerCAM,
    PositionDecomposition,
    RegionShapley,
    XFace,
)
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.maps import Field, default_blur, place_on_field
from captum_leam.plots import COLOURS
from captum_leam.regions import TemplateParser
from captum_leam.suggest import LayerSuggestions

FRACTIONS = (0.05, 0.2)
SMOOTH = (0.0, 4.0)
LIMIT = "limit (extremal perturbation)"
Maps = Callable[[Tensor, Tensor], Tensor]


# -- methods -------------------------------------------------------------------------------------------


def leam_forms(model: nn.Module, found: LayerSuggestions, field: Field) -> dict[str, Maps]:
    size, overall = found.image_size, found.for_overall_map()
    middle = overall[min(1, len(overall) - 1)]
    one = LEAM(model, middle.module, reshape=middle.reshape)
    every = LEAM(model, [layer.module for layer in overall], reshape=[layer.reshape for layer in overall])
    return {
        f"LEAM {middle.shape[1]} px": lambda x, r: place_on_field(one.attribute(x, reference=r), size, field),
        "LEAM overall, one pass": lambda x, r: overall_map(every.attribute(x, reference=r), size, field),
        "LEAM overall, path of 4": lambda x, r: overall_map(every.attribute(x, reference=r, n_steps=4), size, field),
    }


def peers(
    model: nn.Module, found: LayerSuggestions, field: Field, threshold: float, quick: bool
) -> dict[str, Explainer]:
    last, overall = found[-1], found.for_overall_map()
    middle = overall[min(1, len(overall) - 1)]
    masks, steps = (50, 20) if quick else (500, 75)
    methods: dict[str, Explainer] = {}
    for layer in (last, middle):
        options = {"reshape": layer.reshape, "field": field}
        for kind in (GradCAM, LayerCAM, HiResCAM):
            methods[f"{kind.__name__} {layer.shape[1]} px"] = kind(model, layer.module, **options)
    methods |= {
        f"PositionDecomposition {last.shape[1]} px": PositionDecomposition(
            model, last.module, reshape=last.reshape, field=field
        ),
        "xSSAB": XSSAB(model, threshold=threshold),
        "FGGB": FGGB(model, threshold=threshold),
        f"FAME, {steps} steps": FAME(model, n_steps=steps),
        f"CorrRISE, {masks} masks": CorrRISE(model, masks=masks),
        f"RISE, {masks} masks": RISE(model, masks=masks),
        "xFace": XFace(model, stride=14) if quick else XFace(model),
        "RegionShapley, template": RegionShapley(model, TemplateParser(), orders=3 if quick else 10),
    }
    return methods


def pixel_map(attributions: Tensor) -> Tensor:
    """Input attributions (N, C, H, W) to maps: absolute value, summed over colours."""
    return attributions.detach().abs().sum(1)


def captum_methods(model: nn.Module, quick: bool) -> dict[str, Maps]:
    cosine, fixed = EmbeddingSimilarity(model, norm="differentiate"), EmbeddingSimilarity(model, norm="fixed")

    def along_path(kind: type, **options: object) -> Maps:
        def run(x: Tensor, r: Tensor) -> Tensor:
            weights = (fixed.fixed_weights(x, r),)
            start = default_blur(x)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                return pixel_map(kind(fixed).attribute(x, baselines=start, additional_forward_args=weights, **options))

        return run

    def occlusion(x: Tensor, r: Tensor) -> Tensor:
        windows = {"sliding_window_shapes": (x.shape[1], 14, 14), "strides": (x.shape[1], 7, 7)}
        return Occlusion(cosine).attribute(x, additional_forward_args=(r,), **windows).detach().mean(1)

    methods: dict[str, Maps] = {
        "Saliency": lambda x, r: pixel_map(Saliency(cosine).attribute(x, additional_forward_args=(r,))),
        "InputXGradient": lambda x, r: pixel_map(InputXGradient(cosine).attribute(x, additional_forward_args=(r,))),
        "IntegratedGradients, 20 steps": along_path(IntegratedGradients, n_steps=20, internal_batch_size=64),
        "GradientShap, 20 samples": along_path(GradientShap, n_samples=20, stdevs=0.05),
        "Occlusion 14 px": occlusion,
    }
    return {name: method for name, method in methods.items() if not (quick and name.startswith("Occlusion"))}


# -- cost ----------------------------------------------------------------------------------------------


@contextmanager
def metered(model: nn.Module) -> Iterator[dict[str, int]]:
    """Images forward through the model, and gradients back from its output, counted by hooks for the time of the block."""
    counts = {"forwards": 0, "backwards": 0}

    def back(gradient: Tensor) -> None:
        counts["backwards"] += len(gradient)

    def forward(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        counts["forwards"] += len(args[0])
        if output.requires_grad:
            output.register_hook(back)

    handle = model.register_forward_hook(forward)
    try:
        yield counts
    finally:
        handle.remove()


def run(method: Maps | Explainer, model: nn.Module, images: Tensor, references: Tensor) -> tuple[Tensor, Cost, float]:
    """Maps (N, H, W), passes per image, seconds per image."""
    explain = (lambda x, r: method.attribute(x, r)[:, 0]) if isinstance(method, Explainer) else method
    started = time.perf_counter()
    with metered(model) as counts:
        parts = [explain(x, r) for x, r in zip(images.split(16), references.split(16), strict=True)]
    seconds = (time.perf_counter() - started) / len(images)
    cost = Cost(counts["forwards"] / len(images), counts["backwards"] / len(images))
    if isinstance(method, Explainer):
        cost = method.cost  # the hooks cannot see into a vectorised backward pass
    return torch.cat(parts), cost, seconds


# -- references and thresholds -------------------------------------------------------------------------


def embed(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(x) for x in images.split(64)])


def equal_error_threshold(embeddings: Tensor, references: Tensor, labels: list[str]) -> float:
    """The cosine at which as many images are rejected by their own person's reference as are accepted by others'."""
    scores = nn.functional.normalize(embeddings, dim=1) @ references.T
    person = np.asarray(labels)
    same = torch.from_numpy(person[:, None] == person[None])
    genuine, impostor = scores.diagonal(), scores[~same]
    candidates = genuine.sort().values
    rejected = torch.stack([(genuine < t).double().mean() for t in candidates])
    accepted = torch.stack([(impostor >= t).double().mean() for t in candidates])
    return float(candidates[(rejected - accepted).abs().argmin()])


def every_nth(labels: list[str], per_person: int) -> list[int]:
    """The first images of every person."""
    seen: dict[str, int] = {}
    chosen = []
    for i, person in enumerate(labels):
        seen[person] = seen.get(person, 0) + 1
        if seen[person] <= per_person:
            chosen.append(i)
    return chosen


# -- tables --------------------------------------------------------------------------------------------


def drops(
    networks: dict[str, nn.Module],
    images: Tensor,
    maps: dict[str, Tensor],
    references: dict[str, Tensor],
    labels: list[str],
    explained: str,
    fractions: tuple[float, ...],
    smooths: tuple[float, ...],
    controls: tuple[str, ...],
) -> pd.DataFrame:
    tables = []
    for smooth in smooths:
        evaluator = OcclusionEvaluator(
            networks, fractions, fills=("blur", "noisy linear"), controls=controls, smooth=smooth
        )
        result = evaluator.evaluate(images, maps, references, labels, explained=explained)
        table = result.summary()
        table["method"] = [m or f"control: {c}" for m, c in zip(table["method"], table["control"], strict=True)]
        tables.append(table.assign(smooth=smooth))
    return pd.concat(tables, ignore_index=True)


def explain_and_measure(
    name: str, networks: dict, source, images: Tensor, labels: list[str], chosen: list[int], quick: bool
) -> pd.DataFrame:
    model, field = networks[name], source.FIELDS[name]
    found = suggest_layers(model, images)
    every = {n: leave_one_out_centroids(embed(m, images), labels) for n, m in networks.items()}
    references = {n: r[chosen] for n, r in every.items()}
    threshold = equal_error_threshold(embed(model, images), every[name], labels)
    methods = {
        **leam_forms(model, found, field),
        **peers(model, found, field, threshold, quick),
        **captum_methods(model, quick),
    }
    x, people = images[chosen], [labels[i] for i in chosen]
    maps, costs = {}, {}
    for method, explainer in (bar := tqdm(methods.items(), desc=f"explaining {name}")):
        bar.set_postfix_str(method)
        try:
            maps[method], cost, seconds = run(explainer, model, x, references[name])
        except ValueError as error:
            print(f"\n{method} does not apply to {name}: {error}")
            continue
        costs[method] = {"forwards": cost.forwards, "backwards": cost.backwards, "seconds": seconds}
    tables = [
        drops(networks, x, maps, references, people, name, FRACTIONS, SMOOTH, ("random pixels", "centre", "edges"))
    ]
    for fraction in FRACTIONS:
        steps, restarts = (60, 1) if quick else (300, 3)
        limit = ExtremalPerturbation(model, area=fraction, n_steps=steps, restarts=restarts)
        best, cost, seconds = run(limit, model, x, references[name])
        costs[LIMIT] = {"forwards": cost.forwards, "backwards": cost.backwards, "seconds": seconds}
        tables.append(drops(networks, x, {LIMIT: best}, references, people, name, (fraction,), (0.0,), ()))
    table = pd.concat(tables, ignore_index=True)
    return table.merge(pd.DataFrame(costs).T.rename_axis("method").reset_index(), on="method", how="left")


def with_share_of_limit(table: pd.DataFrame) -> pd.DataFrame:
    limit = table[(table["method"] == LIMIT) & (table["fill"] == "blur") & (table["explained"] == table["model"])]
    by_cell = limit.set_index(["explained", "fraction"])["drop"]
    cells = zip(table["explained"], table["fraction"], strict=True)
    comparable = (table["fill"] == "blur") & (table["explained"] == table["model"])
    table["share of limit"] = np.where(comparable, table["drop"] / [by_cell[c] for c in cells], np.nan)
    return table


def show(table: pd.DataFrame) -> None:
    for explained, part in table.groupby("explained", sort=False):
        part = part.copy()
        part["where"] = np.where(part["model"] == explained, "own", "transfer")
        part["cell"] = [
            f"{w} {f} {p:.0%}" + (f" σ{s:g}" if s else "")
            for w, f, p, s in part[["where", "fill", "fraction", "smooth"]].itertuples(index=False)
        ]
        own_first = [c for w in ("own", "transfer") for c in part["cell"].unique() if c.startswith(w)]
        wide = part.pivot_table(index="method", columns="cell", values="drop", sort=False)[own_first]
        first = part.drop_duplicates("method").set_index("method")[["forwards", "backwards", "seconds"]]
        shares = part[(part["smooth"] == 0) & part["share of limit"].notna() & (part["fraction"] == FRACTIONS[0])]
        wide[f"share of limit {FRACTIONS[0]:.0%}"] = shares.set_index("method")["share of limit"]
        print(f"\nexplained network: {explained}, mean drop of the cosine; passes and seconds per image")
        print(wide.join(first).round(3).to_string())


def pareto(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no cheaper one reaches."""
    ordered = points.sort_values(["passes", "drop"], ascending=[True, False])
    return ordered[ordered["drop"] > ordered["drop"].cummax().shift(fill_value=-np.inf)]


def figure(table: pd.DataFrame) -> Figure:
    """Drop at 5 % (blur, own network) against passes, log scale, with the Pareto front, a panel for each network."""
    table = table.assign(passes=table["forwards"] + table["backwards"])
    own = (table["explained"] == table["model"]) & (table["fill"] == "blur") & (table["smooth"] == 0)
    shown = table[own & (table["fraction"] == FRACTIONS[0]) & table["passes"].notna()]
    panels = list(shown.groupby("explained", sort=False))
    fig, axes = plt.subplots(1, len(panels), figsize=(7 * len(panels), 5), squeeze=False, sharey=True)
    for axis, (name, points) in zip(axes[0], panels, strict=True):
        leam = points["method"].str.startswith("LEAM")
        axis.scatter(points["passes"], points["drop"], c=np.where(leam, COLOURS[1], COLOURS[0]), s=18, zorder=3)
        front = pareto(points)
        axis.step(front["passes"], front["drop"], where="post", color=COLOURS[7], linewidth=0.8)
        for method, passes, drop in points[["method", "passes", "drop"]].itertuples(index=False):
            axis.annotate(method, (passes, drop), xytext=(3, 3), textcoords="offset points", fontsize=6)
        axis.set(xscale="log", xlabel="forward and backward passes per image", title=f"network {name}")
    axes[0][0].set_ylabel("drop of the cosine, top 5 % blurred")
    fig.tight_layout()
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int)
    parser.add_argument("--per-person", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/peers"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="(Setting forward|Input Tensor)")
    started = time.perf_counter()
    source = load_models(options.data)
    people = options.people or (6 if options.quick else None)
    images, labels = load_faces(options.data, people)
    chosen = every_nth(labels, options.per_person)
    networks = {name: make().eval() for name, make in source.RECOGNISERS.items()}
    print(
        f"{len(chosen)} faces of {len(set(labels))} people explained, references from {len(images)}; networks {', '.join(networks)}; "
        f"{torch.get_num_threads()} threads; seed 0"
    )
    table = with_share_of_limit(
        pd.concat(
            [explain_and_measure(n, networks, source, images, labels, chosen, options.quick) for n in networks],
            ignore_index=True,
        )
    )
    show(table)
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "peers.csv", index=False)
    figure(table).savefig(options.out / "peers.png", dpi=150)
    print(f"\nwritten to {options.out}; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
