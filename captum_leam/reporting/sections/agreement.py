"""Agreement: network by network, layer by layer, and what belongs together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from captum_leam.reporting import figures
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.sections.words import PANELS, by_model
from captum_leam.reporting.study_page import Block, Note, Plate, Section, draw, number

NUMBERS = ["kind", "a", "b", "value", "low", "high", "chance"]


def agreement(study: Findings, folder: Path) -> Section:
    """Model × model, layer × layer, and what belongs together."""
    table = study["agreement"]
    models, layers = table[table["what"] == "models"], table[table["what"] == "layers"]
    blocks: list[Block] = [
        draw(_models(study, models), folder)
        if len(models)
        else Note("There is one network only: nothing to compare it with."),
        draw(_layers(study, layers), folder) if len(layers) else Note("There is one layer only in every network."),
    ]
    return Section("agreement", "Agreement", "", blocks)


def _models(study: Findings, models: pd.DataFrame) -> Plate:
    panels = []
    for kind, title in (("maps", "overall maps"), ("regions", "profiles over regions")):
        if len(part := models[models["kind"] == kind]):
            panels.append((title, figures.matrix(square(part, study.models), limits=(0, 1))))
    full = square(models[models["kind"] == "maps"], study.models)
    if len(full) >= 3 and np.isfinite(full.to_numpy()).all():
        panels.append(("what belongs together", figures.dendrogram(full)))
    chance = models.groupby("kind", sort=False)["chance"].mean()
    beside = ", ".join(f"{number(value)} for {kind}" for kind, value in chance.items())
    caption = (
        f"Similarity of two networks’ maps of one image, 1 is the same. Maps of different people reach {beside}: only what is above is "
        "about the face."
    )
    return Plate("model_agreement", "Network by network", panels, "agreement of networks", caption, models[NUMBERS])


def _layers(study: Findings, layers: pd.DataFrame) -> Plate:
    maps = layers[layers["kind"] == "maps"]
    panels = [
        (model, figures.matrix(square(part, study.layers(model)), limits=(0, 1))) for model, part in by_model(maps)
    ]
    chance = number(maps["chance"].mean())
    caption = f"Similarity of two layers’ maps of one image; maps of different people reach {chance}."
    numbers = layers[["model", *NUMBERS]]
    return Plate("layer_agreement", "Layer by layer", panels[:PANELS], "agreement of layers", caption, numbers)


def square(pairs: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Pairs (a, b, value) as a symmetric table with ones on the diagonal.

    Example:
        >>> square(pd.DataFrame({"a": ["x"], "b": ["y"], "value": [0.5]}), ["x", "y", "z"]).to_numpy().tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    there = set(pairs["a"]) | set(pairs["b"])
    names = [name for name in order if name in there]
    full = pd.DataFrame(np.where(np.eye(len(names)) > 0, 1.0, np.nan), index=names, columns=names)
    for a, b, value in pairs[["a", "b", "value"]].itertuples(index=False, name=None):
        if a in full.index and b in full.index:
            full.loc[a, b] = full.loc[b, a] = value
    return full
