"""What an option is when it is not given: a changed default changes everybody's results, so that it must be meant.

python tests/test_defaults.py      writes tests/defaults.json anew; say in CHANGELOG.md what changed
"""

import importlib
import inspect
import json
import re
from pathlib import Path
from types import ModuleType

FILE = Path(__file__).with_name("defaults.json")
MODULES = (
    "captum_leam", "captum_leam.controls", "captum_leam.explainers", "captum_leam.faces", "captum_leam.faithfulness",
    "captum_leam.layers", "captum_leam.maps", "captum_leam.models", "captum_leam.objectives", "captum_leam.patterns",
    "captum_leam.plots", "captum_leam.regions", "captum_leam.reporting", "captum_leam.stats",
    "captum_leam.study", "captum_leam.synthetic", "captum_leam.verification",
)  # fmt: skip


def public(module: ModuleType) -> dict[str, object]:
    """Functions and classes that a module offers."""
    found = {name: getattr(module, name) for name in module.__all__ if not name.startswith("_")}
    return {name: value for name, value in sorted(found.items()) if inspect.isclass(value) or inspect.isfunction(value)}


def callables(name: str, value: object) -> dict[str, object]:
    """The function, or the class and its public methods."""
    found = {name: value}
    if inspect.isclass(value):
        own = [
            (key, v)
            for base in reversed(value.__mro__)
            for key, v in vars(base).items()
            if base.__module__.startswith("captum_leam")
        ]
        for key, method in own:
            function = getattr(method, "__func__", method)
            if not key.startswith("_") and inspect.isfunction(function):
                found[f"{name}.{key}"] = function
    return found


def said(value: object) -> str:
    """A default as text that is the same everywhere."""
    if inspect.isfunction(value) or inspect.isclass(value):
        return getattr(value, "__qualname__", "")
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def defaults() -> dict[str, dict[str, str]]:
    """Everything public with options: name → option → default."""
    found: dict[str, dict[str, str]] = {}
    for module in MODULES:
        for name, value in public(importlib.import_module(module)).items():
            for called, function in callables(name, value).items():
                try:
                    parameters = inspect.signature(function).parameters.values()
                except ValueError:
                    continue
                given = {p.name: said(p.default) for p in parameters if p.default is not p.empty}
                if given:
                    found[f"{module}.{called}"] = given
    return dict(sorted(found.items()))


def test_public_defaults_equal_the_recorded_ones():
    expected, found = json.loads(FILE.read_text(encoding="utf-8")), defaults()
    assert set(found) == set(expected), "python tests/test_defaults.py"
    assert {k: v for k, v in found.items() if v != expected[k]} == {}
    assert sum(map(len, found.values())) > 300


if __name__ == "__main__":
    FILE.write_text(json.dumps(defaults(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
