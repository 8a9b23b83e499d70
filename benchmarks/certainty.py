"""How sure one map is: calibration, power and what real faces give (captum_leam.certainty).

    python benchmarks/certainty.py --data ../shared/real --part random untrained faces planted --out docs/_data

* random: smooth random fields (normal noise, Gaussian σ 4 px), ranked, on faces of a trained network. Draws of one face each.
* untrained: maps of the default preset of untrained twins (new random weights, batch statistics of the faces), tested on the trained
  network. One twin explains 20 faces, so that 1000 draws are of 50 twins.
* conspicuous: why the maps of untrained twins do better than chance. The same maps on the face that they are of, on the face of another
  person, and smoothed edges of the image, which no network made, all tested on the trained network. `excess` is the mean drop minus that
  of the placements, with a 95 % interval of a bootstrap over people.
* faces: maps of the default preset, towards the mean of the person's other images; the other network beside it.
* planted: networks trained on synthetic faces whose identity lies in one part. No data needed.

Every table says the share of p-values up to .05, .1 and .5, with a 95 % Wilson interval for the first, which takes draws for independent
(draws of one face or one twin are not), and Kolmogorov's distance to the uniform distribution. Measured with batch normalisation folded
into convolutions (the same numbers to rounding). Not shown: colour faces, other fills and fractions, maps whose smoothness
differs from σ 4 px. A draw has 39 placements, the default of `map_certainty` is 99: the test is exact for
any number, and 39 take two fifths of the time. A part writes its table after every 20 to 50 draws, so that it can be stopped.
The tables in the documentation: docs/_data/certainty_random.csv by --part random --networks ms1m; docs/_data/certainty_untrained.csv by
--part untrained --networks ms1m with --seed 0 (stopped after 540 draws), --seed 100000 --draws 400 and --seed 200000 --draws 100, joined;
docs/_data/certainty_conspicuous.csv by --part conspicuous --networks ms1m;
docs/_data/certainty_faces.csv by --part faces --per-person 1; docs/_data/certainty_planted.csv by --part planted.
"""

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from research_data import load_faces, load_networks
from scipy import stats
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from captum_leam import LayerSuggestions, explain_faces, leave_one_out_centroids, suggest_layers
from captum_leam.certainty import map_certainty
from captum_leam.controls import ControlContext, edges
from captum_leam.maps import gaussian_blur
from captum_leam.models.randomised import randomised
from captum_leam.objectives import embed, unit
from captum_leam.stats.inference import bootstrap_interval
from captum_leam.synthetic import SyntheticPopulation, centroids, train

CHUNK = 50
PER_TWIN = 20
SIGMA = 4.0


def folded(model: nn.Module) -> nn.Module:
    """Return a copy with batch normalisation folded into the convolution before it."""
    model = copy.deepcopy(model)
    for block in [m for m in model.modules() if isinstance(m, nn.Sequential)]:
        for i in range(len(block) - 1):
            if isinstance(block[i], nn.Conv2d) and isinstance(block[i + 1], nn.BatchNorm2d):
                block[i], block[i + 1] = fuse_conv_bn_eval(block[i], block[i + 1]), nn.Identity()
    return model.eval()


class Faces:
    """Faces with the references of one trained network, and its layers."""

    def __init__(self, model: nn.Module, images: Tensor, people: list[str], placements: int = 99) -> None:
        self.model, self.fast, self.images, self.people = model, folded(model), images, people
        self.placements = placements
        self.references = leave_one_out_centroids(embed(model, images, 16), people)
        self.layers: LayerSuggestions = suggest_layers(model, images[:2])

    def others(self, rows: list[int], model: nn.Module) -> Tensor:
        """Return the embeddings of the other images of each person, (N, K, D)."""
        names = np.array(self.people)
        others = [[j for j in np.flatnonzero(names == names[i]) if j != i] for i in rows]
        needed = sorted({j for row in others for j in row})
        embeddings = unit(embed(model, self.images[needed], 16))
        return torch.stack([embeddings[[needed.index(j) for j in row]] for row in others])

    def p_values(self, rows: list[int], maps: Tensor, seed: int) -> pd.DataFrame:
        """Return the tests of maps of the faces in these rows."""
        x, references = self.images[rows], self.references[rows]
        options = {"explain": None, "layers": self.layers, "seed": seed, "placements": self.placements}
        return map_certainty(self.fast, x, maps, reference=references, **options).to_frame()


def random_draws(faces: Faces, draws: int, seed: int) -> Iterator[pd.DataFrame]:
    generator = torch.Generator().manual_seed(seed)
    order = np.random.default_rng(seed).permutation(np.arange(draws) % len(faces.images))
    for start in range(0, draws, CHUNK):
        rows = order[start : start + CHUNK].tolist()
        fields = gaussian_blur(torch.randn(len(rows), *faces.images.shape[2:], generator=generator), SIGMA)
        yield faces.p_values(rows, fields, seed + start)


def untrained_draws(faces: Faces, draws: int, seed: int) -> Iterator[pd.DataFrame]:
    rng = np.random.default_rng(seed)
    names, field = [layer.name for layer in faces.layers.for_overall_map()], faces.layers.field
    for start in range(0, draws, PER_TWIN):
        rows = rng.choice(len(faces.images), PER_TWIN, replace=False).tolist()
        twin = randomised(
            faces.model, faces.images[rng.choice(len(faces.images), 24, replace=False)], seed=seed + start
        )
        references = faces.others(rows, twin).mean(1)
        options = {"layers": names, "field": field, "batch_size": PER_TWIN}
        maps = explain_faces(twin, faces.images[rows], "default", reference=references, **options)
        yield faces.p_values(rows, maps, seed + start)


def conspicuous(networks: dict[str, Faces], twins: int, seed: int, out: Path) -> None:
    done: list[dict[str, object]] = []
    for name, faces in networks.items():
        parts = []
        names, field = [layer.name for layer in faces.layers.for_overall_map()], faces.layers.field
        first = np.unique(faces.people, return_index=True)[1][:PER_TWIN]
        for number in tqdm(range(twins), desc=f"conspicuous, {name}"):
            again, image = divmod(number, 6)
            rows, start = (first + image).tolist(), seed + PER_TWIN * number
            x, people = faces.images[rows], [faces.people[i] for i in rows]
            twin = randomised(faces.model, faces.images[image::6], seed=start)
            options = {"reference": faces.others(rows, twin).mean(1), "field": field, "batch_size": PER_TWIN}
            untrained = explain_faces(twin, x, "default", layers=names, **options)
            maps = {
                "untrained": untrained,
                "untrained, other face": untrained.roll(1 + again, 0),
                "edges": edges(ControlContext(x)),
            }
            parts += [faces.p_values(rows, m, start).assign(maps=kind, person=people) for kind, m in maps.items()]
            of_kinds = pd.concat(parts).groupby("maps", sort=False)
            rows_out = [excess(table, network=name, maps=kind, seed=seed) for kind, table in of_kinds]
            pd.DataFrame([*done, *rows_out]).to_csv(out / "certainty_conspicuous.csv", index=False)
        done += rows_out
        print(pd.DataFrame(done).round(3).to_string(index=False))


def excess(table: pd.DataFrame, **names: object) -> dict[str, object]:
    more = (table["drop"] - table["moved"]).to_numpy()
    low, high = bootstrap_interval(more, table["person"].to_numpy())
    ends = {"excess_low": float(low), "excess_high": float(high)}
    return {**summarised(table, **names), "excess": more.mean(), **ends}


def summarised(table: pd.DataFrame, **names: object) -> dict[str, object]:
    p = table["p"].to_numpy()
    interval = stats.binomtest(int((p <= 0.05).sum()), len(p)).proportion_ci(method="wilson")
    return {
        **names,
        "draws": len(p),
        "p <= .05": (p <= 0.05).mean(),
        "low": interval.low,
        "high": interval.high,
        "p <= .1": (p <= 0.1).mean(),
        "p <= .5": (p <= 0.5).mean(),
        "distance": stats.kstest(p, "uniform").statistic,
        "drop": table["drop"].mean(),
        "moved": table["moved"].mean(),
    }


def calibrated(networks: dict[str, Faces], part: str, draws: int, seed: int, out: Path) -> None:
    found = {"random": random_draws, "untrained": untrained_draws}[part]
    done: list[dict[str, object]] = []
    for name, faces in networks.items():
        tables = []
        for table in tqdm(found(faces, draws, seed), desc=f"{part}, {name}"):
            tables.append(table)
            row = summarised(pd.concat(tables), network=name, maps=part, seed=seed, placements=faces.placements)
            pd.DataFrame([*done, row]).to_csv(out / f"certainty_{part}.csv", index=False)
        done.append(row)
        print(pd.DataFrame(done).round(3).to_string(index=False))


def of_faces(networks: dict[str, Faces], per_person: int, seed: int, out: Path) -> None:
    rows_out = []
    for name, faces in networks.items():
        names = np.array(faces.people)
        rows = [int(i) for person in dict.fromkeys(faces.people) for i in np.flatnonzero(names == person)[:per_person]]
        (other_name, other) = next((n, f) for n, f in networks.items() if n != name)
        parts = []
        for start in tqdm(range(0, len(rows), 12), desc=f"faces, {name}"):
            chunk = rows[start : start + 12]
            x, several = faces.images[chunk], faces.others(chunk, faces.model)
            reference = unit(several.mean(1))
            maps = explain_faces(faces.model, x, layers=faces.layers, reference=reference)
            models = {other_name: (other.model, other.others(chunk, other.model))}
            options = {"layers": faces.layers, "name": name, "seed": seed + start}
            parts.append(map_certainty(faces.model, x, maps, reference=several, models=models, **options))
            frame = pd.concat([part.to_frame() for part in parts])
            remade = pd.concat([part.stability for part in parts])
            kept = remade.groupby("kind")["overlap"].mean().to_dict()
            of_model = {model: frame[frame["model"] == model] for model in (name, other_name)}
            row = summarised(of_model[name], network=name, maps="default preset")
            row |= {"beaten": of_model[name]["share_beaten"].mean(), **kept}
            row |= {"other": (of_model[other_name]["p"] <= 0.05).mean()}
            row |= {"agreement": of_model[other_name]["overlap"].mean(), "forward": parts[0].passes[name][0]}
            pd.DataFrame([*rows_out, row]).to_csv(out / "certainty_faces.csv", index=False)
        rows_out.append(row)
        print(pd.DataFrame(rows_out).round(3).to_string(index=False))


def planted(seed: int, out: Path) -> None:
    rows = []
    for part in ("nose", "eyes", "mouth"):
        population = SyntheticPopulation(12, evidence=part, seed=seed)
        model = train(population, seed=seed, progress=False)
        faces = population.sample(2, seed=50_000 + seed)
        references = centroids(model, population, seed=seed)[faces.people]
        layers = suggest_layers(model, faces.images[:2])
        size = faces.images.shape[2:]
        noise = torch.randn(len(faces), *size, generator=torch.Generator().manual_seed(seed))
        maps = {
            "planted part": gaussian_blur(faces.mask([part]).float(), 2.0),
            "default preset": explain_faces(model, faces.images, layers=layers, reference=references),
            "fast preset": explain_faces(model, faces.images, "fast", layers=layers, reference=references),
            "random field": gaussian_blur(noise, SIGMA),
        }
        for name, of_method in maps.items():
            options = {"explain": None, "layers": layers, "seed": seed}
            table = map_certainty(model, faces.images, of_method, reference=references, **options).to_frame()
            rows.append(summarised(table, evidence=part, maps=name))
            pd.DataFrame(rows).to_csv(out / "certainty_planted.csv", index=False)
    print(pd.DataFrame(rows).round(3).to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with faces/PERSON/*.png and models.py")
    parser.add_argument("--part", nargs="+", default=["random", "untrained", "faces", "planted"])
    parser.add_argument("--networks", nargs="+", help="names in the zoo; all by default")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--twins", type=int, default=5, help="untrained twins (conspicuous)")
    parser.add_argument("--placements", type=int, default=39, help="of a draw (random, untrained); elsewhere 99")
    parser.add_argument("--per-person", type=int, default=4, help="images of each person that are explained (faces)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/_data"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks = {}
    if options.data is not None:
        images, people = load_faces(options.data)
        loaded = load_networks(options.data, options.networks)
        networks = {name: Faces(loaded[name], images, people, options.placements) for name in loaded}
    for part in options.part:
        if part in ("random", "untrained"):
            calibrated(networks, part, options.draws, options.seed, options.out)
        elif part == "conspicuous":
            conspicuous(networks, options.twins, options.seed, options.out)
        elif part == "faces":
            of_faces(networks, options.per_person, options.seed, options.out)
        else:
            planted(options.seed, options.out)


if __name__ == "__main__":
    main()
