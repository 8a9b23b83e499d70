"""Find phrases that the package avoids: ``python tools/check_words.py`` prints one line for each, with what to write instead.

It reads strings, docstrings and comments of Python files, and the whole of pages, templates and configuration files. A phrase may be
broken over two lines. Published sections of the changelog stay as they are.
"""

import argparse
import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TEXT = (".md", ".rst", ".j2", ".html", ".yaml", ".yml", ".toml", ".js", ".css", ".cff")
LEFT_OUT = {"_build", "gallery", "golden", "build", "dist", "results", "demo", "mutants"}
"""Folders that are generated."""
QUOTING = {"check_words.py", "test_words.py"}
"""Files that quote the phrases."""


class Phrase(NamedTuple):
    """A pattern, in which a space is any white space, with an example and a better wording."""

    pattern: str
    example: str
    better: str


ARTICLE = "(an?|the|each|every|all|its|their)"
PHRASES = (
    Phrase(r"\bneeded (is|are)\b", "needed is over 0.1", "at least 0.1 is required"),
    Phrase(r"\b(is|are) told\b(?! apart)", "the batch size is told", "the batch size is reported"),
    Phrase(r"\bin words\b", "refuse in words", "raise an error"),
    Phrase(r"\b(speaks?|spoken) for\b", "what speaks for the match", "what supports the match"),
    Phrase(r"\bstands? for what\b", "a number that stands for what was seen", "a number that summarises the sample"),
    Phrase(rf"\bwhat {ARTICLE} \w+ (is|are)(?=[.,;:)]|$)", "What a row is.", "Person of each row."),
    Phrase(r"\bwhat is what\b", "print what is what", "print the names of the layers"),
    Phrase(r"\bas good as\b", "as good as one", "nearly identical"),
    Phrase(r"\bmay be had\b", "more may be had", "more are available"),
    Phrase(r"\bno picture\b", "this is no picture", "not an image"),
    Phrase(r"\blikewise\b", "likewise the gallery", "the gallery has the same shape"),
    Phrase(r"\bthat others gave\b", "names that others gave", "untrusted names"),
    Phrase(r"\bwhole or not there\b", "files that are whole or not there", "atomic file storage"),
    Phrase(r"\bbut for rounding\b", "zero but for rounding", "numerically zero"),
    Phrase(rf"\A(?-i:O)f {ARTICLE}\b", "Of the crops.", "Size of the crops in pixels."),
    Phrase(rf"^\s*\*{{0,2}}\w+: of {ARTICLE}\b", "seed: of the drawing.", "seed: Seed of the random pixels."),
    Phrase(r"(?<=\w) — (?=\w)", "one thing — and another", "One thing. Another."),
)


def phrases_in(text: str) -> Iterator[tuple[int, Phrase]]:
    """Yield the offset and the phrase of each place where a text uses one."""
    for phrase in PHRASES:
        pattern = phrase.pattern.replace(" ", r"\s+")
        for match in re.finditer(pattern, text, flags=re.IGNORECASE | re.MULTILINE):
            yield match.start(), phrase


def pieces(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a file, each with its first line: strings and comments of Python, the whole of other files."""
    text = path.read_text(encoding="utf-8")
    if path.name == "CHANGELOG.md":
        text = re.split(r"^## \d", text, flags=re.MULTILINE)[0]
    if path.suffix != ".py":
        yield 1, text
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


def written_files() -> list[Path]:
    """Return the files to read, without generated ones and those that quote the phrases."""
    found = (p for p in ROOT.rglob("*") if p.suffix in (".py", *TEXT) and p.name not in QUOTING)
    return sorted(p for p in found if not any(part in LEFT_OUT or part[0] == "." for part in p.relative_to(ROOT).parts))


def findings(paths: list[Path]) -> list[str]:
    """Return a line for each phrase in files: ``file:line: text: write "…" rather than "…"``."""
    found = set()
    for path in paths:
        for first, text in pieces(path):
            for offset, phrase in phrases_in(text):
                line = first + text[:offset].count("\n")
                found.add(
                    (str(path).removeprefix(f"{ROOT}/"), line, " ".join(text[offset : offset + 60].split()), phrase)
                )
    return [f'{path}:{line}: "{text}": as in "{p.better}", not "{p.example}"' for path, line, text, p in sorted(found)]


def main() -> None:
    """Print the findings; exit with status 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="Files to read. Default: all files of the repository.")
    found = findings(parser.parse_args().files or written_files())
    print("\n".join(found) or "check_words: no findings")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
