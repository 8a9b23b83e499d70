"""Write the report of a study: one page that a person reads in five minutes, with every number beside its drawing.

It is written from the summaries of the study, so that its size does not depend on the number of people; no face is on it. Its sections are
in :mod:`captum_leam.reporting.study_sections`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from captum_leam._storage import atomic_folder
from captum_leam._stores import AnyPath, as_path, local_folder
from captum_leam.reporting import figures
from captum_leam.reporting import study_sections as sections
from captum_leam.reporting.answers import answers
from captum_leam.reporting.findings import Findings, read_findings
from captum_leam.reporting.numbers import number
from captum_leam.reporting.page import Column, Page, Plate, Sheet, sheet
from captum_leam.reporting.person_page import check_people, page_name, person_page
from captum_leam.reporting.schema import DEFAULT_TITLE


def write_report(
    results: str | AnyPath, out: str | AnyPath | None = None, *, people: Sequence[str] = (), show_faces: bool = False
) -> AnyPath:
    """Write the report of a finished study, and beside it every figure as SVG with its numbers as CSV.

    Args:
        results: Folder of the study, or its URL in a store.
        out: Path of the page. ``figures/`` and ``people/`` are made beside it. Default: ``report.html`` in that folder.
        people: Names of people who get a page of their own: mean map, regions, drops. Default: nobody.
        show_faces: Whether their pages show their crops, to everybody who opens them. Default: False.

    Returns:
        Path of the page.

    Raises:
        CaptumLeamError: If the folder is not that of a finished study, or for people that it does not know.

    Example:
        >>> write_report("/nowhere")
        Traceback (most recent call last):
            ...
        captum_leam.errors.CaptumLeamError: /nowhere is not the results folder of a finished study: ...
    """
    folder = as_path(results)
    path = folder / "report.html" if out is None else as_path(out)
    with local_folder(folder, ("manifest.json", "tables", "maps")) as local:
        study = read_findings(local)
        check_people(study, people, show_faces)
        pages = {
            f"people/{page_name(who)}": person_page(study, who, path.name, show_faces) for who in dict.fromkeys(people)
        }
        page = report_page(study, [(of_person.title, address) for address, of_person in pages.items()])
    with atomic_folder(path.parent) as place:
        for name, written in {**pages, path.name: page}.items():
            written.write(place / name)
    return path


def report_page(study: Findings, links: Sequence[tuple[str, str]] = ()) -> Page:
    """Return the page of a study, with links to pages of people."""
    compared = study.against_controls()
    return Page(
        _title(study),
        _lead(study),
        [
            sections.studied(study),
            sections.specific(study),
            sections.regions(study),
            sections.faithful(study, compared),
            sections.agreement(study),
            sections.groups(study),
            sections.paper(study),
            sections.limits(study),
            sections.settings(study),
        ],
        warnings=warnings_of(study),
        answers=answers(study, compared),
        headline=_headline(study),
        heroes=[hero for hero in (_above_controls(study), _regions_on_a_face(study)) if hero is not None],
        links=links,
    )


def _title(study: Findings) -> str:
    configuration = study.manifest.get("configuration")
    given = configuration.get("title") if isinstance(configuration, Mapping) else None
    return str(given) if given and given != DEFAULT_TITLE else "What these networks recognise people by"


def _lead(study: Findings) -> str:
    used = int((study["images"]["status"] == "ok").sum())
    layers = study["layers"].groupby("model")["layer"].nunique()
    few, many = (int(layers.min()), int(layers.max())) if len(layers) else (0, 0)
    span = str(many) if few == many else f"{few} to {many}"
    sizes = ((len(study.people), "person", "people"), (used, "image"), (len(study.models), "network"))
    return f"{', '.join(sections.counted(*size) for size in sizes)}, {span} layer{'s' * (many != 1)} each."


def warnings_of(study: Findings) -> list[str]:
    """Return what must be known before anything else is read."""
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


def _headline(study: Findings) -> Sheet | None:
    table = study.headline()
    numbers = [Column("same", "BC same", number), Column("different", show=number), Column("auc", "AUC", number)]
    columns = [sections.NETWORK, *numbers, sections.ABOVE_CONTROL]
    return sheet("Person-specific?", table.head(2 * sections.MAX_PANELS), columns) if len(table) else None


def _above_controls(study: Findings) -> Plate | None:
    table = study.headline()
    table = table[np.isfinite(table["above_control"])]
    if not len(table):
        return None
    numbers = table[["model", "strongest", "same", "different", "gap", "above_control", "above_low", "above_high"]]
    caption = (
        f"How much more alike maps are within people than between them, beyond the strongest control ({sections.place_of(study)}, "
        f"{sections.critical(table)}). Lines are intervals over people; right of 0 is person-specific."
    )
    panels = [("", figures.above_controls(table.head(2 * sections.MAX_PANELS)))]
    return Plate("headline", "How person-specific?", panels, "gap above the strongest control", caption, numbers)


def _regions_on_a_face(study: Findings) -> Plate | None:
    lifts = study.at_place("region_summary", "lift")
    if not len(lifts):
        return None
    means = lifts.groupby("region", sort=False)["mean"].mean().reset_index(name="lift")
    caption = (
        f"Lift of every region ({sections.place_of(study)}), mean over people{' and networks' if len(study.models) > 1 else ''}, "
        "on a drawing: 1 is chance."
    )
    panels = [("", figures.lift_face(means))]
    return Plate("headline_regions", "Which regions?", panels, "lift on a drawn face", caption, means)
