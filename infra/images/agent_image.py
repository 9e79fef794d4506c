"""`make agent-image`: the agent's image, and a bundle of all images that hosts give to `docker load`.

pip downloads the wheels first and verifies their hashes; the build itself has no network.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import docker
from docker import DockerClient

from infra import progress
from infra.errors import CommandError, exit_on_error
from infra.images import data_image, runtime_images, sandbox_image, wheels
from infra.images.runtime_images import IMAGE_SETTINGS
from infra.paths import EXECUTOR_HOST, LAMBDA_APP, LOCAL, ROOT

REPOSITORY: Final = "python-exec-agent"
REQUIREMENTS: Final = EXECUTOR_HOST / "requirements.txt"
SHARED_MODULES: Final = ("__init__.py", "runtimes.py")  # and the package contract
BOTOCORE_MODELS: Final = ("autoscaling", "sqs")

_DOCKERFILE: Final = EXECUTOR_HOST / "Dockerfile"


def image_tag(architecture: str) -> str:
    """Return the image's name, which includes a hash of its sources."""
    inputs = REQUIREMENTS, _DOCKERFILE, Path(__file__), Path(wheels.__file__), *_sources()
    images = sandbox_image.image_tag(), data_image.image_tag()
    return f"{sandbox_image.tag_of(REPOSITORY, *images, *inputs)}-{architecture}"


def ensure_image(client: DockerClient) -> str:
    """Build the agent's image unless Docker has it, and return its tag. Raises CommandError."""
    architecture = wheels.docker_architecture(client)
    tag = image_tag(architecture)
    images = runtime_images.ensure_images(client)
    if not sandbox_image.image_exists(client, tag):
        base = sandbox_image.ensure_base_image(client)
        with tempfile.TemporaryDirectory() as scratch:
            progress.report("Downloading the agent's Python packages (about 15 MB)...")
            wheels.fetch(REQUIREMENTS, Path(scratch), architecture=architecture)
            packages = wheels.bundled_files(Path(scratch), models=BOTOCORE_MODELS)
            agent_files = [*_sources().items(), *packages]
            context = sandbox_image.build_context(
                [(_DOCKERFILE, "Dockerfile"), *((path, f"agent/{name}") for path, name in agent_files)]
            )
        progress.report("Building the agent's image...")
        arguments = {"BASE": base, **{IMAGE_SETTINGS[runtime]: image for runtime, image in images.items()}}
        sandbox_image.build_image(client, tag, context=context, arguments=arguments)
    return tag


def export_bundle(client: DockerClient, directory: Path) -> Path:
    """Write all images, the agent's also as `latest`, to host-<hash>.tar.gz. Return its path. Raises CommandError."""
    tag = ensure_image(client)
    client.images.get(tag).tag(REPOSITORY, "latest")
    bundle = directory / f"host-{tag.partition(':')[2]}.tar.gz"
    if not bundle.exists():
        progress.report(f"Writing {bundle}...")
        directory.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            archive = Path(scratch, "host.tar")
            images = sandbox_image.image_tag(), data_image.image_tag()
            tags = [f"{REPOSITORY}:latest", tag, *images]  # docker-py saves one image only
            try:
                subprocess.run(["docker", "save", f"--output={archive}", *tags], check=True)
                subprocess.run(["gzip", archive], check=True)
            except subprocess.CalledProcessError as error:
                raise CommandError(str(error)) from error
            Path(f"{archive}.gz").rename(bundle)
    return bundle


def _sources() -> dict[Path, str]:
    """Return the agent's files with their names in the image."""
    package = LAMBDA_APP / "chalicelib"
    modules = (*sorted((package / "contract").glob("*.py")), *(package / name for name in SHARED_MODULES))
    shared = {path: str(path.relative_to(LAMBDA_APP)) for path in modules}
    agent = sorted(EXECUTOR_HOST.rglob("*.py"))
    return shared | {path: str(path.relative_to(ROOT)) for path in agent}


if __name__ == "__main__":
    with exit_on_error():
        bundle = export_bundle(docker.from_env(), LOCAL)
    sys.stdout.write(f"{bundle}: {bundle.stat().st_size / 1e6:.1f} MB\n")
