"""infra/template.yaml as a value: CloudFormation's tags become the functions that they are short for."""

from pathlib import Path
from typing import Any, Final

from chalice.package import YAMLTemplateSerializer

PATH: Final = Path(__file__).with_name("template.yaml")
PLATFORM_TYPES: Final = ("AWS::SQS::Queue", "AWS::DynamoDB::Table")

Template = dict[str, Any]


def load(text: str) -> Template:
    """The template in a YAML text."""
    template: Template = YAMLTemplateSerializer().load_template(text)
    return template


def platform() -> Template:
    """The queues and tables alone: all that the local stack has of it."""
    resources = load(PATH.read_text())["Resources"]
    return {"Resources": {name: each for name, each in resources.items() if each.get("Type") in PLATFORM_TYPES}}
