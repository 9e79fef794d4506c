"""Wheels for the Python of Lambda and of the hosts, verified by hash. For agent_image.py and infra/aws/package.py."""

import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final

from docker import DockerClient

from chalicelib.runtimes import PYTHON_VERSION
from infra.errors import CommandError

ARCHITECTURES: Final = {"amd64": "x86_64", "arm64": "arm64"}  # as Docker names it: as Lambda names it
MACHINES: Final = {"x86_64": "x86_64", "arm64": "aarch64"}  # architecture as Lambda names it: as wheels name it
MANYLINUX_TAGS: Final = ("manylinux2014", "manylinux_2_28")


def docker_architecture(client: DockerClient) -> str:
    """Return the architecture of the images that Docker builds, as Lambda names it. Raises CommandError."""
    architecture = client.version()["Arch"]
    if architecture not in ARCHITECTURES:
        raise CommandError(f"Docker runs on {architecture}; hosts run on {' or '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[architecture]


def fetch(requirements: Path, target: Path, *, architecture: str, python_version: str = PYTHON_VERSION) -> None:
    """Unpack the wheels of hashed requirements into a directory. Raises CommandError."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", "--only-binary=:all:"]
    platforms = [f"--platform={tag}_{MACHINES[architecture]}" for tag in MANYLINUX_TAGS]
    source = [f"--python-version={python_version}", "--require-hashes", f"--requirement={requirements}"]
    completed = subprocess.run(
        [*command, *platforms, *source, f"--target={target}"], capture_output=True, text=True, check=False
    )
    if completed.returncode != 0:
        raise CommandError(f"pip could not download the wheels of {requirements}:\n{completed.stderr[-2000:]}")


def bundled_files(directory: Path, *, models: Container[str]) -> Iterator[tuple[Path, str]]:
    """Yield each unpacked file to bundle, with its relative name.

    Leaves out scripts and the botocore models of services other than `models`, because all models take 25 MB.
    """
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        service = name.parts[2] if name.parts[:2] == ("botocore", "data") and len(name.parts) > 3 else None  # noqa: PLR2004
        if path.is_file() and name.parts[0] != "bin" and (service is None or service in models):
            yield path, str(name)
