"""Regions named on a command line: the template, a parser with weights, a callable, label files or superpixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_leam._engine.memory import is_out_of_memory
from captum_leam._loading import made_in_code
from captum_leam.errors import CaptumLeamError
from captum_leam.faces.sources import FaceSource
from captum_leam.regions.label_files import LABEL_FILES, read_labels
from captum_leam.regions.parsers import FacexlibParser, parse_on_photo
from captum_leam.regions.report import parse
from captum_leam.regions.scheme import CELEBAMASK_HQ, RegionScheme
from captum_leam.regions.superpixels import superpixels
from captum_leam.regions.template import TemplateParser

Labels = tuple[Tensor, RegionScheme, str]

NAMES = (
    "template, bisenet, parsenet, superpixels, FILE.py:callable, package.module:callable, or a folder of label files"
)

MOUTH = ["mouth", "upper_lip", "lower_lip"]


@dataclass(frozen=True)
class FaceRegions:
    """Label maps of some faces.

    Example:
        >>> from captum_leam.regions import COARSE
        >>> FaceRegions(torch.zeros(2, 112, 112, dtype=torch.int64), COARSE, "painted by hand").comparable
        True
    """

    labels: Tensor = field(repr=False)
    """(N, h, w), int64."""
    scheme: RegionScheme
    """Of the labels; left and right are merged where it has both, and lips with the mouth."""
    source: str
    """What they are from, in words."""
    comparable: bool = True
    """Whether a region of one face is the same part of another; superpixels are not."""


def label_faces(
    where: str,
    sources: Sequence[FaceSource],
    images: Tensor,
    *,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
) -> FaceRegions:
    """Regions of faces, from whatever is named.

    Args:
        where: ``"template"`` (where parts usually lie), ``"bisenet"`` or ``"parsenet"`` (facexlib's; of photographs, parsed on the
            photograph around the face), ``"superpixels"``; ``"FILE.py:name"`` or ``"package.module:name"``, a parser, see
            :func:`parse`, or a class or function without arguments that gives one, with its ``scheme`` beside it or else in the
            classes of ``CELEBAMASK_HQ``; or a folder with ``<name of the picture>.png`` (or ``.npy``, or ``…_labels.png``), labels of
            ``CELEBAMASK_HQ`` on the crop or on the photograph.
        sources: of the faces.
        images: (N, 3, h, w), their crops.
        weights: of bisenet or parsenet, file or folder.
        device: of the parser.

    Raises:
        CaptumLeamError: for another name, and what the parser or the files refuse.

    Example:
        >>> source = FaceSource(Path("ann.png"), torch.rand(3, 112, 96))
        >>> label_faces("template", [source], source.crop[None]).source
        'TemplateParser, the standard crop of 112 × 96'
    """
    if where == "template":
        found = _of_template(images)
    elif where in ("bisenet", "parsenet"):
        found = _of_facexlib(where, sources, images, weights, device)
    elif where == "superpixels":
        labels, scheme = superpixels(images.cpu())
        return FaceRegions(labels, scheme, "superpixels (SLIC): by colour, anew in every picture", comparable=False)
    elif Path(where).is_dir():
        found = _of_files(Path(where), sources)
    elif ":" in where:
        found = _of_callable(where, images, device)
    else:
        raise CaptumLeamError(f"regions are {where!r}; expected {NAMES}.")
    labels, scheme, source = found
    scheme = scheme.merge_sides()
    if all(part in scheme.names for part in MOUTH):
        scheme = scheme.merge({"mouth": MOUTH})
    return FaceRegions(labels.cpu(), scheme, source)


def _of_template(images: Tensor) -> Labels:
    height, width = images.shape[-2:]
    try:
        parser = TemplateParser.of_size((height, width))
    except CaptumLeamError as error:
        raise CaptumLeamError(f"{error} Without a template, regions need a parser: {NAMES}.") from None
    shape = "" if height == width else f" of {parser.size[0]} × {parser.size[1]}"
    return parser(images), parser.scheme, f"TemplateParser, the standard crop{shape}"


def _of_facexlib(
    where: Any, sources: Sequence[FaceSource], images: Tensor, weights: str | Path | None, device: Any
) -> Labels:
    parser = FacexlibParser(where, weights=weights, device=device)
    labels = [
        parse(parser, image[None].cpu())[0]
        if source.face is None or source.photo is None
        else parse_on_photo(parser, source.photo, source.face)
        for source, image in zip(sources, images, strict=True)
    ]
    return torch.stack(labels), parser.scheme, repr(parser)


def _of_callable(where: str, images: Tensor, device: Any) -> Labels:
    parser = made_in_code(where)
    if not callable(parser):
        raise CaptumLeamError(
            f"{where} is a {type(parser).__name__}; expected a parser: images (N, 3, h, w) → label maps."
        )
    scheme = getattr(parser, "scheme", CELEBAMASK_HQ)
    if not isinstance(scheme, RegionScheme):
        raise CaptumLeamError(f"{where}: its scheme is a {type(scheme).__name__}; expected a RegionScheme.")
    if isinstance(parser, nn.Module):
        parser = parser.eval().to(device or "cpu")
    try:
        labels = parse(_checked(parser, scheme), images)
    except (ValueError, TypeError) as error:
        raise CaptumLeamError(f"{where}: {error}") from None
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise CaptumLeamError(f"{where} raised {type(error).__name__}: {str(error).splitlines()[0]}") from error
    return labels, scheme, f"{where}, classes of {scheme.name}"


def _checked(parser: Callable[[Tensor], Tensor], scheme: RegionScheme) -> Callable[[Tensor], Tensor]:
    """Return the parser, which raises if its scores have another number of classes than the scheme."""

    def checked(images: Tensor) -> Tensor:
        answer = parser(images)
        scores = isinstance(answer, Tensor) and answer.is_floating_point() and answer.ndim == 4
        if scores and scheme.labels != tuple(range(answer.shape[1])):
            raise CaptumLeamError(
                f"scores of {answer.shape[1]} classes, and the scheme {scheme.name!r} has {len(scheme)}; give the parser the "
                "attribute scheme, a RegionScheme that names its classes."
            )
        return answer

    return checked


# -- label files ---------------------------------------------------------------------------------------


def _of_files(folder: Path, sources: Sequence[FaceSource]) -> Labels:
    labels = [_on_crop(_label_file(folder, source.path), source) for source in sources]
    return torch.stack(labels), CELEBAMASK_HQ, f"label files of {folder.name}, classes of {CELEBAMASK_HQ.name}"


def _label_file(folder: Path, picture: Path) -> Path:
    names = [f"{picture.stem}{suffix}{ending}" for suffix in ("_labels", "") for ending in LABEL_FILES]
    found = [folder / name for name in names if (folder / name).is_file() and (folder / name) != picture]
    if not found:
        raise CaptumLeamError(
            f"{folder}: there is no label file of {picture.name} ({names[0]}, {picture.stem}.npy, …)."
        )
    return found[0]


def _on_crop(path: Path, source: FaceSource) -> Tensor:
    labels = read_labels(path, CELEBAMASK_HQ)
    size = tuple(source.crop.shape[-2:])
    if source.face is not None and tuple(labels.shape) == source.face.photo_size and tuple(labels.shape) != size:
        return source.face.to_crop(labels, outside=CELEBAMASK_HQ.index("background"))
    if tuple(labels.shape) != size:
        photo = "" if source.face is None else f", the photograph {source.face.photo_size}"
        raise CaptumLeamError(f"{path}: labels of (H, W) = {tuple(labels.shape)}; the crop is {size}{photo}.")
    return labels
