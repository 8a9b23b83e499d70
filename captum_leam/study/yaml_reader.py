"""Read YAML as data: plain values and the line of every key. No tag runs code; aliases and repeated keys are refused."""

from pathlib import Path
from typing import Any, NoReturn

from captum_leam._optional import import_optional
from captum_leam.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_CHARACTERS = 4096  # of one value
MAX_INTEGER = 2**63 - 1  # that arrays can count
PLAIN = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


def read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    r"""Return the content of a YAML file and the line of every key.

    Args:
        path: The file.

    Returns:
        Values, with mappings as dict and sequences as list; and key → line, with keys as in ``models.mine`` and ``fractions[0]``.

    Raises:
        ConfigError: If the file is missing, too large, no YAML, or more than plain data, with the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.yaml").write_text("seed: 3\nfractions: [0.1]\n")
        ...     read_yaml(Path(folder, "a.yaml"))
        ({'seed': 3, 'fractions': [0.1]}, {'': 1, 'seed': 1, 'fractions': 2, 'fractions[0]': 2})
    """
    yaml = import_optional("yaml")
    text = _read_text(path)
    try:
        _check_events(path, text)
        tree = _Tree(path, yaml.SafeLoader(text))
        node = tree.loader.get_single_node()
        return (None if node is None else tree.value(node, "")), tree.lines
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{path}, line {line}: expected YAML, got the character #x{error.character:04x}, which it does not allow."
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        hint = "; indent with spaces, not with tabs" if "\\t" in problem else ""
        place = f"{path}, line {mark.line + 1}" if mark is not None else f"{path}"
        raise ConfigError(f"{place}: Expected YAML, got a syntax error ({problem}{hint}).") from None


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise ConfigError(f"{path}: expected a YAML file, got no such file.")
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read ({error.strerror}).") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: Expected a configuration of at most {MAX_BYTES} bytes, got {len(content)}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: Expected text in UTF-8, got {error.reason} at byte {error.start}.") from None


def _check_events(path: Path, text: str) -> None:
    """Raise for aliases and deep nesting, before anything is built from the events."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = f"{path}, line {event.start_mark.line + 1}"
        if depth > MAX_DEPTH:
            raise ConfigError(f"{line}: expected at most {MAX_DEPTH} levels of nesting, got more.")
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{line}: expected plain values, got the alias *{event.anchor}. Write the value out.")


class _Tree:
    """Values of YAML nodes, with the line of every key."""

    def __init__(self, path: Path, loader: Any) -> None:
        self.path, self.loader = path, loader
        self.lines: dict[str, int] = {}

    def fail(self, node: Any, problem: str) -> NoReturn:
        raise ConfigError(f"{self.path}, line {node.start_mark.line + 1}: {problem}")

    def value(self, node: Any, key: str) -> Any:
        self.lines.setdefault(key, node.start_mark.line + 1)
        if node.id == "scalar":
            return self.scalar(node, key or "the configuration")
        if node.tag not in PLAIN:
            self.fail(node, f"{node.tag} is no plain list or mapping.")
        if node.id == "sequence":
            return [self.value(inner, f"{key}[{i}]") for i, inner in enumerate(node.value)]
        values: dict[str, Any] = {}
        for name, inner in node.value:
            if name.id != "scalar":
                self.fail(name, "a list or mapping is no name of a setting.")
            below = f"{key}.{name.value}" if key else str(name.value)
            if name.value in values:
                self.fail(name, f"{below} is there twice.")
            self.lines[below] = name.start_mark.line + 1
            values[name.value] = self.value(inner, below)
        return values

    def scalar(self, node: Any, key: str) -> Any:
        import yaml

        if (size := len(node.value)) > MAX_CHARACTERS:
            self.fail(node, f"{key} has {size} characters; a value has at most {MAX_CHARACTERS}.")
        try:
            value = self.loader.construct_object(node)
        except yaml.YAMLError:
            raise
        except Exception:  # dates such as February 31st, !!bool maybe: each raises its own type
            self.fail(node, f"{key} is {node.value[:60]!r}, which is no {node.tag.rpartition(':')[2]}.")
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            self.fail(node, f"{key} is {node.value[:60]}; a number is at most {MAX_INTEGER}.")
        return value
