"""Weights of facexlib's networks, which are found, checked and loaded without executing code of the files."""

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
"""URLs of the weights of facexlib's networks, whose last parts are the names of the files in a folder of weights."""

Net = TypeVar("Net", bound=nn.Module)


def find_weights(network: str, weights: str | AnyPath | None = None, *, download: bool = False) -> AnyPath:
    """Return the path of the weights of one of facexlib's networks.

    Args:
        network: Key of :data:`FACEXLIB_WEIGHTS`.
        weights: File, or folder with the file under its published name. Default: the folder in the environment variable
            ``CAPTUM_LEAM_WEIGHTS``, or else that of facexlib.
        download: Whether facexlib downloads a missing file to this folder. Default: False.

    Returns:
        Path of the file.

    Raises:
        MissingExtraError: If facexlib is not installed.
        MissingWeightsError: If there is no such file; the message has the command that downloads it.

    Example:
        >>> find_weights("bisenet", "/nowhere")
        Traceback (most recent call last):
            ...
        captum_leam.errors.MissingWeightsError: weights /nowhere: there is no such file or folder. ...
    """
    installed = _facexlib_folder()  # raises first if facexlib is missing, without which weights are of no use
    url = FACEXLIB_WEIGHTS[network]
    name = url.rsplit("/", 1)[1]
    hint = (
        f"Pass weights= (the file, or a folder with {name}), set {ENVIRONMENT} to such a folder, or pass download=True."
    )
    given = None if weights is None else as_path(weights)
    if given is not None and not given.exists() and not download:
        place = given if given.suffix else given / name
        raise MissingWeightsError(
            f"weights {weights}: there is no such file or folder. {hint} {_download_command(url, place)}"
        )
    if given is not None and given.is_file():
        return given
    folder = given or as_path(os.environ.get(ENVIRONMENT) or installed)
    if (folder / name).is_file():
        return folder / name
    if download:
        misc = import_optional("facexlib.utils.misc")
        return Path(misc.load_file_from_url(url=url, save_dir=str(folder)))
    raise MissingWeightsError(f"{folder} holds no {name}. {hint} {_download_command(url, folder / name)}")


def _download_command(url: str, target: AnyPath) -> str:
    """Return the command that downloads a file."""
    return next_command(shlex.join(["curl", "-fL", "--create-dirs", "-o", str(target), url]))


def _facexlib_folder() -> Path:
    """Return the folder of facexlib's weights without importing facexlib, which takes seconds."""
    spec = find_spec("facexlib")
    origin = import_optional("facexlib").__file__ if spec is None else spec.origin  # the import raises
    return Path(str(origin)).parent / "weights"


def load_state(path: str | AnyPath, sha256: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a checkpoint and the SHA-256 of its bytes.

    Args:
        path: Path of a checkpoint of tensors, as ``torch.save(model.state_dict(), path)`` writes it.
        sha256: Expected SHA-256 of the file, 64 hexadecimal digits. Default: None, for any file.

    Returns:
        Tensors on the CPU by name, without the prefix ``module.``, and the SHA-256 in hex.

    Raises:
        CaptumLeamError: If the file cannot be read, has another SHA-256, or has anything but tensors; no code of it is executed.

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
            f"{path}: expected a file with SHA-256 {sha256}, got {found}. The file is another version, or its download was cut off, "
            "and was not loaded. Download it again, or omit the checksum if you trust the file."
        )
    _raise_if_compressed(path, content)
    try:
        state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CaptumLeamError(
            f"{path}: expected a checkpoint of tensors only, got other objects, whose loading could run code. Save model.state_dict() on a "
            "machine where the file is trusted."
        ) from None
    except Exception as error:  # torch raises many kinds of errors for broken archives
        raise CaptumLeamError(
            f"{path}: expected weights, got a broken or incomplete file ({type(error).__name__}). Download or save it again."
        ) from None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CaptumLeamError(
            f"{path}: expected a dictionary of tensors by name, got a {_content_of(state)}. Save model.state_dict() instead, e.g. "
            "torch.save(model.state_dict(), path)."
        )
    if bad := [str(name) for name, value in state.items() if not _is_stored(value)]:
        raise CaptumLeamError(
            f"{path}: expected dense tensors that are stored in full, got another kind for {bad[0]}. Save model.state_dict()."
        )
    return {str(name).removeprefix("module."): value for name, value in state.items()}, found


def _content_of(state: Any) -> str:
    """Return what a checkpoint holds in place of a dictionary of tensors.

    Example:
        >>> _content_of([1]), _content_of({"epoch": 3}), _content_of({})
        ('list', "dictionary with 'epoch' of type int", 'dictionary without entries')
    """
    if not isinstance(state, dict):
        return type(state).__name__
    others = (
        f"with {name!r} of type {type(value).__name__}"
        for name, value in state.items()
        if not isinstance(value, Tensor)
    )
    return f"dictionary {next(others, 'without entries')}"


def _bytes_of(path: AnyPath) -> bytes:
    if path.exists() and not path.is_file():  # reading a pipe or a device might never end
        raise OSError(errno.EINVAL, "it is no file")
    return path.read_bytes()


def _raise_if_compressed(path: str | AnyPath, content: bytes) -> None:
    """Raise if an archive is larger when unpacked, because torch.save does not compress and writes nothing twice."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # the older format, or a broken file, for torch.load
        return
    if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > len(content):
        raise CaptumLeamError(
            f"{path}: expected a checkpoint written by torch.save, got a compressed or inconsistent archive. It was not loaded; save "
            "model.state_dict() again."
        )


def _is_stored(value: Tensor) -> bool:
    """Return whether a tensor is dense, on the CPU and stored in full, because a few bytes can declare terabytes."""
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def load_network(make: Callable[[], Net], path: str | AnyPath, sha256: str | None = None) -> tuple[Net, str]:
    """Load the weights of a network from a file.

    Args:
        make: Function that builds the network. Global random numbers that it draws are restored.
        path: Path of the file, see :func:`load_state`.
        sha256: Expected SHA-256 in hex. Default: any.

    Returns:
        Network in evaluation mode, without gradients, on the CPU, and the SHA-256 of the file.

    Raises:
        CaptumLeamError: If :func:`load_state` raises it, or if names, shapes or values do not fit the network.

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
        raise CaptumLeamError(f"{path}: expected finite weights, got NaN or infinite values in {bad[0]}.")
    with torch.random.fork_rng(devices=[]), plain_torch():
        network = make()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split("\n\t")[1:2])[:300]
        raise CaptumLeamError(
            f"{path}: expected weights of {type(network).__name__}, got those of another network. {first}".rstrip()
        ) from None
    return network.eval().requires_grad_(False), found
