"""Recognisers without gradients: scores and faithfulness, no maps of layers."""

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
    """Anything that turns pictures into embeddings: a remote service, an SDK, an ONNX Runtime session.

    It can be what a map is measured on (:class:`~captum_leam.faithfulness.OcclusionEvaluator`,
    :func:`~captum_leam.verification.verify`), not what is explained by gradients: asked for one, it says so.

    Args:
        function: gets pictures as a float32 array (N, 3, H, W), as ``preprocessing`` makes them, and returns (N, D), of NumPy, torch
            or lists.
        preprocessing: from RGB in [0, 1].

    Example:
        >>> means = BlackBox(lambda pictures: pictures.mean((2, 3)))
        >>> means(torch.ones(2, 3, 4, 4)).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    def __init__(self, function: Callable[[Any], Any], preprocessing: Preprocessing = UNIT) -> None:
        super().__init__()
        if not callable(function):
            raise InputTypeError(
                f"function is a {type(function).__name__}; expected a callable: pictures → embeddings."
            )
        self.function = function
        self.preprocessing = preprocessing
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings (N, D), float32, of RGB (N, 3, H, W) in [0, 1].

        Raises:
            CaptumLeamError: if a gradient is asked for, or the function returns anything but one finite embedding ...
        """
        if images.requires_grad and torch.is_grad_enabled():
            raise CaptumLeamError(
                "a BlackBox has no gradients and no layers: it can be scored and occluded, not explained by LEAM or any method that "
                "needs gradients. Explain a network whose layers are there, and measure its maps on this one."
            )
        pictures = self.preprocessing(images.detach()).float().cpu().numpy()
        returned = self.function(pictures)
        values = as_array(returned) if isinstance(returned, Tensor) else np.asarray(returned)
        if values.dtype.kind not in "fiu":
            raise CaptumLeamError(
                f"the function returned {values.dtype}; expected numbers, one embedding (D,) per picture."
            )
        return as_embeddings(torch.from_numpy(values.astype(np.float32)).to(images.device), len(images))
