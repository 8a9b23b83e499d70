"""The top of the report: title, warnings, and the drawings that are looked at first."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from captum_leam.reporting import figures
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.sections.words import PANELS, counted, critical, place_of
from captum_leam.reporting.study_page import DrawnPlate, Plate, Sheet, Show, draw, number, sheet
from captum_leam.study.config import Config


def title_of(study: Findings) -> str:
    """The title that the user gave, or a general one."""
    configuration = study.manifest.get("configuration")
    named = configuration.get("title") if isinstance(configuration, Mapping) else None
    return str(named) if named and named != Config.title else "What these networks recognise people by"


def lead_of(study: Findings) -> str:
    """Sizes of the study."""
    images = study["images"]
    used = int((images["status"] == "ok").sum())
    layers = study["layers"].groupby("model")["layer"].nunique()
    few, many = (int(layers.min()), int(layers.max())) if len(layers) else (0, 0)
    span = str(many) if few == many else f"{few} to {many}"
    return (
        f"{counted(len(study.people), 'person', 'people')}, {counted(used, 'image')}, {counted(len(study.models), 'network')}, "
        f"{span} layer{'s' * (many != 1)} each."
    )


def warnings_of(study: Findings) -> list[str]:
    """What must be known before anything else is read."""
    found = [
        f"{row['model']}: {row['warning'] or 'it hardly separates these people'}. What follows about it says little."
        for row in study["verification"].to_dict("records")
        if row["warning"] or not row["separates"]
    ]
    if study.manifest.get("finished") is False:
        found.append("The study did not run to its end: some of what follows is missing.")
    found += map(str, study.manifest.get("notes", []))
    images = study["images"]
    if (skipped := int((images["status"] != "ok").sum())) > 0.1 * len(images):
        found.append(f"{skipped} of {len(images)} images were skipped: see what was studied.")
    return found


def headline(study: Findings) -> Sheet | None:
    """The numbers of the claim, network by network: narrow enough for a phone."""
    table = study.leam()
    table = table[table["layer"] == study.place]
    columns = [
        Show("model", "network"),
        Show("same", "BC same", number),
        Show("different", "different", number),
        Show("auc", "AUC", number),
        Show("above_control", "above control", number, ("above_low", "above_high")),
    ]
    return sheet("Person-specific?", table.head(2 * PANELS), columns) if len(table) else None


def heroes(study: Findings, folder: Path) -> list[DrawnPlate]:
    """What is looked at first: the headline, and the regions of all networks together."""
    return [draw(plate, folder) for plate in (_above_controls(study), _on_a_face(study)) if plate is not None]


def _above_controls(study: Findings) -> Plate | None:
    table = study.leam()
    table = table[(table["layer"] == study.place) & np.isfinite(table["above_control"])]
    if not len(table):
        return None
    columns = ["model", "strongest", "same", "different", "gap", "above_control", "above_low", "above_high"]
    caption = (
        f"How much more alike maps are within people than between them, beyond the strongest control ({place_of(study)}, "
        f"{critical(table)}). Lines are intervals over people; right of 0 is person-specific."
    )
    panels = [("", figures.above_controls(table.head(2 * PANELS)))]
    return Plate("headline", "How person-specific?", panels, "gap above the strongest control", caption, table[columns])


def _on_a_face(study: Findings) -> Plate | None:
    lifts = study["region_summary"]
    lifts = lifts[(lifts["layer"] == study.place) & (lifts["quantity"] == "lift")]
    if not len(lifts):
        return None
    means = lifts.groupby("region", sort=False)["mean"].mean().reset_index(name="lift")
    caption = (
        f"Lift of every region ({place_of(study)}), mean over people{' and networks' if len(study.models) > 1 else ''}, "
        "on a drawing: 1 is chance."
    )
    panels = [("", figures.lift_face(means))]
    return Plate("headline_regions", "Which regions?", panels, "lift on a drawn face", caption, means)
