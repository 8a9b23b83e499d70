"""How it was made: the manifest, folded."""

from collections.abc import Iterator, Mapping
from typing import Any

from captum_leam._text import shown
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.study_page import Block, Facts, Section

ELSEWHERE = ("skipped", "shards", "notes")
"""Of the manifest: what has its own section, and what is too long to read."""

LINES = 120


def made(study: Findings) -> Section:
    """The manifest, folded."""
    told = {key: value for key, value in study.manifest.items() if key not in ELSEWHERE}
    nested = {key: value for key, value in told.items() if isinstance(value, Mapping | list)}
    plain = [(shown_key(key), shown(value)) for key, value in told.items() if key not in nested]
    blocks: list[Block] = [Facts(shown_key(key), _flat(value), closed=True) for key, value in nested.items()]
    if plain:
        blocks.insert(0, Facts("", plain))
    text = "All of it is in manifest.json; captum-leam study --check repeats the study and compares."
    return Section("made", "Made with", text, blocks)


def shown_key(key: str) -> str:
    """A key of the manifest as a name."""
    return shown(key).replace("_", " ")


def _flat(value: Any) -> list[tuple[str, str]]:
    """Nested values as names and texts; of long lists the beginning."""
    lines = list(_walk("", value))
    if len(lines) > LINES:
        return [*lines[:LINES], ("…", f"{len(lines) - LINES} more lines in manifest.json")]
    return lines


def _walk(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(f"{name} · {shown_key(key)}" if name else shown_key(key), inner)
    elif isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        for i, inner in enumerate(value, 1):
            yield from _walk(f"{name} {i}".strip(), inner)
    else:
        text = _said(value)
        yield name, shown(text[:500] + "…" * (len(text) > 500))


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
