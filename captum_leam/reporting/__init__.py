"""Pages and tables of results: explanations of files, and the report of a study. Names are imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_leam.reporting.explanation import ExplainOptions, Explanation, explain_images
    from captum_leam.reporting.explanation_page import write_page
    from captum_leam.reporting.files import FileOptions, explain_files
    from captum_leam.reporting.json_result import explanation_record, explanation_schema
    from captum_leam.reporting.study_report import write_report

_WHERE = {
    "ExplainOptions": "explanation",
    "Explanation": "explanation",
    "explain_images": "explanation",
    "explanation_record": "json_result",
    "explanation_schema": "json_result",
    "FileOptions": "files",
    "explain_files": "files",
    "write_page": "explanation_page",
    "write_report": "study_report",
}

__all__ = [
    "ExplainOptions",
    "Explanation",
    "FileOptions",
    "explain_files",
    "explain_images",
    "explanation_record",
    "explanation_schema",
    "write_page",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'captum_leam.reporting' has no attribute {name!r}")
    return getattr(import_module(f"captum_leam.reporting.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
