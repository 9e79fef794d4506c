"""Debian packages for this machine, and a base image of Debian packages where no image registry is reachable."""

import functools
import os
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import Final

from docker import DockerClient

from infra import progress
from infra.errors import CommandError
from infra.images import base_image

# Python; /etc/services and /etc/mime.types; old names of time zones; name service modules for localhost and for a
# user without an entry in /etc/passwd; the library of C++ for wheels.
DATA_PACKAGES: Final = (
    "netbase", "media-types", "tzdata", "tzdata-legacy", "libnss-myhostname", "libnss-unknown", "libstdc++6",
)  # fmt: skip
BASE_PACKAGES: Final = ("base-files", "libc-bin", "python3", *DATA_PACKAGES)
BASE_TAG: Final = (
    f"python-exec-base:trixie-{zlib.crc32(repr(BASE_PACKAGES).encode() + base_image.PATH.read_bytes()):08x}"
)
MERGED_USR_HOOKS: Final = Path("/usr/share/mmdebstrap/hooks/merged-usr")  # without /lib64 no program starts


def apt_install(*packages: str) -> None:
    """Install Debian packages. Raises CommandError unless root runs this on Debian or Ubuntu."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise CommandError(f"Cannot install {' '.join(packages)}: this requires root on Debian or Ubuntu.")
    _update_package_lists()
    _run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages)


def import_base(client: DockerClient) -> str:
    """Create the base image from the Python packages of Debian 13 and return its tag. Raises CommandError."""
    if shutil.which("mmdebstrap") is None or not MERGED_USR_HOOKS.is_dir():
        progress.report("Installing mmdebstrap...")
        apt_install("mmdebstrap", "debian-archive-keyring")
    progress.report("Downloading Debian 13 for the base image (about 30 MB)...")
    with tempfile.TemporaryDirectory() as directory:
        archive = str(Path(directory, "rootfs.tar"))
        options = ["--variant=extract", f"--hook-directory={MERGED_USR_HOOKS}", f"--include={','.join(BASE_PACKAGES)}"]
        _run("mmdebstrap", *options, "trixie", archive)
        repository, tag = BASE_TAG.split(":")
        client.api.import_image_from_file(archive, repository=repository, tag=tag)
    return BASE_TAG


@functools.cache
def _update_package_lists() -> None:
    _run("apt-get", "update", "-qq")


def _run(*command: str) -> None:
    completed = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        raise CommandError(f"{' '.join(command)} failed:\n{completed.stdout[-2000:]}")
