"""Start sandboxes on the Docker Engine of this host, and list and remove their containers."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from time import monotonic, sleep, time
from typing import Any, Final

import docker
from docker.errors import DockerException

from chalicelib.runtimes import Runtime
from executor_host.channel import Channel, SandboxError
from executor_host.engine_versions import ComponentVersion
from executor_host.hardening import AGENT_LABEL, RUNTIME_LABEL, container_config
from executor_host.sandbox import Sandbox
from executor_host.supervisor.protocol import READY

READY_TIMEOUT_S: Final = 60.0  # far above any measured start, even on a busy host
EXIT_DETECTION_TIMEOUT_S: Final = 1.0  # how long Docker may take to notice that a container has exited
EVENTS_INTERVAL_S: Final = 0.02
EVENTS_MAX_AGE_S: Final = 60.0  # longer than any run; Docker keeps the last 256 events
API_TIMEOUT_S: Final = 60
_ATTACH: Final = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}


class DockerEngine:
    """Start sandboxes of one runtime, labelled with the name of their agent. Any thread may call any method."""

    def __init__(
        self,
        image: str,
        *,
        runtime: Runtime,
        agent: str,
        oci_runtime: str | None = None,
        config: Callable[..., dict[str, Any]] = container_config,
    ) -> None:
        """Prepare without connecting. `oci_runtime` is, for example, "runsc"; None is Docker's default."""
        self._image = image
        self.runtime = runtime
        self._agent = agent
        self._oci_runtime = oci_runtime
        self._config = config
        self._local = threading.local()

    def _client(self) -> docker.APIClient:
        """Return this thread's client, since docker-py's are not thread-safe. Raises DockerException."""
        if not hasattr(self._local, "client"):
            connection_args = docker.utils.kwargs_from_env()
            self._local.client = docker.APIClient(**connection_args, version="auto", timeout=API_TIMEOUT_S)
            self._local.client.trust_env = False  # no proxy, and no search for one in every call
        return self._local.client

    def start_sandbox(self) -> Sandbox:
        """Start a sandbox and wait until it is ready, about 150 ms. Raises SandboxError."""
        container_id = channel = None
        try:
            client = self._client()
            config = self._config(self._image, runtime=self.runtime, agent=self._agent, oci_runtime=self._oci_runtime)
            container_id = client.create_container_from_config(config)["Id"]
            channel = Channel(client.attach_socket(container_id, _ATTACH))
            client.start(container_id)  # after attaching, or the first bytes may be lost
            kind, version = channel.next_frame(monotonic() + READY_TIMEOUT_S)
            if kind != READY or not re.fullmatch(rb"\d\.\d{1,2}", version):
                raise SandboxError("the supervisor's first frame is invalid")  # noqa: TRY301 - cleaned up below
        except (DockerException, OSError, SandboxError) as error:
            if channel is not None:
                channel.close()
            if container_id is not None:
                self.remove(container_id)
            raise SandboxError("cannot start a sandbox") from error
        return Sandbox(container_id, channel, runtime=self.runtime, python_version=version.decode(), engine=self)

    def remove(self, container_id: str) -> None:
        """Kill and remove a container; if Docker cannot, the pool's next sweep tries again."""
        with contextlib.suppress(DockerException, OSError):
            self._client().remove_container(container_id, force=True)

    def containers(self) -> Iterator[tuple[str, float]]:
        """Return id and creation time (epoch, whole seconds) of every container of this agent and runtime."""
        labels = [f"{AGENT_LABEL}={self._agent}", f"{RUNTIME_LABEL}={self.runtime.name}"]
        try:
            summaries = self._client().containers(all=True, filters={"label": labels})
        except (DockerException, OSError) as error:
            raise SandboxError("cannot list containers") from error
        return ((summary["Id"], summary["Created"]) for summary in summaries)

    def versions(self) -> dict[str, ComponentVersion]:
        """Return the versions of the engine and of what it runs, by name. Raises SandboxError."""
        try:
            components = self._client().version()["Components"]
        except (DockerException, OSError) as error:
            raise SandboxError("cannot read the engine's versions") from error
        return {
            component["Name"]: ComponentVersion(component["Version"], component.get("Details", {}).get("GitCommit", ""))
            for component in components
        }

    def ran_out_of_memory(self, container_id: str) -> bool:
        """Return whether a container has ended after the kernel killed one of its processes for its memory.

        Docker's recent events say so even if the container has been removed.
        """
        deadline = monotonic() + EXIT_DETECTION_TIMEOUT_S
        with contextlib.suppress(DockerException, OSError, ValueError):
            while "die" not in self._recent_events(container_id) and monotonic() < deadline:
                sleep(EVENTS_INTERVAL_S)
            sleep(EVENTS_INTERVAL_S)  # the order of the two is not defined
            return {"die", "oom"} <= self._recent_events(container_id)
        return False

    def _recent_events(self, container_id: str) -> set[str]:
        window = {"since": time() - EVENTS_MAX_AGE_S, "until": time()}
        filters = {"container": container_id, "event": ["oom", "die"]}
        return {event["Action"] for event in self._client().events(**window, filters=filters, decode=True)}
