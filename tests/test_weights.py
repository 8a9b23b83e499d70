"""Weights: found where they were said to be, checked, and never run."""

import hashlib
import importlib.machinery
import pathlib
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from captum_leam._weights import ENVIRONMENT, FACEXLIB_WEIGHTS, find_weights, load_network, load_state

NAME = "detection_mobilenet0.25_Final.pth"


class Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path(self.path),))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)


def install_facexlib(monkeypatch, site):
    """Let ``site/facexlib`` be where facexlib is installed."""
    (site / "facexlib").mkdir(parents=True, exist_ok=True)
    (site / "facexlib" / "__init__.py").touch()
    spec = importlib.machinery.PathFinder.find_spec("facexlib", [str(site)])
    monkeypatch.setattr("captum_leam._weights.find_spec", lambda name: spec)


def test_weights_are_looked_for_in_the_documented_order(tmp_path, monkeypatch):
    for folder in ("given", "environment", "site/facexlib/weights"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / NAME).write_bytes(b"x")
    install_facexlib(monkeypatch, tmp_path / "site")
    assert find_weights("mobile0.25") == tmp_path / "site/facexlib/weights" / NAME
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "environment"))
    assert find_weights("mobile0.25") == tmp_path / "environment" / NAME
    assert find_weights("mobile0.25", tmp_path / "given") == tmp_path / "given" / NAME
    assert find_weights("mobile0.25", tmp_path / "given" / NAME) == tmp_path / "given" / NAME
    with pytest.raises(ValueError, match=r"holds no detection_Resnet50_Final\.pth.*download=True"):
        find_weights("resnet50", tmp_path / "given")
    with pytest.raises(ValueError, match="there is no such file or folder"):
        find_weights("resnet50", tmp_path / "lost")


def test_downloads_only_when_asked(tmp_path, monkeypatch):
    asked = []

    def fetch(url, save_dir):
        asked.append((url, save_dir))
        return f"{save_dir}/{NAME}"

    monkeypatch.setattr("facexlib.utils.misc.load_file_from_url", fetch)
    install_facexlib(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match="CAPTUM_LEAM_WEIGHTS"):
        find_weights("mobile0.25")
    assert asked == []
    assert find_weights("mobile0.25", tmp_path / "new", download=True) == tmp_path / "new" / NAME
    assert asked == [(FACEXLIB_WEIGHTS["mobile0.25"], str(tmp_path / "new"))]


def test_published_names_are_those_of_facexlib():
    """They are literals within facexlib's functions: a new version may change them."""
    import inspect

    import facexlib.detection
    import facexlib.parsing
    import facexlib.recognition

    folders = (facexlib.detection, facexlib.parsing, facexlib.recognition)
    source = "".join(inspect.getsource(folder) for folder in folders)
    assert all(f"'{url}'" in source for url in FACEXLIB_WEIGHTS.values())


def test_the_hash_is_recorded_and_checked(tmp_path):
    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / "net.pth")
    expected = hashlib.sha256((tmp_path / "net.pth").read_bytes()).hexdigest()
    assert load_state(tmp_path / "net.pth")[1] == expected
    assert load_state(tmp_path / "net.pth", expected.upper())[1] == expected
    with pytest.raises(ValueError, match=r"net\.pth: expected a file with SHA-256 .*was not loaded"):
        load_state(tmp_path / "net.pth", "0" * 64)


def test_nothing_in_a_file_is_run(tmp_path):
    trap = tmp_path / "run"
    bare = pickle.dumps(Touch(str(trap)))
    pickle.loads(bare)  # noqa: S301  the trap works
    assert trap.exists()
    trap.unlink()
    (tmp_path / "bare.pth").write_bytes(bare)
    torch.save({"weight": Touch(str(trap))}, tmp_path / "zipped.pth")
    torch.save({"weight": Touch(str(trap))}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("bare.pth", "zipped.pth", "old.pth"):
        with pytest.raises(ValueError, match=rf"{name}: expected a checkpoint of tensors only"):
            load_state(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("cut", [0, 10, 300])
def test_broken_and_missing_files_raise_and_are_named(tmp_path, cut):
    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / "net.pth")
    (tmp_path / "net.pth").write_bytes((tmp_path / "net.pth").read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"net\.pth: "):
        load_state(tmp_path / "net.pth")
    with pytest.raises(ValueError, match="cannot be read"):
        load_state(tmp_path / "lost.pth")


def test_checkpoints_that_are_no_state_dict_raise(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "training.pth")
    for name in ("list.pth", "training.pth"):
        with pytest.raises(ValueError, match="expected a dictionary of tensors by name"):
            load_state(tmp_path / name)


def test_a_network_is_loaded_without_traces(tmp_path):
    made = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    torch.save({f"module.{name}": value for name, value in made.state_dict().items()}, tmp_path / "net.pth")
    before = torch.random.get_rng_state()
    network, _ = load_network(lambda: nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1)), tmp_path / "net.pth")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert torch.equal(network[0].weight, made[0].weight)


def test_weights_of_another_network_and_nan_raise(tmp_path):
    torch.save(nn.Linear(3, 1).state_dict(), tmp_path / "net.pth")
    with pytest.raises(
        ValueError,
        match=r"net\.pth: expected weights of Linear, got those of another network\. size mismatch for weight",
    ):
        load_network(lambda: nn.Linear(2, 1), tmp_path / "net.pth")
    torch.save({"weight": torch.full((1, 2), torch.nan), "bias": torch.zeros(1)}, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"nan\.pth: expected finite weights, got NaN or infinite values in weight"):
        load_network(lambda: nn.Linear(2, 1), tmp_path / "nan.pth")


def test_a_missing_package_names_its_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "facexlib", None)
    with pytest.raises(ImportError, match=r'pip install "captum-leam\[face\]"'):
        find_weights("mobile0.25")


def test_weights_are_looked_for_without_importing_facexlib():
    """Every crop is compared with its place by a detector if there are weights; without them nothing may be waited for."""
    code = (
        "import sys; from captum_leam._weights import find_weights\n"
        "try: found = str(find_weights('mobile0.25'))\n"
        "except ValueError as error: found = str(error)\n"
        "assert 'facexlib' not in sys.modules\n"
        "from facexlib.utils.misc import ROOT_DIR; assert found.startswith(ROOT_DIR + '/facexlib/weights')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - the interpreter of the tests
