"""The checks of wording and docstrings find what they name, in the line where it is, and nothing else."""

import importlib.util

import pytest

from tools import check_docstrings, check_words


@pytest.mark.parametrize("phrase", check_words.PHRASES, ids=lambda phrase: phrase.example)
def test_each_phrase_is_found_and_its_better_wording_is_not(phrase):
    assert phrase in [found for _, found in check_words.phrases_in(phrase.example)]
    assert not list(check_words.phrases_in(phrase.better))


@pytest.mark.parametrize(
    "text",
    [
        "It differs in other words.",
        "Of six cells, four are ahead.",
        "share: Share of the critical pixels in the region.",
        "A range of 1–2 px, and −1.",
        "Return what the model returns.",
    ],
)
def test_plain_sentences_are_not_found(text):
    assert not list(check_words.phrases_in(text))


def test_strings_docstrings_and_comments_are_read_and_names_are_not(tmp_path):
    phrase = next(
        phrase.example for phrase in check_words.PHRASES if phrase.example.isascii() and " " in phrase.example
    )
    name, (first, rest) = phrase.replace(" ", "_").replace(".", "_"), phrase.split(" ", 1)
    source = tmp_path / "module.py"
    source.write_text(f'"""Files.\n\nAll {first}\n{rest}"""\n\n{name} = "{phrase}"\nother = 1  # {phrase}\n')
    found = check_words.findings([source])
    assert [int(line.removeprefix(f"{source}:").split(":")[0]) for line in found] == [3, 6, 7]


def test_published_sections_of_the_changelog_are_not_read(tmp_path):
    page, phrase = tmp_path / "CHANGELOG.md", check_words.PHRASES[0].example
    text = f"# Changelog\n\n## Unreleased\n\nPlain.\n\n## 0.1.0 (2026-01-01)\n\n{phrase}\n"
    page.write_text(text)
    assert check_words.findings([page]) == []
    page.write_text(text.replace("Plain.", phrase))
    assert len(check_words.findings([page])) == 1


PACKAGE = '''
__all__ = ["complete", "incomplete"]

class FileError(ValueError):
    """Own error."""

def complete(path: str) -> int:
    """Return a number.

    Args:
        path: File.

    Returns:
        Number of lines.

    Raises:
        FileError: If the file is empty.
        ValueError: From a called function.
    """
    if not path:
        raise FileError(path)
    return 1

def incomplete(path: str) -> int:
    """Return a number.

    Example:
        >>> incomplete("x")
        1
    """
    if not path:
        raise FileError(path)
    return 1

def internal(path: str) -> int:
    """Return a number.

    Example:
        >>> internal("x")
        1
    """
    return len(path)

def contradicting(path: str) -> int:
    """Return a number.

    Args:
        folder: File.
    """
    return len(path)
'''


def test_public_names_need_every_section_and_internal_sections_agree_with_the_code(tmp_path):
    if importlib.util.find_spec("pydoclint") is None:
        pytest.skip("pydoclint is not installed")
    (tmp_path / "module.py").write_text(PACKAGE)
    found = [line.split(": ", 1)[1] for line in check_docstrings.findings(tmp_path)]
    assert [line.split(":")[0] for line in found] == [
        "DOC103 incomplete",
        "DOC503 incomplete",
        "DOC103 contradicting",
    ]
    assert found[1] == "DOC503 incomplete: raises FileError, which the docstring does not name"
    every = check_docstrings.findings(tmp_path, has_internal=True)
    assert {line.split(": ")[1] for line in every} >= {"DOC103 internal", "DOC103 contradicting"}
