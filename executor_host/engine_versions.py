"""Reject versions of the container engine from which programs are known to have escaped. For isolation_check.py.

docs/decisions/014-isolation-check.md gives the reason of each floor.
"""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from executor_host.isolation_report import Difference, difference

FLOORS: Final = {
    "Engine": (20, 10, 18),  # CVE-2022-36109
    "containerd": (1, 6, 18),  # CVE-2023-25173
    "runc": (1, 1, 12),  # CVE-2024-21626
}
# Packages with the fix and an older version number.
PATCHED_PACKAGES: Final = {"runc": re.compile(r"1\.1\.5\+ds1-1\+deb12u0*[1-9]")}  # Debian 12


class ComponentVersion(Struct, frozen=True):
    """A version as Docker reports it. Debian's packages have the version of the package in place of the commit."""

    version: str
    commit: str


def version_differences(versions: Mapping[str, ComponentVersion]) -> list[Difference]:
    """Return a difference for each component of the engine that is too old, missing or of unknown version."""
    missing = ComponentVersion("missing", "")
    return [
        difference(f"version of {name}", f"at least {'.'.join(map(str, floor))}", component.version)
        for name, floor in FLOORS.items()
        if not _is_recent(name, component := versions.get(name, missing))
    ]


def _is_recent(name: str, component: ComponentVersion) -> bool:
    numbers = re.match(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})", component.version)
    if numbers is not None and tuple(map(int, numbers.groups())) >= FLOORS[name]:
        return True
    patched_package = PATCHED_PACKAGES.get(name)
    return patched_package is not None and patched_package.match(component.commit) is not None
