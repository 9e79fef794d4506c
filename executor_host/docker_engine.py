"""The Docker Engine of this host, as one agent uses it: start sandboxes, list what there is, remove it."""

import contextlib
import re
import threading
from collections.abc import Iterator
from time import monotonic, sleep
from typing import Final

import docker
from docker.errors import DockerException

from executor_host.channel import Channel, SandboxError
from executor_host.hardening import AGENT_LABEL, container_config
from executor_host.sandbox import Sandbox
from executor_host.supervisor import READY

READY_TIMEOUT_S: Final = 30.0  # far above any start seen, even on a machine that does nothing but start sandboxes
EXIT_DETECTION_TIMEOUT_S: Final = 1.0  # how long Docker may take to see that a container has ended
API_TIMEOUT_S: Final = 60  # of the engine, to one request
_ATTACH: Final = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}


class DockerEngine:
    """Starts sandboxes from `image`, labelled with the name of their `agent`.

    `oci_runtime` is one that the engine knows ("runsc"), None for its default. Any thread may call any method.
    """

    def __init__(self, image: str, *, agent: str, oci_runtime: str | None = None) -> None:
        """Does not talk to the engine yet."""
        self._image = image
        self._agent = agent
        self._oci_runtime = oci_runtime
        self._local = threading.local()

    def _client(self) -> docker.APIClient:
        """This thread's client: docker-py's are not for sharing. Raises DockerException without an engine."""
        if not hasattr(self._local, "client"):
            connection_args = docker.utils.kwargs_from_env()
            self._local.client = docker.APIClient(**connection_args, version="auto", timeout=API_TIMEOUT_S)
        return self._local.client

    def start_sandbox(self) -> Sandbox:
        """A warm sandbox. Blocks for about 150 ms. Raises SandboxError when there is none to be had."""
        container_id = channel = None
        try:
            client = self._client()
            config = container_config(self._image, agent=self._agent, oci_runtime=self._oci_runtime)
            container_id = client.create_container_from_config(config)["Id"]
            channel = Channel(client.attach_socket(container_id, _ATTACH))
            client.start(container_id)  # after attaching, else its first bytes can be lost
            kind, version = channel.next_frame(monotonic() + READY_TIMEOUT_S)
            if kind != READY or not re.fullmatch(rb"\d\.\d{1,2}", version):
                raise SandboxError("the supervisor did not start with its version")  # noqa: TRY301 - cleaned up below
        except (DockerException, OSError, SandboxError) as error:
            if channel is not None:
                channel.close()
            if container_id is not None:
                self.remove(container_id)
            raise SandboxError("cannot start a sandbox") from error
        return Sandbox(container_id, channel, runtime=f"python {version.decode()}", engine=self)

    def remove(self, container_id: str) -> None:
        """Kill and remove a container, if that can be done now; what is left the pool's next sweep finds."""
        with contextlib.suppress(DockerException, OSError):
            self._client().remove_container(container_id, force=True)

    def containers(self) -> Iterator[tuple[str, float]]:
        """Id and creation time (epoch, whole seconds) of all containers of agents of this name, in any state."""
        try:
            containers = self._client().containers(all=True, filters={"label": f"{AGENT_LABEL}={self._agent}"})
        except (DockerException, OSError) as error:
            raise SandboxError("cannot list containers") from error
        return ((summary["Id"], summary["Created"]) for summary in containers)

    def ran_out_of_memory(self, container_id: str) -> bool:
        """Whether the kernel ended the whole container for its memory: the rule under gVisor, else a rare chance.

        Docker's word counts only for a dead PID 1: it is also true when just some child of it had to die.
        """
        with contextlib.suppress(DockerException, OSError):
            deadline = monotonic() + EXIT_DETECTION_TIMEOUT_S
            while monotonic() < deadline:
                state = self._client().inspect_container(container_id)["State"]
                if not state["Running"]:
                    return bool(state["OOMKilled"])
                sleep(0.001)  # Docker removes what has ended within milliseconds
        return False
