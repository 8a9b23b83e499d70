"""Coarser schemes: the seven regions of studies, and the facial components that examiners name."""

from dataclasses import replace

from captum_leam.errors import CaptumLeamError
from captum_leam.regions.scheme import CELEBAMASK_HQ, TEMPLATE, RegionScheme

FISWG_COMPONENTS = (
    "skin",
    "face_head_outline",
    "face_head_composition",
    "hair",
    "forehead",
    "eyebrows",
    "eyes",
    "cheeks",
    "nose",
    "ears",
    "mouth",
    "chin_jawline",
    "neck",
    "facial_hair",
    "facial_lines",
    "scars",
    "facial_marks",
    "alterations",
)
"""Facial components of morphological comparison, after the feature list of FISWG (version 2.0, 2018) and ASTM E3149.

Those that are no place on the face (composition, lines, scars, marks, alterations), and facial hair, no parser here shows.
"""

NOT_A_COMPONENT = "not_a_component"


def merged(scheme: RegionScheme, groups: dict[str, list[str]], name: str) -> RegionScheme:
    """Return a scheme in which every region belongs to a group with a new name, without left and right.

    Args:
        scheme: that is merged.
        groups: new name → names of the regions that become one; all regions, each once.
        name: of the new scheme.

    Returns:
        The new scheme; label maps of ``scheme`` become its own by ``relabel``, which reports do by themselves.

    Raises:
        CaptumLeamError: for a region that is left over, unknown or in two groups.

    Example:
        >>> merged(RegionScheme({0: "background", 1: "left_eye", 2: "right_eye"}), {"eyes": ["left_eye", "right_eye"]}, "x")
        Traceback (most recent call last):
            ...
        captum_leam.errors.CaptumLeamError: 'background' belongs to no group; expected one for every region.
    """
    grouped = [part for parts in groups.values() for part in parts]
    if left_over := [region for region in scheme.names if region not in grouped]:
        raise CaptumLeamError(f"{', '.join(map(repr, left_over))} belongs to no group; expected one for every region.")
    return replace(scheme.merge(groups), name=name, left=None)


COARSE = merged(
    CELEBAMASK_HQ,
    {
        "eyes": ["left_eye", "right_eye"],
        "brows": ["left_brow", "right_brow"],
        "nose": ["nose"],
        "mouth": ["mouth", "upper_lip", "lower_lip"],
        "skin": ["skin"],
        "hair": ["hair"],
        "other": [
            "background",
            "glasses",
            "left_ear",
            "right_ear",
            "hat",
            "earring",
            "necklace",
            "neck",
            "cloth",
        ],
    },
    "coarse",
)
"""CelebAMask-HQ in seven regions. ``other``, its background, holds ears, neck and glasses too; ``skin`` is that of the face."""

FISWG_CELEBAMASK_HQ = merged(
    CELEBAMASK_HQ,
    {
        "skin": ["skin"],
        "hair": ["hair"],
        "eyebrows": ["left_brow", "right_brow"],
        "eyes": ["left_eye", "right_eye"],
        "nose": ["nose"],
        "ears": ["left_ear", "right_ear"],
        "mouth": ["mouth", "upper_lip", "lower_lip"],
        "neck": ["neck"],
        NOT_A_COMPONENT: ["background", "glasses", "hat", "earring", "necklace", "cloth"],
    },
    "fiswg, from celebamask_hq",
)
"""FISWG components as far as CelebAMask-HQ labels show them. ``skin`` there is forehead, cheeks, chin and any beard in one."""

FISWG_TEMPLATE = merged(
    TEMPLATE,
    {
        "face_head_outline": ["outline"],
        "forehead": ["forehead"],
        "eyebrows": ["left_brow", "right_brow"],
        "eyes": ["left_eye", "right_eye"],
        "cheeks": ["left_cheek", "right_cheek"],
        "nose": ["nose"],
        "mouth": ["mouth"],
        "chin_jawline": ["chin"],
        NOT_A_COMPONENT: ["background"],
    },
    "fiswg, from template",
)
"""FISWG components as far as the template shows them: where they usually lie, not where they lie in this face."""
