"""`make package`: zips of the API for both architectures and the stack's templates, with no AWS account."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

import msgspec

from infra import template
from infra.images import wheels
from infra.images.wheels import MACHINES, PYTHON_VERSION, WheelsError
from infra.paths import LAMBDA_APP, LOCAL, ROOT

OUTPUT: Final = LOCAL / "package"
USER_DATA: Final = ROOT / "infra/user-data.sh"
REQUIREMENTS: Final = LAMBDA_APP / "requirements.txt"
# Defaults of parameters; a test compares those for x86_64 with infra/template.yaml.
HOST_DEFAULTS: Final = {
    "x86_64": {
        "ImageId": "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64",
        "InstanceType": "c7i.large",
        "InstanceTypeSecond": "c6i.large",
        "InstanceTypeThird": "m7i.large",
    },
    "arm64": {
        "ImageId": "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64",
        "InstanceType": "c7g.large",
        "InstanceTypeSecond": "c6g.large",
        "InstanceTypeThird": "m7g.large",
    },
}
BOTOCORE_MODELS: Final = ("sqs", "dynamodb")
MADE_AT: Final = (1980, 1, 1, 0, 0, 0)  # equal contents make an equal zip


class PackageError(Exception):
    """The API cannot be packaged; the message says why."""


def package(output: Path, *, architecture: str, python_version: str = PYTHON_VERSION) -> Path:
    """Writes api-….zip and template-….json; the path of the template. Raises PackageError, WheelsError."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        made = _chalice(Path(scratch))
        fetched = Path(scratch) / "wheels"
        wheels.fetch(REQUIREMENTS, fetched, architecture=architecture, python_version=python_version)
        archive = output / f"api-{architecture}.zip"
        _zip(archive, sources=made / "deployment.zip", fetched=fetched)
        merged = _finished(template.load((made / "sam.yaml").read_text()), archive.name, architecture=architecture)
    written = output / f"template-{architecture}.json"
    written.write_bytes(msgspec.json.format(msgspec.json.encode(merged)))
    return written


def _chalice(scratch: Path) -> Path:
    """Chalice's template, merged with ours, and its zip without any wheel: those it takes for this machine only."""
    project, made = scratch / "lambda_app", scratch / "made"
    ignored = shutil.ignore_patterns("__pycache__", "requirements.*", "deployments", "deployed")
    shutil.copytree(LAMBDA_APP, project, ignore=ignored)
    command = [str(Path(sys.executable).with_name("chalice")), "package", "--template-format=yaml"]
    _run([*command, f"--merge-template={template.PATH}", str(made)], cwd=project)
    return made


def _run(command: list[str], *, cwd: Path) -> None:
    environment = {**os.environ, "AWS_DEFAULT_REGION": "us-east-1"}  # Chalice wants one, and puts it nowhere
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PackageError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _zip(archive: Path, *, sources: Path, fetched: Path) -> None:
    with zipfile.ZipFile(sources) as made:
        files = {name: made.read(name) for name in made.namelist()}
    files |= {name: path.read_bytes() for path, name in wheels.bundled_files(fetched, models=BOTOCORE_MODELS)}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as written:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(name, MADE_AT)
            info.external_attr = 0o644 << 16
            written.writestr(info, content, zipfile.ZIP_DEFLATED)


def _finished(merged: template.Template, archive: str, *, architecture: str) -> template.Template:
    unmade = [name for name, each in merged["Resources"].items() if "Type" not in each]
    if unmade:
        raise PackageError(f"infra/template.yaml adds to what Chalice does not make: {', '.join(unmade)}")
    for each in merged["Resources"].values():
        if each["Type"] == "AWS::Serverless::Function":
            runs = {"Runtime": f"python{PYTHON_VERSION}", "Architectures": [architecture], "CodeUri": f"./{archive}"}
            each["Properties"] |= runs
    for name, default in HOST_DEFAULTS[architecture].items():
        merged["Parameters"][name]["Default"] = default
    hosts = merged["Resources"]["HostTemplate"]["Properties"]["LaunchTemplateData"]
    hosts["UserData"] = {"Fn::Base64": {"Fn::Sub": USER_DATA.read_text()}}
    return merged


def main(arguments: list[str]) -> str | None:
    """What went wrong, if something did."""
    parser = argparse.ArgumentParser(prog="python -m infra.aws.package", description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    try:
        for architecture in MACHINES:
            written = package(options.output, architecture=architecture)
            megabytes = (options.output / f"api-{architecture}.zip").stat().st_size / 1e6
            sys.stdout.write(f"{written}, api-{architecture}.zip: {megabytes:.1f} MB\n")
    except (PackageError, WheelsError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
