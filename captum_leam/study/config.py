"""The configuration of a study: YAML (or keywords) to frozen settings, every mistake named with its line."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from captum_leam.controls import CONTROLS
from captum_leam.errors import ConfigError, MissingExtraError
from captum_leam.faithfulness.fills import FILLS
from captum_leam.maps import WEIGHTINGS
from captum_leam.models.preprocessing import NAMED
from captum_leam.objectives import NORMS

MOST_BYTES = 1 << 20  # of a configuration; what is larger is none
MOST_DEPTH = 20
MOST_CHARACTERS = 4096  # of one value, as of a path
LARGEST = 2**63 - 1  # that arrays can count
PLAIN = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")

PATTERN_CONTROLS = ("edges", "untrained", "parser", "pose")
PARSERS = ("template", "bisenet", "parsenet")
SCHEMES = ("celebamask_hq", "template")
PATH_STEPS = {"fast": 1, "default": 4, "best": 16}


# -- the settings --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class People:
    """Where the pictures are: a folder of folders, one for each person, or a table with one row for each picture."""

    path: Path
    picture_column: str = "path"
    person_column: str = "person"

    @property
    def is_table(self) -> bool:
        """Whether it is a CSV table, not a folder."""
        return self.path.suffix.lower() == ".csv"


@dataclass(frozen=True)
class Groups:
    """Labels of people: columns of the table of pictures, or of a table of its own."""

    columns: tuple[str, ...] = ()
    path: Path | None = None
    person_column: str = "person"


@dataclass(frozen=True)
class Model:
    """A network by the name that tables give it."""

    name: str
    where: str
    preprocessing: str | None = None
    layers: tuple[str, ...] | None = None
    """Names, or None: found, one for every spatial size."""
    explain: bool = True
    """False: maps of the other models are measured on it, it is not explained."""


@dataclass(frozen=True)
class Leam:
    """How the maps are made, see :class:`captum_leam.LEAM`."""

    n_steps: int = PATH_STEPS["default"]
    path: str = "mean_gradient"
    norm: str = "detach"
    weighting: str = "elementwise"


@dataclass(frozen=True)
class Parser:
    """What labels the regions."""

    where: str = "template"
    scheme: str = "celebamask_hq"
    weights: Path | None = None


@dataclass(frozen=True)
class Patterns:
    """How maps of people are compared."""

    fraction: float = 0.01
    grid: int = 28
    controls: tuple[str, ...] = PATTERN_CONTROLS
    permutations: int = 999
    resamples: int = 1000


@dataclass(frozen=True)
class Pictures:
    """How files become crops."""

    how: str = "auto"
    detector: str = "mobile0.25"
    weights: Path | None = None
    size: int = 112


@dataclass(frozen=True)
class Config:
    """Everything that a study depends on; the page on studies has every key in words.

    Example:
        >>> config = config_from({"people": ".", "models": {"a": "torch.nn:Identity"}})
        >>> config.fractions, config.leam.n_steps, config.patterns.controls
        ((0.01, 0.05, 0.2), 4, ('edges', 'untrained', 'parser', 'pose'))
    """

    people: People
    models: tuple[Model, ...]
    groups: Groups = Groups()
    layers: tuple[str, ...] | None = None
    leam: Leam = Leam()
    parser: Parser = Parser()
    fractions: tuple[float, ...] = (0.01, 0.05, 0.2)
    layer_fractions: tuple[float, ...] = (0.05,)
    layer_transfer: bool = False
    fills: tuple[str, ...] = ("blur",)
    controls: tuple[str, ...] = ("random pixels", "centre", "edges", "moved", "other people")
    transfer: bool = True
    region_fraction: float = 0.01
    patterns: Patterns = Patterns()
    pictures: Pictures = Pictures()
    min_images: int = 2
    min_group: int = 10
    max_eer: float = 0.2
    confidence: float = 0.95
    seed: int = 0
    batch_size: int = 32
    shard_size: int = 32
    threads: int = 1
    device: str = "cpu"
    store_maps: str = "none"
    title: str = "Study"
    out: Path = field(default=Path("results"))

    @property
    def explained(self) -> tuple[Model, ...]:
        """The models that are explained."""
        return tuple(model for model in self.models if model.explain)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can say them."""
        told: dict[str, Any] = _plain(asdict(self))
        return told


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


# -- reading -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """A value of the configuration, its key, and where it stands."""

    value: Any
    key: str
    source: str
    lines: Mapping[str, int]

    def fail(self, needed: str) -> NoReturn:
        """Refuse the value."""
        shown = repr(self.value) if len(repr(self.value)) <= 120 else repr(self.value)[:117] + "..."
        said = "is missing" if self.value is None else f"is {shown}"
        raise ConfigError(f"{self.where}: {self.key or 'the configuration'} {said}; needed is {needed}.")

    @property
    def where(self) -> str:
        """File and line, or what there is."""
        key = self.key
        while key not in self.lines and key:
            key = key.rpartition("." if key.rfind(".") > key.rfind("[") else "[")[0]
        return f"{self.source}, line {self.lines[key]}" if key in self.lines else self.source

    def at(self, key: str | int) -> "Given":
        """What is below a key, None where there is nothing."""
        if isinstance(key, int):
            return Given(self.value[key], f"{self.key}[{key}]", self.source, self.lines)
        found = self.value.get(key) if isinstance(self.value, Mapping) else None
        return Given(found, f"{self.key}.{key}" if self.key else key, self.source, self.lines)

    def known(self, keys: Sequence[str]) -> None:
        """Refuse keys that mean nothing, with the nearest that do."""
        if not isinstance(self.value, Mapping):
            self.fail(f"a mapping with {', '.join(keys)}")
        for key in self.value:
            if key not in keys:
                near = difflib.get_close_matches(str(key), keys, n=1, cutoff=0.5)
                given = self.at(str(key))
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(
                    f"{given.where}: {given.key} is not a setting.{hint} Allowed{f' in {self.key}' if self.key else ''}: {', '.join(keys)}."
                )


def read_config(path: str | Path) -> Config:
    r"""Settings from a YAML file.

    Paths in it are relative to its folder. It is read as data: no tag runs code, aliases are refused.

    Args:
        path: of the file.

    Raises:
        ConfigError: naming the key, its value, what is allowed, and the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.yaml").write_text("people: .\nmodels: {a: torch.nn:Identity}\nfraction: [0.1]\n")
        ...     read_config(Path(folder, "a.yaml"))
        Traceback (most recent call last):
            ...
        captum_leam.errors.ConfigError: ...a.yaml, line 3: fraction is not a setting. Did you mean 'fractions'? ...
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise ConfigError(f"{path}: there is no such configuration; needed is a YAML file.")
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read ({error.strerror}).") from None
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path}: {len(content)} bytes; a configuration has at most {MOST_BYTES}.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is no text in UTF-8 ({error.reason} at byte {error.start}).") from None
    value, lines = _parse(text, str(path))
    return make_config(Given(value, "", str(path), lines), path.resolve().parent)


def config_from(settings: Mapping[str, Any], folder: str | Path = ".") -> Config:
    """Settings from keywords, under the names of the YAML file.

    Args:
        settings: name → value.
        folder: that paths are relative to.

    Raises:
        ConfigError: naming the setting, its value, and what is allowed.

    Example:
        >>> config = config_from({"people": ".", "models": {"a": "torch.nn:Identity"}, "seed": 3})
        >>> config.seed, config.models[0].where
        (3, 'torch.nn:Identity')
    """
    return make_config(Given(_without_paths(settings), "", "Study", {}), Path(folder).resolve())


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _parse(text: str, source: str) -> tuple[Any, dict[str, int]]:
    """Plain values, and the line of every key."""
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError(
            f'yaml cannot be imported ({error}). It comes with: pip install "captum-leam[study]"'
        ) from None
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{source}, line {number}: character #x{error.character:04x} is not allowed in YAML."
        ) from None
    try:
        _refuse_bombs(text, source)
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        value = None if node is None else _value(node, "", source, lines, loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        hint = "; indent with spaces, not with tabs" if "\\t" in problem else ""
        raise ConfigError(f"{source}{line}: this is no YAML ({problem}{hint}).") from None
    finally:
        loader.dispose()
    return value, lines


def _refuse_bombs(text: str, source: str) -> None:
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise ConfigError(f"{source}, line {event.start_mark.line + 1}: nested over {MOST_DEPTH} deep.")
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(
                f"{source}, line {event.start_mark.line + 1}: *{event.anchor} is an alias; write the value out instead."
            )


def _value(node: Any, key: str, source: str, lines: dict[str, int], loader: Any) -> Any:
    import yaml

    lines.setdefault(key, node.start_mark.line + 1)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in PLAIN:
        raise ConfigError(f"{source}, line {node.start_mark.line + 1}: {node.tag} is no plain list or mapping.")
    if isinstance(node, yaml.SequenceNode):
        return [_value(inner, f"{key}[{i}]", source, lines, loader) for i, inner in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(node, key, source, loader)
    found: dict[str, Any] = {}
    for name_node, inner in node.value:
        line = name_node.start_mark.line + 1
        if not isinstance(name_node, yaml.ScalarNode):
            raise ConfigError(f"{source}, line {line}: a list or mapping is no name of a setting.")
        name = str(name_node.value)
        below = f"{key}.{name}" if key else name
        if name in found:
            raise ConfigError(f"{source}, line {line}: {below} is there twice.")
        lines[below] = line
        found[name] = _value(inner, below, source, lines, loader)
    return found


def _scalar(node: Any, key: str, source: str, loader: Any) -> Any:
    """A text, number, date or so; what YAML's own readers trip over is named with its line."""
    import yaml

    where = f"{source}, line {node.start_mark.line + 1}: {key or 'the configuration'}"
    if len(node.value) > MOST_CHARACTERS:
        raise ConfigError(f"{where} has {len(node.value)} characters; a value has at most {MOST_CHARACTERS}.")
    try:
        value = loader.construct_object(node)
    except yaml.YAMLError:
        raise
    except Exception:  # dates of the 31st of February, numbers with too many digits, !!bool maybe: each in its own way
        raise ConfigError(f"{where} is {node.value[:60]!r}, which is no {node.tag.rpartition(':')[2]}.") from None
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{where} is {node.value[:60]}; a number is at most {LARGEST}.")
    return value


# -- from values to settings ---------------------------------------------------------------------------


def make_config(given: Given, folder: Path) -> Config:
    """Settings from plain values; paths relative to ``folder``."""
    readers: dict[str, Callable[[Given], Any]] = {
        "people": lambda g: _people(g, folder),
        "models": lambda g: _models(g, folder),
        "groups": lambda g: _groups(g, folder),
        "layers": _layers,
        "leam": _leam,
        "parser": lambda g: _parser(g, folder),
        "fractions": _fractions,
        "layer_fractions": _fractions_or_none,
        "layer_transfer": _flag,
        "fills": lambda g: _names(g, tuple(FILLS)),
        "controls": lambda g: _names(g, tuple(CONTROLS)),
        "transfer": _flag,
        "region_fraction": _fraction,
        "patterns": _patterns,
        "pictures": lambda g: _pictures(g, folder),
        "min_images": lambda g: _whole(g, 2),
        "min_group": lambda g: _whole(g, 2),
        "max_eer": lambda g: _number(g, 0, 0.5),
        "confidence": lambda g: _number(g, 0.5, 1, open_high=True),
        "seed": lambda g: _whole(g, 0),
        "batch_size": lambda g: _whole(g, 1),
        "shard_size": lambda g: _whole(g, 1),
        "threads": lambda g: _whole(g, 1),
        "device": _text,
        "store_maps": lambda g: _one_of(g, ("none", "overall", "all")),
        "title": _text,
        "out": lambda g: (folder / _text(g)).resolve(),
    }
    given.known(list(readers))
    made = {name: read(given.at(name)) for name, read in readers.items() if given.at(name).value is not None}
    for needed, what in (
        ("people", "a folder with one folder of pictures for each person, or a CSV table of pictures"),
        ("models", "a mapping of names to FILE.py:callable, package.module:callable or FILE.onnx"),
    ):
        if needed not in made:
            given.at(needed).fail(what)
    config = Config(**{"out": folder / "results", **made})
    if config.layers is not None:
        own = tuple(m if m.layers is not None else replace(m, layers=config.layers) for m in config.models)
        config = replace(config, models=own)
    if not config.explained:
        given.at("models").fail("one model or more with explain: true")
    if config.groups.columns and config.groups.path is None and not config.people.is_table:
        given.at("groups").fail(
            "{file: TABLE.csv, columns: [...]}: people come from a folder, which has no columns for labels"
        )
    return config


def _people(given: Given, folder: Path) -> People:
    if isinstance(given.value, Mapping):
        given.known(["path", "picture", "person"])
        more = {"picture_column": given.at("picture"), "person_column": given.at("person")}
        named = {key: _text(value) for key, value in more.items() if value.value is not None}
        return People(_there(given.at("path"), folder, "a folder of people, or a CSV table of pictures"), **named)
    return People(_there(given, folder, "a folder of people, or a CSV table of pictures"))


def _there(given: Given, folder: Path, what: str) -> Path:
    path = folder / _text(given, what)
    try:
        exists = path.exists()
    except (OSError, ValueError):
        exists = False
    if not exists:
        given.fail(f"{what} that exists; there is no {path}")
    return path


def _groups(given: Given, folder: Path) -> Groups:
    if isinstance(given.value, Mapping):
        given.known(["file", "columns", "person"])
        person = _text(given.at("person")) if given.at("person").value is not None else "person"
        columns = _list(given.at("columns"), _text, "a list of names of columns")
        return Groups(columns, _there(given.at("file"), folder, "a CSV table with one row for each person"), person)
    return Groups(_list(given, _text, "a list of columns, or {file: TABLE.csv, columns: [...]}"))


def _models(given: Given, folder: Path) -> tuple[Model, ...]:
    if not isinstance(given.value, Mapping) or not given.value:
        given.fail("a mapping of names to FILE.py:callable, package.module:callable or FILE.onnx")
    return tuple(_model(given.at(name), name, folder) for name in given.value)


def _model(given: Given, name: str, folder: Path) -> Model:
    what = "FILE.py:callable, package.module:callable or FILE.onnx"
    if not name.strip() or len(name) > 80 or any(ord(c) < 32 or c in "/\\" for c in name):
        given.fail("a model under a name of 1 to 80 characters without / and \\")
    if not isinstance(given.value, Mapping):
        return Model(name, _model_path(given, folder, what))
    given.known(["model", "preprocessing", "layers", "explain"])
    preprocessing = given.at("preprocessing")
    return Model(
        name,
        _model_path(given.at("model"), folder, what),
        None if preprocessing.value is None else _one_of(preprocessing, tuple(NAMED)),
        _layers(given.at("layers")),
        given.at("explain").value is None or _flag(given.at("explain")),
    )


def _model_path(given: Given, folder: Path, what: str) -> str:
    where = _text(given, what)
    file, colon, name = where.rpartition(":")
    if where.endswith(".onnx"):
        return str(_there(given, folder, "an ONNX file"))
    if not colon or not file or not name:
        given.fail(what)
    if not file.endswith(".py"):
        return where
    if not (folder / file).is_file():
        given.fail(f"{what}; there is no {folder / file}")
    return f"{folder / file}:{name}"


def _layers(given: Given) -> tuple[str, ...] | None:
    if given.value is None or given.value == "auto":
        return None
    return tuple(dict.fromkeys(_list(given, _text, "auto, or a list of names of layers")))


def _leam(given: Given) -> Leam:
    if isinstance(given.value, str):
        return Leam(PATH_STEPS[_one_of(given, tuple(PATH_STEPS))])
    given.known(["preset", "n_steps", "path", "norm", "weighting"])
    preset, n_steps = given.at("preset"), given.at("n_steps")
    if preset.value is not None and n_steps.value is not None:
        n_steps.fail(f"either preset or n_steps; leam.preset is {preset.value!r}")
    steps = PATH_STEPS[_one_of(preset, tuple(PATH_STEPS))] if preset.value is not None else PATH_STEPS["default"]
    readers: dict[str, tuple[str, ...]] = {
        "path": ("mean_gradient", "conductance"),
        "norm": tuple(NORMS),
        "weighting": tuple(WEIGHTINGS),
    }
    named = {k: _one_of(given.at(k), allowed) for k, allowed in readers.items() if given.at(k).value is not None}
    leam = Leam(steps if n_steps.value is None else _whole(n_steps, 1), **named)
    if leam.n_steps == 1 and leam.path == "conductance":
        given.at("path").fail("mean_gradient, or n_steps of 2 or more: one step is no path")
    return leam


def _parser(given: Given, folder: Path) -> Parser:
    allowed = f"{', '.join(PARSERS)}, or FILE.py:callable"
    where = given.at("parser") if isinstance(given.value, Mapping) else given
    if isinstance(given.value, Mapping):
        given.known(["parser", "scheme", "weights"])
    named = _text(where, allowed)
    if named not in PARSERS:
        named = _model_path(where, folder, allowed)
        if named.endswith(".onnx"):
            where.fail(allowed)
    if not isinstance(given.value, Mapping):
        return Parser(named)
    scheme, weights = given.at("scheme"), given.at("weights")
    return Parser(
        named,
        "celebamask_hq" if scheme.value is None else _one_of(scheme, SCHEMES),
        None if weights.value is None else _there(weights, folder, "a file or folder of weights"),
    )


def _patterns(given: Given) -> Patterns:
    given.known(["fraction", "grid", "controls", "permutations", "resamples"])
    readers: dict[str, Callable[[Given], Any]] = {
        "fraction": _fraction,
        "grid": lambda g: _whole(g, 4, 112),
        "controls": lambda g: _names(g, PATTERN_CONTROLS, may_be_empty=True),
        "permutations": lambda g: _whole(g, 19),
        "resamples": lambda g: _whole(g, 100),
    }
    return Patterns(**{k: read(given.at(k)) for k, read in readers.items() if given.at(k).value is not None})


def _pictures(given: Given, folder: Path) -> Pictures:
    kinds = ("auto", "crops", "photos")
    if isinstance(given.value, str):
        return Pictures(_one_of(given, kinds))
    given.known(["how", "detector", "weights", "size"])
    readers: dict[str, Callable[[Given], Any]] = {
        "how": lambda g: _one_of(g, kinds),
        "detector": lambda g: _one_of(g, ("mobile0.25", "resnet50")),
        "weights": lambda g: _there(g, folder, "a file or folder of weights"),
        "size": lambda g: _whole(g, 16, 1024),
    }
    return Pictures(**{k: read(given.at(k)) for k, read in readers.items() if given.at(k).value is not None})


# -- single values -------------------------------------------------------------------------------------


def _text(given: Given, what: str = "a text") -> str:
    if not isinstance(given.value, str | int | float) or isinstance(given.value, bool) or not str(given.value).strip():
        given.fail(what)
    if "\0" in str(given.value):
        given.fail(f"{what} without NUL")
    return str(given.value)


def _flag(given: Given) -> bool:
    if not isinstance(given.value, bool):
        given.fail("true or false")
    return bool(given.value)


def _one_of(given: Given, allowed: Sequence[str]) -> str:
    if given.value not in allowed:
        near = difflib.get_close_matches(str(given.value), allowed, n=1, cutoff=0.5)
        given.fail(f"one of {', '.join(allowed)}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    return str(given.value)


def _whole(given: Given, least: int, most: int | None = None) -> int:
    fits = isinstance(given.value, int) and not isinstance(given.value, bool) and given.value >= least
    if not fits or (most is not None and given.value > most):
        given.fail(f"a whole number, {least} or more" + (f", at most {most}" if most is not None else ""))
    return int(given.value)


def _number(given: Given, low: float, high: float, *, open_high: bool = False) -> float:
    wanted = f"a number over {low:g} and {'under' if open_high else 'at most'} {high:g}"
    if isinstance(given.value, bool):
        given.fail(wanted)
    try:
        value = float(given.value)  # YAML reads 1e-3 as a text
    except (TypeError, ValueError):
        given.fail(wanted)
    if not low < value <= high or (open_high and value == high):
        given.fail(wanted)
    return value


def _fraction(given: Given) -> float:
    return _number(given, 0, 1)


def _list(given: Given, read: Callable[[Given], Any], what: str) -> tuple[Any, ...]:
    if isinstance(given.value, str | int | float) and not isinstance(given.value, bool):
        return (read(given),)  # one is a list of one
    if not isinstance(given.value, Sequence) or not given.value:
        given.fail(what)
    return tuple(read(inner) for inner in _items(given))


def _items(given: Given) -> Iterator[Given]:
    return (given.at(i) for i in range(len(given.value)))


def _fractions(given: Given) -> tuple[float, ...]:
    return tuple(sorted(set(_list(given, _fraction, "a list of shares of the pixels, over 0 and at most 1"))))


def _fractions_or_none(given: Given) -> tuple[float, ...]:
    return () if given.value == [] else _fractions(given)


def _names(given: Given, allowed: Sequence[str], *, may_be_empty: bool = False) -> tuple[str, ...]:
    if given.value == []:
        if not may_be_empty and "blur" in allowed:
            given.fail(f"one or more of {', '.join(allowed)}")
        return ()
    found = _list(given, lambda g: _one_of(g, allowed), f"a list of some of {', '.join(allowed)}")
    return tuple(dict.fromkeys(found))
