"""Debian's packages, for what neither the machine nor an image registry has. Used by sandbox_image.py and infra/."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from docker import DockerClient

BASE_TAG = "python-exec-base:trixie"
BASE_PACKAGES = "base-files,libc-bin,python3,tzdata"
MERGED_USR_HOOKS = Path("/usr/share/mmdebstrap/hooks/merged-usr")  # without them nothing in the tree executes


class PackagesError(Exception):
    """A package that is needed is missing and cannot be installed from here."""


def apt_install(*packages: str) -> None:
    """Installs Debian packages. Raises PackagesError where that takes another person or another system."""
    names = " ".join(packages)
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise PackagesError(f"cannot install {names}: that takes root on Debian or Ubuntu")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PackagesError(f"apt-get {command[0]} failed for {names}:\n{done.stdout[-2000:]}")


def import_base(client: DockerClient) -> str:
    """An image with Debian trixie's Python, made from its packages in some ten seconds; its tag."""
    if shutil.which("mmdebstrap") is None or not MERGED_USR_HOOKS.is_dir():
        apt_install("mmdebstrap", "debian-archive-keyring")
    with tempfile.TemporaryDirectory() as directory:
        tarball = Path(directory, "rootfs.tar")
        command = ["mmdebstrap", "--variant=extract", f"--hook-directory={MERGED_USR_HOOKS}"]
        done = subprocess.run(
            [*command, f"--include={BASE_PACKAGES}", "trixie", str(tarball)],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PackagesError(f"mmdebstrap failed:\n{done.stderr[-2000:]}")
        repository, tag = BASE_TAG.split(":")
        client.api.import_image_from_file(str(tarball), repository=repository, tag=tag)
    return BASE_TAG
