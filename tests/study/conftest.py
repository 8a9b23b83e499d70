from pathlib import Path

import pytest
from tiny_study import tables_of, write_study

pytest.importorskip("pyarrow", reason="studies need pip install 'captum-leam[study]'")


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
