"""Do intervals cover, and are p-values uniform when nothing is there? The statistics of patterns and of faithfulness, by simulation.

    python benchmarks/calibration.py [--studies 1000] [--people 24 100] [--images 5] [--resamples 1000] [--seed 0] [--out FILE.csv]
                                     [--only {means,pairs}]

A population is made whose true values are known (from 20 000 people); studies draw people from it, and images of each, and count how
often the 95 % interval holds the true value. Maps are distributions over 24 cells: softmax of a person's pattern plus noise of an image;
people differ in how steady they are (log-normal), so that coefficients are skewed, as real ones are. Beside the package's interval, the
plain percentile interval of the same draws is counted (for every fourth study). ``--only`` leaves out the rest: ``means`` are those over
images, ``pairs`` the areas under curves of decisions, where every pair of images crosses the threshold at a share of pixels that depends
on both people and on the pair; genuine and impostor pairs are drawn as :func:`captum_leam.stats.decisions.draw_pairs` does.

Null studies: person labels, group labels or differences without meaning; printed are the shares of p ≤ 0.05 and p ≤ 0.01, and the
Kolmogorov–Smirnov distance to a uniform distribution. A planted difference between groups is counted, too. Not shown: other noise, people
with very different numbers of images, fewer than 24 people.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from tqdm import tqdm

from captum_leam.patterns import agreement, compare_groups, pattern_claim, person_specificity, profile_signatures
from captum_leam.patterns.person_sums import person_sums
from captum_leam.patterns.specificity import permutation_p_value
from captum_leam.stats.auc import exact_auc
from captum_leam.stats.decisions import draw_pairs
from captum_leam.stats.estimates import mean_between, row_products
from captum_leam.stats.inference import bootstrap_interval, interval_of_pairs, paired_p_value

CELLS = 24
LARGE = 20_000
MEAN, UNEQUAL = "mean of images (faithfulness)", "the same, people with one to all of the images"
COLUMNS = ["quantity", "interval", "value", "low", "high"]
Floats = NDArray[np.float64]


# how much of a person's pattern each set of maps sees: a model, a second one, and two controls
SEEN = {"maps": 1.0, "second model": 0.7, "edges": 0.5, "untrained": 0.2}


class Population:
    """People with a pattern each, and images of them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def study(self, people: int, images: int) -> tuple[dict[str, Floats], Floats, NDArray[np.int64]]:
        """Maps (N, CELLS) by name; a value per image (a drop) that differs between people; the people."""
        person = np.repeat(np.arange(people), images)
        pattern = self.rng.normal(0, 1.2, (people, CELLS))
        noise = 0.7 * np.exp(self.rng.normal(0, 0.4, (people, 1)))
        common = np.linspace(0, 2, CELLS)
        maps = {}
        for name, seen in SEEN.items():
            logits = common + seen * pattern[person] + noise[person] * self.rng.normal(size=(len(person), CELLS))
            maps[name] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        drops = 0.3 * np.exp(self.rng.normal(0, 0.5, people))[person] + self.rng.normal(0, 0.1, len(person))
        return maps, drops, person


def estimates(
    maps: dict[str, Floats], drops: Floats, person: NDArray[np.int64], **options: int
) -> dict[str, tuple[float, float, float]]:
    """Quantity → value, low, high, by the public functions."""
    made = {name: profile_signatures(m) for name, m in maps.items()}
    controls = {name: made[name] for name in ("edges", "untrained")}
    found = person_specificity(made["maps"], person, permutations=0, **options).table.set_index("quantity")
    out = {q: tuple(found.loc[q, ["value", "low", "high"]]) for q in ("same", "different", "gap", "auc")}
    claim = pattern_claim(made["maps"], person, controls, **options)
    out["above the strongest control"] = (claim.headline, claim.low, claim.high)
    both = agreement({n: made[n] for n in ("maps", "second model")}, person, **options).table.iloc[0]
    out["agreement"] = (both["agreement"], both["low"], both["high"])
    out["agreement above chance"] = (both["above"], both["above_low"], both["above_high"])
    half = person < (person.max() + 1) // 2
    seed = options.get("seed", 0)
    groups = compare_groups(
        {"drop": drops},
        person,
        half.tolist(),
        drops,
        permutations=1,
        resamples=options.get("resamples", 1000),
        seed=seed,
    ).table.iloc[0]
    out["difference of two groups, half of the people each"] = (groups["difference"], groups["low"], groups["high"])
    return {**out, **means(drops, person, **options)}


def means(drops: Floats, person: NDArray[np.int64], **options: int) -> dict[str, tuple[float, float, float]]:
    """Of means over images, by the public functions: everybody with as many images, and with one to all of them."""
    some = np.arange(len(person)) - np.searchsorted(person, person) <= person % np.bincount(person).max()
    values = {MEAN: drops, UNEQUAL: drops[some]}
    ends = {
        name: bootstrap_interval(v, person if len(v) == len(person) else person[some], **options)
        for name, v in values.items()
    }
    return {name: (float(v.mean()), float(ends[name][0]), float(ends[name][1])) for name, v in values.items()}


def _percentile(value: Floats, draws: Floats, error: Floats, errors: Floats, confidence: float) -> Floats:
    return np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)


@contextmanager
def plain_percentile() -> Iterator[None]:
    """The same functions with the percentiles of the draws."""
    with (
        patch("captum_leam.stats.estimates.studentised", _percentile),
        patch("captum_leam.stats.two_groups.studentised", _percentile),
        patch("captum_leam.stats.bootstrap.studentised", _percentile),
    ):
        yield


def coverage(
    people: int, images: int, studies: int, resamples: int, seed: int, only_means: bool = False
) -> pd.DataFrame:
    """Share of the studies whose interval holds the true value, and where it misses."""
    rng = np.random.default_rng([seed, people])
    population = Population(rng)
    truth = truths(population, images, only_means)
    rows = []

    def counted(maps: dict[str, Floats], drops: Floats, person: NDArray[np.int64], **options: int) -> dict:
        return means(drops, person, **options) if only_means else estimates(maps, drops, person, **options)

    for number in tqdm(range(studies), desc=f"coverage, {people} people"):
        study = population.study(people, images)
        found = counted(*study, resamples=resamples, seed=number)
        rows += [(q, "package", v, lo, hi) for q, (v, lo, hi) in found.items()]
        if number % 4 == 0:
            with plain_percentile():
                found = counted(*study, resamples=resamples, seed=number)
            rows += [(q, "plain percentile", *v) for q, v in found.items() if q != "auc"]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return counted_by_quantity(table.assign(truth=table["quantity"].map(truth)), people)


def counted_by_quantity(table: pd.DataFrame, people: int) -> pd.DataFrame:
    """Share of the rows whose interval holds the truth, by quantity and kind of interval."""
    table["below"], table["above"] = table["high"] < table["truth"], table["low"] > table["truth"]
    out = []
    for (quantity, kind), part in table.groupby(["quantity", "interval"], sort=False):
        missed = part["below"].mean() + part["above"].mean()
        out.append(
            {
                "people": people,
                "quantity": quantity,
                "interval": kind,
                "studies": len(part),
                "truth": part["truth"].iloc[0],
                "mean value": part["value"].mean(),
                "coverage": 1 - missed,
                "too low": part["below"].mean(),
                "too high": part["above"].mean(),
                "width": (part["high"] - part["low"]).mean(),
            }
        )
    return pd.DataFrame(out)


def truths(population: Population, images: int, only_means: bool = False) -> dict[str, float]:
    """The values of a large population; the AUC from all pairs of one person and as many random pairs of two."""
    maps, drops, person = population.study(LARGE, images)
    of_means = {MEAN: float(drops.mean()), UNEQUAL: float(drops.mean())}
    if only_means:
        return of_means
    made = {name: profile_signatures(m) for name, m in maps.items()}
    nobody = np.ones((0, LARGE))
    sums = {name: person_sums(of_map, person) for name, of_map in made.items()}
    gap = {name: of_map.same(nobody).value - of_map.different(nobody).value for name, of_map in sums.items()}
    both, model = sums["maps"], sums["second model"]
    agreed = float(row_products(made["maps"].roots, made["second model"].roots).mean())
    chance = mean_between(both.vectors, model.vectors, both.mass, nobody).value
    of_person = np.arange(len(person)).reshape(LARGE, images)
    i, j = np.array(list(combinations(range(images), 2))).T
    first, second = of_person[:, i].ravel(), of_person[:, j].ravel()
    a, b = population.rng.integers(0, len(person), (2, 2_000_000))
    a, b = a[person[a] != person[b]], b[person[a] != person[b]]
    roots = made["maps"].roots
    values = np.concatenate([row_products(roots[one], roots[two]) for one, two in ((first, second), (a, b))])
    auc = exact_auc(values, np.ones(len(values)), np.arange(len(values)) < len(first))
    return {
        "same": both.same(nobody).value,
        "different": both.different(nobody).value,
        "gap": gap["maps"],
        "auc": auc,
        "above the strongest control": gap["maps"] - max(gap["edges"], gap["untrained"]),
        "agreement": agreed,
        "agreement above chance": agreed - chance,
        "difference of two groups, half of the people each": 0.0,
        **of_means,
    }


# -- pairs -----------------------------------------------------------------------------------------------

DESIGNS = {"people differ much": (0.5, 0.3), "people differ little": (0.1, 0.5)}
"""Spread between people and between the pairs of two people, of the logarithm of the share at which a pair crosses the threshold."""


def crossings(between: Floats, within: float, rng: np.random.Generator) -> Floats:
    """Areas under the curves of single decisions on eleven steps, given what the people of each pair add."""
    return np.clip(np.exp(-0.9 + between + within * rng.normal(size=len(between))), 0, 1).round(1)


def coverage_of_pairs(people: int, images: int, studies: int, seed: int) -> pd.DataFrame:
    """The same as :func:`coverage` for areas of verification curves: of genuine and of impostor pairs, few or many."""
    rng, rows = np.random.default_rng([seed, people, 1]), []
    persons = np.repeat(np.arange(people), images)
    for design, (spread, within) in DESIGNS.items():
        one, two = spread * rng.normal(size=(2, 2_000_000))
        truth = {kind: float(crossings(b, within, rng).mean()) for kind, b in ((True, one), (False, one + two))}
        for number in tqdm(range(studies), desc=f"pairs, {people} people, {design}"):
            of_person = spread * rng.normal(size=people)
            for many, per_class in (("one a person", people), ("all genuine, as many impostor", None)):
                drawn = draw_pairs(persons.tolist(), per_class, seed=number)
                both = persons[np.stack([drawn.first, drawn.second], 1)]
                for kind in (True, False):
                    chosen = both[drawn.genuine.numpy() == kind]
                    values = crossings(of_person[chosen].sum(1) / (2 if kind else 1), within, rng)
                    ends = interval_of_pairs(values, chosen)
                    name = f"{'genuine' if kind else 'impostor'} pairs, {many}, {design}"
                    rows.append((name, "package", values.mean(), *ends, truth[kind]))
    return counted_by_quantity(pd.DataFrame(rows, columns=[*COLUMNS, "truth"]), people)


# -- nothing there ---------------------------------------------------------------------------------------


def null_labels(rng: np.random.Generator, people: int, images: int) -> float:
    """Person labels without meaning: every image has its own pattern."""
    maps = rng.dirichlet(np.full(CELLS, 0.5), people * images)
    codes = np.repeat(np.arange(people), images)
    return permutation_p_value(profile_signatures(maps), codes, permutations=199, seed=int(rng.integers(2**31)))


def null_groups(rng: np.random.Generator, people: int, images: int) -> float:
    """Two groups of one distribution, a third and two thirds of the people."""
    person = np.repeat(np.arange(people), images)
    values = np.exp(rng.normal(0, 0.5, people))[person] + rng.normal(0, 0.3, len(person))
    group = (person < people // 3).tolist()
    found = compare_groups(
        {"drop": values},
        person,
        group,
        values,
        min_people=8,
        resamples=1,
        permutations=199,
        seed=int(rng.integers(2**31)),
    )
    return float(found.table["p"].iloc[0])


def null_spread(rng: np.random.Generator, people: int, images: int) -> float:
    """Groups of one mean but three times the spread in the smaller: a test of means must not find it."""
    person = np.repeat(np.arange(people), images)
    small = np.arange(people) < people // 3
    values = (np.where(small, 3.0, 1.0) * rng.normal(size=people))[person] + rng.normal(0, 0.3, len(person))
    found = compare_groups(
        {"drop": values},
        person,
        small[person].tolist(),
        values,
        min_people=8,
        resamples=1,
        permutations=199,
        seed=int(rng.integers(2**31)),
    )
    return float(found.table["p"].iloc[0])


def planted_groups(rng: np.random.Generator, people: int, images: int) -> float:
    """Not null: the means of two halves are one standard deviation of people apart."""
    person = np.repeat(np.arange(people), images)
    half = np.arange(people) < people // 2
    values = (half + rng.normal(size=people))[person] + rng.normal(0, 0.3, len(person))
    found = compare_groups(
        {"drop": values},
        person,
        half[person].tolist(),
        values,
        resamples=1,
        permutations=199,
        seed=int(rng.integers(2**31)),
    )
    return float(found.table["p"].iloc[0])


def null_paired(rng: np.random.Generator, people: int, images: int) -> float:
    """Differences of a method and a control that centre on 0 (faithfulness)."""
    person = np.repeat(np.arange(people), images)
    return paired_p_value(rng.normal(0, 1, people)[person] + rng.normal(0, 1, len(person)), person.tolist())


def uniform(people: int, images: int, studies: int, seed: int) -> pd.DataFrame:
    rows = []
    tests: dict[str, Callable[[np.random.Generator, int, int], float]] = {
        "person labels shuffled": null_labels,
        "group labels shuffled": null_groups,
        "group labels shuffled, spread 3 : 1": null_spread,
        "paired signed-rank (faithfulness)": null_paired,
        "not null: groups 1 SD apart": planted_groups,
    }
    for name, test in tests.items():
        rng = np.random.default_rng([seed, people, len(name)])
        p = np.array([test(rng, people, images) for _ in tqdm(range(studies), desc=name)])
        distance = float(stats.kstest(p, "uniform").statistic)
        rows.append((people, name, studies, (p <= 0.05).mean(), (p <= 0.01).mean(), distance))
    return pd.DataFrame(rows, columns=["people", "test", "studies", "p ≤ 0.05", "p ≤ 0.01", "distance"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--people", type=int, nargs="+", default=[24, 100])
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["means", "pairs"], help="leave out the rest")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    started = perf_counter()
    parts = []
    for n in options.people:
        if options.only != "pairs":
            means_only = options.only == "means"
            parts.append(coverage(n, options.images, options.studies, options.resamples, options.seed, means_only))
        if options.only != "means":
            parts.append(coverage_of_pairs(n, options.images, options.studies, options.seed))
    covered = pd.concat(parts, ignore_index=True)
    print(covered.round(4).to_string(index=False))
    package = covered[covered["interval"] == "package"]
    print(
        f"\ncoverage of the package's intervals: {package['coverage'].min():.3f} to {package['coverage'].max():.3f} (nominal 0.95)"
    )
    p_values = pd.DataFrame()
    if options.only is None:
        p_values = pd.concat(
            [uniform(n, options.images, options.studies, options.seed) for n in options.people], ignore_index=True
        )
        print(p_values.round(4).to_string(index=False))
    if options.out:
        pd.concat([covered, p_values]).to_csv(options.out, index=False)
    print(f"{perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
