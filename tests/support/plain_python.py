"""Run programs as `python3 main.py < input` in one container of the sandbox image, without the supervisor."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import docker
from docker.utils.socket import frames_iter

from executor_host.hardening import container_config
from executor_host.sandbox import Outcome, signal_name

_DRIVER: Final = Path(__file__).with_name("plain_python_driver.py")
_ADDRESS: Final = re.compile(r"\b0x[0-9a-f]{9,}\b")


class Ending(NamedTuple):
    """How a program ended and what it wrote, in a sandbox or not, without the addresses of objects."""

    exit_code: int | None
    signal: str | None
    stdout: str
    stderr: str


def ending_of(outcome: Outcome) -> Ending:
    """Return the part of a sandbox's outcome that plain Python has too."""
    return Ending(outcome.exit_code, outcome.signal, *map(_without_addresses, (outcome.stdout, outcome.stderr)))


def _without_addresses(text: str) -> str:
    return _ADDRESS.sub("0x...", text)


class PlainPython:
    """Run one program after another in the container of a driver, each with an empty scratch directory."""

    def __init__(self, stream: Any) -> None:
        """Take over the attached socket of the container."""
        self._socket = stream._sock  # docker-py's wrapper can only read
        self._frames = frames_iter(stream, tty=False)

    def run(self, code: str, stdin: str = "") -> Ending:
        """Return how a program ends."""
        self._socket.sendall(json.dumps([code, stdin]).encode() + b"\n")
        response = b""
        while not response.endswith(b"\n"):
            response += next(self._frames)[1]
        exit_code, *streams = json.loads(response)
        texts = (_without_addresses(base64.b64decode(stream).decode(errors="replace")) for stream in streams)
        if exit_code < 0:
            return Ending(128 - exit_code, signal_name(-exit_code), *texts)
        return Ending(exit_code, None, *texts)


@contextmanager
def plain_python_container(image: str, *, agent: str) -> Iterator[PlainPython]:
    """Start the container, which has the limits and the environment of a sandbox, and remove it at the end."""
    client = docker.APIClient()
    config = container_config(image, agent=agent)
    config["Cmd"] = ["python3", "-c", _DRIVER.read_text()]
    config["Env"] = [variable for variable in config["Env"] if not variable.startswith("PYTHONPATH=")]
    container_id = client.create_container_from_config(config)["Id"]
    try:
        stream = client.attach_socket(container_id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        client.start(container_id)
        yield PlainPython(stream)
    finally:
        client.remove_container(container_id, force=True)
