"""Studies: many people, many models, many layers, with results that can be trusted, resumed and repeated.

``captum-leam study CONFIG.yaml`` does the same from the command line. Names load lazily: importing this package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_leam.study.config import Config, read_config
    from captum_leam.study.result import StudyResult
    from captum_leam.study.study import Study

_WHERE = {
    "Config": "config",
    "Study": "study",
    "StudyResult": "result",
    "read_config": "config",
}

__all__ = ["Config", "Study", "StudyResult", "read_config"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'captum_leam.study' has no attribute {name!r}")
    return getattr(import_module(f"captum_leam.study.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
