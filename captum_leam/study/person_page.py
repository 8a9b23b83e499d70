"""A page about one person, made only on request: their maps, regions and drops beside everybody's."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from captum_leam.report import safe_name
from captum_leam.study.results import Results


def check_people(study: Results, people: Sequence[str], show_faces: bool) -> None:
    """Refuse people that the study does not know.

    Raises:
        ValueError: for unknown people, with names that are close; for ``show_faces`` without people; for one text in place of a list.
    """
    if isinstance(people, str):
        raise ValueError(f"people is the text {people!r}; needed is a list of names: [{people!r}].")
    if show_faces and not people:
        raise ValueError("show_faces shows the crops of the people named in people=[…]; nobody is named.")


def write_person(study: Results, person: str, folder: Path, show_faces: bool) -> Path:
    raise NotImplementedError
