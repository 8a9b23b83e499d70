"""Build the data of explorable faces for the script of a page: maps, regions, curves and correspondences.

Numbers are little-endian base64: values are float32, pixels with ties uint16 (uint32 above 65 536 pixels), and grey values and labels
uint8. The script sorts the values for their ranks. A map of 112 × 112 pixels takes 70 kB.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike
from torch import Tensor

from captum_leam._optional import pd
from captum_leam._text import printable
from captum_leam.maps import pixel_count, rank_pixels
from captum_leam.plots import POSITIVE, SIGNED, overlay
from captum_leam.reporting.curves import AGAINST, FOR, OVERALL, SHARES
from captum_leam.reporting.numbers import UNKNOWN, one_digit, percent_1, significant, three_digits
from captum_leam.reporting.page import Block, ColourBar, Picture, picture

if TYPE_CHECKING:
    from captum_leam.reporting.explanation import Explanation

NO_REGION = 255
MAX_ROWS = 16
"""Largest number of rows of a face's table of regions, enough for all regions of a face parser."""
STRENGTH = 0.75
"""Opacity of the strongest pixel of a map, as in :func:`captum_leam.plots.overlay`."""


@dataclass(frozen=True)
class ExploredRegion:
    """Row of the table of regions, as text."""

    name: str
    area: str
    share: str
    lift: str
    mass: str


@dataclass(frozen=True)
class ExploredFace:
    """Explorable face, without the data of the explorer.

    Attributes:
        name: Name of the face.
        picture: Overlay that is shown where scripts do not run.
        regions: Rows of the table of regions, the highest lift first.
        drops: Share, and drop of the overall map, the moved map and random pixels, as text.
        blocks: Further blocks of the face.
        certainty: Blocks about the certainty of the map. Default: none.
    """

    name: str
    picture: Picture
    regions: Sequence[ExploredRegion]
    drops: Sequence[Sequence[str]]
    blocks: Sequence[Block]
    certainty: Sequence[Block] = ()


@dataclass(frozen=True)
class Explorer(Block):
    """Explorable faces that share their controls.

    Attributes:
        key: Prefix of the addresses of its elements.
        maps: Names of the maps.
        faces: The faces.
        data: Data of the script, as JSON.
        note: Caption with what to see, what was measured and its cost.
        beside: Whether faces stand side by side.
        linked: Whether correspondences are known.
    """

    key: str
    maps: Sequence[str]
    faces: Sequence[ExploredFace]
    data: str
    note: str
    beside: bool
    linked: bool


def explorer(
    explanation: Explanation,
    key: str,
    blocks: Sequence[Sequence[Block]],
    *,
    certainty: Sequence[Sequence[Block]] = (),
    comparable: bool = True,
) -> Explorer:
    """Return the explorer of the first faces of an explanation, with their curves if they were measured.

    Args:
        explanation: Explanation.
        key: Prefix of the addresses of its elements.
        blocks: Further blocks of each face to explore.
        certainty: Blocks about the certainty of the map of each of these faces. Default: none.
        comparable: Whether regions of one name are the same part of all faces. Default: True.
    """
    count = len(blocks)
    curves = _curves(explanation) or [{} for _ in blocks]
    faces = [
        ExploredFace(
            name=explanation.names[i],
            picture=_picture(explanation, i),
            regions=_regions(explanation, i),
            drops=_drops(curves[i]) if curves[i] else (),
            blocks=blocks[i],
            certainty=certainty[i] if certainty else (),
        )
        for i in range(count)
    ]
    data = {
        "size": list(explanation.overall.shape[1:]),
        "colours": {"positive": _colours(POSITIVE), "signed": _colours(SIGNED)},
        "strength": STRENGTH,
        "maps": _maps(explanation, count),
        "shares": list(SHARES),
        "counts": [pixel_count(share, explanation.overall[0].numel()) for share in SHARES],
        "start": explanation.options.fraction,
        "regions": [printable(name) for name in explanation.scheme.regions.values()],
        "comparable": comparable,
        "faces": [
            {"name": printable(explanation.names[i]), **_face(explanation, i), "drops": curves[i]} for i in range(count)
        ],
        "margin": None if explanation.pair is None else explanation.pair.margin,
        "pairs": _pairs(explanation) if count == 2 else None,
    }
    return Explorer(
        key=key,
        maps=[OVERALL, *explanation.layers],
        faces=faces,
        data=json.dumps(data, separators=(",", ":")),
        note=_note(explanation),
        beside=explanation.pair is not None,
        linked=data["pairs"] is not None,
    )


def _note(explanation: Explanation) -> str:
    if explanation.curves is None:
        return "Drops were not measured: captum_leam.reporting.explain_images measures them with the model."
    shares = f"{len(SHARES)} shares from {100 * SHARES[0]:g} to {100 * SHARES[-1]:g} %"
    return (
        "A map names what the network depends on where its curve lies above those of the controls, which replace as many pixels: random "
        "ones, and those of the overall map moved within the face. The fall of the cosine is measured at "
        f"{shares} ({explanation.options.fill} fill, {explanation.settings['passes of the curves']} passes for each face), and "
        "interpolated between them."
    )


def encode(values: ArrayLike, kind: str) -> str:
    """Return numbers as little-endian base64.

    Args:
        values: Numbers.
        kind: NumPy type of the numbers in the text, e.g. ``"<f4"``.

    Example:
        >>> encode([1.0], "<f4")
        'AACAPw=='
    """
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def _colours(name: str) -> str:
    return encode((colormaps[name](np.arange(256))[:, :3] * 255).round(), "u1")


def _maps(explanation: Explanation, count: int) -> list[dict[str, Any]]:
    """Return values and ties of each map; the ranks of a signed map are reversed for evidence against the match."""
    seed = explanation.options.seed
    found = [
        {
            "name": OVERALL,
            "signed": False,
            FOR: _side(explanation.overall[:count], seed),
            AGAINST: _side(explanation.against[:count], seed),
        }
    ]
    found += [
        {"name": printable(name), "signed": True, FOR: _side(signed[:count], seed), AGAINST: None}
        for name, signed in explanation.layers.items()
    ]
    return found


def _side(maps: Tensor, seed: int) -> list[dict[str, str]]:
    """Return the values of each map, and the pixels that share their value with others in the order of their ranks."""
    kind = "<u2" if maps[0].numel() <= 1 << 16 else "<u4"
    orders = rank_pixels(maps, seed=seed).flatten(1).argsort(1).cpu().numpy()
    values = maps.detach().cpu().float().flatten(1).numpy()
    found = []
    for of_map, order in zip(values, orders, strict=True):
        same = np.diff(of_map[order]) == 0
        tied = np.append(same, False) | np.append(False, same)
        found.append({"values": encode(of_map, "<f4"), "ties": encode(order[tied], kind)})
    return found


def _face(explanation: Explanation, i: int) -> dict[str, str]:
    grey = explanation.images[i].detach().cpu().double().clamp(0, 1).mean(0) * 255
    where = explanation.scheme.relabel(explanation.labels[i]).numpy()
    labels = np.full(where.shape, NO_REGION, np.uint8)
    for index, label in enumerate(list(explanation.scheme.regions)[:NO_REGION]):
        labels[where == label] = index
    return {"grey": encode(grey.round(), "u1"), "labels": encode(labels, "u1")}


def _curves(explanation: Explanation) -> list[dict[str, list[float]]]:
    """Return the drops of each face over the shares, by map, side and control; nothing if none was measured."""
    if explanation.curves is None:
        return []
    names = {name: str(i) for i, name in enumerate((OVERALL, *explanation.layers))}
    found: list[dict[str, list[float]]] = []
    for _, rows in explanation.curves.groupby("image", sort=True):
        of_face: dict[str, list[float]] = {}
        for (name, speaks, control), part in rows.groupby(["map", "speaks", "control"], sort=False):
            key = str(control) or f"{names[str(name)]} {speaks}"
            of_face[key] = [float(f"{drop:.7g}") for drop in part.sort_values("fraction")["drop"]]
        found.append(of_face)
    return found


def _drops(curves: dict[str, list[float]]) -> list[list[str]]:
    drops = [curves[key] for key in (f"0 {FOR}", "moved", "random pixels")]
    return [
        [f"{100 * share:g}\N{NO-BREAK SPACE}%", *[three_digits(d) for d in row]]
        for share, *row in zip(SHARES, *drops, strict=True)
    ]


def _regions(explanation: Explanation, i: int) -> list[ExploredRegion]:
    rows = explanation.regions[explanation.regions["image"] == i]
    return [
        ExploredRegion(row["region"], *_texts(row))
        for row in rows.sort_values("lift", ascending=False, kind="stable").head(MAX_ROWS).to_dict("records")
    ]


def _texts(row: dict[Any, Any]) -> tuple[str, str, str, str]:
    lift = UNKNOWN if pd.isna(row["lift"]) else one_digit(row["lift"])
    return percent_1(row["area"]), percent_1(row["share"]), lift, percent_1(row["mass"])


def _picture(explanation: Explanation, i: int) -> Picture:
    overall = explanation.overall[i]
    pixels = overlay(explanation.images[i], overall)
    bar = ColourBar("positive", "0", significant(float(overall.max()), 2))
    return picture(pixels, pixels.shape[1], "", f"{explanation.names[i]}, overall map", bar)


def _pairs(explanation: Explanation) -> dict[str, Any] | None:
    found = explanation.correspondences
    if found is None:
        return None
    matrix = encode(found.matrix[0].cpu().float().numpy(), "<f4")
    return {
        "grid": list(found.grid),
        "field": list(explanation.maps.field),
        "matrix": matrix,
        "rest": float(found.rest[0]),
    }
