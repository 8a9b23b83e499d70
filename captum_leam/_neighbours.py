"""Import the modules beside a model file for that model alone.

Python keeps one module of each name, and repositories call their packages alike: ``backbones``, ``models``, ``net``, ``utils``. Every
model file therefore gets a package of its own, such as ``captum_leam_folder_1``, whose submodules are the modules beside the file. In
their code ``import backbones`` means ``captum_leam_folder_1.backbones``, while the file is loaded and at any later time.
"""

import builtins
import importlib
import importlib.util
import itertools
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

COMMON = frozenset({"captum", "captum_leam", "numpy", "torch", "torchvision"})
"""Packages whose objects a model exchanges with this one. They are never imported a second time."""


class Folder:
    """The modules of one folder, imported anew under names of their own.

    As under ``python FILE.py``, a module or package beside the file comes before an installed one of the same name. Exceptions are the
    packages of :data:`COMMON`, modules of the standard library that are imported already, and modules that were imported from the same
    file before: these are shared. Folders that the code adds to ``sys.path`` while it is loaded are searched in the same way, and are
    taken off ``sys.path`` afterwards, except folders of installed packages.

    Imports are resolved for code of the folder: by ``import``, ``__import__`` or ``importlib.import_module``, at any time. Other code
    that imports by name, such as ``torch.load`` of a pickled module, finds the modules only while the file is loaded. Loading holds a
    lock; other threads that import the same names meanwhile find the modules of the folder. Modules stay in memory, as any import does.

    Args:
        folder: Folder of the model file.

    Example:
        >>> Folder(Path(__file__).parent).import_module("maps").__name__.partition(".")[2]
        'maps'
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"captum_leam_folder_{next(_NUMBERS)}"
        self.builtins = {**vars(builtins), "__import__": self._import}
        self._folder = str(folder.resolve())
        self._path = [] if _is_installed(self._folder) else [self._folder]
        self._path_before: list[str] = []
        self._finders: dict[str, FileFinder] = {}
        self._replaced: dict[str, ModuleType | None] = {}
        package = sys.modules[self.name] = ModuleType(self.name)
        package.__path__ = self._path
        _FOLDERS[self.name] = self

    # -- importing

    def import_file(self, file: Path) -> ModuleType:
        """Execute a file of the folder as a new module."""
        name = f"{self.name}.captum_leam_model_{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}"
        loader = _Source(name, str(file.resolve()))
        spec = ModuleSpec(name, loader, origin=loader.path)
        spec.has_location = True
        module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up
        loader.exec_module(module)
        return module

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Import a module as code of the folder does: from the folder, or else from what is installed."""
        name = importlib.util.resolve_name(name, package)
        return importlib.import_module(f"{self.name}.{name}" if self.owns(name) else name)

    def plain(self, error: BaseException) -> str:
        """Return the message of an error with the names of modules as the code has them."""
        return str(error).replace(f"{self.name}.", "")

    def _import(
        self,
        name: str,
        globals: Any = None,  # noqa: A002
        locals: Any = None,  # noqa: A002
        fromlist: Any = (),
        level: int = 0,
    ) -> ModuleType:
        """Import for the statement ``import`` in code of the folder, in place of ``builtins.__import__``."""
        if level == 0 and self.owns(name):
            found = __import__(f"{self.name}.{name}", globals, locals, fromlist)
            return found if fromlist else sys.modules[f"{self.name}.{name.partition('.')[0]}"]
        found = __import__(name, globals, locals, fromlist, level)
        return self._importlib() if found is importlib else found

    def _importlib(self) -> ModuleType:
        """Copy ``importlib`` with the ``import_module`` of this folder."""
        copy = ModuleType("importlib")
        vars(copy).update(vars(importlib), import_module=self.import_module)
        return copy

    # -- finding

    def owns(self, name: str) -> bool:
        """Whether a module of that name is the folder's own for code of the folder."""
        top = name.partition(".")[0]
        if f"{self.name}.{top}" in sys.modules:
            return True
        present = sys.modules.get(top)
        if top in COMMON or top == "__main__" or (present is not None and top in sys.stdlib_module_names):
            return False
        spec = self.find_spec(f"{self.name}.{top}", self._search_path())
        if spec is None:
            return False
        if spec.loader is None and _is_found_elsewhere(top):  # a folder without __init__.py comes last, in Python too
            return False
        return present is None or not _places(spec) & _places(getattr(present, "__spec__", None))

    def find_spec(self, fullname: str, path: Sequence[str]) -> ModuleSpec | None:
        """Find a module of the folder by its full name, as ``importlib`` does for submodules."""
        portions: list[str] = []
        for entry in path:
            spec = self._finder(entry).find_spec(fullname)
            if spec is not None and spec.loader is not None:
                return spec
            portions += (spec and spec.submodule_search_locations) or []
        if not portions:
            return None
        namespace = ModuleSpec(fullname, None, is_package=True)
        namespace.submodule_search_locations = portions
        return namespace

    def _finder(self, entry: str) -> FileFinder:
        if entry not in self._finders:
            loaders = (_Extension, EXTENSION_SUFFIXES), (_Source, SOURCE_SUFFIXES), (_Bytecode, BYTECODE_SUFFIXES)
            self._finders[entry] = FileFinder(entry, *loaders)
        return self._finders[entry]

    def _search_path(self) -> list[str]:
        """Return the folder and, while it is loaded, what its code has added to ``sys.path``, in the order of ``sys.path``."""
        if _LOADING and _LOADING[-1] is self:
            added = [os.path.abspath(p) for p in sys.path if p == self._folder or p not in self._path_before]
            self._path[:] = [p for p in dict.fromkeys(added) if not _is_installed(p)]
        return self._path

    # -- while the file is loaded

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Let all code find the modules of the folder by their plain names; afterwards restore what had these names before."""
        with _LOCK:
            self._path_before = list(sys.path)
            sys.path.insert(0, self._folder)
            _LOADING.append(self)
            try:
                present = [(name.partition(".")[0], name) for name in list(sys.modules)]
                own = {top for top in {top for top, _ in present} if self.owns(top)}
                self._replaced = {name: sys.modules.pop(name, None) for top, name in present if top in own}
                yield
            finally:
                searched = {self._folder, *self._search_path()}
                _LOADING.remove(self)
                self._restore(searched)

    def lend(self, name: str, module: ModuleType) -> None:
        """Give a module of the folder its plain name for as long as the folder is loaded."""
        if self in _LOADING:
            self._replaced.setdefault(name, sys.modules.get(name))
            sys.modules[name] = module

    def _restore(self, searched: set[str]) -> None:
        if self._folder in sys.path:
            sys.path.remove(self._folder)
        before = self._path_before
        sys.path[:] = [entry for entry in sys.path if entry in before or os.path.abspath(entry) not in searched]
        for name, module in self._replaced.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
        self._replaced.clear()


@contextmanager
def record_sources() -> Iterator[dict[str, str]]:
    """Record the path and SHA-256 of every file of code that is imported from the folders of model files.

    Example:
        >>> with record_sources() as sources:
        ...     _ = Folder(Path(__file__).parent).import_module("maps")
        >>> [Path(path).name for path in sources]
        ['maps.py']
    """
    sources: dict[str, str] = {}
    _RECORDS.append(sources)
    try:
        yield sources
    finally:
        _RECORDS[:] = [record for record in _RECORDS if record is not sources]


_NUMBERS = itertools.count(1)
_FOLDERS: dict[str, Folder] = {}
_LOADING: list[Folder] = []
_LOCK = threading.RLock()
_RECORDS: list[dict[str, str]] = []
_EXTENSIONS: dict[str, tuple[ModuleType, str]] = {}


def _record(path: str, content: bytes) -> str:
    """Enter a file into all open records; return its SHA-256."""
    digest = sha256(content).hexdigest()
    for record in _RECORDS:
        record[path] = digest
    return digest


@cache
def _is_installed(entry: str) -> bool:
    """Whether a package manager filled a folder, or it is none, such as a ZIP file: modules there are left to Python."""
    return not os.path.isdir(entry) or any(Path(entry).glob("*.dist-info"))


def _is_found_elsewhere(name: str) -> bool:
    """Whether a module or a package with an ``__init__.py`` of that name is installed."""
    specs = (finder.find_spec(name, None) for finder in sys.meta_path if not isinstance(finder, _Finder))
    found = next((spec for spec in specs if spec is not None), None)
    return found is not None and found.loader is not None


def _places(spec: ModuleSpec | None) -> set[str]:
    """Return the file of a module, or the folders of a package without ``__init__.py``."""
    if spec is None:
        return set()
    found = [spec.origin] if spec.origin else spec.submodule_search_locations or []
    return {os.path.realpath(place) for place in found}


# -- what Python's import system calls -----------------------------------------------------------------


class _Finder(MetaPathFinder):
    """Find submodules of every :class:`Folder`; and, under their plain names, those of the one that is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        folder = _FOLDERS.get(fullname.partition(".")[0])
        if folder is not None:
            return folder.find_spec(fullname, path or ())
        if _LOADING and _LOADING[-1].owns(fullname):
            return ModuleSpec(fullname, _Lent(_LOADING[-1]))
        return None


class _Lent(Loader):
    """Load a module by its plain name: it is the module of the folder."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"{self.folder.name}.{spec.name}")
        self.folder.lend(spec.name, module)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # importlib has replaced it


def _adopt(module: ModuleType) -> None:
    """Give a module the imports of its folder before its code runs."""
    root, _, name = module.__name__.partition(".")
    vars(module)["__builtins__"] = _FOLDERS[root].builtins
    _FOLDERS[root].lend(name, module)


class _Source(SourceFileLoader):
    """Compile the file as it is now: a cache of bytecode tells versions apart by whole seconds only."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        _record(self.path, source)
        code: CodeType = self.source_to_code(source, self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        _adopt(module)
        super().exec_module(module)


class _Bytecode(SourcelessFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        _record(self.path, self.get_data(self.path))
        _adopt(module)
        super().exec_module(module)


class _Extension(ExtensionFileLoader):
    """Load a compiled module once per file: many register types or operators, which cannot be done twice in a process."""

    def create_module(self, spec: ModuleSpec) -> Any:
        digest = _record(self.path, self.get_data(self.path))
        module, loaded = _EXTENSIONS.get(self.path, (None, digest))
        if loaded != digest:
            raise ImportError(
                f"Expected {self.path} to be unchanged since this process loaded it, got another build. Load the model in a new process.",
                name=spec.name,
            )
        return module or super().create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if self.path not in _EXTENSIONS:
            super().exec_module(module)
            _EXTENSIONS[self.path] = module, _record(self.path, self.get_data(self.path))


sys.meta_path.insert(0, _Finder())
