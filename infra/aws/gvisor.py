"""The release of gVisor for hosts with OciRuntime=runsc, which load it from the artifact bucket."""

import hashlib
import shutil
import urllib.request
from pathlib import Path
from typing import Final

from infra import progress
from infra.aws.artifact_bucket import ArtifactBucket
from infra.errors import CommandError
from infra.images.wheels import MACHINES

RELEASE: Final = "20260209.1"
# As Kubespray publishes them, a second source beside the server that has the files:
# https://github.com/kubernetes-sigs/kubespray/blob/master/roles/kubespray_defaults/vars/main/checksums.yml
SHA512: Final = {
    "x86_64": "1e0e42f7d3f4b3eded4e96be5af4dcdbecc9bca7ce40f5b9fa191210690397d7"
    "1771c7c0e0835c32221261b004250fe513a9265447e62d9bf92fb6a5f7276a68",
    "arm64": "e95170b4f70688d014c795ffa9b3d583753f865edfd8afb4e2969490869bdb46"
    "b60672f641741f788e2ffee8f29751a017e9a68b98c1e44f5194da9a64b0ff28",
}
ORIGIN: Final = "https://storage.googleapis.com/gvisor/releases/release"
DOWNLOAD_TIMEOUT_S: Final = 60.0


def upload(bucket: ArtifactBucket, directory: Path, *, architecture: str) -> str:
    """Upload the pinned release unless the bucket has it, and return its key, which ends with its SHA-512.

    A verified copy is kept in `directory`. Raises CommandError.
    """
    binary = directory / f"runsc-{RELEASE}-{architecture}"
    if not binary.exists() or _sha512(binary) != SHA512[architecture]:
        directory.mkdir(parents=True, exist_ok=True)
        _download(f"{ORIGIN}/{RELEASE}/{MACHINES[architecture]}/runsc", binary)
        if (actual := _sha512(binary)) != SHA512[architecture]:
            binary.unlink()
            raise CommandError(f"gVisor {RELEASE} has the SHA-512 {actual}, not the pinned one. Do not use it.")
    key = f"hosts/gvisor-{RELEASE}-{architecture}/{SHA512[architecture]}"
    with binary.open("rb") as file:
        bucket.upload(key, file)
    return key


def _download(url: str, target: Path) -> None:
    progress.report(f"Downloading {url} (about 60 MB)...")
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as response, target.open("wb") as file:  # noqa: S310
            shutil.copyfileobj(response, file)
    except OSError as error:  # a URLError, too, is one
        target.unlink(missing_ok=True)
        raise CommandError(f"Cannot download {url}: {error}") from error


def _sha512(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()
