"""Run a Python driver, which answers one line of JSON with another, in a container of the sandbox image."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
from docker.utils.socket import frames_iter

from chalicelib.runtimes import RUNTIMES, Runtime
from executor_host.hardening import container_config


class Driver:
    """The driver in a container: PID 1, in place of the supervisor."""

    def __init__(self, stream: Any) -> None:
        """Take over the attached socket of the container."""
        self._socket = stream._sock  # docker-py's wrapper can only read
        self._frames = frames_iter(stream, tty=False)

    def send(self, request: object) -> None:
        """Send one line."""
        self._socket.sendall(json.dumps(request).encode() + b"\n")

    def receive(self) -> str:
        """Return the next line that the driver prints."""
        line = b""
        while not line.endswith(b"\n"):
            line += next(self._frames)[1]
        return line.decode()


@contextmanager
def driver_container(
    image: str, *arguments: str, agent: str, runtime: Runtime = RUNTIMES["python"]
) -> Iterator[Driver]:
    """Run `python3 -c` with the limits and the environment of a sandbox, and remove the container at the end."""
    client = docker.APIClient()
    config = container_config(image, runtime=runtime, agent=agent)
    config["Cmd"] = ["python3", "-c", *arguments]
    config["Env"] = [variable for variable in config["Env"] if not variable.startswith("PYTHONPATH=")]
    container_id = client.create_container_from_config(config)["Id"]
    try:
        stream = client.attach_socket(container_id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        client.start(container_id)
        yield Driver(stream)
    finally:
        client.remove_container(container_id, force=True)
