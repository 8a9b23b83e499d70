"""Face regions: named label maps, a parser without weights, and reports of what the maps stand on.

Left and right: a :class:`RegionScheme` says whose left it means. The five landmarks and ``TEMPLATE`` use the image's (the
left eye lies at smaller x), ``CELEBAMASK_HQ`` the person's; ``scheme.swap_sides()`` goes from one to the other, and
``scheme.merge_sides()`` does without.
"""

from captum_leam.regions.report import (
    Fragments,
    effective_number,
    fragments,
    landmark_table,
    parse,
    region_area,
    region_mass,
    region_report,
    region_share,
)
from captum_leam.regions.scheme import CELEBAMASK_HQ, TEMPLATE, RegionScheme
from captum_leam.regions.template import ARCFACE_LANDMARKS, LANDMARK_NAMES, TemplateParser

__all__ = [
    "ARCFACE_LANDMARKS",
    "CELEBAMASK_HQ",
    "LANDMARK_NAMES",
    "TEMPLATE",
    "Fragments",
    "RegionScheme",
    "TemplateParser",
    "effective_number",
    "fragments",
    "landmark_table",
    "parse",
    "region_area",
    "region_mass",
    "region_report",
    "region_share",
]
