"""The role with which CloudFormation creates the resources of a stack, and the checks that its templates skip."""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import cfnlint
import pytest

from infra import template

ROOT = Path(__file__).parents[3]
SCHEMAS = Path(cfnlint.__file__).parent / "data/schemas/resources"
RESOURCES = template.load(template.PATH.read_text())["Resources"].values()
# of Chalice's template and of SAM's transform
GENERATED = {"AWS::Lambda::Function", "AWS::Lambda::Permission", "AWS::Lambda::EventSourceMapping", "AWS::Events::Rule"}
GENERATED |= {f"AWS::ApiGateway::{name}" for name in ("RestApi", "Deployment", "Stage")}
TYPES = {each["Type"] for each in RESOURCES if "Type" in each} | GENERATED
# What properties need that the template does not use.
UNUSED_SERVICES = set(
    "amplify apprunner appsync bedrock-agentcore cognito-idp elasticfilesystem elasticloadbalancing firehose kinesis "
    "kms managed-fleets payments s3files s3tables vpc-lattice".split()
)
UNUSED_ACTIONS = set(
    "apigateway:UpdateRestApiPolicy wafv2:*PermissionPolicy ssm:Get* ec2:Get* ec2:*SecurityGroupIngress "
    "ec2:UpdateSecurityGroupRuleDescriptions* ec2:*VerifiedAccess* iam:*PermissionsBoundary iam:UpdateRoleDescription "
    "iam:CreateServiceLinkedRole lambda:PassCapacityProvider s3:REST.PUT.OBJECT".split()
)


@pytest.fixture(scope="module")
def allowed():
    role = template.load((ROOT / "infra/aws/deployer.yaml").read_text())["Resources"]["StackRole"]
    (policy,) = role["Properties"]["Policies"]
    statements = [each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Allow"]
    return {action for statement in statements for action in statement["Action"]}


def required():
    """Return what the types of the stack need, as their schemas say."""
    actions = set()
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        if schema["typeName"] in TYPES:
            for name in ("create", "read", "update", "delete"):
                actions |= set(schema.get("handlers", {}).get(name, {}).get("permissions", ()))
    return actions


def test_stack_role_may_create_update_and_delete_each_resource(allowed):
    used = {
        action
        for action in required()
        if action.split(":")[0] not in UNUSED_SERVICES
        and not any(fnmatchcase(action, pattern) for pattern in UNUSED_ACTIONS)
    }
    assert len(used) > 150
    assert {action for action in used if not any(fnmatchcase(action, pattern) for pattern in allowed)} == set()


def test_stack_role_has_no_permission_for_unused_services(allowed):
    used = {action.split(":")[0] for action in required()} - UNUSED_SERVICES
    assert {action.split(":")[0] for action in allowed} == used


def test_each_check_that_checkov_skips_has_a_reason():
    lines = (ROOT / "infra/aws/checkov.yaml").read_text().partition("skip-check:\n")[2].splitlines()
    assert lines
    assert [line for line in lines if not re.fullmatch(r"  - CKV_AWS_\d+ # .{20,}", line)] == []
