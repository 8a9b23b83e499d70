"""Studies: many people, many models, many layers, with results that can be trusted, resumed and repeated.

``captum-leam study CONFIG.yaml`` does the same from the command line. Names load lazily: importing this package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_leam.errors import ConfigError, IncompleteError
    from captum_leam.reporting.study_report import write_report
    from captum_leam.study.config import Config, read_config
    from captum_leam.study.result import StudyResult
    from captum_leam.study.study import Study

_WHERE = {
    "Config": "captum_leam.study.config",
    "ConfigError": "captum_leam.errors",
    "IncompleteError": "captum_leam.errors",
    "Study": "captum_leam.study.study",
    "StudyResult": "captum_leam.study.result",
    "read_config": "captum_leam.study.config",
    "write_report": "captum_leam.reporting.study_report",
}

__all__ = ["Config", "ConfigError", "IncompleteError", "Study", "StudyResult", "read_config", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'captum_leam.study' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
