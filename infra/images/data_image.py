"""The image of the runtime `data`: the sandbox image, and packages for working with data.

pip downloads the wheels first and verifies their hashes; the build itself has no network.
"""

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from docker import DockerClient
from docker.errors import APIError, ContainerError

from chalicelib.runtimes import RUNTIMES
from infra import progress
from infra.errors import CommandError
from infra.images import sandbox_image, wheels

REPOSITORY: Final = "python-exec-data"
PACKAGES_REPOSITORY: Final = "python-exec-packages"  # without the supervisor
_SOURCES: Final = Path(__file__).parent / "data"
REQUIREMENTS: Final = _SOURCES / "requirements.txt"
_BACKEND: Final = _SOURCES / "figure_files.py"
_BUILD_FILES: Final = (_SOURCES / "Dockerfile", _SOURCES / "finish.py")
_EXCLUDED_DIRECTORIES: Final = frozenset(("bin", "share", "test", "tests"))
_EXCLUDED_SUFFIXES: Final = frozenset((".a", ".c", ".f90", ".h", ".hpp", ".pxd", ".pyi", ".pyx"))
_PRINT_SITE_PACKAGES: Final = ("python3", "-c", "import site; print(site.getsitepackages()[0])")


def packages_tag() -> str:
    """Return the name of the image without the supervisor."""
    inputs = (REQUIREMENTS, _BACKEND, *_BUILD_FILES, Path(__file__))
    return sandbox_image.tag_of(PACKAGES_REPOSITORY, sandbox_image.python_tag(), *inputs)


def image_tag() -> str:
    """Return the name of the image."""
    return sandbox_image.supervised_tag(REPOSITORY, packages_tag(), RUNTIMES["data"])


def ensure_image(client: DockerClient) -> str:
    """Build the image unless Docker has it, and return its tag. Raises CommandError."""
    tag = image_tag()
    if not sandbox_image.image_exists(client, tag):
        sandbox_image.add_supervisor(client, tag, below=_ensure_packages(client), runtime=RUNTIMES["data"])
    return tag


def _ensure_packages(client: DockerClient) -> str:
    tag, python_image = packages_tag(), sandbox_image.ensure_python(client)
    with (_SOURCES / "Dockerfile").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # processes that start together build one image
        if not sandbox_image.image_exists(client, tag):
            _build_packages(client, tag, python_image=python_image)
    return tag


def _build_packages(client: DockerClient, tag: str, *, python_image: str) -> None:
    rootfs = _rootfs_directory(client, python_image)
    with tempfile.TemporaryDirectory() as scratch:
        progress.report("Downloading the packages of the runtime data (about 105 MB)...")
        wheels.fetch(REQUIREMENTS, Path(scratch), architecture=wheels.docker_architecture(client))
        packages = [(path, f"{rootfs}/{name}") for path, name in _package_files(Path(scratch))]
        build_files = [(path, path.name) for path in _BUILD_FILES]
        context = sandbox_image.build_context([*build_files, (_BACKEND, f"{rootfs}/{_BACKEND.name}"), *packages])
    progress.report("Building the image of the runtime data (about a minute)...")
    sandbox_image.build_image(client, tag, context=context, arguments={"PYTHON_IMAGE": python_image})


def _rootfs_directory(client: DockerClient, python_image: str) -> str:
    """Return the directory of the context that becomes the one of packages in the image."""
    try:
        output = client.containers.run(python_image, _PRINT_SITE_PACKAGES, network_disabled=True, remove=True)
    except (APIError, ContainerError) as error:
        raise CommandError(f"cannot run {python_image}: {error}") from error
    return f"rootfs{output.decode().strip()}"


def _package_files(directory: Path) -> Iterator[tuple[Path, str]]:
    """Yield each unpacked file that programs can use, with its relative name."""
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        is_excluded = path.suffix in _EXCLUDED_SUFFIXES or _EXCLUDED_DIRECTORIES & set(name.parts[:-1])
        if path.is_file() and not is_excluded:
            yield path, str(name)
