import importlib.util
import re
import shutil
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

collect_ignore = ["helpers/elsewhere.py", "helpers/elsewhere_study.py"]
"""They give their process a second device, which would change what PyTorch does in the tests; `test_devices.py` runs it in another."""


@pytest.fixture(scope="session")
def real_dir() -> Path:
    folder = Path(__file__).resolve().parents[2] / "shared" / "real"
    if not folder.is_dir():
        pytest.skip("needs ../shared/real (research faces and networks, not in the repository)")
    return folder


@pytest.fixture(scope="session")
def real_models(real_dir: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_models", real_dir / "models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test draws the same numbers, whatever ran before it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def faces() -> Tensor:
    return torch.rand(3, 3, 16, 16)


@pytest.fixture(scope="session")
def small_network() -> nn.Module:
    """An untrained network for synthetic faces, shared by all tests: they only read it."""
    from captum_leam.synthetic import EmbeddingNet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EmbeddingNet().eval()


@pytest.fixture(scope="session")
def noise() -> Tensor:
    """Five images of 112 px for it, shared by all tests: they only read them."""
    return torch.rand(5, 3, 112, 112, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Playwright's browser for the tests of a file; without one, tests of pages as a browser sees them are skipped.

    It ends with the file, since Playwright keeps an event loop in this thread, beside which asyncio starts no other.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("needs chromium to look at the page")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive the browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests in a browser as ``ci``; files with slow tests first, since two processes take file after file."""
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("ci")
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])  # stable: the rest stays as it was


# -- how many properties held, on how many examples ----------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hypothesis says of a property how many examples passed; the report carries it, from other processes, too."""
    report = yield
    if call.when == "call" and (told := getattr(item, "hypothesis_statistics", None)):
        report.user_properties.append(("examples", sum(map(int, re.findall(r"(\d+) passing", told)))))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The sum of all properties in this run, printed whatever the verbosity."""
    passed = terminalreporter.stats.get("passed", ())
    counts = [count for report in passed for name, count in report.user_properties if name == "examples"]
    if counts:
        terminalreporter.write_line(f"{len(counts)} properties held on {sum(counts)} examples")
