"""`make sandbox-image`: the image of a sandbox, built once per version of its sources, and what both images share."""

import fcntl
import hashlib
import io
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import docker
from docker import DockerClient
from docker.errors import APIError, BuildError, ImageNotFound

from infra import progress
from infra.errors import CommandError
from infra.images import debian_base
from infra.paths import EXECUTOR_HOST

REPOSITORY: Final = "python-exec-sandbox"
REGISTRY_IMAGE: Final = "python:3.13-slim"
REGISTRY_BASE_TAG: Final = f"python-exec-base:registry-{debian_base.BASE_TAG.rpartition('-')[2]}"

_BASE_DOCKERFILE: Final = Path(__file__).parent / "base.Dockerfile"
_SANDBOX: Final = Path(__file__).parent / "sandbox"
_SUPERVISOR: Final = sorted((EXECUTOR_HOST / "supervisor").glob("*.py"))
_CONTEXT: Final = {  # sources: their names in the build context
    _SANDBOX / "Dockerfile": "Dockerfile",
    _SANDBOX / "assemble.py": "assemble.py",
    **{path: f"sitecustomize/{path.name}" for path in _SUPERVISOR},
}


def image_tag() -> str:
    """Return the image's name, which includes a hash of its sources."""
    inputs = hashlib.sha256()
    for path in (*_CONTEXT, Path(__file__)):
        inputs.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{REPOSITORY}:{inputs.hexdigest()[:12]}"


def ensure_image(client: DockerClient) -> str:
    """Build the sandbox image unless Docker has it, and return its tag. Raises CommandError."""
    tag = image_tag()
    if image_exists(client, tag):
        return tag
    with (_SANDBOX / "Dockerfile").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # processes that start together build one image
        if not image_exists(client, tag):
            arguments = {"BASE": ensure_base_image(client)}
            progress.report("Building the sandbox image...")
            context = build_context(_CONTEXT.items())
            build_image(client, tag, context=context, arguments=arguments)
    return tag


def image_exists(client: DockerClient, tag: str) -> bool:
    """Return whether Docker has an image of this name."""
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


def ensure_base_image(client: DockerClient) -> str:
    """Create the base image from the registry's Python image, or from Debian packages alone, unless Docker has one.

    Raises CommandError.
    """
    for tag in (REGISTRY_BASE_TAG, debian_base.BASE_TAG):
        if image_exists(client, tag):
            return tag
    progress.report(f"Pulling the image {REGISTRY_IMAGE} (about 45 MB)...")
    try:
        client.images.pull(REGISTRY_IMAGE)
    except APIError:
        return debian_base.import_base(client)
    progress.report("Installing Debian packages in it...")
    context = build_context([(_BASE_DOCKERFILE, "Dockerfile")])
    arguments = {"BASE": REGISTRY_IMAGE, "PACKAGES": " ".join(debian_base.DATA_PACKAGES)}
    build_image(client, REGISTRY_BASE_TAG, context=context, arguments=arguments, network="default")
    return REGISTRY_BASE_TAG


def build_context(files: Iterable[tuple[Path, str]]) -> io.BytesIO:
    """Return a tar archive of files, each with its name in it and readable by all."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path, name in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                archive.addfile(info, content)
    context.seek(0)
    return context


def build_image(
    client: DockerClient, tag: str, *, context: io.BytesIO, arguments: Mapping[str, str], network: str = "none"
) -> None:
    """Build an image from the archive of a Dockerfile and its files. Raises CommandError."""
    try:
        client.images.build(
            fileobj=context,
            custom_context=True,
            tag=tag,
            buildargs=arguments,
            network_mode=network,
            rm=True,
            forcerm=True,
        )
    except BuildError as error:
        output = "".join(event.get("stream", "") for event in error.build_log)
        raise CommandError(f"{error}\n{output[-2000:]}") from error


if __name__ == "__main__":
    sys.stdout.write(f"{ensure_image(docker.from_env())}\n")
