"""Truncate a model at a layer, for models that end with an L2 normalisation of their embeddings."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_leam._engine.recording import forward_hooks
from captum_leam.errors import CaptumLeamError
from captum_leam.layers import get_layer


class UpTo(nn.Module):
    """Model whose embedding is the output of one of its layers, for example the one before L2 normalisation.

    LEAM explains un-normalised embeddings. With the normalisation inside the model, every norm would act as that of the differentiated
    cosine, whose maps are less faithful. For example, ``UpTo(model, "last_bn")`` is InceptionResnetV1 of facenet-pytorch without its
    final normalisation.

    Args:
        model: Model, which is not copied and whose layers can be hooked as before.
        layer: Name of the layer whose output is the embedding, as in ``model.named_modules()``.

    Raises:
        UnknownLayerError: If the model has no such layer.
        CaptumLeamError: In ``forward``, if the layer does not run exactly once.

    See Also:
        :func:`~captum_leam.models.layer_before_division`: Name of the layer before a normalisation.

    Example:
        >>> import torch
        >>> class Normalised(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.head = nn.Linear(4, 2)
        ...     def forward(self, x):
        ...         return nn.functional.normalize(self.head(x))
        >>> _ = torch.manual_seed(0)
        >>> model, x = Normalised().eval(), torch.rand(3, 4)
        >>> model(x).norm(dim=1)
        tensor([1.0000, 1.0000, 1.0000], grad_fn=...)
        >>> torch.equal(UpTo(model, "head")(x), model.head(x))  # not normalised
        True
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        super().__init__()
        get_layer(model, layer)
        self.model, self.layer = model, layer
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Return the output of the layer.

        Args:
            images: Images of shape (N, C, H, W), preprocessed as the model expects.

        Returns:
            Output of the layer, usually embeddings of shape (N, D).

        Raises:
            CaptumLeamError: If the layer does not run exactly once.
        """
        outputs: list[Any] = []
        layer = self.model.get_submodule(self.layer)
        with forward_hooks([(layer, lambda module, args, output: outputs.append(output))]):
            self.model(images)
        if len(outputs) != 1:
            raise CaptumLeamError(
                f"Expected layer {self.layer!r} to run once per forward pass, got {len(outputs)} runs. Choose a layer that runs once."
            )
        embedding: Tensor = outputs[0]
        return embedding


def layer_before_division(model: nn.Module, images: Tensor) -> str | None:
    """Return the name of the last layer before the L2 normalisation of the embeddings, or None.

    Many networks divide their embeddings by the length. Pass the name to :class:`UpTo` for the embeddings before the division, which LEAM
    explains more faithfully. It is the last layer whose output has the direction of the embedding but not its length.

    Args:
        model: Model that returns embeddings (N, D).
        images: Some images of shape (N, C, H, W), preprocessed as the model expects.

    Returns:
        Name of the layer for :class:`UpTo`, or None if the embeddings do not have length 1 or there is no such layer.

    See Also:
        :class:`~captum_leam.models.UpTo`: Model that ends at this layer.

    Example:
        >>> import torch
        >>> class Normalised(nn.Sequential):
        ...     def forward(self, x):
        ...         return nn.functional.normalize(super().forward(x))
        >>> _ = torch.manual_seed(0)
        >>> model, images = Normalised(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
        >>> layer_before_division(model, images)  # the linear layer
        '1'
    """
    names: list[str] = []
    outputs: dict[str, Any] = {}

    def hook(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        outputs[name] = None if name in outputs else output  # UpTo cannot use a layer that runs twice

    with forward_hooks((layer, partial(hook, name)) for name, layer in model.named_modules() if name), torch.no_grad():
        embeddings = model(images)
    if isinstance(embeddings, tuple | list) and embeddings:  # AdaFace returns the embedding and its length
        embeddings = embeddings[0]
    if not _has_unit_length(embeddings):
        return None
    for name, output in outputs.items():
        if isinstance(output, Tensor) and output.numel() == embeddings.numel():
            vectors = output.reshape(embeddings.shape)
            has_direction = torch.allclose(functional.normalize(vectors), embeddings, atol=1e-4)
            if has_direction and not _has_unit_length(vectors):
                names.append(name)
    return names[-1] if names else None


def _has_unit_length(vectors: Any) -> bool:
    return isinstance(vectors, Tensor) and bool(((vectors.flatten(1).norm(dim=1) - 1).abs() < 1e-3).all())
