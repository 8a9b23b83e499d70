r"""Probe of a model: whether its results for an image depend on this image only.

The model is run twice, on the batches :math:`[a, c]` and :math:`[c, a']`. Here a is one of the images (the third if there are three), a' is
a with two patches replaced, and c is a companion made from a turned by 180° and noise. The two passes show four properties:

* every explained activation has one row per image;
* row i belongs to image i, because the gradient of the score of a is in the row of a only;
* the embedding and activations of c are equal in both passes, so that they depend neither on random numbers nor on the rest of the batch;
* the patches appear at their places in the grids of the layers, so that the grids are aligned with the image.

The probe takes two forward passes on two images and, if layers are explained, one backward pass. Its findings are kept as long as modules,
attributes, parameters, hooks and code of the model do not change (:mod:`captum_leam._engine.fingerprint`).
"""

import pickle
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from dataclasses import field as of_dataclass
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from captum_leam._engine.checks import immediate_checks
from captum_leam._engine.fingerprint import anchor_of, changes, entries, generators_of, state_of
from captum_leam._engine.memory import is_out_of_memory
from captum_leam._engine.modules import modules_behind
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError

T = TypeVar("T")
Inputs = tuple[Tensor, ...]

PATCHES = ((0.80, 0.82), (0.45, 0.20))
"""Centres (row, column) of the two patches as shares of the field, one in each half. Every turn, mirroring or transposition moves one of
them by a quarter of the field within its half."""

PATCH = 1 / 8
"""Side of a patch as a share of the field."""

EXTREMES = 0.02
"""Share of the range of an image by which the range of the other images is reduced at both ends, to detect division by the maximum."""

TOLERANCE = 1e-4
"""Relative distance up to which two activations of an image are equal. On a CPU, passes of the same shape agree to the bit."""

COARSE_TOLERANCE = 0.05
"""Tolerance in half precision, under autocast, and for quantised modules, whose scale depends on the batch."""

BATCH_SIZE_TOLERANCE = 1e-2
"""Tolerance for batches of different sizes, for which PyTorch may choose other algorithms."""

SHUFFLED_IMAGES = 8
"""Images in the additional pass of models that draw random numbers; a random order of eight rows is unlikely to keep them in place."""

MAX_STATES = 4
"""Maximum number of states of a model whose findings are kept, for modules and functions around them that are called in turn."""


class Batches(NamedTuple):
    """Two batches of a probe.

    Attributes:
        first: Inputs of the first pass.
        second: Inputs of the second pass.
        same: Rows, in the first and second batch, of the image that is equal in both.
        changed: Row of the probed image in the first batch and of its patched copy in the second. None if there is none.
        images: Index of the caller's image that each row is made from.
    """

    first: Inputs
    second: Inputs
    same: tuple[int, int]
    changed: tuple[int, int] | None
    images: list[int]


@dataclass(frozen=True)
class ProbeRecord:
    """Results of one image in the probe, to compare with those in the first batch of three or more images.

    The comparison detects reorderings and statistics of the batch that do not affect two images, without another pass.

    Attributes:
        image: Inputs of the image, (1, …) each.
        values: Embedding and activations of the image, (1, …) each.
        names: Names of the values, for messages.
    """

    image: Inputs
    values: Sequence[Tensor]
    names: Sequence[str]

    def compare(self, xs: Inputs, values: Sequence[Tensor]) -> None:
        """Raise if the image has different results in a batch.

        Args:
            xs: Inputs of the batch, (N, …) each.
            values: Embeddings and activations of the batch, (N, …) each.

        Raises:
            CaptumLeamError: If a value differs; the message names it.
        """
        pairs = zip(xs, self.image, strict=True)
        same = torch.stack([(x == own).reshape(len(x), -1).all(1).cpu() for x, own in pairs]).all(0)
        for row in same.nonzero().flatten().tolist()[:1]:
            for value, own, name in zip(values, self.values, self.names, strict=True):
                off = _distance(value[row], own[0]) if value.shape[1:] == own.shape[1:] else 0.0
                if off > BATCH_SIZE_TOLERANCE:
                    raise CaptumLeamError(
                        depends_message(name, f"a relative difference of {off:.2g} in a batch of {len(value)}")
                    )


# -- batches -------------------------------------------------------------------------------------------


def two_images(xs: Inputs, field: Field | None = None) -> Batches:
    """Return the batches [a, c] and [c, a'] of one image, the third if there are three, which most reorderings move.

    Args:
        xs: Inputs, (N, …) each.
        field: (top, left, height, width) that the network reads, in pixels. Default: the whole image.

    Example:
        >>> batches = two_images((torch.rand(5, 3, 16, 16),))
        >>> torch.equal(batches.first[0][1], batches.second[0][0])
        True
    """
    row = min(min(map(len, xs)) - 1, 2)
    originals = [x[row : row + 1].detach() for x in xs]
    companions = [_clamp_extremes(companion(x), x) for x in originals]
    first = tuple(torch.cat(pair) for pair in zip(originals, companions, strict=True))
    changed = [_clamp_extremes(add_patches(x, field), x) for x in originals]
    second = tuple(map(torch.cat, zip(companions, changed, strict=True)))
    return Batches(first, second, (1, 0), (0, 1), [row, row])


def whole_batch(xs: Inputs, field: Field | None = None) -> Batches:
    """Return the batch unchanged and with patches on its first image, for models that take one batch size only."""
    first, last = tuple(x.detach() for x in xs), len(xs[0]) - 1
    if not last:
        return Batches(first, first, (0, 0), None, [0])
    second = tuple(torch.cat([add_patches(x[:1], field), x[1:]]) for x in first)
    return Batches(first, second, (last, last), (0, 0), list(range(last + 1)))


def one_image(xs: Inputs, field: Field | None = None) -> Batches:
    """Return the first image twice, for models that are run image by image."""
    return whole_batch(tuple(x[:1] for x in xs), field)


def companion(x: Tensor) -> Tensor:
    """Return a different image, turned by 180°, mixed with noise, and darker than a bright image or brighter than a dark one.

    Its brightness and contrast differ more than patches change them, so that sorting by either is detected.

    Args:
        x: Image (1, C, H, W), or any other input.

    Example:
        >>> x = torch.rand(1, 3, 8, 8)
        >>> bool((companion(x) != x).all())
        True
    """
    if not _has_pixels(x) or not x.numel():
        return x
    turned = _mix_with_noise(x.flip(2, 3) if x.ndim == 4 else x, 0.6, x, 0).double()
    low, high, mean = x.amin(), x.amax(), x.double().mean()
    return (0.7 * turned + 0.3 * torch.where(2 * mean > low.double() + high, low, high)).to(x.dtype)


def add_patches(x: Tensor, field: Field | None = None) -> Tensor:
    """Return images with two patches of noise, or other floating-point inputs with a little noise on all values.

    Args:
        x: Images (N, C, H, W), or any other input.
        field: (top, left, height, width) that the network reads, in pixels. Default: the whole image.

    Example:
        >>> x = torch.rand(1, 3, 112, 112)
        >>> (add_patches(x) != x).any(1).sum().item()  # two patches of 14 × 14 px
        392
    """
    if not _has_pixels(x):
        return x
    if x.ndim != 4 or min(x.shape[2:]) < 1 / PATCH:
        return _mix_with_noise(x, 0.9, x, 1)
    changed = x.clone()
    for place in range(len(PATCHES)):
        rows, columns = patch_slices(place, field or (0, 0, x.shape[2], x.shape[3]))
        changed[:, :, rows, columns] = _mix_with_noise(x[:, :, rows, columns], 0.0, x, 1 + place)
    return changed


def _has_pixels(x: Tensor) -> bool:
    """Return whether a tensor can be mixed with noise, as floating-point numbers and images in bytes can."""
    return torch.is_floating_point(x) or (x.ndim == 4 and x.dtype == torch.uint8)


def _clamp_extremes(changed: Tensor, x: Tensor) -> Tensor:
    """Clamp an image to slightly less than the range of x, so that the extremes of a batch change if x is in it."""
    if not torch.is_floating_point(x) or not x.numel():
        return changed
    low, high = x.amin(), x.amax()
    if not bool(high > low):  # a constant image has no range to keep
        return changed
    margin = EXTREMES * (high - low)
    return changed.clamp(low + margin, high - margin)


def _mix_with_noise(region: Tensor, share: float, x: Tensor, seed: int) -> Tensor:
    """Return a mixture of a region, with a weight of ``share``, and noise in the range of x."""
    if not x.numel():
        return region
    generator = torch.Generator(device="cpu").manual_seed(seed)
    dtype = x.dtype if torch.is_floating_point(x) else torch.float32
    low, high = x.amin().to(dtype), x.amax().to(dtype)
    noise = torch.rand(region.shape, generator=generator, dtype=torch.float64, device="cpu").to(x.device, dtype)
    return (share * region + (1 - share) * (low + torch.where(high > low, high - low, 1) * noise)).to(x.dtype)


def patch_slices(place: int, field: Field) -> tuple[slice, slice]:
    """Return the rows and columns of a patch.

    Args:
        place: Index of the patch.
        field: (top, left, height, width) that the network reads, in pixels.

    Example:
        >>> patch_slices(0, (0, 0, 112, 112))
        (slice(83, 97, None), slice(85, 99, None))
    """
    slices = []
    for start, side, share in zip(field[:2], field[2:], PATCHES[place], strict=True):
        width = max(2, round(side * PATCH))
        first = start + min(max(0, round(side * share - width / 2)), side - width)
        slices.append(slice(first, first + width))
    return slices[0], slices[1]


# -- the probe of a model ------------------------------------------------------------------------------


def check_model(
    forward_func: Callable[..., Any], images: Tensor, embed: Callable[[Tensor], Tensor], batch_size: int = 2
) -> ProbeRecord | None:
    """Raise if the embedding of an image depends on random numbers, on other images of its batch or on its row.

    Args:
        forward_func: Model whose findings are kept.
        images: Images (N, …) as the model takes them.
        embed: Function from a batch to embeddings (n, D), without gradients.
        batch_size: Number of images per pass of the call. With 1, dependence on other images is not tested. Default: 2.

    Returns:
        Record to compare the first batch with; None if the model was probed before or cannot be probed.

    Raises:
        CaptumLeamError: If the embedding depends on random numbers, on other images or on its row. Errors that the model itself raises in
            the probe are not raised.

    Example:
        >>> images = torch.rand(3, 3, 16, 16)
        >>> check_model(nn.Flatten(), images, nn.Flatten()).names
        ['the embedding']
        >>> subtract_mean = lambda x: (x - x.mean(0)).flatten(1)
        >>> check_model(subtract_mean, images, subtract_mean)
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: Expected the embedding for an image not to depend on the other images of its batch, ...
    """
    if not can_be_probed((images,)):
        return None
    key = ("embeddings", batch_size == 1, input_kind(images))
    with model_findings(forward_func) as findings:
        if key in findings:
            return None
        generators = generators_of(forward_func)
        first_batch = (images[:batch_size],)
        experiments = (one_image,) if batch_size == 1 else (two_images, whole_batch)
        experiment = run_first_possible(
            experiments, first_batch, None, lambda b: ([embed(b.first[0])], [embed(b.second[0])]), generators
        )
        if experiment is None:
            return None
        batches, (first, second), drew = experiment
        names, tolerance = ["the embedding"], tolerance_of(forward_func, first)
        check_same(first, second, batches, names, tolerance, lambda: [embed(batches.first[0])], generators)
        if drew and batch_size > 1:
            check_order_of_many(images, lambda many: [embed(many)], names, tolerance, generators)
        findings[key] = True
        return record_of(batches, first, names, tolerance)


def record_of(batches: Batches, first: Sequence[Tensor], names: Sequence[str], tolerance: float) -> ProbeRecord | None:
    """Return the unchanged image of the first batch with its results; None if the precision is too low for a comparison."""
    if batches.changed is None or tolerance > TOLERANCE:
        return None
    row = batches.changed[0]
    return ProbeRecord(
        tuple(x[row : row + 1] for x in batches.first), [v[row : row + 1].detach() for v in first], names
    )


# -- checks --------------------------------------------------------------------------------------------


def check_same(
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    batches: Batches,
    names: Sequence[str],
    tolerance: float,
    repeat: Callable[[], Sequence[Tensor]],
    generators: Sequence[Any],
) -> None:
    """Raise if the same image has different values in both passes; two more passes show whether random numbers are the reason."""
    first_row, second_row = batches.same
    for before, after, name in zip(first, second, names, strict=True):
        difference = _distance(before[first_row], after[second_row])
        if difference <= tolerance:
            continue
        with _preserve_random_numbers(generators), immediate_checks():
            pairs = list(zip(repeat(), repeat(), strict=True))
        random_difference = max(_distance(once, again) for once, again in pairs)
        if random_difference > tolerance:
            raise CaptumLeamError(
                f"Expected two passes over the same images to agree, got a relative difference of {random_difference:.2g}: results would "
                "be random. Let dropout and noise depend on self.training (F.dropout has training=True by default), and call model.eval()."
            )
        raise CaptumLeamError(depends_message(name, f"a relative difference of {difference:.2g} beside another image"))


def depends_message(what: str, found: str) -> str:
    """Return the message for results that depend on other images of the batch.

    Args:
        what: Name of the results.
        found: Difference that shows it.
    """
    return (
        f"Expected {what} for an image not to depend on the other images of its batch, got {found}: every image's map would depend on the "
        "others. Use running statistics (model.eval()), do not sort or shuffle the batch, or explain the network inside."
    )


def check_order_of_many(
    x: Tensor,
    run: Callable[[Tensor], Sequence[Tensor]],
    names: Sequence[str],
    tolerance: float,
    generators: Sequence[Any],
) -> None:
    """Raise if a model that draws random numbers reorders eight shades of one image."""
    shades = torch.linspace(0.8, 1.0, SHUFFLED_IMAGES, dtype=torch.float32, device=x.device)
    many = (x[:1].detach() * shades.view(-1, *[1] * (x.ndim - 1))).to(x.dtype)
    try:
        with _preserve_random_numbers(generators), immediate_checks():
            pairs = list(zip(run(many), run(many.flip(0)), names, strict=True))
    except Exception:  # the model may not take eight images, in which case the check on two must suffice
        return
    for once, again, name in pairs:
        if _distance(once, again.flip(0)) > tolerance:
            raise CaptumLeamError(
                f"Expected {name} to keep the order of the images, but the model draws random numbers, and two passes over "
                f"{SHUFFLED_IMAGES} images differ: results would be random. Remove the shuffling, or explain the network inside."
            )


def _distance(a: Tensor, b: Tensor) -> float:
    """Return the distance of two tensors relative to their norm; 0 if either is not finite, which the call itself reports."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.detach().float(), b.detach().float()
    length = torch.maximum(torch.linalg.vector_norm(a), torch.linalg.vector_norm(b))
    off = float(torch.linalg.vector_norm(a - b) / length.clamp_min(torch.finfo(torch.float32).tiny))
    return off if np.isfinite(off) else 0.0


# -- running it ----------------------------------------------------------------------------------------


def run_first_possible(
    experiments: Sequence[Callable[[Inputs, Field | None], Batches]],
    xs: Inputs,
    field: Field | None,
    run: Callable[[Batches], T],
    generators: Sequence[Any],
) -> tuple[Batches, T, bool] | None:
    """Return batches and result of the first experiment that does not raise, and whether it drew random numbers; None if all raise."""
    for make in experiments:
        batches = make(xs, field)
        try:
            with _preserve_random_numbers(generators) as drew, immediate_checks():
                result = run(batches)
        except Exception as error:  # the call itself will raise any error, for the caller's images
            if is_out_of_memory(error):
                return None
            continue
        return batches, result, bool(drew)
    return None


@contextmanager
def _preserve_random_numbers(generators: Sequence[Any]) -> Iterator[list[str]]:
    """Context manager that restores the random numbers of the process and the model, and lists the generators that were used."""
    states = [_random_state(generator) for generator in (np.random, random, *generators)]
    drew: list[str] = []
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=devices):
            before = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]
            yield drew
            after = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]
        if any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            drew.append("torch")
    finally:
        for state, read, restore in states:
            if pickle.dumps(read()) != pickle.dumps(state):
                drew.append(str(read))
                restore(state)


def _random_state(generator: Any) -> tuple[Any, Callable[[], Any], Callable[[Any], Any]]:
    """Return the state of a generator of PyTorch, NumPy or Python, and functions that read and set it."""
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        return bits.state, lambda: bits.state, lambda state: setattr(bits, "state", state)
    if hasattr(generator, "getstate"):
        read, write = generator.getstate, generator.setstate
    else:
        read, write = generator.get_state, generator.set_state
    return read(), read, write


def can_be_probed(xs: Inputs) -> bool:
    """Return whether there is an image to probe with."""
    return bool(xs) and all(x.ndim > 0 and len(x) > 0 for x in xs) and any(map(_has_pixels, xs))


def input_kind(x: Any) -> Any:
    """Return the properties of an argument that may change what the model does: shape, dtype, device and autocast, or its state."""
    if not isinstance(x, Tensor):
        return state_of(x)
    return (tuple(x.shape[1:]), x.dtype, x.device, torch.is_autocast_enabled(x.device.type))


def tolerance_of(forward_func: Callable[..., Any], tensors: Sequence[Tensor]) -> float:
    """Return the relative distance up to which two results of a model are equal in its precision."""
    half = (torch.float16, torch.bfloat16)
    coarse = any(t.dtype in half or torch.is_autocast_enabled(t.device.type) for t in tensors)
    modules = (m for root in modules_behind(forward_func) for m in root.modules())
    return COARSE_TOLERANCE if coarse or any(_is_coarse(m) for m in modules) else TOLERANCE


def _is_coarse(module: nn.Module) -> bool:
    half = any(p is not None and p.dtype in (torch.float16, torch.bfloat16) for p in module._parameters.values())
    return half or "quantized" in type(module).__module__


# -- findings ------------------------------------------------------------------------------------------


@dataclass
class _StateFindings:
    """Findings about a model in one state.

    Attributes:
        state: Entries of the model when it was probed.
        volatile: Entries that a forward pass changes.
        findings: Findings by the kind of question.
    """

    state: dict[Any, dict[str, Any]]
    volatile: set[tuple[Any, str]] = of_dataclass(default_factory=set)
    findings: dict[Any, Any] = of_dataclass(default_factory=dict)

    def matches(self, state: dict[Any, dict[str, Any]]) -> bool:
        """Return whether a state is this one, apart from entries that forward passes change."""
        return self.state == state or changes(self.state, state) <= self.volatile


_FINDINGS: WeakKeyDictionary[Any, list[_StateFindings]] = WeakKeyDictionary()
_LOCK = threading.Lock()


@contextmanager
def model_findings(forward_func: Callable[..., Any], layers: Sequence[nn.Module] = ()) -> Iterator[dict[Any, Any]]:
    """Context manager that yields the findings about a model in its present state, to read and to add to."""
    anchor, state = anchor_of(forward_func), entries(forward_func, layers)
    stored = _look_up(anchor)
    for of_state in stored:
        if of_state.matches(state):
            yield of_state.findings
            return
    new = _StateFindings(state)
    yield new.findings
    new.volatile = changes(state, entries(forward_func, layers))
    with _LOCK, suppress(TypeError):  # findings about callables without weak references are not kept
        _FINDINGS[anchor] = [new, *stored][:MAX_STATES]


def _look_up(anchor: Any) -> list[_StateFindings]:
    with _LOCK:
        try:
            return _FINDINGS.get(anchor, [])
        except TypeError:
            return []
