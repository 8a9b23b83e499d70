"""Label maps from files: hand-made, or another program's."""

import errno
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captum_leam.errors import CaptumLeamError
from captum_leam.faces.photos import opened
from captum_leam.regions.scheme import CELEBAMASK_HQ, RegionScheme

LABEL_FILES = (".npy", ".png", ".bmp", ".tif", ".tiff")


class LabelMapParser:
    """Label maps from files, in the order of the images: hand-made labels, or those of another program.

    Args:
        files: label files (PNG, BMP or TIFF with one channel, or a palette, whose numbers count; or ``.npy`` with integers), or a
            folder of them, taken by name.
        names: of the images in their order, for a folder: the label file of ``"ann_1"`` is ``ann_1<suffix>.png`` or ``.npy``.
        suffix: what label files have at the end of their names; others in the folder are left alone.
        scheme: of the integers.

    Raises:
        CaptumLeamError: naming the file and why: missing, broken, in colours, labels that the scheme does not know.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/ann_labels.npy", np.full((4, 4), 2))
        ...     parser = LabelMapParser(folder, suffix="_labels")
        >>> parser(torch.rand(1, 3, 4, 4)).unique().tolist(), parser.names
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
            self.files = _in_folder(Path(files), names, suffix)
        elif names is not None:
            raise CaptumLeamError("names= choose among the files of a folder; leave them out when files are given.")
        else:
            self.files = tuple(Path(path) for path in files)
        if not self.files:
            raise CaptumLeamError("no label file is given.")
        self.scheme = scheme
        self.names = tuple(path.stem.removesuffix(suffix) for path in self.files)
        self._labels = [read_labels(path, scheme) for path in self.files]

    def __repr__(self) -> str:
        return f"LabelMapParser({len(self.files)} files, scheme={self.scheme.name!r})"

    def __call__(self, images: Tensor) -> Tensor:
        """Label maps of all images, in the order of the files.

        Args:
            images: (N, C, H, W), all of them at once.

        Returns:
            (N, H, W), int64, on the device of the images.

        Raises:
            CaptumLeamError: for another number of images than files, or another size, naming the file.
        """
        if images.ndim != 4 or len(images) != len(self.files):
            raise CaptumLeamError(
                f"images have shape {tuple(images.shape)}, and there are {len(self.files)} label files; expected one each: "
                "(N, C, H, W), in one call and in the order of the files."
            )
        size = tuple(images.shape[-2:])
        for path, labels in zip(self.files, self._labels, strict=True):
            if tuple(labels.shape) != size:
                raise CaptumLeamError(
                    f"{path}: labels of (H, W) = {tuple(labels.shape)}, the images have {size}. Labels belong to the very crop: bring "
                    "them there first (AlignedFace.to_crop)."
                )
        return torch.stack(self._labels).to(images.device)


def read_labels(path: str | Path, scheme: RegionScheme | None = None) -> Tensor:
    """One label map from a file.

    Args:
        path: PNG, BMP or TIFF with one channel or a palette, or ``.npy``.
        scheme: whose integers they must be.

    Returns:
        (H, W), int64.

    Raises:
        CaptumLeamError: naming the file and why.

    Example:
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
    except Exception as error:  # a broken file, or a pickle
        raise CaptumLeamError(f"{path}: this is no array of numbers ({error}).") from None
    if not isinstance(values, np.ndarray):
        raise CaptumLeamError(f"{path}: this is an archive of arrays; expected one array of integers (H, W).")
    if values.ndim != 2 or values.dtype.kind not in "iub":
        raise CaptumLeamError(f"{path}: {values.dtype} of shape {values.shape}; expected integers (H, W).")
    return torch.from_numpy(values.astype(np.int64))


def _from_picture(path: Path) -> Tensor:
    with opened(path) as image:
        if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
            raise CaptumLeamError(
                f"{path}: a picture in colours ({image.mode}); expected one integer a pixel: grey, or with a palette."
            )
        return torch.from_numpy(np.asarray(image).astype(np.int64))


def _in_folder(folder: Path, names: Sequence[str] | None, suffix: str) -> tuple[Path, ...]:
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix in LABEL_FILES and path.stem.endswith(suffix))
    except OSError as error:
        raise CaptumLeamError(f"{folder}: the folder cannot be read ({error.strerror}).") from None
    if names is None:
        if not found:
            raise CaptumLeamError(f"{folder}: the folder holds no label file (*{suffix}, {', '.join(LABEL_FILES)}).")
        return tuple(found)
    by_name: dict[str, list[Path]] = {}
    for path in found:
        by_name.setdefault(path.stem.removesuffix(suffix), []).append(path)
    if missing := [name for name in names if name not in by_name]:
        raise CaptumLeamError(f"{folder}: no label file for {missing[:5]} ({missing[0]}{suffix}.png or so).")
    if twice := [name for name in names if len(by_name[name]) > 1]:
        raise CaptumLeamError(
            f"{folder}: several label files for {twice[0]!r}: {[path.name for path in by_name[twice[0]]]}."
        )
    return tuple(by_name[name][0] for name in names)
