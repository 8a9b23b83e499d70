"""The part of a model up to a layer: for models that divide their embeddings by their length at the end."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_leam._engine.recording import hooked
from captum_leam.errors import CaptumLeamError
from captum_leam.layers import get_layer


class UpTo(nn.Module):
    """A model whose embedding is what one of its layers puts out, for example the one before the division by the length.

    LEAM explains un-normalised embeddings: with the division inside, every norm would be that of the differentiated cosine, whose
    maps are less faithful. facenet-pytorch's InceptionResnetV1 divides: ``UpTo(model, "last_bn")`` is the same without.

    Args:
        model: it is held, not copied; its layers are hooked as before.
        layer: name of the layer whose output is the embedding, as in ``model.named_modules()``.

    Raises:
        CaptumLeamError: for a name that is not there; in ``forward`` if the layer does not run just once.

    Example:
        >>> import torch
        >>> class Normalised(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.head = nn.Linear(4, 2)
        ...     def forward(self, x):
        ...         return nn.functional.normalize(self.head(x))
        >>> model, x = Normalised().eval(), torch.rand(3, 4)
        >>> torch.equal(UpTo(model, "head")(x), model.head(x))
        True
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        super().__init__()
        get_layer(model, layer)
        self.model, self.layer = model, layer
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Return the layer's output for these images, (N, D)."""
        outputs: list[Any] = []
        layer = self.model.get_submodule(self.layer)
        with hooked([(layer, lambda module, args, output: outputs.append(output))]):
            self.model(images)
        if len(outputs) != 1:
            raise CaptumLeamError(
                f"layer {self.layer!r} ran {len(outputs)} times; expected one run, whose output is the embedding."
            )
        embedding: Tensor = outputs[0]
        return embedding


def layer_before_division(model: nn.Module, images: Tensor) -> str | None:
    """Of a model that divides its embeddings by their length: the last layer whose output has their direction but not their length.

    Args:
        model: returns embeddings (N, D).
        images: a few, as it takes them.

    Returns:
        Name of the layer, for :class:`UpTo`; None if embeddings have other lengths than 1, or no layer puts out the vectors before.

    Example:
        >>> import torch
        >>> class Normalised(nn.Sequential):
        ...     def forward(self, x):
        ...         return nn.functional.normalize(super().forward(x))
        >>> layer_before_division(Normalised(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2))
        '1'
    """
    found: list[str] = []
    outputs: dict[str, Any] = {}

    def hook(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        outputs[name] = None if name in outputs else output  # of a layer that runs twice, neither

    with hooked((layer, partial(hook, name)) for name, layer in model.named_modules() if name), torch.no_grad():
        embeddings = model(images)
    if isinstance(embeddings, tuple | list) and embeddings:  # AdaFace returns the embedding and its length
        embeddings = embeddings[0]
    if not _of_length_one(embeddings):
        return None
    for name, output in outputs.items():
        if isinstance(output, Tensor) and output.numel() == embeddings.numel():
            vectors = output.reshape(embeddings.shape)
            same = torch.allclose(functional.normalize(vectors), embeddings, atol=1e-4)
            if same and not _of_length_one(vectors):
                found.append(name)
    return found[-1] if found else None


def _of_length_one(vectors: Any) -> bool:
    return isinstance(vectors, Tensor) and bool(((vectors.flatten(1).norm(dim=1) - 1).abs() < 1e-3).all())
