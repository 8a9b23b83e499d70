"""The measurement kernel of occlusion."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from captum_leam.faithfulness.fills import as_fill
from captum_leam.faithfulness.occluded_batch import MeasuredModel, OccludedBatch, masks_of_pixels


@pytest.mark.parametrize("fill", ["blur", "mean", "noisy linear", "shuffle", "zero"])
@pytest.mark.parametrize("counts", [[1, 5, 20], [20, 5, 9], [7, 7], []])
def test_sets_of_pixels_that_grow_have_the_drops_of_whole_masks(fill, counts):
    torch.manual_seed(0)
    images, net = torch.rand(3, 3, 8, 8), nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()
    before = images.clone()
    towards = F.normalize(torch.randn(3, 5, dtype=torch.float64), dim=1)

    def embed(x):
        return net(x).detach().double()

    model = MeasuredModel(embed, towards, (F.normalize(embed(images), dim=1) * towards).sum(1))
    order = torch.stack([torch.randperm(64) for _ in range(3)])
    batch = OccludedBatch(images, [as_fill(fill)], {"net": model})
    whole, _ = batch.measure(masks_of_pixels(order, counts, (8, 8)), ["net"])
    assert np.array_equal(batch.measure_top(order, counts, ["net"]), whole)
    assert torch.equal(images, before)
    assert whole.shape == (3, len(counts))
