"""Untrained twins: copies of a model with new random weights."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_leam._engine.seeds import at_seed
from captum_leam.errors import CaptumLeamError


def randomised(model: nn.Module, images: Tensor, share: float = 1.0, *, seed: int = 0) -> nn.Module:
    """Return a copy with new random weights in a share of its layers, from the head down; with all of them, an untrained twin.

    Layers are initialised as PyTorch does; parameters outside of such layers are shuffled. The running statistics of BatchNorm are then
    taken from the images, since those of other weights would let activations vanish or explode.

    Args:
        model: it is copied, and not changed.
        images: (N, C, H, W), for the statistics.
        share: of the modules with parameters of their own, in (0, 1].
        seed: of the weights. The global random numbers are left alone.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
        >>> twin = randomised(model, torch.rand(2, 3, 2, 2), 0.5)
        >>> torch.equal(twin[1].weight, model[1].weight), torch.equal(twin[3].weight, model[3].weight)
        (True, False)
    """
    if not 0 < share <= 1:
        raise CaptumLeamError(f"share is {share}; expected a share of the layers in (0, 1].")
    with torch.inference_mode(False):  # the twin is explained, which needs parameters that have gradients
        twin = copy.deepcopy(model)
    layers = [m for m in twin.modules() if any(True for _ in m.parameters(recurse=False))]
    if not layers:
        raise CaptumLeamError("the model has no parameters to randomise.")
    chosen = layers[len(layers) - max(1, round(share * len(layers))) :]
    with at_seed(seed), torch.inference_mode(False), torch.no_grad():
        for layer in chosen:
            _renew(layer)
        _calibrate(twin, chosen, images)
    return twin.eval()


def _renew(layer: nn.Module) -> None:
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in layer.parameters(recurse=False):
        order = torch.randperm(parameter.numel(), device=parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))


def _calibrate(twin: nn.Module, renewed: Sequence[nn.Module], images: Tensor) -> None:
    """Statistics over these images of BatchNorm from the first renewed layer on; all else stays in evaluation mode (no Dropout)."""
    modules = list(twin.modules())
    later = modules[modules.index(renewed[0]) :]
    norms = [m for m in later if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    for part in images.tensor_split(-(-len(images) // 64)) if norms else ():  # even parts: one image has no variance
        twin(part)
