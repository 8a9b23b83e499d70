from pathlib import Path

import pytest

from captum_leam.faces import FaceAligner


@pytest.fixture(scope="module")
def real_aligner(real_dir: Path) -> FaceAligner:
    pytest.importorskip("facexlib")
    return FaceAligner(weights=real_dir, device="cpu")
