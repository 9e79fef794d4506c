"""Drain this host when EC2 is about to terminate it: `python -m executor_host.termination_watcher`.

Runs next to the agent and stops its container. A host whose agent is lost is reported to Auto Scaling, which then
terminates it: otherwise it would stay, and its idle CPU would keep the group from growing. EC2 announces a termination
through the instance metadata:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html
"""

import contextlib
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import boto3
import docker
from docker.errors import NotFound
from msgspec import Struct

from executor_host.agent_health import AgentHealth
from executor_host.logs import log_json_lines

METADATA_ENDPOINT: Final = "http://169.254.169.254"
METADATA_TIMEOUT_S: Final = 2.0
TOKEN_TTL_S: Final = 300
AGENT_CONTAINER: Final = "python-exec-agent"
DRAIN_HOOK_NAME: Final = "wait-for-drain"  # as in infra/template.yaml
AGENT_STOP_TIMEOUT_S: Final = 20  # the agent takes up to 17
POLL_INTERVAL_S: Final = 5.0  # as AWS recommends; a spot instance has two minutes

logger = logging.getLogger("executor_host.termination_watcher")  # __name__ is __main__ here


class InstanceMetadata(Struct, frozen=True):
    """Read the instance metadata service, version 2. Reads are rare, so each gets its own token."""

    endpoint: str

    def read(self, path: str) -> str | None:
        """Return the text at `path` below /latest/meta-data/, or None if it does not exist. Raises OSError."""
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)}
        token = self._request("PUT", "api/token", lifetime)
        try:
            return self._request("GET", f"meta-data/{path}", {"X-aws-ec2-metadata-token": token})
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        url = f"{self.endpoint}/latest/{path}"
        request = urllib.request.Request(url, method=method, headers=dict(headers))  # noqa: S310 - the service is HTTP
        with urllib.request.urlopen(request, timeout=METADATA_TIMEOUT_S) as response:  # noqa: S310 - as above
            text: str = response.read().decode()
        return text


def watch_for_termination(
    metadata: InstanceMetadata,
    *,
    stop_agent: Callable[[], None],
    autoscaling: Any,  # noqa: ANN401 - boto3's
    is_agent_lost: Callable[[], bool],
    group: str,
    poll_interval_s: float = POLL_INTERVAL_S,
) -> None:
    """Wait for a termination notice, stop the agent, and complete the drain hook of the Auto Scaling group.

    A spot notice stops the agent at once. The group's notice follows, unless the instance ends first.
    """
    is_stopped = is_reported = False
    while True:
        if not is_stopped and not is_reported and is_agent_lost():
            is_reported = _report_lost_agent(autoscaling, metadata)
        try:
            is_terminating = metadata.read("autoscaling/target-lifecycle-state") == "Terminated"
            if not is_stopped and (is_terminating or metadata.read("spot/instance-action") is not None):
                logger.info("termination_notice", extra={"because": "lifecycle" if is_terminating else "spot"})
                stop_agent()
                is_stopped = True
            if is_terminating:
                instance_id = metadata.read("instance-id") or ""
                _complete_drain_hook(autoscaling, group=group, instance_id=instance_id)
                return
        except OSError as error:  # includes HTTPError and timeouts
            logger.warning("metadata_unavailable", extra={"error": str(error)})
        time.sleep(poll_interval_s)


def _report_lost_agent(autoscaling: Any, metadata: InstanceMetadata) -> bool:  # noqa: ANN401 - as above
    """Let Auto Scaling replace this host. Return whether it knows."""
    try:
        autoscaling.set_instance_health(InstanceId=metadata.read("instance-id") or "", HealthStatus="Unhealthy")
    except Exception:
        logger.exception("health_report_failed")
        return False
    logger.error("agent_lost")
    return True


def _complete_drain_hook(autoscaling: Any, *, group: str, instance_id: str) -> None:  # noqa: ANN401 - as above
    try:
        autoscaling.complete_lifecycle_action(
            AutoScalingGroupName=group,
            LifecycleHookName=DRAIN_HOOK_NAME,
            InstanceId=instance_id,
            LifecycleActionResult="CONTINUE",
        )
    except Exception:
        logger.exception("drain_hook_failed")  # EC2 terminates the instance when the hook times out
        return
    logger.info("host_drained")


def stop_container(name: str = AGENT_CONTAINER) -> None:
    """Stop the agent's container. Docker does not restart a container that was stopped this way."""
    with contextlib.closing(docker.from_env(timeout=AGENT_STOP_TIMEOUT_S + 10)) as client:
        try:
            client.containers.get(name).stop(timeout=AGENT_STOP_TIMEOUT_S)
        except NotFound:
            logger.warning("agent_container_not_found")


def main() -> int:
    """Return 0 once the host is drained, 2 if a setting is missing."""
    log_json_lines()
    group = os.environ.get("HOST_GROUP")
    if not group:
        sys.stderr.write("HOST_GROUP is missing\n")
        return 2
    watch_for_termination(
        InstanceMetadata(os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA_ENDPOINT)),
        stop_agent=stop_container,
        autoscaling=boto3.client("autoscaling"),
        is_agent_lost=AgentHealth().is_lost,
        group=group,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
