"""What goes into networks, by hand."""

import pytest
import torch
from torch import nn

from captum_leam.models import IMAGENET, INSIGHTFACE, UNIT, Prepared, Preprocessing
from captum_leam.models.preprocessing import smooth_images


def test_preprocessing_scales_reorders_and_normalises_as_named():
    red = torch.zeros(1, 3, 1, 2)
    red[:, 0] = 1
    assert Preprocessing(std=(1 / 255,) * 3)(red)[0, :, 0, 0].tolist() == pytest.approx([255, 0, 0])
    assert Preprocessing(colour="bgr")(red)[0, :, 0, 0].tolist() == [0, 0, 1]
    assert Preprocessing(layout="NHWC")(red).shape == (1, 1, 2, 3)
    assert INSIGHTFACE(red)[0, :, 0, 0].tolist() == [1, -1, -1]
    assert IMAGENET(red)[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert UNIT(red).equal(red)


def test_means_are_in_the_order_of_the_network():
    first = Preprocessing(mean=(0.1, 0.2, 0.3), colour="bgr")(torch.zeros(1, 3, 1, 1))
    assert first.flatten().tolist() == pytest.approx([-0.1, -0.2, -0.3])


def test_gradients_reach_the_image():
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    Prepared(nn.Flatten().eval(), Preprocessing(std=(0.5, 0.25, 0.1), colour="bgr"))(x).sum().backward()
    assert x.grad[0, :, 0, 0].tolist() == pytest.approx([10, 4, 2])  # red is last


def test_the_mode_is_that_of_the_network():
    assert not Prepared(nn.Flatten().eval(), UNIT).training
    assert Prepared(nn.Flatten().train(), UNIT).training
    assert "std=(0.5, 0.5, 0.5)" in repr(Prepared(nn.Flatten(), INSIGHTFACE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": (1, 0, 1)}, "std above 0"),
        ({"mean": (0.5,)}, "three numbers"),
        ({"colour": "RGB"}, "colour to be .* got 'RGB'"),
        ({"layout": "CHW"}, "layout to be .* got 'CHW'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**options)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 4, 4), r"got \(3, 4, 4\)"),
        (torch.rand(1, 1, 4, 4), r"got \(1, 1, 4, 4\)"),
        (torch.rand(1, 3, 5, 4), r"images of size \(4, 4\), as the network reads, got \(5, 4\)"),
        (torch.full((1, 3, 4, 4), 255.0), "Divide by 255"),
    ],
)
def test_images_are_checked(images, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(size=(4, 4))(images)


def test_random_images_leave_the_generator_alone():
    before = torch.random.get_rng_state()
    assert smooth_images(2, (8, 8), seed=3).equal(smooth_images(2, (8, 8), seed=3))
    assert torch.equal(before, torch.random.get_rng_state())
