"""The report of a study: one page of HTML that a person reads in five minutes, with every number beside its drawing.

The page is self-contained and asks nothing of any network. It is written from the summaries of the study, so that its size does not depend
on the number of people; no face is on it. What its sections show is in :mod:`captum_leam.reporting.sections`.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from captum_leam._text import shown
from captum_leam.reporting.answers import answers
from captum_leam.reporting.findings import Findings, read_findings
from captum_leam.reporting.person_page import check_people, write_person
from captum_leam.reporting.sections.agreement import agreement
from captum_leam.reporting.sections.faithful import faithful
from captum_leam.reporting.sections.groups import groups
from captum_leam.reporting.sections.made import made
from captum_leam.reporting.sections.paper import anchors
from captum_leam.reporting.sections.regions import regions
from captum_leam.reporting.sections.specific import specific
from captum_leam.reporting.sections.studied import studied
from captum_leam.reporting.sections.top import headline, heroes, lead_of, title_of, warnings_of
from captum_leam.reporting.study_page import Points, Section, render, write_page

LIMITS = (
    "LEAM is reconstructed from the published abstract of the paper: nothing here reproduces the authors' tables.",
    "A map shows evidence of one network's embedding for these images and these references: not why the network became so, nor what "
    "people would look at, nor who someone is.",
    "“Person-specific” means: more alike within people than between them, beyond the controls that were run. A control that was not run is "
    "not excluded, and neither is anything that images of one person share besides the face: light, camera, expression, haircut.",
    "Intervals and tests say how far other people of the same kind would change a number; other photographs, networks or populations may "
    "differ more. They are too narrow for a handful of people.",
    "Occluded images are images that no network was trained on: no fill is neutral.",
    "Shares and lifts depend on the parser, and lifts of very small regions on a few pixels. Nothing smaller than a cell of a layer can be "
    "told apart.",
    "A difference between groups is one between the people that were studied, given labels that someone wrote "
    "down; it is no statement about "
    "a cause. A difference that was not found is not shown to be absent.",
)


def write_report(
    results: str | Path, out: str | Path | None = None, *, people: Sequence[str] = (), show_faces: bool = False
) -> Path:
    """Write the report of a finished study, and beside it every figure as SVG with its numbers as CSV.

    Args:
        results: folder of the study.
        out: the page; by default ``report.html`` in that folder. ``figures/`` and ``people/`` are made beside it.
        people: who gets a page of their own: mean map, regions, drops. Nobody by default.
        show_faces: put the crops of these people on their pages; everybody who opens the page sees them.

    Returns:
        Path of the page.

    Raises:
        CaptumLeamError: if the folder is not that of a finished study, for people that it does not know, or for ...
            people.

    Example:
        >>> write_report("/nowhere")
        Traceback (most recent call last):
            ...
        captum_leam.errors.CaptumLeamError: /nowhere is not the results folder of a finished study: ...
    """
    study = read_findings(Path(results))
    check_people(study, people, show_faces)
    page = Path(out) if out is not None else study.folder / "report.html"
    compared = study.against_controls()
    text = render(
        title=title_of(study),
        lead=lead_of(study),
        warnings=warnings_of(study),
        answers=answers(study, compared),
        headline=headline(study),
        heroes=heroes(study, page.parent / "figures"),
        sections=_sections(study, compared, page.parent / "figures"),
        links=_links(study, people, page, show_faces),
    )
    return write_page(page, text)


def _sections(study: Findings, compared: pd.DataFrame, folder: Path) -> list[Section]:
    return [
        studied(study, folder),
        specific(study, folder),
        regions(study, folder),
        faithful(study, compared, folder),
        agreement(study, folder),
        groups(study, folder),
        anchors(study, folder),
        Section("limits", "Limits", "What this report does not show.", [Points(list(LIMITS))]),
        made(study),
    ]


def _links(study: Findings, people: Sequence[str], page: Path, show_faces: bool) -> list[tuple[str, str]]:
    asked = dict.fromkeys(map(shown, people))
    return [(person, f"people/{write_person(study, person, page, show_faces).name}") for person in asked]
