"""Every method of the comparison under one signature: images and references to raw attributions, which the harness reads.

LEAM's forms and presets, the methods of :mod:`captum_leam.explainers`, Captum's own through ``EmbeddingSimilarity``, and the packages
pytorch-grad-cam, torch-cam and xaitk-saliency, used as their users would: the layer's map stretched over the whole image, scores from a
target function. Layers are among those that ``suggest_layers`` finds: the first (the finest), middle (cells nearest to 4 px of a crop of
112 px), third (nearest to 8 px) and last. No method takes absolute values or positive parts of its own: readings (``peers_readings.py``)
do, and every method has all of them.
"""

import importlib.util
from collections.abc import Callable
from contextlib import redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from io import StringIO

import captum.attr as ca
import torch
import torch.nn.functional as F
from contest import METHODS, SEED
from peers_readings import Raw
from peers_similarity import SANE, SBSM, xrai
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity, explain_faces
from captum_leam import explainers as ex
from captum_leam.maps import default_blur, place_on_field
from captum_leam.regions import TemplateParser
from captum_leam.suggest import LayerSuggestion, LayerSuggestions

Maps = Callable[[Tensor, Tensor], Tensor]
PRESETS = ("fast", "default", "best")
DEFAULT = "LEAM, default"
PATH_STEPS = 20  # of path methods, unless their name says otherwise
NOISE = {"nt_samples": 10, "stdevs": 0.1, "nt_samples_batch_size": 1}
AT_ONCE = 2  # images in one call: methods of Captum repeat them up to 20 times


@dataclass(frozen=True)
class Method:
    """A method as the harness sees it.

    Attributes:
        name: In tables; one of ``contest.METHODS``.
        family: LEAM, peer, Captum, pytorch-grad-cam, torch-cam; controls and the limit are made elsewhere.
        explain: Images (N, C, H, W) and references (N, D) to :class:`~peers_readings.Raw`, input attributions (N, C, H, W), or signed
            maps (N, 1, H, W) or (N, H, W).
        dissimilar: Images and references to maps (N, H, W) of the evidence against the match; None for methods without them.
        explainer: Explainer that counts its own passes, where hooks on the model would not see them all.
    """

    name: str
    family: str
    explain: Callable[[Tensor, Tensor], Raw | Tensor]
    dissimilar: Maps | None = None
    explainer: ex.Explainer | None = None

    def raw(self, images: Tensor, references: Tensor) -> Raw:
        """Return the raw attributions of a batch of images, detached."""
        found = self.explain(images, references)
        raw = found if isinstance(found, Raw) else Raw(found)
        attributions = raw.attributions.detach()
        return Raw(attributions[:, None] if attributions.ndim == 3 else attributions, raw.published)


@dataclass(frozen=True)
class Layers:
    """The layers that methods are run at."""

    found: LayerSuggestions

    def __getitem__(self, role: str) -> LayerSuggestion:
        layers, px = self.found.layers, self.found.image_size[1] / 112
        if role in ("first", "last"):
            return layers[0 if role == "first" else -1]
        cell = {"middle": 4 * px, "third": 8 * px}[role]
        return min(layers, key=lambda layer: abs(layer.cell - cell))

    def place(self, maps: Tensor) -> Tensor:
        """Return layer maps at image size, on the field that the network reads."""
        return place_on_field(maps.detach(), self.found.image_size, self.found.field)


def every_method(model: nn.Module, found: LayerSuggestions, threshold: float, quick: bool) -> list[Method]:
    """Return all methods for one network in the order of the contest; what is not installed is printed and left out."""
    layers = Layers(found)
    every = [
        *leam_presets(model, found),
        *leam_forms(model, layers),
        *peers(model, layers, threshold, quick),
        *captum_methods(model, layers, quick),
        *grad_cam_package(model, layers),
        *torch_cam_package(model, layers),
    ]
    return sorted(every, key=lambda method: METHODS.index(method.name))


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
    """One line for every explainer; a method of your own goes here, and its name into ``contest.METHODS``."""
    masks, steps, stride = (50, 20, 14) if quick else (500, 75, 5)
    methods = []
    for role in ("last", "middle"):
        options = {"reshape": layers[role].reshape, "field": layers.found.field}
        for kind in (ex.GradCAM, ex.LayerCAM, ex.HiResCAM):
            methods.append(peer(f"{kind.__name__}, {role} layer", kind(model, layers[role].module, **options)))
    last = {"reshape": layers["last"].reshape, "field": layers.found.field}
    if installed("xaitk_saliency", "xaitk-saliency"):
        methods.append(peer("SBSM", SBSM(model, stride=stride)))
    return [
        *methods,
        peer("PositionDecomposition, last layer", ex.PositionDecomposition(model, layers["last"].module, **last)),
        peer("GapDecomposition, last layer", ex.GapDecomposition(model, layers["last"].module, **last)),
        with_raw("xSSAB", SignedXSSAB(model, threshold=threshold)),
        with_raw("FGGB", SignedFGGB(model, threshold=threshold)),
        peer("FAME", ex.FAME(model, n_steps=steps)),
        peer("CorrRISE", ex.CorrRISE(model, masks=masks)),
        peer("RISE", ex.RISE(model, masks=masks)),
        peer("xFace", ex.XFace(model, stride=stride)),
        peer("RegionShapley, template", ex.RegionShapley(model, TemplateParser(), orders=3 if quick else 10)),
        peer("SANE, sliding window", SANE(model, stride=stride)),
    ]


SIMILAR_ONLY = (ex.GradCAM, ex.LayerCAM, ex.RISE, SBSM)


def peer(name: str, method: ex.Explainer) -> Method:
    """Return an explainer as a method; its dissimilar side is its own, or the signed map with the sign turned around."""

    def against(x: Tensor, r: Tensor) -> Tensor:
        if isinstance(method, ex.TwoSidedExplainer):
            return method.attribute_both(x, reference=r).dissimilar[:, 0]
        return -method.attribute(x, reference=r)[:, 0]

    dissimilar = None if isinstance(method, SIMILAR_ONLY) else against
    return Method(name, "peer", lambda x, r: method.attribute(x, reference=r), dissimilar, method)


class SignedXSSAB(ex.XSSAB):
    """xSSAB that keeps the signed gradient of the dimensions in favour of the match, whose absolute value is its similar map."""

    def _gradient(self, score: Tensor, images: Tensor) -> Tensor:
        gradient = super()._gradient(score, images)
        self.kept.append(gradient.detach())
        return gradient

    def raw(self, x: Tensor, r: Tensor) -> Raw:
        """Return signed gradients (N, C, H, W), and the paper's map: similar less dissimilar."""
        self.kept: list[Tensor] = []
        combined = self.attribute(x, reference=r)[:, 0]
        return Raw(torch.cat(self.kept[::2]), combined)  # every second one is of the dimensions against it


class SignedFGGB(ex.FGGB):
    """FGGB before its mean over channels."""

    def _sum_over_dimensions(self, row: int, image: Tensor, reference: Tensor | None) -> Tensor:
        total = super()._sum_over_dimensions(row, image, reference)
        self.kept.append(total.detach())
        return total

    def raw(self, x: Tensor, r: Tensor) -> Raw:
        """Return signed sums (N, C, H, W); the paper's map is their mean over channels."""
        self.kept: list[Tensor] = []
        self.attribute(x, reference=r)
        return Raw(torch.cat(self.kept))


def with_raw(name: str, method: SignedXSSAB | SignedFGGB) -> Method:
    """Return an explainer whose attributions before the paper's reading are known."""
    return Method(name, "peer", method.raw, peer(name, method).dissimilar, method)


# -- Captum's own --------------------------------------------------------------------------------------


def repeatably(explain: Maps) -> Maps:
    """Return a method that draws the same random numbers every time, and gives those of the process back."""

    def run(x: Tensor, r: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return explain(x, r)

    return run


@dataclass(frozen=True)
class Captum:
    """Captum's methods on one network.

    They run on the objective's default norm; those that are complete along a path run on the fixed one, from the blurred image. Its
    weights are the unit reference: the length of the embedding, one factor per image, changes no ranking and would cost a pass.
    """

    model: nn.Module
    layers: Layers

    @property
    def cosine(self) -> EmbeddingSimilarity:
        """Score of the methods without a path."""
        return EmbeddingSimilarity(self.model)

    @property
    def fixed(self) -> EmbeddingSimilarity:
        """Score of the methods along a path."""
        return EmbeddingSimilarity(self.model, norm="fixed")

    def at_image(self, method: ca.Attribution, **options: object) -> Maps:
        """Return input attributions."""
        return repeatably(lambda x, r: method.attribute(x, additional_forward_args=(r,), **options))

    def along_path(
        self, method: ca.Attribution, start: Callable[[Tensor], Tensor] = default_blur, **options: object
    ) -> Maps:
        """Return input attributions along a path."""

        def run(x: Tensor, r: Tensor) -> Tensor:
            towards = (F.normalize(r, dim=1),)
            return method.attribute(x, baselines=start(x), additional_forward_args=towards, **options)

        return repeatably(run)

    def at_layer(self, method: ca.Attribution, *, path: bool = False, **options: object) -> Maps:
        """Return layer attributions, summed over the layer's channels with their signs and placed on the image."""
        find = self.along_path if path else self.at_image
        return lambda x, r: self.layers.place(find(method, **options)(x, r).sum(1, keepdim=True))

    def lrp(self, x: Tensor, r: Tensor) -> Tensor:
        """Return layer-wise relevance at the middle layer, of one image at a time: the reference is a linear layer."""
        model, maps = deepcopy(self.model), []  # it changes weights for the time of the call
        for image, reference in zip(x, F.normalize(r, dim=1), strict=True):
            head = nn.Linear(len(reference), 1, bias=False).requires_grad_(False)
            head.weight.copy_(reference[None])
            scoring = nn.Sequential(model, head).eval()
            method = ca.LayerLRP(scoring, model.get_submodule(self.layers["middle"].name))
            maps.append(self.layers.place(method.attribute(image[None], target=0).sum(1, keepdim=True)))
        return torch.cat(maps)


def captum_methods(model: nn.Module, layers: Layers, quick: bool) -> list[Method]:
    """Return Captum's methods with the options of their defaults, but for the blurred start of the paths."""
    on = Captum(model, layers)
    cosine, fixed = on.cosine, on.fixed
    middle, last = layers["middle"].module, layers["last"].module
    many = {"n_steps": PATH_STEPS, "internal_batch_size": 8}
    steps, noise = f"{PATH_STEPS} steps", f"NoiseTunnel({{}}), {NOISE['nt_samples']} samples"
    windows = {"sliding_window_shapes": (3, 14, 14), "strides": (3, 7, 7)}

    def integrated(n_steps: int, **more: object) -> Maps:
        return on.along_path(ca.IntegratedGradients(fixed), n_steps=n_steps, internal_batch_size=8, **more)

    def noisy(method: ca.Attribution, **more: object) -> Maps:
        return on.at_image(ca.NoiseTunnel(method), **NOISE, **more)

    def noisy_layer(method: ca.Attribution) -> Maps:
        return on.at_layer(ca.NoiseTunnel(method), **NOISE)

    def layer_path(kind: type[ca.Attribution]) -> Maps:
        return on.at_layer(kind(fixed, middle), path=True, **many)

    maps: dict[str, Maps] = {
        "Saliency": on.at_image(ca.Saliency(cosine), abs=False),
        "InputXGradient": on.at_image(ca.InputXGradient(cosine)),
        **{f"IntegratedGradients, {n} steps": integrated(n) for n in (2, 4, PATH_STEPS, 49)},
        f"IntegratedGradients, {steps}, from black": integrated(PATH_STEPS, start=torch.zeros_like),
        f"GradientShap, {PATH_STEPS} samples": on.along_path(ca.GradientShap(fixed), n_samples=PATH_STEPS, stdevs=0.05),
        "DeepLift": on.along_path(ca.DeepLift(fixed)),
        "GuidedGradCam, last layer": on.at_image(ca.GuidedGradCam(cosine, last)),
        f"LayerIntegratedGradients, middle layer, {steps}": layer_path(ca.LayerIntegratedGradients),
        f"LayerConductance, middle layer, {steps}": layer_path(ca.LayerConductance),
        f"InternalInfluence, middle layer, {steps}": layer_path(ca.InternalInfluence),
        "LayerLRP, middle layer": on.lrp,
        "LayerGradCam, last layer": on.at_layer(ca.LayerGradCam(cosine, last)),
        "LayerGradCam, middle layer": on.at_layer(ca.LayerGradCam(cosine, middle)),
        noise.format("Saliency"): noisy(ca.Saliency(cosine), abs=False),
        noise.format("Saliency, absolute"): noisy(ca.Saliency(cosine)),
        noise.format("InputXGradient"): noisy(ca.InputXGradient(cosine)),
        noise.format("LayerGradCam, last layer"): noisy_layer(ca.LayerGradCam(cosine, last)),
        noise.format("LEAM, middle layer"): noisy_layer(LEAM(cosine, middle)),
        f"XRAI, {steps}": lambda x, r: xrai(integrated(PATH_STEPS)(x, r).detach().sum(1), x),
    }
    families = {f"XRAI, {steps}": "peer"}
    methods = [Method(name, families.get(name, "Captum"), explain) for name, explain in maps.items()]
    if not quick:
        occlusion = on.at_image(ca.Occlusion(cosine), **windows)
        methods.append(Method("Occlusion 14 px", "Captum", occlusion, lambda x, r: -occlusion(x, r).detach().mean(1)))
    return methods


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


def in_parts(method: Method, images: Tensor, references: Tensor) -> Raw:
    """Return the raw attributions of many images, a few in every call."""
    parts = zip(images.split(AT_ONCE), references.split(AT_ONCE), strict=True)
    return Raw.joined([method.raw(x, r) for x, r in parts])
