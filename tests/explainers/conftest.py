import pytest
import torch
from networks import Net
from torch import Tensor


@pytest.fixture
def net() -> Net:
    return Net().double()


@pytest.fixture
def faces() -> Tensor:
    return torch.rand(3, 3, 16, 16, dtype=torch.float64)


@pytest.fixture
def references() -> Tensor:
    return torch.randn(3, 10, dtype=torch.float64)
