"""Every serious peer on one harness: faithful, decisive, person-specific, and at what cost.

    python benchmarks/peers.py --data ../shared/real [--quick] [--people 8] [--per-person 3] [--workers 2] [--out results/peers]

LEAM's presets and forms, the methods of ``captum_leam.explainers``, Captum's own, pytorch-grad-cam and torch-cam (extra ``peers``; said
and left out where missing), and controls, on the same images: the first one of each of the first ``--people`` that nothing was tuned on
(``split.py``). References are leave-one-out centroids over all images of a person.

Drop: fall of the cosine when the top 5 or 20 % of the pixels are blurred (σ 10 px) or imputed (noisy linear), on the explained network
(own) and the other (transfer), for maps as they are and after the same blur (σ 4 px). Share of the limit: over the drop, on the same
images, of the extremal perturbation (3 restarts × 300 steps on 28 × 28 heights, made for that fraction, that network and the blur).
Deletion and insertion: the area under the genuine accept rate against another image of the person, maps made for that pair, probe only,
blurred in steps of 10 % and black in steps of 20 %, threshold at the equal error rate of all pairs of these people; for methods with
such a side, against another person, the area under the impostor reject rate of the dissimilar maps. BC and AUC, person-specificity:
over ``--per-person`` images of each person, for methods of at most 100 passes. Planted: share of mass and of the top 1 % inside the part
that synthetic networks were trained to look at. Passes and seconds of one core are per image, counted and measured; peak memory is that
of one call with two images, on the first network, beyond the loaded process (``peers_cost.py``).

Writes peers.csv (tidy), drops.csv (per image), settings.json and peers.png; ``peers_page.py`` makes the page of the documentation. Any
folder with faces/PERSON/*.png and models.py (RECOGNISERS) works. Seed 0. ``--quick``: 2 people, 2 images of each, 50 masks, 20 steps of
FAME, xFace every 14 px, one restart of 60 steps for the limit, steps of 20 % and blur only for verification, one synthetic network, no
Occlusion, no memory. Not shown: colour faces, other networks, other operating points, options of the methods other than their papers'.
"""

import argparse
import json
import multiprocessing
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from main_job import load_faces, load_models
from peers_cost import LIMIT, peak_memories, run
from peers_figure import figure
from peers_measures import (
    COLUMNS,
    CONTROL,
    FRACTIONS,
    Remembered,
    Table,
    drops,
    faithfulness,
    partners,
    planted,
    row,
    scores_of_all_pairs,
    shares_of_limit,
    specificity,
    verification,
)
from peers_methods import DEFAULT, Maps, Method, every_method, in_parts
from split import halves
from torch import Tensor, nn

from captum_leam import leave_one_out_centroids, suggest_layers
from captum_leam.controls import CONTROLS, Scene, central_ellipse, other_people
from captum_leam.explainers import ExtremalPerturbation
from captum_leam.maps import as_maps
from captum_leam.objectives import embed
from captum_leam.stats.decisions import Pairs, threshold_at_eer
from captum_leam.synthetic import SyntheticPopulation, centroids, train
from captum_leam.verification.deletion_insertion import FRACTIONS as EVERY_TENTH

COARSE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the pixels, where the field's eleven would take long
CHEAP = 100  # passes, up to which a method explains more than one image of a person
MASKING = 16  # forward passes from which a method without backward passes is one that masks the image


@dataclass(frozen=True)
class Setting:
    """What is run."""

    data: Path
    quick: bool
    people: int | None
    per_person: int

    @property
    def parts(self) -> tuple[str, ...]:
        """What identity is planted in."""
        return ("nose",) if self.quick else ("nose", "eyes", "mouth")

    @property
    def limit(self) -> dict[str, int]:
        """Options of the extremal perturbation."""
        return {"n_steps": 60, "restarts": 1} if self.quick else {"n_steps": 300, "restarts": 3}

    @property
    def fills(self) -> dict[str, tuple[float, ...]]:
        """Of deletion and insertion, with the fractions of the pixels."""
        return {"blur": COARSE} if self.quick else {"blur": EVERY_TENTH, "zero": COARSE}


@dataclass(frozen=True)
class Scenario:
    """Networks, the images of the people that are reported on, and which of them are explained."""

    networks: dict[str, nn.Module]
    images: Tensor
    labels: list[str]
    chosen: list[int]
    references: dict[str, Tensor]

    @property
    def explained(self) -> Tensor:
        """The images that are explained."""
        return self.images[self.chosen]

    @property
    def people(self) -> list[str]:
        """Of the explained images."""
        return [self.labels[i] for i in self.chosen]


@dataclass(frozen=True)
class Found:
    """What one job found: per-image drops, and finished rows."""

    drops: pd.DataFrame
    rows: Table
    seconds: dict[str, float]


def scenario(setting: Setting, per_person: int) -> Scenario:
    source = load_models(setting.data)
    images, labels = load_faces(setting.data)
    reported = halves(labels)[1][: setting.people]
    kept = [i for i, person in enumerate(labels) if person in reported]
    images, labels = images[kept], [labels[i] for i in kept]
    networks = {name: make().eval() for name, make in source.RECOGNISERS.items()}
    chosen = first_images(labels, per_person)
    every = {name: leave_one_out_centroids(embed(model, images, 8), labels) for name, model in networks.items()}
    return Scenario(networks, images, labels, chosen, {name: r[chosen] for name, r in every.items()})


def first_images(labels: Sequence[str], per_person: int) -> list[int]:
    """The first images of every person."""
    return [i for i, person in enumerate(labels) if labels[:i].count(person) < per_person]


# -- jobs ----------------------------------------------------------------------------------------------


def explain_network(setting: Setting, name: str) -> Found:
    """All methods on one network: drops, person-specificity, verification, passes and seconds."""
    scene = scenario(setting, setting.per_person)
    model = scene.networks[name]
    calibration = scores_of_all_pairs(embed(model, scene.images, 8), scene.labels)
    threshold = threshold_at_eer(*calibration)
    found = suggest_layers(model, scene.images[:4])
    methods = every_method(model, found, threshold, setting.quick)
    first = first_images(scene.people, 1)
    people = [scene.people[i] for i in first]
    x, references = scene.explained[first], scene.references[name][first]
    maps, rows, seconds = explain_all(name, methods, model, x, references)
    of_images = drops(
        scene.networks,
        x,
        {**maps, **means_of_others(maps, x, people)},
        {network: r[first] for network, r in scene.references.items()},
        people,
        name,
    )
    rows += controls_specificity(name, scene)
    passes = passes_of(rows)
    for method in methods:
        if method.name in maps and sum(passes[method.name]) <= CHEAP:
            agreement = partial(own_agreement, scene, name, method, maps[method.name])
            rows += guarded(agreement, f"person-specificity of {method.name}")
    print(f"{name}: drops and person-specificity done, {len(maps)} methods", flush=True)
    looked_up = every_method(Remembered(model), found, threshold, setting.quick)
    masking = {method for method, (forwards, backwards) in passes.items() if forwards > MASKING and not backwards}
    again = [of_seen if m.name in masking else m for m, of_seen in zip(methods, looked_up, strict=True)]
    rows += verify(setting, name, scene, [m for m in again if m.name in maps], calibration)
    return Found(of_images, rows, seconds)


def passes_of(rows: Table) -> dict[str, tuple[float, float]]:
    """Method → forward and backward passes per image."""
    counted = {(str(r["method"]), str(r["measure"])): float(r["value"]) for r in rows}
    names = {method for method, measure in counted if measure == "forwards"}
    return {name: (counted[name, "forwards"], counted[name, "backwards"]) for name in names}


def own_agreement(scene: Scenario, network: str, method: Method, maps_of_first: Tensor) -> Table:
    """Person-specificity over all explained images; those of the first are there."""
    first = first_images(scene.people, 1)
    others = [i for i in range(len(scene.people)) if i not in first]
    maps = as_maps(in_parts(method.explain, scene.explained[others], scene.references[network][others]))
    order = torch.tensor([*first, *others]).argsort()
    return specificity(network, method.name, torch.cat([maps_of_first, maps])[order], scene.people)


def explain_all(
    network: str, methods: Sequence[Method], model: nn.Module, images: Tensor, references: Tensor
) -> tuple[dict[str, Tensor], Table, dict[str, float]]:
    """Maps of every method that applies, its cost, and its seconds in all."""
    maps: dict[str, Tensor] = {}
    rows: Table = []
    seconds = {}
    for i, method in enumerate(methods):
        started = time.perf_counter()
        try:
            found, cost = run(method, model, images, references)
            maps[method.name] = as_maps(found)
        except Exception as error:  # packages raise what they like; the others go on
            print(f"{method.name} does not apply to {network}: {type(error).__name__}: {error}", flush=True)
            continue
        rows += [row(network, method.name, measure, value, images=len(images)) for measure, value in cost.items()]
        rows.append(row(network, method.name, "family", float("nan"), where=method.family))
        seconds[method.name] = cost["seconds"] * len(images)
        print(
            f"{network}: {i + 1} of {len(methods)}, {method.name}, {time.perf_counter() - started:.1f} s",
            flush=True,
        )
    return maps, rows, seconds


def means_of_others(maps: dict[str, Tensor], images: Tensor, people: Sequence[str]) -> dict[str, Tensor]:
    """The strongest control: where this method's maps of other people are high."""
    face = central_ellipse((images.shape[2], images.shape[3])).expand(len(images), -1, -1)
    name = CONTROL + f"mean map of other people ({DEFAULT})"
    return {name: other_people(Scene(images, face, people, maps[DEFAULT]))}


def controls_specificity(network: str, scene: Scenario) -> Table:
    """An edge detector agrees with itself, too."""
    x = scene.explained
    face = central_ellipse((x.shape[2], x.shape[3])).expand(len(x), -1, -1)
    maps = CONTROLS["edges"](Scene(x, face))
    return specificity(network, CONTROL + "edges", maps, scene.people)


def verify(
    setting: Setting,
    name: str,
    scene: Scenario,
    methods: Sequence[Method],
    calibration: tuple,
) -> Table:
    """Each person's first image as a probe, with another image of the person, and with one of another person."""
    rows: Table = []
    model = scene.networks[name]
    for dissimilar in (False, True):
        probing = first_images(scene.labels, 1)
        pairs = draw(scene.labels, probing, genuine=not dissimilar)
        probes, towards = scene.images[pairs.first], embed(model, scene.images[pairs.second], 8)
        maps = {}
        for method in methods:
            side = method.dissimilar if dissimilar else method.explain
            if side is not None:
                maps |= guarded(partial(of_pairs, method.name, side, probes, towards), f"pairs of {method.name}") or {}
        if not dissimilar:
            people = [scene.labels[i] for i in pairs.first]
            maps |= means_of_others(maps, probes, people)
        print(f"{name}: {'impostor' if dissimilar else 'genuine'} pairs explained", flush=True)
        for fill, fractions in {"blur": COARSE}.items() if dissimilar else setting.fills.items():
            rows += verification(
                name,
                model,
                scene.images,
                scene.labels,
                pairs,
                maps,
                calibration,
                dissimilar=dissimilar,
                fill=fill,
                fractions=fractions,
            )
            print(f"{name}: verification, {fill}, done", flush=True)
    return rows


def draw(labels: Sequence[str], probes: Sequence[int], *, genuine: bool) -> Pairs:
    """Every probe with a partner, and one pair of the other kind, which the evaluator needs and which is not scored."""
    others = partners(labels, probes, same=genuine)
    stray = partners(labels, probes[:1], same=not genuine)
    kinds = torch.tensor([genuine] * len(others) + [not genuine])
    return Pairs(torch.tensor([*probes, probes[0]]), torch.tensor([*others, *stray]), kinds)


def of_pairs(name: str, explain: Maps, probes: Tensor, towards: Tensor) -> dict[str, Tensor]:
    return {name: as_maps(in_parts(explain, probes, towards))}


def find_limit(setting: Setting, name: str) -> Found:
    """The extremal perturbation of one network, on the first image of each person."""
    scene = scenario(setting, 1)
    tables, rows, seconds = [], [], {}
    for fraction in FRACTIONS:
        limit = ExtremalPerturbation(scene.networks[name], area=fraction, **setting.limit)
        method = Method(LIMIT, "limit", lambda x, r, m=limit: m.attribute(x, reference=r)[:, 0], explainer=limit)
        maps, cost = run(method, scene.networks[name], scene.explained, scene.references[name])
        seconds[f"{LIMIT}, {fraction:.0%}"] = cost["seconds"] * len(scene.chosen)
        table = drops(
            scene.networks,
            scene.explained,
            {LIMIT: maps},
            scene.references,
            scene.people,
            name,
            fractions=(fraction,),
            smooths=(0.0,),
            controls=(),
        )
        tables.append(table)
        print(f"{name}: limit at {fraction:.0%} done", flush=True)
    rows += [row(name, LIMIT, measure, value, images=len(scene.chosen)) for measure, value in cost.items()]
    rows.append(row(name, LIMIT, "family", float("nan"), where="limit"))
    return Found(pd.concat(tables, ignore_index=True), rows, seconds)


def find_planted(setting: Setting, part: str) -> Found:
    """A network trained on faces whose identity is in one part, and whether methods find the part."""
    population = SyntheticPopulation(12, evidence=part)
    model = train(population, progress=False)
    faces = population.sample(1, seed=50_000)
    people = centroids(model, population)
    scores = embed(model, faces.images)
    threshold = threshold_at_eer(
        *scores_of_all_pairs(torch.cat([scores, people]), [*faces.people.tolist(), *range(len(people))])
    )
    methods = every_method(model, suggest_layers(model, faces.images[:4]), threshold, setting.quick)
    network = f"planted {part}"
    maps, _, seconds = explain_all(network, methods, model, faces.images, people[faces.people])
    mask, who = faces.mask(population.planted), [str(p) for p in faces.people.tolist()]
    face = central_ellipse((112, 112)).expand(len(who), -1, -1)
    controls = {CONTROL + c: CONTROLS[c](Scene(faces.images, face)) for c in ("random pixels", "edges")}
    centre = CONTROLS["centre"](Scene(faces.images, face))
    controls[CONTROL + "centre"] = centre - centre.amin((1, 2), keepdim=True)
    rows: Table = []
    for method, of_method in (maps | controls).items():
        rows += guarded(partial(planted, network, method, of_method, mask, who), f"planted {part}, {method}")
    return Found(pd.DataFrame(), rows, seconds)


def find_memory(setting: Setting, name: str) -> Found:
    peaks = peak_memories(setting.data, name, setting.quick)
    return Found(pd.DataFrame(), [row(name, method, "peak MiB", peak) for method, peak in peaks.items()], {})


def guarded(function: Callable[[], Table | dict], what: str) -> Table | dict:
    """Nothing where something fails, and why: the others go on."""
    try:
        return function()
    except Exception as error:
        print(f"{what} left out: {type(error).__name__}: {error}", flush=True)
        return []


# -- all together --------------------------------------------------------------------------------------


def jobs(setting: Setting, networks: Sequence[str]) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Longest first, so that no worker waits long at the end."""
    yield from ((f"methods on {name}", partial(explain_network, setting, name)) for name in networks)
    yield from ((f"limit on {name}", partial(find_limit, setting, name)) for name in networks)
    yield from ((f"planted {part}", partial(find_planted, setting, part)) for part in setting.parts)
    if not setting.quick:
        yield "memory", partial(find_memory, setting, networks[0])


def start_worker() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # Captum's and the packages'; what is left out is printed


def timed(job: Callable[[], Found]) -> tuple[Found, float, float]:
    wall, own = time.perf_counter(), time.process_time()
    found = job()
    return found, time.perf_counter() - wall, time.process_time() - own


def run_all(
    setting: Setting, networks: Sequence[str], workers: int, kept: Path, resume: bool
) -> dict[str, tuple[Found, float, float]]:
    """Job → what it found, its seconds by the clock, and of its core; in the order of the jobs.

    Every job's result is kept in a file as soon as it is there, for ``--resume`` after an interruption.
    """
    kept.mkdir(parents=True, exist_ok=True)
    named = dict(jobs(setting, networks))
    files = {name: kept / f"{name.replace(' ', '_')}.pickle" for name in named}
    done: dict[str, tuple[Found, float, float]] = {}
    for name, file in files.items():
        if resume and file.is_file():
            done[name] = pickle.loads(file.read_bytes())  # noqa: S301 - written by this script
            print(f"== {name}: taken from {file}", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker) as pool:
        running: dict[Future, str] = {pool.submit(timed, job): n for n, job in named.items() if n not in done}
        for future in as_completed(running):
            name = running[future]
            done[name] = future.result()
            files[name].write_bytes(pickle.dumps(done[name]))
            print(f"== {name}: {done[name][1]:.0f} s ({len(done)} of {len(named)} jobs)", flush=True)
    return {name: done[name] for name in named}


def gather(found: Sequence[Found]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tidy table and the drops of every image."""
    of_images = pd.concat([f.drops for f in found if len(f.drops)], ignore_index=True)
    rows = [*faithfulness(of_images, DEFAULT), *shares_of_limit(of_images, LIMIT)]
    rows += [r for f in found for r in f.rows]
    table = pd.DataFrame(rows)
    families = {r["method"]: r["where"] for r in rows if r["measure"] == "family"}
    table = table[table["measure"] != "family"]
    family = [families.get(m, "control" if str(m).startswith(CONTROL) else "") for m in table["method"]]
    return table.assign(family=family)[["family", *COLUMNS, "ahead", "ahead_low", "ahead_high"]], of_images


def show(table: pd.DataFrame) -> None:
    """The main cells on the terminal; the rest is in the file."""
    main = table[(table["measure"] == "drop") & (table["smooth"] == 0)]
    cells = main["where"] + " " + main["fill"] + main["fraction"].map(" {:.0%}".format)
    for network, part in main.assign(cell=cells).groupby("network", sort=False):
        wide = part.pivot_table(index="method", columns="cell", values="value", sort=False)
        rest = table[(table["network"] == network) & table["measure"].isin(["forwards", "backwards", "seconds", "AUC"])]
        share = table[(table["network"] == network) & (table["measure"] == "share of the limit")]
        share = share.pivot_table(index="method", columns="fraction", values="value").add_prefix("of the limit, ")
        more = rest.pivot_table(index="method", columns="measure", values="value", sort=False)
        print(f"\nexplained network: {network}; mean drop of the cosine; passes and seconds per image")
        print(wide.join(share).join(more).round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int, help="the first so many of those that are reported on")
    parser.add_argument("--per-person", type=int, help="images of each, where BC and AUC are measured: 3, quick 2")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--resume", action="store_true", help="take the jobs that an interrupted run finished, of the same code"
    )
    parser.add_argument("--out", type=Path, default=Path("results/peers"))
    options = parser.parse_args()
    started = time.perf_counter()
    people, per_person = (2, 2) if options.quick else (8, 3)
    setting = Setting(options.data, options.quick, options.people or people, options.per_person or per_person)
    networks = list(load_models(options.data).RECOGNISERS)
    done = run_all(setting, networks, options.workers, options.out / "jobs", options.resume)
    table, of_images = gather([found for found, _, _ in done.values()])
    show(table)
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "peers.csv", index=False)
    of_images.to_csv(options.out / "drops.csv", index=False)
    seconds = time.perf_counter() - started
    costs = {name: {"clock": wall, "core": own, **found.seconds} for name, (found, wall, own) in done.items()}
    settings = {**asdict(setting), "data": setting.data.name, "networks": networks, "seconds": seconds, "jobs": costs}
    settings |= {"people": int(of_images["person"].nunique()), "limit": setting.limit, "workers": options.workers}
    settings["images"] = int(of_images["image"].nunique())
    (options.out / "settings.json").write_text(json.dumps(settings, indent=1))
    figure(table).savefig(options.out / "peers.png", dpi=150)
    print("\nseconds of one core: " + ", ".join(f"{name} {c['core']:.0f}" for name, c in costs.items()))
    print(f"written to {options.out}; {seconds:.0f} s")


if __name__ == "__main__":
    main()
