"""Decompositions over positions against the hand-derived weights of the heads, and sums against the cosine."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_leam import LEAM
from captum_leam.explainers import Correspondences, GapDecomposition, PositionDecomposition
from tests.helpers.networks import Net, Residual


class Gap(nn.Module):
    """Convolution, global average pooling, and a linear layer with bias."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.linear = nn.Linear(6, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.body(x).mean((2, 3)))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a, b).detach()


def literal_positions(net: Net, face: Tensor) -> Tensor:
    """Zhu et al.: flatten, fully connected, BatchNorm, one position after the other, by hand: (16, D)."""
    acts = net.body(face[None])[0]
    linear, norm = net.head[1], net.head[2]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    per_position = linear.weight.view(10, 8, 4, 4)
    rows = []
    for row in range(4):
        for column in range(4):
            rows.append(scale * (per_position[:, :, row, column] @ acts[:, row, column]))
    return torch.stack(rows).detach()


def test_positions_equal_the_literal_weights_of_the_head(net, faces, references):
    maps = PositionDecomposition(net, net.body, batch_size=2).decompose(faces, reference=references)
    for i in range(3):
        expected = (
            literal_positions(net, faces[i]) @ references[i] / references[i].norm() / net(faces[i : i + 1]).norm()
        )
        assert torch.allclose(maps[i].flatten(), expected, atol=1e-12)


def test_positions_sum_to_the_cosine_but_for_the_offset(net, faces, references):
    method = PositionDecomposition(net, net.body)
    maps = method.decompose(faces, reference=references)
    f = net(faces).detach()
    offset = net.head(torch.zeros(1, 8, 4, 4, dtype=torch.float64))[0].detach()
    assert torch.allclose(method.head.offset, offset, atol=1e-12)
    added = (F.normalize(references, dim=1) @ offset) / f.norm(dim=1)
    assert torch.allclose(maps.sum((1, 2, 3)) + added, cosine(f, references), atol=1e-12)


def test_position_decomposition_is_leams_map_of_one_pass(net, faces, references):
    expected = LEAM(net, net.body).attribute(faces, reference=references)
    assert torch.allclose(
        PositionDecomposition(net, net.body).decompose(faces, reference=references), expected, atol=1e-12
    )
    images = F.interpolate(expected, (16, 16), mode="bilinear", align_corners=False)
    assert torch.allclose(
        PositionDecomposition(net, net.body).attribute(faces, reference=references), images, atol=1e-12
    )


def test_gap_equals_stylianous_formula(references):
    """Without a linear layer: s = mean over positions of A_p · g / (‖f‖‖g‖)."""
    net = nn.Sequential(nn.Conv2d(3, 10, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    faces = torch.rand(3, 3, 12, 16, dtype=torch.float64)
    maps = GapDecomposition(net, net[1]).decompose(faces, reference=references)
    assert maps.shape == (3, 1, 6, 8)
    acts = net[:2](faces).detach()
    for i in range(3):
        f = acts[i].mean((1, 2))
        for row in range(6):
            for column in range(8):
                share = (acts[i, :, row, column] @ references[i]) / 48 / f.norm() / references[i].norm()
                assert maps[i, 0, row, column].item() == pytest.approx(share.item(), abs=1e-12)
    assert torch.allclose(maps.sum((1, 2, 3)), cosine(net(faces), references), atol=1e-12)


def test_gap_decomposition_sums_to_the_cosine_and_needs_average_pooling(net, faces, references):
    gap = Gap().double()
    maps = GapDecomposition(gap, gap.body).decompose(faces, reference=references[:, :5])
    added = F.normalize(references[:, :5], dim=1) @ gap.linear.bias.detach() / gap(faces).detach().norm(dim=1)
    assert torch.allclose(maps.sum((1, 2, 3)) + added, cosine(gap(faces), references[:, :5]), atol=1e-12)
    with pytest.raises(
        ValueError, match=r"'body' \(Body\) to have equal weights at all positions.*PositionDecomposition"
    ):
        GapDecomposition(net, net.body).attribute(faces, reference=references)


def test_correspondences_equal_the_literal_double_loop(net, faces):
    partners = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    method = PositionDecomposition(net, net.body, batch_size=2)
    pairs = method.correspondences(faces, partners)
    assert pairs.matrix.shape == (3, 16, 16)
    assert method.cost.forwards == 2 + 2 / 3
    assert not pairs.matrix.requires_grad
    assert not pairs.rest.requires_grad
    for i in range(3):
        a, b = literal_positions(net, faces[i]), literal_positions(net, partners[i])
        lengths = (net(faces[i : i + 1]).norm() * net(partners[i : i + 1]).norm()).item()
        for p in range(16):
            for q in range(16):
                assert pairs.matrix[i, p, q].item() == pytest.approx((a[p] @ b[q]).item() / lengths, abs=1e-12)
    assert torch.allclose(pairs.matrix.sum((1, 2)) + pairs.rest, cosine(net(faces), net(partners)), atol=1e-12)
    shared = method.correspondences(faces, partners[:1])
    assert torch.allclose(shared.matrix[0], pairs.matrix[0], atol=1e-12)
    assert shared.matrix.shape == (3, 16, 16)
    with pytest.raises(ValueError, match="one per image for 3 images, got 2"):
        method.correspondences(faces, partners[:2])


def test_rows_of_the_matrix_sum_to_the_map_without_offset(net, faces):
    """Against a partner whose offset is nothing, the map is the matrix summed over the partner's positions."""
    net.head[1].bias.data.zero_()
    net.head[2].running_mean.zero_()
    method = PositionDecomposition(net, net.body)
    pairs = method.correspondences(faces, faces.flip(0))
    maps = method.decompose(faces, reference=net(faces.flip(0)).detach())
    assert torch.allclose(pairs.matrix.sum(2), maps.flatten(1), atol=1e-12)
    assert pairs.rest.abs().max() < 1e-12


def test_lines_by_hand_join_the_strongest_cells():
    """2 × 3 positions on the field (10, 20, 40, 60): cells of 20 px."""
    matrix = torch.zeros(1, 6, 6)
    matrix[0, 0, 5], matrix[0, 4, 2], matrix[0, 1, 1] = 3.0, 2.0, -9.0
    pairs = Correspondences(matrix, torch.zeros(1), (2, 3))
    lines = pairs.lines((60, 90), (10, 20, 40, 60), count=2)
    assert lines.tolist() == [[[30.0, 20.0, 70.0, 40.0], [50.0, 40.0, 70.0, 20.0]]]
    assert pairs.strengths(count=3).tolist() == [[3.0, 2.0, 0.0]]
    with pytest.raises(ValueError, match="pairs of positions, 36, got 37"):
        pairs.lines((60, 90), count=37)


def test_a_head_that_is_not_affine_raises(net, faces, references):
    with pytest.raises(ValueError, match=r"affine after layer 'body\.act' \(Softplus\)"):
        PositionDecomposition(net, net.body.act).attribute(faces, reference=references)

    class MaxPooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 10, 3, 2, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).amax((2, 3))

    pooled = MaxPooled().double().eval()
    with pytest.raises(ValueError, match="to be affine after layer"):
        PositionDecomposition(pooled, pooled.conv).attribute(faces, reference=references)


def test_positions_of_a_residual_network_sum_to_the_cosine_in_single_precision():
    net = Residual()
    faces, references = torch.rand(4, 3, 16, 16), torch.randn(4, 12)
    method = PositionDecomposition(net, net.out)
    maps = method.decompose(faces, reference=references)
    added = F.normalize(references, dim=1) @ method.head.offset / net(faces).norm(dim=1)
    assert torch.allclose(maps.sum((1, 2, 3)) + added, cosine(net(faces), references), atol=1e-5)


@pytest.mark.real
def test_real_heads_are_affine_and_sum_to_the_cosine(real_models):
    for make in real_models.RECOGNISERS.values():
        model = make()
        faces, references = torch.rand(2, 3, 112, 112), torch.randn(2, 128)
        method = PositionDecomposition(model, model.expand)
        maps = method.decompose(faces, reference=references)
        assert maps.shape[2] == 7
        added = F.normalize(references, dim=1) @ method.head.offset / model(faces).norm(dim=1)
        assert torch.allclose(maps.sum((1, 2, 3)) + added, cosine(model(faces), references), atol=1e-4)
