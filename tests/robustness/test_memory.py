"""Too little memory for a batch: tried again with half of it, told, and the results are those of enough memory."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_leam import LEAM, explain_faces
from captum_leam._engine.memory import TooLargeError, in_batches, is_out_of_memory
from captum_leam.objectives import embed
from tests.helpers.entry_points import CALLS, EXPLAINERS, Scene, numbers, same
from tests.helpers.networks import Net


class Short(Net):
    """A network that raises above a number of images, as a GPU that is too small does."""

    def __init__(self, most: int | None = None, error: type[RuntimeError] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.most, self.error = most, error

    def forward(self, x: Tensor) -> Tensor:
        if self.most is not None and len(x) > self.most:
            raise self.error(f"CUDA out of memory. Tried to allocate {len(x)} images.")
        return super().forward(x)


def said(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(w.message) for w in caught if "after an out-of-memory error" in str(w.message)]


def with_most(scene: Scene, most: int | None, name: str) -> tuple[Any, list[str]]:
    scene.net.most = most
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return numbers(CALLS[name](scene)), said(caught)


IN_BATCHES = [
    *EXPLAINERS,
    "explain_faces",
    "explain_faces, fast",
    "embed",
    "verify",
    "OcclusionEvaluator",
    "correspondences",
]
IN_BATCHES += ["VerificationEvaluator", "evaluate_patch_pairs", "evaluate_person_masks", "explain_images"]


@pytest.mark.parametrize("name", IN_BATCHES)
def test_half_of_a_batch_that_does_not_fit_is_tried(name):
    net, most = Short(), 4 if name.startswith("explain_") else 1  # layers and field are found on up to four images
    scene = Scene(net)
    if most > 1:
        scene = Scene(net, torch.rand(8, 3, 16, 16), torch.randn(8, 10), batch_size=8)
    expected, nothing = with_most(scene, None, name)
    found, messages = with_most(scene, most, name)
    # Adam enlarges rounding; Captum keeps Shapley values in single precision
    assert same(found, expected, 1e-3 if name == "ExtremalPerturbation" else 1e-5)
    assert not nothing
    assert messages
    halves = {most, 3} if name == "explain_images" else {most}  # curves are of the first six images
    assert all(any(f"used {half} after" in message for half in halves) for message in messages)


def test_the_first_size_that_fits_is_kept_with_a_warning():
    """64 → 32 → 16 → 8: three attempts fail, once; what follows is made with what worked."""
    net, images, seen = Short(), torch.rand(100, 3, 16, 16), []
    expected = embed(net, images)
    net.most = 10
    net.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    with pytest.warns(
        UserWarning, match=r"Expected 64 images at a time to fit into memory, used 8 .* Pass batch_size=8"
    ):
        found = embed(net, images)
    assert torch.allclose(found, expected, atol=1e-6)
    assert seen == [2, 2, 64, 32, 16, *[8] * 12, 4]  # two passes on two images probe the model


def test_one_image_that_does_not_fit_raises():
    scene = Scene(Short(0))
    words = r"one image at a time does not fit into memory \(CUDA out of memory\. Tried to allocate 1 images\.\)\. Use smaller"
    for call in (
        lambda: embed(scene.net, scene.faces),
        lambda: explain_faces(scene.net, scene.faces, layers=[scene.net.body], field=(0, 0, 16, 16)),
        *[
            lambda make=make: make(scene.net).attribute(scene.faces, reference=scene.references)
            for make in EXPLAINERS.values()
        ],
    ):
        with pytest.raises(TooLargeError, match=words) as raised:
            call()
        assert isinstance(raised.value, torch.OutOfMemoryError)  # who catches PyTorch's catches this
        assert isinstance(raised.value, MemoryError)


def test_fewer_steps_of_a_path_are_tried_at_a_time():
    scene = Scene(Short())
    leam, options = LEAM(scene.net, scene.net.body), {"n_steps": 8, "reference": scene.references}
    expected = leam.attribute(scene.faces, **options)
    scene.net.most = 8  # two steps of four images
    with pytest.warns(UserWarning, match="Expected 8 steps at a time to fit into memory, used 2"):
        found = leam.attribute(scene.faces, internal_batch_size=32, **options)
    assert torch.allclose(found, expected, atol=1e-6)
    scene.net.most = 3
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate 4 images"):
        leam.attribute(scene.faces)  # one pass, by contract: the batch is the caller's


def test_no_second_pass_of_what_does_not_fit():
    """The pass that keeps nothing before the layer is not taken for one that the model refuses, and tried with more."""
    calls = []
    scene = Scene(Short(0, RuntimeError))
    scene.net.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    with pytest.raises(RuntimeError, match=r"^CUDA out of memory"):
        LEAM(scene.net, scene.net.body).attribute(scene.faces)
    assert calls == [2, 4]  # the probe, and the call


def test_out_of_memory_in_the_backward_pass_halves_the_batch(monkeypatch):
    """Its error keeps its kind, so that it is seen by what halves batches."""
    scene, real = Scene(), torch.autograd.grad
    expected = explain_faces(scene.net, scene.faces, "fast", reference=scene.references)

    def grad(outputs: Tensor, inputs: Any, *args: Any, **more: Any) -> Any:
        first = inputs if isinstance(inputs, Tensor) else inputs[0]
        if len(first) > 2 and first.shape[1] != 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(outputs, inputs, *args, **more)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    with pytest.warns(UserWarning, match="used 2 after"):
        found = explain_faces(
            scene.net,
            scene.faces,
            "fast",
            reference=scene.references,
            layers=[scene.net.body.act, scene.net.body],
            field=(0, 0, 16, 16),
        )
    monkeypatch.undo()
    again = explain_faces(
        scene.net,
        scene.faces,
        "fast",
        reference=scene.references,
        layers=[scene.net.body.act, scene.net.body],
        field=(0, 0, 16, 16),
    )
    assert torch.allclose(found, again, atol=1e-6)
    assert found.shape == expected.shape


def test_pytorchs_own_out_of_memory_errors_are_recognised():
    """An allocation that no computer grants."""
    for impossible in (lambda: torch.empty(10**15), lambda: torch.empty(10**15, dtype=torch.uint8).numpy()):
        with pytest.raises(RuntimeError) as raised:
            impossible()
        assert is_out_of_memory(raised.value), raised.value
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_another_error_is_not_tried_again():
    calls = []

    def make(rows: slice) -> None:
        calls.append(rows)
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_batches(make, 10, 4)
    assert len(calls) == 1
    with pytest.raises(ValueError, match="batch_size.* got 0"):
        in_batches(make, 10, 0)


def test_a_study_warns_and_goes_on_with_smaller_batches(monkeypatch):
    """Running out of memory is not blamed on a picture: no row is lost."""
    np = pytest.importorskip("numpy")
    crops = pytest.importorskip("captum_leam.study.reading", reason="studies need pip install 'captum-leam[study]'")

    def make(rows: Any) -> int:
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return len(rows)

    with pytest.warns(UserWarning, match="Expected 4 images at a time to fit into memory, used 2"):
        assert [made for _, made, _ in crops.bisect_failures(make, np.arange(4))] == [2, 2]
    with pytest.raises(TooLargeError, match="one image at a time does not fit"):
        list(crops.bisect_failures(lambda rows: embed(Short(0), torch.rand(1, 3, 16, 16)), np.arange(1)))
