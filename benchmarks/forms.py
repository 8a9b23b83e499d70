"""What LEAM's best form was chosen from: starts, layers, smoothing, greedy rounds, occlusion rounds, on the people that are tuned on.

    python benchmarks/forms.py --data ../shared/real [--people N] [--per-person 3] [--workers 2] [--csv docs/_data/forms.csv]

Every form makes one map of an image with a counted number of passes. Drop: mean fall of the cosine when the top 5 or 20 % of the pixels
are blurred (σ 10 px) or imputed (noisy linear), towards the leave-one-out centroid, on the explained network (own) and the other
(transfer). AUC: of top-10 % Bhattacharyya coefficients as a same-or-different classifier; BC of the top 1 %. On the half of the people
that ``split.py`` tunes on: AUC and BC of the first ``--per-person`` images of each, drops of the first; the other half is kept for
``peers.py``. Seed 0, one thread for each worker, about 15 minutes. Any folder with faces/PERSON/*.png and models.py (RECOGNISERS) works.
Not shown: other networks, colour faces, forms that are made for one fraction.
"""

import argparse
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from main_job import load_faces, load_models
from peers import first_images
from peers_cost import metered
from peers_measures import drops, specificity
from split import halves
from torch import Tensor, nn

from captum_leam import LEAM, leave_one_out_centroids, overall_map, suggest_layers, top_fraction
from captum_leam.maps import default_blur, normalize_sum
from captum_leam.objectives import direction, embed, similarity
from captum_leam.refinement import SCHEDULE, Schedule, refine, smooth, transfer_ranks
from captum_leam.suggest import LayerSuggestion, LayerSuggestions

Maps = Callable[[Tensor, Tensor], Tensor]
AT_ONCE = 12
REMOVING = tuple((area, kind) for area, kind in SCHEDULE if kind == "remove")
EARLIER = (2.0, 4.0, 8.0)  # σ at which gradients were read, with the start added once, when the other choices were made
GRID = 7  # cells in each direction that the hybrid occludes


@dataclass(frozen=True)
class Form:
    """A way to make maps (N, H, W) of images (N, C, H, W) towards references (N, D).

    Attributes:
        varied: what the form shows the effect of.
        name: of the form.
        explain: images and references to maps.
    """

    varied: str
    name: str
    explain: Maps


@dataclass(frozen=True)
class Network:
    """A network and what was found in it."""

    model: nn.Module
    found: LayerSuggestions

    def overall(
        self, x: Tensor, r: Tensor, n_steps: int, roles: Sequence[LayerSuggestion] | None = None, **options: object
    ) -> Tensor:
        """LEAM's overall map: of the layers of the package, or of others."""
        chosen = self.found.for_overall_map() if roles is None else roles
        weighting = str(options.pop("weighting", "elementwise"))
        leam = LEAM(self.model, chosen, weighting=weighting)
        maps = leam.attribute(x, reference=r, n_steps=n_steps, **options)
        return overall_map(maps, (x.shape[2], x.shape[3]), self.found.field)

    def score(self, r: Tensor, *, detach: bool = True) -> Callable[[Tensor], Tensor]:
        """Similarity of images, norm detached or not."""

        def of_images(x: Tensor) -> Tensor:
            embeddings = self.model(x)
            cosines = similarity(embeddings, direction(embeddings, r))
            return cosines if detach else cosines * (embeddings.detach().norm(dim=1) / embeddings.norm(dim=1))

        return of_images


# -- forms ---------------------------------------------------------------------------------------------


def every_form(network: Network) -> list[Form]:
    return [*rounds(network), *starts(network), *hybrids(network)]


def starts(network: Network) -> list[Form]:
    """Maps without rounds."""
    layers = network.found.layers

    def path(steps: int, **options: object) -> Maps:
        return lambda x, r: network.overall(x, r, steps, **options)

    def smoothed(steps: int, scale: float) -> Maps:
        return lambda x, r: smooth(network.overall(x, r, steps), scale)

    def from_image(baseline: Callable[[Tensor], Tensor]) -> Maps:
        return lambda x, r: network.overall(x, r, 4, baselines=baseline(x))

    def mirrored(x: Tensor, r: Tensor) -> Tensor:
        return network.overall(x, r, 4) + network.overall(x.flip(3), r, 4).flip(2)

    return [
        Form("steps", "one pass", path(1)),
        *(Form("steps", f"path of {n}", path(n)) for n in (2, 4, 9)),
        *(Form("smoothing", f"one pass, σ {s:g}", smoothed(1, s)) for s in (1.0, 2.0, 4.0)),
        *(Form("smoothing", f"path of 4, σ {s:g}", smoothed(4, s)) for s in (1.0, 2.0, 4.0)),
        *(
            Form("layers", f"path of 4, layer {i + 1} of {len(layers)}", path(4, roles=[layers[i]]))
            for i in range(len(layers))
        ),
        Form("layers", "path of 4, all layers, the last too", path(4, roles=layers)),
        Form("weighting", "path of 4, positive gradients", path(4, weighting="positive")),
        Form("weighting", "conductance of 4", path(4, path="conductance")),
        Form("baseline", "path of 4 from black", from_image(torch.zeros_like)),
        Form("baseline", "path of 4 from the mean colour", from_image(mean_colour)),
        Form("mirror", "path of 4, image and mirror image", mirrored),
    ]


def mean_colour(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True).expand_as(x)


def hybrids(network: Network) -> list[Form]:
    """Maps that look at the score of occluded images."""
    return [
        Form("greedy", "3 greedy rounds of 2 steps", partial(greedy, network, 3, 2)),
        Form("greedy", "5 greedy rounds of 1 pass", partial(greedy, network, 5, 1)),
        Form("occlusion", f"path of 4 × drop of {GRID} × {GRID} occluded cells", partial(times_occlusion, network)),
    ]


def greedy(network: Network, count: int, steps: int, x: Tensor, r: Tensor, share: float = 0.05) -> Tensor:
    """Explain, blur the strongest pixels, explain what is left, and so on; earlier pixels rank above later ones."""
    blurred, shown = default_blur(x), x
    taken = torch.zeros_like(x[:, 0])
    for left in range(count, 0, -1):
        overall = network.overall(shown, r, steps) * (taken == 0)
        last = left == 1
        chosen = (taken == 0) if last else top_fraction(overall, share)
        peak = overall.amax((1, 2), keepdim=True).clamp(min=torch.finfo(overall.dtype).tiny)
        taken = torch.where(chosen, left + overall / peak, taken)
        shown = torch.where((taken > 0)[:, None], blurred, x)
    return taken


def times_occlusion(network: Network, x: Tensor, r: Tensor) -> Tensor:
    """The map where blurring a cell of a grid lowers the score, weighed by how much."""
    overall, blurred = network.overall(x, r, 4), default_blur(x)
    score = network.score(r)
    with torch.no_grad():
        clean = score(x)
        cells = torch.eye(GRID * GRID).view(-1, 1, GRID, GRID)
        masks = nn.functional.interpolate(cells, x.shape[2:], mode="nearest")
        fallen = torch.stack([clean - score(torch.lerp(x, blurred, mask)) for mask in masks], 1)
    weights = fallen.clamp(min=0).view(len(x), 1, GRID, GRID)
    return overall * nn.functional.interpolate(weights, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def alone(start: Tensor, ranked: Tensor) -> Tensor:
    return ranked


def start_twice(start: Tensor, ranked: Tensor) -> Tensor:
    return 2 * start + ranked


def start_once(start: Tensor, ranked: Tensor) -> Tensor:
    return start + 2 * ranked


def squared(start: Tensor, ranked: Tensor) -> Tensor:
    return (start + 2 * ranked).square()


def smoothed_start(start: Tensor, ranked: Tensor) -> Tensor:
    return smooth(start) + ranked


def smoothed_start_once(start: Tensor, ranked: Tensor) -> Tensor:
    return smooth(start) + 2 * ranked


def product(start: Tensor, ranked: Tensor) -> Tensor:
    return (smooth(start) * ranked).sqrt()


BOTH = {
    ", and the start": torch.add,
    " twice, the start once": start_once,
    " twice, the smoothed start once": smoothed_start_once,
    " alone": alone,
}


def rounds(network: Network) -> list[Form]:
    """A start (a path of 3), occlusion rounds, and what is made of both; the presets are among those of σ 2 and 4."""

    def form(
        varied: str,
        name: str,
        count: int = 5,
        steps: int = 3,
        schedule: Schedule = SCHEDULE,
        scales: Sequence[float] = EARLIER,
        start: Callable[[Tensor], Tensor] = smooth,
        both: Callable[[Tensor, Tensor], Tensor] = torch.add,
        detach: bool = True,
    ) -> Form:
        def explain(x: Tensor, r: Tensor) -> Tensor:
            overall = network.overall(x, r, steps)
            begin = start(overall)
            score = network.score(r, detach=detach)
            heights = refine(score, x, default_blur(x), begin, count, schedule=schedule, scales=scales)
            return both(overall, transfer_ranks(normalize_sum(smooth(overall)), heights))

        return Form(varied, name, explain)

    return [
        form("rounds", "5 rounds, and the start"),
        form("rounds", "12 rounds, and the start", 12),
        form("rounds", "25 rounds, and the start", 25),
        form("rounds", "45 rounds, and the start", 45),
        form("share of the start", "5 rounds alone", both=alone),
        form("share of the start", "5 rounds, the start twice", both=start_twice),
        form("share of the start", "5 rounds twice, the start once", both=start_once),
        form("share of the start", "5 rounds, and the smoothed start", both=smoothed_start),
        form("share of the start", "5 rounds times the smoothed start", both=product),
        form("share of the start", "45 rounds alone", 45, both=alone),
        form("share of the start", "45 rounds twice, the start once", 45, both=start_once),
        form("share of the start", "45 rounds, and the smoothed start", 45, both=smoothed_start),
        form("share of the start", "45 rounds times the smoothed start", 45, both=product),
        form("areas", "5 rounds at 5 % alone", schedule=((0.05, "remove"),)),
        form("areas", "5 rounds at 20 % alone", schedule=((0.2, "remove"),)),
        form("areas", "5 rounds that only remove", schedule=REMOVING),
        form("areas", "45 rounds that only remove", 45, schedule=REMOVING),
        form("scales", "5 rounds, gradients read at σ 2", scales=(2.0,)),
        form("scales", "5 rounds, gradients read at σ 4", scales=(4.0,)),
        form("scales", "5 rounds, gradients read at σ 8", scales=(8.0,)),
        *(
            form(
                "scales and the start",
                f"{count} rounds at σ {', '.join(f'{s:g}' for s in scales)}{said}",
                count,
                scales=scales,
                both=both,
            )
            for scales in ((2.0,), (2.0, 4.0))
            for count in (5, 45)
            for said, both in BOTH.items()
        ),
        *(
            form(
                "square",
                f"{count} rounds at σ 2, 4 twice, the start once, squared",
                count,
                scales=(2.0, 4.0),
                both=squared,
            )
            for count in (5, 45)
        ),
        form("norm", "5 rounds, norm differentiated", detach=False),
        form("norm", "45 rounds, norm differentiated", 45, detach=False),
        form("start", "one pass, 7 rounds, and the start", 7, 1),
        form("start", "path of 3, 5 rounds from a flat start, alone", start=torch.zeros_like, both=alone),
        form("start", "path of 3, 45 rounds from a flat start, alone", 45, start=torch.zeros_like, both=alone),
    ]


# -- measuring -----------------------------------------------------------------------------------------


def measure(data: Path, name: str, people: int | None, per_person: int, varied: Sequence[str]) -> pd.DataFrame:
    """Every form on one network."""
    images, labels = load_faces(data)
    tuned = halves(labels)[0][:people]
    kept = [i for i, person in enumerate(labels) if person in tuned]
    images, labels = images[kept], [labels[i] for i in kept]
    networks = {n: make().eval() for n, make in load_models(data).RECOGNISERS.items()}
    chosen = first_images(labels, per_person)
    references = {n: leave_one_out_centroids(embed(m, images, 8), labels)[chosen] for n, m in networks.items()}
    x, who = images[chosen], [labels[i] for i in chosen]
    network = Network(networks[name], suggest_layers(networks[name], x[:4]))
    first = first_images(who, 1)
    rows = []
    for form in every_form(network):
        if varied and form.varied not in varied:
            continue
        with metered(network.model) as counts:
            parts = zip(x.split(AT_ONCE), references[name].split(AT_ONCE), strict=True)
            maps = torch.cat([form.explain(*part).detach() for part in parts])
        table = drops(
            networks,
            x[first],
            {"map": maps[first]},
            {n: r[first] for n, r in references.items()},
            [who[i] for i in first],
            name,
            smooths=(0.0,),
            controls=(),
        )
        means = table.groupby(["fill", "fraction", "where"], sort=False)["drop"].mean()
        found = {f"{fill} {fraction:.0%} {where}": value for (fill, fraction, where), value in means.items()}
        found |= {str(r["measure"]): r["value"] for r in specificity(name, "map", maps, who)}
        passes = " + ".join(f"{count / len(x):g}" for count in counts.values())  # forward and backward, per image
        rows.append({"network": name, "varied": form.varied, "form": form.name, "passes": passes, **found})
        print(f"{name}: {form.name}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()), flush=True)
    return pd.DataFrame(rows)


def start_worker() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int, help="the first so many of those that are tuned on")
    parser.add_argument("--per-person", type=int, default=3)
    parser.add_argument(
        "--varied", nargs="+", default=(), help="only the forms that vary this, for example: areas scales"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="docs/_data/forms.csv makes the documentation's table")
    options = parser.parse_args()
    names = list(load_models(options.data).RECOGNISERS)
    one = partial(measure, options.data, people=options.people, per_person=options.per_person, varied=options.varied)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context, initializer=start_worker) as pool:
        table = pd.concat(pool.map(one, names), ignore_index=True)
    print(table.round(3).to_string(index=False))
    if options.csv:
        kept = ["network", "varied", "form", "passes"]
        table.melt(kept, var_name="measure").to_csv(options.csv, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
