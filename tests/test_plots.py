"""Figures are returned, never shown, and say what they show."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch

from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.plots import (
    correspondence_lines,
    occlusion_curves,
    overlay,
    overlay_grid,
    region_bars,
    region_outlines,
)


def test_overlay_is_grey_where_the_map_says_nothing_and_coloured_where_it_does():
    image, maps = torch.rand(3, 6, 6), torch.zeros(6, 6)
    maps[2, 3] = 5.0
    picture = overlay(image, maps).astype(int)
    spread = picture.max(-1) - picture.min(-1)
    assert spread[2, 3] > 50
    spread[2, 3] = 0
    assert spread.max() == 0
    grey = (image.mean(0) * 255).round().numpy()
    others = np.ones((6, 6), bool)
    others[2, 3] = False
    np.testing.assert_allclose(picture[..., 0][others], grey[others], atol=1)


def test_signs_have_two_colours():
    maps = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    picture = overlay(torch.full((1, 2, 2), 0.5), maps, signed=True).astype(int)
    (red, _, blue), (other_red, _, other_blue) = picture[0]
    assert red > blue  # orange: for the match
    assert other_blue > other_red  # purple: against it
    unsigned = overlay(torch.full((1, 2, 2), 0.5), maps).astype(int)
    assert unsigned[0, 1].max() - unsigned[0, 1].min() == 0


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="Expected a map of the size of the image"):
        overlay(torch.rand(3, 8, 8), torch.rand(4, 4))


def test_grid_has_a_legend_and_titles():
    figure = overlay_grid(torch.rand(3, 3, 8, 8), torch.rand(3, 1, 8, 8), ["a", "b", "c"], columns=2, signed=True)
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == ["a", "b", "c"]
    assert len(figure.axes) == 2 * 4 + 1


def test_correspondences_are_lines_from_face_to_face_thicker_where_stronger():
    """16 px faces, the partner 18 px to the right and 5 px lower; 4 px from its edge is 3.5 in matplotlib's count."""
    image, partner = torch.zeros(1, 16, 16), torch.ones(1, 16, 16)
    lines = torch.tensor([[2.0, 3.0, 4.0, 5.0], [8.0, 8.0, 10.0, 8.0]])
    axis = correspondence_lines(image, partner, lines, [0.1, 0.4]).axes[0]
    assert axis.images[0].get_array().shape == (21, 34)
    assert axis.images[0].get_array()[:16, :16].max() == 0
    assert axis.images[0].get_array()[5:, 18:].min() == 1
    weak, strong = axis.lines
    assert list(weak.get_xdata()) == [1.5, 21.5]
    assert list(weak.get_ydata()) == [2.5, 9.5]
    assert list(strong.get_xdata()) == [7.5, 27.5]
    assert strong.get_linewidth() > 1.5 * weak.get_linewidth()
    with pytest.raises(ValueError, match=r"got \(1, 2, 4\) and 1 strengths"):
        correspondence_lines(image, partner, lines[None])
    with pytest.raises(ValueError, match="two images of one size"):
        correspondence_lines(image, partner[:, 1:], lines)


def test_region_bars_show_the_mean_and_every_image():
    report = pd.DataFrame({"image": [0, 1, 0, 1], "region": ["nose", "nose", "skin", "skin"], "lift": [4, 6, 1, 0.0]})
    axis = region_bars(report.assign(share=0.5)).axes[0]
    assert sorted(bar.get_width() for bar in axis.patches) == [0.5, 5.0]
    assert sorted(x for line in axis.lines[:2] for x in line.get_xdata()) == [0, 1, 4, 6]


def test_occlusion_curves_show_methods_controls_and_models():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, 4)).eval()
    images = torch.rand(4, 3, 6, 6)
    evaluator = OcclusionEvaluator(
        {"a": net, "b": net}, (0.1, 0.5), fills=("zero",), controls=("random pixels",), progress=False
    )
    result = evaluator.evaluate(images, {"mine": torch.rand(4, 6, 6)}, labels=["p", "p", "q", "q"])
    figure = occlusion_curves(result)
    assert len(figure.axes) == 2
    assert {line.get_label() for line in figure.axes[0].lines} == {"mine", "random pixels"}
    table = result.summary().query("method == 'mine' and model == 'a'")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), table["drop"])


def test_no_figure_is_registered_for_showing():
    from matplotlib._pylab_helpers import Gcf

    before, figures = mpl.get_backend(), [*Gcf.figs]  # other tests of this process may have left some
    overlay_grid(torch.rand(1, 3, 4, 4), torch.rand(1, 4, 4))
    assert mpl.get_backend() == before
    assert [*Gcf.figs] == figures


def test_outlines_lie_between_regions():
    labels = torch.zeros(8, 8, dtype=torch.int64)
    labels[:, 4:] = 3
    picture = region_outlines(torch.zeros(1, 8, 8), labels, side=16)
    assert picture.shape == (16, 16, 3)
    assert np.unique(picture.any(-1).nonzero()[1]).tolist() == [7, 8]


def test_normalised_pixels_are_not_drawn_as_another_picture():
    faces, maps = torch.rand(2, 3, 6, 6), torch.rand(2, 6, 6)
    overlay_grid(faces + 0.1 * torch.randn(faces.shape), maps)  # noise may leave [0, 1] a little
    with pytest.raises(ValueError, match=r"RGB with values in \[0, 1\].*Prepared"):
        overlay_grid((faces - 0.45) / 0.22, maps)
    with pytest.raises(ValueError, match="values from"):
        overlay(255 * faces[0], maps[0])
