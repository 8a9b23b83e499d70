"""Tests of the package and its extras on the lowest versions that pyproject.toml allows: ``make test-oldest``.

Prints the versions first. Left out are peers and tests of the repository itself.
"""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
TESTED = (
    "engine/test_exact.py", "engine/test_captum_contract.py", "engine/test_guards.py", "engine/test_cost.py", "test_maps.py", "stats",
    "test_suggest.py", "test_refinement.py", "test_pairs.py", "engine/test_properties.py", "robustness/test_leam_differential.py",
    "engine/test_shared_tensors.py", "robustness/test_parts_properties.py", "faithfulness", "patterns", "regions/test_scheme.py",
    "regions/test_template.py", "regions/test_report.py", "regions/test_people.py",
    "explainers/test_contract.py", "explainers/test_cams.py",
    "explainers/test_exact.py", "explainers/test_gradient.py", "explainers/test_perturbation.py", "explainers/test_shapley.py",
    "models/test_onnx.py", "faces/test_photos.py", "faces/test_aligner.py", "faces/test_crops.py", "regions/test_parsers.py",
    "study/test_config.py", "study/test_study.py", "study/test_engines.py", "study/test_stores.py", "reporting", "test_plots.py",
    "test_storage.py", "test_cli.py",
)  # fmt: skip


def main() -> None:
    """Run them."""
    for line in (TESTS.parent / "tools" / "oldest.txt").read_text().split():
        name, _, lowest = line.partition("==")
        print(f"{name} {importlib.metadata.version(name)} (lowest {lowest})")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not slow and not real",
        *(str(TESTS / name) for name in TESTED),
    ]
    raise SystemExit(subprocess.run(command, cwd=TESTS.parent, check=False).returncode)  # noqa: S603


if __name__ == "__main__":
    main()
