"""Label faces by the name of a method: template, network, callable, label files or superpixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_leam._engine.memory import is_out_of_memory
from captum_leam._loading import import_object
from captum_leam.errors import CaptumLeamError
from captum_leam.faces.sources import FaceSource
from captum_leam.regions.label_files import LABEL_FILES, read_labels
from captum_leam.regions.parsers import FacexlibParser, parse_on_photo
from captum_leam.regions.report import parse
from captum_leam.regions.scheme import CELEBAMASK_HQ, RegionScheme
from captum_leam.regions.superpixels import superpixels
from captum_leam.regions.template import TemplateParser

Labels = tuple[Tensor, RegionScheme, str]
"""Label maps, their scheme and a description of their source."""

NAMES = (
    "template, bisenet, parsenet, superpixels, FILE.py:callable, package.module:callable, or a folder of label files"
)

MOUTH = ["mouth", "upper_lip", "lower_lip"]


@dataclass(frozen=True)
class FaceRegions:
    """Label maps of faces with the names of their labels.

    :func:`label_faces` returns it. Pass ``labels`` and ``scheme`` to :func:`region_report`.

    Example:
        >>> from captum_leam.regions import COARSE
        >>> labels = torch.full((2, 112, 112), COARSE.index("nose"))
        >>> regions = FaceRegions(labels, COARSE, source="painted by hand")
        >>> regions.scheme.mask(regions.labels, "nose").all().item()
        True
    """

    labels: Tensor = field(repr=False)
    """Label maps of shape (N, h, w), int64."""
    scheme: RegionScheme
    """Scheme of the labels, in which left and right are merged, and lips with the mouth."""
    source: str
    """Description of the parser or the files, as reports show it."""
    is_comparable: bool = True
    """Whether a region is the same part of every face, which superpixels are not."""


def label_faces(
    where: str,
    sources: Sequence[FaceSource],
    images: Tensor,
    *,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
) -> FaceRegions:
    """Label the regions of faces by a method that is chosen by its name.

    Use it if the method comes from a configuration or the command line.

    Args:
        where: Method of labelling:

            * ``"template"``: the usual places of regions on a standard crop;
            * ``"bisenet"`` or ``"parsenet"``: a network of facexlib, on the photograph around the face if there is one;
            * ``"superpixels"``: segments of similar colour;
            * ``"FILE.py:name"`` or ``"package.module:name"``: a parser as for :func:`parse`, or a class or function without arguments that
              returns one. Its scheme is its attribute ``scheme``, by default ``CELEBAMASK_HQ``;
            * the path of a folder with a label file ``<name of the picture>.png``, ``…_labels.png`` or ``….npy`` for each face, in the
              labels of ``CELEBAMASK_HQ``, on the crop or on the photograph.
        sources: Faces with their files.
        images: Crops of the faces, shape (N, 3, h, w), in [0, 1].
        weights: Path of the weights of BiSeNet or ParseNet, a file or a folder. Default: where :class:`FacexlibParser` finds them.
        device: Device of the parser. Default: that of the parser.

    Returns:
        Label maps with their scheme.

    Raises:
        CaptumLeamError: If the method is unknown, or the parser or a label file fails.

    See Also:
        * :class:`~captum_leam.regions.TemplateParser`: Regions of the method ``"template"``.
        * :class:`~captum_leam.regions.FacexlibParser`: Regions of ``"bisenet"`` and ``"parsenet"``.

    Example:
        >>> source = FaceSource(Path("ann.png"), torch.zeros(3, 112, 96))
        >>> regions = label_faces("template", [source], source.crop[None])
        >>> regions.labels.shape, regions.scheme.names[:3]
        (torch.Size([1, 112, 96]), ('background', 'outline', 'forehead'))
    """
    if where == "template":
        labels, scheme, source = _template_labels(images)
    elif where in ("bisenet", "parsenet"):
        labels, scheme, source = _facexlib_labels(where, sources, images, weights, device)
    elif where == "superpixels":
        labels, scheme = superpixels(images.cpu())
        return FaceRegions(labels, scheme, "superpixels (SLIC), by colour in each picture", is_comparable=False)
    elif Path(where).is_dir():
        labels, scheme, source = _file_labels(Path(where), sources)
    elif ":" in where:
        labels, scheme, source = _callable_labels(where, images, device)
    else:
        raise CaptumLeamError(f"Expected regions to be {NAMES}, got {where!r}.")
    scheme = scheme.merge_sides()
    if all(region in scheme.names for region in MOUTH):
        scheme = scheme.merge({"mouth": MOUTH})
    return FaceRegions(labels.cpu(), scheme, source)


def _template_labels(images: Tensor) -> Labels:
    height, width = images.shape[-2:]
    try:
        parser = TemplateParser.from_size((height, width))
    except CaptumLeamError as error:
        raise CaptumLeamError(f"{error} Without a template, regions need a parser: {NAMES}.") from None
    shape = "" if height == width else f" of {parser.size[0]} × {parser.size[1]}"
    return parser(images), parser.scheme, f"TemplateParser, the standard crop{shape}"


def _facexlib_labels(
    network: Any, sources: Sequence[FaceSource], images: Tensor, weights: str | Path | None, device: Any
) -> Labels:
    parser = FacexlibParser(network, weights=weights, device=device)
    labels = [
        parse(parser, image[None].cpu())[0]
        if source.face is None or source.photo is None
        else parse_on_photo(parser, source.photo, source.face)
        for source, image in zip(sources, images, strict=True)
    ]
    return torch.stack(labels), parser.scheme, repr(parser)


def _callable_labels(where: str, images: Tensor, device: Any) -> Labels:
    parser = import_object(where)
    if not callable(parser):
        raise CaptumLeamError(
            f"Expected {where} to be a parser from images (N, 3, h, w) to label maps, got a {type(parser).__name__}."
        )
    scheme = getattr(parser, "scheme", CELEBAMASK_HQ)
    if not isinstance(scheme, RegionScheme):
        raise CaptumLeamError(f"Expected the scheme of {where} to be a RegionScheme, got a {type(scheme).__name__}.")
    if isinstance(parser, nn.Module):
        parser = parser.eval().to(device or "cpu")
    try:
        labels = parse(_with_class_check(parser, scheme), images)
    except (ValueError, TypeError) as error:
        raise CaptumLeamError(f"{where}: {error}") from None
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise CaptumLeamError(f"{where} raised {type(error).__name__}: {str(error).splitlines()[0]}") from error
    return labels, scheme, f"{where}, classes of {scheme.name}"


def _with_class_check(parser: Callable[[Tensor], Tensor], scheme: RegionScheme) -> Callable[[Tensor], Tensor]:
    """Return a parser that raises if the number of classes in its scores differs from that of the scheme."""

    def parse_and_check(images: Tensor) -> Tensor:
        output = parser(images)
        is_score = isinstance(output, Tensor) and output.is_floating_point() and output.ndim == 4
        if is_score and scheme.labels != tuple(range(output.shape[1])):
            raise CaptumLeamError(
                f"Expected scores of the {len(scheme)} classes of scheme {scheme.name!r}, got scores of {output.shape[1]} classes. Give "
                "the parser an attribute `scheme`, a RegionScheme that names its classes."
            )
        return output

    return parse_and_check


# -- label files ---------------------------------------------------------------------------------------


def _file_labels(folder: Path, sources: Sequence[FaceSource]) -> Labels:
    labels = [_crop_labels(_label_file(folder, source.path), source) for source in sources]
    return torch.stack(labels), CELEBAMASK_HQ, f"label files of {folder.name}, classes of {CELEBAMASK_HQ.name}"


def _label_file(folder: Path, picture: Path) -> Path:
    names = [f"{picture.stem}{end}{suffix}" for end in ("_labels", "") for suffix in LABEL_FILES]
    paths = [folder / name for name in names if (folder / name).is_file() and (folder / name) != picture]
    if not paths:
        raise CaptumLeamError(
            f"{folder}: expected a label file for {picture.name}, such as {names[0]} or {picture.stem}.npy, got none."
        )
    return paths[0]


def _crop_labels(path: Path, source: FaceSource) -> Tensor:
    labels = read_labels(path, CELEBAMASK_HQ)
    shape, size = tuple(labels.shape), tuple(source.crop.shape[-2:])
    if source.face is not None and shape == source.face.photo_size and shape != size:
        return source.face.to_crop(labels, outside=CELEBAMASK_HQ.index("background"))
    if shape != size:
        photo = "" if source.face is None else f" or that of the photograph, {source.face.photo_size}"
        raise CaptumLeamError(f"{path}: expected labels of the size of the crop, {size}{photo}, got {shape}.")
    return labels
