"""What the presets were chosen from: first pass, rounds of occlusion and their sum, one choice varied at a time, on people to tune on.

    python benchmarks/forms.py --data ../shared/real [--networks ms1m casia] [--transfer edgeface reid0095] [--people 6] [--per-person 2]
        [--varied areas rounds] [--csv docs/_data/forms.csv]

Drop: mean fall of the cosine towards the leave-one-out centroid when the top 5 or 20 % of the pixels are blurred (σ 10 px) or imputed
(noisy linear), in gaps (mean cosine of images to their own person's centroid less that to other people's, all faces): on the explained
network (own), and the mean of the networks of ``--transfer``, of other architectures (transfer). σ 4: the map is blurred before pixels are
ranked, so that the region counts and not single pixels. AUC: of top-10 % Bhattacharyya coefficients as a same-or-different classifier.
People: the first ``--people`` of the half that ``split.py`` tunes on (seed 0); drops of the first image of each, AUC of the first
``--per-person``. Nothing is random but the noise of the noisy-linear fill (seed 0) and the ties of rankings (seed 0). Passes are those
forward and backward with a given reference. One thread. Any folder as ``peers.py`` takes it works. Not shown: other
networks, colour faces, intervals: six people say nothing about differences of a few hundredths.
"""

import argparse
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, islice
from pathlib import Path

import pandas as pd
import torch
from captum.attr import IntegratedGradients
from peers import Scenario, Setting, first_images, scenario
from peers_measures import Occlusion, specificity
from torch import Tensor, nn
from torch.nn.functional import normalize

from captum_leam import LEAM, EmbeddingSimilarity, explain_faces, overall_map, suggest_layers
from captum_leam.explain import PRESETS
from captum_leam.maps import default_blur, normalize_sum, place_on_field, positive_shares, soft_mask
from captum_leam.objectives import direction, similarity
from captum_leam.refinement import (
    AREAS,
    SCALES,
    SHIFTS,
    START,
    contributions,
    shift_images,
    smooth,
    standardise,
    transfer_ranks,
)

CELLS = (("blur", 0.05), ("blur", 0.2), ("noisy linear", 0.05), ("noisy linear", 0.2))
COARSE = 4.0  # σ of the view in which regions count
PARTS = (1, PRESETS["default"].rank_weight, 1)
FAST, BEST = PRESETS["fast"], PRESETS["best"]
SMALL_SHIFTS = tuple((down // 2, right // 2) for down, right in SHIFTS)


@dataclass(frozen=True)
class Form:
    """One form of the overall map; every default is that of the presets.

    Attributes:
        varied: What the form shows the effect of.
        name: Name of the form.
        rounds: Rounds of occlusion.
        point: Place of the first pass between blur (0) and image (1).
        layers: Weight of the layer maps in the first pass.
        inputs: Weight of the input evidence in the first pass.
        signed: Whether negative contributions cancel positive neighbours: smoothed first, then cut to the positive part.
        scales: Gaussian σ at which contributions are added up, px per 112 px.
        areas: Areas that successive rounds occlude, repeated.
        moves: Gaussian σ at which rounds move the heights, added up.
        shifts: Shifts (down, right) of the images in successive rounds, px per 112 px, repeated.
        mirrored: Whether every second round looks at the mirror image.
        parts: Weights of the first pass, of its re-ranked form and of the contributions of the rounds.
        power: Exponent of the sum.
    """

    varied: str
    name: str
    rounds: int = PRESETS["default"].rounds
    point: float = START
    layers: float = 1
    inputs: float = 2
    signed: bool = False
    scales: tuple[float, ...] = SCALES
    areas: tuple[float, ...] = AREAS
    moves: tuple[float, ...] = SCALES
    shifts: tuple[tuple[int, int], ...] = SHIFTS
    mirrored: bool = False
    parts: tuple[float, float, float] = PARTS
    power: float = 2

    @property
    def passes(self) -> str:
        """Passes forward and backward, per image."""
        return f"{1 + self.rounds} + {1 + self.rounds}"

    @property
    def made_alike(self) -> "Form":
        """The form up to the sum: what forms that only differ in their sums have in common."""
        return replace(self, varied="", name="", parts=PARTS, power=2)


def forms() -> list[Form]:
    """Return the presets, then what differs from them in one choice."""
    return [
        *(
            Form("presets", name, form.rounds, areas=form.areas, parts=(1, form.rank_weight, 1), power=form.power)
            for name, form in PRESETS.items()
        ),
        *first_passes(),
        *refinements(),
    ]


def first_passes() -> Iterator[Form]:
    """Yield forms that differ in their first pass."""
    for rounds, said in ((0, "first pass"), (8, "default")):
        for point in (0.3, 0.5, 0.7, 1.0):
            yield Form("point of the pass", f"{said}, pass at {point:g}", rounds, point)
    for layers, inputs in ((0, 2), (1, 2), (2, 2), (1, 0)):
        yield Form("first pass", f"layer maps × {layers}, inputs × {inputs}", 0, layers=layers, inputs=inputs)
    for signed in (False, True):
        for scales in ((2.0,), SCALES):
            said = f"{'signed' if signed else 'positive'}, σ {', '.join(f'{s:g}' for s in scales)}"
            yield Form("evidence of the input", f"first pass, {said}", 0, signed=signed, scales=scales)
            yield Form("evidence of the input", f"default, {said}", signed=signed, scales=scales)


def refinements() -> Iterator[Form]:
    """Yield forms that differ in their rounds, or in the sum."""
    for rounds in (0, 1, 2, 4, 8, 16, 48):
        yield Form("rounds", f"{rounds} round{'s' * (rounds != 1)}", rounds)
    for areas in (AREAS, AREAS[::-1], (0.2,), (0.05,)):
        yield Form("areas", f"default, areas {', '.join(f'{a:.0%}' for a in areas)}", areas=areas)
    for area in (0.2, 0.3, 0.4):
        yield Form("area of one round", f"fast, area {area:.0%}", 1, areas=(area,), power=FAST.power)
    for moves in ((1.0,), (2.0,), (4.0,), (1.0, 2.0), SCALES):
        yield Form(
            "scale of the moves", f"default, heights move at σ {', '.join(f'{s:g}' for s in moves)}", moves=moves
        )
        yield Form(
            "scale of the moves",
            f"best, heights move at σ {', '.join(f'{s:g}' for s in moves)}",
            BEST.rounds,
            moves=moves,
            parts=(1, BEST.rank_weight, 1),
        )
    for shifts, said in ((((0, 0),), "not shifted"), (SMALL_SHIFTS, "shifted by 1 px"), (SHIFTS, "shifted by 2 px")):
        yield Form("shifts", f"fast, {said}", 1, areas=FAST.areas, shifts=shifts, power=FAST.power)
        yield Form("shifts", f"default, {said}", shifts=shifts)
        yield Form("shifts", f"best, {said}", BEST.rounds, shifts=shifts, parts=(1, BEST.rank_weight, 1))
    for ranks in (2, 4, 6):
        parts = (1, ranks, 1)
        yield Form("weight of the ranks", f"fast, ranks × {ranks}", 1, areas=FAST.areas, parts=parts, power=FAST.power)
        yield Form("weight of the ranks", f"default, ranks × {ranks}", parts=parts)
        yield Form("weight of the ranks", f"best, ranks × {ranks}", BEST.rounds, parts=parts)
    for parts in (PARTS, (0, 1, 0), (0, 0, 1), (1, 4, 0), (0, 4, 1), (1, 0, 1)):
        yield Form(
            "parts of the sum", "default, first pass × {:g}, ranks × {:g}, rounds × {:g}".format(*parts), parts=parts
        )
    for power in (1, 2):
        yield Form("power", f"fast, power {power}", 1, areas=FAST.areas, power=power)
        yield Form("power", f"default, power {power}", power=power)
    yield Form("mirror", "default, every second round mirrored", mirrored=True)


# -- maps ----------------------------------------------------------------------------------------------


@dataclass
class Scene:
    """A network, images (N, C, H, W) and references (N, D); passes that forms have in common are made once."""

    model: nn.Module
    images: Tensor
    references: Tensor

    def __post_init__(self) -> None:
        self.blurred = default_blur(self.images)
        self.found = suggest_layers(self.model, self.images[:4])
        self.pass_at, self.refined = cache(self._pass_at), cache(self._refined)

    def map(self, form: Form) -> Tensor:
        """Return the overall maps (N, H, W) of a form."""
        start, heights, total = self.refined(form.made_alike)
        if not form.rounds:
            return start
        first, ranks, found = form.parts
        summed = first * start + ranks * transfer_ranks(start, heights) + found * evidence(total, form)
        return normalize_sum(summed**form.power)

    def _pass_at(self, point: float) -> tuple[Tensor, Tensor]:
        """Return the mean of the layer maps and the contributions of the input, both from one pass."""
        at = torch.lerp(self.blurred, self.images, point)
        leam = LEAM(self.model, self.found.for_overall_map())
        maps, gradient = leam.attribute_with_inputs(at, reference=self.references)
        size = (at.shape[2], at.shape[3])
        placed = torch.stack([place_on_field(m, size, self.found.field) for m in maps], 1)
        layers = positive_shares(smooth(positive_shares(placed)[0].mean(1)))[0]
        return layers, contributions(self.images, self.blurred, gradient)

    def _refined(self, form: Form) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first pass, the heights after the rounds, and the sum of the rounds' contributions, each divided by its mean."""
        layers, given = self.pass_at(form.point)
        start = normalize_sum(form.layers * layers + form.inputs * evidence(given, form))
        heights, total = standardise(start), torch.zeros_like(start)
        rounds = islice(zip(cycle(form.areas), cycle(form.shifts), strict=False), form.rounds)
        for number, (area, shift) in enumerate(rounds):
            mask = soft_mask(heights[:, None], area, 1.0)
            occluded = torch.lerp(self.images, self.blurred, mask)
            given = self._contributions(occluded, shift, form.mirrored and number % 2 == 1)
            change = given * (mask * (1 - mask))[:, 0]
            move = standardise(torch.stack([standardise(smooth(change, scale)) for scale in form.moves]).sum(0))
            heights = standardise(heights + move / form.rounds**0.5)
            positive = given.clamp(min=0)
            total += (given if form.signed else positive) / positive.mean((1, 2), keepdim=True)
        return start, heights, total

    def _contributions(self, images: Tensor, shift: tuple[int, int], mirrored: bool) -> Tensor:
        down, right = (round(pixels * images.shape[-1] / 112) for pixels in shift)
        shown = shift_images(images.flip(3) if mirrored else images, down, right).requires_grad_()
        embeddings = self.model(shown)
        score = similarity(embeddings, direction(embeddings, self.references)).sum()
        gradient = shift_images(torch.autograd.grad(score, shown)[0], -down, -right)
        return contributions(self.images, self.blurred, gradient.flip(3) if mirrored else gradient)

    def rivals(self) -> dict[tuple[str, str], Tensor]:
        """Return what the presets compete with, by name and passes: a path over layers, and paths over the input."""
        leam = LEAM(self.model, self.found.for_overall_map())
        size = (self.images.shape[2], self.images.shape[3])
        of_layers = overall_map(
            leam.attribute(self.images, reference=self.references, n_steps=4), size, self.found.field
        )
        method = IntegratedGradients(EmbeddingSimilarity(self.model, norm="fixed"))
        found = {("LEAM, layers, path of 4", "6 + 4"): of_layers}
        for n in (2, 4, 20):
            given = method.attribute(
                self.images,
                baselines=self.blurred,
                additional_forward_args=(normalize(self.references, dim=1),),
                n_steps=n,
                internal_batch_size=len(self.images),
            )
            found[f"IntegratedGradients, {n} steps, positive, σ 2", f"{n} + {n}"] = smooth(given.sum(1).clamp(min=0))
        return found


def evidence(given: Tensor, form: Form) -> Tensor:
    """Return contributions (N, H, W) as shares, averaged over the scales of a form."""
    if form.signed:
        return torch.stack([positive_shares(smooth(given, s))[0] for s in form.scales]).mean(0)
    return torch.stack([positive_shares(smooth(given.clamp(min=0), s))[0] for s in form.scales]).mean(0)


# -- measuring -----------------------------------------------------------------------------------------


def measure(faces: Scenario, name: str, transfer: Sequence[str], chosen: Sequence[Form]) -> pd.DataFrame:
    """Return one row for every form on one network."""
    scene = Scene(faces.networks[name], faces.explained, faces.references(name))
    check_presets(scene)
    maps = {(form.varied, form.name, form.passes): scene.map(form) for form in chosen}
    maps |= {("for comparison", *who): of_rival.detach() for who, of_rival in scene.rivals().items()}
    first = first_images(faces.people, 1)
    measuring = [name, *(n for n in transfer if n != name)]
    rows = [faces.chosen[i] for i in first]
    occlusion = Occlusion(
        {n: faces.networks[n] for n in measuring}, faces.images[rows], {n: faces.every[n][rows] for n in measuring}
    )
    views = {
        (key, sigma): smooth(m[first], sigma) if sigma else m[first]
        for key, m in maps.items()
        for sigma in (0.0, COARSE)
    }
    drops = occlusion.drops(views, dict.fromkeys(views, CELLS))
    drops["in gaps"] = drops["drop"] / drops["measured"].map(faces.gaps)
    drops["where"] = (drops["measured"] == name).map({True: "own", False: "transfer"})
    table = []
    for key, form_maps in maps.items():
        entry = dict(zip(("varied", "form", "passes"), key, strict=True)) | {"network": name}
        for sigma in (0.0, COARSE):
            means = (
                drops[drops["key"] == (key, sigma)].groupby(["fill", "fraction", "where"], sort=False)["in gaps"].mean()
            )
            view = f" at σ {sigma:g}" if sigma else ""
            entry |= {f"{fill} {fraction:.0%} {where}{view}": value for (fill, fraction, where), value in means.items()}
        found = {str(r["measure"]): r["value"] for r in specificity(name, "map", form_maps, faces.people)}
        table.append(entry | {"AUC": found["AUC"]})
    return pd.DataFrame(table)


def check_presets(scene: Scene) -> None:
    """Stop if a preset here is not the map of ``explain_faces``."""
    for form in (f for f in forms() if f.varied == "presets"):
        theirs = explain_faces(scene.model, scene.images, form.name, layers=scene.found, reference=scene.references)
        apart = (scene.map(form) - theirs).abs().sum((1, 2)).max()
        if apart > 0.01:  # rounding may swap pixels of equal rank
            raise SystemExit(
                f"{form.name} of this script is not explain_faces: {apart:.1%} of the mass lies elsewhere."
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["ms1m", "casia"], help="that are explained")
    parser.add_argument("--transfer", nargs="+", default=["edgeface", "reid0095"], help="that maps are measured on too")
    parser.add_argument("--people", type=int, default=6, help="the first so many of those that are tuned on")
    parser.add_argument("--per-person", type=int, default=2)
    parser.add_argument(
        "--varied", nargs="+", default=(), help="only the forms that vary this, for example: areas rounds"
    )
    parser.add_argument("--csv", type=Path, help="docs/_data/forms.csv makes the documentation's table")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    networks = tuple(dict.fromkeys([*options.networks, *options.transfer]))
    setting = Setting(options.data, False, False, True, networks, sample=None, methods=(), kept=Path())
    faces = scenario(setting, 0, options.people, options.per_person)
    chosen = [form for form in forms() if not options.varied or form.varied in options.varied]
    tables = [measure(faces, name, options.transfer, chosen) for name in options.networks]
    table = pd.concat(tables, ignore_index=True)
    print(f"{', '.join(sorted(set(faces.people)))}\n{table.round(3).to_string(index=False)}")
    if options.csv:
        kept = ["network", "varied", "form", "passes"]
        table.melt(kept, var_name="measure").to_csv(options.csv, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
