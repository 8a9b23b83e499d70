"""From photographs to aligned crops: detection, five points, a similarity."""

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
from captum_leam.faces.detections import MIN_FACE, Detection, implausible
from captum_leam.faces.photos import pictures_of, read_photo
from captum_leam.faces.turns import View, upright_view

Which = Literal["all", "largest"] | int
Detector = Literal["mobile0.25", "resnet50"]

MAX_FACES = 20
CLOSE_UP_SCORE = 0.5  # of a face that was found already


@dataclass(frozen=True)
class AlignedFaces(Sequence[AlignedFace]):
    """The faces of one photograph, the largest first, and the detections that were refused.

    Example:
        >>> from captum_leam.faces import ARCFACE_112, align
        >>> faces = AlignedFaces((align(torch.rand(3, 200, 300), ARCFACE_112 + 40),))  # a FaceAligner returns it
        >>> len(faces), faces.crops.shape, faces.to_frame()["scale"].round(2).tolist()
        (1, torch.Size([1, 3, 112, 112]), [1.0])
    """

    faces: tuple[AlignedFace, ...]
    refused: tuple[Detection, ...] = ()

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
        """(N, 3, h, w), float32 in [0, 1]."""
        return torch.stack([face.crop for face in self.faces])

    def to_frame(self) -> pd.DataFrame:
        """One row for every face and refused detection: box, score, scale of the crop, and the problem of the refused."""
        corners = ("left", "top", "right", "bottom")
        rows = [
            {"index": face.index, **dict(zip(corners, face.box, strict=True)), "score": face.score, "scale": face.scale}
            for face in self.faces
        ]
        rows += [
            {**dict(zip(corners, bad.box, strict=True)), "score": bad.score, "problem": bad.problem}
            for bad in self.refused
        ]
        return pd.DataFrame(rows, columns=["index", *corners, "score", "scale", "problem"])


@dataclass(frozen=True)
class AlignedFiles:
    """Photographs that were aligned, and files that were not with the reason.

    Example:
        >>> AlignedFiles((), ((Path("a.jpg"), "no face found"),))  # FaceAligner.align_files returns it
        AlignedFiles: 0 done, 1 failed
          a.jpg: no face found
    """

    done: tuple[tuple[Path, AlignedFaces], ...]
    failed: tuple[tuple[Path, str], ...]

    @property
    def crops(self) -> Tensor:
        """(N, 3, h, w): all faces of all files that were done, in order; (0, 3, h, w) cannot be known, so none is an error."""
        if not self.done:
            raise CaptumLeamError("no file was aligned; `failed` says why.")
        return torch.cat([faces.crops for _, faces in self.done])

    @property
    def paths(self) -> list[Path]:
        """The file that each of :attr:`crops` is from."""
        return [path for path, faces in self.done for _ in faces]

    def to_frame(self) -> pd.DataFrame:
        """One row for every face, and one for every file that failed, with the reason."""
        tables = [faces.to_frame().assign(path=str(path), reason="") for path, faces in self.done]
        lost = pd.DataFrame([{"path": str(path), "reason": reason} for path, reason in self.failed])
        whole = pd.concat([table for table in (*tables, lost) if len(table)], ignore_index=True)
        return whole[["path", "reason", *[name for name in whole.columns if name not in ("path", "reason")]]]

    def __repr__(self) -> str:
        lines = [f"AlignedFiles: {len(self.done)} done, {len(self.failed)} failed"]
        return "\n  ".join([*lines, *[f"{path}: {reason}" for path, reason in self.failed]])


class FaceAligner:
    """Finds faces with facexlib's RetinaFace and aligns them to five points.

    Detectors find upside-down faces, too. A face is therefore detected again in a close-up, as it is and turned by 180°, and the
    photograph is turned until a face is upright. Coordinates are those of the photograph as given.

    Source: Deng et al. 2020, "RetinaFace: Single-shot multi-level face localisation in the wild" (detector); Umeyama 1991
    (alignment).

    Args:
        template: ``"arcface112"``, which nearly all recognition networks read, ``"arcface112x96"`` for the older ones that read its
            middle, or (5, 2): where the five points belong, (x, y) in pixels of a crop of ``size``.
        size: of the crop, (h, w) or one number; by default that of the template. Other sizes scale it; a template of your own
            belongs to the size given.
        detector: ``"mobile0.25"`` (1.8 MB, fast) or ``"resnet50"`` (110 MB, better in hard photographs).
        weights: file or folder; by default the folder that ``CAPTUM_LEAM_WEIGHTS`` names, else facexlib's own.
        sha256: what the weights must be, in hex; the attribute of that name says what they are.
        download: let facexlib download weights that are not there.
        device: of the detector; by default CUDA where there is one. Crops are on the CPU.
        min_score: of a detection, in (0, 1).
        min_face: least shorter side of a face in pixels.
        max_faces: more in one photograph are refused, unless one is chosen by index.
        max_side: larger photographs are detected on a copy scaled to this side, and aligned from the original.
        antialias: see :func:`align`.

    Raises:
        CaptumLeamError: for weights that are missing, broken, of another network or not those pinned; for other options.
        ImportError: without facexlib.

    Example:
        >>> FaceAligner(weights="/nowhere")
        Traceback (most recent call last):
            ...
        captum_leam.errors.MissingWeightsError: weights /nowhere: there is no such file or folder. ...
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
            raise CaptumLeamError(f'detector is {detector!r}; expected "mobile0.25" or "resnet50".')
        if not 0 < min_score < 1 or min_face < 1 or max_faces < 1 or max_side < 64:
            raise CaptumLeamError(
                f"min_score={min_score}, min_face={min_face}, max_faces={max_faces}, max_side={max_side}; expected a score "
                "in (0, 1), a face of 1 px, 1 face and a side of 64 px or more."
            )
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
        """Return all that the detector finds in the upright photograph, the largest first, plausible or not (:attr:`Detection.problem`).

        Args:
            photo: (3, H, W), float in [0, 1], or a file.
        """
        view = self._view(_photo_of(photo))
        return [view.in_photo(face) for face in view.found]

    def __call__(self, photo: Tensor | str | Path, faces: Which = "all") -> AlignedFaces:
        """Return the aligned faces of one photograph, which is turned upright first if it lies on its side or is upside down.

        Args:
            photo: (3, H, W), RGB, float in [0, 1], or a file.
            faces: ``"all"``, the ``"largest"``, or the index of one, counted from the largest.

        Returns:
            The faces, the largest first. Under ``"all"`` implausible detections are left out and listed in ``refused``.

        Raises:
            CaptumLeamError: naming the file and why: what :func:`~captum_leam.faces.read_photo` refuses, no face, ...
                or that the face asked for is implausible or not upright (a smaller one is never taken in its place).
        """
        pixels = _photo_of(photo)
        view = self._view(pixels)
        chosen = self._choose(view.found, faces, photo)
        found = [view.in_photo(face) for face in view.found]
        for i in chosen:
            if found[i].problem is None:
                found[i] = replace(found[i], problem=view.why_not_upright(i))
        good = [i for i in chosen if found[i].problem is None]
        refused = tuple(found[i] for i in chosen if i not in good)
        if not good:
            others = [str(i) for i, face in enumerate(found) if face.problem is None]
            raise _refused(photo, self._refusal(refused, faces, len(found))).with_options(*_face_options(others))
        plausible = sum(face.problem is None for face in found)
        aligned = [self._align(pixels, found[i], i) for i in good]
        return AlignedFaces(tuple(replace(face, found=plausible, turn=view.turn) for face in aligned), refused)

    def align_files(
        self, paths: str | Path | Sequence[str | Path], *, faces: Which = "largest", progress: bool = False
    ) -> AlignedFiles:
        """Align many files; one that fails does not stop the others.

        Args:
            paths: files, or a folder of pictures.
            faces: as in a call.
            progress: show a bar.

        Returns:
            What was done, and (path, reason) of what failed or is skipped in a folder.

        Raises:
            CaptumLeamError: if nothing is given, or the folder cannot be read or holds no picture.
        """
        from tqdm import tqdm

        done: list[tuple[Path, AlignedFaces]] = []
        pictures, failed = pictures_of(paths)
        for path in tqdm(pictures, desc="faces", unit="photo", disable=not progress):
            try:
                done.append((path, self(path, faces)))
            except FileError as error:
                failed.append((path, error.reason))
            except ValueError as error:
                failed.append((path, str(error)))
        return AlignedFiles(tuple(done), tuple(failed))

    def _view(self, photo: Tensor) -> View:
        def detect(turned: Tensor) -> list[Detection]:
            return self._detect(turned, self.min_score, self.min_face)

        return upright_view(photo, detect, lambda close_up: self._detect(close_up, CLOSE_UP_SCORE, MIN_FACE))

    def _detect(self, photo: Tensor, min_score: float, min_face: float) -> list[Detection]:
        ratio = min(1.0, self.max_side / max(photo.shape[1:]))
        if ratio < 1:
            small = [max(1, round(side * ratio)) for side in photo.shape[1:]]
            shrunk = torch.nn.functional.interpolate(photo[None], small, mode="bilinear", antialias=True)[0]
        else:
            shrunk = photo
        # facexlib reads BGR, 0 to 255, and would keep the graph
        picture = (shrunk.flip(0) * 255).round().movedim(0, -1).contiguous().numpy()
        with plain_torch(self.device), torch.no_grad():
            rows = np.asarray(self._network.detect_faces(picture, conf_threshold=min_score), dtype=np.float64)
        sides = np.array(photo.shape[:0:-1]) / np.array(shrunk.shape[:0:-1])  # (x, y): rounding differs by axis
        points = (rows[:, [0, 1, 2, 3, *range(5, 15)]].reshape(-1, 7, 2) + 0.5) * sides - 0.5
        size = (int(photo.shape[1]), int(photo.shape[2]))
        found = [
            Detection(box, marks, float(score), implausible(box, marks, size, min_face))
            for box, marks, score in zip(points[:, :2].reshape(-1, 4), points[:, 2:], rows[:, 4], strict=True)
        ]
        return sorted(found, key=lambda face: -face.area)

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

    def _choose(self, found: list[Detection], faces: Which, photo: Tensor | str | Path) -> list[int]:
        if isinstance(faces, bool) or not (faces in ("all", "largest") or isinstance(faces, int)):
            raise CaptumLeamError(f'faces is {faces!r}; expected "all", "largest", or an index from 0, the largest.')
        if not found:
            raise _refused(
                photo,
                f"no face was found (score over {self.min_score:g}). If this is an aligned crop already, read it "
                "with read_crop (on the command line --pictures crops).",
            ).with_options("--pictures", "crops")
        if isinstance(faces, int):
            if not 0 <= faces < len(found):
                raise _refused(
                    photo, f"there is no face {faces}; {len(found)} were found, counted from 0, the largest."
                ).with_options(*_face_options(["0"]))
            return [faces]
        if len(found) > self.max_faces:
            raise _refused(
                photo,
                f"{len(found)} faces were found, at most {self.max_faces} are taken; cut out the person, choose one "
                "by faces=<index> (on the command line --face), or raise max_faces.",
            ).with_options(*_face_options(["0"]))
        return list(range(len(found))) if faces == "all" else [0]

    @staticmethod
    def _refusal(refused: tuple[Detection, ...], faces: Which, number: int) -> str:
        reason = refused[0].problem
        if faces != "all" and number > 1:
            which = "the largest face" if faces == "largest" else f"face {faces}"
            return f"{which} was refused: {reason}. Choose another by faces=<index> (--face); {number} were found."
        hint = " If that happens often, the weights are not of this detector." if number > 1 else ""
        return f"{len(refused)} found, none is a face to align; the largest: {reason}.{hint}"


def _retinaface(detector: str, device: torch.device) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision, on how facexlib builds its backbone
        return import_optional("facexlib.detection.retinaface").RetinaFace(network_name=detector, device=device)


def _photo_of(photo: Tensor | str | Path) -> Tensor:
    return as_photo(photo) if isinstance(photo, Tensor) else read_photo(photo)


def _face_options(indices: Sequence[str]) -> tuple[str, ...]:
    """Return the option that chooses the first of these faces; nothing without one."""
    return ("--face", indices[0]) if indices else ()


def _refused(photo: Tensor | str | Path, reason: str) -> CaptumLeamError:
    """Return the error of a photograph, which names the file if there is one."""
    return CaptumLeamError(reason) if isinstance(photo, Tensor) else FileError(photo, reason)
