"""The packaged stack: what it holds, what each role may do, and that it deploys as far as an emulator goes."""

import ast
import json
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from infra import deploy, lint, package, template

ROOT = Path(__file__).parent.parent.parent
POLICIES = ROOT / "tests/golden/policies.json"
MACHINE = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    output = tmp_path_factory.mktemp("package")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    package.package(output, architecture=MACHINE, python_version=version)
    return output


@pytest.fixture(scope="module")
def merged(packaged):
    return json.loads((packaged / f"template-{MACHINE}.json").read_text())


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
    return ".".join(value) if function == "Fn::GetAtt" else value


def granted(merged):
    """Rows of role, action and resource."""
    rows = []
    for role, properties in of_type(merged, "AWS::IAM::Role").items():
        assert set(properties) == {"AssumeRolePolicyDocument", "Policies"}
        for policy in properties["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                resources = statement["Resource"]
                resources = resources if isinstance(resources, list) else [resources]
                rows += [[role, action, as_text(each)] for action in statement["Action"] for each in resources]
    return sorted(rows)


def test_roles_may_do_what_is_listed_and_no_more(merged):
    assert granted(merged) == json.loads(POLICIES.read_text())


def test_no_role_may_do_anything_to_everything(merged):
    assert [row for row in granted(merged) if row[1].endswith("*") or row[2] == "*"] == []


def test_every_function_has_a_role_of_the_template(merged):
    roles = [each["Role"]["Fn::GetAtt"][0] for each in of_type(merged, "AWS::Serverless::Function").values()]
    assert sorted(roles) == sorted(set(of_type(merged, "AWS::IAM::Role")) - {"HostRole"})


def test_nothing_comes_in_to_a_host(merged):
    (group,) = of_type(merged, "AWS::EC2::SecurityGroup").values()
    assert "SecurityGroupIngress" not in group
    assert of_type(merged, "AWS::EC2::SecurityGroupIngress") == {}
    (host,) = of_type(merged, "AWS::EC2::LaunchTemplate").values()
    data = host["LaunchTemplateData"]
    assert (data["MetadataOptions"]["HttpTokens"], data["MetadataOptions"]["HttpPutResponseHopLimit"]) == (
        "required",
        1,
    )
    assert [each["AssociatePublicIpAddress"] for each in data["NetworkInterfaces"]] == [False]
    assert all(each["Ebs"]["Encrypted"] for each in data["BlockDeviceMappings"])
    assert "KeyName" not in data


def test_only_the_gateway_may_call_from_outside(merged):
    permissions = of_type(merged, "AWS::Lambda::Permission").values()
    assert {each["Principal"] for each in permissions} == {"apigateway.amazonaws.com"}
    kinds = {each["Type"] for each in merged["Resources"].values()}
    assert kinds & {"AWS::SQS::QueuePolicy", "AWS::S3::BucketPolicy", "AWS::Lambda::Url"} == set()


def test_template_holds_no_secret(packaged):
    text = (packaged / f"template-{MACHINE}.json").read_text()
    assert re.findall(r"AKIA[0-9A-Z]{16}|pk_[a-z0-9]+_|BEGIN [A-Z ]*PRIVATE KEY|SECRET", text) == []


def test_queues_and_tables_are_encrypted_and_tables_stay(merged):
    assert all(each["SqsManagedSseEnabled"] for each in of_type(merged, "AWS::SQS::Queue").values())
    for name, table in of_type(merged, "AWS::DynamoDB::Table").items():
        assert table["SSESpecification"]["SSEEnabled"]
        assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
        assert merged["Resources"][name]["DeletionPolicy"] == "Retain"


def test_zip_holds_every_module_and_nothing_of_the_rest(names):
    project = ROOT / "lambda_app"
    sources = {str(path.relative_to(project)) for path in project.rglob("*.py")}
    assert sources <= names
    assert {
        name for name in names if re.search(r"(^|/)(tests?|__pycache__|executor_host|infra)/|\.pyc$|^docker/", name)
    } == set()


def test_zip_is_small_enough_to_start_fast(packaged):
    assert (packaged / f"api-{MACHINE}.zip").stat().st_size < 15_000_000


def test_bare_python_imports_the_zip_and_has_clients(packaged, tmp_path):
    with zipfile.ZipFile(packaged / f"api-{MACHINE}.zip") as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path = [p for p in sys.path if 'site-packages' not in p] + [{str(tmp_path)!r}]\n"
        "import app, boto3\n"
        "[boto3.client(name, region_name='us-east-1') for name in ('sqs', 'dynamodb')]\n"
        "print([sys.modules[name].__file__ for name in ('app', 'boto3', 'msgspec', 'chalice')])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stderr == ""
    assert all(path.startswith(str(tmp_path)) for path in ast.literal_eval(done.stdout))


def test_linter_accepts_the_stack_before_and_after_the_transform(packaged):
    text = (packaged / f"template-{MACHINE}.json").read_text()
    assert [str(match) for each in (text, lint.expanded(text)) for match in lint.findings(each)] == []


def test_platform_is_created_with_its_redrive():
    with mock_aws():
        cloudformation = boto3.client("cloudformation", region_name="us-east-1")
        cloudformation.create_stack(StackName="python-exec-x", TemplateBody=json.dumps(template.platform()))
        resources = cloudformation.describe_stack_resources(StackName="python-exec-x")["StackResources"]
    assert {each["LogicalResourceId"] for each in resources} == set(template.platform()["Resources"])


def test_deploy_says_what_it_made_and_destroy_what_is_gone(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    platform_only = {
        **template.platform(),
        "Parameters": {key: {"Type": "String"} for key in ("ArtifactBucket", "HostBundle")},
    }
    (tmp_path / "template-x86_64.json").write_text(json.dumps(platform_only))
    (tmp_path / "api-x86_64.zip").write_bytes(b"zip")
    images = tmp_path / "host-0123.tar.gz"
    images.write_bytes(b"images")
    said = []
    with mock_aws():
        clients = boto3.Session(region_name="us-east-1").client
        deploy.deploy(
            clients, stage="x", parameters={}, package=tmp_path, host_images=images, say=said.append, poll_s=0
        )
        sqs = clients("sqs")
        assert len(sqs.list_queues(QueueNamePrefix="python-exec-x-")["QueueUrls"]) == 6
        s3 = clients("s3")
        bucket = "python-exec-artifacts-123456789012-us-east-1"
        assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
        assert s3.get_object(Bucket=bucket, Key="hosts/host-0123.tar.gz")["Body"].read() == b"images"
        deploy.destroy(clients, stage="x", say=said.append, poll_s=0)
        deploy.destroy(clients, stage="gone", say=said.append, poll_s=0)
    assert said[-1] == "There is no stack python-exec-gone."


@pytest.mark.parametrize("stage", ["", "Prod", "a_b", "x" * 21])
def test_stage_that_cannot_name_things_is_refused(stage):
    with pytest.raises(deploy.DeployError, match="STAGE"):
        deploy.stack_name(stage)


def test_deploy_without_credentials_says_so(monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert "credentials" in deploy.main(["destroy", "x"])
