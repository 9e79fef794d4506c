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
    artifacts: tuple[str, ...] = ()  # patterns of files that are returned unasked


_PYTHON: Final = Runtime(
    name="python",
    memory_bytes=256 * MIB,
    preloaded=(
        "bisect", "collections.abc", "copy", "datetime", "functools", "heapq", "itertools", "json", "math", "operator",
        "random", "re", "string", "traceback", "typing",
    ),
)  # fmt: skip
_DATA: Final = Runtime(
    name="data",
    memory_bytes=512 * MIB,
    preloaded=(*_PYTHON.preloaded, "numpy", "pandas", "matplotlib.pyplot", "figure_files"),
    artifacts=("figure-*.png",),  # as infra/images/data/figure_files.py saves them
)

RUNTIMES: Final[Mapping[str, Runtime]] = MappingProxyType({runtime.name: runtime for runtime in (_PYTHON, _DATA)})
DEFAULT_RUNTIME: Final = _PYTHON.name
