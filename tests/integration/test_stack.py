"""The packaged stack: its content, the permissions of each role, and its creation in an emulator."""

import ast
import base64
import json
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import boto3
import pytest
from cfnlint import api
from moto import mock_aws

from chalicelib.fleet import canary
from chalicelib.jobs.pending_jobs import ABANDON_AFTER_S
from chalicelib.jobs.reply_queue_cleanup import TIME_BUDGET_S
from chalicelib.jobs.submission import ASYNC_JOB_TTL_S
from chalicelib.runtimes import RUNTIMES
from chalicelib.settings import MAX_RESULT_RETENTION_S
from executor_host import termination_watcher
from infra import template
from infra.aws import lint_templates, package

STACK_NAME = {"Ref": "AWS::StackName"}
ROOT = Path(__file__).parent.parent.parent
POLICIES = ROOT / "tests/golden/policies.json"
MACHINE = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
STACK = "python-exec-x"
# moto's CloudFormation skips the first nine. Its RestApi requires a name where the template has a body, so it is
# left out together with everything that refers to it.
UNKNOWN_TO_MOTO = {
    "AWS::AutoScaling::ScalingPolicy",
    "AWS::S3::BucketPolicy",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::Lambda::EventInvokeConfig",
    *("AWS::Lambda::Version", "AWS::Lambda::Alias", "AWS::CodeDeploy::Application", "AWS::CodeDeploy::DeploymentGroup"),
    *(f"AWS::ApiGateway::{name}" for name in ("RestApi", "Deployment", "Stage", "DomainName", "BasePathMapping")),
    *("AWS::Lambda::Permission", "AWS::WAFv2::WebACL", "AWS::WAFv2::WebACLAssociation"),
}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    output = tmp_path_factory.mktemp("package")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # the zip holds no bytecode even so
        package.package(output, architecture=MACHINE, python_version=version)
    return output


@pytest.fixture(scope="module")
def merged(packaged):
    return json.loads((packaged / f"template-{MACHINE}.json").read_text())


@pytest.fixture(scope="module")
def expanded(packaged):
    """The template after SAM's transform, as CloudFormation sees it."""
    return json.loads(lint_templates.expand_sam((packaged / f"template-{MACHINE}.json").read_text()))


@pytest.fixture(scope="module")
def names(packaged):
    with zipfile.ZipFile(packaged / f"api-{MACHINE}.zip") as archive:
        return set(archive.namelist())


def of_type(merged, kind):
    return {name: each["Properties"] for name, each in merged["Resources"].items() if each["Type"] == kind}


def as_text(resource):
    if isinstance(resource, str):
        return resource
    [(function, value)] = resource.items()
    if function == "Fn::If":
        return f"{as_text(value[1])} or {as_text(value[2])}"
    if function == "Fn::Sub" and isinstance(value, list):
        text, variables = value
        for name, variable in variables.items():
            text = text.replace(f"${{{name}}}", as_text(variable))
        return text
    return ".".join(value) if function == "Fn::GetAtt" else value


def permissions(merged):
    """Return rows of role, action and resource."""
    rows = []
    for role, properties in of_type(merged, "AWS::IAM::Role").items():
        assert set(properties) == {"AssumeRolePolicyDocument", "Policies"}
        for policy in properties["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                resources = statement["Resource"]
                resources = resources if isinstance(resources, list) else [resources]
                rows += [[role, action, as_text(each)] for action in statement["Action"] for each in resources]
    return sorted(rows)


def test_iam_permissions_match_golden_file(merged):
    assert permissions(merged) == json.loads(POLICIES.read_text())


def test_iam_has_no_wildcard_actions_or_resources(merged):
    list_queues = ["CleanUpReplyQueuesRole", "sqs:ListQueues", "*"]  # the action supports no resource
    describe_alarms = ["CodeDeployRole", "cloudwatch:DescribeAlarms", "*"]  # read-only
    wildcards = [row for row in permissions(merged) if row[1].endswith("*") or row[2] == "*"]
    assert wildcards == [list_queues, describe_alarms]


def test_every_function_uses_a_template_role(merged):
    roles = [each["Role"]["Fn::GetAtt"][0] for each in of_type(merged, "AWS::Serverless::Function").values()]
    assert sorted(roles) == sorted(set(of_type(merged, "AWS::IAM::Role")) - {"HostRole", "CodeDeployRole"})


def test_hosts_accept_no_inbound_traffic(merged):
    (group,) = of_type(merged, "AWS::EC2::SecurityGroup").values()
    assert "SecurityGroupIngress" not in group
    assert of_type(merged, "AWS::EC2::SecurityGroupIngress") == {}
    (host,) = of_type(merged, "AWS::EC2::LaunchTemplate").values()
    data = host["LaunchTemplateData"]
    assert (data["MetadataOptions"]["HttpTokens"], data["MetadataOptions"]["HttpPutResponseHopLimit"]) == (
        "required",
        1,
    )
    assert [each["AssociatePublicIpAddress"] for each in data["NetworkInterfaces"]] == [{"Ref": "PublicIpAddresses"}]
    assert merged["Parameters"]["PublicIpAddresses"]["Default"] == "false"
    assert all(each["Ebs"]["Encrypted"] for each in data["BlockDeviceMappings"])
    assert "KeyName" not in data


def test_only_api_gateway_and_events_can_invoke_functions(expanded):
    invokers = {
        (each["Principal"], each["FunctionName"]["Ref"], json.dumps(each["SourceArn"]))
        for each in of_type(expanded, "AWS::Lambda::Permission").values()
    }
    rules = of_type(expanded, "AWS::Events::Rule")
    api = "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${RestAPIId}/*"
    assert invokers == {
        ("apigateway.amazonaws.com", "ApiAlias", json.dumps({"Fn::Sub": [api, {"RestAPIId": {"Ref": "RestAPI"}}]})),
        *(
            (
                "events.amazonaws.com",
                rule["Targets"][0]["Arn"]["Fn::GetAtt"][0],
                json.dumps({"Fn::GetAtt": [name, "Arn"]}),
            )
            for name, rule in rules.items()
        ),
    }
    assert {rule["Targets"][0]["Arn"]["Fn::GetAtt"][0] for rule in rules.values()} == {
        "CleanUpReplyQueues",
        "RunCanary",
    }
    kinds = {each["Type"] for each in expanded["Resources"].values()}
    granting = ("QueuePolicy", "BucketPolicy", "Url", "TopicPolicy")
    assert {kind for kind in kinds if kind.endswith(granting)} == {"AWS::S3::BucketPolicy"}  # which only denies


def test_single_public_stage_has_throttling_and_logging(expanded):
    assert [each for each in of_type(expanded, "AWS::ApiGateway::Deployment").values() if "StageName" in each] == []
    (stage,) = of_type(expanded, "AWS::ApiGateway::Stage").values()
    assert stage["StageName"] == "api"
    assert stage["AccessLogSetting"]["DestinationArn"] == {"Fn::GetAtt": ["AccessLogs", "Arn"]}
    assert stage["MethodSettings"] == [
        {
            "ResourcePath": "/*",
            "HttpMethod": "*",
            "ThrottlingRateLimit": {"Ref": "ThrottleRate"},
            "ThrottlingBurstLimit": {"Ref": "ThrottleBurst"},
        }
    ]


def test_each_address_is_limited_by_default(expanded):
    (acl,) = of_type(expanded, "AWS::WAFv2::WebACL").values()
    (rule,) = acl["Rules"]
    assert (rule["Action"], acl["DefaultAction"]) == ({"Block": {}}, {"Allow": {}})
    limit = {"Limit": {"Ref": "WafRequestsPer5Minutes"}, "AggregateKeyType": "IP"}
    assert rule["Statement"] == {"RateBasedStatement": limit}
    assert expanded["Parameters"]["WafRequestsPer5Minutes"]["Default"] > 0


def test_throttled_function_returns_503_with_retry_after(expanded):
    (api,) = of_type(expanded, "AWS::ApiGateway::RestApi").values()
    response = api["Body"]["x-amazon-apigateway-gateway-responses"]["INTEGRATION_FAILURE"]
    assert int(response["statusCode"]) == 503
    assert response["responseParameters"]["gatewayresponse.header.Retry-After"] == "'1'"
    assert "urn:python-exec:problem:overloaded" in response["responseTemplates"]["application/json"]


def test_api_and_storing_results_have_concurrency_of_their_own(expanded):
    functions = of_type(expanded, "AWS::Lambda::Function")
    reserved = {name for name, function in functions.items() if "ReservedConcurrentExecutions" in function}
    assert reserved == {"APIHandler", "StoreResults"}


def test_hosts_live_for_seven_days_at_most(merged):
    assert merged["Resources"]["HostGroup"]["Properties"]["MaxInstanceLifetime"] == 7 * 86_400


def test_template_contains_no_secret(packaged):
    text = (packaged / f"template-{MACHINE}.json").read_text()
    assert re.findall(r"AKIA[0-9A-Z]{16}|pk_[a-z0-9]+_|BEGIN [A-Z ]*PRIVATE KEY|SECRET", text) == []


def test_function_environment_is_exact(expanded):
    for function in of_type(expanded, "AWS::Lambda::Function").values():
        assert function["Environment"]["Variables"] == {
            "JOB_QUEUE_URL": {"Ref": "JobQueue"},
            "DATA_JOB_QUEUE_URL": {"Ref": "DataJobQueue"},
            "MAX_QUEUE_DEPTH": {"Ref": "MaxQueueDepth"},
            "DATA_MAX_QUEUE_DEPTH": {"Ref": "DataMaxQueueDepth"},
            "WEBHOOK_QUEUE_URL": {"Ref": "WebhookQueue"},
            "KEYS_TABLE": {"Fn::If": ["HasKeysTable", {"Ref": "KeysTableName"}, {"Ref": "KeysTable"}]},
            "JOBS_TABLE": {"Fn::If": ["HasJobsTable", {"Ref": "JobsTableName"}, {"Ref": "JobsTable"}]},
            "PAYLOAD_STORE_URL": {"Fn::Sub": "https://${PayloadBucket.RegionalDomainName}"},
            "REPLY_QUEUE_PREFIX": {"Fn::Sub": "${AWS::StackName}-reply-"},
            "METRICS_NAMESPACE": STACK_NAME,
        }


def test_no_parameter_is_a_secret(merged):
    assert [name for name, each in merged["Parameters"].items() if each.get("NoEcho")] == []


def test_queues_and_tables_are_encrypted_and_tables_retained(merged):
    assert all(each["SqsManagedSseEnabled"] for each in of_type(merged, "AWS::SQS::Queue").values())
    for name, table in of_type(merged, "AWS::DynamoDB::Table").items():
        assert table["SSESpecification"]["SSEEnabled"]
        assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
        assert merged["Resources"][name]["DeletionPolicy"] == "Retain"


def test_payload_bucket_is_private_encrypted_and_expires(merged):
    (bucket,) = of_type(merged, "AWS::S3::Bucket").values()
    (encryption,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert list(bucket["PublicAccessBlockConfiguration"].values()) == [True] * 4
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    (rule,) = bucket["LifecycleConfiguration"]["Rules"]
    assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", 2)
    assert {"Prefix", "TagFilters"}.isdisjoint(rule)
    assert "VersioningConfiguration" not in bucket  # a deleted object is gone
    (policy,) = of_type(merged, "AWS::S3::BucketPolicy").values()
    conditions = []
    for statement in policy["PolicyDocument"]["Statement"]:
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
        assert [as_text(each) for each in statement["Resource"]] == ["PayloadBucket.Arn", "${PayloadBucket.Arn}/*"]
        conditions.append(statement["Condition"])
    assert conditions == [
        {"Bool": {"aws:SecureTransport": "false"}},
        {"NumericGreaterThan": {"s3:signatureAge": (ASYNC_JOB_TTL_S + ABANDON_AFTER_S + 60) * 1000}},
    ]


def test_payloads_outlive_every_result(merged):
    """An object is written before the start deadline at the latest, which is within an hour of the submission."""
    (bucket,) = of_type(merged, "AWS::S3::Bucket").values()
    kept_s = bucket["LifecycleConfiguration"]["Rules"][0]["ExpirationInDays"] * 86_400
    assert kept_s > MAX_RESULT_RETENTION_S + ASYNC_JOB_TTL_S


def test_zip_contains_exactly_the_api(names):
    project = ROOT / "lambda_app"
    sources = {str(path.relative_to(project)) for path in project.rglob("*.py")}
    assert sources <= names
    assert {
        name for name in names if re.search(r"(^|/)(tests?|__pycache__|executor_host|infra)/|\.pyc$|^docker/", name)
    } == set()


def test_zip_is_small_enough_to_start_fast(packaged):
    assert (packaged / f"api-{MACHINE}.zip").stat().st_size < 15_000_000


def test_zip_imports_standalone(packaged, tmp_path):
    with zipfile.ZipFile(packaged / f"api-{MACHINE}.zip") as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path = [p for p in sys.path if 'site-packages' not in p] + [{str(tmp_path)!r}]\n"
        "import app, boto3\n"
        "[boto3.client(name, region_name='us-east-1') for name in ('sqs', 'dynamodb')]\n"
        "print([sys.modules[name].__file__ for name in ('app', 'boto3', 'msgspec', 'chalice')])"
    )
    completed = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert completed.stderr == ""
    assert all(path.startswith(str(tmp_path)) for path in ast.literal_eval(completed.stdout))


def test_cfn_lint_passes_before_and_after_sam_transform(packaged):
    text = (packaged / f"template-{MACHINE}.json").read_text()
    assert [str(match) for match in api.lint(text)] == []
    assert [str(match) for match in api.lint(lint_templates.expand_sam(text))] == []


@pytest.mark.parametrize("path", lint_templates.OTHER_TEMPLATES, ids=lambda path: path.name)
def test_cfn_lint_passes_on_the_other_templates(path):
    assert [str(match) for match in api.lint(path.read_text())] == []


def event_sources(expanded):
    """Yield each mapping with its function and its queue."""
    resources = expanded["Resources"]
    for each in of_type(expanded, "AWS::Lambda::EventSourceMapping").values():
        queue = each["EventSourceArn"]["Fn::Sub"].removeprefix("${").removesuffix(".Arn}")
        function = each["FunctionName"]["Ref"]
        yield each, (function, resources[function]["Properties"]), (queue, resources[queue]["Properties"])


def test_queue_functions_have_maximum_concurrency(expanded):
    limits = {name: each["ScalingConfig"] for each, (name, _), _ in event_sources(expanded)}
    assert limits == {
        "StoreResults": {"MaximumConcurrency": 10},
        "FailDeadLetteredJobs": {"MaximumConcurrency": 2},
        "DeliverWebhooks": {"MaximumConcurrency": 20},
    }


def test_visibility_timeout_exceeds_function_timeout(expanded):
    assert all(
        queue["VisibilityTimeout"] > function["Timeout"] for _, (_, function), (_, queue) in event_sources(expanded)
    )


def test_scheduled_functions_are_bounded_and_not_retried(expanded):
    assert expanded["Resources"]["CleanUpReplyQueues"]["Properties"]["Timeout"] > TIME_BUDGET_S + 10
    assert expanded["Resources"]["RunCanary"]["Properties"]["Timeout"] > len(RUNTIMES) * canary.WAIT_S + 10
    configs = of_type(expanded, "AWS::Lambda::EventInvokeConfig").values()
    assert {config["FunctionName"]["Ref"]: config["MaximumRetryAttempts"] for config in configs} == {
        "CleanUpReplyQueues": 0,
        "RunCanary": 0,
    }


def test_lifecycle_hooks_gate_launch_and_termination(merged):
    hooks = {
        each.pop("LifecycleHookName"): each
        for each in map(dict, merged["Resources"]["HostGroup"]["Properties"]["LifecycleHookSpecificationList"])
    }
    assert hooks == {
        "wait-for-ready": {
            "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING",
            "HeartbeatTimeout": 600,
            "DefaultResult": "ABANDON",
        },
        termination_watcher.DRAIN_HOOK_NAME: {
            "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
            "HeartbeatTimeout": 120,
            "DefaultResult": "CONTINUE",
        },
    }


def if_staged(value):
    """Return the two values of a property, with a staged rollout and without."""
    assert value["Fn::If"][0] == "IsStaged"
    return value["Fn::If"][1:]


def test_instance_refresh_keeps_capacity_and_stops_on_alarms(merged):
    ((name, policy),) = merged["Resources"]["HostGroup"]["UpdatePolicy"].items()
    assert (name, policy["Strategy"]) == ("AutoScalingInstanceRefresh", "Rolling")
    preferences = policy["Preferences"]
    assert preferences["MinHealthyPercentage"] == 100
    assert preferences["MaxHealthyPercentage"] > 100
    assert if_staged(preferences["CheckpointPercentages"]) == [[20, 100], [100]]
    assert if_staged(preferences["CheckpointDelay"]) == if_staged(preferences["BakeTime"]) == [300, 0]
    alarms = {each["Ref"] for each in if_staged(preferences["AlarmSpecification"])[0]["Alarms"]}
    assert alarms == {"CanaryAlarm", "IsolationAlarm", "DockerAlarm", "OldestJobAgeAlarm"}


def test_api_rollout_shifts_traffic_in_steps_and_rolls_back(expanded):
    resources = expanded["Resources"]
    update = resources["ApiAlias"]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    group = resources[update["DeploymentGroupName"]["Ref"]]["Properties"]
    staged, immediate = if_staged(group["DeploymentConfigName"])
    assert (staged, immediate) == (
        "CodeDeployDefault.LambdaCanary10Percent10Minutes",
        "CodeDeployDefault.LambdaAllAtOnce",
    )
    assert group["AlarmConfiguration"]["Alarms"] == [{"Name": {"Ref": "RolloutAlarm"}}]
    assert if_staged(group["AlarmConfiguration"]["Enabled"]) == [True, False]
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    assert resources["ApiVersion"]["UpdateReplacePolicy"] == "Retain"


def test_every_route_calls_the_alias(expanded):
    (api,) = of_type(expanded, "AWS::ApiGateway::RestApi").values()
    uris = re.findall(r"functions/\$\{([\w.]+)\}/invocations", json.dumps(api["Body"]))
    assert len(uris) > 10
    assert set(uris) == {"ApiAlias"}


def test_new_configuration_of_the_api_publishes_a_version(merged):
    """The description of a version cannot be changed, so a new one replaces the version."""
    description = merged["Resources"]["ApiVersion"]["Properties"]["Description"]["Fn::Sub"]
    function = merged["Resources"]["APIHandler"]["Properties"]
    variables = {**merged["Globals"]["Function"]["Environment"]["Variables"], **function}
    referred = set(re.findall(r'"Ref": "(\w+)"', json.dumps(variables))) & set(merged["Parameters"])
    assert referred >= {"MaxQueueDepth", "ApiConcurrency"}
    assert set(re.findall(r"\$\{(\w+)\}", description)) == referred - {"ApiConcurrency"}
    assert len(description) < 256 - 80  # CloudFormation's limit, with the values


def queue_metrics(alarm):
    """Return the name and the queue of each metric."""
    metrics = [metric["MetricStat"]["Metric"] for metric in alarm["Metrics"] if "MetricStat" in metric]
    return {(metric["MetricName"], metric["Dimensions"][0]["Value"]["Fn::GetAtt"][0]) for metric in metrics}


def test_dead_letter_alarm_counts_in_flight_messages(merged):
    alarm = of_type(merged, "AWS::CloudWatch::Alarm")["DeadLetterAlarm"]
    visible = "ApproximateNumberOfMessagesVisible"
    queues = ("DeadLetterQueue", "ResultsDeadLetterQueue", "WebhookDeadLetterQueue")
    in_flight = ("ApproximateNumberOfMessagesNotVisible", "DeadLetterQueue")
    assert queue_metrics(alarm) == {in_flight, *((visible, queue) for queue in queues)}
    (total,) = [each["Expression"] for each in alarm["Metrics"] if "Expression" in each]
    ids = {each["Id"] for each in alarm["Metrics"] if "MetricStat" in each}
    assert set(re.findall(r"FILL\((\w+), 0\)", total)) == ids


def test_results_alarm_detects_stuck_results(merged):
    alarm = of_type(merged, "AWS::CloudWatch::Alarm")["ResultsAlarm"]
    names = ("ApproximateAgeOfOldestMessage", "NumberOfMessagesReceived", "NumberOfMessagesDeleted")
    assert queue_metrics(alarm) == {(name, "ResultsQueue") for name in names}


def test_no_host_alarm_uses_agent_reports(merged):
    alarm = of_type(merged, "AWS::CloudWatch::Alarm")["NoHostsAlarm"]
    assert (alarm["Namespace"], alarm["MetricName"], alarm["Statistic"]) == (STACK_NAME, "HostUp", "Sum")
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("LessThanThreshold", 1)
    assert alarm["TreatMissingData"] == "breaching"


def test_alarms_are_scoped_to_stage(expanded):
    for alarm in of_type(expanded, "AWS::CloudWatch::Alarm").values():
        named = [alarm] if "Namespace" in alarm else [m["MetricStat"]["Metric"] for m in alarm["Metrics"][1:]]
        for metric in named:
            values = [each["Value"] for each in metric.get("Dimensions", [])]
            assert metric["Namespace"] == STACK_NAME or any(not isinstance(value, str) for value in values)
    (api,) = of_type(expanded, "AWS::ApiGateway::RestApi").values()
    assert api["Body"]["info"]["title"] == STACK_NAME
    (dashboard,) = of_type(expanded, "AWS::CloudWatch::Dashboard").values()
    filled = dashboard["DashboardBody"]["Fn::Sub"].replace("${AWS::StackName}", "python-exec-test")
    assert '"PythonExec"' not in filled
    (search,) = re.findall(r"SEARCH\([^)]*\)", json.dumps(json.loads(filled)))
    assert json.loads(f'"{search}"') == """SEARCH('{"python-exec-test",Runtime,Status} MetricName="Jobs"', 'Sum', 60)"""


def test_results_queue_uses_maximum_receive_count(merged):
    assert of_type(merged, "AWS::SQS::Queue")["ResultsQueue"]["RedrivePolicy"]["maxReceiveCount"] == 1000


def test_custom_domain_outputs_target(expanded):
    output = expanded["Outputs"]["DomainTarget"]
    assert output == {"Condition": "HasDomain", "Value": {"Fn::GetAtt": ["Domain", "RegionalDomainName"]}}


@pytest.fixture
def emulated(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        yield boto3.Session(region_name="us-east-1").client


def test_queues_are_created_with_their_redrive_policies(emulated):
    emulated("cloudformation").create_stack(StackName=STACK, TemplateBody=json.dumps(template.local_resources()))
    sqs, queues = emulated("sqs"), {}
    for url in sqs.list_queues()["QueueUrls"]:
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        redrive = json.loads(attributes.get("RedrivePolicy", "{}"))
        target = redrive.get("deadLetterTargetArn", "").rpartition(":")[2]
        visibility_s = int(attributes["VisibilityTimeout"])
        queues[url.rpartition("/")[2]] = (visibility_s, target, redrive.get("maxReceiveCount"))
    assert queues == {
        f"{STACK}-jobs": (15, f"{STACK}-jobs-dead", 3),
        f"{STACK}-data-jobs": (15, f"{STACK}-jobs-dead", 3),
        f"{STACK}-jobs-dead": (300, "", None),
        f"{STACK}-results": (20, f"{STACK}-results-dead", 1000),
        f"{STACK}-results-dead": (30, "", None),
        f"{STACK}-webhooks": (60, f"{STACK}-webhooks-dead", 10),
        f"{STACK}-webhooks-dead": (30, "", None),
    }
    tables = emulated("dynamodb").list_tables()["TableNames"]
    assert sorted(tables) == [f"{STACK}-jobs", f"{STACK}-keys"]


@pytest.fixture
def created(emulated, expanded, packaged):
    """Create what moto supports of the stack; return the physical ids of its resources by logical id."""
    s3 = emulated("s3")
    s3.create_bucket(Bucket="artifacts")
    s3.put_object(Bucket="artifacts", Key="api.zip", Body=(packaged / f"api-{MACHINE}.zip").read_bytes())
    subnets = emulated("ec2").describe_subnets()["Subnets"][:2]
    parameters = {
        "VpcId": subnets[0]["VpcId"],
        "SubnetIds": ",".join(each["SubnetId"] for each in subnets),
        "ArtifactBucket": "artifacts",
        "ImageId": emulated("ec2").describe_images()["Images"][0]["ImageId"],
        "HostImageBundle": f"hosts/host-0/{'0' * 64}.tar.gz",
    }
    supported = {  # without UpdatePolicy, which refers to alarms
        name: {key: value for key, value in each.items() if key != "UpdatePolicy"}
        for name, each in expanded["Resources"].items()
        if each["Type"] not in UNKNOWN_TO_MOTO
    }
    outputs = {name: each for name, each in expanded["Outputs"].items() if "RestAPI" not in json.dumps(each)}
    cloudformation = emulated("cloudformation")
    cloudformation.create_stack(
        StackName=STACK,
        TemplateBody=json.dumps({**expanded, "Resources": supported, "Outputs": outputs}),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    resources = cloudformation.describe_stack_resources(StackName=STACK)["StackResources"]
    physical_ids = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
    assert set(physical_ids) == set(supported)
    return physical_ids


def test_stack_creates_in_emulator(created, emulated, expanded):
    lambdas, iam = emulated("lambda"), emulated("iam")
    roles = {each["RoleName"] for each in iam.list_roles()["Roles"]}
    assert roles >= {created[name] for name in of_type(expanded, "AWS::IAM::Role")}
    functions = {each["FunctionName"]: each for each in lambdas.list_functions()["Functions"]}
    assert set(functions) == {created[name] for name in of_type(expanded, "AWS::Lambda::Function")}
    for function in functions.values():
        assert (function["Runtime"], function["Architectures"]) == ("python3.13", [MACHINE])
        assert function["Role"].rpartition("/")[2] in roles
        assert function["Environment"]["Variables"]["JOBS_TABLE"] == f"{STACK}-jobs"
    sources = {
        each["EventSourceArn"].rpartition(":")[2]: each["FunctionArn"].rpartition(":")[2]
        for each in lambdas.list_event_source_mappings()["EventSourceMappings"]
    }
    assert sources == {
        f"{STACK}-results": created["StoreResults"],
        f"{STACK}-jobs-dead": created["FailDeadLetteredJobs"],
        f"{STACK}-webhooks": created["DeliverWebhooks"],
    }
    rules = emulated("events").list_rules()["Rules"]
    assert [rule["ScheduleExpression"] for rule in rules] == ["rate(1 minute)"] * 2
    groups = {each["logGroupName"] for each in emulated("logs").describe_log_groups()["logGroups"]}
    assert groups == {f"/python-exec/{STACK}/{name}" for name in ("access", "api", "events", "hosts")}


def test_auto_scaling_group_uses_launch_template_and_subnets(created, emulated):
    (group,) = emulated("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    launch = group["MixedInstancesPolicy"]["LaunchTemplate"]
    assert launch["LaunchTemplateSpecification"]["LaunchTemplateId"] == created["HostTemplate"]
    assert (group["AutoScalingGroupName"], group["MinSize"], group["MaxSize"]) == (f"{STACK}-hosts", 1, 4)
    assert len(group["VPCZoneIdentifier"].split(",")) == 2
    launched = emulated("ec2").describe_launch_template_versions(LaunchTemplateId=created["HostTemplate"])
    data = launched["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    script = base64.b64decode(data["UserData"]).decode()
    assert data["IamInstanceProfile"]["Arn"].endswith(created["HostInstanceProfile"])
    assert f'--env "JOB_QUEUE_URL=https://sqs.us-east-1.amazonaws.com/123456789012/{STACK}-jobs"' in script
    assert f'--auto-scaling-group-name "{STACK}-hosts"' in script
    assert "s3://artifacts/hosts/" in script


VPC = template.load((ROOT / "infra/aws/vpc.yaml").read_text())


@pytest.mark.parametrize("nat", ["true", "false"])
def test_vpc_has_subnets_in_two_zones(emulated, nat):
    cloudformation, ec2 = emulated("cloudformation"), emulated("ec2")
    cloudformation.create_stack(
        StackName="vpc", TemplateBody=json.dumps(VPC), Parameters=[{"ParameterKey": "Nat", "ParameterValue": nat}]
    )
    (stack,) = cloudformation.describe_stacks(StackName="vpc")["Stacks"]
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
    subnets = ec2.describe_subnets(SubnetIds=outputs["SubnetIds"].split(","))["Subnets"]
    assert {subnet["VpcId"] for subnet in subnets} == {outputs["VpcId"]}
    assert len({subnet["AvailabilityZone"] for subnet in subnets}) == 2
    assert outputs["PublicIpAddresses"] == ("false" if nat == "true" else "true")


@pytest.mark.parametrize(
    ("kind", "target"), [("Private", {"NatGatewayId": "NatGateway"}), ("Public", {"GatewayId": "InternetGateway"})]
)
def test_subnets_of_the_vpc_reach_aws(kind, target):
    """The emulator does not associate subnets with route tables."""
    tables = {
        each["SubnetId"]["Ref"]: each["RouteTableId"]["Ref"]
        for each in of_type(VPC, "AWS::EC2::SubnetRouteTableAssociation").values()
    }
    (table,) = {tables[f"{kind}Subnet{number}"] for number in (1, 2)}
    (route,) = [each for each in of_type(VPC, "AWS::EC2::Route").values() if each["RouteTableId"]["Ref"] == table]
    assert route["DestinationCidrBlock"] == "0.0.0.0/0"
    assert {name: route.get(name, {}).get("Ref") for name in target} == target
