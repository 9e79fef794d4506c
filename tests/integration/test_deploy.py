"""`make deploy` and `make destroy` against an emulator without SAM: the stack has the queues and tables only."""

import hashlib
import json
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.loaders import create_loader
from botocore.stub import Stubber
from moto import mock_aws
from moto.backends import get_backend
from moto.servicequotas.models import ServiceQuotasBackend

from infra import template
from infra.aws import account_setup, deploy, gvisor, releases
from infra.aws.cloudformation_stack import Stack
from infra.aws.package import HOST_DEFAULTS
from infra.capacity import sizing
from infra.errors import CommandError
from infra.operator.keys_cli import keys

ROOT = Path(__file__).parent.parent.parent
ACCOUNT, REGION = "123456789012", "us-east-1"
BUCKET = f"python-exec-artifacts-{ACCOUNT}-{REGION}-an"
BUNDLE_KEY = f"hosts/host-0123-x86_64/{hashlib.sha256(b'images').hexdigest()}.tar.gz"
STACK = "python-exec-x"
DEFAULTS = {
    "ArtifactBucket": "",
    "HostImageBundle": "",
    "ImageId": "",
    "InstanceType": "c7i.large",
    "OnDemandHosts": "1",
    sizing.PEAK: str(sizing.DEFAULT_PEAK),
    sizing.DATA_SHARE: str(sizing.DEFAULT_DATA_SHARE),
    **{name: str(value) for name, value in sizing.default_parameters("c7i.large").items()},
    "AlarmTopicArn": "",
    "OciRuntime": "runc",
    "GvisorBinary": "",
}
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms"
FOREIGN_ROLE = f"arn:aws:iam::{ACCOUNT}:role/other-logs"
SERVICE_MODELS = create_loader()  # reads the model of each service once


@pytest.fixture
def credentials(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("MOTO_ACCOUNT_ID", ACCOUNT)  # else moto loads the policies of IAM for every partition of AWS


def new_session():
    session = botocore.session.Session()
    session.register_component("data_loader", SERVICE_MODELS)
    return boto3.Session(region_name=REGION, botocore_session=session)


@pytest.fixture(autouse=True)
def fast_polls(monkeypatch):
    monkeypatch.setattr("infra.aws.cloudformation_stack.POLL_S", 0.0)
    monkeypatch.setattr("infra.aws.account_setup.ROLE_POLL_S", 0.0)


@pytest.fixture
def clients(credentials):
    """An account in which another application has set the logging role of API Gateway."""
    with mock_aws():
        clients = new_session().client
        change = {"op": "replace", "path": "/cloudwatchRoleArn", "value": FOREIGN_ROLE}
        clients("apigateway").update_account(patchOperations=[change])
        yield clients


@pytest.fixture
def fresh_clients(credentials):
    with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        yield new_session().client


class Operator:
    """Packages and deploys like `make deploy`."""

    def __init__(self, clients, directory):
        self.clients, self.directory = clients, directory
        self.bundle = directory / "host-0123-x86_64.tar.gz"
        self.bundle.write_bytes(b"images")

    def deploy(self, stage="x", *, architecture="x86_64", outputs=("JobQueue",), defaults=DEFAULTS, **parameters):
        packaged = {
            **template.local_resources(),
            "Parameters": {name: {"Type": "String", "Default": value} for name, value in defaults.items()},
            "Outputs": {f"{name}Url": {"Value": {"Ref": name}} for name in outputs},
        }
        (self.directory / f"template-{architecture}.json").write_text(json.dumps(packaged))
        (self.directory / f"api-{architecture}.zip").write_bytes(b"zip")
        return deploy.deploy(
            self.clients,
            stage=stage,
            parameters=parameters,
            package=self.directory,
            host_bundle=self.bundle,
            architecture=architecture,
        )

    def set(self, **parameters):
        deploy.set_parameters(self.clients, stage="x", parameters=parameters)

    def roll_back(self, release=""):
        releases.roll_back(self.clients, stage="x", release=release)

    def promote(self, source, stage, **options):
        releases.promote(self.clients, source=source, stage=stage, **options)

    def destroy(self, stage="x"):
        deploy.destroy(self.clients, stage=stage)

    def parameters(self, stack=STACK):
        (stack,) = self.clients("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in stack["Parameters"]}


@pytest.fixture
def operator(clients, tmp_path):
    return Operator(clients, tmp_path)


def set_status(status):
    (stack,) = [each for each in get_backend("cloudformation")[ACCOUNT][REGION].stacks.values() if each.name == STACK]
    stack.status = status


def queues(clients):
    urls = clients("sqs").list_queues(QueueNamePrefix="python-exec-").get("QueueUrls", ())
    return {url.rpartition("/")[2] for url in urls}


def test_deploy_and_destroy_report_progress(operator, clients, capsys):
    operator.deploy()
    assert len(queues(clients)) == 7
    s3 = clients("s3")
    assert s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
    assert s3.get_object(Bucket=BUCKET, Key=BUNDLE_KEY)["Body"].read() == b"images"
    assert STACK in capsys.readouterr().err
    operator.destroy()
    operator.destroy("gone")
    assert capsys.readouterr().err.endswith("python-exec-gone does not exist.\n")


def test_every_call_requires_the_owner_of_the_bucket(operator, clients):
    owners = {}

    def record(operation):
        def record_owner(request, **_):
            owners[operation] = request.headers.get("x-amz-expected-bucket-owner", b"").decode()

        return record_owner

    def recording_clients(service):
        client = clients(service)
        if service == "s3":
            for operation in client.meta.service_model.operation_names:
                client.meta.events.register(f"before-send.s3.{operation}", record(operation))
        return client

    operator.clients = recording_clients
    operator.deploy()
    assert owners.pop("CreateBucket") == ""  # a name in the namespace of the account
    assert owners.keys() >= {"HeadBucket", "HeadObject", "PutObject", "ListObjectsV2", "PutBucketEncryption"}
    assert set(owners.values()) == {ACCOUNT}


def test_bucket_of_another_account_is_rejected(operator, clients):
    def refusing_clients(service):
        client = clients(service)
        if service == "s3":
            stubber = Stubber(client)
            stubber.add_client_error("head_bucket", service_error_code="403", http_status_code=403)
            stubber.activate()
        return client

    operator.clients = refusing_clients
    with pytest.raises(CommandError, match="belongs to another account"):
        operator.deploy()


def test_rebuilt_bundle_of_the_same_sources_does_not_replace_hosts(operator):
    operator.deploy()
    operator.bundle.write_bytes(b"the same images, built again")
    operator.deploy()
    assert operator.parameters()["HostImageBundle"] == BUNDLE_KEY


def template_outputs(clients, stack=STACK):
    return set(clients("cloudformation").get_template(StackName=stack)["TemplateBody"]["Outputs"])


def release_names(clients, stage="x"):
    objects = clients("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"releases/{stage}/").get("Contents", ())
    return [each["Key"].rpartition("/")[2].removesuffix(".json") for each in objects]


def deploy_second_release(operator, **parameters):
    """Deploy another template and other images."""
    operator.bundle = operator.directory / "host-4567-x86_64.tar.gz"
    operator.bundle.write_bytes(b"other images")
    operator.deploy(outputs=("JobQueue", "ResultsQueue"), **parameters)


def test_rollback_restores_template_and_images_but_not_parameters(operator, clients):
    operator.deploy(MaxQueueDepth="50")
    deploy_second_release(operator)
    operator.set(MaxQueueDepth="60")
    assert operator.parameters()["HostImageBundle"] != BUNDLE_KEY
    operator.roll_back()
    assert (template_outputs(clients), operator.parameters()["HostImageBundle"]) == ({"JobQueueUrl"}, BUNDLE_KEY)
    assert operator.parameters()["MaxQueueDepth"] == "60"


def test_rollback_to_a_named_release_goes_forward_too(operator, clients):
    operator.deploy()
    deploy_second_release(operator)
    operator.roll_back()
    operator.roll_back(release_names(clients)[1])
    assert template_outputs(clients) == {"JobQueueUrl", "ResultsQueueUrl"}


def test_rollback_without_an_earlier_release_is_rejected(operator, clients):
    with pytest.raises(CommandError, match=f"{STACK} does not exist"):
        operator.roll_back()
    operator.deploy()
    operator.deploy(MaxQueueDepth="50")  # the same artifacts
    (name,) = release_names(clients)
    with pytest.raises(CommandError, match=f"no release before {name}"):
        operator.roll_back()
    with pytest.raises(CommandError, match=f"(?s)no release 2020.*{name}  version"):
        operator.roll_back("2020")


def test_promotion_applies_the_release_of_the_other_stage(operator, clients):
    operator.deploy("y", MaxQueueDepth="70")
    deploy_second_release(operator)
    operator.promote("x", "y")
    promoted = operator.parameters("python-exec-y")
    assert template_outputs(clients, "python-exec-y") == {"JobQueueUrl", "ResultsQueueUrl"}
    assert promoted["HostImageBundle"] == operator.parameters()["HostImageBundle"]
    assert promoted["MaxQueueDepth"] == "70"
    assert len(release_names(clients, "y")) == 2


def failing_update(clients):
    """Return clients of an account in which CloudFormation rolls the next update back."""

    def fail(**_):
        set_status("UPDATE_ROLLBACK_COMPLETE")

    def failing_clients(service):
        client = clients(service)
        client.meta.events.register(f"after-call.{service}.ExecuteChangeSet", fail)
        return client

    return failing_clients


def recording(clients, calls):
    """Return clients that record the actions of IAM for which they need permission."""

    def recording_clients(service):
        client = clients(service)
        client.meta.events.register("provide-client-params.*.*", lambda model, **_: calls.add(iam_action(model)))
        return client

    return recording_clients


def iam_action(operation):
    """Return the action that an operation needs, most of which have the name of the operation."""
    service = operation.service_model.signing_name
    renamed = {
        "s3:HeadBucket": "s3:ListBucket",
        "s3:ListObjectsV2": "s3:ListBucket",
        "s3:HeadObject": "s3:GetObject",
        "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
        "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    }
    name = operation.http["method"] if service == "apigateway" else operation.name
    return renamed.get(f"{service}:{name}", f"{service}:{name}")


def test_life_of_a_stack_needs_exactly_the_permissions_of_the_deployer(fresh_clients, tmp_path, monkeypatch):
    """A deployment, an update, an update that fails, a rollback, a promotion and a deletion."""
    calls, clients = set(), fresh_clients
    operator = Operator(recording(clients, calls), tmp_path)
    operator.deploy(AlarmTopicArn=TOPIC)
    operator.deploy("y")
    deploy_second_release(operator, ImageId=latest_image(clients))
    before, names = operator.parameters(), release_names(clients)
    operator.clients = failing_update(operator.clients)
    with pytest.raises(CommandError, match="UPDATE_ROLLBACK_COMPLETE; the events above name the cause"):
        operator.deploy(MaxQueueDepth="50")
    assert release_names(clients) == names  # a failed deployment is no release
    operator.clients = recording(clients, calls)
    operator.set(MaxQueueDepth=before["MaxQueueDepth"], ImageId="latest")
    operator.roll_back(names[0])
    assert operator.parameters()["HostImageBundle"] == BUNDLE_KEY
    operator.promote("x", "y", plan_only=True)
    account_setup._gateway_role(operator.clients)  # as in another region of the account
    clients("sqs").create_queue(QueueName=f"{STACK}-reply-{'0a' * 16}")
    operator.destroy()
    assert {name for name in queues(clients) if name.startswith(STACK)} == set()
    assert set(clients("dynamodb").list_tables()["TableNames"]) >= {f"{STACK}-jobs", f"{STACK}-keys"}  # retained
    assert release_names(clients) == names
    allowed = deployer_actions()
    assert calls <= allowed
    assert allowed - calls == {"iam:PassRole"}  # of which no call says so


def test_command_line_changes_rolls_back_promotes_and_destroys(operator, clients, monkeypatch):
    session = SimpleNamespace(region_name=REGION, client=clients)  # a new one would read the models of AWS each time
    monkeypatch.setattr(deploy, "boto3", SimpleNamespace(Session=lambda: session))
    monkeypatch.setattr("infra.aws.cloudformation_stack.time.sleep", lambda _: None)
    operator.deploy()
    operator.deploy("y")
    deploy_second_release(operator)
    assert deploy.main(["promote", "y", "--source", "x", "--plan"]) is None
    assert operator.parameters("python-exec-y")["HostImageBundle"] == BUNDLE_KEY
    assert deploy.main(["promote", "y", "--source", "x"]) is None
    assert operator.parameters("python-exec-y")["HostImageBundle"] != BUNDLE_KEY
    assert deploy.main(["set", "x", "MaxQueueDepth=60"]) is None
    assert deploy.main(["rollback", "x"]) is None
    assert (operator.parameters()["MaxQueueDepth"], operator.parameters()["HostImageBundle"]) == ("60", BUNDLE_KEY)
    session.client = failing_update(clients)
    assert "UPDATE_ROLLBACK_COMPLETE" in deploy.main(["set", "x", "MaxQueueDepth=70"])
    session.client = clients
    assert deploy.main(["destroy", "x"]) is None
    assert {name for name in queues(clients) if name.startswith(STACK)} == set()


def deployer_actions():
    role = template.load((ROOT / "infra/aws/deployer.yaml").read_text())["Resources"]["DeployerRole"]
    (policy,) = role["Properties"]["Policies"]
    return {action for statement in policy["PolicyDocument"]["Statement"] for action in statement["Action"]}


def test_plan_of_a_promotion_changes_nothing(operator, clients, capsys):
    operator.deploy("y")
    deploy_second_release(operator)

    def state():
        change_sets = clients("cloudformation").list_change_sets(StackName="python-exec-y")["Summaries"]
        return operator.parameters("python-exec-y"), release_names(clients, "y"), len(change_sets)

    before = state()
    operator.promote("x", "y", plan_only=True)
    assert "Nothing was changed in python-exec-y." in capsys.readouterr().err
    assert state() == before


def test_cloudformation_acts_with_the_role_of_the_setting(operator, monkeypatch):
    roles, clients = [], operator.clients

    def recording_clients(service):
        client = clients(service)
        if service == "cloudformation":
            client.meta.events.register(
                "provide-client-params.*.CreateChangeSet", lambda params, **_: roles.append(params.get("RoleARN"))
            )
        return client

    operator.clients = recording_clients
    operator.deploy()
    monkeypatch.setenv("CLOUDFORMATION_ROLE_ARN", FOREIGN_ROLE)
    operator.set(MaxQueueDepth="50")
    assert roles == [None, FOREIGN_ROLE]


@pytest.fixture
def origin(tmp_path, monkeypatch):
    """A directory in place of gVisor's server, with a file of the pinned release."""
    folder = tmp_path / "origin" / gvisor.RELEASE / "x86_64"
    folder.mkdir(parents=True)
    (folder / "runsc").write_bytes(b"runsc")
    monkeypatch.setattr(gvisor, "ORIGIN", f"file://{tmp_path}/origin")
    monkeypatch.setitem(gvisor.SHA512, "x86_64", hashlib.sha512(b"runsc").hexdigest())
    return folder


def test_gvisor_is_verified_and_uploaded_only_for_its_runtime(operator, clients, origin):
    operator.deploy()
    assert operator.parameters()["GvisorBinary"] == ""
    operator.deploy(OciRuntime="runsc")
    key = operator.parameters()["GvisorBinary"]
    assert key == f"hosts/gvisor-{gvisor.RELEASE}-x86_64/{hashlib.sha512(b'runsc').hexdigest()}"
    assert clients("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"runsc"
    (origin / "runsc").unlink()
    operator.deploy(MaxHosts="5")  # a verified copy is kept
    assert operator.parameters()["GvisorBinary"] == key


@pytest.mark.parametrize(("content", "message"), [(b"other", "not the pinned one"), (None, "Cannot download")])
def test_gvisor_that_is_not_the_pinned_one_is_rejected(operator, clients, origin, content, message):
    (origin / "runsc").unlink()
    if content:
        (origin / "runsc").write_bytes(content)
    with pytest.raises(CommandError, match=message):
        operator.deploy(OciRuntime="runsc")
    assert clients("cloudformation").describe_stacks()["Stacks"] == []


def test_tables_are_protected_from_deletion(operator, clients):
    operator.deploy()
    for table in ("keys", "jobs"):
        described = clients("dynamodb").describe_table(TableName=f"{STACK}-{table}")["Table"]
        assert described["DeletionProtectionEnabled"]


def latest_image(clients, architecture="x86_64"):
    name = f"/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{architecture}"
    return clients("ssm").get_parameter(Name=name)["Parameter"]["Value"]


def test_machine_image_changes_only_on_request(operator, clients):
    (older, *_) = clients("ec2").describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
    assert older["ImageId"] != latest_image(clients)
    operator.deploy(ImageId=older["ImageId"])
    operator.deploy(MaxQueueDepth="50")
    assert operator.parameters()["ImageId"] == older["ImageId"]
    operator.set(ImageId="latest")
    assert operator.parameters()["ImageId"] == latest_image(clients)


def test_machine_image_that_is_gone_is_replaced(operator, clients):
    operator.deploy(ImageId="ami-0123456789abcdef0")
    assert operator.parameters()["ImageId"] == latest_image(clients)


def test_set_changes_parameters_and_nothing_else(operator, clients, capsys):
    operator.deploy(InstanceType="c7i.xlarge")
    before = operator.parameters()
    template = clients("cloudformation").get_template(StackName=STACK)["TemplateBody"]
    operator.set(MaxQueueDepth="50")
    assert operator.parameters() == before | {"MaxQueueDepth": "50"}
    assert clients("cloudformation").get_template(StackName=STACK)["TemplateBody"] == template


def test_setting_an_unknown_parameter_or_stack_is_rejected(operator):
    with pytest.raises(CommandError, match=f"{STACK} does not exist"):
        operator.set(MaxQueueDepth="50")
    operator.deploy()
    with pytest.raises(CommandError, match="no parameter MaxQueue, Size"):
        operator.set(Size="1", MaxQueue="50", MaxQueueDepth="50")


def test_redeploy_without_changes_is_a_no_op(operator, capsys):
    # The emulator compares the parameters of the calls, so the first one sets all of them.
    sizes = {"MaxQueueDepth": "50", "OnDemandHosts": "1", "PeakRunsPerSecond": "6"}
    others = {"AlarmTopicArn": TOPIC, "OciRuntime": "runc", "GvisorBinary": ""}
    operator.deploy(InstanceType="c7i.xlarge", **sizes, **others)
    operator.deploy()
    assert capsys.readouterr().err.endswith(f"{STACK} has no changes.\n")


def test_missing_alarm_topic_is_warned_about(operator, capsys):
    operator.deploy()
    command = 'make set STAGE=x PARAMETERS="AlarmTopicArn='
    assert command in capsys.readouterr().err
    operator.set(MaxQueueDepth="50")
    assert command in capsys.readouterr().err
    operator.set(AlarmTopicArn=TOPIC)
    assert command not in capsys.readouterr().err


def test_unspecified_parameters_are_preserved(operator):
    operator.deploy(MaxQueueDepth="50")
    operator.deploy(InstanceType="c7i.xlarge")
    assert operator.parameters() == DEFAULTS | {
        **sizes(sizing.DEFAULT_PEAK, instance_type="c7i.xlarge"),
        "ArtifactBucket": BUCKET,
        "ImageId": latest_image(operator.clients),
        "HostImageBundle": BUNDLE_KEY,
        "MaxQueueDepth": "50",
        "InstanceType": "c7i.xlarge",
        "AlarmTopicArn": "",
    }


def sizes(peak, *, data_share=sizing.DEFAULT_DATA_SHARE, instance_type="c7i.large", **chosen):
    values = sizing.derived_parameters(peak, data_share=data_share, instance_type=instance_type, chosen=chosen)
    return {name: str(value) for name, value in values.items()}


def test_sizes_follow_the_peak_unless_they_were_set(operator, capsys):
    operator.deploy(PeakRunsPerSecond="20")
    assert operator.parameters().items() >= sizes(20).items()
    operator.set(PeakRunsPerSecond="50", ThrottleRate="5000")
    assert operator.parameters().items() >= (sizes(50) | {"ThrottleRate": "5000"}).items()
    operator.deploy(PeakRunsPerSecond="100", MinHosts="2")
    assert operator.parameters().items() >= (sizes(100, MinHosts="2") | {"ThrottleRate": "5000"}).items()
    assert "ThrottleRate=5000 was set and is kept." in capsys.readouterr().err
    operator.set(MinHosts="derived", ThrottleRate="derived", DataShare="0.2")
    assert operator.parameters().items() >= (sizes(100, data_share=0.2) | {"DataShare": "0.2"}).items()


def test_quota_that_is_too_low_stops_before_anything_is_created(operator, clients, monkeypatch, capsys):
    quota = {"ServiceCode": "lambda", "QuotaCode": "L-B99A9384", "Value": 10.0}
    monkeypatch.setattr(ServiceQuotasBackend, "get_service_quota", lambda *_, **__: quota)
    with pytest.raises(CommandError, match="L-B99A9384"):
        operator.deploy()
    assert "at peak" in capsys.readouterr().err
    assert clients("s3").list_buckets()["Buckets"] == []
    assert clients("cloudformation").describe_stacks()["Stacks"] == []


def test_invalid_peak_changes_nothing(operator):
    operator.deploy()
    before = operator.parameters()
    with pytest.raises(CommandError, match=r"PeakRunsPerSecond must be a number from 0\.01 to 10,000"):
        operator.set(PeakRunsPerSecond="many")
    assert operator.parameters() == before


@pytest.mark.parametrize(("before", "after"), [("arm64", "x86_64"), ("x86_64", "arm64")])
def test_architecture_defaults_are_switched(operator, before, after):
    operator.deploy(architecture=before, defaults={**DEFAULTS, **HOST_DEFAULTS[before]})
    operator.deploy(architecture=after, defaults={**DEFAULTS, **HOST_DEFAULTS[after]})
    assert operator.parameters().items() >= HOST_DEFAULTS[after].items()


def test_custom_instance_type_is_preserved(operator):
    operator.deploy(architecture="arm64", InstanceType="c7g.4xlarge")
    operator.deploy()
    assert operator.parameters()["InstanceType"] == "c7g.4xlarge"


def test_output_only_change_is_applied(operator, clients):
    operator.deploy(MaxQueueDepth="50", InstanceType="c7i.xlarge")
    operator.deploy(outputs=("JobQueue", "ResultsQueue"))
    template = clients("cloudformation").get_template(StackName=STACK)["TemplateBody"]
    assert set(template["Outputs"]) == {"JobQueueUrl", "ResultsQueueUrl"}


@pytest.mark.parametrize("status", ["REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"])
def test_failed_creation_is_deleted_and_recreated(operator, clients, status):
    operator.deploy(MaxQueueDepth="50")
    set_status(status)
    for table in ("jobs", "keys"):  # as CloudFormation does when it rolls a creation back
        # Only a complete creation protects its tables.
        clients("dynamodb").update_table(TableName=f"{STACK}-{table}", DeletionProtectionEnabled=False)
        clients("dynamodb").delete_table(TableName=f"{STACK}-{table}")
    operator.deploy()
    (stack,) = clients("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert operator.parameters()["MaxQueueDepth"] == DEFAULTS["MaxQueueDepth"]


@pytest.mark.parametrize("status", ["CREATE_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS", "DELETE_FAILED"])
def test_deploy_to_busy_or_stuck_stack_is_rejected(operator, status):
    operator.deploy()
    set_status(status)
    with pytest.raises(CommandError, match=f"^{STACK} is in {status}. "):
        operator.deploy(MaxQueueDepth="50")


def test_failed_creation_retains_no_resources(operator, clients):
    calls = []

    def recording_clients(service):
        client = clients(service)
        client.meta.events.register(
            f"provide-client-params.{service}.ExecuteChangeSet", lambda params, **_: calls.append(params)
        )
        return client

    operator.clients = recording_clients
    operator.deploy()
    assert [call["RetainExceptOnCreate"] for call in calls] == [True]


class SlowCloudFormation:
    """Reports the previous status of a stack until the update has started."""

    def __init__(self):
        self.rounds = iter(
            [("UPDATE_COMPLETE", []), ("UPDATE_IN_PROGRESS", ["1"]), ("UPDATE_COMPLETE", ["1", "2"])],
        )

    def describe_stacks(self, **_):
        status, self.ids = next(self.rounds)
        return {"Stacks": [{"StackStatus": status}]}

    def get_paginator(self, _):
        events = [{"EventId": event_id} for event_id in self.ids[::-1]]
        return SimpleNamespace(paginate=lambda **_: [{"StackEvents": events}])


def test_update_waits_for_first_event(capsys):
    stack = Stack(SlowCloudFormation(), "x")
    stack._wait(STACK, last_event=None)
    assert capsys.readouterr().err.count("\n") == 2


def gateway_role(clients):
    return clients("apigateway").get_account().get("cloudwatchRoleArn")


def roles(clients):
    return [role["RoleName"] for role in clients("iam").list_roles()["Roles"]]


@pytest.mark.parametrize("role_exists", [False, True], ids=["fresh", "role-of-another-region"])
def test_missing_gateway_log_role_is_created(fresh_clients, tmp_path, role_exists):
    if role_exists:
        account_setup._gateway_role(fresh_clients)
    operator = Operator(fresh_clients, tmp_path)
    operator.deploy()
    assert gateway_role(fresh_clients) == f"arn:aws:iam::{ACCOUNT}:role/{account_setup.GATEWAY_ROLE}"
    iam = fresh_clients("iam")
    (policy,) = iam.list_attached_role_policies(RoleName=account_setup.GATEWAY_ROLE)["AttachedPolicies"]
    assert policy["PolicyName"] == "AmazonAPIGatewayPushToCloudWatchLogs"
    (trust,) = iam.get_role(RoleName=account_setup.GATEWAY_ROLE)["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "apigateway.amazonaws.com"}
    operator.destroy()
    assert roles(fresh_clients) == [account_setup.GATEWAY_ROLE]


def test_existing_gateway_log_role_is_kept(operator, clients):
    operator.deploy()
    assert (gateway_role(clients), roles(clients)) == (FOREIGN_ROLE, [])


class SlowGateway:
    """Rejects the first calls, as API Gateway does while a new role propagates."""

    def __init__(self, rejections, code):
        self.rejections, self.code, self.changes = rejections, code, []

    def get_account(self):
        return {}

    def update_account(self, *, patchOperations):  # noqa: N803 - as boto3 has it
        if self.rejections:
            self.rejections -= 1
            raise ClientError({"Error": {"Code": self.code, "Message": "no"}}, "UpdateAccount")
        self.changes += patchOperations


def with_gateway(clients, gateway):
    return lambda service: gateway if service == "apigateway" else clients(service)


@pytest.mark.parametrize("code", ["BadRequestException", "TooManyRequestsException"])
def test_gateway_role_propagation_is_retried(fresh_clients, code):
    gateway = SlowGateway(3, code)
    account_setup.ensure_gateway_logging_role(with_gateway(fresh_clients, gateway))
    assert [change["path"] for change in gateway.changes] == ["/cloudwatchRoleArn"]


def test_gateway_role_rejection_fails_deployment(fresh_clients, monkeypatch):
    monkeypatch.setattr("infra.aws.account_setup.ROLE_PROPAGATION_TIMEOUT_S", -1.0)
    for code in ("BadRequestException", "AccessDeniedException"):
        with pytest.raises(ClientError, match=code):
            account_setup.ensure_gateway_logging_role(with_gateway(fresh_clients, SlowGateway(1, code)))


def test_destroy_deletes_the_reply_queues_of_its_stage_only(operator, clients):
    operator.deploy()
    ours, others = f"{STACK}-reply-{'0a' * 16}", [f"{STACK}-reply-prod-jobs", f"python-exec-y-reply-{'0a' * 16}"]
    for name in (ours, *others):
        clients("sqs").create_queue(QueueName=name)
    operator.destroy()
    assert queues(clients) == set(others)


@pytest.mark.parametrize("stage", ["", "Prod", "a_b", "x" * 21])
def test_invalid_stage_name_is_rejected(stage):
    with pytest.raises(CommandError, match="STAGE"):
        deploy.stack_name(stage)


@pytest.fixture
def no_aws_settings(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")


def test_missing_credentials_are_reported(no_aws_settings, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    assert "credentials" in deploy.main(["destroy", "x"])


@pytest.mark.parametrize("action", ["deploy", "destroy"])
def test_missing_region_is_reported_first(no_aws_settings, action):
    assert deploy.main([action, "x"]) == "Error: No AWS region is configured. Set AWS_DEFAULT_REGION."


def test_malformed_parameter_is_rejected(no_aws_settings, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    assert "Name=value" in deploy.main(["deploy", "x", "VpcId"])


@pytest.mark.parametrize(("docker", "hosts"), [("amd64", "arm64"), ("arm64", "x86_64")])
def test_architecture_mismatch_is_rejected(docker, hosts):
    client = SimpleNamespace(version=lambda: {"Arch": docker})
    with pytest.raises(CommandError, match=f"the hosts are {hosts}"):
        deploy.build_host_bundle(client, architecture=hosts)


def test_create_key_command_runs_from_the_checkout():
    table, command, *arguments = deploy.create_key_command({"KeysTableName": "keys"}).split()
    assert (table, command, arguments[:2]) == ("KEYS_TABLE=keys", ".venv/bin/python-exec", ["keys", "create"])
    makefile = (ROOT / "Makefile").read_text()
    assert "VENV := .venv\n" in makefile
    assert "BIN := $(VENV)/bin\n" in makefile
    context = keys.commands["create"].make_context("create", arguments[2:])
    assert context.params["plan"] == "pro"


@pytest.mark.parametrize(
    ("arguments", "architecture"),
    [((), "x86_64"), (("ARCHITECTURE=arm64", "PARAMETERS=VpcId=vpc-0 SubnetIds=a,b"), "arm64")],
    ids=["default", "arm64"],
)
def test_makefile_arguments_match_cli(arguments, architecture):
    printed = subprocess.run(
        ["make", "--dry-run", "deploy", "STAGE=prod", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (line,) = [line for line in printed.splitlines() if "infra.aws.deploy" in line]
    _, _, command_line = line.partition("infra.aws.deploy ")
    options = deploy.argument_parser().parse_args(shlex.split(command_line))
    assert (options.action, options.stage, options.architecture) == ("deploy", "prod", architecture)
    assert options.parameters == (["VpcId=vpc-0", "SubnetIds=a,b"] if arguments else [])
