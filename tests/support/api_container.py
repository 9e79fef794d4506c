"""Run containers of the API as infra/compose.yaml does, with the emulated AWS of this machine."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import docker
from docker.models.containers import Container

from infra.images import api_image


@contextlib.contextmanager
def api_container(settings: Mapping[str, str], *, command: Sequence[str] | None = None) -> Iterator[Container]:
    """Start a container of the API, or of another command of its image, and remove it at the end."""
    with contextlib.closing(docker.from_env()) as engine:
        container = engine.containers.run(
            api_image.ensure_image(engine),
            command,
            detach=True,
            network_mode="host",  # the emulator listens on the loopback interface only
            environment=dict(settings),
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
        try:
            yield container
        finally:
            container.remove(force=True)
