"""The values that packaging adds to Chalice's template."""

import os
from contextlib import nullcontext

import pytest

from infra import template
from infra.aws import package
from infra.errors import CommandError

INSTANCE_TYPES = {"x86_64": {"c7i.large", "c6i.large", "m7i.large"}, "arm64": {"c7g.large", "c6g.large", "m7g.large"}}


def function(**properties):
    return {"Type": "AWS::Serverless::Function", "Properties": properties}


def finalize(tmp_path, *, code=b"zip", architecture="x86_64", **properties):
    """Return the template with a small API, as packaged."""
    stack = template.load(template.PATH.read_text())
    uri = "arn:aws:apigateway:x:lambda:path/functions/${APIHandler.Arn}/invocations"
    resources = {
        **{name: stack["Resources"][name] for name in ("HostTemplate", "ApiVersion")},
        "APIHandler": function(**properties),
        "RestAPI": {"Type": "AWS::Serverless::Api", "Properties": {"uri": {"Fn::Sub": uri}}},
    }
    archive = tmp_path / "api.zip"
    archive.write_bytes(code)
    return package._finalize_template({**stack, "Resources": resources}, archive, architecture=architecture)


@pytest.mark.parametrize("architecture", package.HOST_DEFAULTS)
def test_host_and_function_architectures_match(tmp_path, architecture):
    finalized = finalize(tmp_path, architecture=architecture)
    defaults = {name: parameter.get("Default") for name, parameter in finalized["Parameters"].items()}
    assert finalized["Resources"]["APIHandler"]["Properties"]["Architectures"] == [architecture]
    instance_types = {default for name, default in defaults.items() if name.startswith("InstanceType")}
    assert instance_types == INSTANCE_TYPES[architecture]


def test_gateway_calls_the_alias(tmp_path):
    uri = finalize(tmp_path)["Resources"]["RestAPI"]["Properties"]["uri"]["Fn::Sub"]
    assert uri.endswith("/functions/${ApiAlias}/invocations")


def version(tmp_path, **options):
    return finalize(tmp_path, **options)["Resources"]["ApiVersion"]["Properties"]["Description"]["Fn::Sub"]


def test_version_changes_with_code_configuration_and_parameters(tmp_path):
    """CloudFormation publishes a version when the description changes."""
    descriptions = [
        version(tmp_path),
        version(tmp_path, code=b"other"),
        version(tmp_path, Timeout=20),
        version(tmp_path, architecture="arm64"),
    ]
    assert len(set(descriptions)) == 4
    assert version(tmp_path) == descriptions[0]
    assert " MaxQueueDepth=${MaxQueueDepth}" in descriptions[0]
    assert "ApiConcurrency" not in version(tmp_path, ReservedConcurrentExecutions={"Ref": "ApiConcurrency"})


def test_template_defaults_are_for_x86_64():
    parameters = template.load(template.PATH.read_text())["Parameters"]
    defaults = {name: parameters[name]["Default"] for name in package.HOST_DEFAULTS["x86_64"]}
    assert defaults == package.HOST_DEFAULTS["x86_64"]
    assert package.HOST_DEFAULTS["arm64"].keys() == defaults.keys()


def test_unknown_chalice_resource_is_rejected(tmp_path):
    resources = {"Renamed": {"Properties": {}}}
    with pytest.raises(CommandError, match="Renamed"):
        package._finalize_template({"Resources": resources}, tmp_path / "api.zip", architecture="x86_64")


@pytest.mark.parametrize("added_bytes", [0, 1])
def test_zip_file_above_its_limit_is_rejected(tmp_path, added_bytes):
    archive = tmp_path / "api.zip"
    archive.touch()
    os.truncate(archive, package.MAX_ZIP_BYTES + added_bytes)
    expected = pytest.raises(CommandError, match=r"api\.zip has 15000001 bytes") if added_bytes else nullcontext()
    with expected:
        package._check_size(archive)
