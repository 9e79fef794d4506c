"""The files that start an agent on a host: the user data, and the tags and pins of the image."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from executor_host import agent_health, settings, termination_watcher
from infra import template
from infra.aws import package
from infra.errors import CommandError
from infra.images import agent_image, wheels

ROOT = Path(__file__).parents[3]
IMAGES = "the images of a host"
RUNSC = "#!/bin/sh\n"
SUBSTITUTIONS = {
    "AWS::Region": "eu-central-1",
    "AWS::StackName": "python-exec-test",
    "ArtifactBucket": "a-bucket",
    "GvisorBinary": f"hosts/gvisor-1-x86_64/{hashlib.sha512(RUNSC.encode()).hexdigest()}",
    "HostImageBundle": f"hosts/host-0-x86_64/{hashlib.sha256(IMAGES.encode()).hexdigest()}.tar.gz",
    "HostLogs": "/python-exec/hosts",
    "JobQueue": "https://sqs/jobs",
    "DataJobQueue": "https://sqs/data-jobs",
    "ResultsQueue": "https://sqs/results",
    "OciRuntime": "runsc",
    "PayloadBucket.RegionalDomainName": "a-bucket.s3.eu-central-1.amazonaws.com",
}


def substituted():
    """Return the script after Fn::Sub."""
    text = package.USER_DATA.read_text()
    filled = re.sub(r"\$\{([A-Za-z:.]+)\}", lambda match: SUBSTITUTIONS[match[1]], text)
    return filled.replace("${!", "${")


def test_user_data_is_bash():
    subprocess.run(["bash", "-n"], input=substituted(), text=True, check=True)


def test_shellcheck_finds_nothing_in_user_data():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, "-"], input=substituted(), text=True, check=True)


def test_user_data_references_exist_in_template():
    parsed = template.load(template.PATH.read_text())
    references = set(re.findall(r"\$\{([A-Za-z:.]+)\}", package.USER_DATA.read_text()))
    assert references == set(SUBSTITUTIONS)
    assert {name.split(".")[0] for name in references if "::" not in name} <= {
        *parsed["Parameters"],
        *parsed["Resources"],
    }


def test_user_data_passes_only_expected_environment():
    script = package.USER_DATA.read_text()
    assert set(re.findall(r"--env \"?([A-Z_]+)=", script)) == {
        *(
            "AWS_DEFAULT_REGION",
            "JOB_QUEUE_URL",
            "DATA_JOB_QUEUE_URL",
            "RESULTS_QUEUE_URL",
            "PAYLOAD_STORE_URL",
            "OCI_RUNTIME",
            "METRICS_NAMESPACE",
            "HOST_GROUP",
        ),
    }
    assert re.findall(r"^export ([A-Z_]+)=", script, re.MULTILINE) == ["AWS_DEFAULT_REGION"]
    assert "--env-file" not in script


def test_user_data_downloads_only_from_the_artifact_bucket():
    script = package.USER_DATA.read_text()
    assert set(re.findall(r"https?://([^/\s:\"]+)", script)) == {
        "169.254.169.254",
        "127.0.0.1",
        "${PayloadBucket.RegionalDomainName}",
    }
    assert re.findall(r"aws s3 cp --only-show-errors \"(\S+)\"", script) == [
        "s3://${ArtifactBucket}/${GvisorBinary}",
        "s3://${ArtifactBucket}/${HostImageBundle}",
    ]


RECORD = 'echo "$(basename "$0") $*" >>"$FAKES/calls"\n'
COMMANDS = {  # programs of a host that are not on this machine or would change it
    **dict.fromkeys(("dnf", "docker", "systemctl", "shutdown"), RECORD),
    "aws": RECORD
    + """case "$*" in
  "s3 cp "*/gvisor-*) cp "$FAKES/runsc" "${@: -1}" ;;
  "s3 cp "*) cp "$FAKES/images" "${@: -1}" ;;
esac""",
    "curl": """case "$*" in
  *http://127.0.0.1:9464/metrics) exec cat "$FAKES/metrics" ;;
  *"-X PUT"*"ttl-seconds: "*/latest/api/token) exec printf a-token ;;
  *"token: a-token"*/latest/meta-data/instance-id) exec printf i-0 ;;
  *) exit 22 ;;
esac""",
    "stat": "echo 999",
    "sleep": ":",
}


def agent_metrics(*, passed, running=0, **warm):
    """Return the agent's metrics with this number of warm sandboxes, and of running jobs, of each runtime."""
    lines = ["# HELP python_exec_warm_sandboxes", f"python_exec_isolation_check_passed {passed:.1f}"]
    for runtime, count in warm.items():
        lines += [
            f'python_exec_warm_sandboxes{{runtime="{runtime}"}} {count:.1f}',
            f'python_exec_jobs_running{{runtime="{runtime}"}} {running:.1f}',
        ]
    return "".join(f"{line}\n" for line in lines)


class Host:
    """A directory in place of the root of a host, with fakes of its programs that record their calls."""

    def __init__(self, root):
        self.root = root
        for directory in ("bin", "etc", "var/log", "var/tmp", "dev", "usr/local/bin"):
            (root / directory).mkdir(parents=True)
        for name, script in COMMANDS.items():
            self.replace(name, script)
        self.write("images", IMAGES)
        self.write("runsc", RUNSC)
        self.write("metrics", agent_metrics(passed=1, python=4, data=1))
        self.write("var/log/cloud-init-output.log", 'first line\n\nlast "line"\n')

    def write(self, name, text):
        (self.root / name).write_text(text)

    def replace(self, command, script):
        for path in (self.root / "bin" / command, self.root / "usr/local/bin" / command):
            path.write_text(f"#!/bin/bash\n{script}\n")
            path.chmod(0o755)

    def boot(self):
        """Run the user data. Return its exit code and the calls of programs, one a line."""
        script = re.sub(r"/(etc|dev|var/log|var/tmp|usr/local/bin)/", rf"{self.root}/\1/", substituted())
        environment = {"PATH": f"{self.root}/bin:/usr/bin:/bin", "FAKES": str(self.root), "HOSTNAME": "host-1"}
        completed = subprocess.run(["bash"], input=script, env=environment, capture_output=True, text=True, check=False)
        return completed.returncode, (self.root / "calls").read_text()


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def launch_action(result):
    return (
        "aws autoscaling complete-lifecycle-action --lifecycle-hook-name wait-for-ready "
        f"--lifecycle-action-result {result} --auto-scaling-group-name python-exec-test-hosts --instance-id i-0\n"
    )


@pytest.mark.parametrize(("pool", "running"), [(4, 0), (0, 3)], ids=["idle", "all-in-use"])
def test_ready_host_completes_launch_hook(host, pool, running):
    host.write("metrics", agent_metrics(passed=1, running=running, python=pool, data=pool))
    code, calls = host.boot()
    assert code == 0
    assert calls.endswith(launch_action("CONTINUE"))
    assert "docker load --input" in calls
    assert "ABANDON" not in calls


FAILURES = {  # what breaks, and the step that the log names
    "no_packages": ({"dnf": "exit 1"}, "install packages"),
    "no_gvisor": ({"aws": COMMANDS["aws"].replace('cp "$FAKES/runsc', 'exit 1; cp "$FAKES')}, "install gVisor"),
    "other_gvisor": ({"aws": COMMANDS["aws"].replace('cp "$FAKES/runsc"', "echo other | tee")}, "install gVisor"),
    "docker_does_not_start": ({"systemctl": 'case "$1" in restart) exit 1 ;; esac'}, "start Docker"),
    "no_bundle": ({"aws": COMMANDS["aws"].replace('cp "$FAKES/images', 'exit 1; cp "$FAKES')}, "load images"),
    "other_bundle": ({"aws": COMMANDS["aws"].replace('cp "$FAKES/images"', "echo other | tee")}, "load images"),
    "corrupt_images": ({"docker": RECORD + 'case "$1" in load) exit 1 ;; esac'}, "load images"),
    "agent_does_not_start": ({"docker": RECORD + 'case "$1" in run) exit 125 ;; esac'}, "start the agent"),
}


@pytest.mark.parametrize(("commands", "step"), FAILURES.values(), ids=FAILURES)
def test_host_that_cannot_boot_is_replaced_and_logs_why(host, commands, step):
    for name, script in commands.items():
        host.replace(name, script)
    code, calls = host.boot()
    assert code != 0
    assert launch_action("ABANDON") in calls
    assert calls.endswith("shutdown -h now\n")
    assert "CONTINUE" not in calls
    stream = "--log-group-name /python-exec/hosts --log-stream-name host-1/boot"
    assert f"aws logs create-log-stream {stream}\n" in calls
    (events,) = re.findall(rf"^aws logs put-log-events {stream} --log-events (.*)$", calls, re.MULTILINE)
    messages = [event["message"] for event in msgspec.json.decode(events)]
    assert messages == ["first line", 'last "line"', f"host_setup_failed: {step} (exit code {code})"]
    assert step in (host.root / "dev/console").read_text()


@pytest.mark.parametrize(
    "metrics",
    [
        "",
        agent_metrics(passed=1, python=0, data=4),
        agent_metrics(passed=0, python=4, data=4),
    ],
    ids=["no-agent", "no-sandbox", "not-isolated"],
)
def test_unready_host_is_replaced(host, metrics):
    host.write("metrics", metrics)
    code, calls = host.boot()
    assert code == 1
    assert launch_action("ABANDON") in calls
    assert "host_setup_failed: wait for the isolation check" in calls


def test_host_without_a_route_to_aws_shuts_down(host):
    host.replace("aws", RECORD + "exit 255")
    host.replace("curl", "exit 28")
    host.replace("dnf", RECORD + "exit 1")
    code, calls = host.boot()
    assert code == 1
    assert calls.endswith("shutdown -h now\n")


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
    assert agent_health.METRICS_URL.endswith(f":{defaults['metrics_port']}/metrics")
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
    supported = {wheels.docker_architecture(docker_on(name)) for name in wheels.ARCHITECTURES}
    assert supported == set(wheels.MACHINES)
    with pytest.raises(CommandError, match="riscv64"):
        wheels.docker_architecture(docker_on("riscv64"))


def pins(path):
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", [agent_image.REQUIREMENTS, package.REQUIREMENTS], ids=["agent", "api"])
def test_deployed_packages_have_the_tested_versions(path):
    assert pins(path)
    assert pins(path).items() <= pins(ROOT / "requirements.txt").items()
