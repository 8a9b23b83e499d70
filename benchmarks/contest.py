"""The rules of the comparison: methods, readings, cells, people, seeds, and how a reading is chosen.

This file is committed before anything is run or tuned. No method, reading or cell is removed afterwards; what does not run on a network
is reported as such. ``peers.py`` plays by it, ``peers_page.py`` prints it, and ``tests/explainers/test_peers_benchmark.py`` checks both.

A method gives raw attributions: input attributions (N, C, H, W), or signed maps (N, 1, H, W) at image size. A *reading* turns them into the
map that ranks the pixels: signed (sum over channels), positive (positive part of that sum), absolute (sum of absolute values), mean (mean
over channels). Methods whose paper reads the raw attributions in another way have that reading too ("published"). Every reading is also
blurred with a Gaussian of σ 1, 2 and 4 px per 112 px of width. Of all these the one is chosen for each method, over all networks, that has
the highest mean drop on the people that methods are tuned on; results are reported on the others.

A drop is the fall of the cosine to the leave-one-out centroid of the person when the highest pixels are replaced. It is also reported in
units of the network's gap: the mean cosine of images to the centroid of their own person less that to the centroids of other people.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

SEED = 0

# -- readings and cells --------------------------------------------------------------------------------

READINGS = ("signed", "positive", "absolute", "mean")
PUBLISHED = "published"
SIGMAS = (0.0, 1.0, 2.0, 4.0)  # px per 112 px of width
FILLS = ("blur", "noisy linear", "mean")
FRACTIONS = (0.01, 0.05, 0.1, 0.2)

# How maps are compared: each in its chosen reading with its chosen σ, and in its chosen reading with the same σ for all.
CHOSEN = "chosen"
VIEWS = (CHOSEN, "0", "2", "4")

OWN, TRANSFER, SAME_ARCHITECTURE = "own", "transfer", "same architecture"  # the last is reported and counts nowhere

# Cells that decide who is ahead, in every view; the others are reported.
DECIDING = tuple((fill, fraction) for fill in ("blur", "noisy linear") for fraction in (0.05, 0.2))
# Cells on which the reading is chosen: the explained network, and the next one of another architecture in the order of the zoo.
CHOOSING = tuple((fill, fraction) for fill in FILLS for fraction in (0.05, 0.2))
BUDGETS = (4, 100)  # forward and backward passes per image: what "fast" and "default" are compared with


@dataclass(frozen=True)
class Sample:
    """How much is run.

    Attributes:
        tuning: People of the tuning half (``split.py``) on whom readings are chosen; the first image of each.
        reported: People of the other half that results are reported on; the first image of each.
        dear_tuning: The same for methods of more than :data:`BUDGETS`'s second number of passes.
        dear_reported: The same for these methods, and for the limit.
        colour: People of the reported half of the colour faces.
        per_person: Images per person for person-specificity.
    """

    tuning: int
    reported: int
    dear_tuning: int
    dear_reported: int
    colour: int
    per_person: int


FULL = Sample(tuning=4, reported=6, dear_tuning=2, dear_reported=3, colour=4, per_person=2)
QUICK = Sample(tuning=1, reported=2, dear_tuning=1, dear_reported=1, colour=1, per_person=1)
LIMIT = {"n_steps": 150, "restarts": 2}  # extremal perturbation, at 5 %, blur

# -- methods -------------------------------------------------------------------------------------------

LEAM = (
    "LEAM, fast",
    "LEAM, default",
    "LEAM, best",
    "LEAM, first layer",
    "LEAM, middle layer",
    "LEAM, third layer",
    "LEAM, last layer",
    "LEAM, middle layer, positive weights",
    "LEAM, middle layer, path of 4",
    "LEAM, middle layer, conductance of 4",
)
EXPLAINERS = (
    "GradCAM, last layer",
    "LayerCAM, last layer",
    "HiResCAM, last layer",
    "GradCAM, middle layer",
    "LayerCAM, middle layer",
    "HiResCAM, middle layer",
    "PositionDecomposition, last layer",
    "GapDecomposition, last layer",
    "xSSAB",
    "FGGB",
    "FAME",
    "CorrRISE",
    "RISE",
    "xFace",
    "RegionShapley, template",
    "SBSM",
    "SANE, sliding window",
    "XRAI, 20 steps",
)
CAPTUM = (
    "Saliency",
    "InputXGradient",
    "IntegratedGradients, 2 steps",
    "IntegratedGradients, 4 steps",
    "IntegratedGradients, 20 steps",
    "IntegratedGradients, 49 steps",
    "IntegratedGradients, 20 steps, from black",
    "GradientShap, 20 samples",
    "DeepLift",
    "GuidedGradCam, last layer",
    "LayerIntegratedGradients, middle layer, 20 steps",
    "LayerConductance, middle layer, 20 steps",
    "InternalInfluence, middle layer, 20 steps",
    "LayerLRP, middle layer",
    "LayerGradCam, last layer",
    "LayerGradCam, middle layer",
    "NoiseTunnel(Saliency), 10 samples",
    "NoiseTunnel(Saliency, absolute), 10 samples",
    "NoiseTunnel(InputXGradient), 10 samples",
    "NoiseTunnel(LayerGradCam, last layer), 10 samples",
    "NoiseTunnel(LEAM, middle layer), 10 samples",
    "Occlusion 14 px",
)
GRAD_CAM_PACKAGE = (
    *(
        f"{kind}, last layer (pytorch-grad-cam)"
        for kind in ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "EigenCAM")
    ),
    *(f"{kind}, middle layer (pytorch-grad-cam)" for kind in ("GradCAMPlusPlus", "GradCAMElementWise", "ScoreCAM")),
)
TORCH_CAM_PACKAGE = (
    *(f"{kind}, last layer (torch-cam)" for kind in ("GradCAM", "GradCAMpp", "SmoothGradCAMpp", "LayerCAM")),
    "LayerCAM, middle layer (torch-cam)",
)
METHODS = (*LEAM, *EXPLAINERS, *CAPTUM, *GRAD_CAM_PACKAGE, *TORCH_CAM_PACKAGE)
CONTROLS = ("random pixels", "centre", "edges")

# Methods of more than 100 passes, or as slow as these: explained on the smaller sample.
DEAR = (
    "FGGB",
    "FAME",
    "CorrRISE",
    "RISE",
    "xFace",
    "RegionShapley, template",
    "SBSM",
    "SANE, sliding window",
    "Occlusion 14 px",
    "ScoreCAM, middle layer (pytorch-grad-cam)",
)

# -- the rule ------------------------------------------------------------------------------------------


def choose(readings: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """Return the reading and σ of every method that has the highest mean drop on the tuning people.

    Drops are in units of the network's gap. The mean is over the images of a cell, then over the cells of a network (fill × fraction ×
    own or transfer), then over networks; ties go to the earlier reading and the smaller σ.

    Args:
        readings: One row per network, method, reading, sigma, fill, fraction, where and image, with the column ``in_gaps``.

    Returns:
        Method → reading and σ in pixels per 112 px of width.

    Example:
        >>> rows = [("A", "IG", "signed", 0.0, 0.5), ("A", "IG", "absolute", 0.0, 0.2), ("A", "IG", "absolute", 2.0, 0.4)]
        >>> table = pd.DataFrame(rows, columns=["network", "method", "reading", "sigma", "in_gaps"])
        >>> choose(table.assign(fill="blur", fraction=0.05, where="own"))
        {'IG': ('signed', 0.0)}
    """
    means = mean_of_readings(readings).reset_index()
    order = {reading: i for i, reading in enumerate((*READINGS, PUBLISHED))}
    means["order"] = means["reading"].map(order)
    ranked = means.sort_values(["in_gaps", "order", "sigma"], ascending=[False, True, True], kind="stable")
    best = ranked.drop_duplicates("method").set_index("method")
    return {
        method: (best.loc[method, "reading"], float(best.loc[method, "sigma"])) for method in means["method"].unique()
    }


def mean_of_readings(readings: pd.DataFrame) -> pd.Series:
    """Return the mean drop in gaps, by method, reading and sigma: over images, then cells, then networks."""
    cell = ["method", "reading", "sigma", "network", "where", "fill", "fraction"]
    of_cells = readings[readings["where"] != SAME_ARCHITECTURE].groupby(cell, sort=False)["in_gaps"].mean()
    of_networks = of_cells.groupby(cell[:4], sort=False).mean()
    return of_networks.groupby(cell[:3], sort=False).mean()


def views(chosen: tuple[str, float]) -> Mapping[str, tuple[str, float]]:
    """Return the reading and σ of a method in every view.

    Example:
        >>> views(("signed", 1.0))
        {'chosen': ('signed', 1.0), '0': ('signed', 0.0), '2': ('signed', 2.0), '4': ('signed', 4.0)}
    """
    reading, sigma = chosen
    return {view: (reading, sigma if view == CHOSEN else float(view)) for view in VIEWS}
