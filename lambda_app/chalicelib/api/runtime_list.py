"""Lists the runtimes for customers: `GET /runtimes`."""

import json
from pathlib import Path
from typing import Any, Final

from chalicelib.contract import (
    MAX_ARTIFACTS,
    MAX_ARTIFACTS_BYTES,
    MAX_CODE_BYTES,
    MAX_FILES,
    MAX_FILES_BYTES,
    MAX_INPUT_BYTES,
    MAX_STDOUT_BYTES,
    MAX_TIMEOUT_S,
    STDERR_HEAD_BYTES,
    STDERR_TAIL_BYTES,
)
from chalicelib.runtimes import PYTHON_VERSION, RUNTIMES, Runtime

# Written by infra/images/data_packages.py: names and versions by runtime.
PACKAGES: Final[dict[str, dict[str, str]]] = json.loads(Path(__file__).with_name("packages.json").read_text())


def _describe(runtime: Runtime) -> dict[str, Any]:
    return {
        "name": runtime.name,
        "python_version": PYTHON_VERSION,
        "packages": PACKAGES.get(runtime.name, {}),
        "preloaded": list(runtime.preloaded),
        "limits": {
            "memory_bytes": runtime.memory_bytes,
            "timeout_s": MAX_TIMEOUT_S,
            "code_bytes": MAX_CODE_BYTES,
            "input_bytes": MAX_INPUT_BYTES,
            "files": MAX_FILES,
            "files_bytes": MAX_FILES_BYTES,
            "artifacts": MAX_ARTIFACTS,
            "artifacts_bytes": MAX_ARTIFACTS_BYTES,
            "stdout_bytes": MAX_STDOUT_BYTES,
            "stderr_bytes": STDERR_HEAD_BYTES + STDERR_TAIL_BYTES,
        },
    }


RUNTIME_LIST: Final = {"runtimes": [_describe(runtime) for runtime in RUNTIMES.values()]}
