"""Start the whole stack on this machine: Docker, sandbox images, emulated AWS, agent and API.

`make run` runs this module; the tests of the whole stack call local_stack().
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import click
import docker

from chalicelib.access import api_keys
from chalicelib.access.api_keys import ApiKey
from infra import env_file, progress
from infra.env_file import client
from infra.errors import CommandError, exit_on_error
from infra.images.runtime_images import IMAGE_SETTINGS, ensure_images
from infra.local.docker_daemon import docker_engine
from infra.local.emulated_aws import create_resources, emulated_aws
from infra.local.processes import (
    LOOPBACK,
    START_TIMEOUT_S,
    Process,
    child_process,
    free_port,
    is_listening,
)
from infra.operator.key_admin import KeyAdmin
from infra.paths import LOCAL

DEFAULT_PORT: Final = 8000
DEFAULT_WEBHOOK_PORT: Final = 8080  # of docs/examples/webhook_receiver.py
DEMO_PLAN: Final = "internal"
GRACE_S: Final = 2.0
SANDBOX_TIMEOUT_S: Final = 120.0  # two seconds, or far more on a busy machine
AGENT_GRACE_S: Final = 23.0  # the agent finishes running jobs and removes its sandboxes within 20 s


@dataclass(frozen=True)
class Stack:
    """A running stack: its addresses, demo key, processes, and the settings that a client process needs."""

    url: str
    metrics_url: str
    api_key: str
    signing_secret: str  # for webhooks of that key
    environment: Mapping[str, str]
    processes: tuple[Process, ...]

    def check(self) -> None:
        """Raise CommandError if one of the processes has ended."""
        for process in self.processes:
            process.check()


@contextlib.contextmanager
def local_stack(
    *,
    name: str,
    logs: Path,
    host: str = LOOPBACK,
    port: int = 0,
    reload: bool = False,
    webhook_ports: frozenset[int] = frozenset(),
    saved: Mapping[str, str] = MappingProxyType({}),
    endpoints: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Stack]:
    """Start everything, yield when the stack can run the first job, and clean up.

    The agent removes what an earlier agent of the same `name` left behind. Port 0 selects a free port. Webhooks reach
    only `webhook_ports` of this machine, and none of the stack's own. `saved` are the settings of an earlier stack,
    whose demo key is used again; `endpoints` are as in `emulated_aws`. Raises CommandError.
    """
    with contextlib.ExitStack() as resources:
        docker_host = resources.enter_context(docker_engine())
        images = _sandbox_images(docker_host)
        progress.report("Starting queues, tables, agent and API...")
        aws = resources.enter_context(emulated_aws(logs=logs, endpoints=endpoints))
        settings = {**aws.environment, **create_resources(aws.environment)}
        metrics_port, port = free_port(), port or free_port(host)
        own_ports = {metrics_port, port, urlsplit(aws.environment["AWS_ENDPOINT_URL"]).port}
        settings["LOCAL_WEBHOOK_PORTS"] = ",".join(map(str, sorted(webhook_ports - own_ports)))
        api_key, signing_secret = _create_demo_key(settings, saved)

        def start(program: str, module: str, *options: str, grace_s: float = GRACE_S, **extra: str) -> Process:
            command, environment = [sys.executable, "-m", module, *options], {**settings, **extra}
            child = child_process(program, command, grace_s=grace_s, settings=environment, logs=logs)
            return resources.enter_context(child)

        reload_flag = ["--reload"] if reload else []
        agent_settings = {"DOCKER_HOST": docker_host, "AGENT_NAME": name, **images}
        agent_settings["METRICS_PORT"] = str(metrics_port)
        agent = start("agent", "executor_host", grace_s=AGENT_GRACE_S, **agent_settings)
        api = start("api", "infra.local.chalice_server", f"--host={host}", f"--port={port}", *reload_flag)
        event_sources = start("event-sources", "infra.local.event_sources", *reload_flag)
        metrics_url = f"http://{LOOPBACK}:{metrics_port}/metrics"
        agent.wait_until(lambda: _has_sandboxes(metrics_url), timeout_s=SANDBOX_TIMEOUT_S)
        api.wait_until(lambda: is_listening(host, port), timeout_s=START_TIMEOUT_S)
        yield Stack(
            url=f"http://{host}:{port}",
            metrics_url=metrics_url,
            api_key=str(api_key),
            signing_secret=signing_secret,
            environment=settings,
            processes=(aws.process, agent, api, event_sources),
        )


def _sandbox_images(docker_host: str) -> dict[str, str]:
    """Return the images of the runtimes, by the name of the agent's setting."""
    with contextlib.closing(docker.from_env(environment={**os.environ, "DOCKER_HOST": docker_host})) as engine:
        return {IMAGE_SETTINGS[runtime]: image for runtime, image in ensure_images(engine).items()}


def demo_key(saved: Mapping[str, str]) -> tuple[ApiKey, str]:
    """Return the saved key and signing secret, so that commands with them keep working, or else new ones."""
    api_key = api_keys.parse(saved.get("API_KEY", "")) or api_keys.new_key()
    secret = saved.get("SIGNING_SECRET", "")
    return api_key, secret if api_keys.is_signing_secret(secret) else api_keys.new_signing_secret()


def _create_demo_key(settings: Mapping[str, str], saved: Mapping[str, str]) -> tuple[ApiKey, str]:
    api_key, signing_secret = demo_key(saved)
    admin = KeyAdmin(client("dynamodb", settings), table=settings["KEYS_TABLE"])
    admin.create(api_key, plan=DEMO_PLAN, owner="demo", now_s=int(time.time()), signing_secret=signing_secret)
    return api_key, signing_secret


def _has_sandboxes(metrics_url: str) -> bool:
    try:
        with urllib.request.urlopen(metrics_url, timeout=1) as response:  # noqa: S310 - ours, and http
            lines = response.read().decode().splitlines()
    except OSError:
        return False
    warm = [float(line.split()[1]) for line in lines if line.startswith("python_exec_warm_sandboxes{")]
    return bool(warm) and all(warm)


def _env_settings(stack: Stack) -> dict[str, str]:
    return {
        "URL": stack.url,
        "METRICS_URL": stack.metrics_url,
        "API_KEY": stack.api_key,
        "SIGNING_SECRET": stack.signing_secret,
        **stack.environment,
    }


def _print_ready(stack: Stack) -> None:
    example = shlex.quote(json.dumps({"code": "print(input()[::-1])", "input": "hello"}))
    headers = f"-H 'X-Api-Key: {stack.api_key}' -H 'Content-Type: application/json'"
    click.echo(f"\nReady at {stack.url}. Try it:\n\n  curl -s {stack.url} {headers} -d {example}\n")
    click.echo("Keys:     .venv/bin/python-exec keys list")
    click.echo(f"Logs:     {LOCAL}/*.log")
    click.echo(f"Settings: {env_file.ENV_FILE}, including the demo key. Press Ctrl-C to stop.")


def _interrupt(*_: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    click.echo("Stopping...")
    raise KeyboardInterrupt


@exit_on_error()
def main(arguments: list[str]) -> None:
    """Run the stack until Ctrl-C, SIGTERM or the end of one of its processes."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.stack", description=__doc__)
    parser.add_argument("--host", default=LOOPBACK, help="address of the API")
    parser.add_argument("--port", type=int, default=os.environ.get("PORT", DEFAULT_PORT), help="default: PORT or 8000")
    webhook_ports = os.environ.get("LOCAL_WEBHOOK_PORTS", str(DEFAULT_WEBHOOK_PORT))
    parser.add_argument(
        "--webhook-ports",
        type=lambda text: frozenset(int(port) for port in text.split(",") if port),
        default=webhook_ports,
        help="ports of this machine that webhooks may reach; default: LOCAL_WEBHOOK_PORTS or 8080",
    )
    options = parser.parse_args(arguments)
    try:
        socket.create_server((options.host, options.port)).close()
    except OSError as error:
        listen_error = f"{options.host}:{options.port}: {os.strerror(error.errno or 0)}"
        raise CommandError(f"Cannot listen on {listen_error}. Choose another port: make run PORT=8001") from error
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    running_stack = local_stack(
        name=f"local-{options.port}",
        logs=LOCAL,
        host=options.host,
        port=options.port,
        reload=True,
        webhook_ports=options.webhook_ports,
        saved=env_file.read(),
    )
    with contextlib.suppress(KeyboardInterrupt), running_stack as stack:
        env_file.write(_env_settings(stack))
        _print_ready(stack)
        while True:
            stack.check()
            time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1:])
