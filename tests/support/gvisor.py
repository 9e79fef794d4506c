"""Know which tests fail under gVisor because its kernel differs from Linux. docs/gvisor.md lists them."""

import os
import re
from collections.abc import Sequence
from typing import Final

import pytest

from executor_host.hardening import GVISOR_RUNTIME
from tests.support.markdown import read, table

DOCUMENT: Final = "docs/gvisor.md"
RUNTIME_WITHOUT_SECCOMP: Final = "runsc-without-oci-seccomp"


def is_gvisor() -> bool:
    """Return whether tests run in sandboxes under gVisor."""
    return os.environ.get("OCI_RUNTIME") == GVISOR_RUNTIME


def known_differences() -> dict[str, str]:
    """Return the documented reason of each test that fails under gVisor, by the start of its ID."""
    rows = table(read(DOCUMENT), "What differs under gVisor", "Tests that fail for this reason")
    return {test: reason for reason, tests in rows for test in re.findall(r"[^\s`]+::[^\s`]+", tests)}


def mark_known_differences(items: Sequence[pytest.Item]) -> None:
    """Expect the listed tests to fail. A test may pass anyway with another release of gVisor."""
    differences = known_differences()
    for item in items:
        test = item.nodeid.removeprefix("tests/")
        reasons = [
            reason
            for start, reason in differences.items()
            if test.startswith(start) and ("[" in start or test[len(start) :][:1] in {"", "["})
        ]
        if reasons:
            item.add_marker(pytest.mark.xfail(reason=reasons[0], strict=False))


def docker_settings(runsc: str) -> dict[str, object]:
    """Return the content of a daemon.json with gVisor as infra/user-data.sh sets it up, and once without seccomp."""
    runtimes = {GVISOR_RUNTIME: ["--network=none", "--oci-seccomp"], RUNTIME_WITHOUT_SECCOMP: ["--network=none"]}
    return {"runtimes": {name: {"path": runsc, "runtimeArgs": arguments} for name, arguments in runtimes.items()}}
