"""Schema of a study's tables: what every column of ``results/tables/*.parquet`` means.

A results folder::

    results/
      manifest.json        configuration, versions, hashes, seeds, hardware, durations, what was skipped and why
      tables/NAME.parquet  the tables below
      maps/mean.npz        mean overall and layer maps, key "MODEL/LAYER" ("MODEL/overall"), float32 (H, W), each sums to 1
      maps/people/         float16 maps of single images, where the configuration asks for them
      work/                shards; may be deleted once the study is done, and is needed to resume or to check it

Common columns: ``image`` numbers the pictures of the study from 0, sorted by person and path (the row of ``images``); ``person`` is the
person's name; ``model``, ``explained`` and ``measured`` are names of models in the configuration; ``layer`` is the name of a layer, or
``"overall"`` for the overall map. Intervals (``low``, ``high``) are bootstraps over people, at 95 % unless the manifest says otherwise.
A number that cannot be known is NaN, a text that does not apply is ``""``. Rows are in a fixed order: the same study gives the same bytes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from captum_leam.errors import CaptumLeamError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["int32", "float32", "float64", "string", "bool"]

OVERALL = "overall"
"""Name of the overall map in the column ``layer``."""

DEFAULT_TITLE = "Study"
"""Title of a study whose configuration gives none."""

GROUP_PREFIX = "group_"
"""Columns of ``images`` that the user's group labels go to: ``group_`` and the name that the label has in the configuration."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Name of the column.
        kind: Type of its values.
        meaning: What it holds, with units and range.
    """

    name: str
    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: Name of the file ``tables/NAME.parquet``.
        meaning: What a row is.
        columns: Columns, in order.
        grows: Whether a study may append string columns, ``group_*`` of ``images``.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    grows: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the columns, in order."""
        return [column.name for column in self.columns]

    def schema(self, more: tuple[str, ...] = ()) -> "pa.Schema":
        """Return the types of the columns for Parquet.

        Args:
            more: Names of further string columns.

        Raises:
            CaptumLeamError: For more columns of a table that does not grow.

        Example:
            >>> TABLES["scores"].schema().names
            ['model', 'image', 'person', 'cosine']
        """
        import pyarrow as pa

        if more and not self.grows:
            raise CaptumLeamError(f"Expected no further columns of the table {self.name!r}, got {list(more)}.")
        kinds = {"int32": pa.int32(), "float32": pa.float32(), "float64": pa.float64(), "string": pa.string()}
        fields = [(column.name, kinds.get(column.kind, pa.bool_())) for column in self.columns]
        return pa.schema([*fields, *[(name, pa.string()) for name in more]])


def _table(name: str, meaning: str, *columns: tuple[str, Kind, str], grows: bool = False) -> Table:
    return Table(name, meaning, tuple(Column(*column) for column in columns), grows)


_IMAGE: tuple[tuple[str, Kind, str], ...] = (
    ("image", "int32", "number of the picture"),
    ("person", "string", "who is on it"),
)

IMAGES = _table(
    "images",
    "every picture of the study, used or not; behind these columns one group_NAME column for every label of people",
    *_IMAGE,
    ("path", "string", "of the file, relative to the folder of people or of the manifest, with /"),
    ("sha256", "string", "of the bytes of the file; empty where it could not be read"),
    ("status", "string", "ok, or skipped"),
    ("reason", "string", "why it was skipped, in words; empty for ok"),
    ("crop", "string", "crop, or photograph: how the picture was read"),
    ("faces_found", "int32", "faces found in the photograph, of which the largest was taken; -1 for a crop"),
    (
        "turn",
        "int32",
        "degrees counter-clockwise by which the photograph was turned to find the face upright; -1 for a crop",
    ),
    grows=True,
)
SKIPPED = _table(
    "skipped",
    "everything that was left out, and why: pictures, other files and folders, single images of a model, whole models",
    ("what", "string", "image, file, folder, model, layer or shard"),
    ("stage", "string", "read, verify, explain, patterns or groups"),
    ("model", "string", "the model that it concerns; empty for all"),
    ("layer", "string", "the layer that it concerns; empty for all"),
    ("image", "int32", "number of the picture; -1 for several or all"),
    ("person", "string", "the person; empty for several or all"),
    ("path", "string", "of the file or folder, as in images; empty for several or all"),
    ("reason", "string", "in words"),
)
VERIFICATION = _table(
    "verification",
    "how well each model tells these people apart, before anything is explained; one row for every model",
    ("model", "string", "name"),
    ("images", "int32", "that it embedded"),
    ("people", "int32", "with one such image or more"),
    ("genuine", "int32", "pairs of two images of one person that were compared"),
    ("impostor", "int32", "pairs of images of different people that were compared"),
    ("eer", "float64", "equal error rate, in [0, 1]"),
    ("eer_threshold", "float64", "cosine at which both errors are equal"),
    ("tar", "float64", "share of genuine pairs accepted at the false match rate fmr"),
    ("fmr", "float64", "least of 0.1, 0.01, 0.001, ... that these impostor pairs can show"),
    ("tar_1e3", "float64", "the same at a false match rate of 0.001; NaN for fewer than 1000 impostor pairs"),
    ("threshold_1e3", "float64", "cosine from which on pairs are accepted there"),
    ("separates", "bool", "eer is at most 0.2"),
    ("warning", "string", "what seems wrong, in words; empty if nothing"),
)
COSINES = _table(
    "cosines",
    "the cosines that verification compared, counted in bins: one row for every model, kind of pair and bin",
    ("model", "string", "name"),
    ("kind", "string", "genuine (two images of one person) or impostor (of two people)"),
    ("low", "float64", "where the bin begins, in [-1, 1]"),
    ("high", "float64", "where it ends"),
    ("pairs", "int32", "with a cosine in [low, high), the last bin with 1, too"),
)
LAYERS = _table(
    "layers",
    "the layers that were explained, fine to coarse",
    ("model", "string", "name"),
    ("layer", "string", "name within the model"),
    ("channels", "int32", "of its activations"),
    ("height", "int32", "in cells"),
    ("width", "int32", "in cells"),
    ("in_overall", "bool", "whether the overall map is made of it, too"),
    ("field", "string", "part of the crop that the network reads: top, left, height, width in pixels"),
)
SCORES = _table(
    "scores",
    "cosine of every image to its reference, the leave-one-out centroid of the person's other images",
    ("model", "string", "name"),
    *_IMAGE,
    ("cosine", "float64", "to the reference, in [-1, 1]"),
)
_MAP: tuple[tuple[str, Kind, str], ...] = (
    ("model", "string", "that is explained"),
    ("layer", "string", "overall, or a layer"),
)
_SHARES: tuple[tuple[str, Kind, str], ...] = (
    ("share", "float32", "of the critical pixels (the top fraction of the map), in [0, 1]"),
    ("mass", "float32", "share of the positive attribution, in [0, 1]"),
    ("area", "float32", "share of the pixels of the crop, in [0, 1]"),
    ("lift", "float32", "share / area; NaN where the image lacks the region"),
)
REGIONS = _table(
    "regions",
    "which regions of the face the maps stand on: one row for every map and region",
    *_MAP,
    *_IMAGE,
    ("region", "string", "name, left and right merged"),
    *_SHARES,
)
_CELL: tuple[tuple[str, Kind, str], ...] = (
    ("explained", "string", "model whose maps say what is occluded; empty for controls that are made without one"),
    ("layer", "string", "overall, or a layer; empty for controls that are made without a map"),
    ("measured", "string", "model whose cosine is taken"),
    ("method", "string", "LEAM; empty for controls that are made without a map"),
    (
        "control",
        "string",
        "empty for the map itself; else the control, those of a map (moved, other people) beside its method",
    ),
    ("fill", "string", "what pixels were replaced with"),
    ("fraction", "float64", "of the crop that was replaced"),
)
DROPS = _table(
    "drops",
    "fall of the cosine to the person's other images after occluding what a map names first",
    *_CELL,
    *_IMAGE,
    ("drop", "float32", "cosine before minus after; never divided by anything"),
)
_INTERVAL: tuple[tuple[str, Kind, str], ...] = (
    ("low", "float64", "end of the interval"),
    ("high", "float64", "end of the interval"),
)
REGION_SUMMARY = _table(
    "region_summary",
    "means of regions over people (each person counts once)",
    *_MAP,
    ("region", "string", "name"),
    ("quantity", "string", "share, mass, area or lift"),
    ("people", "int32", "that have the region"),
    ("mean", "float64", "over people"),
    *_INTERVAL,
)
DROP_SUMMARY = _table(
    "drop_summary",
    "means of drops over images, with intervals over people",
    *_CELL,
    ("images", "int32", "number of them"),
    ("people", "int32", "number of them"),
    ("drop", "float64", "mean"),
    *_INTERVAL,
)
PATTERNS = _table(
    "patterns",
    "are maps person-specific? Bhattacharyya coefficients of same and different people, LEAM and controls",
    *_MAP,
    (
        "kind",
        "string",
        "top (top fraction of the pixels), dense (the whole map, coarse grid) or regions (profile over regions)",
    ),
    ("control", "string", "empty for LEAM; else the control: edges, untrained, parser, pose"),
    ("fraction", "float64", "of the pixels kept; 1 for dense and regions"),
    ("images", "int32", "compared"),
    ("people", "int32", "compared"),
    ("same", "float64", "mean coefficient of two images of one person, in [0, 1]"),
    ("same_low", "float64", "end of its interval"),
    ("same_high", "float64", "end of its interval"),
    ("different", "float64", "mean coefficient of images of different people, in [0, 1]"),
    ("different_low", "float64", "end of its interval"),
    ("different_high", "float64", "end of its interval"),
    ("auc", "float64", "of the coefficient as a same-or-different classifier, in [0, 1]; 0.5 is chance"),
    ("auc_low", "float64", "end of its interval"),
    ("auc_high", "float64", "end of its interval"),
    ("gap", "float64", "same - different"),
    ("gap_low", "float64", "end of its interval"),
    ("gap_high", "float64", "end of its interval"),
    ("p", "float64", "of a permutation of the person labels, in (0, 1]"),
    ("strongest", "string", "of LEAM: the control with the largest gap; empty for controls, and where there are none"),
    ("above_control", "float64", "of LEAM: gap minus that of the strongest control; the headline"),
    ("above_low", "float64", "end of its interval, over the same people"),
    ("above_high", "float64", "end of its interval"),
)
AGREEMENT = _table(
    "agreement",
    "do models, and do layers of one model, look at the same places? Mean over images of the similarity of two maps of one image",
    ("what", "string", "models, or layers"),
    ("kind", "string", "maps (Bhattacharyya coefficient of dense maps) or regions (of profiles over regions)"),
    ("model", "string", "of layers: the model; empty for models"),
    ("layer", "string", "of models: overall; empty for layers"),
    ("a", "string", "model, or layer"),
    ("b", "string", "model, or layer"),
    ("value", "float64", "mean over images, in [0, 1]"),
    *_INTERVAL,
    ("chance", "float64", "mean where the two maps are of different people: what a shared shape of faces alone gives"),
)
GROUPS = _table(
    "groups",
    "differences between groups of people, from labels that the user gave",
    ("label", "string", "which label"),
    ("group_a", "string", "value of the label"),
    ("group_b", "string", "value of the label"),
    ("quantity", "string", "what is compared, e.g. drop, lift of nose"),
    ("model", "string", "name"),
    ("value_a", "float64", "mean over people of group a"),
    ("value_b", "float64", "mean over people of group b"),
    ("difference", "float64", "value_a - value_b"),
    *_INTERVAL,
    ("p", "float64", "of a permutation of the group labels over people"),
    ("p_holm", "float64", "adjusted for all comparisons of the table (Holm)"),
    ("people_a", "int32", "people in group a"),
    ("people_b", "int32", "people in group b"),
    ("base_a", "float64", "mean cosine to the reference in group a: a difference of drops must be read beside it"),
    ("base_b", "float64", "the same in group b"),
    ("note", "string", "why a comparison is missing or to be read with care; empty if neither"),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        IMAGES,
        SKIPPED,
        VERIFICATION,
        COSINES,
        LAYERS,
        SCORES,
        REGIONS,
        DROPS,
        REGION_SUMMARY,
        DROP_SUMMARY,
        PATTERNS,
        AGREEMENT,
        GROUPS,
    )
}
"""Every table by its name. All are always there; without group labels ``groups`` has no rows."""
