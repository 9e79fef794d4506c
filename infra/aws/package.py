"""`make package`: the API as a zip file and the stack's template, for both architectures, without an AWS account."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

import msgspec

from chalicelib.api.static_files import wheel_files
from chalicelib.runtimes import PYTHON_VERSION
from infra import template
from infra.capacity.sizing import default_parameters
from infra.errors import CommandError, exit_on_error
from infra.images import wheels
from infra.paths import LAMBDA_APP, LOCAL, ROOT

OUTPUT: Final = LOCAL / "package"
USER_DATA: Final = ROOT / "infra/user-data.sh"
REQUIREMENTS: Final = LAMBDA_APP / "requirements.txt"
STATIC_REQUIREMENTS: Final = LAMBDA_APP / "static-requirements.txt"
HOST_DEFAULTS: Final = {  # of template parameters; infra/template.yaml has those of x86_64 and the derived sizes too
    "x86_64": {
        "InstanceType": "c7i.large",
        "InstanceTypeSecond": "c6i.large",
        "InstanceTypeThird": "m7i.large",
    },
    "arm64": {
        "InstanceType": "c7g.large",
        "InstanceTypeSecond": "c6g.large",
        "InstanceTypeThird": "m7g.large",
    },
}
BOTOCORE_MODELS: Final = ("sqs", "dynamodb")
UNVERSIONED_PARAMETERS: Final = {"ApiConcurrency"}  # of the function, not of its versions
MAX_ZIP_BYTES: Final = 15_000_000  # Lambda fetches and unpacks it at each cold start
ZIP_TIMESTAMP: Final = (1980, 1, 1, 0, 0, 0)  # equal content gives an equal zip file


def package(output: Path, *, architecture: str, python_version: str = PYTHON_VERSION) -> Path:
    """Write the zip file and the template, and return the path of the template. Raises CommandError."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        chalice_output, packages, static = (Path(scratch, name) for name in ("chalice", "wheels", "static"))
        _run_chalice_package(Path(scratch, "lambda_app"), chalice_output)
        wheels.fetch(REQUIREMENTS, packages, architecture=architecture, python_version=python_version)
        wheels.fetch(STATIC_REQUIREMENTS, static, architecture=architecture, python_version=python_version)
        archive = output / f"api-{architecture}.zip"
        _write_zip(archive, sources=chalice_output / "deployment.zip", packages=packages, static=static)
        _check_size(archive)
        merged = template.load((chalice_output / "sam.yaml").read_text())
    finalized = _finalize_template(merged, archive, architecture=architecture)
    template_path = output / f"template-{architecture}.json"
    template_path.write_bytes(msgspec.json.format(msgspec.json.encode(finalized)))
    return template_path


def _run_chalice_package(project: Path, output: Path) -> None:
    """Write Chalice's template merged with ours, and a zip file of the code without the packages that it needs."""
    ignored = shutil.ignore_patterns("__pycache__", "requirements.*", "deployments", "deployed")
    shutil.copytree(LAMBDA_APP, project, ignore=ignored)
    command = [str(Path(sys.executable).with_name("chalice")), "package", "--template-format=yaml"]
    completed = subprocess.run(
        [*command, f"--merge-template={template.PATH}", str(output)],
        cwd=project,
        env=os.environ
        | {
            "AWS_DEFAULT_REGION": "us-east-1",  # Chalice requires a region but does not write it
            "PYTHONDONTWRITEBYTECODE": "1",  # Chalice imports the API and would pack its bytecode
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        raise CommandError(f"chalice package failed:\n{completed.stdout}{completed.stderr}")


def _write_zip(archive: Path, *, sources: Path, packages: Path, static: Path) -> None:
    with zipfile.ZipFile(sources) as source_zip:
        files = {name: source_zip.read(name) for name in source_zip.namelist()}
    files |= {name: path.read_bytes() for path, name in wheels.bundled_files(packages, models=BOTOCORE_MODELS)}
    files |= {path: (static / path).read_bytes() for path in wheel_files()}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(name, ZIP_TIMESTAMP)
            info.external_attr = 0o644 << 16
            target.writestr(info, content, zipfile.ZIP_DEFLATED)


def _check_size(archive: Path) -> None:
    size_bytes = archive.stat().st_size
    if size_bytes > MAX_ZIP_BYTES:
        raise CommandError(f"{archive.name} has {size_bytes} bytes; the limit is {MAX_ZIP_BYTES}.")


def _finalize_template(merged: template.Template, archive: Path, *, architecture: str) -> template.Template:
    resources = merged["Resources"]
    unknown_resources = [name for name, resource in resources.items() if "Type" not in resource]
    if unknown_resources:
        raise CommandError(f"Chalice does not create these of infra/template.yaml: {', '.join(unknown_resources)}")
    code = {"Runtime": f"python{PYTHON_VERSION}", "Architectures": [architecture], "CodeUri": f"./{archive.name}"}
    for function in template.properties_of(merged, "AWS::Serverless::Function").values():
        function.update(code)
    sizes = default_parameters(HOST_DEFAULTS[architecture]["InstanceType"])
    for name, default in {**HOST_DEFAULTS[architecture], **sizes}.items():
        merged["Parameters"][name]["Default"] = default
    hosts = resources["HostTemplate"]["Properties"]["LaunchTemplateData"]
    hosts["UserData"] = {"Fn::Base64": {"Fn::Sub": USER_DATA.read_text()}}
    resources["RestAPI"] = _call_alias(resources["RestAPI"])
    resources["ApiVersion"]["Properties"]["Description"] = _version_description(merged, archive.read_bytes())
    return merged


def _call_alias(rest_api: template.Template) -> template.Template:
    """Return the API with integrations that call the alias instead of the function."""
    text = json.dumps(rest_api).replace("${APIHandler.Arn}", "${ApiAlias}")  # its Ref is its ARN
    called: template.Template = json.loads(text)
    return called


def _version_description(merged: template.Template, archive: bytes) -> template.Template:
    """Return a description that differs whenever the code or the configuration of the API does.

    A description cannot be changed, so CloudFormation then publishes a new version, for which the alias waits.
    """
    properties = [merged["Globals"]["Function"], merged["Resources"]["APIHandler"]["Properties"]]
    text = json.dumps(properties, sort_keys=True)
    names = set(re.findall(r'"Ref": "(\w+)"', text)) & merged["Parameters"].keys() - UNVERSIONED_PARAMETERS
    digest = hashlib.sha256(text.encode() + archive).hexdigest()[:16]
    return {"Fn::Sub": " ".join([digest, *(f"{name}=${{{name}}}" for name in sorted(names))])}


@exit_on_error()
def main() -> None:
    """Package the API for each architecture."""
    for architecture in HOST_DEFAULTS:
        template_path = package(OUTPUT, architecture=architecture)
        archive = OUTPUT / f"api-{architecture}.zip"
        sys.stdout.write(f"{template_path}\n{archive}: {archive.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
