"""Wrapper of recognition systems without gradients, for scores and faithfulness."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_leam._engine.arithmetic import as_array
from captum_leam._engine.outputs import as_embeddings
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.models.preprocessing import UNIT, Preprocessing


class BlackBox(nn.Module):
    """Model from any function that returns embeddings, such as a remote service, an SDK or an ONNX Runtime session.

    Use it for a network without gradients. Methods that need no gradients can explain it, for example
    :class:`~captum_leam.explainers.CorrRISE`, and maps can be tested on it
    (:class:`~captum_leam.faithfulness.OcclusionEvaluator`, :func:`~captum_leam.verification.verify`). Methods that need gradients raise.

    Args:
        function: Function from preprocessed pictures, a float32 array (N, 3, H, W), to embeddings (N, D) as array, tensor or list.
        preprocessing: Preprocessing of RGB images in [0, 1]. Default: :data:`UNIT`.

    Raises:
        InputTypeError: If the function is not callable.

    See Also:
        :func:`~captum_leam.models.from_onnx`: ONNX files as PyTorch networks with gradients.

    Example:
        >>> def service(pictures):  # returns the mean colour as a NumPy array
        ...     return pictures.mean((2, 3))
        >>> model = BlackBox(service)
        >>> model(torch.ones(2, 3, 4, 4)).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    def __init__(self, function: Callable[[Any], Any], preprocessing: Preprocessing = UNIT) -> None:
        super().__init__()
        if not callable(function):
            raise InputTypeError(
                f"Expected function to be a callable from pictures to embeddings, got a {type(function).__name__}."
            )
        self.function = function
        self.preprocessing = preprocessing
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of images.

        Args:
            images: RGB images of shape (N, 3, H, W), in [0, 1].

        Returns:
            Embeddings of shape (N, D), float32, on the device of the images.

        Raises:
            CaptumLeamError: If the images require a gradient, or the function does not return one finite embedding per image.
        """
        if images.requires_grad and torch.is_grad_enabled():
            raise CaptumLeamError(
                "Expected images without a gradient, because a BlackBox has no gradients and no layers. Use a method without gradients, or "
                "explain another network and measure its maps on this one."
            )
        pictures = self.preprocessing(images.detach()).float().cpu().numpy()
        output = self.function(pictures)
        values = as_array(output) if isinstance(output, Tensor) else np.asarray(output)
        if values.dtype.kind not in "fiu":
            raise CaptumLeamError(
                f"Expected function to return numbers, one embedding (D,) per picture, got {values.dtype}."
            )
        return as_embeddings(torch.from_numpy(values.astype(np.float32)).to(images.device), len(images))
