"""The releases of a stage: the template and the host images of each deployment, so that one can be applied again.

`make deploy` records them in the artifact bucket. `make rollback` and `make promote` apply one and build nothing.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from executor_host import __version__
from infra import progress
from infra.aws.account_setup import ClientFactory
from infra.aws.artifact_bucket import ArtifactBucket, artifact_bucket
from infra.aws.cloudformation_stack import Stack, existing_stack
from infra.errors import CommandError


class Release(Struct, frozen=True, kw_only=True):
    """The artifacts of a deployment, by their keys in the artifact bucket."""

    name: str  # its time in UTC
    version: str
    template: str  # which names the code of the functions
    host_bundle: str

    def describe(self) -> str:
        """Return a line for a list."""
        return f"{self.name}  version {self.version}  template {self.template[:12]}  images {self.host_bundle}"


def roll_back(clients: ClientFactory, *, stage: str, release: str) -> None:
    """Apply an earlier release of a stage, by default the one before. Builds nothing. Raises CommandError."""
    stack, bucket = existing_stack(clients, stage), artifact_bucket(clients)
    history = recorded(bucket, stage=stage)
    chosen = find(history, release) if release else before(history, deployed(history, stack))
    _apply(stack, bucket, chosen)


def promote(clients: ClientFactory, *, source: str, stage: str, plan_only: bool = False) -> None:
    """Apply to an existing stage the release that another stage of the account runs, or list what that would change.

    Raises CommandError.
    """
    stack = existing_stack(clients, stage, plan_only=plan_only)
    bucket = artifact_bucket(clients)
    history = recorded(bucket, stage=source)
    chosen = deployed(history, existing_stack(clients, source))
    _apply(stack, bucket, chosen)
    if not plan_only:
        record(bucket, stage=stage, template=chosen.template, host_bundle=chosen.host_bundle)


def _apply(stack: Stack, bucket: ArtifactBucket, release: Release) -> None:
    progress.report(f"Applying {release.describe()}")
    names = json.loads(bucket.get(release.template))["Parameters"].keys() & stack.parameters().keys()
    stack.apply(
        {"TemplateURL": bucket.url(release.template)},
        is_update=True,
        parameters={"HostImageBundle": release.host_bundle},
        unchanged=sorted(names - {"HostImageBundle"}),
    )


def record(bucket: ArtifactBucket, *, stage: str, template: str, host_bundle: str) -> None:
    """Record a deployment that has succeeded, unless it is the same as the one before."""
    latest = recorded(bucket, stage=stage)[-1:]
    if [(each.template, each.host_bundle) for each in latest] == [(template, host_bundle)]:
        return
    name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    release = Release(name=name, version=__version__, template=template, host_bundle=host_bundle)
    bucket.put(f"{_prefix(stage)}{name}.json", msgspec.json.encode(release))


def recorded(bucket: ArtifactBucket, *, stage: str) -> list[Release]:
    """Return the releases of a stage, the oldest first."""
    return [msgspec.json.decode(bucket.get(key), type=Release) for key in bucket.keys(_prefix(stage))]


def find(releases: Sequence[Release], name: str) -> Release:
    """Return the release of this name. Raises CommandError."""
    for release in releases:
        if release.name == name:
            return release
    raise CommandError(f"There is no release {name}.{_listing(releases)}")


def deployed(releases: Sequence[Release], stack: Stack) -> Release:
    """Return the latest release whose artifacts an existing stack uses. Raises CommandError."""
    body = json.dumps(stack.template(), sort_keys=True).encode()  # as deploy.py uploads it
    digest, bundle = hashlib.sha256(body).hexdigest(), stack.parameters().get("HostImageBundle")
    for release in reversed(releases):
        if release.template.startswith(digest) and release.host_bundle == bundle:
            return release
    raise CommandError(
        f"{stack.name} is at none of its recorded releases. Name one with RELEASE=….{_listing(releases)}"
    )


def before(releases: Sequence[Release], current: Release) -> Release:
    """Return the release before another one. Raises CommandError."""
    earlier = [release for release in releases if release.name < current.name]
    if not earlier:
        raise CommandError(f"There is no release before {current.name}.{_listing(releases)}")
    return earlier[-1]


def _listing(releases: Sequence[Release]) -> str:
    lines = [f"\n  {release.describe()}" for release in releases]
    return f" The releases are:{''.join(lines)}" if lines else " No release is recorded."


def _prefix(stage: str) -> str:
    return f"releases/{stage}/"
