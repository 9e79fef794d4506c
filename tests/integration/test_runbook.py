"""The commands of the runbook. Each block runs in a shell with a recording aws, whose calls are checked and sent."""

import json
import re
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from infra import template
from tests.support.aws_commands import AwsCommand
from tests.support.markdown import code_blocks, column, read, table

RUNBOOK = read("docs/operations/runbook.md")
PREAMBLE, *BLOCKS = [block for block in code_blocks(RUNBOOK, "sh") if "<region>" not in block and "i-…" not in block]
STACK = "python-exec-prod"
# Calls for which the emulator has the resources that the commands name.
EMULATED, NOT_EMULATED = {"sqs", "dynamodb"}, {"start_message_move_task"}
QUEUES = "https://sqs.us-east-1.amazonaws.com/123456789012"
AWS = """#!/bin/bash
printf '%s\\0' "$@" >>"$CALLS"
printf '\\n' >>"$CALLS"
case "$*" in
  "sqs get-queue-url "*) [[ "$*" =~ --queue-name\\ ([^ ]+) ]] && echo "$QUEUES/${BASH_REMATCH[1]}" ;;
  *"--query Attributes.QueueArn"*) echo "arn:aws:sqs:us-east-1:123456789012:${*##*/}" ;;
  "dynamodb scan "*) cat keys.json.before ;;
  "logs start-query "*) echo "an-id" ;;
esac
"""
FAKES = ("curl", "make", "sleep", ".venv/bin/python-exec")
TEMPLATE = template.load(template.PATH.read_text())
EVENTS = set(column(table(read("docs/metrics.md"), "Event", "From", "Meaning"))) | {"host_setup_failed"}


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Return a function that runs a block and returns the arguments of each call of aws."""
    root = tmp_path_factory.mktemp("shell")
    fakes = {"aws": AWS, **dict.fromkeys(FAKES, "#!/bin/sh\n")}
    for name, script in fakes.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    (root / "keys.json.before").write_text('{"Items": [{"key_id": {"S": "k"}}]}')

    def run(block):
        calls = root / "calls"
        calls.write_text("")
        environment = {
            "PATH": f"{root}:/usr/bin:/bin",
            "CALLS": str(calls),
            "QUEUES": QUEUES,
            "INSTANCE": "i-0",
            "KEY_ID": "0",
        }
        command = ["bash", "-euc", f"{PREAMBLE}\n{block}"]
        completed = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert (completed.returncode, completed.stderr) == (0, "")
        return [line.split("\0")[:-1] for line in re.split(r"(?<=\0)\n", calls.read_text()) if line]

    return run


@pytest.fixture(scope="module")
def clients():
    """The queues and the tables of a stack."""
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        clients = boto3.Session(region_name="us-east-1").client
        body = json.dumps(template.local_resources())
        clients("cloudformation").create_stack(StackName=STACK, TemplateBody=body)
        restored = {"SourceTableName": f"{STACK}-jobs", "TargetTableName": f"{STACK}-jobs-2"}
        clients("dynamodb").restore_table_to_point_in_time(**restored, UseLatestRestorableTime=True)
        yield clients


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.partition("\n")[0][:60])
def test_commands_are_valid(shell, clients, block):
    for arguments in shell(block):
        command = AwsCommand(arguments)
        if command.service in EMULATED and command.operation not in NOT_EMULATED:
            command.call(clients)
        if arguments[:2] == ["logs", "start-query"]:
            assert_query_uses_existing_names(command.parameters)


def assert_query_uses_existing_names(query):
    groups = {
        each["Properties"]["LogGroupName"]["Fn::Sub"].replace("${AWS::StackName}", STACK)
        for each in TEMPLATE["Resources"].values()
        if each.get("Type") == "AWS::Logs::LogGroup"
    }
    assert query["logGroupName"] in groups
    text = query["queryString"]
    named = re.findall(r'event = "(\w+)"', text)
    for listed in re.findall(r"event in \[(.*?)\]", text):
        named += re.findall(r'"(\w+)"', listed)
    for prefix, endings in re.findall(r"event like /(\w+)\(([\w|]+)\)/", text):
        named += [f"{prefix}{ending}" for ending in endings.split("|")]
    assert set(named) <= EVENTS


@pytest.mark.parametrize(
    "arguments",
    [
        ["sqs", "get-queues"],
        ["sqs", "get-queue-url", "--name", "x"],
        ["sqs", "get-queue-url"],
        ["logs", "start-query", "--query-string", "x", "--start-time", "0", "--end-time", "1", "--limit", "x"],
        ["dynamodb", "update-table", "--table-name", "x", "--deletion-protection-enabled", "maybe"],
    ],
    ids=["operation", "option", "missing", "type", "flag"],
)
def test_invalid_command_is_noticed(arguments):
    with pytest.raises((AssertionError, ValueError, KeyError)):
        assert AwsCommand(arguments).parameters["DeletionProtectionEnabled"]


def test_shellcheck_finds_nothing_in_the_runbook():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    script = "\n".join([PREAMBLE, *BLOCKS])
    options = ["--shell=bash", "--exclude=SC2154"]  # variables of the reader
    subprocess.run([shellcheck, *options, "-"], input=script, text=True, check=True)


def test_every_alarm_has_a_section_with_commands():
    alarms = [name for name, each in TEMPLATE["Resources"].items() if each.get("Type") == "AWS::CloudWatch::Alarm"]
    sections = dict(re.findall(r"^### (\w+Alarm)\n(.*?)(?=^##)", RUNBOOK, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(alarms)
    assert [name for name, text in sections.items() if "insights " not in "".join(code_blocks(text, "sh")[:1])] == []
