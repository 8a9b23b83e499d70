"""Write the report of a study as one page, with the numbers of every figure beside it.

The page is made from the summary tables of the study, so that its size does not depend on the number of people, and it shows no face. Its
sections are in :mod:`captum_leam.reporting.study_sections`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from captum_leam._storage import atomic_folder
from captum_leam._stores import AnyPath, as_path, local_folder
from captum_leam.reporting import figures, quantities
from captum_leam.reporting import study_sections as sections
from captum_leam.reporting.answers import answers
from captum_leam.reporting.findings import Findings, read_findings
from captum_leam.reporting.numbers import number
from captum_leam.reporting.page import Column, Page, Plate, Sheet, sheet
from captum_leam.reporting.person_page import check_people, page_name, person_page
from captum_leam.reporting.quantities import reading_section
from captum_leam.reporting.schema import DEFAULT_TITLE
from captum_leam.reporting.summary import study_summary


def write_report(
    results: str | AnyPath, out: str | AnyPath | None = None, *, people: Sequence[str] = (), show_faces: bool = False
) -> AnyPath:
    """Write the report of a finished study, with every figure as SVG and its numbers as CSV beside it.

    Args:
        results: Results folder of the study, or its URL in a store.
        out: Path of the page; the folders ``figures/`` and ``people/`` are created beside it. Default: ``report.html`` in ``results``.
        people: Names of people who get a page of their own, with mean map, regions and drops. Default: nobody.
        show_faces: Whether the pages of these people show their crops to everybody who opens them. Default: False.

    Returns:
        Path of the page.

    Raises:
        CaptumLeamError: If ``results`` is not the folder of a finished study, or the study has no image of a person.
        InputTypeError: If ``people`` is a text instead of a list.

    See Also:
        :class:`~captum_leam.study.Study`: Study whose results are reported.

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
        "",
        [
            sections.data(study),
            sections.specific(study),
            sections.regions(study),
            sections.faithful(study, compared),
            sections.agreement(study),
            sections.groups(study),
            sections.paper(study),
            reading_section(quantities.STUDY),
            sections.limits(study),
            sections.settings(study),
        ],
        summary=study_summary(study, compared),
        warnings=warnings_of(study),
        answers=answers(study, compared),
        headline=_headline(study),
        heroes=[hero for hero in (_above_controls(study), _regions_on_a_face(study)) if hero is not None],
        links=links,
    )


def _title(study: Findings) -> str:
    configuration = study.manifest.get("configuration")
    title = configuration.get("title") if isinstance(configuration, Mapping) else None
    return str(title) if title and title != DEFAULT_TITLE else "What these networks recognise people by"


def warnings_of(study: Findings) -> list[str]:
    """Return the warnings that a reader must know first."""
    found = [
        f"{row['model']}: {row['warning'] or 'it hardly separates these people'}. Its maps say little."
        for row in study["verification"].to_dict("records")
        if row["warning"] or not row["separates"]
    ]
    if study.manifest.get("finished") is False:
        found.append("The study did not run to its end, so that some results are missing.")
    found += map(str, study.manifest.get("notes", []))
    images = study["images"]
    if (skipped := int((images["status"] != "ok").sum())) > 0.1 * len(images):
        found.append(f"{skipped} of {len(images)} images were skipped; the section Data has the reasons.")
    return found


def _headline(study: Findings) -> Sheet | None:
    table = study.headline()
    overlaps = [Column("same", show=number), Column("different", show=number)]
    columns = [sections.NETWORK, *overlaps, Column("auc", "AUC", number), sections.ABOVE_CONTROL]
    return sheet("Overlap of maps", table.head(2 * sections.MAX_PANELS), columns) if len(table) else None


def _above_controls(study: Findings) -> Plate | None:
    table = study.headline()
    table = table[np.isfinite(table["above_control"])]
    if not len(table):
        return None
    numbers = table[["model", "strongest", "same", "different", "gap", "above_control", "above_low", "above_high"]]
    caption = (
        "Maps are person-specific where the point and its line lie to the right of 0. Points are the gap between the overlap of same and "
        f"of different people above that of the strongest control ({sections.place_of(study)}, {sections.critical(table)}); lines are "
        "intervals over people."
    )
    panels = [("", figures.above_controls(table.head(2 * sections.MAX_PANELS)))]
    return Plate("headline", "How person-specific?", panels, "gap above the strongest control", caption, numbers)


def _regions_on_a_face(study: Findings) -> Plate | None:
    lifts = study.at_place("region_summary", "lift")
    if not len(lifts):
        return None
    means = lifts.groupby("region", sort=False)["mean"].mean().reset_index(name="lift")
    caption = (
        "Orange regions have more of the critical pixels than their area, and purple ones fewer. Numbers are the lift "
        f"({sections.place_of(study)}), mean over people{' and networks' if len(study.models) > 1 else ''}; 1 is chance."
    )
    panels = [("", figures.lift_face(means))]
    return Plate("headline_regions", "Which regions?", panels, "lift on a drawn face", caption, means)
