"""`make sandbox-images`: the image of each runtime."""

import sys
from collections.abc import Callable
from typing import Final

import docker
from docker import DockerClient

from infra.images import data_image, sandbox_image

_BUILDERS: Final[dict[str, Callable[[DockerClient], str]]] = {
    "python": sandbox_image.ensure_image,
    "data": data_image.ensure_image,
}
IMAGE_SETTINGS: Final = {"python": "SANDBOX_IMAGE", "data": "DATA_SANDBOX_IMAGE"}  # of the agent


def ensure_image(client: DockerClient, runtime: str) -> str:
    """Build the image of a runtime unless Docker has it, and return its tag. Raises CommandError."""
    return _BUILDERS[runtime](client)


def ensure_images(client: DockerClient) -> dict[str, str]:
    """Build the images that Docker does not have. Return the tag of each, by runtime. Raises CommandError."""
    return {runtime: ensure_image(client, runtime) for runtime in _BUILDERS}


if __name__ == "__main__":
    for runtime, image in ensure_images(docker.from_env()).items():
        sys.stdout.write(f"{runtime} {image}\n")
