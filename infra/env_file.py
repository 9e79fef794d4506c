"""The settings of the local stack in .local/env. Shells source the file; the next start and the operator read it."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import boto3

from infra.paths import LOCAL

ENV_FILE: Final = LOCAL / "env"


def read(path: Path = ENV_FILE) -> dict[str, str]:
    """Return the settings in the file, or none if the file is missing or malformed."""
    try:
        assignments = [word.partition("=") for word in shlex.split(path.read_text())]
    except (FileNotFoundError, ValueError):  # a UnicodeDecodeError is a ValueError
        return {}
    return {name: value for name, _, value in assignments}


def write(settings: Mapping[str, str], path: Path = ENV_FILE) -> None:
    """Replace the file; only its owner can read it, because it contains a secret."""
    replacement = path.with_suffix(".new")
    replacement.unlink(missing_ok=True)
    with os.fdopen(os.open(replacement, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    replacement.replace(path)


def client(service: str, settings: Mapping[str, str], **options: Any) -> Any:  # noqa: ANN401 - boto3's options
    """Return a boto3 client with the AWS settings of a local stack, independent of this process's environment."""
    return boto3.client(
        service,
        endpoint_url=settings.get(f"AWS_ENDPOINT_URL_{service.upper()}", settings["AWS_ENDPOINT_URL"]),
        region_name=settings["AWS_DEFAULT_REGION"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        **options,
    )
