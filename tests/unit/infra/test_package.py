"""What packaging adds to the template that Chalice made."""

import pytest

from infra import template
from infra.aws import package

LARGE = {"x86_64": {"c7i.large", "c6i.large", "m7i.large"}, "arm64": {"c7g.large", "c6g.large", "m7g.large"}}


@pytest.mark.parametrize("architecture", package.HOST_DEFAULTS)
def test_host_and_function_architectures_match(architecture):
    ours = template.load(template.PATH.read_text())
    resources = {
        "HostTemplate": ours["Resources"]["HostTemplate"],
        "APIHandler": {"Type": "AWS::Serverless::Function", "Properties": {}},
    }
    finished = package._finalize_template({**ours, "Resources": resources}, "api.zip", architecture=architecture)
    parameters = finished["Parameters"]
    assert finished["Resources"]["APIHandler"]["Properties"]["Architectures"] == [architecture]
    assert parameters["ImageId"]["Default"].endswith(f"-{architecture}")
    types = {name: each["Default"] for name, each in parameters.items() if name.startswith("InstanceType")}
    assert set(types.values()) == LARGE[architecture]


def test_template_is_for_x86_64():
    parameters = template.load(template.PATH.read_text())["Parameters"]
    shown = {name: parameters[name]["Default"] for name in package.HOST_DEFAULTS["x86_64"]}
    assert shown == package.HOST_DEFAULTS["x86_64"]
    assert package.HOST_DEFAULTS["arm64"].keys() == shown.keys()


def test_unknown_chalice_resource_is_rejected():
    with pytest.raises(package.PackageError, match="Renamed"):
        package._finalize_template({"Resources": {"Renamed": {"Properties": {}}}}, "api.zip", architecture="x86_64")
