"""The extremal mask against a hand-written Adam on one image at a time, and against trying all masks."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from torch import Tensor, nn

from captum_leam.explainers import ExtremalPerturbation
from captum_leam.maps import default_blur, top_fraction


def score(net: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    return F.cosine_similarity(net(x[None]), r[None])[0]


def literal(net: nn.Module, face: Tensor, r: Tensor, area: float, steps: int, grid: int, seed: int) -> Tensor:
    """Adam (Kingma & Ba 2015, algorithm 1) by hand; thresholds by root finding and sorting; margins (16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    heights = 0.1 * torch.randn(1, 1, grid, grid, generator=generator).double()
    blurred, count = default_blur(face[None])[0], round(area * 256)
    mean = square = torch.zeros_like(heights)

    def enlarged(h: Tensor) -> Tensor:
        return F.interpolate(h, (16, 16), mode="bilinear", align_corners=False)[0, 0]

    for step in range(steps):
        width, h = 0.1 ** (step / (steps - 1)), heights.clone().requires_grad_()
        u = enlarged(h).detach()
        q = brentq(lambda q, u=u, t=width: torch.sigmoid((u - q) / t).mean().item() - area, -99, 99, xtol=1e-12)
        mask = torch.sigmoid((u - q) / width).requires_grad_()
        (per_pixel,) = torch.autograd.grad(score(net, (1 - mask) * face + mask * blurred, r), mask)
        slope = (mask * (1 - mask)).detach()
        towards_u = slope / width * (per_pixel - (slope * per_pixel).sum() / slope.sum())
        (gradient,) = torch.autograd.grad((enlarged(h) * towards_u).sum(), h)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        unbiased = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
        heights = heights - 0.3 * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
    ordered = sorted(enlarged(heights).flatten().tolist(), reverse=True)
    return enlarged(heights) - (ordered[count - 1] + ordered[count]) / 2


def test_extremal_perturbation_equals_the_literal_descent_and_keeps_the_best_restart(net, faces, references):
    method = ExtremalPerturbation(net, area=0.2, n_steps=12, restarts=3, grid=5, seed=4, batch_size=2)
    maps = method.attribute(faces, reference=references)
    chosen = set()
    for i in range(3):
        runs = [literal(net, faces[i], references[i], 0.2, 12, 5, seed) for seed in (4, 5, 6)]
        blurred = default_blur(faces[i : i + 1])[0]
        hard = [score(net, torch.where(run > 0, blurred, faces[i]), references[i]).item() for run in runs]
        best = hard.index(min(hard))
        chosen.add(best)
        assert torch.allclose(maps[i, 0], runs[best], atol=1e-5)
    assert len(chosen) > 1, "all images chose one restart: the choice is not tested"


def test_extremal_perturbation_finds_one_of_the_best_of_all_masks():
    """4 × 4 pixels, two of them replaced: 120 masks, tried one after the other."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Softplus(), nn.Linear(6, 5)).double().eval()
    faces, references = torch.rand(4, 1, 4, 4, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    black = torch.zeros_like
    method = ExtremalPerturbation(net, area=2 / 16, n_steps=80, grid=4, fill=black)
    found = top_fraction(method.attribute(faces, reference=references), 2 / 16)
    for i in range(4):
        scores = {}
        for pair in combinations(range(16), 2):
            x = faces[i].clone()
            x.view(-1)[list(pair)] = 0
            scores[pair] = score(net, x, references[i]).item()
        mine = scores[tuple(found[i].flatten().nonzero().flatten().tolist())]
        assert sum(other < mine for other in scores.values()) <= 3


def test_extremal_maps_are_positive_on_exactly_the_area(net, faces, references):
    for area, pixels in ((0.001, 1), (0.1, 26), (0.999, 255)):
        maps = ExtremalPerturbation(net, area=area, n_steps=2, restarts=1, grid=6).attribute(
            faces, reference=references
        )
        assert (maps > 0).sum((1, 2, 3)).tolist() == [pixels] * 3


def test_wrong_settings_of_extremal_perturbation_raise(net):
    for area in (0, 1, 5):
        with pytest.raises(ValueError, match=f"area to be .* got {area}"):
            ExtremalPerturbation(net, area=area)
    with pytest.raises(ValueError, match="restarts to be 1 or more, got 0"):
        ExtremalPerturbation(net, restarts=0)
