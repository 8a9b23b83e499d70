"""Read label maps from files that were made by hand or by another program."""

import errno
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captum_leam.errors import CaptumLeamError, FileError
from captum_leam.faces.photos import open_picture
from captum_leam.regions.scheme import CELEBAMASK_HQ, RegionScheme

LABEL_FILES = (".npy", ".png", ".bmp", ".tif", ".tiff")


class LabelMapParser:
    """Parser that returns label maps from files, in the order of the images.

    Args:
        files: Paths of label files, or of a folder of them, which are sorted by name. Files are PNG, BMP or TIFF pictures with one channel
            or a palette, whose indices are the labels, or ``.npy`` files of integers.
        names: Names of the images in their order, to select files of a folder. The label file of ``"ann_1"`` is ``ann_1<suffix>.png`` or
            ``.npy``. Default: all files of the folder.
        suffix: End of the names of label files. Other files of the folder are ignored. Default: ``""``.
        scheme: Scheme of the labels. Default: :data:`CELEBAMASK_HQ`.

    Raises:
        CaptumLeamError: If a file is missing, cannot be read or is not a label map of the scheme. The message names the file.

    See Also:
        :func:`~captum_leam.regions.read_labels`: A single label file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/ann_labels.npy", np.full((4, 4), 2))
        ...     parser = LabelMapParser(folder, suffix="_labels")
        >>> parser(torch.zeros(1, 3, 4, 4)).unique().tolist(), parser.names
        ([2], ('ann',))
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        names: Sequence[str] | None = None,
        *,
        suffix: str = "",
        scheme: RegionScheme = CELEBAMASK_HQ,
    ) -> None:
        if isinstance(files, (str, Path)):
            self.files = _find_label_files(Path(files), names, suffix)
        elif names is not None:
            raise CaptumLeamError("Expected names only with a folder, got names and files. Omit names.")
        else:
            self.files = tuple(Path(path) for path in files)
        if not self.files:
            raise CaptumLeamError("Expected at least one label file, got none.")
        self.scheme = scheme
        self.names = tuple(path.stem.removesuffix(suffix) for path in self.files)
        self._labels = [read_labels(path, scheme) for path in self.files]

    def __repr__(self) -> str:
        return f"LabelMapParser({len(self.files)} files, scheme={self.scheme.name!r})"

    def __call__(self, images: Tensor) -> Tensor:
        """Return the label maps of the files, checked against the images.

        Args:
            images: All images in the order of the files, shape (N, C, H, W). Only their number, size and device are used.

        Returns:
            Label maps of shape (N, H, W), int64, on the device of the images.

        Raises:
            CaptumLeamError: If the number or the size of the images differs from that of the label maps.
        """
        if images.ndim != 4 or len(images) != len(self.files):
            raise CaptumLeamError(
                f"Expected images of shape (N, C, H, W), one for each of the {len(self.files)} label files, got {tuple(images.shape)}. "
                "Pass all images in one call, in the order of the files."
            )
        size = tuple(images.shape[-2:])
        for path, labels in zip(self.files, self._labels, strict=True):
            if tuple(labels.shape) != size:
                raise CaptumLeamError(
                    f"{path}: expected labels of shape {size}, as the images, got {tuple(labels.shape)}. Convert labels of the photograph "
                    "with AlignedFace.to_crop."
                )
        return torch.stack(self._labels).to(images.device)


def read_labels(path: str | Path, scheme: RegionScheme | None = None) -> Tensor:
    """Read a label map from a file.

    Args:
        path: Path of a PNG, BMP or TIFF picture with one channel or a palette, or of an ``.npy`` file of integers.
        scheme: Scheme that the labels must belong to. Default: None, for any integers.

    Returns:
        Label map of shape (H, W), int64.

    Raises:
        CaptumLeamError: If the file cannot be read or is not a label map of the scheme. The message names the file.

    See Also:
        :class:`~captum_leam.regions.LabelMapParser`: Label files of many images.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/ann.npy", np.zeros((2, 3), dtype=np.uint8))
        ...     read_labels(f"{folder}/ann.npy").shape
        torch.Size([2, 3])
        >>> read_labels("nowhere.npy")
        Traceback (most recent call last):
            ...
        captum_leam.errors.CaptumLeamError: nowhere.npy: the labels cannot be read (No such file or directory).
    """
    labels = _from_array(Path(path)) if Path(path).suffix == ".npy" else _from_picture(Path(path))
    if scheme is None:
        return labels
    try:
        return scheme.relabel(labels)
    except ValueError as error:
        raise CaptumLeamError(f"{path}: {error}") from None


def _from_array(path: Path) -> Tensor:
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is no file")
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise CaptumLeamError(f"{path}: the labels cannot be read ({error.strerror or error}).") from None
    except Exception as error:  # NumPy raises exceptions of several types for broken files and pickles
        raise CaptumLeamError(
            f"{path}: expected an array of integers (H, W), got an unreadable file ({error})."
        ) from None
    if not isinstance(values, np.ndarray):
        raise CaptumLeamError(f"{path}: expected an array of integers (H, W), got an archive of arrays.")
    if values.ndim != 2 or values.dtype.kind not in "iub":
        raise CaptumLeamError(
            f"{path}: expected an array of integers (H, W), got {values.dtype} of shape {values.shape}."
        )
    return torch.from_numpy(values.astype(np.int64))


def _from_picture(path: Path) -> Tensor:
    with open_picture(path) as image:
        if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
            raise FileError(
                path, f"expected a picture in grey or with a palette, one label per pixel, got colours ({image.mode})."
            )
        return torch.from_numpy(np.asarray(image).astype(np.int64))


def _find_label_files(folder: Path, names: Sequence[str] | None, suffix: str) -> tuple[Path, ...]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in LABEL_FILES and path.stem.endswith(suffix))
    except OSError as error:
        raise CaptumLeamError(f"{folder}: the folder cannot be read ({error.strerror}).") from None
    if names is None:
        if not paths:
            raise CaptumLeamError(f"{folder}: the folder holds no label file (*{suffix}, {', '.join(LABEL_FILES)}).")
        return tuple(paths)
    by_name: dict[str, list[Path]] = {}
    for path in paths:
        by_name.setdefault(path.stem.removesuffix(suffix), []).append(path)
    if missing := [name for name in names if name not in by_name]:
        raise CaptumLeamError(
            f"{folder}: expected a label file for every name, such as {missing[0]}{suffix}.png, got none for {missing[:5]}."
        )
    if ambiguous := [name for name in names if len(by_name[name]) > 1]:
        files = [path.name for path in by_name[ambiguous[0]]]
        raise CaptumLeamError(f"{folder}: expected one label file for {ambiguous[0]!r}, got {files}.")
    return tuple(by_name[name][0] for name in names)
