"""Select the tests that attack a running API, and print a table of them: `make attack`."""

from typing import Any

import pytest

LOCAL_FIXTURES = {"engine", "image", "supervisor", "warm_sandbox"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Deselect what needs Docker, or the host of the sandboxes, if the programs run at --url."""
    if not config.getoption("url"):
        return
    remote = [
        item for item in items if {"run"} <= set(item.fixturenames) and not LOCAL_FIXTURES & set(item.fixturenames)
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in remote])
    items[:] = remote


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print which attacks were blocked and which were not."""
    if not config.getoption("url"):
        return
    terminalreporter.section("attacks")
    for outcome, verdict in (("passed", "blocked"), ("failed", "HOLE"), ("error", "HOLE"), ("skipped", "skipped")):
        for report in terminalreporter.stats.get(outcome, ()):
            file, _, name = report.nodeid.partition("::")
            terminalreporter.write_line(f"{verdict:8} {file.rpartition('/')[2].removesuffix('.py')[5:]:20} {name}")
