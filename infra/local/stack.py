"""The whole stack on this machine: engine, image, queues, agent, API. For `make run` and the e2e tests."""

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import docker

from chalicelib.access import api_keys
from chalicelib.access.api_keys import ApiKey
from infra.images.debian_base import PackagesError
from infra.images.sandbox_image import ImageBuildError, ensure_image
from infra.local.docker_daemon import DockerDaemonError, docker_engine
from infra.local.emulated_aws import client, create_queues_and_tables, emulated_aws
from infra.local.processes import (
    LOOPBACK,
    START_TIMEOUT_S,
    Process,
    ProcessError,
    child_process,
    free_port,
    is_listening,
)
from infra.operator.key_admin import KeyAdmin
from infra.paths import LOCAL

DEFAULT_PORT: Final = 8000
ENVIRONMENT: Final = LOCAL / "env"
DEMO_PLAN: Final = "internal"

API_GRACE_S: Final = 2.0
AGENT_GRACE_S: Final = 20.0  # it finishes what runs and removes its sandboxes, in 17 s


@dataclass(frozen=True)
class Stack:
    """A stack that runs: how to reach it, and what a process needs in its environment to take part."""

    url: str
    metrics_url: str
    api_key: str
    signing_secret: str  # of that key's webhooks
    environment: dict[str, str]
    emulator: Process
    agent: Process
    api: Process
    triggers: Process

    def check(self) -> None:
        """Raises ProcessError if a part of it has ended."""
        for process in (self.emulator, self.agent, self.api, self.triggers):
            process.check()


@contextlib.contextmanager
def local_stack(
    *,
    name: str,
    logs: Path,
    host: str = LOOPBACK,
    port: int = 0,
    reload: bool = False,
    api_key: ApiKey | None = None,
    signing_secret: str | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Iterator[Stack]:
    """Starts everything, yields when the first job can be sent, and leaves nothing behind.

    `name` is the agent's: what an earlier agent of that name left is removed. Port 0 is a free one. `api_key` is
    the customer's, with its counts at zero, and `signing_secret` that of its webhooks; new ones if there are none.
    Raises DockerDaemonError, PackagesError, ImageBuildError or ProcessError.
    """
    with contextlib.ExitStack() as started:
        say("Docker Engine …")
        address = started.enter_context(docker_engine())
        say("sandbox image …")
        engine = docker.from_env(environment={**os.environ, "DOCKER_HOST": address})
        with contextlib.closing(engine):
            image = ensure_image(engine)

        say("queues and keys …")
        aws = started.enter_context(emulated_aws(logs=logs))
        settings = {
            **aws.environment,
            **create_queues_and_tables(aws.environment),
            "ALLOW_LOCAL_WEBHOOKS": "true",
        }
        api_key = api_key or api_keys.new_key()
        store = KeyAdmin(client("dynamodb", aws.environment), table=settings["KEYS_TABLE"])
        record = store.create(
            api_key, plan=DEMO_PLAN, owner="demo", now_s=int(time.time()), signing_secret=signing_secret
        )

        say("agent and API …")
        metrics_port = free_port()
        of_agent = {"DOCKER_HOST": address, "SANDBOX_IMAGE": image, "AGENT_NAME": name}
        agent = started.enter_context(
            child_process(
                "agent",
                [sys.executable, "-m", "executor_host"],
                grace_s=AGENT_GRACE_S,
                settings={**settings, **of_agent, "METRICS_PORT": str(metrics_port)},
                logs=logs,
            )
        )
        port = port or free_port(host)
        command = [sys.executable, "-m", "infra.local.chalice_server", f"--host={host}", f"--port={port}"]
        reloading = ["--reload"] if reload else []
        api = started.enter_context(
            child_process("api", [*command, *reloading], grace_s=API_GRACE_S, settings=settings, logs=logs)
        )
        command = [sys.executable, "-m", "infra.local.event_sources", *reloading]
        triggers = started.enter_context(
            child_process("triggers", command, grace_s=API_GRACE_S, settings=settings, logs=logs)
        )
        metrics_url = f"http://{LOOPBACK}:{metrics_port}/metrics"
        agent.wait_until(lambda: _has_sandbox(metrics_url), timeout_s=START_TIMEOUT_S)
        api.wait_until(lambda: is_listening(host, port), timeout_s=START_TIMEOUT_S)
        yield Stack(
            url=f"http://{host}:{port}",
            metrics_url=metrics_url,
            api_key=str(api_key),
            signing_secret=record.signing_secret,
            environment=settings,
            emulator=aws.process,
            agent=agent,
            api=api,
            triggers=triggers,
        )


def _has_sandbox(metrics_url: str) -> bool:
    try:
        with urllib.request.urlopen(metrics_url, timeout=1) as answer:  # noqa: S310 - ours, and http
            lines = answer.read().decode().splitlines()
    except OSError:
        return False
    return any(line.startswith("python_exec_warm_sandboxes ") and float(line.split()[1]) > 0 for line in lines)


def _kept_key() -> ApiKey | None:
    """The demo key of the last start, so that what was pasted somewhere keeps working."""
    return api_keys.parse(_kept("API_KEY"))


def _kept_signing_secret() -> str | None:
    found = _kept("SIGNING_SECRET")
    return found if api_keys.is_signing_secret(found) else None


def _kept(name: str) -> str:
    try:
        found = re.search(rf"^{name}=(.*)$", ENVIRONMENT.read_text(), re.MULTILINE)
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    return found[1] if found else ""


def _write_environment(stack: Stack) -> None:
    values = {
        "URL": stack.url,
        "METRICS_URL": stack.metrics_url,
        "API_KEY": stack.api_key,
        "SIGNING_SECRET": stack.signing_secret,
        **stack.environment,
    }
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    written = ENVIRONMENT.with_suffix(".new")
    written.unlink(missing_ok=True)
    with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # it holds a secret
        file.write(text)
    written.replace(ENVIRONMENT)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _interrupt(*_: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # once is enough: what follows is cleaning up
    _say("stopping …")
    raise KeyboardInterrupt


def main(arguments: list[str]) -> str | None:
    """Runs the stack until Ctrl-C, SIGTERM or the end of a part of it; what went wrong, if something did."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.stack", description=__doc__)
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument("--port", type=int, default=os.environ.get("PORT", DEFAULT_PORT), help="or PORT=…")
    options = parser.parse_args(arguments)
    try:
        socket.create_server((options.host, options.port)).close()
    except OSError as error:
        taken = f"{options.host}:{options.port}: {os.strerror(error.errno or 0)}"
        return f"Cannot listen on {taken}. Choose another port: make run PORT=8001"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with local_stack(
            name=f"local-{options.port}",
            logs=LOCAL,
            host=options.host,
            port=options.port,
            reload=True,
            api_key=_kept_key(),
            signing_secret=_kept_signing_secret(),
            say=_say,
        ) as stack:
            example = shlex.quote(json.dumps({"code": "print(input()[::-1])", "input": "hello"}))
            headers = f"-H 'X-Api-Key: {stack.api_key}' -H 'Content-Type: application/json'"
            _write_environment(stack)
            _say(f"\nReady at {stack.url}. Try:\n\n  curl -s {stack.url} {headers} -d {example}\n")
            _say(f"Settings: {ENVIRONMENT}, with the key. Logs: {LOCAL}/*.log. Ctrl-C stops it.")
            while True:
                stack.check()
                time.sleep(0.2)
    except KeyboardInterrupt:
        return None
    except (DockerDaemonError, PackagesError, ImageBuildError, ProcessError) as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
