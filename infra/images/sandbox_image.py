"""Builds the sandbox image once per version of its inputs. For infra/, the tests and a host's start-up."""

import fcntl
import hashlib
import io
import sys
import tarfile
from pathlib import Path
from typing import Final

import docker
from docker import DockerClient
from docker.errors import APIError, ImageNotFound

from infra.images import debian_base
from infra.paths import EXECUTOR_HOST

REPOSITORY: Final = "python-exec-sandbox"
REGISTRY_BASE: Final = "python:3.13-slim"

_SANDBOX: Final = Path(__file__).parent / "sandbox"
_CONTEXT: Final = (_SANDBOX / "Dockerfile", _SANDBOX / "assemble.py", EXECUTOR_HOST / "supervisor.py")


class ImageBuildError(Exception):
    """The engine could not build the image; the message ends with what its last step printed."""


def image_tag() -> str:
    """The name of the image that these sources make."""
    inputs = hashlib.sha256()
    for path in (*_CONTEXT, Path(__file__)):
        inputs.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{REPOSITORY}:{inputs.hexdigest()[:12]}"


def ensure_image(client: DockerClient) -> str:
    """The tag of the image, built unless the engine has it. Raises ImageBuildError or PackagesError."""
    tag = image_tag()
    if exists(client, tag):
        return tag
    with (_SANDBOX / "Dockerfile").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two that start together one builds
        if not exists(client, tag):
            build(client, tag, context=_context(), arguments={"BASE": base(client)})
    return tag


def exists(client: DockerClient, tag: str) -> bool:
    """Whether the engine has an image of this name."""
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


def base(client: DockerClient) -> str:
    """The image with Python to build on, fetched or made unless the engine has one."""
    for tag in (REGISTRY_BASE, debian_base.BASE_TAG):
        if exists(client, tag):
            return tag
    try:
        client.images.pull(REGISTRY_BASE)
    except APIError:
        return debian_base.import_base(client)
    return REGISTRY_BASE


def _context() -> io.BytesIO:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path in _CONTEXT:
            archive.add(path, path.name)
    context.seek(0)
    return context


def build(client: DockerClient, tag: str, *, context: io.BytesIO, arguments: dict[str, str]) -> None:
    """Builds a tar of a Dockerfile and its files, without a network. Raises ImageBuildError."""
    printed = ""
    for event in client.api.build(
        fileobj=context,
        custom_context=True,
        tag=tag,
        buildargs=arguments,
        network_mode="none",
        rm=True,
        forcerm=True,
        decode=True,
    ):
        printed += event.get("stream", "")
        if "error" in event:
            raise ImageBuildError(f"{event['error']}\n{printed[-2000:]}")


if __name__ == "__main__":
    sys.stdout.write(f"{ensure_image(docker.from_env())}\n")
