"""Cases of models, of PyTorch's modes and of images."""

import copy
import random
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_leam import LEAM, explain_faces, explain_pair, suggest_layers
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.layers import tokens_to_map
from captum_leam.models import BlackBox, UpTo
from captum_leam.objectives import embed
from captum_leam.plots import overlay_grid
from captum_leam.verification import verify
from tests.helpers.cases import Call, noted, refused, right
from tests.helpers.networks import SIZE, Around, Inner, Tokens
from tests.helpers.torch_modes import default_device, default_dtype, deterministic

# -- models --------------------------------------------------------------------------------------------

IMAGES = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
REFERENCE = torch.randn(12, generator=torch.Generator().manual_seed(1))
WHO = ["ann", "ann", "bob", "bob"]
Change = Callable[[nn.Module, Tensor], Any]


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def around(change: Change) -> Around:
    return seeded(lambda: Around(change))


def layer_map(forward: Any, inner: nn.Module, images: Tensor = IMAGES, **options: Any) -> Tensor:
    """LEAM's maps at the second layer of the network inside."""
    return LEAM(forward, inner.blocks[1], **options).attribute(images, reference=REFERENCE.to(images.dtype))


def map_around(change: Change, images: Tensor = IMAGES) -> Tensor:
    model = around(change)
    return layer_map(model, model.inner, images)


@cache
def inner_map() -> Tensor:
    """Maps of the network without anything around it."""
    inner = seeded(Inner)
    return layer_map(inner, inner)


def as_inside(change: Change, prepare: Callable[[Tensor], Tensor] = lambda x: x) -> Call:
    """The maps are those of the network inside, of images prepared outside."""

    def call(_: Path) -> tuple[Tensor, Tensor]:
        inner = seeded(Inner)
        return map_around(change), layer_map(inner, inner, prepare(IMAGES))

    return call


def mapped(change: Change) -> Call:
    return lambda _: map_around(change)


def placed(change: Change) -> Call:
    """Maps of the image's size, which need the place of the grid."""
    return lambda _: explain_faces(around(change), IMAGES, "fast", reference=REFERENCE)


def flipped(net: nn.Module, x: Tensor) -> Tensor:
    f = net(torch.cat([x, x.flip(3)]))
    return f[: len(x)] + f[len(x) :]


def tiles(net: nn.Module, x: Tensor) -> Tensor:
    cut = x.unfold(2, 24, 24).unfold(3, 24, 24).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    return net(cut).view(len(x), 4, -1).mean(1)


def padded_batch(net: nn.Module, x: Tensor) -> Tensor:
    return net(torch.cat([x, x.new_zeros(8 - len(x) % 8, *x.shape[1:])]))[: len(x)]


def put_back(order_of: Callable[[Tensor], Tensor]) -> Change:
    def change(net: nn.Module, x: Tensor) -> Tensor:
        order = order_of(x)
        return net(x[order])[order.argsort()]

    return change


def attention(net: nn.Module, x: Tensor) -> Tensor:
    f = net(x)
    return torch.softmax(f @ f.T, 1) @ f


class SequenceFirst(nn.Module):
    """A transformer of tokens (T, N, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.block = nn.Conv2d(3, 12, 8, 8), nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.patch(x).flatten(2).permute(2, 0, 1)).mean(0)


def sequence_first(_: Path) -> tuple[Tensor, Tensor]:
    model = seeded(SequenceFirst)
    leam = LEAM(model, model.block, reshape=lambda t: tokens_to_map(t.transpose(0, 1)))
    one_by_one = [leam.attribute(x, reference=REFERENCE) for x in IMAGES.split(1)]
    return leam.attribute(IMAGES, reference=REFERENCE), torch.cat(one_by_one)


def of_four(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.view(4, 3, SIZE, SIZE))


def one_by_one(_: Path) -> tuple[Tensor, Tensor]:
    inner = seeded(Inner)
    return inner_map(), torch.cat([layer_map(inner, inner, x) for x in IMAGES.split(1)])


def verified(change: Change) -> Call:
    return lambda _: verify(around(change), IMAGES, WHO)


AGREE = "Expected two passes over the same images to agree, got a relative difference of …: results would be random"
APART = "Expected … for an image not to depend on the other images of its batch"
BATCH = [
    right("A network in eval mode, four images", "the maps of the images one by one", one_by_one),
    refused("Flip augmentation: both views in one batch",
        "Expected layer … to put out one row per image, got 2 rows for each image, …: the model runs several views",
        mapped(flipped)),
    refused("Ten views of an image in one batch", "Expected layer … to put out one row per image, got 10 rows for each image",
        mapped(lambda net, x: net(torch.cat([x] * 10)).view(10, len(x), -1).mean(0))),
    refused("Tiles of the picture in the batch axis", "Expected layer … to put out one row per image, got 4 rows for each image",
        mapped(tiles)),
    refused("A batch padded to a multiple of eight", "Expected layer … to put out one row per image, got …",
        mapped(padded_batch)),
    right("Flip augmentation, only measured: no layer is explained", "the sum of both embeddings",
        lambda _: (embed(m := around(flipped), IMAGES), m.inner(IMAGES) + m.inner(IMAGES.flip(3)))),
    refused("Tokens (T, N, C), the images second",
        "Expected layer … to put out one row per image, got …: tokens (T, N, C) with the images second. Pass reshape=",
        lambda _: LEAM(m := seeded(SequenceFirst), m.block).attribute(IMAGES, reference=REFERENCE)),
    right("The same with that `reshape`", "the maps of the images one by one", sequence_first),
    refused("A random order, put back afterwards (ShuffleBN)", "Expected … to …",
        mapped(put_back(lambda x: torch.randperm(len(x))))),
    refused("Images sorted by brightness, put back afterwards", "Expected … to …", mapped(put_back(lambda x: x.mean((1, 2, 3)).argsort()))),
    refused("Embeddings in reversed order", APART, mapped(lambda net, x: net(x.flip(0)))),
    refused("The network run image by image inside", "Expected layer … to run once, but it ran … times in one forward pass",
        mapped(lambda net, x: torch.cat([net(part) for part in x.split(1)]))),
    right("A model that takes batches of four only", "the maps of the network inside", as_inside(of_four)),
    right("A model that takes one image only", "the map of the network inside",
        lambda _: (map_around(lambda net, x: net(x).view(1, 12), IMAGES[:1]), inner_map()[:1])),
]  # fmt: skip

# -- chance, and the rest of the batch -----------------------------------------------------------------


def in_training(module: nn.Module) -> nn.Module:
    """A network whose head has a module in training mode."""
    model = seeded(Inner)
    model.head = nn.Sequential(*model.head, module.train())
    return model


def with_dropout(_: Path) -> tuple[Tensor, Tensor]:
    model = in_training(nn.Dropout(0.5)).eval()
    return layer_map(model, model), inner_map()


def standardised(x: Tensor) -> Tensor:
    return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)


CHANCE = [
    refused("`F.dropout` without `self.training`", AGREE, mapped(lambda net, x: F.dropout(net(x), 0.5))),
    refused("Noise of PyTorch added to the images", AGREE, mapped(lambda net, x: net(x + 0.01 * torch.randn_like(x)))),
    refused("A factor drawn by numpy", AGREE, mapped(lambda net, x: net(x) * float(np.random.uniform(0.5, 1.5)))),
    refused("A factor drawn by Python", AGREE, mapped(lambda net, x: net(x) * random.gauss(1, 0.5))),
    refused("A `Dropout` module in training mode", "…Dropout 'head.3' is active: results would be random. Call model.eval()",
        lambda _: layer_map(m := in_training(nn.Dropout(0.5)), m)),
    right("The same in eval mode", "the maps without it", with_dropout),
    refused("`BatchNorm` in training mode", "…BatchNorm1d 'head.3' uses the statistics of the batch",
        lambda _: layer_map(m := in_training(nn.BatchNorm1d(12)), m)),
    refused("`F.batch_norm` with `training=True`", APART, mapped(lambda net, x: F.batch_norm(net(x), None, None, training=True))),
    refused("The mean of the batch subtracted", APART, mapped(lambda net, x: net(x - x.mean(0)))),
    refused("Attention between the images", APART, mapped(attention)),
    refused("The mean of the batch subtracted, only measured", APART, verified(lambda net, x: net(x - x.mean(0)))),
    refused("Dropout, only measured", AGREE, verified(lambda net, x: F.dropout(net(x), 0.5))),
    right("A random number without effect on the embedding", "the maps of the network inside",
        as_inside(lambda net, x: net(x) + 0 * torch.rand(1))),
    right("Each image standardised by itself", "the maps of standardised images",
        as_inside(lambda net, x: net(standardised(x)), standardised)),
]  # fmt: skip

# -- geometry ------------------------------------------------------------------------------------------

GRID = "Expected the grid of layer … to lie on the picture, but a change around row …, column … appears around row …, column …"


def larger(x: Tensor) -> Tensor:
    return F.interpolate(x, (96, 96), mode="bilinear")


def of_the_middle(_: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(suggest_layers(around(lambda net, x: net(x[..., 8:40])), IMAGES).field), (0, 8, SIZE, 32)


def at_another_size(_: Path) -> None:
    inner = seeded(Inner)
    explain_faces(inner, torch.rand(2, 3, SIZE, SIZE + 16), "fast", layers=suggest_layers(inner, IMAGES))


GEOMETRY = [
    refused("The picture mirrored inside", GRID, placed(lambda net, x: net(x.flip(3)))),
    refused("The picture turned by 90° inside", GRID, placed(lambda net, x: net(x.rot90(1, (2, 3))))),
    refused("Rows and columns swapped inside", GRID, placed(lambda net, x: net(x.transpose(2, 3)))),
    refused("Letterbox: padded on one side inside", GRID, placed(lambda net, x: net(F.pad(x, (0, 24))))),
    refused("Padded around inside", GRID, placed(lambda net, x: net(F.pad(x, (16, 16, 16, 16))))),
    refused("Shrunk into a corner inside", GRID,
        placed(lambda net, x: net(F.pad(F.interpolate(x, scale_factor=0.5), (0, 24, 0, 24))))),
    right("Resized inside", "the maps of resized images", as_inside(lambda net, x: net(larger(x)), larger)),
    right("Padded by two pixels inside", "the maps of padded images",
        as_inside(lambda net, x: net(F.pad(x, (2, 2, 2, 2))), lambda x: F.pad(x, (2, 2, 2, 2)))),
    right("A crop of the middle inside", "the field is the crop", of_the_middle),
    right("Scaled to [-1, 1] and to BGR inside", "the maps of images scaled outside",
        as_inside(lambda net, x: net(2 * x.flip(1) - 1), lambda x: 2 * x.flip(1) - 1)),
    refused("Layers suggested for 48 × 48 px, images of 48 × 64",
        "Expected images of 48 × 48 px, for which these layers were suggested, got 48 × 64 px",
        at_another_size),
    refused("A grid of tokens found at another image size", "Expected a grid of 7 × 7 patches to have 49 tokens and …",
        lambda _: tokens_to_map(torch.rand(1, 197, 8), grid=(7, 7))),
]  # fmt: skip

# -- what models return --------------------------------------------------------------------------------


def with_length(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    f = net(x)
    return f, f.norm(dim=1, keepdim=True)


def first_of(_: Path) -> tuple[Tensor, Tensor]:
    model = around(with_length)
    return layer_map(lambda x: model(x)[0], model.inner), inner_map()


def unit_length(net: nn.Module, x: Tensor) -> Tensor:
    return F.normalize(net(x))


def before_the_division(_: Path) -> tuple[Tensor, Tensor]:
    model = around(unit_length)
    return layer_map(UpTo(model, "inner"), model.inner), inner_map()


def bad_third(net: nn.Module, x: Tensor) -> Tensor:
    return net(x).masked_fill((x[:, 0, :1, 0] > 1), torch.nan)


def with_bad_third() -> Tensor:
    images = IMAGES.clone()
    images[2, 0, 0, 0] = 5
    return images


NO_GRADIENT = "Expected the embedding to depend on the images through differentiable operations, but no gradient reaches any layer"
RETURNS = [
    refused("(embedding, length), as AdaFace returns",
        "Expected forward_func to return one floating-point tensor of embeddings (N, D), got a tuple. …pass lambda x: model(x)[0]",
        mapped(with_length)),
    right("`lambda x: model(x)[0]` of it", "the maps of the network inside", first_of),
    refused("A dictionary",
        "Expected forward_func to return one floating-point tensor of embeddings (N, D), got a dict. Pass lambda x: model(x)[key]",
        mapped(lambda net, x: {"f": net(x)})),
    noted("Embeddings of length 1", "Expected embeddings that are not normalised, but all embeddings have length 1", mapped(unit_length)),
    right("The same, `UpTo` the layer before the division", "the maps of the network inside", before_the_division),
    refused("One number for each image", "Expected embeddings of two dimensions or more, got (4, 1), whose cosines are all ±1",
        lambda _: embed(around(lambda net, x: net(x)[:, :1]), IMAGES)),
    refused("`squeeze()` of a single image", "Expected forward_func to return embeddings (1, D) or …",
        lambda _: map_around(lambda net, x: net(x).squeeze(), IMAGES[:1])),
    refused("A feature map (N, C, h, w)", "Expected forward_func to return embeddings (4, D), got (4, 28, 6, 6)",
        lambda _: embed(around(lambda net, x: net.blocks(x)), IMAGES)),
    refused("NaN for the third image, two at once", "Expected finite embeddings, got NaN or infinite values for images [2]",
        lambda _: embed(around(bad_third), with_bad_third(), 2)),
    refused("An embedding that is detached", "Expected the output of the model to depend on the images, got zero gradient",
        placed(lambda net, x: net(x).detach())),
    refused("An embedding that is rounded", NO_GRADIENT, placed(lambda net, x: torch.round(net(x)))),
]  # fmt: skip

# -- kinds of models -----------------------------------------------------------------------------------


def of_kind(wrap: Callable[[nn.Module], Any]) -> Call:
    """The maps are those of the network as it is."""

    def call(_: Path) -> tuple[Tensor, Tensor]:
        inner = seeded(Inner)
        return layer_map(wrap(inner), inner), inner_map()

    return call


class Functional(nn.Module):
    """The head of the network as a function of its weights."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        linear = self.inner.head[2]
        return F.linear(F.adaptive_avg_pool2d(self.inner.blocks(x), 4).flatten(1), linear.weight, linear.bias)


class Checkpointed(Functional):
    """The blocks computed again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.head(checkpoint(self.inner.blocks, x, use_reentrant=False))


def frozen(inner: nn.Module) -> nn.Module:
    return inner.requires_grad_(False)


def hooked(inner: nn.Module) -> nn.Module:
    inner.head.register_forward_hook(lambda module, args, output: 2 * output)
    return inner


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's plans for quantisation
        return torch.ao.quantization.quantize_dynamic(seeded(Inner), {nn.Linear})


def is_alike(found: Tensor, expected: Tensor) -> tuple[bool, bool]:
    """Whether maps of a lower precision are the same: whether every cosine is over .98."""
    return bool((F.cosine_similarity(found.float().flatten(1), expected.flatten(1)) > 0.98).all()), True


def in_half(_: Path) -> tuple[bool, bool]:
    inner = seeded(Inner).bfloat16()
    return is_alike(layer_map(inner, inner, IMAGES.bfloat16()), inner_map())


def in_double(_: Path) -> tuple[Tensor, Tensor]:
    inner = seeded(Inner).double()
    return layer_map(inner, inner, IMAGES.double()).float(), inner_map()


def class_token(_: Path) -> tuple[Tensor, Tensor]:
    model, reference = seeded(Tokens), REFERENCE
    found = LEAM(model, model.block, reshape=tokens_to_map).attribute(IMAGES, reference=reference)
    without = LEAM(model, model.block, reshape=lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (12, 12)))
    return found, without.attribute(IMAGES, reference=reference)


def changed(_: Path) -> None:
    model = around(lambda net, x: net(x))
    layer_map(model, model.inner)
    model.change = flipped
    layer_map(model, model.inner)


def shared_relu(_: Path) -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), relu, nn.Conv2d(4, 4, 3, 2), relu, nn.Flatten(), nn.LazyLinear(8))
    model(IMAGES)
    LEAM(model.eval(), relu).attribute(IMAGES)


TRACED = "Expected eager modules, but module '' is TorchScript (…), in which hooks never fire"
KINDS = [
    right("Functional: layers of another module called in `forward`", "the maps of the network", of_kind(Functional)),
    right("A plain function that calls the network", "the maps of the network", of_kind(lambda inner: lambda x: inner(x))),
    right("`nn.DataParallel` on one device", "the maps of the network", of_kind(nn.DataParallel)),
    right("`torch.compile`", "the maps of the network", of_kind(partial(torch.compile, backend="eager"))),
    right("Activations checkpointed", "the maps of the network", of_kind(Checkpointed)),
    right("Parameters frozen", "the maps of the network", of_kind(frozen)),
    right("A forward hook that doubles the embedding", "the maps of the network, whose cosine is the same", of_kind(hooked)),
    right("A deep copy", "the maps of the network", lambda _: (layer_map(m := copy.deepcopy(seeded(Inner)), m), inner_map())),
    right("Linear layers quantised dynamically, only measured", "the embeddings in float32",
        lambda _: (embed(quantised(), IMAGES), embed(seeded(Inner), IMAGES)), tolerance=0.02),
    refused("The same, a layer before it explained", "Expected the score to depend on layer … through differentiable operations",
        lambda _: layer_map(m := quantised(), m)),
    right("bfloat16", "the maps in float32, cosines over .98", in_half),
    right("float64", "the maps in float32", in_double),
    right("A transformer with a class token, `tokens_to_map`", "the maps of the patches alone", class_token),
    refused("TorchScript", TRACED, lambda _: layer_map(torch.jit.trace(m := seeded(Inner), IMAGES), m)),
    refused("`torch.export`", "Expected forward_func to be an eager module, got an ExportedProgram, in which hooks do not fire",
        lambda _: layer_map(torch.export.export(m := seeded(Inner), (IMAGES,)), m)),
    refused("Tokens (N, T, C) without `reshape`",
        "Expected layer … to put out maps (N, C, h, w), got tokens (N, T, C) of shape (4, 145, 12)",
        lambda _: LEAM(m := seeded(Tokens), m.block).attribute(IMAGES, reference=REFERENCE)),
    refused("A layer of another copy of the network", "Expected layer … to run in the forward pass, but it did not run",
        lambda _: layer_map(seeded(Inner), seeded(Inner))),
    refused("One ReLU used twice", "Expected layer … to run once, but it ran 2 times in one forward pass", shared_relu),
    refused("A black box", "Expected images without a gradient, because a BlackBox has no gradients and no layers",
        lambda _: suggest_layers(BlackBox(lambda x: x.mean((2, 3))), IMAGES)),
    refused("A model that changed after it was explained",
        "Expected layer … to put out one row per image, got 2 rows for each image",
        changed),
]  # fmt: skip

# -- PyTorch's modes -----------------------------------------------------------------------------------


@cache
def maps_without() -> Tensor:
    return explain_faces(seeded(Inner), IMAGES, reference=REFERENCE)


def under(mode: Callable[[], Any]) -> Call:
    """``explain_faces`` with its rounds of occlusion."""

    def call(_: Path) -> tuple[Tensor, Tensor]:
        inner = seeded(Inner)
        with mode():
            return explain_faces(inner, IMAGES, reference=REFERENCE), maps_without()

    return call


def in_autocast(_: Path) -> tuple[bool, bool]:
    with torch.autocast("cpu", torch.bfloat16):
        return is_alike(explain_faces(seeded(Inner), IMAGES, reference=REFERENCE), maps_without())


def occluded_in(dtype: torch.dtype) -> Call:
    def call(_: Path) -> tuple[Tensor, Tensor]:
        inner, maps = seeded(Inner), maps_without().to(dtype)
        evaluator = OcclusionEvaluator(inner, (0.1,), controls=())
        drops = [evaluator.evaluate(IMAGES, m, REFERENCE).to_frame()["drop"].tolist() for m in (maps, maps.float())]
        return drops[0], drops[1]

    return call


def random_numbers(_: Path) -> tuple[Tensor, Tensor]:
    before = torch.get_rng_state()
    explain_faces(seeded(Inner), IMAGES, reference=REFERENCE)
    return torch.get_rng_state(), before


SAME = "the maps without the mode"
MODES = [
    right("`torch.no_grad()`", SAME, under(torch.no_grad)),
    right("`torch.inference_mode()`", SAME, under(torch.inference_mode)),
    right("`torch.autocast` to bfloat16", f"{SAME}, cosines over .98", in_autocast),
    right("`torch.set_default_dtype(torch.float64)`", SAME, under(lambda: default_dtype(torch.float64))),
    right("`torch.set_default_device` of another device", SAME, under(lambda: default_device("meta"))),
    right("`torch.use_deterministic_algorithms(True)`", SAME, under(deterministic)),
    right("Maps in bfloat16 for the occlusion evaluator", "the drops of the same maps in float32", occluded_in(torch.bfloat16)),
    right("The state of PyTorch's random numbers", "the state before the call", random_numbers),
]  # fmt: skip

# -- images --------------------------------------------------------------------------------------------


def explained(images: Any, **options: Any) -> Call:
    return lambda _: explain_faces(seeded(Inner), images, "fast", reference=REFERENCE, **options)


def same_images(images: Tensor) -> Call:
    return lambda _: (layer_map(m := seeded(Inner), m, images.clone(memory_format=torch.preserve_format)), inner_map())


def not_finite() -> Tensor:
    images = IMAGES.clone()
    images[2, 0, 0, 0] = torch.nan
    return images


def pair(a: Any, b: Any) -> Call:
    return lambda _: explain_pair(seeded(Inner), a, b, preset="fast")


VALUES = [
    refused("A numpy array", "Expected … to be a tensor (N, C, H, W), got ndarray. Pass torch.from_numpy(",
        explained(IMAGES.numpy())),
    refused("A list of images", "Expected … to be a tensor (N, C, H, W), got list. Pass torch.stack(", explained(list(IMAGES))),
    refused("Bytes", "Expected … to be a floating-point tensor (N, C, H, W), got a tensor of torch.uint8. Pass ….float() / 255",
        explained((IMAGES * 255).byte())),
    refused("One image without a batch axis", "Expected … to have shape (N, C, H, W) with one image or more, got (3, 48, 48)",
        explained(IMAGES[0])),
    refused("No image", "Expected … to have shape (N, C, H, W) with one image or more, got (0, 3, 48, 48)",
        explained(IMAGES[:0])),
    refused("NaN in the third image, one at a time", "Expected finite embeddings, got NaN or infinite values for images [2]",
        explained(not_finite(), batch_size=1)),
    refused("A pair of floats and bytes", "Expected b to be a floating-point tensor", pair(IMAGES[0], (IMAGES[1] * 255).byte())),
    refused("A pair of two sizes", "Expected a and b to be two images of one size", pair(IMAGES[0], IMAGES[1, :, :40])),
    refused("Two batches as a pair", "Expected a to be one image", pair(IMAGES, IMAGES)),
    refused("Three titles for four images", "Expected one map and one title for each of the 4 images, got 4 maps and 3 titles",
        lambda _: overlay_grid(IMAGES, torch.rand(4, SIZE, SIZE), list("abc"))),
    right("Channels last in memory", "the maps of the same values", same_images(IMAGES.to(memory_format=torch.channels_last))),
    right("Images that require gradients", "the maps of the same values",
        lambda _: (layer_map(m := seeded(Inner), m, IMAGES.clone().requires_grad_()).detach(), inner_map())),
    right("float64 images after `.float()`", "the maps of the same values", same_images(IMAGES.double().float())),
]  # fmt: skip
