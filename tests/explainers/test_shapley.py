"""Region values (in single precision, as Captum keeps them) against literal marginals, exact Shapley values, and the axioms."""

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_leam.explainers import RegionShapley
from captum_leam.maps import default_blur
from captum_leam.regions import TemplateParser


def stripes(images: Tensor) -> Tensor:
    """Three regions of 4, 4 and 8 rows, with labels that leave gaps."""
    rows = torch.tensor([7] * 4 + [2] * 4 + [40] * 8)
    return rows[:, None].expand(len(images), 16, 16)


def score(net: nn.Module, face: Tensor, r: Tensor, labels: Tensor, kept: list[int]) -> float:
    """The face where its label is kept, blurred elsewhere."""
    show = torch.isin(labels, torch.tensor(kept, dtype=torch.long))
    x = torch.where(show, face, default_blur(face[None])[0])
    return F.cosine_similarity(net(x[None]), r[None]).item()


def marginals(net: nn.Module, face: Tensor, r: Tensor, labels: Tensor, orders: list[list[int]]) -> dict[int, float]:
    values = dict.fromkeys(orders[0], 0.0)
    for order in orders:
        for i, label in enumerate(order):
            gain = score(net, face, r, labels, order[: i + 1]) - score(net, face, r, labels, order[:i])
            values[label] += gain / len(orders)
    return values


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_region_shapley_equals_the_literal_marginal_contributions(net, faces, references, batch_size):
    maps = RegionShapley(net, stripes, orders=4, seed=3, batch_size=batch_size).attribute(faces, reference=references)
    generator = torch.Generator().manual_seed(3)
    names = [2, 7, 40]  # in increasing order, as regions are counted
    orders = [[names[k] for k in torch.randperm(3, generator=generator)] for _ in range(4)]
    labels = stripes(faces)[0]
    for i in range(3):
        for label, value in marginals(net, faces[i], references[i], labels, orders).items():
            region = maps[i, 0][labels == label]
            assert region.unique().numel() == 1
            assert region.sum().item() == pytest.approx(value, abs=1e-6)


def test_region_shapley_tends_to_the_exact_values(net, faces, references):
    labels = stripes(faces)[0]
    exact = marginals(net, faces[0], references[0], labels, [list(p) for p in permutations([2, 7, 40])])
    maps = RegionShapley(net, stripes, orders=300).attribute(faces[:1], reference=references[:1])
    largest = max(map(abs, exact.values()))
    for label, value in exact.items():
        assert maps[0, 0][labels == label].sum().item() == pytest.approx(value, abs=0.05 * largest)


def test_the_map_sums_to_the_change_of_the_score(net, faces, references):
    """Efficiency holds for every number of orders; a region that the fill leaves as it is gets nothing."""
    maps = RegionShapley(net, stripes, orders=1).attribute(faces, reference=references)
    change = F.cosine_similarity(net(faces), references) - F.cosine_similarity(net(default_blur(faces)), references)
    assert torch.allclose(maps.sum((1, 2, 3)), change.detach(), atol=1e-6)

    def only_top(images: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(images[:, :, :4]), images[:, :, 4:]], 2)

    top = RegionShapley(net, stripes, orders=2, fill=only_top).attribute(faces, reference=references)
    assert top[:, :, 4:].abs().max() < 1e-12
    assert top[:, :, :4].abs().min() > 0


def test_region_shapley_works_with_the_template_parser(net, references):
    faces = torch.rand(2, 3, 112, 112, dtype=torch.float64)
    parser, small = TemplateParser(), nn.Sequential(nn.AdaptiveAvgPool2d(16), net)
    method = RegionShapley(small, parser, orders=2)
    maps = method.attribute(faces, reference=references[:2])
    regions = int(parser(faces)[0].unique().numel())
    assert method.cost.forwards == 1 + 2 * regions
    assert 1 < maps[0].unique().numel() <= regions


def test_black_boxes_are_explained(net, faces, references):
    """Functions that leave torch."""

    def box(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.from_numpy(net(x).numpy())

    expected = RegionShapley(net, stripes, orders=2).attribute(faces, reference=references)
    assert torch.allclose(
        RegionShapley(box, stripes, orders=2).attribute(faces, reference=references), expected, atol=1e-7
    )


def test_parsers_that_return_no_label_maps_raise(net, faces, references):
    with pytest.raises(TypeError, match=r"integer label maps .* torch\.float32.*regions\.parse"):
        RegionShapley(net, lambda x: torch.rand(3, 16, 16)).attribute(faces, reference=references)
    with pytest.raises(ValueError, match=r"shape \(3, 16, 16\), got \(3, 4, 4\)"):
        RegionShapley(net, lambda x: torch.zeros(3, 4, 4).long()).attribute(faces, reference=references)
    with pytest.raises(TypeError, match="parser to be a function .* got a Tensor"):
        RegionShapley(net, stripes(faces))
    with pytest.raises(ValueError, match="orders to be 1 or more, got 0"):
        RegionShapley(net, stripes, orders=0)
