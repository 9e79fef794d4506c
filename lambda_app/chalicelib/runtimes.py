"""Lists the runtimes in which programs can run. Both sides import this module, as they do contract.py."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct

MIB: Final = 1024 * 1024
PYTHON_VERSION: Final = "3.13"  # of each sandbox image


class Runtime(Struct, frozen=True, kw_only=True):
    """An image for sandboxes, and what differs between the sandboxes of each."""

    name: str
    memory_bytes: int  # of a sandbox, including its files
    preloaded: tuple[str, ...]  # modules that are imported before the program starts


_PYTHON: Final = Runtime(
    name="python",
    memory_bytes=256 * MIB,
    preloaded=(
        "bisect", "collections.abc", "copy", "datetime", "functools", "heapq", "itertools", "json", "math", "operator",
        "random", "re", "string", "traceback", "typing",
    ),
)  # fmt: skip

RUNTIMES: Final[Mapping[str, Runtime]] = MappingProxyType({runtime.name: runtime for runtime in (_PYTHON,)})
DEFAULT_RUNTIME: Final = _PYTHON.name
