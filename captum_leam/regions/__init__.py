"""Regions of the face: schemes of label maps, parsers with and without weights, and reports of attribution per region.

Each :class:`RegionScheme` states whose left its names mean. The five landmarks and ``TEMPLATE`` use the left of the image (the left eye
lies at smaller x), and ``CELEBAMASK_HQ`` that of the person. ``scheme.swap_sides()`` converts between the two, and
``scheme.merge_sides()`` removes the distinction.
"""

from captum_leam.regions.components import (
    COARSE,
    FISWG_CELEBAMASK_HQ,
    FISWG_COMPONENTS,
    FISWG_TEMPLATE,
    merge_regions,
)
from captum_leam.regions.label_files import LabelMapParser, read_labels
from captum_leam.regions.named import FaceRegions, label_faces
from captum_leam.regions.parsers import FacexlibParser, NetworkParser, parse_on_photo
from captum_leam.regions.people import over_people, per_person
from captum_leam.regions.region_plots import lift_drawing
from captum_leam.regions.report import (
    Fragments,
    RegionReport,
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
from captum_leam.regions.superpixels import superpixels
from captum_leam.regions.template import ARCFACE_LANDMARKS, LANDMARK_NAMES, TemplateParser

__all__ = [
    "ARCFACE_LANDMARKS",
    "CELEBAMASK_HQ",
    "COARSE",
    "FISWG_CELEBAMASK_HQ",
    "FISWG_COMPONENTS",
    "FISWG_TEMPLATE",
    "LANDMARK_NAMES",
    "TEMPLATE",
    "FaceRegions",
    "FacexlibParser",
    "Fragments",
    "LabelMapParser",
    "NetworkParser",
    "RegionReport",
    "RegionScheme",
    "TemplateParser",
    "effective_number",
    "fragments",
    "label_faces",
    "landmark_table",
    "lift_drawing",
    "merge_regions",
    "over_people",
    "parse",
    "parse_on_photo",
    "per_person",
    "read_labels",
    "region_area",
    "region_mass",
    "region_report",
    "region_share",
    "superpixels",
]
