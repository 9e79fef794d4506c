"""Check that hostile programs leave nothing on this host, or run them at another API for `make attack`."""

from typing import Any

import pytest

from tests.support.host_counters import raised_counters, read_host_counters
from tests.support.polling import eventually

RETURN_TIMEOUT_S = 10.0  # 5 s, and as long again for what else runs on this host
BASELINE = pytest.StashKey[dict[str, int]]()
RAISED = pytest.StashKey[dict[str, tuple[int, int]]]()
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


def pytest_sessionstart(session: pytest.Session) -> None:
    """Read the host's counters before any test; with several processes, in the one that starts them."""
    if not session.config.getoption("url") and not hasattr(session.config, "workerinput"):
        session.config.stash[BASELINE] = read_host_counters()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a counter of the host stays above its value before the tests."""
    if baseline := session.config.stash.get(BASELINE, None):
        try:
            eventually(lambda: not raised_counters(baseline), timeout_s=RETURN_TIMEOUT_S)
        except AssertionError:
            session.config.stash[RAISED] = raised_counters(baseline)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the counters of the host that did not return, or which attacks were blocked and which were not."""
    for name, (before, now) in config.stash.get(RAISED, {}).items():
        terminalreporter.write_line(f"{name}: {before} before the tests, {now} after them", red=True)
    if not config.getoption("url"):
        return
    terminalreporter.section("attacks")
    for outcome, verdict in (("passed", "blocked"), ("failed", "HOLE"), ("error", "HOLE"), ("skipped", "skipped")):
        for report in terminalreporter.stats.get(outcome, ()):
            file, _, name = report.nodeid.partition("::")
            terminalreporter.write_line(f"{verdict:8} {file.rpartition('/')[2].removesuffix('.py')[5:]:20} {name}")
