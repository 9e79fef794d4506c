"""The image of the runtime `python`, and what the images of all runtimes share.

An image has two parts that are built once per version of their sources: Python, to which data_image.py adds packages,
and the supervisor on top, which changes more often.
"""

import fcntl
import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Final

from docker import DockerClient
from docker.errors import APIError, BuildError, ImageNotFound

from chalicelib.runtimes import RUNTIMES, Runtime
from infra import progress
from infra.errors import CommandError
from infra.images import base_image, debian_base
from infra.paths import EXECUTOR_HOST

REPOSITORY: Final = "python-exec-sandbox"
PYTHON_REPOSITORY: Final = "python-exec-python"  # without the supervisor
REGISTRY_BASE_TAG: Final = f"python-exec-base:registry-{debian_base.BASE_TAG.rpartition('-')[2]}"

_BASE_DOCKERFILE: Final = Path(__file__).parent / "base.Dockerfile"
_SANDBOX: Final = Path(__file__).parent / "sandbox"
# Sources: their names in the build context.
_PYTHON_CONTEXT: Final = {_SANDBOX / "Dockerfile": "Dockerfile", _SANDBOX / "assemble.py": "assemble.py"}
_SUPERVISOR_CONTEXT: Final = {
    _SANDBOX / "supervisor.Dockerfile": "Dockerfile",
    **{path: f"sitecustomize/{path.name}" for path in sorted((EXECUTOR_HOST / "supervisor").glob("*.py"))},
}


def tag_of(repository: str, *inputs: str | Path) -> str:
    """Return the name of an image, which includes a hash of its inputs: texts, and the content of files."""
    digest = hashlib.sha256()
    for item in (*inputs, Path(__file__)):
        data = item.encode() if isinstance(item, str) else item.read_bytes()
        digest.update(hashlib.sha256(data).digest())
    return f"{repository}:{digest.hexdigest()[:12]}"


def python_tag() -> str:
    """Return the name of the image of Python without the supervisor."""
    return tag_of(PYTHON_REPOSITORY, base_image.PATH, _BASE_DOCKERFILE, *_PYTHON_CONTEXT)


def supervised_tag(repository: str, below: str, runtime: Runtime) -> str:
    """Return the name of an image with the supervisor on top of the image `below`."""
    return tag_of(repository, below, *runtime.preloaded, *_SUPERVISOR_CONTEXT)


def image_tag() -> str:
    """Return the name of the image of the runtime `python`."""
    return supervised_tag(REPOSITORY, python_tag(), RUNTIMES["python"])


def ensure_image(client: DockerClient) -> str:
    """Build the image of the runtime `python` unless Docker has it, and return its tag. Raises CommandError."""
    tag = image_tag()
    if not image_exists(client, tag):
        add_supervisor(client, tag, below=ensure_python(client), runtime=RUNTIMES["python"])
    return tag


def ensure_python(client: DockerClient) -> str:
    """Build the image of Python without the supervisor unless Docker has it. Raises CommandError."""
    tag = python_tag()
    with (_SANDBOX / "Dockerfile").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # processes that start together build one image
        if not image_exists(client, tag):
            arguments = {"BASE": ensure_base_image(client)}
            progress.report("Building the sandbox image...")
            build_image(client, tag, context=build_context(_PYTHON_CONTEXT.items()), arguments=arguments)
    return tag


def add_supervisor(client: DockerClient, tag: str, *, below: str, runtime: Runtime) -> None:
    """Build an image with the supervisor and the names of the modules that it preloads. Raises CommandError."""
    preload = "\n".join(runtime.preloaded).encode()
    context = build_context([*_SUPERVISOR_CONTEXT.items(), (preload, "sitecustomize/preload")])
    build_image(client, tag, context=context, arguments={"BELOW": below})


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
    reference = base_image.pin().reference
    progress.report(f"Pulling the image {reference} (about 45 MB)...")
    try:
        client.images.pull(reference)
    except APIError:
        return debian_base.import_base(client)
    progress.report("Installing Debian packages in it...")
    context = build_context([(_BASE_DOCKERFILE, "Dockerfile")])
    arguments = {"BASE": reference, "PACKAGES": " ".join(debian_base.DATA_PACKAGES)}
    build_image(client, REGISTRY_BASE_TAG, context=context, arguments=arguments, network="default")
    return REGISTRY_BASE_TAG


def require_pinned_base(client: DockerClient) -> None:
    """Raise CommandError if the images come from a tag of a registry, which may be another image tomorrow."""
    pin = base_image.pin()
    if not pin.digest and image_exists(client, REGISTRY_BASE_TAG):
        raise CommandError(
            f"{pin.image} is not pinned. Run make refresh-base, which pins it by its digest, and commit."
        )


def build_context(files: Iterable[tuple[Path | bytes, str]]) -> IO[bytes]:
    """Return a tar archive of files or their contents, each with its name in it and readable by all."""
    context = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's
    with tarfile.open(fileobj=context, mode="w") as archive:
        for file, name in files:
            content = file.read_bytes() if isinstance(file, Path) else file
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))
    context.seek(0)
    return context


def build_image(
    client: DockerClient, tag: str, *, context: IO[bytes], arguments: Mapping[str, str], network: str = "none"
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
