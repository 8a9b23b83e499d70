"""Randomise the weights of a copy of a model, as an untrained control."""

import copy

import torch
from torch import Tensor, nn

from captum_leam._engine.seeds import at_seed
from captum_leam.errors import CaptumLeamError


def randomised(model: nn.Module, images: Tensor, share: float = 1.0, *, seed: int = 0) -> nn.Module:
    """Return a copy of a model with new random weights in a share of its layers, from the last layer backwards.

    Layers are initialised by their ``reset_parameters``, and parameters of modules without it are shuffled. The running statistics of
    BatchNorm are then estimated on the images, because those of the trained weights would make activations vanish or explode.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv 1810.03292, model parameter randomisation test.

    Args:
        model: Model that is copied and left unchanged.
        images: Images of shape (N, C, H, W) for the statistics of BatchNorm.
        share: Share of the modules with parameters that is randomised, in (0, 1]. Default: 1.0, for an untrained network.
        seed: Seed of the weights. The random state of the process is left unchanged. Default: 0.

    Returns:
        Copy in evaluation mode, of the same type as the model.

    Raises:
        CaptumLeamError: If the share is outside (0, 1], or the model has no parameters.

    See Also:
        :func:`~captum_leam.faithfulness.sanity_checks`: Checks that compare maps with those of such a copy.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
        >>> images = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> twin = randomised(model, images, 0.5)  # the last of the two linear layers
        >>> torch.equal(twin[1].weight, model[1].weight), torch.equal(twin[3].weight, model[3].weight)
        (True, False)
    """
    if not 0 < share <= 1:
        raise CaptumLeamError(f"Expected share to be a share of the layers in (0, 1], got {share}.")
    with torch.inference_mode(False):  # explaining the copy needs parameters with gradients
        twin = copy.deepcopy(model)
    layers = [m for m in twin.modules() if any(True for _ in m.parameters(recurse=False))]
    if not layers:
        raise CaptumLeamError("Expected a model with parameters to randomise, got one without.")
    last_layers = layers[len(layers) - max(1, round(share * len(layers))) :]
    with at_seed(seed), torch.inference_mode(False), torch.no_grad():
        for layer in last_layers:
            _reset(layer)
        _calibrate(twin, last_layers[0], images)
    return twin.eval()


def _reset(layer: nn.Module) -> None:
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in layer.parameters(recurse=False):
        order = torch.randperm(parameter.numel(), device=parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))


def _calibrate(twin: nn.Module, first_layer: nn.Module, images: Tensor) -> None:
    """Estimate the statistics of BatchNorm from a layer on, with all other modules in evaluation mode."""
    modules = list(twin.modules())
    later = modules[modules.index(first_layer) :]
    norms = [m for m in later if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative mean over all batches
        norm.train()
    # Batches of even size avoid a last batch of one image, which has no variance.
    for batch in images.tensor_split(-(-len(images) // 64)) if norms else ():
        twin(batch)
