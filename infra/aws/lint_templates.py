"""`make lint-infra`: run cfn-lint on the packaged templates, before and after SAM's transform, and on the others."""

import json
import sys
from pathlib import Path
from typing import Final

import boto3
from cfnlint import api
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from infra.aws.package import OUTPUT
from infra.template import properties_of

REGION: Final = "us-east-1"
OTHER_TEMPLATES: Final = [Path(__file__).with_name(name) for name in ("deployer.yaml", "vpc.yaml")]


def expand_sam(text: str) -> str:
    """Return a packaged template after SAM's transform."""
    template = json.loads(text)
    for function in properties_of(template, "AWS::Serverless::Function").values():
        function["CodeUri"] = {"Bucket": "artifacts", "Key": "api.zip"}
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=REGION))
    return json.dumps(translator.translate(template, parameter_values={}))


def main() -> str | None:
    """Lint each packaged template and return the findings, None if there are none."""
    findings = []
    for path in sorted(OUTPUT.glob("template-*.json")):
        text = path.read_text()
        findings += [f"{path.name}: {match}" for match in api.lint(text)]
        findings += [f"{path.name}, expanded: {match}" for match in api.lint(expand_sam(text))]
    for path in OTHER_TEMPLATES:
        findings += [f"{path.name}: {match}" for match in api.lint(path.read_text())]
    return "\n".join(findings) or None


if __name__ == "__main__":
    sys.exit(main())
