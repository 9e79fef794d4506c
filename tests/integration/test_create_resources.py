"""`python-exec create-resources` on an emulator."""

import json

import pytest

from infra.env_file import client
from infra.operator import cli


@pytest.fixture
def create(aws, capsys, monkeypatch):
    """Return a function that runs the command and returns the settings that it prints."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)

    def create():
        monkeypatch.setattr("sys.argv", ["python-exec", "create-resources"])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        assert exit_info.value.code == 0
        return dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())

    return create


def test_repeating_it_changes_nothing(create):
    assert create() == create()


def test_resources_are_those_of_the_template(create, aws):
    settings = create()
    sqs, s3 = client("sqs", aws.environment), client("s3", aws.environment)
    attributes = sqs.get_queue_attributes(QueueUrl=settings["JOB_QUEUE_URL"], AttributeNames=["All"])["Attributes"]
    redrive = json.loads(attributes["RedrivePolicy"])
    assert (attributes["VisibilityTimeout"], redrive["maxReceiveCount"]) == ("15", 3)
    assert redrive["deadLetterTargetArn"].endswith(":python-exec-jobs-dead")
    rules = s3.get_bucket_lifecycle_configuration(Bucket="python-exec-payloads")["Rules"]
    assert [rule["Expiration"]["Days"] for rule in rules] == [2]
    dynamodb = client("dynamodb", aws.environment)
    for name in ("KEYS_TABLE", "JOBS_TABLE"):
        assert dynamodb.describe_table(TableName=settings[name])["Table"]["TableStatus"] == "ACTIVE"


def test_unreachable_endpoint_is_reported_in_one_line(create, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("sys.argv", ["python-exec", "create-resources"])
    with pytest.raises(SystemExit, match="Cannot create the resources: "):
        cli.main()
