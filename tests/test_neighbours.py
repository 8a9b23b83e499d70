"""Modules beside a model file belong to that file, whatever other repositories call theirs, when it is loaded and when it runs."""

import copy
import importlib
import io
import pickle
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import markupsafe
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_leam._loading import import_object
from captum_leam.faces.sources import FaceSource
from captum_leam.models import load_model
from captum_leam.regions.named import label_faces

ONE = torch.ones(1, 3, 1, 1)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, code in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code)
    return folder


def value_of(model: nn.Module) -> float:
    with torch.no_grad():
        return float(model(ONE)[0, 0])


# -- repositories drawn at random ------------------------------------------------------------------------

USES = {
    "top": "from {module} import K\nclass N(nn.Module):\n    def forward(s, x): return x.flatten(1) * K\n",
    "star": "from {module} import *\nclass N(nn.Module):\n    def forward(s, x): return x.flatten(1) * K\n",
    "attribute": "import {module}\nclass N(nn.Module):\n    def forward(s, x): return x.flatten(1) * {module}.K\n",
    "init": (
        "class N(nn.Module):\n    def __init__(s):\n        super().__init__()\n        import {module} as m\n        s.k = m.K\n"
        "    def forward(s, x): return x.flatten(1) * s.k\n"
    ),
    "forward": (
        "class N(nn.Module):\n    def forward(s, x):\n        from {module} import K\n        return x.flatten(1) * K\n"
    ),
    "import_module": (
        "import importlib\nclass N(nn.Module):\n"
        "    def forward(s, x): return x.flatten(1) * importlib.import_module('{module}').K\n"
    ),
    "from importlib": (
        "from importlib import import_module\nclass N(nn.Module):\n"
        "    def forward(s, x): return x.flatten(1) * import_module('{module}').K\n"
    ),
    "hook": (
        "def hook(module, args, output):\n    from {module} import K\n    return output * K\n"
        "class N(nn.Flatten):\n    def __init__(s):\n        super().__init__()\n        s.register_forward_hook(hook)\n"
    ),
}

repositories = st.fixed_dictionaries(
    {
        "package": st.sampled_from(["backbones", "models", "net", "utils", "configs"]),
        "depth": st.integers(0, 3),
        "has_init": st.booleans(),
        "inner": st.sampled_from(["relative", "absolute", "lazy", "own"]),
        "use": st.sampled_from(sorted(USES)),
        "src": st.booleans(),
    }
)


def write_repository(folder: Path, value: float, package, depth, has_init, inner, use, src) -> str:
    """Write a model that multiplies by ``value``, which comes from a module ``depth`` packages down; return its name."""
    root = folder / "src" if src else folder
    parents = [package, "deep", "deeper"][:depth]
    inside = ".".join(parents)
    module = f"{inside}.value" if depth else package
    constant = f"{inside}.constant" if depth else f"{package}_constant"
    inner_code = {
        "relative": f"from .{constant.rpartition('.')[2]} import K\n" if depth else f"from {constant} import K\n",
        "absolute": f"from {constant} import K\n",
        "lazy": f"def __getattr__(name):\n    if name != 'K': raise AttributeError(name)\n    from {constant} import K\n    return K\n",
        "own": f"K = {value}\n",
    }["own" if inner == "lazy" and use == "star" else inner]
    files = {f"{module.replace('.', '/')}.py": inner_code, f"{constant.replace('.', '/')}.py": f"K = {value}\n"}
    if has_init:
        files |= {"/".join([*parents[: i + 1], "__init__.py"]): "" for i in range(depth)}
    write(root, files)
    path = "import sys, pathlib\nsys.path.insert(0, str(pathlib.Path(__file__).parent / 'src'))\n" if src else ""
    write(folder, {"load.py": f"from torch import nn\n{path}{USES[use].format(module=module)}"})
    return f"{folder}/load.py:N"


@contextmanager
def untouched():
    """What Python knows by plain names, and where it looks for modules, stay as they are."""
    path, modules = list(sys.path), dict(sys.modules)
    yield
    assert sys.path == path
    new = [name for name in sys.modules if name not in modules and "captum_leam_folder_" not in name]
    assert not [name for name in new if name.partition(".")[0] in {"backbones", "models", "net", "utils", "configs"}]
    assert all(sys.modules[name] is module for name, module in modules.items())


@given(repositories, repositories, st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_every_repository_computes_its_own(a, b, alike, a_first, run_between):
    if alike:  # the hardest case: all names are the same
        b = {**b, "package": a["package"], "depth": a["depth"]}
    with tempfile.TemporaryDirectory() as folder, untouched():
        where = {
            "a": write_repository(Path(folder, "A"), 2.0, **a),
            "b": write_repository(Path(folder, "B"), 3.0, **b),
        }
        models = {}
        for name in "ab" if a_first else "ba":
            models[name] = load_model(where[name])
            if run_between:
                value_of(models[name])
        found = {name: value_of(models[name]) for name in ("b", "a", "b")}
        assert found == {"a": 2.0, "b": 3.0}
        assert value_of(copy.deepcopy(models["a"])) == 2.0
        assert value_of(pickle.loads(pickle.dumps(models["b"]))) == 3.0  # noqa: S301


WAYS = {
    "parent.py": "import sys, os\nsys.path.append(os.path.dirname(os.path.dirname(__file__)))\nfrom backbones import make as net\n",
    "executed.py": "exec('from backbones import make', ns := {})\nnet = ns['make']\n",
    "located.py": "import pydoc\nnet = pydoc.locate('backbones.inner.N')\n",
    "run.py": "import runpy, os\nnet = runpy.run_path(os.path.join(os.path.dirname(__file__), 'plain.py'))['net']\n",
    "plain.py": "from backbones import make as net\n",
    "thread.py": (
        "from torch import nn\nfrom concurrent.futures import ThreadPoolExecutor\ndef get():\n    import configs.c\n"
        "    return configs.c.K\nclass net(nn.Module):\n    def forward(s, x):\n"
        "        with ThreadPoolExecutor(1) as pool: return x.flatten(1) * pool.submit(get).result()\n"
    ),
}
PACKAGES = {
    "backbones/__init__.py": "def make():\n    from .inner import N\n    return N()\n",
    "backbones/inner.py": (
        "from torch import nn\nfrom utils.config import get\nclass N(nn.Module):\n"
        "    def forward(s, x): return x.flatten(1) * get('c').K\n"
    ),
    "utils/config.py": "import importlib\ndef get(name): return importlib.import_module('configs.' + name)\n",
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_import_a_neighbour_works(tmp_path, way):
    """Packages as face repositories have them: a function that chooses, and configurations imported by name in ``forward``."""
    inside = "tools/" if way == "parent.py" else ""
    for name, value in (("A", 2), ("B", 3)):
        files = {**PACKAGES, "configs/c.py": f"K = {value}\n", "plain.py": WAYS["plain.py"], inside + way: WAYS[way]}
        write(tmp_path / name, files)
    with untouched():
        models = [load_model(f"{tmp_path}/{name}/{inside}{way}:net") for name in "ABA"]
        assert [value_of(model) for model in models] == [2, 3, 2]


# -- the single cases ------------------------------------------------------------------------------------


def test_two_repositories_with_packages_of_one_name_are_kept_apart(tmp_path):
    for name, width in (("A", 8), ("B", 40)):
        code = f"from torch import nn\ndef make(): return nn.Sequential(nn.Conv2d(3, {width}, 3), nn.Flatten())\n"
        write(tmp_path / name, {"backbones/__init__.py": code, "load.py": "from backbones import make as net\n"})
    assert [load_model(f"{tmp_path}/{name}/load.py:net")[0].out_channels for name in "AB"] == [8, 40]


def test_packages_named_from_the_current_folder_are_kept_apart(tmp_path, monkeypatch):
    found = []
    for name, width in (("A", 8), ("B", 40)):
        write(tmp_path / name, {"models/__init__.py": f"from torch import nn\nnet = nn.Conv2d(3, {width}, 3)\n"})
        monkeypatch.chdir(tmp_path / name)
        found.append(load_model("models:net").out_channels)
    assert found == [8, 40]


def test_parsers_have_their_own_modules(tmp_path):
    source = FaceSource(Path("ann.png"), torch.rand(3, 8, 8))
    for name, label in (("A", 1), ("B", 2)):
        parser = (
            "import torch\ndef parser(images):\n    from utils import LABEL\n"
            "    return torch.full((len(images), *images.shape[2:]), LABEL)\n"
        )
        write(tmp_path / name, {"utils.py": f"LABEL = {label}\n", "parse.py": parser})
    regions = [label_faces(f"{tmp_path}/{n}/parse.py:parser", [source], source.crop[None]) for n in "ABA"]
    assert [int(r.labels.unique()) for r in regions] == [1, 2, 1]


LOAD = "from torch import nn\nfrom prep import K\nclass N(nn.Module):\n    def forward(s, x): return x.flatten(1) * K\n"


def test_loading_again_sees_the_new_code(tmp_path):
    """Within one second and with as many bytes, which Python's cache of bytecode does not tell apart."""
    found = []
    for value in (2, 3, 4):
        write(tmp_path, {"prep.py": f"K = {value}.0\n", "load.py": LOAD})
        found.append(load_model(f"{tmp_path}/load.py:N"))
    assert [value_of(model) for model in found] == [2, 3, 4]
    assert not list(tmp_path.rglob("__pycache__"))


def imported_by_the_user(name, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # what was there, or nothing, comes back after the test
    del sys.modules[name]
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module(name)


def test_a_module_that_the_user_imported_stays_in_place(tmp_path, monkeypatch):
    write(tmp_path / "mine", {"prep.py": "K = 7.0\n"})
    mine = imported_by_the_user("prep", tmp_path / "mine", monkeypatch)
    lazy = LOAD.replace("from prep import K\n", "").replace("return", "from prep import K; return")
    write(tmp_path / "theirs", {"prep.py": "K = 2.0\n", "load.py": LOAD, "lazy.py": lazy})
    models = [load_model(f"{tmp_path}/theirs/{name}.py:N") for name in ("load", "lazy")]
    assert [value_of(model) for model in models] == [2, 2]
    assert sys.modules["prep"] is mine
    assert importlib.import_module("prep").K == 7


def test_a_module_that_the_user_imported_from_the_same_file_is_shared(tmp_path, monkeypatch):
    write(tmp_path, {"prep.py": "K = 2.0\n", "load.py": LOAD})
    mine = imported_by_the_user("prep", tmp_path, monkeypatch)
    mine.K = 5.0
    assert value_of(load_model(f"{tmp_path}/load.py:N")) == 5


def test_installed_packages_are_not_imported_again(tmp_path):
    code = "import torch, numpy, captum, captum_leam, markupsafe, json\nfound = [torch, numpy, captum, captum_leam, markupsafe, json]\n"
    neighbours = {f"{name}/readme.txt": "" for name in ("markupsafe", "json", "torch")}  # folders without code
    write(
        tmp_path, {"load.py": code + "def get(): return found\n", **neighbours, "json.py": "", "torch/__init__.py": ""}
    )
    for module in import_object(f"{tmp_path}/load.py:get"):
        assert module is sys.modules[module.__name__]


def test_files_among_installed_packages_import_them_as_always(tmp_path):
    write(tmp_path, {"some-1.0.dist-info/METADATA": "", "some_installed.py": "K = 2.0\n"})
    write(tmp_path, {"load.py": LOAD.replace("prep", "some_installed")})
    assert value_of(load_model(f"{tmp_path}/load.py:N")) == 2
    assert sys.modules.pop("some_installed").K == 2


def test_a_copy_beside_the_file_comes_before_an_installed_package(tmp_path):
    write(tmp_path, {"markupsafe/__init__.py": "from markupsafe.inner import K\n", "markupsafe/inner.py": "K = 2.0\n"})
    write(tmp_path, {"load.py": LOAD.replace("prep", "markupsafe")})
    assert value_of(load_model(f"{tmp_path}/load.py:N")) == 2
    assert sys.modules["markupsafe"] is markupsafe


def test_modules_that_import_each_other_are_loaded(tmp_path):
    write(
        tmp_path,
        {
            "load.py": (
                "from torch import nn\nimport left\n"
                "class N(nn.Module):\n    def forward(s, x): return x.flatten(1) * left.twice()\n"
            ),
            "left.py": "import right\nK = 2.0\ndef twice(): return right.once()\n",
            "right.py": "import left\nimport load\ndef once():\n    assert isinstance(load.N(), load.nn.Module)\n    return left.K\n",
        },
    )
    assert value_of(load_model(f"{tmp_path}/load.py:N")) == 2


def test_dataclasses_and_annotations_find_their_module(tmp_path):
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar, get_type_hints\n"
        "def make():\n    @dataclass\n    class Settings:\n        name: ClassVar[str] = 'a'\n        k: Size = 2\n    return Settings\n"
        "class Size(int): pass\nhints = get_type_hints(make())\nassert hints['k'] is Size\n"
    )
    lazy = LOAD.replace("return x", "from settings import make; return x").replace("* K", "* make()().k")
    write(tmp_path, {"settings.py": code, "prep.py": "K = 1\n", "load.py": lazy})
    assert value_of(load_model(f"{tmp_path}/load.py:N")) == 2


@pytest.mark.parametrize("name", ["A", "B"])
def test_a_pickled_model_finds_its_classes(tmp_path, monkeypatch, name):
    """Checkpoints of whole modules name their classes as the training script imported them."""
    code = "from torch import nn\nclass Net(nn.Flatten):\n    k = {}\n    def forward(s, x): return super().forward(x) * s.k\n"
    training = ModuleType("backbones.net")
    exec(code.format(0), vars(training))  # noqa: S102
    monkeypatch.setitem(sys.modules, "backbones.net", training)
    monkeypatch.setitem(sys.modules, "backbones", ModuleType("backbones"))
    checkpoint = io.BytesIO()
    torch.save(training.Net(), checkpoint)
    (tmp_path / "net.pt").write_bytes(checkpoint.getvalue())
    load = f"import torch\ndef net(): return torch.load({str(tmp_path / 'net.pt')!r}, weights_only=False)\n"
    write(tmp_path, {"backbones/net.py": code.format({"A": 2, "B": 3}[name]), "load.py": load})
    assert value_of(load_model(f"{tmp_path}/load.py:net")) == {"A": 2, "B": 3}[name]
    assert sys.modules["backbones.net"] is training


def test_a_model_file_may_load_another(tmp_path):
    write(tmp_path / "inner", {"prep.py": "K = 3.0\n", "load.py": LOAD})
    outer = (
        f"from captum_leam.models import load_model\nfrom prep import K\ninner = load_model('{tmp_path}/inner/load.py:N')\n"
        "from prep import K as after\nclass N(nn.Module):\n    def forward(s, x): return inner(x) * K * after\n"
    )
    write(tmp_path / "outer", {"prep.py": "K = 2.0\n", "load.py": f"from torch import nn\n{outer}"})
    with untouched():
        assert value_of(load_model(f"{tmp_path}/outer/load.py:N")) == 12


def test_threads_load_and_run_their_own(tmp_path):
    lazy = LOAD.replace("from prep import K\n", "").replace("return", "from prep import K; return")
    for i in range(6):
        write(tmp_path / str(i), {"prep.py": f"K = {i}.0\n", "load.py": lazy})
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda i: value_of(load_model(f"{tmp_path}/{i % 6}/load.py:N")), range(24)))
    assert found == [i % 6 for i in range(24)]


def test_compiled_modules_are_loaded_once_per_file(tmp_path):
    compiled = next(Path(markupsafe.__file__).parent.glob("_speedups*.so"), None)
    if compiled is None:
        pytest.skip("needs markupsafe's compiled module")
    for name in "AB":
        write(tmp_path / name, {"load.py": "import _speedups\ndef get(): return _speedups\n"})
        shutil.copy(compiled, tmp_path / name)
    first, again, other = (import_object(f"{tmp_path}/{name}/load.py:get") for name in "AAB")
    assert first is again
    assert first is not other
    assert Path(other.__file__).parent == tmp_path / "B"
    rebuilt = (tmp_path / "A" / compiled.name).read_bytes() + b"\0"
    (tmp_path / "A" / compiled.name).unlink()
    (tmp_path / "A" / compiled.name).write_bytes(rebuilt)
    with pytest.raises(ValueError, match=r"got another build\. Load the model in a new process"):
        import_object(f"{tmp_path}/A/load.py:get")


def test_messages_have_the_names_of_the_code(tmp_path):
    write(tmp_path, {"load.py": "from prep.lost import K\n", "prep/__init__.py": ""})
    with pytest.raises(ValueError, match=r"load\.py raised ModuleNotFoundError: No module named 'prep\.lost'"):
        load_model(f"{tmp_path}/load.py:N")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_compiled_model_calls_its_neighbours(tmp_path):
    for name, value in (("A", 2), ("B", 3)):
        code = f"import torch\ndef act(x): return torch.relu(x) * {value}\n"
        load = (
            "from torch import nn\nimport torch\nfrom ops.act import act\n"
            "class N(nn.Module):\n    def forward(s, x): return act(x.flatten(1))\n"
            "def net(): return torch.compile(N(), backend='eager', fullgraph=True)\n"
        )
        write(tmp_path / name, {"ops/act.py": code, "load.py": load})
    models = [load_model(f"{tmp_path}/{name}/load.py:net") for name in "AB"]
    assert [value_of(model) for model in models] == [2, 3]
