"""`make sandbox-images`: the image of each runtime."""

import sys
from collections.abc import Callable
from typing import Final

import docker
from docker import DockerClient

from infra.errors import exit_on_error
from infra.images import data_image, sandbox_image

BUILDERS: Final[dict[str, Callable[[DockerClient], str]]] = {
    "python": sandbox_image.ensure_image,
    "data": data_image.ensure_image,
}
IMAGE_SETTINGS: Final = {"python": "SANDBOX_IMAGE", "data": "DATA_SANDBOX_IMAGE"}  # of the agent


def ensure_images(client: DockerClient) -> dict[str, str]:
    """Build the images that Docker does not have. Return the tag of each, by runtime. Raises CommandError."""
    return {runtime: ensure_image(client) for runtime, ensure_image in BUILDERS.items()}


if __name__ == "__main__":
    with exit_on_error():
        for runtime, image in ensure_images(docker.from_env()).items():
            sys.stdout.write(f"{runtime} {image}\n")
