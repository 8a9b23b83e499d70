"""captum-leam: which parts of this person's face does the model recognise, and is that explanation true?

LEAM (Layer Embedding Activation Mapping) as a Captum layer attribution for embedding-similarity objectives,
face-region reports and occlusion-based faithfulness. Public names load lazily: importing the package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from captum_leam._version import __version__

if TYPE_CHECKING:
    from captum_leam._engine.memory import TooLargeError
    from captum_leam.certainty import MapCertainty, map_certainty
    from captum_leam.errors import CaptumLeamError
    from captum_leam.explain import explain_faces, layer_maps
    from captum_leam.leam import LEAM
    from captum_leam.maps import bhattacharyya, overall_map, top_fraction
    from captum_leam.match import MatchExplanation, explain_match
    from captum_leam.objectives import EmbeddingSimilarity, leave_one_out_centroids
    from captum_leam.pairs import PairExplanation, explain_pair
    from captum_leam.suggest import LayerSuggestions, suggest_layers

_WHERE = {
    "CaptumLeamError": "errors",
    "LEAM": "leam",
    "EmbeddingSimilarity": "objectives",
    "LayerSuggestions": "suggest",
    "MapCertainty": "certainty",
    "MatchExplanation": "match",
    "PairExplanation": "pairs",
    "TooLargeError": "_engine.memory",
    "bhattacharyya": "maps",
    "explain_faces": "explain",
    "explain_match": "match",
    "explain_pair": "pairs",
    "layer_maps": "explain",
    "leave_one_out_centroids": "objectives",
    "map_certainty": "certainty",
    "overall_map": "maps",
    "suggest_layers": "suggest",
    "top_fraction": "maps",
}

__all__ = [
    "LEAM",
    "CaptumLeamError",
    "EmbeddingSimilarity",
    "LayerSuggestions",
    "MapCertainty",
    "MatchExplanation",
    "PairExplanation",
    "TooLargeError",
    "__version__",
    "bhattacharyya",
    "explain_faces",
    "explain_match",
    "explain_pair",
    "layer_maps",
    "leave_one_out_centroids",
    "map_certainty",
    "overall_map",
    "suggest_layers",
    "top_fraction",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'captum_leam' has no attribute {name!r}")
    return getattr(import_module(f"captum_leam.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
