"""Drains a host that EC2 takes away. A process of its own beside the agent, with the same image or installation.

`python -m executor_host.termination_watcher` stops the container `python-exec-agent`; with a command, runs that
instead, as `systemctl stop python-exec-agent`. Where the notices come from:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html
"""

import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol

import boto3
import docker
from docker.errors import NotFound

from executor_host.logs import log_json_lines

METADATA: Final = "http://169.254.169.254"
AGENT_CONTAINER: Final = "python-exec-agent"
DRAIN_HOOK_NAME: Final = "wait-for-drain"  # its name in infra/template.yaml
STOP_WITHIN_S: Final = 20  # the agent takes up to 17
POLL_EVERY_S: Final = 5.0  # AWS's advice; a spot instance has two minutes
TOKEN_TTL_S: Final = 300
TIMEOUT_S: Final = 2.0

logger = logging.getLogger("executor_host.termination_watcher")  # __name__ is __main__ here


class AutoScaling(Protocol):
    """What boto3's client of that name does for us."""

    def complete_lifecycle_action(self, **request: str) -> Any: ...  # noqa: ANN401 - untyped


class InstanceMetadata:
    """The instance metadata service, version 2: each read with a token of its own, as reads are rare."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def read(self, path: str) -> str | None:
        """The text at `path` of /latest/meta-data/, None where there is none. Raises OSError."""
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)}
        token = self._request("PUT", "api/token", lifetime)
        try:
            return self._request("GET", f"meta-data/{path}", {"X-aws-ec2-metadata-token": token})
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        request = urllib.request.Request(f"{self._endpoint}/latest/{path}", method=method, headers=dict(headers))  # noqa: S310 - the service speaks http
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - see above
            text: str = answer.read().decode()
        return text


def watch_for_termination(
    metadata: InstanceMetadata,
    *,
    stop_agent: Callable[[], None],
    autoscaling: AutoScaling,
    group: str,
    poll_every_s: float = POLL_EVERY_S,
) -> None:
    """Returns once the agent is stopped and the group has been told that this host may go.

    A spot notice stops the agent at once; the group's own state follows it, or the instance ends before.
    """
    stopped = False
    while True:
        try:
            is_terminating = metadata.read("autoscaling/target-lifecycle-state") == "Terminated"
            if not stopped and (is_terminating or metadata.read("spot/instance-action") is not None):
                logger.info("termination_notice", extra={"because": "lifecycle" if is_terminating else "spot"})
                stop_agent()
                stopped = True
            if is_terminating:
                _complete_drain_hook(autoscaling, group=group, instance_id=metadata.read("instance-id") or "")
                return
        except OSError as error:  # of the metadata service too: HTTPError and time-outs are OSErrors
            logger.warning("metadata_unavailable", extra={"error": str(error)})
        time.sleep(poll_every_s)


def _complete_drain_hook(autoscaling: AutoScaling, *, group: str, instance_id: str) -> None:
    try:
        autoscaling.complete_lifecycle_action(
            AutoScalingGroupName=group,
            LifecycleHookName=DRAIN_HOOK_NAME,
            InstanceId=instance_id,
            LifecycleActionResult="CONTINUE",
        )
    except Exception:
        logger.exception("drain_hook_failed")  # the hook's own time-out lets the instance go
        return
    logger.info("host_drained")


def stop_container(name: str = AGENT_CONTAINER) -> None:
    """For good: Docker starts a container that was stopped again only when it is told to."""
    client = docker.from_env(timeout=STOP_WITHIN_S + 10)
    try:
        client.containers.get(name).stop(timeout=STOP_WITHIN_S)
    except NotFound:
        logger.warning("agent_container_not_found")
    finally:
        client.close()


def main(command: Sequence[str]) -> int:
    """0 when the host may go."""
    log_json_lines()
    group = os.environ.get("HOST_GROUP")
    if not group:
        sys.stderr.write("HOST_GROUP is missing\n")
        return 2

    def run_command() -> None:
        subprocess.run(command, check=False)

    watch_for_termination(
        InstanceMetadata(os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA)),
        stop_agent=run_command if command else stop_container,
        autoscaling=boto3.client("autoscaling"),
        group=group,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
