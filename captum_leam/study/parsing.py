"""The parser of a study: loaded, and identified by its code and by its labels of fixed images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_leam._loading import import_object
from captum_leam._neighbours import record_sources
from captum_leam.errors import ConfigError
from captum_leam.regions import CELEBAMASK_HQ, TEMPLATE, FacexlibParser, RegionScheme, TemplateParser, parse
from captum_leam.study.config import Config
from captum_leam.study.identity import (
    Fingerprint,
    Rows,
    as_known,
    code_of,
    fixed_images,
    named_file_sha256,
    outputs_of,
)

Parse = Callable[[Tensor], Tensor]

PARSER_TOLERANCE = 0.01
"""Relative distance of the shares and places of labels up to which two parsers are the same."""


@dataclass(frozen=True)
class LoadedParser:
    """The parser of a study.

    Attributes:
        parse: Images (N, 3, H, W) → labels (N, H, W).
        scheme: Scheme of its labels; left and right are one region in the tables.
        fingerprint: Its identity.
    """

    parse: Parse
    scheme: RegionScheme
    fingerprint: Fingerprint

    @property
    def regions(self) -> tuple[tuple[int, str], ...]:
        """Labels and names of the regions of the tables."""
        merged = self.scheme.merge_sides()
        return tuple(zip(merged.labels, merged.names, strict=True))


def load_parser(config: Config, earlier: Iterable[Fingerprint] = ()) -> LoadedParser:
    """Load the parser that the configuration names, and identify it.

    Args:
        config: Configuration of the study.
        earlier: Identities of the same study; the first that agrees is kept. Default: none.

    Raises:
        ConfigError: If it cannot be loaded, or if two passes over the same image differ.
    """
    try:
        with record_sources() as sources:
            parser, scheme = _make_parser(config)
            outputs: Rows = ()
            if not isinstance(parser, TemplateParser):  # it is the package's own code and ignores the images
                images = fixed_images(config.pictures.size).to(config.device)
                outputs = outputs_of(
                    lambda some: _shares(parse(parser, some.clone()), scheme), images, PARSER_TOLERANCE
                )
        named = [config.parser.where.rpartition("/")[2], repr(scheme.regions), getattr(parser, "sha256", "")]
        code = code_of(parser, [*sources.values(), *named_file_sha256(config.parser.where)], named)
    except ImportError:
        raise
    except Exception as error:
        raise ConfigError(f"parser: {error}") from error
    return LoadedParser(parser, scheme, as_known(Fingerprint(code, outputs, PARSER_TOLERANCE), earlier))


def _shares(labels: Tensor, scheme: RegionScheme) -> Tensor:
    """Describe label maps by numbers (n, 3 L): the share of every label, and where its pixels lie."""
    masks = torch.stack([labels == label for label in scheme.labels], 1).double()
    down, across = (torch.linspace(0, 1, side, device=labels.device, dtype=torch.float64) for side in labels.shape[1:])
    features = [masks, masks * down[:, None], masks * across]
    return torch.cat([feature.mean((2, 3)) for feature in features], 1)


def _make_parser(config: Config) -> tuple[Parse, RegionScheme]:
    parser = config.parser
    if parser.where == "template":
        template = TemplateParser()
        return template, template.scheme
    if parser.where in ("bisenet", "parsenet"):
        facexlib = FacexlibParser(parser.where, weights=parser.weights, device=config.device)  # type: ignore[arg-type]
        return facexlib, facexlib.scheme
    loaded = import_object(parser.where)
    if isinstance(loaded, nn.Module):
        loaded = loaded.eval().to(config.device)
    if not callable(loaded):
        raise ConfigError(
            f"Expected {parser.where} to return a callable from images to labels, got a {type(loaded).__name__}."
        )
    named = CELEBAMASK_HQ if parser.scheme == "celebamask_hq" else TEMPLATE
    return loaded, getattr(loaded, "scheme", named)
