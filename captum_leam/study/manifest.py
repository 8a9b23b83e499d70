"""The manifest of a study: what its results are and how they were made."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from captum_leam._optional import pd
from captum_leam._storage import file_sha256
from captum_leam._stores import AnyPath, relative_path
from captum_leam.reporting.schema import TABLES
from captum_leam.study.evaluating import map_settings
from captum_leam.study.executor import Executor
from captum_leam.study.networks import notes_on
from captum_leam.study.plan import Plan, versions

FORMAT = 2


def manifest_of(plan: Plan, executor: Executor, images: pd.DataFrame, skipped: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the manifest of a finished run.

    Args:
        plan: What was done.
        executor: What did it.
        images: Table of images.
        skipped: Rows of the table of what was left out.
    """
    out = plan.config.out
    used = images.loc[images["status"] == "ok", "person"]
    maps = sorted(relative_path(path, out).as_posix() for path in (out / "maps").rglob("*.npz"))
    return {
        "format": FORMAT,
        "finished": True,
        "configuration": plan.config.to_dict(),
        "versions": versions(),
        "models": {
            network.name: {
                "where": network.model.where,
                **network.fingerprint.to_dict(),
                "parameters": network.parameters,
                "preprocessing": network.model.preprocessing,
                "layers": [layer.name for layer in network.layers],
                "field": list(network.field),
                "maps": map_settings(network, plan.config).to_dict() if network.layers else None,
            }
            for network in plan.networks
        },
        "data": {
            "pictures": len(plan.listing.pictures),
            "usable": len(used),
            "people": used.nunique(),
            "sha256": plan.listing.sha256,
        },
        "parser": plan.parser.fingerprint.to_dict(),
        "notes": notes_on(plan.networks),
        "seeds": {"study": plan.config.seed},
        "skipped": {
            "count": len(skipped),
            "of": dict(Counter(f"{row['stage']}: {row.get('model') or 'all'}" for row in skipped)),
            "reasons": skipped[:100],
        },
        "tables": _digests(out, (f"tables/{name}.parquet" for name in TABLES)),
        "maps": _digests(out, maps),
        "shards": dict(sorted(executor.digests.items())),
        "hardware": hardware(),
        "run": {
            "engine": executor.engine,
            "jobs": executor.jobs,
            "shards made": executor.new_shards,
            **executor.log.to_dict(),
            "seconds": {title: round(seconds, 3) for title, seconds in executor.seconds.items()},
        },
    }


def _digests(out: AnyPath, names: Iterable[str]) -> dict[str, str]:
    return {name: file_sha256(out / name) for name in names}


def hardware() -> dict[str, Any]:
    """Return the machine, its processor, memory and GPUs."""
    import torch

    machine: dict[str, Any] = {"machine": platform.machine(), "system": platform.platform(), "cores": os.cpu_count()}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        machine["processor"] = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        machine["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, StopIteration, ValueError):
        machine["processor"] = platform.processor()
    if torch.cuda.is_available():
        machine["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return machine
