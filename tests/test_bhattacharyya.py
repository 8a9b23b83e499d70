import pytest
import torch

from captum_leam import bhattacharyya


def test_by_hand():
    p, q = torch.tensor([[0.5, 0.5], [0.0, 0.0]]), torch.tensor([[0.5, 0.0], [0.5, 0.0]])
    assert bhattacharyya(p, q, fraction=1).item() == pytest.approx(0.5)
    assert bhattacharyya(10 * p, 0.1 * q, fraction=1).item() == pytest.approx(0.5)
    assert torch.allclose(bhattacharyya(torch.stack([p, q]), fraction=1), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))


def test_only_the_top_fraction_counts():
    a, b = torch.rand(10, 10), torch.rand(10, 10)
    a[0, :2] = b[0, :2] = 100.0
    assert bhattacharyya(a, b, fraction=0.02).item() == pytest.approx(1, abs=1e-3)


def test_table_of_two_sets():
    a, b = torch.rand(3, 8, 8), torch.rand(4, 1, 8, 8)
    table = bhattacharyya(a, b, fraction=0.5)
    assert table.shape == (3, 4)
    assert (table >= 0).all()
    assert (table <= 1).all()
    assert table[1, 2].item() == pytest.approx(bhattacharyya(a[1], b[2, 0], fraction=0.5).item())


def test_bad_input():
    with pytest.raises(ValueError, match="one aligned grid"):
        bhattacharyya(torch.rand(8, 8), torch.rand(7, 8))
    with pytest.raises(ValueError, match="no positive value"):
        bhattacharyya(-torch.rand(2, 8, 8))
