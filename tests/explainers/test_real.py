"""On real faces and a real network: what must hold whatever the numbers are."""

import numpy as np
import pytest
import torch
from PIL import Image

from captum_leam import LEAM, leave_one_out_centroids
from captum_leam.explainers import FGGB, ExtremalPerturbation
from captum_leam.faithfulness import occlude
from captum_leam.maps import place_on_field, top_fraction

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def people(real_dir, real_models):
    """Network, two faces of two people, and their leave-one-out references."""
    folders = sorted((real_dir / "faces").iterdir())[:2]
    paths = [path for folder in folders for path in sorted(folder.glob("*.png"))[:3]]
    arrays = [np.asarray(Image.open(p).convert("RGB"), dtype=np.float32) / 255 for p in paths]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    model = real_models.ms1m()
    with torch.no_grad():
        references = leave_one_out_centroids(model(images), [p.parent.name for p in paths])
    return model, images[::3], references[::3]


def drop(model, images, references, maps):
    def score(x):
        return (torch.nn.functional.normalize(model(x), dim=1) * references).sum(1)

    with torch.no_grad():
        return (score(images) - score(occlude(images, top_fraction(maps, 0.05)))).mean().item()


def test_extremal_perturbation_exceeds_leam_on_real_people(people):
    """Thirty steps of one restart reach what no explanation does."""
    model, images, references = people
    layer = model.get_submodule("stages.0.4")
    leam = place_on_field(LEAM(model, layer).attribute(images, reference=references, n_steps=4), (112, 112))
    limit = ExtremalPerturbation(model, area=0.05, n_steps=30, restarts=1).attribute(images, reference=references)
    assert drop(model, images, references, limit) > 1.3 * drop(model, images, references, leam) > 0


def test_fggb_through_a_real_network_equals_single_backward_passes(people):
    model, images, references = people
    image, reference = images[:1], references[0]
    total = torch.zeros_like(image)
    x = image.clone().requires_grad_()
    f = torch.nn.functional.normalize(model(x.clone()))[0]
    for k in range(128):
        (gradient,) = torch.autograd.grad(f[k], x, retain_graph=True)
        total += gradient / gradient.norm() * (f[k] * reference[k]).item()
    maps = FGGB(model).attribute(image, reference=reference)
    assert torch.allclose(maps[:, 0], total.mean(1), atol=1e-5 * total.abs().max().item())
