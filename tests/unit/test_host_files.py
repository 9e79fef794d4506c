"""What starts an agent on a host: the user data, the systemd unit, and the pins of the image."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from executor_host import host_image, notices
from infra import package, template

ROOT = Path(__file__).parent.parent.parent
UNIT = ROOT / "executor_host/python-exec-agent.service"
GIVEN = {
    "AWS::Region": "eu-central-1",
    "AWS::StackName": "python-exec-test",
    "ArtifactBucket": "a-bucket",
    "HostBundle": "hosts/host-0.tar.gz",
    "HostLogs": "/python-exec/hosts",
    "JobQueue": "https://sqs/jobs",
    "ResultsQueue": "https://sqs/results",
    "SandboxRuntime": "runsc",
}


def substituted():
    """The script as Fn::Sub leaves it."""
    text = package.USER_DATA.read_text()
    filled = re.sub(r"\$\{([A-Za-z:]+)\}", lambda found: GIVEN[found[1]], text)
    return filled.replace("${!", "${")


def test_user_data_is_bash():
    subprocess.run(["bash", "-n"], input=substituted(), text=True, check=True)


def test_shellcheck_finds_nothing_in_user_data():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, "-"], input=substituted(), text=True, check=True)


def test_user_data_refers_only_to_what_the_template_has():
    parsed = template.load(template.PATH.read_text())
    named = set(re.findall(r"\$\{([A-Za-z:]+)\}", package.USER_DATA.read_text()))
    assert named == set(GIVEN)
    assert {name for name in named if "::" not in name} <= {*parsed["Parameters"], *parsed["Resources"]}


def test_user_data_fits_an_instance():
    assert len(substituted()) < 16 * 1024


def test_user_data_names_what_the_code_does():
    script = package.USER_DATA.read_text()
    assert f"--name {notices.AGENT_CONTAINER} " in script
    assert f"--stop-timeout {notices.STOP_WITHIN_S} " in script
    assert "-m executor_host.notices" in script
    assert f"LifecycleHookName: {notices.HOOK}\n" in template.PATH.read_text()
    assert f"  {host_image.REPOSITORY}\n" in script


def test_hardening_of_the_agent_is_the_same_in_its_test():
    tested = (ROOT / "tests/integration/test_host.py").read_text()
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


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_unit_is_one_that_systemd_takes(tmp_path):
    text = UNIT.read_text()
    docker = tmp_path / "docker.service"
    docker.write_text("[Service]\nExecStart=/bin/true\n")
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/python-exec/bin/python3", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (0, [])


def test_every_wheel_is_pinned_with_hashes():
    lines = host_image.requirements()
    assert set(re.findall(r"^([a-z0-9-]+)==", lines, re.MULTILINE)) == set(host_image.WHEELS)
    assert lines.count("--hash=sha256:") >= len(host_image.WHEELS)
    assert ";" not in lines
