"""State how to read the numbers of a page: for each quantity its unit, its range, and which values are good."""

from __future__ import annotations

import math
from collections.abc import Sequence

from captum_leam.pairs import MIN_SINE
from captum_leam.reporting.numbers import number
from captum_leam.reporting.page import Facts, Section

QUANTITIES = {
    "cosine": "Similarity of two embeddings, from −1 to 1, without unit. Higher is more alike; a threshold makes it a decision.",
    "fall of the cosine": "Cosine before minus after replacing pixels, from −2 to 2. A faithful map falls further than controls.",
    "map value": "Share of the overall map in one pixel, 0 or more; the sum is 1. Layer maps have a sign and the scale of the score.",
    "area": "Share of the crop’s pixels that a region covers, in %. It is where chance would put the share.",
    "share": "Share of the critical pixels in a region, in %. Above the area, the map names the region more often than by chance.",
    "lift": "Share divided by area, 0 or more, without unit. 1 is chance, 2 is twice as often as by chance.",
    "mass": "Share of the positive attribution in a region, in %. It counts the whole map, not only its top.",
    "fragments": "Number of connected parts of the critical pixels, 1 or more. Fewer are easier to read, and not better.",
    "effective regions": "Number of regions that a map is spread over, 1 or more. 1 is a single region.",
    "landmark distance": "Distance in pixels of the crop from the centre of the critical pixels to the nearest landmark.",
    "p": "Chance that the same shape at a random place of the face lowers the cosine as far, from 0 to 1. Up to 0.05, the place matters.",
    "kept": "Share of the critical pixels that stay critical when the map is made again, in %. 100 % is stable, 5 % is chance.",
    "margin of a pair": "Cosine minus threshold, from −2 to 2. At 0 or above the pair is accepted.",
    "angle": "Angle between two embeddings, from 0° to 180°. Up to "
    f"{number(math.degrees(math.asin(MIN_SINE)), 1)}° they are nearly the same, and the maps show their strength.",
    "correspondence": "What two positions together add to the cosine, without unit. Higher means that they match more.",
    "rank": "Position of a name in the ranking by cosine, 1 or more. 1 is the first candidate.",
    "margin of a name": "Cosine of a name minus the best cosine of any other, from −2 to 2. Above 0 the name is first.",
    "rank 1 lost": "Share of the probes whose first candidate falls back, in %. A faithful map loses more than its controls.",
    "overlap (BC)": "Bhattacharyya coefficient of two maps, from 0 (no common pixel) to 1 (the same map). Same people should reach more.",
    "gap": "Overlap of the same person minus overlap of different people, from −1 to 1. Above 0, maps tell people apart.",
    "above control": "Gap of the map minus gap of the strongest control, from −2 to 2. An interval above 0 is person-specific.",
    "AUC": "Chance that two maps of one person overlap more than two maps of different people, from 0 to 1. 0.5 is chance, 1 is perfect.",
    "equal error rate": "Share of wrong decisions where both kinds of error are equal, in %. Lower is better, 50 % is chance.",
    "TAR": "Share of the genuine pairs that are accepted at the stated false match rate, in %. Higher is better.",
    "FMR": "Share of the impostor pairs that are accepted, from 0 to 1. Lower is stricter.",
    "agreement": "Overlap of two maps of one image, from 0 to 1. Only what lies above maps of different people is about the face.",
    "difference of groups": "Mean of the first group minus mean of the second, in the unit of the quantity. 0 is no difference.",
    "p (Holm)": "p-value corrected for all comparisons, from 0 to 1. Below 0.05 a difference is unlikely to be chance.",
}
"""Quantity → its unit, its range and which values are good."""

FACES = (
    "cosine",
    "fall of the cosine",
    "map value",
    "area",
    "share",
    "lift",
    "mass",
    "fragments",
    "effective regions",
    "landmark distance",
)
CERTAINTY = ("p", "kept")
PAIR = ("margin of a pair", "angle", "correspondence")
MATCH = ("rank", "margin of a name", "rank 1 lost")
PERSON = ("cosine", "share", "fall of the cosine")
STUDY = (
    "cosine",
    "equal error rate",
    "TAR",
    "FMR",
    "overlap (BC)",
    "gap",
    "above control",
    "AUC",
    "area",
    "share",
    "lift",
    "fall of the cosine",
    "agreement",
    "difference of groups",
    "p (Holm)",
)


def reading_section(quantities: Sequence[str]) -> Section:
    """Return the section that says how to read quantities.

    Args:
        quantities: Keys of :data:`QUANTITIES`, in the order of the section.

    Example:
        >>> reading_section(("lift",)).blocks[0].items[0][0]
        'lift'
    """
    facts = Facts("", [(name, QUANTITIES[name]) for name in quantities])
    return Section("reading", "How to read the numbers", "", [facts])
