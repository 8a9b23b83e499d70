"""The tests that need no extra, on the versions of the environment that runs them: ``make test-oldest``.

Prints the versions first. Left out are tests of extras (facexlib, ONNX, studies, peers) and of the repository itself.
"""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
CORE = (
    "engine/test_exact.py", "engine/test_captum_contract.py", "engine/test_guards.py", "engine/test_cost.py", "test_maps.py", "stats",
    "test_suggest.py", "test_refinement.py", "test_pairs.py", "engine/test_properties.py", "robustness/test_leam_differential.py",
    "engine/test_shared_tensors.py", "robustness/test_parts_properties.py", "faithfulness", "patterns", "regions/test_scheme.py",
    "regions/test_template.py", "regions/test_report.py", "regions/test_people.py",
    "explainers/test_contract.py", "explainers/test_cams.py",
    "explainers/test_exact.py", "explainers/test_gradient.py", "explainers/test_perturbation.py", "explainers/test_shapley.py",
)  # fmt: skip


def main() -> None:
    """Run them."""
    for name in ("captum", "torch", "torchvision", "numpy", "scipy", "pandas", "scikit-image", "pillow", "matplotlib"):
        print(f"{name} {importlib.metadata.version(name)}")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not slow and not real",
        *(str(TESTS / name) for name in CORE),
    ]
    raise SystemExit(subprocess.run(command, cwd=TESTS.parent, check=False).returncode)  # noqa: S603


if __name__ == "__main__":
    main()
