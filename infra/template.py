"""infra/template.yaml as Python values, with CloudFormation's short tags expanded to functions."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Final

from chalice.package import YAMLTemplateSerializer

PATH: Final = Path(__file__).with_name("template.yaml")
LOCAL_TYPES: Final = ("AWS::SQS::Queue", "AWS::DynamoDB::Table", "AWS::S3::Bucket")

Template = dict[str, Any]


def load(text: str) -> Template:
    """Return a template from its YAML text."""
    return deepcopy(_parse(text))


@cache  # parsing takes 0.2 s
def _parse(text: str) -> Template:
    template: Template = YAMLTemplateSerializer().load_template(text)
    return template


def properties_of(template: Template, resource_type: str) -> dict[str, dict[str, Any]]:
    """Return the properties of the resources of a type, by their logical ids."""
    resources = template["Resources"].items()
    return {name: resource["Properties"] for name, resource in resources if resource.get("Type") == resource_type}


def local_resources() -> Template:
    """Return the queues, tables and the bucket only, which is all that the local stack takes from the template."""
    resources = load(PATH.read_text())["Resources"].items()
    return {"Resources": {name: resource for name, resource in resources if resource.get("Type") in LOCAL_TYPES}}
