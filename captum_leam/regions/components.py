"""Coarser region schemes: seven regions for studies, and the facial components of forensic examiners."""

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

No parser of this package detects facial hair and the components without a fixed place on the face (composition, lines, scars, marks,
alterations).
"""

NOT_A_COMPONENT = "not_a_component"


def merge_regions(scheme: RegionScheme, groups: dict[str, list[str]], name: str) -> RegionScheme:
    """Return a scheme in which every region belongs to a named group, without left and right.

    Args:
        scheme: Scheme whose regions are merged.
        groups: Names of the merged regions for each new name. Every region of the scheme must occur exactly once.
        name: Name of the new scheme.

    Returns:
        New scheme. Its ``relabel`` converts label maps of ``scheme``, which reports do automatically.

    Raises:
        CaptumLeamError: If a region is in no group or in several, or is unknown.

    See Also:
        :class:`~captum_leam.regions.RegionScheme`: Method ``merge`` for some of the regions.

    Example:
        >>> scheme = RegionScheme({0: "background", 1: "left_eye", 2: "right_eye"})
        >>> merge_regions(scheme, {"rest": ["background"], "eyes": ["left_eye", "right_eye"]}, "small").names
        ('rest', 'eyes')
    """
    grouped = [region for regions in groups.values() for region in regions]
    if missing := [region for region in scheme.names if region not in grouped]:
        raise CaptumLeamError(
            f"Expected groups to hold every region of scheme {scheme.name!r}, got none for {', '.join(map(repr, missing))}."
        )
    return replace(scheme.merge(groups), name=name, left=None)


COARSE = merge_regions(
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
"""Seven regions of CelebAMask-HQ. ``skin`` is that of the face. ``other``, its background, includes ears, neck and glasses."""

FISWG_CELEBAMASK_HQ = merge_regions(
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
"""FISWG components that CelebAMask-HQ labels distinguish. ``skin`` includes forehead, cheeks, chin and any beard."""

FISWG_TEMPLATE = merge_regions(
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
"""FISWG components that the template distinguishes, at their usual places rather than those in a specific face."""
