"""Load the agent's settings from the environment, once, for __main__.py."""

import os
import socket
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

_CORES: Final = os.cpu_count() or 1


class SettingsError(Exception):
    """Settings are missing or invalid; the message names all of them."""


class Settings(Struct, frozen=True, kw_only=True, rename="upper"):
    """The agent's settings, described in docs/configuration.md."""

    job_queue_url: Annotated[str, Meta(min_length=1)]
    results_queue_url: Annotated[str, Meta(min_length=1)]
    sandbox_image: Annotated[str, Meta(min_length=1)]
    oci_runtime: str = ""  # for example "runsc"; Docker's default if empty
    agent_name: Annotated[str, Meta(min_length=1, max_length=128)] = socket.gethostname()
    workers: Annotated[int, Meta(ge=1, le=256)] = 2 * _CORES
    warm_sandboxes: Annotated[int, Meta(ge=1, le=512)] = 2 * _CORES
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] = 9464
    metrics_namespace: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._/#:-]{1,255}\Z")] = "PythonExec"  # in CloudWatch


def load(environment: Mapping[str, str]) -> Settings:
    """Return the settings in an environment. Raises SettingsError."""
    values, errors = {}, []
    for field in msgspec.structs.fields(Settings):
        raw = environment.get(field.encode_name)
        if raw is None:
            if field.required:
                errors.append(f"{field.encode_name} is missing")
            continue
        try:
            values[field.name] = msgspec.convert(raw, field.type, strict=False)
        except msgspec.ValidationError as error:
            errors.append(f"{field.encode_name}: {error}")
    if errors:
        raise SettingsError("; ".join(errors))
    return Settings(**values)
