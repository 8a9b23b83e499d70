"""Every method of the comparison under one signature: images and references to maps at image size.

LEAM's forms and presets, the methods of :mod:`captum_leam.explainers`, Captum's own through ``CaptumExplainer``, and the packages
pytorch-grad-cam and torch-cam, used as their users would: the layer's map stretched over the whole image, scores from a target
function. Layers are those that ``suggest_layers`` finds: the first (56 px of a crop of 112 px), middle (28 px), third (14 px) and last.
"""

import importlib.util
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO

import captum.attr as ca
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_leam import LEAM, explain_faces
from captum_leam import explainers as ex
from captum_leam.maps import default_blur, place_on_field
from captum_leam.regions import TemplateParser
from captum_leam.suggest import LayerSuggestion, LayerSuggestions

Maps = Callable[[Tensor, Tensor], Tensor]
PRESETS = ("fast", "default", "best")
DEFAULT = "LEAM, default"
PATH_STEPS = 20  # of IntegratedGradients and its kin
NOISE = {"nt_samples": 10, "stdevs": 0.1, "nt_samples_batch_size": 1}
AT_ONCE = 2  # images in one call: methods of Captum repeat them up to 20 times


@dataclass(frozen=True)
class Method:
    """A method as the harness sees it.

    Attributes:
        name: in tables.
        family: LEAM, peer, Captum, pytorch-grad-cam, torch-cam; controls and the limit are made elsewhere.
        explain: images (N, C, H, W) and references (N, D) to maps (N, H, W).
        dissimilar: the same for what speaks against the match; None where the method has no such side.
        explainer: that counts its own passes, where hooks on the model would not see them all.
    """

    name: str
    family: str
    explain: Maps
    dissimilar: Maps | None = None
    explainer: ex.Explainer | None = None


@dataclass(frozen=True)
class Layers:
    """The layers that methods are run at."""

    found: LayerSuggestions

    def __getitem__(self, role: str) -> LayerSuggestion:
        every = {"first": 0, "middle": 1, "third": 2, "last": -1}
        return self.found.layers[every[role]]

    def place(self, maps: Tensor) -> Tensor:
        """Layer maps at image size, on the field that the network reads."""
        return place_on_field(maps.detach(), self.found.image_size, self.found.field)


def every_method(model: nn.Module, found: LayerSuggestions, threshold: float, quick: bool) -> list[Method]:
    """All methods on one network, LEAM's presets first; what is not installed is said and left out."""
    layers = Layers(found)
    return [
        *leam_presets(model, found),
        *leam_forms(model, layers),
        *peers(model, layers, threshold, quick),
        *captum_methods(model, layers, quick),
        *grad_cam_package(model, layers),
        *torch_cam_package(model, layers),
    ]


# -- LEAM ----------------------------------------------------------------------------------------------


def leam_presets(model: nn.Module, found: LayerSuggestions) -> list[Method]:
    def preset(name: str, x: Tensor, r: Tensor) -> Tensor:
        return explain_faces(model, x, name, layers=found, reference=r)  # layers are found once for a network

    return [Method(f"LEAM, {name}", "LEAM", partial(preset, name)) for name in PRESETS]


def leam_forms(model: nn.Module, layers: Layers) -> list[Method]:
    """One layer at a time, and the forms that the presets leave out."""

    def form(name: str, role: str, weighting: str = "elementwise", **options: object) -> Method:
        leam = LEAM(model, layers[role], weighting=weighting)

        def explain(x: Tensor, r: Tensor, sign: int = 1) -> Tensor:
            return sign * layers.place(leam.attribute(x, reference=r, **options))

        return Method(f"LEAM, {role} layer{name}", "LEAM", explain, partial(explain, sign=-1))

    return [
        *(form("", role) for role in ("first", "middle", "third", "last")),
        form(", positive weights", "middle", "positive"),
        form(", path of 4", "middle", n_steps=4),
        form(", conductance of 4", "middle", n_steps=4, path="conductance"),
    ]


# -- the field's methods -------------------------------------------------------------------------------


def peers(model: nn.Module, layers: Layers, threshold: float, quick: bool) -> list[Method]:
    """One line for every explainer; a method of your own goes here."""
    masks, steps = (50, 20) if quick else (500, 75)
    methods = []
    for role in ("last", "middle"):
        options = {"reshape": layers[role].reshape, "field": layers.found.field}
        for kind in (ex.GradCAM, ex.LayerCAM, ex.HiResCAM):
            methods.append(peer(f"{kind.__name__}, {role} layer", kind(model, layers[role].module, **options)))
    last = {"reshape": layers["last"].reshape, "field": layers.found.field}
    return [
        *methods,
        peer("PositionDecomposition, last layer", ex.PositionDecomposition(model, layers["last"].module, **last)),
        peer("GapDecomposition, last layer", ex.GapDecomposition(model, layers["last"].module, **last)),
        peer("xSSAB", ex.XSSAB(model, threshold=threshold)),
        peer("FGGB", ex.FGGB(model, threshold=threshold)),
        peer(f"FAME, {steps} steps", ex.FAME(model, n_steps=steps)),
        peer(f"CorrRISE, {masks} masks", ex.CorrRISE(model, masks=masks)),
        peer(f"RISE, {masks} masks", ex.RISE(model, masks=masks)),
        peer("xFace", ex.XFace(model, stride=14) if quick else ex.XFace(model)),
        peer("RegionShapley, template", ex.RegionShapley(model, TemplateParser(), orders=3 if quick else 10)),
    ]


SIMILAR_ONLY = (ex.GradCAM, ex.LayerCAM, ex.RISE)


def peer(name: str, method: ex.Explainer) -> Method:
    """An explainer; of two-sided methods each side by itself, of signed maps the sign turned around."""

    def signed(x: Tensor, r: Tensor, sign: int = 1) -> Tensor:
        return sign * method.attribute(x, reference=r)[:, 0]

    def side(x: Tensor, r: Tensor, which: str) -> Tensor:
        return getattr(method.attribute_both(x, reference=r), which)[:, 0]

    if isinstance(method, ex.TwoSidedExplainer):
        against: Maps | None = partial(side, which="dissimilar")
    else:
        against = None if isinstance(method, SIMILAR_ONLY) else partial(signed, sign=-1)
    return Method(name, "peer", signed, against, method)


# -- Captum's own --------------------------------------------------------------------------------------


def repeatably(explain: Maps) -> Maps:
    """Methods that draw from the process's random numbers: the same numbers every time, and given back."""

    def run(x: Tensor, r: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return explain(x, r)

    return run


def captum_methods(model: nn.Module, layers: Layers, quick: bool) -> list[Method]:
    """On the objective's default norm; those that are complete along a path on the fixed one, from the blurred image."""
    middle, last = layers["middle"], layers["last"]
    from_blur = {"baselines": default_blur}
    path = {"n_steps": PATH_STEPS, "internal_batch_size": 8, **from_blur}

    def of_input(method: Callable[..., object], layer: LayerSuggestion | None = None, **options: object) -> Maps:
        found = ex.CaptumExplainer(method, model, layer, reading="absolute", batch_size=AT_ONCE, **options)
        return lambda x, r: found.attribute(x, reference=r)[:, 0]

    def of_layer(method: Callable[..., object], layer: LayerSuggestion, **options: object) -> Maps:
        found = ex.CaptumExplainer(method, model, layer, field=layers.found.field, batch_size=AT_ONCE, **options)
        return lambda x, r: found.attribute(x, reference=r)[:, 0]

    def occlusion(x: Tensor, r: Tensor) -> Tensor:
        windows = {"sliding_window_shapes": (x.shape[1], 14, 14), "strides": (x.shape[1], 7, 7)}
        found = ex.CaptumExplainer(ca.Occlusion, model, reading="mean", batch_size=AT_ONCE, **windows)
        return found.attribute(x, reference=r)[:, 0]

    noise = f"NoiseTunnel({{}}), {NOISE['nt_samples']} samples"
    maps: dict[str, Maps] = {
        "Saliency": of_input(ca.Saliency),
        "InputXGradient": of_input(ca.InputXGradient),
        f"IntegratedGradients, {PATH_STEPS} steps": of_input(ca.IntegratedGradients, **path),
        f"GradientShap, {PATH_STEPS} samples": of_input(
            ca.GradientShap, n_samples=PATH_STEPS, stdevs=0.05, **from_blur
        ),
        "DeepLift": of_input(ca.DeepLift, **from_blur),
        "GuidedGradCam, last layer": of_input(ca.GuidedGradCam, last),
        f"LayerIntegratedGradients, middle layer, {PATH_STEPS} steps": of_layer(
            ca.LayerIntegratedGradients, middle, **path
        ),
        f"LayerConductance, middle layer, {PATH_STEPS} steps": of_layer(ca.LayerConductance, middle, **path),
        noise.format("Saliency"): of_input(lambda f: ca.NoiseTunnel(ca.Saliency(f)), **NOISE),
        noise.format("LayerGradCam, last layer"): of_layer(
            lambda f, layer: ca.NoiseTunnel(ca.LayerGradCam(f, layer)), last, **NOISE
        ),
        noise.format("LEAM, middle layer"): of_layer(lambda f, layer: ca.NoiseTunnel(LEAM(f, layer)), middle, **NOISE),
    }
    methods = [Method(name, "Captum", explain) for name, explain in maps.items()]
    against = None if quick else Method("Occlusion 14 px", "Captum", occlusion, lambda x, r: -occlusion(x, r))
    return methods if against is None else [*methods, against]


# -- the packages --------------------------------------------------------------------------------------


def installed(module: str, package: str) -> bool:
    if importlib.util.find_spec(module) is not None:
        return True
    print(f'{package} is not installed and left out: pip install "captum-leam[peers]"', flush=True)
    return False


def targets_of(references: Tensor) -> list[Callable[[Tensor], Tensor]]:
    """One target function for every image, as both packages take them: the cosine to its reference."""
    return [partial(F.cosine_similarity, r, dim=0) for r in references]


def grad_cam_package(model: nn.Module, layers: Layers) -> list[Method]:
    """pytorch-grad-cam 1.5: maps at image size, scaled to [0, 1], as numpy arrays."""
    if not installed("pytorch_grad_cam", "pytorch-grad-cam"):
        return []
    import pytorch_grad_cam as package

    def method(kind: str, role: str) -> Method:
        def explain(x: Tensor, r: Tensor) -> Tensor:
            quiet = redirect_stderr(StringIO())  # progress bars
            with quiet, getattr(package, kind)(model=model, target_layers=[layers[role].module]) as cam:
                maps = cam(input_tensor=x, targets=targets_of(r))
            model.zero_grad()  # it leaves gradients in the parameters
            return torch.from_numpy(maps)

        return Method(f"{kind}, {role} layer (pytorch-grad-cam)", "pytorch-grad-cam", explain)

    last = ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "EigenCAM")
    middle = ("GradCAMPlusPlus", "GradCAMElementWise", "ScoreCAM")
    return [*(method(kind, "last") for kind in last), *(method(kind, "middle") for kind in middle)]


def torch_cam_package(model: nn.Module, layers: Layers) -> list[Method]:
    """torch-cam 0.5: maps at the layer's size, scaled to [0, 1]; stretched over the image bicubically, as its overlay does."""
    if not installed("torchcam", "torch-cam"):
        return []
    from torchcam import methods as package

    def method(kind: str, role: str) -> Method:
        def explain(x: Tensor, r: Tensor) -> Tensor:
            with getattr(package, kind)(model, layers[role].module) as extractor:
                (maps,) = extractor(scores=model(x), targets=targets_of(r))
            return F.interpolate(maps[:, None], x.shape[2:], mode="bicubic", align_corners=False)[:, 0]

        return Method(f"{kind}, {role} layer (torch-cam)", "torch-cam", repeatably(explain))

    last = ("GradCAM", "GradCAMpp", "SmoothGradCAMpp", "LayerCAM")
    return [*(method(kind, "last") for kind in last), method("LayerCAM", "middle")]


# -- small functions -----------------------------------------------------------------------------------


def in_parts(explain: Maps, images: Tensor, references: Tensor) -> Tensor:
    parts = zip(images.split(AT_ONCE), references.split(AT_ONCE), strict=True)
    return torch.cat([explain(x, r).detach() for x, r in parts])
