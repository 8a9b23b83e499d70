"""The gallery's figures: matplotlib Figures that an example holds in a variable, saved for the page.

captum-leam returns figures and never shows them, so that there is no window for sphinx-gallery to look into: what a block of an
example has newly bound to a name is taken. Training is remembered within one build: the same people, steps and seed give the
same network.
"""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib import rc_file_defaults
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

import captum_leam.synthetic
from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation

ORDER = (
    "quickstart.py",
    "compare_with_captum.py",
    "own_model.py",
    "population_study.py",
    "run_a_study.py",
    "pair_from_photos.py",
    "audit_report.py",
    "add_a_method.py",
    "planted_evidence.py",
)
DPI = 110


def _get_sg_image_scraper() -> Callable[..., str]:
    return scrape


def scrape(block: Any, block_vars: Mapping[str, Any], gallery_conf: Mapping[str, Any]) -> str:
    """Save every figure that is new, and return the lines that show them."""
    saved = []
    for name, value in list(block_vars["example_globals"].items()):
        if isinstance(value, Figure) and not hasattr(value, "_on_the_page"):
            path = next(block_vars["image_path_iterator"])
            value.savefig(path, dpi=DPI)
            value._on_the_page = True  # type: ignore[attr-defined]
            value._called = name  # type: ignore[attr-defined]
            saved.append(path)
    return figure_rst(saved, gallery_conf["src_dir"]) if saved else ""


class ReadingOrder:
    """Order of the examples: as they are best read; those not named come last."""

    def __init__(self, src_dir: str) -> None:
        pass

    def __call__(self, filename: str) -> tuple[int, str]:
        return (ORDER.index(filename) if filename in ORDER else len(ORDER), filename)


def prepare(gallery_conf: Mapping[str, Any], filename: str) -> None:
    """Before every example: matplotlib as it comes, and a memory for training."""
    rc_file_defaults()
    captum_leam.synthetic.train = remembered


original = captum_leam.synthetic.train


def remembered(population: SyntheticPopulation, **options: Any) -> EmbeddingNet:
    """As :func:`captum_leam.synthetic.train`, without a progress bar, once for the same arguments."""
    key = (population.n_people, population.evidence_parts, population.seed, tuple(sorted(options.items())))
    return copy.deepcopy(_trained(key, population))


@functools.cache
def _trained(key: tuple[Any, ...], population: "SyntheticPopulation") -> EmbeddingNet:
    return original(population, **{**dict(key[3]), "progress": False})
