"""Results that are shown as a page, as text or in a notebook's cell."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from captum_leam.regions import RegionScheme

FRAME = 'style="width:100%;height:52rem;border:1px solid #8888;border-radius:4px"'
"""Attributes of the frame that shows a page in a notebook."""


def framed(title: str, page: str) -> str:
    """Return a frame with a page in it, which notebooks show.

    Args:
        title: Title of the frame.
        page: Page as HTML.

    Example:
        >>> framed("a & b", "<p>").partition(" sandbox")[0]
        '<iframe title="a &amp; b" srcdoc="&lt;p&gt;"'
    """
    return f'<iframe title="{escape(title)}" srcdoc="{escape(page)}" sandbox="allow-scripts allow-downloads" {FRAME}></iframe>'


class HtmlResult:
    """A result with a page that needs no model: maps and regions to explore, without drops.

    The page is made by :mod:`captum_leam.reporting`, which imports the results and is imported here when a page is asked for.
    """

    def to_html(
        self,
        *,
        title: str = "",
        lead: str = "",
        names: Sequence[str] | None = None,
        labels: Tensor | None = None,
        scheme: RegionScheme | None = None,
    ) -> str:
        """Return the page of this result, one self-contained file that asks nothing of any network.

        Args:
            title: Title of the page. Default: the names of the faces.
            lead: Sentence under the title. Default: the label of the reference.
            names: Name of each face. Default: "a" and "b" for a pair, "probe 0" and so on for probes.
            labels: Region labels, shape (N, H, W) or (H, W). Default: those of the template, or superpixels where the size of the
                faces has no template.
            scheme: Names of the labels, given with them.

        Raises:
            NoEvidenceError: For a face without evidence for the match.
            CaptumLeamError: For another number of names than of faces, and labels without a scheme or of another size.
        """
        explanation = import_module("captum_leam.reporting.explanation").explanation_of(
            self, names=names, labels=labels, scheme=scheme
        )
        page: str = explanation.to_html(title=title, lead=lead)
        return page

    def _repr_html_(self) -> str:
        """Return the page in a frame, which notebooks show."""
        return framed("explanation", self.to_html())
