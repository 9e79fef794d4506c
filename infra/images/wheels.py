"""Wheels for other machines and Pythons than this one, checked by hash. For agent_image.py and infra/aws/package.py."""

import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final

PYTHON_VERSION: Final = "3.13"  # of Lambda, and of the bases of both images
KINDS: Final = ("manylinux2014", "manylinux_2_28")


class WheelsError(Exception):
    """A wheel is not to be had; the message ends with what pip printed."""


def fetch(requirements: Path, target: Path, *, machine: str, python_version: str = PYTHON_VERSION) -> None:
    """Unpacks the wheels of hashed requirements; `machine` as wheels name it, such as aarch64. Raises WheelsError."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", "--only-binary=:all:"]
    platforms = [f"--platform={kind}_{machine}" for kind in KINDS]
    wanted = [f"--python-version={python_version}", "--require-hashes", f"--requirement={requirements}"]
    done = subprocess.run(
        [*command, *platforms, *wanted, f"--target={target}"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise WheelsError(f"pip could not fetch the wheels of {requirements.name}:\n{done.stderr[-2000:]}")


def files(fetched: Path, *, models: Container[str]) -> Iterator[tuple[Path, str]]:
    """What is needed of fetched wheels, and its name there; of botocore only `models`: all of them are 25 MB."""
    for path in sorted(fetched.rglob("*")):
        name = path.relative_to(fetched)
        in_models = name.parts[:2] == ("botocore", "data") and len(name.parts) > 3  # noqa: PLR2004 - below a service
        if path.is_file() and name.parts[0] != "bin" and (not in_models or name.parts[2] in models):
            yield path, str(name)
