"""`make agent-image`: the agent's image, and with the sandbox's the archive that a host gives to `docker load`.

pip fetches the wheels beforehand, each checked by its hash; the build itself has no network.
"""

import gzip
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import docker
from docker import DockerClient

from infra.images import sandbox_image, wheels
from infra.images.wheels import WheelsError
from infra.paths import EXECUTOR_HOST, LAMBDA_APP, LOCAL, ROOT

REPOSITORY: Final = "python-exec-agent"
WHEELS: Final = (
    *("boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"),
    *("docker", "requests", "certifi", "charset-normalizer", "idna"),
    *("msgspec", "prometheus-client", "python-json-logger"),
)
BOTOCORE_MODELS: Final = ("autoscaling", "sqs")
MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}  # Docker's name: that of wheels
ARCHITECTURES: Final = {"amd64": "x86_64", "arm64": "arm64"}  # Docker's name: Lambda's

_DOCKERFILE: Final = EXECUTOR_HOST / "Dockerfile"
_REQUIREMENTS: Final = ROOT / "requirements.txt"


class ArchitectureError(Exception):
    """The engine is of an architecture that hosts do not have."""


class SaveError(Exception):
    """The engine's command line could not save the images."""


def requirements() -> str:
    """The lines of requirements.txt about WHEELS, with their hashes. Raises WheelsError."""
    pinned = re.findall(r"^([a-z0-9-]+)(==\S+(?: \\\n +--hash=\S+)+)", _REQUIREMENTS.read_text(), re.MULTILINE)
    found = {name: rest for name, rest in pinned if name in WHEELS}
    if set(found) != set(WHEELS):
        raise WheelsError(f"requirements.txt lacks {', '.join(sorted(set(WHEELS) - set(found)))}")
    return "".join(f"{name}{rest}\n" for name, rest in found.items())


def architecture_of(client: DockerClient) -> str:
    """That of the engine and so of what it builds, as Lambda calls it. Raises ArchitectureError."""
    found = client.version()["Arch"]
    if found not in ARCHITECTURES:
        raise ArchitectureError(f"Docker's engine is {found}; hosts are {' or '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[found]


def image_tag(architecture: str) -> str:
    """The name of the image that these sources make."""
    inputs = hashlib.sha256(f"{requirements()}{sandbox_image.image_tag()}".encode())
    for path in (_DOCKERFILE, Path(__file__), Path(wheels.__file__), *_sources()):
        inputs.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{REPOSITORY}:{inputs.hexdigest()[:12]}-{architecture}"


def ensure_image(client: DockerClient) -> str:
    """The tag of the agent's image, built unless the engine has it.

    Raises ArchitectureError, WheelsError or what sandbox_image.py raises.
    """
    tag, sandbox = image_tag(architecture_of(client)), sandbox_image.ensure_image(client)
    if not sandbox_image.exists(client, tag):
        with tempfile.TemporaryDirectory() as scratch:
            wanted, fetched = Path(scratch, "requirements.txt"), Path(scratch, "wheels")
            wanted.write_text(requirements())
            wheels.fetch(wanted, fetched, machine=MACHINES[client.version()["Arch"]])
            context = _context(fetched)
        arguments = {"BASE": sandbox_image.base(client), "SANDBOX_IMAGE": sandbox}
        sandbox_image.build(client, tag, context=context, arguments=arguments)
    return tag


def save(client: DockerClient, directory: Path) -> Path:
    """Writes both images to host-….tar.gz, the agent's also as `latest`; its path.

    Raises SaveError and what ensure_image does.
    """
    tag = ensure_image(client)
    client.images.get(tag).tag(REPOSITORY, "latest")
    archive = directory / f"host-{tag.partition(':')[2]}.tar.gz"
    directory.mkdir(exist_ok=True)
    if not archive.exists():
        names = [f"{REPOSITORY}:latest", tag, sandbox_image.image_tag()]  # docker-py saves one at a time
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            saved, packed = Path(scratch, "host.tar"), Path(scratch, "host.tar.gz")
            done = subprocess.run(["docker", "save", f"--output={saved}", *names], check=False)
            if done.returncode != 0:
                raise SaveError(f"docker save ended with {done.returncode}")
            with saved.open("rb") as plain, gzip.open(packed, "wb", compresslevel=6) as written:
                shutil.copyfileobj(plain, written)
            packed.rename(archive)
    return archive


def _sources() -> list[Path]:
    contract = [LAMBDA_APP / "chalicelib/__init__.py", LAMBDA_APP / "chalicelib/contract.py"]
    return contract + sorted(path for path in EXECUTOR_HOST.rglob("*") if path.suffix in {".py", ".json"})


def _context(fetched: Path) -> io.BytesIO:
    """The build's directory: the Dockerfile and agent/, in which everything can be read by all."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        _add(archive, [(_DOCKERFILE, "Dockerfile")])
        _add(archive, [(path, f"agent/{_module_path(path)}") for path in _sources()])
        found = wheels.files(fetched, models=BOTOCORE_MODELS)
        _add(archive, [(path, f"agent/{name}") for path, name in found])
    context.seek(0)
    return context


def _add(archive: tarfile.TarFile, files: Iterable[tuple[Path, str]]) -> None:
    for path, name in files:
        info = tarfile.TarInfo(name)
        info.size, info.mode = path.stat().st_size, 0o644
        with path.open("rb") as content:
            archive.addfile(info, content)


def _module_path(path: Path) -> Path:
    return path.relative_to(ROOT if path.is_relative_to(EXECUTOR_HOST) else LAMBDA_APP)


if __name__ == "__main__":
    archive = save(docker.from_env(), LOCAL)
    sys.stdout.write(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB\n")
