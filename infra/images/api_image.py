"""`make api-image`: the image of the API, for container platforms instead of Lambda.

pip downloads the wheels first and verifies their hashes; the build itself has no network.
"""

import sys
import tempfile
from pathlib import Path
from typing import Final

import docker
from docker import DockerClient

from chalicelib.api.static_files import wheel_files
from infra import progress
from infra.errors import exit_on_error
from infra.images import base_image, sandbox_image, wheels
from infra.paths import LAMBDA_APP, ROOT

REPOSITORY: Final = "python-exec-api"
REQUIREMENTS: Final = ROOT / "infra/server/requirements.txt"  # gunicorn, and Chalice without what deploys it
API_REQUIREMENTS: Final = LAMBDA_APP / "requirements.txt"
STATIC_REQUIREMENTS: Final = LAMBDA_APP / "static-requirements.txt"
BOTOCORE_MODELS: Final = ("dynamodb", "sqs")

_DOCKERFILE: Final = Path(__file__).parent / "api.Dockerfile"
_INFRA: Final = ("__init__.py", "paths.py", "local/__init__.py", "local/event_sources.py")  # and infra/server
_EXCLUDED: Final = ("requirements.in", "requirements.txt", "static-requirements.in", "static-requirements.txt")


def image_tag(architecture: str) -> str:
    """Return the image's name, which includes a hash of its sources."""
    inputs = (API_REQUIREMENTS, REQUIREMENTS, STATIC_REQUIREMENTS, _DOCKERFILE, Path(wheels.__file__), Path(__file__))
    return f"{sandbox_image.tag_of(REPOSITORY, base_image.PATH, *inputs, *_sources())}-{architecture}"


def ensure_image(client: DockerClient) -> str:
    """Build the image unless Docker has it, and return its tag. Raises CommandError."""
    architecture = wheels.docker_architecture(client)
    tag = image_tag(architecture)
    if not sandbox_image.image_exists(client, tag):
        base = sandbox_image.ensure_base_image(client)
        with tempfile.TemporaryDirectory() as packages, tempfile.TemporaryDirectory() as static:
            progress.report("Downloading the Python packages of the API (about 20 MB)...")
            wheels.fetch(API_REQUIREMENTS, Path(packages), architecture=architecture)
            wheels.fetch(REQUIREMENTS, Path(packages), architecture=architecture)
            wheels.fetch(STATIC_REQUIREMENTS, Path(static), architecture=architecture)
            bundled_files = wheels.bundled_files(Path(packages), models=BOTOCORE_MODELS)
            files = [
                *_sources().items(),
                *((path, f"packages/{name}") for path, name in bundled_files),
                *((Path(static, name), f"packages/{name}") for name in wheel_files()),
            ]
            context = sandbox_image.build_context(
                [(_DOCKERFILE, "Dockerfile"), *((path, f"api/{name}") for path, name in files)]
            )
        progress.report("Building the image of the API...")
        sandbox_image.build_image(client, tag, context=context, arguments={"BASE": base})
    client.images.get(tag).tag(REPOSITORY, "latest")
    return tag


def _sources() -> dict[Path, str]:
    """Return the files of the API and of its server, with their names in the image."""
    paths = [path for path in LAMBDA_APP.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    server = [*sorted((ROOT / "infra/server").glob("*.py")), *(ROOT / "infra" / name for name in _INFRA)]
    api = sorted(
        path
        for path in paths
        if path.name not in _EXCLUDED and "deployments" not in path.parts and "deployed" not in path.parts
    )
    return {path: str(path.relative_to(ROOT)) for path in (*api, *server)}


if __name__ == "__main__":
    with exit_on_error():
        sys.stdout.write(f"{ensure_image(docker.from_env())}\n")
