"""The files that start an agent on a host: the user data, and the tags and pins of the image."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from executor_host import settings, termination_watcher
from infra import template
from infra.aws import package
from infra.errors import CommandError
from infra.images import agent_image, wheels

ROOT = Path(__file__).parents[3]
SUBSTITUTIONS = {
    "AWS::Region": "eu-central-1",
    "AWS::StackName": "python-exec-test",
    "ArtifactBucket": "a-bucket",
    "GvisorRelease": "20260720",
    "HostImageBundle": "hosts/host-0.tar.gz",
    "HostLogs": "/python-exec/hosts",
    "JobQueue": "https://sqs/jobs",
    "ResultsQueue": "https://sqs/results",
    "OciRuntime": "runsc",
}


def substituted():
    """Return the script after Fn::Sub."""
    text = package.USER_DATA.read_text()
    filled = re.sub(r"\$\{([A-Za-z:]+)\}", lambda match: SUBSTITUTIONS[match[1]], text)
    return filled.replace("${!", "${")


def test_user_data_is_bash():
    subprocess.run(["bash", "-n"], input=substituted(), text=True, check=True)


def test_shellcheck_finds_nothing_in_user_data():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, "-"], input=substituted(), text=True, check=True)


def test_user_data_references_exist_in_template():
    parsed = template.load(template.PATH.read_text())
    references = set(re.findall(r"\$\{([A-Za-z:]+)\}", package.USER_DATA.read_text()))
    assert references == set(SUBSTITUTIONS)
    assert {name for name in references if "::" not in name} <= {*parsed["Parameters"], *parsed["Resources"]}


def test_user_data_passes_only_expected_environment():
    script = package.USER_DATA.read_text()
    assert set(re.findall(r"--env \"?([A-Z_]+)=", script)) == {
        *(
            "AWS_DEFAULT_REGION",
            "JOB_QUEUE_URL",
            "RESULTS_QUEUE_URL",
            "OCI_RUNTIME",
            "METRICS_NAMESPACE",
            "HOST_GROUP",
        ),
    }
    assert re.findall(r"^export ([A-Z_]+)=", script, re.MULTILINE) == ["AWS_DEFAULT_REGION"]
    assert "--env-file" not in script


def test_user_data_installs_pinned_gvisor_release():
    assert "/gvisor/releases/release/20260720/$(uname -m)" in substituted()


COMMANDS = {
    "curl": """case "$*" in
  *http://127.0.0.1:9464/metrics) cat "$FAKES/metrics" ;;
  *"-X PUT"*"ttl-seconds: "*/latest/api/token) printf a-token ;;
  *"token: a-token"*/latest/meta-data/instance-id) printf i-0 ;;
  *) exit 22 ;;
esac""",
    "aws": 'echo "$*" >>"$FAKES/aws_calls"',
    "sleep": ":",
}


@pytest.fixture
def end_of_user_data(tmp_path):
    """Run the script's last part with these agent metrics; return the exit code and the calls of the AWS CLI."""
    for name, script in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)

    def run(metrics):
        if metrics is not None:
            (tmp_path / "metrics").write_text(metrics)
        begin, end = substituted().split("# Put the host into service")
        script = f"set -euo pipefail\n# {end}"
        assert "set -euo pipefail\n" in begin
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "FAKES": str(tmp_path)}
        completed = subprocess.run(["bash"], input=script, env=environment, capture_output=True, text=True, check=False)
        calls = tmp_path / "aws_calls"
        return completed.returncode, calls.read_text() if calls.exists() else ""

    return run


def agent_metrics(*, passed, running=0, **warm):
    """Return the agent's metrics with this number of warm sandboxes, and of running jobs, of each runtime."""
    lines = ["# HELP python_exec_warm_sandboxes", f"python_exec_isolation_check_passed {passed:.1f}"]
    for runtime, count in warm.items():
        lines += [
            f'python_exec_warm_sandboxes{{runtime="{runtime}"}} {count:.1f}',
            f'python_exec_jobs_running{{runtime="{runtime}"}} {running:.1f}',
        ]
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(("pool", "running"), [(4, 0), (0, 3)], ids=["idle", "all-in-use"])
def test_ready_host_completes_launch_hook(end_of_user_data, pool, running):
    metrics = agent_metrics(passed=1, running=running, python=pool, data=pool)
    code, aws_calls = end_of_user_data(metrics)
    assert code == 0
    assert aws_calls.split() == [
        *("autoscaling", "complete-lifecycle-action", "--lifecycle-hook-name", "wait-for-ready"),
        *("--lifecycle-action-result", "CONTINUE"),
        *("--auto-scaling-group-name", "python-exec-test-hosts", "--instance-id", "i-0"),
    ]


@pytest.mark.parametrize(
    "metrics",
    [
        None,
        "",
        agent_metrics(passed=1, python=0, data=4),
        agent_metrics(passed=0, python=4, data=4),
    ],
    ids=["no-agent", "none-of-ours", "no-sandbox", "not-isolated"],
)
def test_unready_host_does_not_complete_launch_hook(end_of_user_data, metrics):
    assert end_of_user_data(metrics) == (1, "")


def test_user_data_is_within_ec2_size_limit():
    assert len(substituted()) < 16 * 1024


def test_user_data_names_match_code():
    script = package.USER_DATA.read_text()
    assert f"--name {termination_watcher.AGENT_CONTAINER} " in script
    assert f"--stop-timeout {termination_watcher.AGENT_STOP_TIMEOUT_S} " in script
    assert "-m executor_host.termination_watcher" in script
    assert f"LifecycleHookName: {termination_watcher.DRAIN_HOOK_NAME}\n" in template.PATH.read_text()
    assert "LifecycleHookName: wait-for-ready\n" in template.PATH.read_text()
    defaults = {field.name: field.default for field in msgspec.structs.fields(settings.Settings)}
    assert f":{defaults['metrics_port']}/metrics" in script
    assert f"  {agent_image.REPOSITORY}\n" in script


def test_agent_container_options_match_integration_test():
    tested = (ROOT / "tests/integration/test_agent_image.py").read_text()
    script = package.USER_DATA.read_text()
    for flag, argument in (
        ("--read-only", "read_only=True"),
        ("--cap-drop ALL", 'cap_drop=["ALL"]'),
        ("--security-opt no-new-privileges", 'security_opt=["no-new-privileges"]'),
        ("--network host", 'network_mode="host"'),
        ('--user "900:$(stat -c %g "$socket")"', 'user=f"900:{'),
    ):
        assert flag in script
        assert argument in tested


def test_image_tag_includes_architecture():
    x86, arm = (agent_image.image_tag(architecture) for architecture in ("x86_64", "arm64"))
    assert x86.removesuffix("-x86_64") == arm.removesuffix("-arm64")
    assert re.fullmatch(rf"{agent_image.REPOSITORY}:[0-9a-f]{{12}}-arm64", arm)


def docker_on(architecture):
    return SimpleNamespace(version=lambda: {"Arch": architecture})


def test_supported_architectures_match_packages():
    supported = {agent_image.docker_architecture(docker_on(name)) for name in agent_image.ARCHITECTURES}
    assert supported == set(wheels.MACHINES)
    with pytest.raises(CommandError, match="riscv64"):
        agent_image.docker_architecture(docker_on("riscv64"))


def pins(path):
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", [agent_image.REQUIREMENTS, package.REQUIREMENTS], ids=["agent", "api"])
def test_deployed_packages_have_the_tested_versions(path):
    assert pins(path)
    assert pins(path).items() <= pins(ROOT / "requirements.txt").items()
