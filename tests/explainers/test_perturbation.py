"""CorrRISE, RISE and xFace against loops over masks and pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import rankdata, spearmanr
from torch import Tensor, nn

from captum_leam.explainers import RISE, CorrRISE, XFace
from captum_leam.explainers.perturbation import patch_masks, ranks, sliding_masks, smooth_masks


def cosine(net: nn.Module, image: Tensor, r: Tensor) -> float:
    return F.cosine_similarity(net(image[None]), r[None]).item()


def literal_scores(net: nn.Module, face: Tensor, masks: Tensor, r: Tensor) -> list[float]:
    return [cosine(net, face * mask.to(face), r) for mask in masks]


def test_corrrise_equals_scipys_spearman_pixel_by_pixel(net, faces, references):
    masks = patch_masks(60, (16, 16), 4, 3, seed=5)
    maps = CorrRISE(net, masks=60, seed=5, batch_size=7).attribute(faces, reference=references)
    for i in range(3):
        scores = literal_scores(net, faces[i], masks, references[i])
        for row in range(16):
            for column in range(16):
                shown = masks[:, row, column].numpy()
                expected = spearmanr(shown, scores).statistic if shown.std() else 0.0
                assert maps[i, 0, row, column].item() == pytest.approx(expected, abs=1e-12)


def test_corrrise_finds_the_only_part_that_counts(references):
    """A network that reads one quarter: only there does hiding matter, and hiding it lowers the score."""

    class Quarter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            quarter = x[:, 0, :8, :8].mean((1, 2))
            return torch.stack([quarter, 1 - quarter], 1)

    maps = CorrRISE(Quarter(), masks=400, patch=4).attribute(
        torch.ones(1, 1, 16, 16), reference=torch.tensor([1.0, 0.0])
    )[0, 0]
    assert maps[:8, :8].min() > 0.05
    assert maps[2:6, 2:6].min() > 0.3
    assert maps[12:, 12:].abs().max() < 0.2


def test_pixels_that_are_never_hidden_and_constant_scores_get_zero(references):
    maps = CorrRISE(lambda x: x.new_ones(len(x), 4), masks=5).attribute(
        torch.ones(1, 1, 16, 16), reference=torch.ones(4)
    )
    assert (maps == 0).all()
    always = CorrRISE(lambda x: x.flatten(1), masks=5, patch=16).attribute(
        torch.rand(1, 1, 16, 16), reference=torch.ones(256)
    )
    assert (always == 0).all()


def test_ranks_are_scipys():
    values = torch.tensor([[0.5, 0.1, 0.5, 0.5, -2.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    assert np.array_equal(ranks(values).numpy(), rankdata(values.numpy(), axis=1))


def test_patch_masks_hide_one_square_anywhere():
    masks = patch_masks(300, (10, 14), 4, 1, seed=0)
    corners = {tuple((m == 0).nonzero()[0].tolist()) for m in masks}
    assert (masks.sum((1, 2)) == 140 - 16).all()
    assert {top for top, _ in corners} == set(range(7))
    assert {left for _, left in corners} == set(range(11))
    for mask in masks:
        rows, columns = (mask == 0).nonzero().T
        assert rows.max() - rows.min() == 3
        assert columns.max() - columns.min() == 3
    assert torch.equal(patch_masks(5, (10, 14), 4, 2, seed=3), patch_masks(5, (10, 14), 4, 2, seed=3))
    assert not torch.equal(patch_masks(5, (10, 14), 4, 2, seed=3), patch_masks(5, (10, 14), 4, 2, seed=4))


def test_default_patches_are_30_of_112():
    class Seen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            hidden.append((x == 0).flatten(1).sum(1))
            return x.flatten(1)[:, :2]

    hidden: list[Tensor] = []
    CorrRISE(Seen(), masks=10, patches=1).attribute(torch.ones(1, 1, 112, 112), reference=torch.ones(2))
    assert torch.cat(hidden)[-10:].tolist() == [900] * 10  # behind those that probe the model


def test_rise_equals_the_literal_sum(net, faces, references):
    masks = smooth_masks(30, (16, 16), 4, 0.3, seed=2)
    maps = RISE(net, masks=30, cells=4, probability=0.3, seed=2, batch_size=8).attribute(faces, reference=references)
    for i in range(3):
        scores = literal_scores(net, faces[i], masks, references[i])
        expected = sum(s * m.double() for s, m in zip(scores, masks, strict=True)) / 30 / 0.3
        assert torch.allclose(maps[i, 0], expected, atol=1e-12)


def test_smooth_masks_show_their_share_everywhere():
    masks = smooth_masks(4000, (15, 22), 5, 0.3, seed=0)
    assert masks.shape == (4000, 15, 22)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert (masks.mean(0) - 0.3).abs().max() < 0.03
    assert ((masks > 0) & (masks < 1)).any()


def test_xface_equals_the_literal_loop(net, faces, references):
    maps = XFace(net, patches=(3, 6), stride=2, batch_size=11).attribute(faces, reference=references)
    for i in range(3):
        clean, total, count = 1 - cosine(net, faces[i], references[i]), np.zeros((16, 16)), 0
        for patch in (3, 6):
            for top in range(0, 16 - patch, 2):
                for left in range(0, 16 - patch, 2):
                    occluded = faces[i].clone()
                    occluded[:, top : top + patch, left : left + patch] = 0
                    distance = 1 - cosine(net, occluded, references[i])
                    total[top : top + patch, left : left + patch] += (distance - clean) / patch**2
                    count += 1
        assert np.allclose(maps[i, 0].numpy(), total / count, atol=1e-12)


def test_xfaces_defaults_are_the_papers():
    assert len(sliding_masks((112, 112), (7, 14, 28), 5)) * 2 + 2 == 2262
    method = XFace(nn.Flatten())
    method.attribute(torch.rand(1, 1, 112, 112), reference=torch.ones(112 * 112))
    assert method.cost.forwards == 1131


def test_wrong_settings_raise(net, faces, references):
    with pytest.raises(ValueError, match="patch to be a width from 1 to 16 px, got 17"):
        CorrRISE(net, patch=17).attribute(faces, reference=references)
    with pytest.raises(ValueError, match="masks to be 3 or more, got 2"):
        CorrRISE(net, masks=2)
    with pytest.raises(ValueError, match=r"probability to be in \(0, 1\), got 1\.0"):
        RISE(net, probability=1.0)
    with pytest.raises(ValueError, match="below 16 px"):
        XFace(net, patches=(16,)).attribute(faces, reference=references)


def test_black_boxes_are_explained(net, faces, references):
    """Functions that leave torch: what gradients cannot explain."""

    def box(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.from_numpy(net(x).numpy())

    for make in (lambda m: CorrRISE(m, masks=20), lambda m: RISE(m, masks=20), lambda m: XFace(m, patches=(4,))):
        maps = make(box).attribute(faces, reference=references)
        assert torch.allclose(maps, make(net).attribute(faces, reference=references), atol=1e-12)
