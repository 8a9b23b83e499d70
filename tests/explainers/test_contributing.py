"""The example in CONTRIBUTING.md is complete: it runs as it stands, and explains like Captum's method of that name."""

import re
from pathlib import Path

import torch
from captum.attr import InputXGradient, NoiseTunnel

from captum_leam import EmbeddingSimilarity
from captum_leam.explainers import FGGB, XSSAB, CorrRISE, Cost, Explainer, GradCAM

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def test_the_example_is_a_method(net, faces, references):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    namespace: dict[str, object] = {"__name__": "example"}
    exec(code, namespace)  # noqa: S102 - our own page
    (kind,) = [v for v in namespace.values() if isinstance(v, type) and issubclass(v, Explainer) and v is not Explainer]
    method = kind(net, batch_size=2)
    maps = method.attribute(faces, reference=references)
    cosine = EmbeddingSimilarity(net, norm="differentiate")
    expected = InputXGradient(cosine).attribute(faces.requires_grad_(), additional_forward_args=(references,)).sum(1)
    assert torch.allclose(maps[:, 0], expected, atol=1e-12)
    assert method.cost == Cost(1, 1)
    assert kind.get_name() == "GradientTimesInput"


def test_captums_noise_tunnel_takes_explainers(net, faces, references):
    """With no noise it changes nothing."""
    for method in (XSSAB(net), FGGB(net), GradCAM(net, net.body), CorrRISE(net, masks=10)):
        smooth = NoiseTunnel(method).attribute(faces, nt_samples=2, stdevs=0.0, reference=references[0])
        assert torch.allclose(smooth, method.attribute(faces, reference=references[0]), atol=1e-9)
