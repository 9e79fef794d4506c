"""The values that packaging adds to Chalice's template."""

import pytest

from infra import template
from infra.aws import package
from infra.errors import CommandError

INSTANCE_TYPES = {"x86_64": {"c7i.large", "c6i.large", "m7i.large"}, "arm64": {"c7g.large", "c6g.large", "m7g.large"}}


@pytest.mark.parametrize("architecture", package.HOST_DEFAULTS)
def test_host_and_function_architectures_match(architecture):
    stack = template.load(template.PATH.read_text())
    resources = {
        "HostTemplate": stack["Resources"]["HostTemplate"],
        "APIHandler": {"Type": "AWS::Serverless::Function", "Properties": {}},
    }
    finalized = package._finalize_template({**stack, "Resources": resources}, "api.zip", architecture=architecture)
    defaults = {name: parameter.get("Default") for name, parameter in finalized["Parameters"].items()}
    assert finalized["Resources"]["APIHandler"]["Properties"]["Architectures"] == [architecture]
    instance_types = {default for name, default in defaults.items() if name.startswith("InstanceType")}
    assert instance_types == INSTANCE_TYPES[architecture]


def test_template_defaults_are_for_x86_64():
    parameters = template.load(template.PATH.read_text())["Parameters"]
    defaults = {name: parameters[name]["Default"] for name in package.HOST_DEFAULTS["x86_64"]}
    assert defaults == package.HOST_DEFAULTS["x86_64"]
    assert package.HOST_DEFAULTS["arm64"].keys() == defaults.keys()


def test_unknown_chalice_resource_is_rejected():
    with pytest.raises(CommandError, match="Renamed"):
        package._finalize_template({"Resources": {"Renamed": {"Properties": {}}}}, "api.zip", architecture="x86_64")
