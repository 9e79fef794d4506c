"""Load the agent's settings from the environment, once, for __main__.py."""

import math
import os
import socket
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from chalicelib.contract import PAYLOAD_STORE_URL_PATTERN
from chalicelib.runtimes import RUNTIMES

_CORES: Final = os.cpu_count() or 1
_DEFAULT_RUNTIMES: Final = f"python={8 * _CORES},data={math.ceil(_CORES / 2)}"

_FIELDS_OF_RUNTIMES: Final = {
    "python": ("job_queue_url", "sandbox_image"),
    "data": ("data_job_queue_url", "data_sandbox_image"),
}


class SettingsError(Exception):
    """Settings are missing or invalid; the message names all of them."""


class Settings(Struct, frozen=True, kw_only=True, rename="upper"):
    """The agent's settings, described in docs/configuration.md."""

    job_queue_url: str = ""
    data_job_queue_url: str = ""
    results_queue_url: Annotated[str, Meta(min_length=1)]
    # https, or the local emulator's address; requests go to no other server.
    payload_store_url: Annotated[str, Meta(pattern=PAYLOAD_STORE_URL_PATTERN)]
    sandbox_image: str = ""
    data_sandbox_image: str = ""
    oci_runtime: str = ""  # for example "runsc"; Docker's default if empty
    agent_name: Annotated[str, Meta(min_length=1, max_length=128)] = socket.gethostname()
    runtimes: Annotated[str, Meta(pattern=r"^[a-z]+=[1-9][0-9]{0,2}(,[a-z]+=[1-9][0-9]{0,2})*\Z")] = _DEFAULT_RUNTIMES
    min_free_memory_mib: Annotated[int, Meta(ge=0)] = 512
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] = 9464
    metrics_namespace: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._/#:-]{1,255}\Z")] = "PythonExec"  # in CloudWatch

    @property
    def workers(self) -> dict[str, int]:
        """Return the number of workers of each runtime that this host serves, by name."""
        return {name: int(count) for name, count in _pairs(self.runtimes)}

    @property
    def job_queue_urls(self) -> dict[str, str]:
        """Return the URL of the job queue of each runtime."""
        return {"python": self.job_queue_url, "data": self.data_job_queue_url}

    @property
    def sandbox_images(self) -> dict[str, str]:
        """Return the image of each runtime."""
        return {"python": self.sandbox_image, "data": self.data_sandbox_image}


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
    errors += _errors_of_runtimes(values)
    if errors:
        raise SettingsError("; ".join(errors))
    return Settings(**values)


def _pairs(text: str) -> list[list[str]]:
    return [pair.split("=") for pair in text.split(",")]


def _errors_of_runtimes(values: Mapping[str, Any]) -> list[str]:
    names = [name for name, _ in _pairs(values.get("runtimes", _DEFAULT_RUNTIMES))]
    unknown = sorted(set(names) - set(RUNTIMES))
    if unknown:
        return [f"RUNTIMES: unknown runtime {', '.join(unknown)}"]
    if len(set(names)) < len(names):
        return ["RUNTIMES: a runtime is named twice"]
    fields = [field for name in names for field in _FIELDS_OF_RUNTIMES[name]]
    return [f"{field.upper()} is missing" for field in fields if not values.get(field)]
