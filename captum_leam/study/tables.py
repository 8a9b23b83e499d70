"""Write all tables and maps of a study from its shards."""

from pathlib import Path
from typing import Any

from captum_leam.reporting.tables import GROUP_PREFIX
from captum_leam.study.assembling import (
    group_rows,
    picture_rows,
    verification_rows,
    write_mean_maps,
    write_measurements,
    write_person_maps,
    write_small,
)
from captum_leam.study.plan import Plan


def write_tables(plan: Plan, out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write the folders ``tables`` and ``maps``; the same shards always give the same bytes.

    Args:
        plan: The study, whose shards are all there.
        out: Folder of results.

    Returns:
        Rows of the tables ``images`` and ``skipped``.
    """
    shards, folder = plan.study_shards(), out / "tables"
    folder.mkdir(exist_ok=True)
    images, skipped = picture_rows(shards)
    means = write_measurements(shards, folder)
    verification, cosines = verification_rows(shards)
    rows = {
        "images": images,
        "skipped": skipped,
        "verification": verification,
        "cosines": cosines,
        "layers": _layer_rows(plan),
        "patterns": plan.rows("patterns"),
        "agreement": plan.rows("model_agreement", "layer_agreement"),
        "groups": group_rows(shards, means),
    }
    write_small(folder, rows, tuple(f"{GROUP_PREFIX}{label}" for label in plan.listing.labels))
    write_mean_maps(shards, out / "maps")
    write_person_maps(shards, out / "maps" / "people")
    return images, skipped


def _layer_rows(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "model": network.name,
            "layer": layer.name,
            "channels": layer.shape[0],
            "height": layer.shape[1],
            "width": layer.shape[2],
            "in_overall": layer.in_overall,
            "field": ", ".join(map(str, network.field)),
        }
        for network in plan.networks
        for layer in network.layers
    ]
