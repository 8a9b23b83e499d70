"""Detect faces in photographs and align them to a five-point template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from captum_leam._engine.arithmetic import plain_torch
from captum_leam._optional import import_optional, pd
from captum_leam._stores import AnyPath
from captum_leam._weights import find_weights, load_network
from captum_leam.errors import CaptumLeamError, FileError
from captum_leam.faces.aligned import AlignedFace, align, as_photo, resolve_template
from captum_leam.faces.detections import MIN_FACE, Detection, find_problem
from captum_leam.faces.photos import read_photo, split_pictures
from captum_leam.faces.turns import View, upright_view

Which = Literal["all", "largest"] | int
Detector = Literal["mobile0.25", "resnet50"]

MAX_FACES = 20
CLOSE_UP_SCORE = 0.5  # a face in a close-up was detected before, so a lower score suffices


@dataclass(frozen=True)
class AlignedFaces(Sequence[AlignedFace]):
    """Aligned faces of one photograph, ordered from the largest.

    :class:`FaceAligner` returns it. It is a sequence of :class:`AlignedFace`, so it has a length, and ``faces[0]`` is the largest face.

    Attributes:
        faces: Aligned faces, a tuple of :class:`AlignedFace`.
        rejected: Detections that were not aligned, a tuple of :class:`Detection`, each with the reason in :attr:`Detection.problem`.

    Example:
        >>> from captum_leam.faces import ARCFACE_112, align
        >>> photo = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))
        >>> faces = AlignedFaces((align(photo, ARCFACE_112 + 40),))
        >>> faces.crops.shape  # the input of a recognition network
        torch.Size([1, 3, 112, 112])
        >>> faces.to_frame()[["left", "top", "scale"]].round(1)
           left   top  scale
        0  78.3  91.5    1.0
    """

    faces: tuple[AlignedFace, ...]
    rejected: tuple[Detection, ...] = ()

    def __len__(self) -> int:
        return len(self.faces)

    @overload
    def __getitem__(self, index: int) -> AlignedFace: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[AlignedFace, ...]: ...
    def __getitem__(self, index: int | slice) -> AlignedFace | tuple[AlignedFace, ...]:
        return self.faces[index]

    def __iter__(self) -> Iterator[AlignedFace]:
        return iter(self.faces)

    @property
    def crops(self) -> Tensor:
        """Crops of all faces, shape (N, 3, h, w), float32 in [0, 1]."""
        return torch.stack([face.crop for face in self.faces])

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row per face and per rejected detection.

        Returns:
            Data frame, faces first, with the columns:

            * index: Index of the face among the detections, largest first. NaN for rejected detections.
            * left, top, right, bottom: Box of the face in pixels of the photograph.
            * score: Score of the detector, in [0, 1].
            * scale: Crop pixels per pixel of the photograph. NaN for rejected detections.
            * problem: Reason of the rejection. NaN for aligned faces.
        """
        corners = ("left", "top", "right", "bottom")
        rows = [
            {"index": face.index, **dict(zip(corners, face.box, strict=True)), "score": face.score, "scale": face.scale}
            for face in self.faces
        ]
        rows += [
            {**dict(zip(corners, detection.box, strict=True)), "score": detection.score, "problem": detection.problem}
            for detection in self.rejected
        ]
        return pd.DataFrame(rows, columns=["index", *corners, "score", "scale", "problem"])


@dataclass(frozen=True)
class AlignedFiles:
    """Aligned faces of many files, with the files that failed.

    :meth:`FaceAligner.align_files` returns it.

    Attributes:
        done: Aligned photographs, a tuple of pairs (path, :class:`AlignedFaces`).
        failed: Files that were not aligned, a tuple of pairs (path, reason).

    Example:
        >>> from captum_leam.faces import ARCFACE_112, align
        >>> photo = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))
        >>> faces = AlignedFaces((align(photo, ARCFACE_112 + 40),))
        >>> files = AlignedFiles(done=((Path("ann.jpg"), faces),), failed=((Path("sea.jpg"), "no face was found"),))
        >>> files
        AlignedFiles: 1 done, 1 failed
          sea.jpg: no face was found
        >>> files.crops.shape, files.paths[0].name
        (torch.Size([1, 3, 112, 112]), 'ann.jpg')
    """

    done: tuple[tuple[Path, AlignedFaces], ...]
    failed: tuple[tuple[Path, str], ...]

    @property
    def crops(self) -> Tensor:
        """Crops of all faces of all aligned files, in order, shape (N, 3, h, w).

        Raises:
            CaptumLeamError: If no file was aligned.
        """
        if not self.done:
            raise CaptumLeamError("Expected at least one aligned file, got none. See `failed` for the reasons.")
        return torch.cat([faces.crops for _, faces in self.done])

    @property
    def paths(self) -> list[Path]:
        """Path of the file of each crop in :attr:`crops`, a list of N paths. A file with two faces is listed twice."""
        return [path for path, faces in self.done for _ in faces]

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row per face and per file that failed.

        Returns:
            Data frame, faces first, with the columns:

            * path: Path of the file.
            * reason: Reason why the file was not aligned. Empty for faces.
            * index, left, top, right, bottom, score, scale, problem: As in :meth:`AlignedFaces.to_frame`, if there are faces.

        Example:
            >>> from captum_leam.faces import ARCFACE_112, align
            >>> face = align(torch.zeros(3, 200, 300), ARCFACE_112 + 40)
            >>> files = AlignedFiles(((Path("ann.jpg"), AlignedFaces((face,))),), ((Path("sea.jpg"), "no face was found"),))
            >>> files.to_frame()[["path", "reason", "scale"]].round(2)
                  path             reason  scale
            0  ann.jpg                       1.0
            1  sea.jpg  no face was found    NaN
        """
        tables = [faces.to_frame().assign(path=str(path), reason="") for path, faces in self.done]
        failures = pd.DataFrame([{"path": str(path), "reason": reason} for path, reason in self.failed])
        table = pd.concat([part for part in (*tables, failures) if len(part)], ignore_index=True)
        return table[["path", "reason", *[name for name in table.columns if name not in ("path", "reason")]]]

    def __repr__(self) -> str:
        lines = [f"AlignedFiles: {len(self.done)} done, {len(self.failed)} failed"]
        return "\n  ".join([*lines, *[f"{path}: {reason}" for path, reason in self.failed]])


class FaceAligner:
    """Detector that finds the faces in photographs and aligns them for recognition networks.

    Recognition networks expect crops in which the eyes, the nose and the corners of the mouth lie at fixed positions, the template. The
    aligner detects each face with its five points and rotates, scales and moves the photograph so that the points fit the template.
    Call it with a photograph for its faces, or call :meth:`align_files` for many files.

    Source: Deng et al. 2020, "RetinaFace: Single-shot multi-level face localisation in the wild", for the detector (from the package
    facexlib). Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns", for the alignment.

    Args:
        template: Positions of the five points on the crop. Default: ``"arcface112"``. Allowed values:

            * ``"arcface112"``: Crops of 112 × 112 px, for nearly all recognition networks.
            * ``"arcface112x96"``: Crops of 112 × 96 px (h, w), for older networks.
            * Array of shape (5, 2): Points (x, y) in pixels of a crop of ``size``.
        size: Height and width (h, w) of the crop in pixels, or one number for a square. A named template is scaled to it. Default: the
            size of the template; required for custom points.
        detector: Backbone of the detector: ``"mobile0.25"`` (1.8 MB, fast) or ``"resnet50"`` (110 MB, better in difficult photographs).
            Default: ``"mobile0.25"``.
        weights: Path of the file of weights, or of the folder that holds it. Default: the folder in the environment variable
            ``CAPTUM_LEAM_WEIGHTS``, or facexlib's own folder without it.
        sha256: SHA-256 digest in hex that the file of weights must have. Default: None, for no check. The attribute ``sha256`` holds the
            digest of the file.
        download: Whether facexlib may download missing weights. Default: False.
        device: Device of the detector; crops are on the CPU. Default: CUDA if available, else the CPU.
        min_score: Minimum score of a detection, in (0, 1). Default: 0.8.
        min_face: Minimum length of the shorter side of a face in pixels. Default: 20.
        max_faces: Maximum number of faces in a photograph. With more, one must be selected by its index. Default: 20.
        max_side: Longest side in pixels on which faces are detected. Larger photographs are shrunk for detection only. Default: 1280.
        antialias: Whether pixels of shrunk crops are averages over their area, see :func:`align`. Default: True.

    Raises:
        MissingWeightsError: If the weights are not found.
        CaptumLeamError: If the weights are broken, belong to another network or do not have the expected digest, or an argument is
            invalid.
        MissingExtraError: If facexlib is not installed.

    See Also:
        * :func:`~captum_leam.faces.align`: Alignment by points that are known.
        * :func:`~captum_leam.faces.read_faces`: Faces of files that may be crops or photographs.

    Note:
        If the faces are not upright, the aligner also tries the photograph rotated by 90°, 180° and 270°. Coordinates always refer to
        the photograph as it was passed.

    Example:
        >>> aligner = FaceAligner(download=True)  # doctest: +SKIP
        >>> faces = aligner("group.jpg")  # doctest: +SKIP
        >>> faces.crops.shape  # (faces, 3, 112, 112)  # doctest: +SKIP
        >>> faces.to_frame()[["left", "top", "score"]]  # doctest: +SKIP
        >>> embeddings = model(faces.crops)  # doctest: +SKIP
    """

    def __init__(
        self,
        template: str | ArrayLike = "arcface112",
        size: int | tuple[int, int] | None = None,
        *,
        detector: Detector = "mobile0.25",
        weights: str | AnyPath | None = None,
        sha256: str | None = None,
        download: bool = False,
        device: str | torch.device | None = None,
        min_score: float = 0.8,
        min_face: float = MIN_FACE,
        max_faces: int = MAX_FACES,
        max_side: int = 1280,
        antialias: bool = True,
    ) -> None:
        if detector not in ("mobile0.25", "resnet50"):
            raise CaptumLeamError(f'Expected detector to be "mobile0.25" or "resnet50", got {detector!r}.')
        if not 0 < min_score < 1:
            raise CaptumLeamError(f"Expected min_score to be in (0, 1), got {min_score}.")
        for name, value, least in (("min_face", min_face, 1), ("max_faces", max_faces, 1), ("max_side", max_side, 64)):
            if value < least:
                raise CaptumLeamError(f"Expected {name} to be {least} or more, got {value}.")
        self.weights = find_weights(detector, weights, download=download)
        self.template, self.size = resolve_template(template, size)
        self.detector = detector
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.min_score, self.min_face, self.max_faces, self.max_side = min_score, min_face, max_faces, max_side
        self.antialias = antialias
        network, self.sha256 = load_network(lambda: _retinaface(detector, self.device), self.weights, sha256)
        self._network = network.to(self.device)

    def __repr__(self) -> str:
        return (
            f"FaceAligner(detector={self.detector!r}, size={self.size}, weights={self.weights.name!r}, "
            f"sha256={self.sha256[:12]!r}, device={str(self.device)!r})"
        )

    def detect(self, photo: Tensor | str | Path) -> list[Detection]:
        """Detect the faces of a photograph without aligning them.

        Use it to see which detections are rejected, and why.

        Args:
            photo: RGB photograph of shape (3, H, W), floating point in [0, 1], or the path of a file.

        Returns:
            List of :class:`Detection`, ordered from the largest, with coordinates in pixels of the photograph. Those that cannot be
            aligned have the reason in :attr:`Detection.problem`.

        Raises:
            CaptumLeamError: If the photograph is invalid, or its file cannot be read.

        Example:
            >>> for face in FaceAligner().detect("group.jpg"):  # doctest: +SKIP
            ...     print(face.score, face.problem or "can be aligned")
        """
        view = self._view(_load_photo(photo))
        return [view.in_photo(detection) for detection in view.detections]

    def __call__(self, photo: Tensor | str | Path, faces: Which = "all") -> AlignedFaces:
        """Return the aligned faces of one photograph.

        Args:
            photo: RGB photograph of shape (3, H, W), floating point in [0, 1], or the path of a file.
            faces: Faces to align: ``"all"``, ``"largest"``, or the index of one face, counted from 0, the largest. Default: ``"all"``.

        Returns:
            Aligned faces as :class:`AlignedFaces`, ordered from the largest. Detections that cannot be aligned are in ``rejected``.

        Raises:
            CaptumLeamError: If the photograph is invalid or its file cannot be read, if it has no face or more than ``max_faces``, or if
                no selected face can be aligned. A smaller face is never used instead of the selected one.

        Example:
            >>> faces = FaceAligner()("ann.jpg", faces="largest")  # doctest: +SKIP
            >>> faces[0].crop.shape  # doctest: +SKIP
            torch.Size([3, 112, 112])
        """
        pixels = _load_photo(photo)
        view = self._view(pixels)
        selection = self._select(view.detections, faces, photo)
        detections = [view.in_photo(detection) for detection in view.detections]
        for i in selection:
            if detections[i].problem is None:
                detections[i] = replace(detections[i], problem=view.why_not_upright(i))
        plausible = [i for i, detection in enumerate(detections) if detection.problem is None]
        rejected = tuple(detections[i] for i in selection if i not in plausible)
        if len(rejected) == len(selection):
            reason = self._reason(rejected, faces, len(detections))
            raise _photo_error(photo, reason).with_options(*_face_options(plausible))
        aligned = [self._align(pixels, detections[i], i) for i in selection if i in plausible]
        return AlignedFaces(
            tuple(replace(face, face_count=len(plausible), turn=view.turn) for face in aligned), rejected
        )

    def align_files(
        self, paths: str | Path | Sequence[str | Path], *, faces: Which = "largest", progress: bool = False
    ) -> AlignedFiles:
        """Align the faces of many files and continue after files that fail.

        Args:
            paths: Paths of files, or the path of a folder of pictures.
            faces: Faces of each file: ``"all"``, ``"largest"``, or the index of one face, counted from 0, the largest. Default:
                ``"largest"``.
            progress: Whether to show a progress bar. Default: False.

        Returns:
            Result as :class:`AlignedFiles`, in the order of the files. Its most used attributes are:

            * ``crops``: All crops as one batch, shape (N, 3, h, w).
            * ``paths``: File of each crop, a list of N paths.
            * ``failed``: Path and reason of each file that failed or was skipped.

        Raises:
            CaptumLeamError: If no path is passed, or the folder cannot be read or has no image file.

        Example:
            >>> files = FaceAligner().align_files("photographs/", progress=True)  # doctest: +SKIP
            >>> print(files)  # how many were aligned, and why others were not  # doctest: +SKIP
            >>> embeddings = model(files.crops)  # doctest: +SKIP
        """
        from tqdm import tqdm

        done: list[tuple[Path, AlignedFaces]] = []
        pictures, failed = split_pictures(paths)
        for path in tqdm(pictures, desc="faces", unit="photo", disable=not progress):
            try:
                done.append((path, self(path, faces)))
            except FileError as error:
                failed.append((path, error.reason))
            except ValueError as error:
                failed.append((path, str(error)))
        return AlignedFiles(tuple(done), tuple(failed))

    def _view(self, photo: Tensor) -> View:
        def detect(rotated: Tensor) -> list[Detection]:
            return self._detect(rotated, self.min_score, self.min_face)

        return upright_view(photo, detect, lambda close_up: self._detect(close_up, CLOSE_UP_SCORE, MIN_FACE))

    def _detect(self, photo: Tensor, min_score: float, min_face: float) -> list[Detection]:
        ratio = min(1.0, self.max_side / max(photo.shape[1:]))
        if ratio < 1:
            small = [max(1, round(side * ratio)) for side in photo.shape[1:]]
            shrunk = torch.nn.functional.interpolate(photo[None], small, mode="bilinear", antialias=True)[0]
        else:
            shrunk = photo
        # facexlib expects BGR in [0, 255], and would otherwise record a graph.
        picture = (shrunk.flip(0) * 255).round().movedim(0, -1).contiguous().numpy()
        with plain_torch(self.device), torch.no_grad():
            rows = np.asarray(self._network.detect_faces(picture, conf_threshold=min_score), dtype=np.float64)
        ratios = np.array(photo.shape[:0:-1]) / np.array(shrunk.shape[:0:-1])  # (x, y), which rounding makes unequal
        points = (rows[:, [0, 1, 2, 3, *range(5, 15)]].reshape(-1, 7, 2) + 0.5) * ratios - 0.5
        size = (int(photo.shape[1]), int(photo.shape[2]))
        detections = [
            Detection(box, landmarks, float(score), find_problem(box, landmarks, size, min_face))
            for box, landmarks, score in zip(points[:, :2].reshape(-1, 4), points[:, 2:], rows[:, 4], strict=True)
        ]
        return sorted(detections, key=lambda detection: -detection.area)

    def _align(self, photo: Tensor, face: Detection, index: int) -> AlignedFace:
        return align(
            photo,
            face.landmarks,
            self.template,
            self.size,
            box=face.box,
            score=face.score,
            index=index,
            antialias=self.antialias,
        )

    def _select(self, detections: list[Detection], faces: Which, photo: Tensor | str | Path) -> list[int]:
        if isinstance(faces, bool) or not (faces in ("all", "largest") or isinstance(faces, int)):
            raise CaptumLeamError(
                f'Expected faces to be "all", "largest" or an index from 0, the largest, got {faces!r}.'
            )
        count = len(detections)
        if not detections:
            raise _photo_error(
                photo,
                f"no face was found with a score above {self.min_score:g}. Read aligned crops with read_crop (on the command line "
                "--pictures crops).",
            ).with_options("--pictures", "crops")
        if isinstance(faces, int):
            if not 0 <= faces < count:
                raise _photo_error(
                    photo,
                    f"expected a face index below {count}, the number of detected faces, got {faces}. Index 0 is the largest face.",
                ).with_options(*_face_options([0]))
            return [faces]
        if count > self.max_faces:
            raise _photo_error(
                photo,
                f"{count} faces were found, but max_faces is {self.max_faces}. Crop the photograph, select a face by faces=<index> (on the "
                "command line --face), or increase max_faces.",
            ).with_options(*_face_options([0]))
        return list(range(count)) if faces == "all" else [0]

    @staticmethod
    def _reason(rejected: tuple[Detection, ...], faces: Which, count: int) -> str:
        problem = rejected[0].problem
        if count == 1:
            return f"the detected face cannot be aligned: {problem}."
        if faces == "all":
            hint = "If this happens often, check that the weights belong to this detector."
            return f"none of the {count} detected faces can be aligned; the largest: {problem}. {hint}"
        face = "the largest face" if faces == "largest" else f"face {faces}"
        return f"{face} of {count} cannot be aligned: {problem}. Select another one by faces=<index> (--face)."


def _retinaface(detector: str, device: torch.device) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision deprecates the arguments that facexlib passes to its backbone
        return import_optional("facexlib.detection.retinaface").RetinaFace(network_name=detector, device=device)


def _load_photo(photo: Tensor | str | Path) -> Tensor:
    return as_photo(photo) if isinstance(photo, Tensor) else read_photo(photo)


def _face_options(indices: Sequence[int]) -> tuple[str, ...]:
    """Return the command-line option that selects the first of these faces, or nothing without faces."""
    return ("--face", str(indices[0])) if indices else ()


def _photo_error(photo: Tensor | str | Path, reason: str) -> CaptumLeamError:
    """Return the error of a photograph, which names the file if there is one."""
    return CaptumLeamError(reason) if isinstance(photo, Tensor) else FileError(photo, reason)
