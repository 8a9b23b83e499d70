"""Every serious peer on one harness, by the rules of ``contest.py``: faithful, decisive, person-specific, and at what cost.

    python benchmarks/peers.py --data ../shared/real [--quick] [--few-passes] [--networks NAME ...] [--methods NAME ...] [--resume]

LEAM's presets and forms, the methods of ``captum_leam.explainers``, Captum's own, pytorch-grad-cam, torch-cam and SBSM of xaitk-saliency
(extra ``peers``; said and left out where missing), XRAI, SANE and controls, on every network of the folder's ``zoo.py`` (``ZOO``; else
``RECOGNISERS`` of ``models.py``) and on the first image of each person. References are leave-one-out centroids over all images of a person.

1. Readings: every method in every reading and at every σ on the tuning half of the people (``split.py``), explained network and the next
   one of another architecture; one reading per method is chosen over all networks.
2. Report: on the other half, each method in its chosen reading. Drop: fall of the cosine when the top 1, 5, 10 or 20 % of the pixels are
   replaced (blur, noisy linear, mean colour), on the explained network (own), on those of other architectures (transfer) and of the same;
   also with every map at σ 0, 2 and 4 px alike. Deletion and insertion: area under the genuine accept rate of a pair of images of a
   person, probe only, blurred in steps of 20 %, threshold at the equal error rate; for methods with such a side, the impostor reject rate
   of the dissimilar maps. BC and AUC: person-specificity over two images per person. Both for methods of at most 100 passes.
3. Colour: the same drops on the colour faces of the folder (``faces_colour``), methods of at most 100 passes.
4. Limit: an extremal perturbation for 5 % and blur. Planted: share of mass and of the top 1 % inside the part that synthetic networks were
   trained to look at. Memory: peak of one call with two images beyond the loaded process (``peers_cost.py``), on the first network.

Passes and seconds of one core are per image, counted and measured. Writes readings.csv (tuning people, all readings), chosen.csv, peers.csv
(tidy), leads.csv (presets against every method, paired), drops.csv (per image), settings.json and peers.png; ``peers_page.py`` makes the
pages of the documentation. Jobs go network by network; ``--resume`` takes what an interrupted run finished, method by method.
``--few-passes`` leaves out the methods of more than 100 passes and the limit, ``--drops-only`` all of 2 to 4 but the drops on grey faces.
``--quick``: one network, fewer people, readings tried at σ 0 and 2 on the blur alone, transfer to one network, 50 masks, 20 steps of FAME,
windows every 14 px, one restart of 40 steps for the limit, one synthetic network, no Occlusion, no verification, no AUC, no colour, no
memory. Not shown: other operating points, options of the methods other than their papers'.
"""

import argparse
import json
import multiprocessing
import pickle
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from contest import (
    CHOOSING,
    CHOSEN,
    CONTROLS,
    DEAR,
    DECIDING,
    FILLS,
    FRACTIONS,
    FULL,
    LIMIT,
    METHODS,
    QUICK,
    SIGMAS,
    VIEWS,
    Sample,
    choose,
    mean_of_readings,
    views,
)
from peers_cost import LIMIT_NAME, peak_memories, run
from peers_figure import figure
from peers_measures import (
    COLUMNS,
    CONTROL,
    Cells,
    Occlusion,
    Table,
    averaged,
    faithfulness,
    leads,
    next_of_another_architecture,
    partners,
    planted,
    row,
    scores_of_all_pairs,
    shares_of_limit,
    specificity,
    verification,
)
from peers_methods import DEFAULT, PRESETS, Method, every_method, in_parts
from peers_readings import Raw, read, readings_of, smoothed
from research_data import gap, load_faces, load_networks, load_zoo, relation
from split import halves
from torch import Tensor, nn

from captum_leam import controls as package_controls
from captum_leam import leave_one_out_centroids, suggest_layers
from captum_leam.explainers import ExtremalPerturbation
from captum_leam.objectives import embed
from captum_leam.stats.decisions import Pairs, threshold_at_eer
from captum_leam.synthetic import SyntheticPopulation, centroids, train

COARSE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the pixels, in verification
GREY, COLOUR = "faces", "faces_colour"
Reading = tuple[str, float]
AS_IT_IS: Reading = ("signed", 0.0)
Measured = tuple[pd.DataFrame, Tensor, dict[str, float]]  # drops, maps and cost of one method


@dataclass(frozen=True)
class Setting:
    """What is run.

    Attributes:
        data: Folder with the networks and the faces.
        quick: Whether it is the quick run.
        few_passes: Whether methods of more than 100 passes are left out.
        drops_only: Whether nothing but drops on the grey faces is measured.
        networks: Names in the zoo.
        sample: How many people.
        methods: Beginnings of the names of the methods that are run; an empty one for all.
        kept: Folder in which what is measured of each method is kept as soon as it is there.
    """

    data: Path
    quick: bool
    few_passes: bool
    drops_only: bool
    networks: tuple[str, ...]
    sample: Sample
    methods: tuple[str, ...]
    kept: Path

    def runs(self, method: str) -> bool:
        """Return whether a method is run: all are, unless only some were asked for."""
        return method.startswith(self.methods) and not (self.few_passes and method in DEAR)

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the face that identity is planted in."""
        return ("nose",) if self.quick else ("nose", "eyes", "mouth")

    @property
    def tried(self) -> tuple[Cells, tuple[float, ...]]:
        """Cells and σ of the readings."""
        return (DECIDING[:2], (0.0, 2.0)) if self.quick else (CHOOSING, SIGMAS)

    def cells(self, view: str) -> Cells:
        """Return the cells that are reported in a view."""
        if view != CHOSEN:
            return DECIDING[:2] if self.quick else DECIDING
        return DECIDING if self.quick else [(fill, fraction) for fill in FILLS for fraction in FRACTIONS]

    def measuring(self, networks: Mapping[str, nn.Module], explained: str) -> tuple[str, ...]:
        """Return the networks that drops are reported on: all, or the explained one and the next of another architecture."""
        return (explained, *next_of_another_architecture(networks, explained)) if self.quick else tuple(networks)

    @property
    def limit(self) -> dict[str, int]:
        """Options of the extremal perturbation."""
        return {"n_steps": 40, "restarts": 1} if self.quick else LIMIT


@dataclass(frozen=True)
class Scenario:
    """Networks, all images of a folder, and the images that are explained.

    Attributes:
        networks: Name to network, in the order of the zoo.
        images: (N, C, H, W), of all people.
        labels: The person of each image.
        chosen: Rows of the images that are explained.
        every: Name of the network to leave-one-out centroids (N, D).
        gaps: Name of the network to the gap between genuine and impostor mean cosines.
    """

    networks: dict[str, nn.Module]
    images: Tensor
    labels: list[str]
    chosen: list[int]
    every: dict[str, Tensor]
    gaps: dict[str, float]

    @property
    def explained(self) -> Tensor:
        """The images that are explained."""
        return self.images[self.chosen]

    @property
    def people(self) -> list[str]:
        """The people of the explained images."""
        return [self.labels[i] for i in self.chosen]

    def references(self, name: str) -> Tensor:
        """Return the references of the explained images on one network."""
        return self.every[name][self.chosen]

    def first(self, count: int, networks: Sequence[str]) -> Occlusion:
        """Return what measures drops of the first so many explained images."""
        rows = self.chosen[:count]
        chosen = {name: self.every[name][rows] for name in networks}
        return Occlusion({n: self.networks[n] for n in networks}, self.images[rows], chosen)


@dataclass
class Found:
    """What one job found: per-image drops, finished rows, and seconds per method."""

    drops: pd.DataFrame = field(default_factory=pd.DataFrame)
    rows: Table = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def scenario(setting: Setting, half: int, people: int, per_person: int = 1, faces: str = GREY) -> Scenario:
    """Return the first people of the tuning (0) or reported (1) half."""
    images, labels = load_faces(setting.data, name=faces)
    networks = load_networks(setting.data, setting.networks)
    found = {name: embed(model, images, 8) for name, model in networks.items()}
    every = {name: leave_one_out_centroids(f, labels) for name, f in found.items()}
    gaps = {name: gap(f, every[name], labels) for name, f in found.items()}
    kept = halves(labels)[half][:people]
    chosen = [i for i in first_images(labels, per_person) if labels[i] in kept]
    return Scenario(networks, images, labels, chosen, every, gaps)


def first_images(labels: Sequence[str], per_person: int) -> list[int]:
    """Return the rows of the first images of every person."""
    return [i for i, person in enumerate(labels) if labels[:i].count(person) < per_person]


def methods_of(setting: Setting, name: str, scene: Scenario) -> list[Method]:
    """Return the methods that are run on a network."""
    model, kept = scene.networks[name], halves(scene.labels)[1]
    rows = [i for i, person in enumerate(scene.labels) if person in kept]
    scores = scores_of_all_pairs(embed(model, scene.images[rows], 8), [scene.labels[i] for i in rows])
    found = suggest_layers(model, scene.images[:4])
    every = every_method(model, found, threshold_at_eer(*scores), setting.quick)
    return [m for m in every if setting.runs(m.name)]


def each(
    setting: Setting, job: str, methods: Sequence[Method], measure: Callable[[Method], Measured]
) -> Iterator[tuple[str, Measured]]:
    """Yield the name of every method that applies with what was measured; each is kept in a file as soon as it is there."""
    folder = setting.kept / job.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    for i, method in enumerate(methods):
        file = folder / f"{METHODS.index(method.name)}.pickle"
        if file.is_file():
            yield method.name, pickle.loads(file.read_bytes())  # noqa: S301 - written by this script
            continue
        started = time.perf_counter()
        try:
            found = measure(method)
        except Exception as error:  # packages raise what they like; the others go on
            print(f"{job}: {method.name} does not apply: {type(error).__name__}: {error}", flush=True)
            continue
        file.write_bytes(pickle.dumps(found))
        spent = time.perf_counter() - started
        print(f"{job}: {i + 1} of {len(methods)}, {method.name}, {spent:.1f} s", flush=True)
        yield method.name, found


def labelled(found: pd.DataFrame, scene: Scenario, explained: str, method: str) -> pd.DataFrame:
    """Return drops with the names of what was explained, how it was measured, and in gaps."""
    where = [relation(scene.networks, explained, measured) for measured in found["measured"]]
    in_gaps = found["drop"] / found["measured"].map(scene.gaps)
    people = [scene.people[i] for i in found["image"]]
    return found.assign(network=explained, method=method, where=where, in_gaps=in_gaps, person=people)


# -- jobs ----------------------------------------------------------------------------------------------


def try_readings(setting: Setting, name: str) -> Found:
    """Measure all readings of all methods on one network, on the tuning people."""
    sample = setting.sample
    scene = scenario(setting, 0, sample.tuning)
    measuring = [name, *next_of_another_architecture(scene.networks, name)]
    occlusion_of = cache(partial(scene.first, networks=measuring))

    def measure(method: Method) -> Measured:
        count = sample.dear_tuning if method.name in DEAR else len(scene.chosen)
        raw, cost = run(method, scene.networks[name], scene.explained[:count], scene.references(name)[:count])
        cells, sigmas = setting.tried
        maps = {(r, s): smoothed(read(raw, r), s) for r in readings_of(raw) for s in sigmas}
        table = occlusion_of(count).drops(maps, dict.fromkeys(maps, cells))
        table["reading"], table["sigma"] = table["key"].str[0], table["key"].str[1]
        return labelled(table.drop(columns="key"), scene, name, method.name), raw.attributions[:0], cost

    found = Found()
    tables = []
    for method, (table, _, cost) in each(setting, f"readings {name}", methods_of(setting, name, scene), measure):
        tables.append(table)
        found.seconds[method] = cost["seconds"] * table["image"].nunique()
    found.drops = pd.concat(tables, ignore_index=True)
    return found


def report(setting: Setting, name: str, chosen: Mapping[str, Reading], faces: str = GREY) -> Found:
    """Measure all methods in their chosen readings on one network, on the reported people."""
    sample = setting.sample
    scene = scenario(setting, 1, sample.reported if faces == GREY else sample.colour, faces=faces)
    methods = [m for m in methods_of(setting, name, scene) if faces == GREY or m.name not in DEAR]
    occlusion_of = cache(partial(scene.first, networks=setting.measuring(scene.networks, name)))

    def measure(method: Method) -> Measured:
        count = sample.dear_reported if method.name in DEAR else len(scene.chosen)
        raw, cost = run(method, scene.networks[name], scene.explained[:count], scene.references(name)[:count])
        reading = chosen.get(method.name, AS_IT_IS)
        table = labelled(of_views(setting, occlusion_of(count), raw, reading), scene, name, method.name)
        return table, smoothed(read(raw, reading[0]), reading[1]), cost

    found = Found()
    tables, maps = [], {}
    job = f"{'report' if faces == GREY else 'colour'} {name}"
    for method, (table, of_method, cost) in each(setting, job, methods, measure):
        tables.append(table)
        maps[method] = of_method
        found.seconds[method] = cost["seconds"] * len(of_method)
        found.rows += [row(name, method, k, v, images=len(of_method), faces=faces) for k, v in cost.items()]
    found.rows += [row(name, m.name, "family", float("nan"), where=m.family) for m in methods]
    for control, of_control in controls(scene, maps).items():
        occlusion = occlusion_of(len(scene.chosen))
        table = of_views(setting, occlusion, Raw(of_control[:, None]), AS_IT_IS)
        tables.append(labelled(table, scene, name, control))
    found.drops = pd.concat(tables, ignore_index=True).assign(faces=faces)
    if faces == GREY and not setting.drops_only:
        cheap = [m for m in methods if m.name in maps and m.name not in DEAR]
        if sample.per_person > 1:
            found.rows += agreements(setting, name, cheap, chosen, maps)
        if not setting.quick:
            found.rows += verify(name, scene, cheap, chosen)
    return found


def agreements(
    setting: Setting, name: str, methods: Sequence[Method], chosen: Mapping[str, Reading], maps: Mapping[str, Tensor]
) -> Table:
    """Measure person-specificity over several images of each person; the maps of the first ones are there."""
    scene = scenario(setting, 1, setting.sample.reported, setting.sample.per_person)
    first = [scene.chosen.index(i) for i in first_images(scene.labels, 1) if i in scene.chosen]
    others = [i for i in range(len(scene.chosen)) if i not in first]
    order = torch.tensor([*first, *others]).argsort()

    def of_method(method: Method) -> Table:
        raw = in_parts(method, scene.explained[others], scene.references(name)[others])
        reading, sigma = chosen.get(method.name, AS_IT_IS)
        every = torch.cat([maps[method.name], smoothed(read(raw, reading), sigma)])[order]
        return specificity(name, method.name, every, scene.people)

    rows: Table = []
    for method in methods:
        rows += guarded(partial(of_method, method), f"person-specificity of {method.name}")
    return rows


def of_views(setting: Setting, occlusion: Occlusion, raw: Raw, reading: Reading) -> pd.DataFrame:
    """Return the drops of one method in every view: all cells as chosen, the deciding ones at the same σ for all."""
    maps = {view: smoothed(read(raw, r), s) for view, (r, s) in views(reading).items()}
    return occlusion.drops(maps, {view: setting.cells(view) for view in VIEWS}).rename(columns={"key": "view"})


def controls(scene: Scenario, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the maps of the controls; the strongest is where the default preset's maps of other people are high."""
    size = scene.images.shape[2:]
    face = package_controls.central_ellipse((size[0], size[1])).expand(len(scene.chosen), -1, -1)
    x = scene.explained
    found = {CONTROL + c: package_controls.CONTROLS[c](package_controls.ControlContext(x, face)) for c in CONTROLS}
    if DEFAULT in maps and len(set(scene.people)) > 1:
        of_default = package_controls.ControlContext(x, face, scene.people, maps[DEFAULT])
        found[CONTROL + f"mean map of other people ({DEFAULT})"] = package_controls.other_people(of_default)
    return found


def verify(name: str, scene: Scenario, methods: Sequence[Method], chosen: Mapping[str, Reading]) -> Table:
    """Measure each person's first image as a probe, with another image of the person, and with one of another person."""
    kept = [i for i, person in enumerate(scene.labels) if person in scene.people]
    images, labels = scene.images[kept], [scene.labels[i] for i in kept]
    model, rows = scene.networks[name], []
    embeddings = embed(model, images, 8)
    calibration = scores_of_all_pairs(embeddings, labels)
    for dissimilar in (False, True):
        pairs = draw(labels, first_images(labels, 1), genuine=not dissimilar)
        probes, towards = images[pairs.first], embeddings[pairs.second]
        maps: dict[str, Tensor] = {}
        for method in methods:
            if dissimilar and method.dissimilar is None:
                continue
            explain = partial(of_pairs, method, chosen.get(method.name, AS_IT_IS), probes, towards, dissimilar)
            maps |= guarded(explain, f"pairs of {method.name}") or {}
        if not maps:
            continue
        measured = partial(verification, name, model, images, labels, pairs, maps, calibration)
        rows += measured(dissimilar=dissimilar, fill="blur", fractions=COARSE)
        print(f"{name}: verification of {'impostor' if dissimilar else 'genuine'} pairs done", flush=True)
    return rows


def draw(labels: Sequence[str], probes: Sequence[int], *, genuine: bool) -> Pairs:
    """Return every probe with a partner, and one pair of the other kind, which the evaluator needs and which is not scored."""
    others = partners(labels, probes, same=genuine)
    stray = partners(labels, probes[:1], same=not genuine)
    kinds = torch.tensor([genuine] * len(others) + [not genuine])
    return Pairs(torch.tensor([*probes, probes[0]]), torch.tensor([*others, *stray]), kinds)


def of_pairs(method: Method, reading: Reading, probes: Tensor, towards: Tensor, dissimilar: bool) -> dict[str, Tensor]:
    """Return the maps of probes towards their partners."""
    if dissimilar and method.dissimilar is not None:
        parts = zip(probes.split(2), towards.split(2), strict=True)
        return {method.name: torch.cat([method.dissimilar(x, r).detach() for x, r in parts])}
    return {method.name: smoothed(read(in_parts(method, probes, towards), reading[0]), reading[1])}


def find_limit(setting: Setting, name: str) -> Found:
    """Measure the extremal perturbation of one network at 5 %, blur, on the smaller sample."""
    scene = scenario(setting, 1, setting.sample.dear_reported)
    limit = ExtremalPerturbation(scene.networks[name], area=0.05, **setting.limit)
    method = Method(LIMIT_NAME, "limit", lambda x, r: limit.attribute(x, reference=r), explainer=limit)
    raw, cost = run(method, scene.networks[name], scene.explained, scene.references(name))
    occlusion = scene.first(len(scene.chosen), setting.measuring(scene.networks, name))
    table = occlusion.drops({CHOSEN: read(raw, "signed")}, {CHOSEN: [("blur", 0.05)]}).rename(columns={"key": "view"})
    rows = [row(name, LIMIT_NAME, measure, value, images=len(scene.chosen)) for measure, value in cost.items()]
    rows.append(row(name, LIMIT_NAME, "family", float("nan"), where="limit"))
    drops = labelled(table, scene, name, LIMIT_NAME).assign(faces=GREY)
    return Found(drops, rows, {LIMIT_NAME: cost["seconds"] * len(scene.chosen)})


def find_planted(setting: Setting, part: str, chosen: Mapping[str, Reading]) -> Found:
    """Train a network on faces whose identity is in one part, and measure whether methods find the part."""
    population = SyntheticPopulation(12, evidence=part)
    model = train(population, progress=False)
    faces = population.sample(1, seed=50_000)
    people = centroids(model, population)
    scores = torch.cat([embed(model, faces.images), people])
    threshold = threshold_at_eer(*scores_of_all_pairs(scores, [*faces.people.tolist(), *range(len(people))]))
    methods = every_method(model, suggest_layers(model, faces.images[:4]), threshold, setting.quick)
    methods = [m for m in methods if setting.runs(m.name)]
    network, mask = f"planted {part}", faces.mask(population.evidence_parts)
    who = [str(p) for p in faces.people.tolist()]

    def measure(method: Method) -> Measured:
        count = setting.sample.dear_reported if method.name in DEAR else len(who)
        raw, cost = run(method, model, faces.images[:count], people[faces.people][:count])
        reading, sigma = chosen.get(method.name, AS_IT_IS)
        return pd.DataFrame(), smoothed(read(raw, reading), sigma), cost

    found, maps = Found(), {}
    for method, (_, of_method, cost) in each(setting, network, methods, measure):
        maps[method] = of_method
        found.seconds[method] = cost["seconds"] * len(of_method)
    face = package_controls.central_ellipse((112, 112)).expand(len(who), -1, -1)
    of_controls = {
        c: package_controls.CONTROLS[c](package_controls.ControlContext(faces.images, face)) for c in CONTROLS
    }
    of_controls["centre"] = of_controls["centre"] - of_controls["centre"].amin((1, 2), keepdim=True)
    maps |= {CONTROL + c: of_control for c, of_control in of_controls.items()}
    for method, of_method in maps.items():
        n = len(of_method)
        found.rows += guarded(
            partial(planted, network, method, of_method, mask[:n], who[:n]), f"planted {part}, {method}"
        )
    return found


def find_memory(setting: Setting, name: str) -> Found:
    """Measure the peak memory of every method on one network."""
    peaks = peak_memories(setting.data, name, setting.quick)
    return Found(rows=[row(name, method, "peak MiB", peak) for method, peak in peaks.items()])


def guarded(function: Callable[[], Table | dict], what: str) -> Table | dict:
    """Return nothing where something fails, and print why: the others go on."""
    try:
        return function()
    except Exception as error:
        print(f"{what} left out: {type(error).__name__}: {error}", flush=True)
        return []


# -- all together --------------------------------------------------------------------------------------

Jobs = Mapping[str, Callable[[], Found]]
Done = dict[str, tuple[Found, float, float]]


def first_jobs(setting: Setting) -> Jobs:
    """Return what needs no choice of readings."""
    jobs = {f"readings {name}": partial(try_readings, setting, name) for name in setting.networks}
    if not setting.few_passes:
        jobs |= {f"limit {name}": partial(find_limit, setting, name) for name in setting.networks}
    return jobs


def second_jobs(setting: Setting, chosen: Mapping[str, Reading]) -> Jobs:
    """Return what is measured in the chosen readings."""
    jobs = {f"report {name}": partial(report, setting, name, chosen) for name in setting.networks}
    if setting.drops_only:
        return jobs
    if not setting.quick and (setting.data / COLOUR).is_dir():
        jobs |= {f"colour {name}": partial(report, setting, name, chosen, COLOUR) for name in setting.networks}
    jobs |= {f"planted {part}": partial(find_planted, setting, part, chosen) for part in setting.parts}
    if not setting.quick:
        jobs["memory"] = partial(find_memory, setting, setting.networks[0])
    return jobs


def start_worker() -> None:
    """Keep a worker to one core, without Captum's and the packages' warnings; what is left out is printed."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")


def timed(job: Callable[[], Found]) -> tuple[Found, float, float]:
    """Return what a job found, its seconds by the clock, and of its core."""
    wall, own = time.perf_counter(), time.process_time()
    found = job()
    return found, time.perf_counter() - wall, time.process_time() - own


def run_all(jobs: Jobs, workers: int, kept: Path) -> Done:
    """Run jobs, each kept in a file as soon as it is done, and take those that are kept."""
    files = {name: kept / f"{name.replace(' ', '_')}.pickle" for name in jobs}
    done: Done = {}
    for name, file in files.items():
        if file.is_file():
            done[name] = pickle.loads(file.read_bytes())  # noqa: S301 - written by this script
            print(f"== {name}: taken from {file}", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker) as pool:
        running: dict[Future, str] = {pool.submit(timed, job): n for n, job in jobs.items() if n not in done}
        for future in as_completed(running):
            name = running[future]
            done[name] = future.result()
            files[name].write_bytes(pickle.dumps(done[name]))
            print(f"== {name}: {done[name][1]:.0f} s ({len(done)} of {len(jobs)} jobs)", flush=True)
    return {name: done[name] for name in jobs}


def readings_table(done: Done) -> pd.DataFrame:
    """Return the drops of all readings of the tuning people."""
    return pd.concat([found.drops for name, (found, _, _) in done.items() if name.startswith("readings")])


def gather(done: Done) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the tidy table, the leads, and the drops of every image."""
    reported = [f for name, (f, _, _) in done.items() if not name.startswith("readings")]
    of_images = pd.concat([f.drops for f in reported if len(f.drops)], ignore_index=True)
    means = averaged(of_images)
    rows = [*faithfulness(means), *shares_of_limit(means, LIMIT_NAME), *(r for f in reported for r in f.rows)]
    table = pd.DataFrame(rows)
    families = {r["method"]: r["where"] for r in rows if r["measure"] == "family"}
    table = table[table["measure"] != "family"]
    family = [families.get(m, "control" if str(m).startswith(CONTROL) else "") for m in table["method"]]
    ahead = leads(means[means["method"] != LIMIT_NAME], [f"LEAM, {p}" for p in PRESETS])
    return table.assign(family=family)[["family", *COLUMNS]], ahead, of_images


def write(setting: Setting, done: Done, chosen: Mapping[str, Reading], out: Path, more: dict[str, object]) -> None:
    """Write the tables, the settings and the figure."""
    readings = readings_table(done)
    keys = ["network", "method", "reading", "sigma", "where", "measured", "fill", "fraction"]
    readings.groupby(keys, sort=False)[["drop", "in_gaps"]].mean().reset_index().to_csv(
        out / "readings.csv", index=False
    )
    table, ahead, of_images = gather(done)
    table.to_csv(out / "peers.csv", index=False)
    ahead.to_csv(out / "leads.csv", index=False)
    of_images.to_csv(out / "drops.csv", index=False)
    scene = scenario(setting, 1, 1)
    costs = {name: {"clock": wall, "core": own, **found.seconds} for name, (found, wall, own) in done.items()}
    settings = {
        **asdict(setting),
        "data": setting.data.name,
        "kept": "jobs",
        "gaps": scene.gaps,
        "limit": setting.limit,
        "jobs": costs,
    }
    (out / "settings.json").write_text(json.dumps({**settings, **more}, indent=1))
    figure(table).savefig(out / "peers.png", dpi=150)
    show(table, chosen)


def write_chosen(readings: pd.DataFrame, out: Path) -> dict[str, Reading]:
    """Choose readings, and write the choice beside the mean of every reading."""
    chosen = choose(readings)
    means = mean_of_readings(readings).rename("in_gaps").reset_index()
    is_chosen = [chosen[m] == (r, s) for m, r, s in means[["method", "reading", "sigma"]].itertuples(index=False)]
    means.assign(chosen=is_chosen).to_csv(out / "chosen.csv", index=False)
    return chosen


def show(table: pd.DataFrame, chosen: Mapping[str, Reading]) -> None:
    """Print the main cells; the rest is in the files."""
    drops = table[(table["measure"] == "drop") & (table["view"] == CHOSEN)]
    cells = drops["where"] + " " + drops["fill"] + drops["fraction"].map(" {:.0%}".format)
    decides = [cell in DECIDING for cell in drops[["fill", "fraction"]].itertuples(index=False, name=None)]
    main = drops.assign(cell=cells)[np.array(decides, dtype=bool)]
    for (faces, network), part in main.groupby(["faces", "network"], sort=False):
        wide = part.pivot_table(index="method", columns="cell", values="value", sort=False)
        wide.insert(0, "read", [" σ ".join(map(str, chosen.get(m, ("", "")))) for m in wide.index])
        print(f"\n{faces}, {network} explained; mean drop, over all networks in gaps")
        print(wide.round(3).to_string())


def options() -> argparse.Namespace:
    """Return the options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--few-passes", action="store_true", help="without methods of more than 100 passes")
    parser.add_argument(
        "--drops-only", action="store_true", help="no verification, specificity, colour, planted evidence, memory"
    )
    parser.add_argument("--networks", nargs="+", help="names of the zoo; all by default")
    parser.add_argument(
        "--methods", nargs="+", default=[""], help="beginnings of the names of the methods; all by default"
    )
    parser.add_argument("--tuning", type=int, help="people on whom readings are chosen")
    parser.add_argument("--people", type=int, help="people that are reported on")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--resume", action="store_true", help="take the jobs that an interrupted run of the same code finished"
    )
    parser.add_argument("--out", type=Path, default=Path("results/peers"))
    return parser.parse_args()


def main() -> None:
    given = options()
    started = time.perf_counter()
    sample = QUICK if given.quick else FULL
    more = {"tuning": given.tuning or sample.tuning, "reported": given.people or sample.reported}
    zoo = list(load_zoo(given.data))
    networks = tuple(given.networks or (zoo[:1] if given.quick else zoo))
    people = Sample(**asdict(sample) | more)
    kept = given.out / "jobs"
    if not given.resume:
        shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True, exist_ok=True)
    setting = Setting(
        given.data, given.quick, given.few_passes, given.drops_only, networks, people, tuple(given.methods), kept
    )
    done = run_all(first_jobs(setting), given.workers, kept)
    chosen = write_chosen(readings_table(done), given.out)
    done |= run_all(second_jobs(setting, chosen), given.workers, kept)
    seconds = time.perf_counter() - started
    write(setting, done, chosen, given.out, {"seconds": seconds, "workers": given.workers})
    print(f"\nwritten to {given.out}; {seconds:.0f} s")


if __name__ == "__main__":
    main()
