"""Configuration of a study: YAML or keywords, validated to frozen settings."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from captum_leam._stores import AnyPath, without_credentials
from captum_leam.controls import CONTROLS, OWN_CONTROLS
from captum_leam.errors import ConfigError
from captum_leam.explain import PRESETS
from captum_leam.faithfulness.fills import FILLS
from captum_leam.maps import WEIGHTINGS
from captum_leam.models.preprocessing import NAMED
from captum_leam.objectives import NORMS
from captum_leam.stats.sampling import MAX_PAIRS
from captum_leam.study.fields import (
    MODEL,
    SHARES,
    Flag,
    Fraction,
    Layers,
    NonNegative,
    Number,
    Place,
    Positive,
    Sorted,
    Text,
    TwoOrMore,
    Unique,
    as_list,
    existing,
    expect,
    expected,
    model_of,
    one_of,
    parser_of,
    place_of,
    short_for,
)
from captum_leam.study.yaml_reader import MAX_INTEGER, read_yaml

# isort: split
# After fields, whose error names the command that installs pydantic.
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

STUDY_PRESETS = (*PRESETS, "layers")
DEFAULT_PRESET = "default"
LEAM_SETTINGS = "a mapping with n_steps, path, norm, weighting"
PATTERN_CONTROLS = ("edges", "untrained", "parser", "pose")
MODELS = f"a mapping of names to {MODEL}"
PEOPLE = "a folder with one folder of pictures for each person, or a CSV table of pictures"
SETTINGS = ConfigDict(extra="forbid", populate_by_name=True, hide_input_in_errors=True)


# -- the settings --------------------------------------------------------------------------------------


@dataclass(frozen=True, config=SETTINGS)
class People:
    """Pictures: a folder with one folder for each person, or a table with one row for each picture."""

    path: Annotated[Place, existing("a folder of people, or a CSV table of pictures")]
    picture_column: Text = Field(default="path", validation_alias="picture")
    person_column: Text = Field(default="person", validation_alias="person")

    @property
    def is_table(self) -> bool:
        """Whether the pictures come from a CSV table."""
        return self.path.suffix.lower() == ".csv"

    @property
    def folder(self) -> AnyPath:
        """Folder that the paths of pictures are relative to."""
        return self.path.parent if self.is_table else self.path


@dataclass(frozen=True, config=SETTINGS)
class Groups:
    """Labels of people: columns of the table of pictures, or of a table of its own."""

    columns: Annotated[tuple[Text, ...], as_list("a list of names of columns")] = ()
    path: Annotated[Place, existing("a CSV table with one row for each person")] | None = Field(
        default=None, validation_alias="file"
    )
    person_column: Text = Field(default="person", validation_alias="person")


@dataclass(frozen=True, config=SETTINGS)
class Model:
    """A network by its name in the tables.

    ``layers`` None: one layer for every spatial size. ``explain`` False: maps of the other models are measured on it.
    """

    name: str
    where: Annotated[str, BeforeValidator(model_of)] = Field(validation_alias="model", description=MODEL)
    preprocessing: Annotated[str, one_of(*NAMED)] | None = None
    layers: Layers = None
    explain: Flag = True


@dataclass(frozen=True, config=SETTINGS)
class Leam:
    """Options of :class:`captum_leam.LEAM` for the signed layer maps."""

    n_steps: Positive = 4
    path: Annotated[str, one_of("mean_gradient", "conductance")] = "mean_gradient"
    norm: Annotated[str, one_of(*NORMS)] = "detach"
    weighting: Annotated[str, one_of(*WEIGHTINGS)] = "elementwise"

    @model_validator(mode="after")
    def _has_a_path(self) -> "Leam":
        if self.n_steps == 1 and self.path == "conductance":
            raise expected("mean_gradient", "For conductance, set n_steps to 2 or more.", key="path")
        return self


@dataclass(frozen=True, config=SETTINGS)
class Parser:
    """Parser that labels the regions."""

    where: Annotated[str, BeforeValidator(parser_of)] = Field(default="template", validation_alias="parser")
    scheme: Annotated[str, one_of("celebamask_hq", "template")] = "celebamask_hq"
    weights: Annotated[Place, existing("a file or folder of weights")] | None = None


@dataclass(frozen=True, config=SETTINGS)
class Patterns:
    """Comparison of the maps of people."""

    fraction: Fraction = 0.01
    grid: Annotated[int, Field(strict=True, ge=4, le=112), expect("a whole number, 4 or more, at most 112")] = 28
    controls: Annotated[
        tuple[Annotated[str, one_of(*PATTERN_CONTROLS)], ...],
        Unique,
        as_list(f"a list of some of {', '.join(PATTERN_CONTROLS)}", may_be_empty=True),
    ] = PATTERN_CONTROLS
    permutations: Annotated[int, Field(strict=True, ge=19), expect("a whole number, 19 or more")] = 999
    resamples: Annotated[int, Field(strict=True, ge=100), expect("a whole number, 100 or more")] = 1000


@dataclass(frozen=True, config=SETTINGS)
class Pictures:
    """Conversion of files to crops."""

    how: Annotated[str, one_of("auto", "crops", "photos")] = "auto"
    detector: Annotated[str, one_of("mobile0.25", "resnet50")] = "mobile0.25"
    weights: Annotated[Place, existing("a file or folder of weights")] | None = None
    size: Annotated[int, Field(strict=True, ge=16, le=1024), expect("a whole number, 16 or more, at most 1024")] = 112


def _models(value: Any) -> Any:
    """Make a list of entries from the mapping of names to entries."""
    if isinstance(value, tuple) and value and all(isinstance(entry, Model) for entry in value):
        return value
    if not isinstance(value, Mapping) or not value:
        raise expected(MODELS)
    for name, entry in value.items():
        if not str(name).strip() or len(str(name)) > 80 or any(ord(c) < 32 or c in "/\\" for c in str(name)):
            raise expected("a model under a name of 1 to 80 characters without / and \\", key=str(name))
        if isinstance(entry, Mapping) and "name" in entry:
            raise expected("absent", "The name of a model is its key.", key=f"{name}.name")
    entries = {k: v if isinstance(v, Mapping) else {"model": v} for k, v in value.items()}
    return [{**entry, "name": str(name)} for name, entry in entries.items()]


def _groups(value: Any) -> Any:
    """Take a list of columns for a mapping with ``columns``."""
    if isinstance(value, Mapping):
        for key, what in (("columns", "a list of names of columns"), ("file", "a CSV table that exists")):
            if key not in value:
                raise expected(what, key=key)
    return value if isinstance(value, Mapping | Groups) else {"columns": value}


def _out(value: Any, info: ValidationInfo) -> AnyPath:
    """Return the folder of results without links."""
    path = place_of(value, info, "a folder")
    return path.resolve() if isinstance(path, Path) else path


def _leam(value: Any) -> Any:
    """Raise for the name of a preset, which is a setting of its own."""
    is_mapping = isinstance(value, Mapping) and "preset" in value
    named = value["preset"] if is_mapping else value
    if isinstance(named, str):
        preset = named if named in STUDY_PRESETS else DEFAULT_PRESET
        hint = f"Set preset: {preset} beside leam for the overall map, and leam: {{n_steps: …}} for the layer maps."
        raise expected("absent", hint, key="preset") if is_mapping else expected(LEAM_SETTINGS, hint)
    return value


@dataclass(frozen=True, config=SETTINGS)
class Config:
    """Settings of a study. :doc:`/reference/study_configuration` explains every key.

    Example:
        >>> config = config_from({"people": ".", "models": {"a": "torch.nn:Identity"}})
        >>> config.fractions, config.preset, config.leam.n_steps, config.patterns.controls
        ((0.01, 0.05, 0.2), 'default', 4, ('edges', 'untrained', 'parser', 'pose'))
    """

    people: Annotated[People, short_for("path")] = Field(description=PEOPLE)
    models: Annotated[tuple[Model, ...], BeforeValidator(_models)] = Field(description=MODELS)
    groups: Annotated[Groups, BeforeValidator(_groups)] = Groups()
    layers: Layers = None
    preset: Annotated[str, one_of(*STUDY_PRESETS)] = DEFAULT_PRESET
    leam: Annotated[Leam, BeforeValidator(_leam)] = Leam()
    parser: Annotated[Parser, short_for("parser")] = Parser()
    fractions: Annotated[tuple[Fraction, ...], Sorted, as_list(SHARES)] = (0.01, 0.05, 0.2)
    layer_fractions: Annotated[tuple[Fraction, ...], Sorted, as_list(SHARES, may_be_empty=True)] = (0.05,)
    layer_transfer: Flag = False
    fills: Annotated[
        tuple[Annotated[str, one_of(*FILLS)], ...], Unique, as_list(f"one or more of {', '.join(FILLS)}")
    ] = ("blur",)
    controls: Annotated[
        tuple[Annotated[str, one_of(*CONTROLS)], ...],
        Unique,
        as_list(f"a list of some of {', '.join(CONTROLS)}", may_be_empty=True),
    ] = ("random pixels", "centre", "edges", "moved", "other people")
    transfer: Flag = True
    region_fraction: Fraction = 0.01
    patterns: Patterns = Patterns()
    pictures: Annotated[Pictures, short_for("how")] = Pictures()
    min_images: TwoOrMore = 2
    min_group: TwoOrMore = 10
    max_eer: Annotated[Number, Field(gt=0, le=0.5), expect("a number over 0 and at most 0.5")] = 0.2
    max_pairs: Positive = MAX_PAIRS
    confidence: Annotated[Number, Field(gt=0.5, lt=1), expect("a number over 0.5 and under 1")] = 0.95
    seed: NonNegative = 0
    batch_size: Positive = 32
    shard_size: Positive = 32
    threads: Positive = 1
    device: Text = "cpu"
    precision: Annotated[str, one_of("float32", "bf16")] = "float32"
    store_maps: Annotated[str, one_of("none", "overall", "all")] = "none"
    title: Text = "Study"
    out: Annotated[Place, BeforeValidator(_out)] = Field(default=Path("results"), validate_default=True)

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        if self.layers is not None:
            named = tuple(m if m.layers is not None else replace(m, layers=self.layers) for m in self.models)
            object.__setattr__(self, "models", named)
        if not self.explained:
            raise expected("a mapping with one model or more with explain: true", key="models")
        if self.groups.columns and self.groups.path is None and not self.people.is_table:
            hint = "People come from a folder, which has no columns for labels."
            raise expected("{file: TABLE.csv, columns: [...]}", hint, key="groups")
        return self

    @property
    def explained(self) -> tuple[Model, ...]:
        """Models that are explained, a tuple in the order of the configuration. The others only measure."""
        return tuple(model for model in self.models if model.explain)

    @property
    def own_controls(self) -> tuple[str, ...]:
        """Controls that are made from the maps of each network, other than those that need the maps of all people."""
        return tuple(name for name in self.controls if name in OWN_CONTROLS and name != "other people")

    @property
    def shared_controls(self) -> tuple[str, ...]:
        """Controls that are the same for all networks."""
        return tuple(name for name in self.controls if name not in OWN_CONTROLS)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as values that JSON can hold.

        Returns:
            Dictionary with the keys of the YAML file, whose values are text, numbers, lists and dictionaries.
        """
        plain: dict[str, Any] = TypeAdapter(Config).dump_python(self, mode="json")
        return plain


SPURIOUS = "is not a setting"
SECTIONS: dict[str, Any] = {
    "people": People,
    "models": Model,
    "groups": Groups,
    "leam": Leam,
    "parser": Parser,
    "patterns": Patterns,
    "pictures": Pictures,
}


# -- reading -------------------------------------------------------------------------------------------


def read_config(path: str | Path) -> Config:
    r"""Read the settings of a study from a YAML file.

    Args:
        path: Path of the file. Paths in it are relative to its folder.

    Returns:
        Settings of the study.

    Raises:
        ConfigError: If a setting is invalid. The message has its key, its value, the expected values and the line.

    See Also:
        :class:`~captum_leam.study.Study`: Study with these settings.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.yaml").write_text("people: .\nmodels: {a: torch.nn:Identity}\nfraction: [0.1]\n")
        ...     read_config(Path(folder, "a.yaml"))
        Traceback (most recent call last):
            ...
        captum_leam.errors.ConfigError: ...a.yaml, line 3: fraction is not a setting. Did you mean 'fractions'? ...
    """
    value, lines = read_yaml(Path(path))
    return _validated(value, Path(path).resolve().parent, str(path), lines)


def config_from(settings: Mapping[str, Any], folder: str | Path = ".") -> Config:
    """Return the settings given by keywords.

    Args:
        settings: Name → value, as in the YAML file.
        folder: Folder that paths are relative to. Default: the current one.

    Raises:
        ConfigError: If a setting is wrong, with its key, its value and what was expected.

    Example:
        >>> config = config_from({"people": ".", "models": {"a": "torch.nn:Identity"}, "seed": 3})
        >>> config.seed, config.models[0].where
        (3, 'torch.nn:Identity')
    """
    return _validated(settings, Path(folder).resolve(), "Study", {})


def _validated(value: Any, folder: Path, source: str, lines: Mapping[str, int]) -> Config:
    try:
        config: Config = TypeAdapter(Config).validate_python(_without_nulls(value), context={"folder": folder})
    except ValidationError as error:
        problems = [_problem(value, details) for details in error.errors()]
        key, problem = min(
            problems, key=lambda found: (SPURIOUS not in found[1], _line(found[0], lines) or MAX_INTEGER)
        )
        line = _line(key, lines)
        raise ConfigError(f"{source}, line {line}: {problem}" if line else f"{source}: {problem}") from None
    return config


def _without_nulls(value: Any) -> Any:
    """Leave out keys without a value, whose defaults hold."""
    if not isinstance(value, Mapping):
        return value
    return {str(key): _without_nulls(inner) for key, inner in value.items() if inner is not None}


def _problem(settings: Any, details: ErrorDetails) -> tuple[str, str]:
    """Return the key that an error of pydantic is about, and the message."""
    context = details.get("ctx", {})
    below = tuple(filter(None, [context.get("key")]))
    key, value = _locate(settings, (*details["loc"], *below))
    section: Any = Config if len(details["loc"]) <= 1 else SECTIONS.get(str(details["loc"][0]))
    name = str(details["loc"][-1]) if details["loc"] else ""
    if details["type"] == "unexpected_keyword_argument":
        allowed = _keys(section)
        near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        parent = f" in {key.rpartition('.')[0]}" if "." in key else ""
        return key, f"{key} {SPURIOUS}.{hint} Allowed{parent}: {', '.join(allowed)}."
    if details["type"] in ("dataclass_type", "dataclass_exact_type"):
        what = f"a mapping with {', '.join(_keys(SECTIONS.get(name, Config)))}"
    elif details["type"] == "missing":
        descriptions = {_key(n, field): field.description for n, field in section.__pydantic_fields__.items()}
        what = descriptions.get(name) or "a value"
    else:
        what = context.get("what") or details["msg"].removeprefix("Input should be ")
    text = without_credentials(repr(value))
    shown = "nothing" if value is None else text if len(text) <= 120 else text[:117] + "..."
    hint = f" {context['hint']}" if context.get("hint") else ""
    return key, f"Expected {key or 'the configuration'} to be {what}, got {shown}.{hint}"


def _key(name: str, field: Any) -> str:
    return field.validation_alias or name


def _keys(section: Any) -> list[str]:
    """Return the names of the settings in a section, as YAML has them."""
    fields = section.__pydantic_fields__.items()
    return [_key(name, field) for name, field in fields if section is not Model or name != "name"]


def _locate(settings: Any, location: Sequence[str | int]) -> tuple[str, Any]:
    """Return the key and the value at a location, or of the nearest value above where it was written in short."""
    key, value = "", settings
    for step in location:
        step = list(value)[step] if key == "models" and isinstance(step, int) else step
        if isinstance(value, Mapping):
            key, value = f"{key}.{step}".removeprefix("."), value.get(step)
        elif isinstance(value, list | tuple) and isinstance(step, int) and step < len(value):
            key, value = f"{key}[{step}]", value[step]
        else:
            break
    return key, value


def _line(key: str, lines: Mapping[str, int]) -> int | None:
    """Return the line of a key, or of the nearest key above it."""
    while key and key not in lines:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return lines.get(key)
