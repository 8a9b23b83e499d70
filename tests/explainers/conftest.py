import pytest
import torch
from torch import Tensor

from tests.helpers.networks import Net


@pytest.fixture
def net() -> Net:
    return Net().double()


@pytest.fixture
def faces() -> Tensor:
    return torch.rand(3, 3, 16, 16, dtype=torch.float64)


@pytest.fixture
def references() -> Tensor:
    return torch.randn(3, 10, dtype=torch.float64)
