"""Weights of facexlib's networks: found, checked and loaded without running anything that a file may hold."""

import errno
import hashlib
import io
import os
import pickle
import shlex
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from captum_leam._engine.arithmetic import plain_torch
from captum_leam._optional import import_optional
from captum_leam._stores import AnyPath, as_path
from captum_leam.errors import CaptumLeamError, MissingWeightsError, next_command

ENVIRONMENT = "CAPTUM_LEAM_WEIGHTS"
"""Environment variable that names a folder of weight files."""

FACEXLIB_WEIGHTS = {
    "mobile0.25": "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_mobilenet0.25_Final.pth",
    "resnet50": "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
    "bisenet": "https://github.com/xinntao/facexlib/releases/download/v0.2.0/parsing_bisenet.pth",
    "parsenet": "https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth",
    "arcface": "https://github.com/xinntao/facexlib/releases/download/v0.1.0/recognition_arcface_ir_se50.pth",
}
"""Where facexlib publishes the weights of its networks; the last part is the name that a file has in a folder of weights."""

Net = TypeVar("Net", bound=nn.Module)


def find_weights(network: str, weights: str | AnyPath | None = None, *, download: bool = False) -> AnyPath:
    """Return the path of the weights of one of facexlib's networks.

    Looked for in: ``weights``; else the folder that ``CAPTUM_LEAM_WEIGHTS`` names; else where facexlib keeps its own.

    Args:
        network: a key of :data:`FACEXLIB_WEIGHTS`.
        weights: a file, or a folder that holds the file under its published name; or its URL in a store.
        download: if it is not there, let facexlib download it to that place.

    Raises:
        ImportError: without facexlib, with the command that installs it.
        MissingWeightsError: if there is no such file: where it was looked for, and the command that fetches it.

    Example:
        >>> find_weights("bisenet", "/nowhere")
        Traceback (most recent call last):
            ...
        captum_leam.errors.MissingWeightsError: weights /nowhere: there is no such file or folder. ...
    """
    installed = _facexlib_folder()  # without facexlib, weights are of no use: this is raised first
    url = FACEXLIB_WEIGHTS[network]
    name = url.rsplit("/", 1)[1]
    ways = (
        f"Give weights= (the file, or a folder with {name}), set {ENVIRONMENT} to such a folder, or pass download=True."
    )
    given = None if weights is None else as_path(weights)
    if given is not None and not given.exists() and not download:
        place = given if given.suffix else given / name
        raise MissingWeightsError(f"weights {weights}: there is no such file or folder. {ways} {_fetching(url, place)}")
    if given is not None and given.is_file():
        return given
    folder = given or as_path(os.environ.get(ENVIRONMENT) or installed)
    if (folder / name).is_file():
        return folder / name
    if download:
        misc = import_optional("facexlib.utils.misc")
        return Path(misc.load_file_from_url(url=url, save_dir=str(folder)))
    raise MissingWeightsError(f"{folder} holds no {name}. {ways} {_fetching(url, folder / name)}")


def _fetching(url: str, place: AnyPath) -> str:
    """Return the command that puts the file where it is looked for."""
    return next_command(shlex.join(["curl", "-fL", "--create-dirs", "-o", str(place), url]))


def _facexlib_folder() -> Path:
    """Return the folder in which facexlib keeps its weights, without importing facexlib, which takes seconds."""
    spec = find_spec("facexlib")
    origin = import_optional("facexlib").__file__ if spec is None else spec.origin  # the import raises
    return Path(str(origin)).parent / "weights"


def load_state(path: str | AnyPath, sha256: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Tensors of a checkpoint, and the SHA-256 of the very bytes they were read from.

    Args:
        path: of a checkpoint of tensors, as ``torch.save(model.state_dict(), path)`` writes it.
        sha256: what the file must be, in hex.

    Returns:
        Name → tensor on the CPU, ``module.`` taken off the names; and the SHA-256 in hex.

    Raises:
        CaptumLeamError: naming the file, if it cannot be read, is another than was asked for, or holds anything but ...
            it is run.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"module.w": torch.ones(2)}, f"{folder}/net.pth")
        ...     state, sha256 = load_state(f"{folder}/net.pth")
        >>> state, len(sha256)
        ({'w': tensor([1., 1.])}, 64)
    """
    try:
        content = _bytes_of(as_path(path))
    except OSError as error:
        raise CaptumLeamError(f"{path}: the weights cannot be read ({error.strerror}).") from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.strip().lower():
        raise CaptumLeamError(
            f"{path}: SHA-256 is {found}, asked for was {sha256}. This is another file: it is not loaded."
        )
    _refuse_bombs(path, content)
    try:
        state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CaptumLeamError(
            f"{path}: this is no checkpoint of tensors only. Loading anything else could run code, so it is refused. Save "
            "model.state_dict() on a machine where the file is trusted."
        ) from None
    except Exception as error:  # a broken archive makes torch raise nearly anything
        raise CaptumLeamError(
            f"{path}: the weights cannot be read ({type(error).__name__}); the file is broken or incomplete."
        ) from None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CaptumLeamError(f"{path}: this holds no name → tensor of one network; save model.state_dict().")
    if bad := [str(name) for name, value in state.items() if not _is_held(value)]:
        raise CaptumLeamError(
            f"{path}: {bad[0]} is no tensor whose every value is in the file; save model.state_dict()."
        )
    return {str(name).removeprefix("module."): value for name, value in state.items()}, found


def _bytes_of(path: AnyPath) -> bytes:
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device be read without end
        raise OSError(errno.EINVAL, "it is no file")
    return path.read_bytes()


def _refuse_bombs(path: str | AnyPath, content: bytes) -> None:
    """Refuse archives that hold more than their bytes: torch.save compresses nothing, and writes nothing twice."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # the older format, or broken: torch.load says so
        return
    if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > len(content):
        raise CaptumLeamError(
            f"{path}: this checkpoint is compressed, or claims more than it holds, as no torch.save writes it: it is not loaded."
        )


def _is_held(value: Tensor) -> bool:
    """Whether a tensor is dense, on the CPU, and not larger than what is stored of it: a few bytes can claim to be terabytes."""
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def load_network(make: Callable[[], Net], path: str | AnyPath, sha256: str | None = None) -> tuple[Net, str]:
    """Load a network's weights from a file; return it in evaluation mode, without gradients, on the CPU.

    Args:
        make: builds the network; the global random numbers it draws are put back.
        path: see :func:`load_state`.
        sha256: see :func:`load_state`.

    Returns:
        The network, and the SHA-256 of the file.

    Raises:
        CaptumLeamError: as :func:`load_state`; or if names, shapes or values do not fit the network.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(nn.Linear(2, 1).state_dict(), f"{folder}/net.pth")
        ...     network, _ = load_network(lambda: nn.Linear(2, 1), f"{folder}/net.pth")
        >>> network.training, network.weight.requires_grad
        (False, False)
    """
    state, found = load_state(path, sha256)
    if bad := [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise CaptumLeamError(f"{path}: {bad[0]} holds NaN or infinite values.")
    with torch.random.fork_rng(devices=[]), plain_torch():
        network = make()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split("\n\t")[1:2])[:300]
        raise CaptumLeamError(
            f"{path}: these are not the weights of {type(network).__name__}. {first}".rstrip()
        ) from None
    return network.eval().requires_grad_(False), found
