"""Machine-readable result of an explanation, ``explanation.json``, and its schema."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_leam._optional import pd
from captum_leam._storage import file_sha256
from captum_leam._version import __version__
from captum_leam.match import MatchExplanation
from captum_leam.pairs import PairExplanation

if TYPE_CHECKING:
    from captum_leam.reporting.explanation import Explanation

MEAN_DROPS = ["method", "control", "fill", "fraction", "drop", "low", "high", "images"]
"""Columns of the mean drops over the faces."""

FORMAT_VERSION = 1
"""Version of the format, which grows with each change that an older reader would misunderstand."""


def explanation_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of ``explanation.json``.

    Example:
        >>> explanation_schema()["properties"]["format_version"]
        {'const': 1}
    """
    text = files("captum_leam.reporting").joinpath("explanation.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def explanation_record(
    explanation: Explanation,
    *,
    settings: Mapping[str, Any] | None = None,
    map_files: Sequence[Mapping[str, str]] = (),
    table_files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return an explanation as a dictionary for JSON, with None in place of unknown values and NaN.

    Args:
        explanation: Explanation.
        settings: Further settings by name, beside those of the explanation. Default: none.
        map_files: File names by kind of picture, for each face. Default: none.
        table_files: File names by kind of table. Default: none.

    Returns:
        Dictionary that is valid under :func:`explanation_schema`.

    Example:
        >>> from captum_leam import suggest_layers
        >>> from captum_leam.regions import TemplateParser
        >>> from captum_leam.reporting import ExplainOptions, explain_images, explanation_record
        >>> from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation
        >>> model, faces, parser = EmbeddingNet().eval(), SyntheticPopulation(2).sample(1).images, TemplateParser()
        >>> layers, options = suggest_layers(model, faces), ExplainOptions(preset="fast", n_steps=1)
        >>> found = explain_images(model, faces, ["ann", "bob"], layers, parser(faces), parser.scheme, options=options)
        >>> record = explanation_record(found)
        >>> [face["name"] for face in record["faces"]], record["decision"]
        (['ann', 'bob'], None)
    """
    named = list(map_files) or [{} for _ in explanation.names]
    occlusion = explanation.occlusion
    columns = ["method", "control", "fill", "fraction", "drop", "changed"]
    drops = pd.DataFrame(columns=["image", *columns]) if occlusion is None else occlusion.to_frame()
    regions = explanation.regions
    faces = []
    for i, name in enumerate(explanation.names):
        faces.append(
            {
                "name": name,
                "sha256": explanation.hashes.get("images", {}).get(name),
                "crop_sha256": tensor_sha256(explanation.images[i]),
                "maps": dict(named[i]),
                "regions": _records(regions[regions["image"] == i].drop(columns="image")),
                "drops": _records(drops.loc[drops["image"] == i, columns]),
                "certainty": None if explanation.certainty is None else explanation.certainty.to_dict(i),
            }
        )
    record = {
        "format": "captum-leam explanation",
        "format_version": FORMAT_VERSION,
        "captum_leam": __version__,
        "title": explanation.title,
        "reference": explanation.label,
        "model": {"name": explanation.source.get("model"), **explanation.hashes.get("model", {})},
        "decision": None if explanation.pair is None else _decision(explanation.pair),
        "identification": None if explanation.match is None else _identification(explanation.match, explanation.names),
        "faces": faces,
        "drops": _records(explanation.mean_drops.reindex(columns=MEAN_DROPS)),
        "tables": dict(table_files or {}),
        "settings": {
            "maps": asdict(explanation.maps),
            "options": {name: getattr(explanation.options, name) for name in ("fraction", "fill", "seed")},
            "source": explanation.source,
            "environment": dict(settings or {}),
        },
        "left_out": [{"file": str(error.path), "reason": error.reason} for error in explanation.skipped],
        "notes": list(explanation.notes),
    }
    plain: dict[str, Any] = _plain(record)
    return plain


def as_json(record: Mapping[str, Any]) -> str:
    r"""Return a record as JSON text that ends with a line break, with lone surrogates of file names escaped.

    Args:
        record: Values of JSON.

    Example:
        >>> as_json({"name": "é"})
        '{\n "name": "é"\n}\n'
    """
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _decision(pair: PairExplanation) -> dict[str, Any]:
    return {
        "score": pair.score,
        "threshold": pair.threshold,
        "margin": pair.margin,
        "accepted": pair.accepted,
        "same_person": pair.same_person,
        "outcome": pair.outcome,
        "sine_of_angle": pair.sine,
        "maps_describe_the_match": pair.reliable,
        "sentence": pair.sentence(),
    }


def _identification(match: MatchExplanation, names: Sequence[str]) -> dict[str, Any]:
    """Return the identification; rankings and changes have the columns of the tables beside the page, without the probe."""
    ranking, probes = match.to_frame(), []
    for i, name in enumerate(names):
        of_probe, changes = ranking[ranking["probe"] == i], match.changes[match.changes["probe"] == i]
        probes.append(
            {
                "name": name,
                "person": match.people[i] or None,
                "first": match.first[i],
                "next": match.next[i],
                "score": float(match.scores[i].amax()),
                "margin": float(match.margins[i]),
                "accepted": match.accepted[i],
                "sentence": match.sentence(i),
                "ranking": _records(of_probe[["rank", "name", "images", "score", "behind"]]),
                "changes": _records(changes.drop(columns=["probe", "person"])),
            }
        )
    return {
        "names": len(match.gallery.names),
        "images": sum(match.gallery.images),
        "threshold": match.threshold,
        "contrasted": match.candidates,
        "fraction": match.fraction,
        "fill": match.fill,
        "probes": probes,
    }


# -- hashes --------------------------------------------------------------------------------------------


def hashes_of(model: nn.Module, where: str, images: Mapping[str, Path]) -> dict[str, Any]:
    """Return the SHA-256 of the model's file and parameters, and of the files of images, by name.

    Args:
        model: Model.
        where: Name that the model was loaded by.
        images: Name of an image → its file.

    Returns:
        Hashes of the ``"model"`` and of the ``"images"``; None for files that cannot be read.
    """
    file = Path(where if where.endswith(".onnx") else where.rpartition(":")[0])
    own = {"file_sha256": _sha256_or_none(file), "parameters_sha256": parameters_sha256(model)}
    return {"model": own, "images": {name: _sha256_or_none(path) for name, path in images.items()}}


def parameters_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of the names, shapes, types and values of all parameters and buffers.

    Args:
        model: Model.

    Example:
        >>> parameters_sha256(nn.Identity()) == hashlib.sha256().hexdigest()
        True
    """
    digest = hashlib.sha256()
    for name, values in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(_bytes(values))
    return digest.hexdigest()


def tensor_sha256(values: Tensor) -> str:
    """Return the SHA-256 of the values of a tensor in their type and the order of the axes.

    Args:
        values: Tensor.

    Example:
        >>> x = torch.arange(6.0).view(2, 3)
        >>> tensor_sha256(x) == tensor_sha256(x.T.contiguous().T), tensor_sha256(x) == tensor_sha256(x + 1)
        (True, False)
    """
    return hashlib.sha256(_bytes(values)).hexdigest()


def _bytes(values: Tensor) -> bytes:
    plain = values.detach().cpu().contiguous()
    if plain.is_quantized:
        plain = plain.int_repr()
    return bytes(plain.reshape(-1).view(torch.uint8).numpy())


def _sha256_or_none(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None


# -- plain values --------------------------------------------------------------------------------------


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    """Return values of JSON; values of other types become their text, and numbers that are not finite None."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value)
