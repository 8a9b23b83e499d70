import json
from pathlib import Path

import pytest

from tests.helpers.tiny_study import tables_of, write_study

pytest.importorskip("pyarrow", reason="studies need pip install 'captum-leam[study]'")

REAL_PEOPLE = 16  # enough for pairs at an FMR of 1e-3; benchmarks/study_real.yaml takes all


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk():
    """Studies write a hundred files and wait for the disk with each: a quarter of their time here, and no power is cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    """The folder of a small study that ran to its end without any trouble."""
    from captum_leam.study import Study

    folder = tmp_path_factory.mktemp("undisturbed")
    Study(write_study(folder)).run(progress=False, report=False)
    return folder


@pytest.fixture(scope="session")
def right(undisturbed) -> dict[str, bytes]:
    """Its tables and maps, byte by byte."""
    return tables_of(undisturbed / "results")


@pytest.fixture(scope="session")
def real_study(real_dir, tmp_path_factory) -> Path:
    """The results folder of a study of real people and networks, three pictures each; one for all tests, it takes the longest."""
    from captum_leam.study import Study

    folder = tmp_path_factory.mktemp("real")
    people = sorted((real_dir / "faces").iterdir())[:REAL_PEOPLE]
    rows = [f"{path},{person.name}" for person in people for path in sorted(person.iterdir())[:3]]
    (folder / "people.csv").write_text("\n".join(["path,person", *rows]))
    config = {
        "people": "people.csv",
        "models": {name: f"{real_dir}/models.py:{name}" for name in ("ms1m", "casia")},
        "parser": {"parser": f"{real_dir}/models.py:parser"},
        "preset": "layers",  # the setting for person-specificity: docs/studies.md compares the presets
        "fractions": [0.05],
        "layer_fractions": [],
        "controls": ["random pixels", "centre", "other people"],
        "patterns": {"permutations": 99, "resamples": 500},
    }
    (folder / "study.yaml").write_text(json.dumps(config))
    return Study(folder / "study.yaml").run(progress=False, report=False).folder
