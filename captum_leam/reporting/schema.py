"""Schema of the tables of a study, ``results/tables/*.parquet``, with the meaning of each column.

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
All tables are always there; without group labels ``groups`` has no rows.
"""

import re
from dataclasses import dataclass
from textwrap import indent
from typing import TYPE_CHECKING

from captum_leam._optional import import_optional
from captum_leam.errors import CaptumLeamError

if TYPE_CHECKING:
    import pyarrow as pa

OVERALL = "overall"
"""Name of the overall map in the column ``layer``."""

DEFAULT_TITLE = "Study"
"""Title of a study whose configuration gives none."""

GROUP_PREFIX = "group_"
"""Prefix of the columns of ``images`` with group labels, which ends with the name of the label in the configuration."""

_CELL = """\
  explained  string   model whose maps say what is occluded; empty for controls that are made without one
  layer      string   overall, or a layer; empty for controls that are made without a map
  measured   string   model whose cosine is taken
  method     string   LEAM; empty for controls that are made without a map
  control    string   empty for the map itself; else the control, those of a map (moved, other people) beside its method
  fill       string   what pixels were replaced with
  fraction   float64  share of the crop that was replaced"""

# a table and the meaning of its rows, then names, type and meaning of its columns; two spaces or more between them
SCHEMA = f"""
images: every picture of the study, used or not
  image        int32    number of the picture
  person       string   name of the person
  path         string   path of the file, relative to the folder of people or of the manifest, with /
  sha256       string   digest of the file; empty where it could not be read
  status       string   ok, or skipped
  reason       string   why it was skipped; empty for ok
  crop         string   crop, or photograph: how the picture was read
  faces_found  int32    faces found in the photograph, of which the largest was taken; -1 for a crop
  turn         int32    degrees counter-clockwise by which the photograph was turned to find the face upright; -1 for a crop
  group_NAME   string   value of the label NAME, one column for every label of people that the configuration names

skipped: everything that was left out, and why: pictures, other files and folders, single images of a model, whole models
  what    string   image, file, folder, model, layer or shard
  stage   string   read, verify, explain, patterns or groups
  model   string   the model that it concerns; empty for all
  layer   string   the layer that it concerns; empty for all
  image   int32    number of the picture; -1 for several or all
  person  string   the person; empty for several or all
  path    string   path of the file or folder, as in images; empty for several or all
  reason  string   why it was left out

verification: how well each model tells these people apart, before anything is explained; one row for every model
  model          string   name
  images         int32    images that it embedded
  people         int32    people with one such image or more
  genuine        int32    pairs of two images of one person that were compared
  impostor       int32    pairs of images of different people that were compared
  eer            float64  equal error rate, in [0, 1]
  eer_threshold  float64  cosine at which both errors are equal
  tar            float64  share of genuine pairs accepted at the false match rate fmr
  fmr            float64  least of 0.1, 0.01, 0.001, ... that these impostor pairs can show
  tar_1e3        float64  the same at a false match rate of 0.001; NaN for fewer than 1000 impostor pairs
  threshold_1e3  float64  cosine from which on pairs are accepted there
  separates      bool     eer is at most 0.2
  warning        string   what seems wrong; empty if nothing

cosines: the cosines that verification compared, counted in bins: one row for every model, kind of pair and bin
  model  string   name
  kind   string   genuine (two images of one person) or impostor (of two people)
  low    float64  where the bin begins, in [-1, 1]
  high   float64  where it ends
  pairs  int32    pairs with a cosine in [low, high), the last bin with 1, too

layers: the layers that were explained, fine to coarse
  model          string   name
  layer          string   name within the model
  channels       int32    channels of its activations
  height, width  int32    size in cells
  in_overall     bool     whether the overall map is made of it, too
  field          string   part of the crop that the network reads: top, left, height, width in pixels

scores: cosine of every image to its reference, the leave-one-out centroid of the person's other images
  model   string   name
  image   int32    number of the picture
  person  string   name of the person
  cosine  float64  cosine to the reference, in [-1, 1]

regions: which regions of the face the maps stand on: one row for every map and region
  model   string   explained model
  layer   string   overall, or a layer
  image   int32    number of the picture
  person  string   name of the person
  region  string   name, left and right merged
  share   float32  share of the critical pixels (the top fraction of the map), in [0, 1]
  mass    float32  share of the positive attribution, in [0, 1]
  area    float32  share of the pixels of the crop, in [0, 1]
  lift    float32  share / area; NaN where the image lacks the region

drops: fall of the cosine to the person's other images after occluding what a map names first
{_CELL}
  image      int32    number of the picture
  person     string   name of the person
  drop       float32  cosine before minus after; never divided by anything

region_summary: means of regions over people (each person counts once)
  model      string   explained model
  layer      string   overall, or a layer
  region     string   name
  quantity   string   share, mass, area or lift
  people     int32    people whose images have the region
  mean       float64  mean over people
  low, high  float64  ends of the interval

drop_summary: means of drops over images, with intervals over people
{_CELL}
  images, people  int32    number of them
  drop            float64  mean
  low, high       float64  ends of the interval

patterns: are maps person-specific? Bhattacharyya coefficients of same and different people, LEAM and controls
  model                          string   explained model
  layer                          string   overall, or a layer
  kind                           string   top (top fraction of the pixels), dense (whole map, coarse grid) or regions (profile)
  control                        string   empty for LEAM; else the control: edges, untrained, parser, pose
  fraction                       float64  share of the pixels kept; 1 for dense and regions
  images, people                 int32    number of those compared
  same                           float64  mean coefficient of two images of one person, in [0, 1]
  same_low, same_high            float64  ends of its interval
  different                      float64  mean coefficient of images of different people, in [0, 1]
  different_low, different_high  float64  ends of its interval
  auc                            float64  area under the ROC curve of the coefficient, same or different people, in [0, 1]; 0.5 is chance
  auc_low, auc_high              float64  ends of its interval
  gap                            float64  same - different
  gap_low, gap_high              float64  ends of its interval
  p                              float64  p-value of a permutation of the person labels, in (0, 1]
  strongest                      string   of LEAM: the control with the largest gap; empty for controls, and where there are none
  above_control                  float64  of LEAM: gap minus that of the strongest control; the headline
  above_low, above_high          float64  ends of its interval, over the same people

agreement: do models, and do layers of one model, look at the same places? Mean over images of the similarity of two maps of one image
  what       string   models, or layers
  kind       string   maps (Bhattacharyya coefficient of dense maps) or regions (of profiles over regions)
  model      string   of layers: the model; empty for models
  layer      string   of models: overall; empty for layers
  a, b       string   model, or layer
  value      float64  mean over images, in [0, 1]
  low, high  float64  ends of the interval
  chance     float64  mean where the two maps are of different people: what a shared shape of faces alone gives

groups: differences between groups of people, from labels that the user gave
  label               string   which label
  group_a, group_b    string   value of the label
  quantity            string   what is compared, e.g. drop, lift of nose
  model               string   name
  value_a, value_b    float64  mean over the people of each group
  difference          float64  value_a - value_b
  low, high           float64  ends of the interval
  p                   float64  p-value of a permutation of the group labels over people
  p_holm              float64  p-value adjusted for all comparisons of the table (Holm)
  people_a, people_b  int32    people in each group
  base_a, base_b      float64  mean cosine to the reference in each group: a difference of drops must be read beside it
  note                string   why a comparison is missing or to be read with care; empty if neither
"""
__doc__ = f"{__doc__}\nThe tables, their columns, and what these hold::\n{indent(SCHEMA, '    ')}"


@dataclass(frozen=True)
class TableColumn:
    """Column of a table of a study.

    Attributes:
        name: Name of the column.
        kind: Type of its values: ``"string"``, ``"bool"``, ``"int32"``, ``"float32"`` or ``"float64"``.
        meaning: Meaning of its values, with unit and range.

    Example:
        >>> cosine = TABLES["scores"].columns[-1]
        >>> print(cosine.name, "|", cosine.kind, "|", cosine.meaning)
        cosine | float64 | cosine to the reference, in [-1, 1]
    """

    name: str
    kind: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """Description of one table that a study writes: its file, its rows and its columns.

    :data:`TABLES` has the description of every table. Read the table itself with :meth:`StudyResult.table
    <captum_leam.study.StudyResult.table>`.

    Attributes:
        name: Name of the table, and of its file ``tables/NAME.parquet``.
        meaning: What one row of the table describes.
        columns: Columns, a tuple of :class:`TableColumn` in the order of the file.
        grows: Whether a study adds a text column for each group label. True for ``images`` only.

    Example:
        >>> table = TABLES["scores"]
        >>> table.names
        ['model', 'image', 'person', 'cosine']
        >>> table.columns[3].meaning
        'cosine to the reference, in [-1, 1]'
    """

    name: str
    meaning: str
    columns: tuple[TableColumn, ...]
    grows: bool

    @property
    def names(self) -> list[str]:
        """Names of the columns in the order of the file, a list of strings."""
        return [column.name for column in self.columns]

    def schema(self, more: tuple[str, ...] = ()) -> "pa.Schema":
        """Return the names and types of the columns as a PyArrow schema.

        Use it to write a table of the same form, or to check a table that you read.

        Args:
            more: Names of text columns to append, such as ``("group_age",)``. Only the table ``images`` has such columns, one per group
                label of the study. Default: ``()``, for none.

        Returns:
            PyArrow schema with one field per column, in the order of :attr:`columns`.

        Raises:
            CaptumLeamError: If ``more`` is not empty for a table that has no group labels.
            MissingExtraError: If pyarrow is not installed.

        Example:
            >>> print(TABLES["scores"].schema())
            model: string
            image: int32
            person: string
            cosine: double
        """
        pa = import_optional("pyarrow")

        if more and not self.grows:
            raise CaptumLeamError(
                f"Expected `more` to be empty, because the table {self.name!r} has the columns {self.names} only, got {list(more)}. "
                f"Further columns are possible in {', '.join(name for name, table in TABLES.items() if table.grows)}."
            )
        kinds = [(column.name, column.kind) for column in self.columns] + [(name, "string") for name in more]
        return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in kinds])


def _tables(schema: str) -> dict[str, Table]:
    r"""Return the tables of a schema by name.

    Example:
        >>> _tables("faces: every face\n  width, height  int32  size in pixels")["faces"].names
        ['width', 'height']
    """
    tables = {}
    for block in schema.strip().split("\n\n"):
        head, *lines = block.splitlines()
        name, _, meaning = head.partition(": ")
        columns = []
        for line in lines:
            names, kind, text = re.split("  +", line.strip(), maxsplit=2)
            columns += [TableColumn(column, kind, text) for column in names.split(", ")]
        fixed = tuple(column for column in columns if column.name != f"{GROUP_PREFIX}NAME")
        tables[name] = Table(name, meaning, fixed, grows=len(fixed) < len(columns))
    return tables


TABLES = _tables(SCHEMA)
"""Tables by name."""
