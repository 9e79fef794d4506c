"""The pin of the image below all others. It is part of the name of each image, so renewing it rebuilds them all.

`make refresh-base` renews it: every week, and after an advisory about a package of the base.
"""

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import docker
import msgspec
from docker import DockerClient
from docker.errors import APIError
from msgspec import Struct

from infra import progress

PATH: Final = Path(__file__).with_name("base.json")
MAX_AGE_DAYS: Final = 8  # of a pin that is renewed every week


class Pin(Struct, frozen=True, kw_only=True):
    """The base of the images. Without a digest, it is whatever the registry or Debian's archive has at the time."""

    image: str
    digest: str  # of the registry's list of all architectures
    refreshed: date

    @property
    def reference(self) -> str:
        """Return the name with which Docker pulls the image."""
        return f"{self.image}@{self.digest}" if self.digest else self.image


def pin() -> Pin:
    """Return the pin of this checkout."""
    return msgspec.json.decode(PATH.read_bytes(), type=Pin)


def refresh(client: DockerClient, *, today: date) -> Pin:
    """Return a pin of the image that the registry has now, without a digest if no registry is reachable."""
    image = pin().image
    try:
        digest = client.images.get_registry_data(image).id
    except APIError as error:
        progress.report(f"No registry has {image}, so the base will be today's Debian packages: {error.explanation}")
        digest = ""
    return Pin(image=image, digest=digest, refreshed=today)


def report_age(*, today: date) -> None:
    """Report if the base is too old to be deployed without a thought."""
    age_days = (today - pin().refreshed).days
    if age_days > MAX_AGE_DAYS:
        progress.report(f"The base of the images is {age_days} days old. Run make refresh-base for security patches.")


if __name__ == "__main__":
    renewed = refresh(docker.from_env(), today=datetime.now(UTC).date())
    PATH.write_bytes(msgspec.json.format(msgspec.json.encode(renewed), indent=0) + b"\n")
    sys.stdout.write(f"{renewed.reference}, {renewed.refreshed}\n")
