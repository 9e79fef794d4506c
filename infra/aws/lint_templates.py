"""`make lint-infra`: cfn-lint on what `make package` made, as it is and as SAM's transform leaves it."""

import json
import sys
from typing import Final

import boto3
from cfnlint import api
from cfnlint.config import ManualArgs
from cfnlint.match import Match
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from infra.aws.package import OUTPUT

REGION: Final = "us-east-1"
# Each with its reason; whatever else cfn-lint finds fails.
ACCEPTED: Final[dict[str, str]] = {}


def findings(text: str) -> list[Match]:
    """What cfn-lint says of a template."""
    found: list[Match] = api.lint(text, config=ManualArgs(regions=[REGION], ignore_checks=sorted(ACCEPTED)))
    return found


def expanded(text: str) -> str:
    """A packaged template after SAM's transform."""
    template = json.loads(text)
    for each in template["Resources"].values():
        if each["Type"] == "AWS::Serverless::Function":
            each["Properties"]["CodeUri"] = {"Bucket": "artifacts", "Key": "api.zip"}
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=REGION))
    return json.dumps(translator.translate(template, parameter_values={}))


def main() -> str | None:
    """What is wrong, if something is."""
    found = []
    for path in sorted(OUTPUT.glob("template-*.json")):
        text = path.read_text()
        found += [f"{path.name}: {match}" for match in findings(text)]
        found += [f"{path.name}, expanded: {match}" for match in findings(expanded(text))]
    return "\n".join(found) or None


if __name__ == "__main__":
    sys.exit(main())
