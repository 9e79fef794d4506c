"""Which images are pulled and built, and what is reported meanwhile."""

import io
import runpy
import sys
from datetime import date
from types import SimpleNamespace

import msgspec
import pytest
from docker.errors import APIError, BuildError, ImageNotFound

from infra.errors import CommandError
from infra.images import agent_image, api_image, base_image, data_image, debian_base, runtime_images, sandbox_image


class FakeImages:
    """Docker's images: a pull or a build adds one."""

    def __init__(self, *, has_registry=True, build_error=None):
        self.tags, self.has_registry, self.build_error = set(), has_registry, build_error
        self.networks = {}  # of builds, by tag

    def get(self, tag):
        if tag not in self.tags:
            raise ImageNotFound(tag)

    def pull(self, tag):
        if not self.has_registry:
            raise APIError("no such host")
        self.tags.add(tag)

    def build(self, *, tag, network_mode, **_):
        if self.build_error:
            raise self.build_error
        self.tags.add(tag)
        self.networks[tag] = network_mode


def ensure_image(images):
    assert sandbox_image.ensure_image(SimpleNamespace(images=images)) in images.tags


def python_tags():
    return sandbox_image.python_tag(), sandbox_image.image_tag()


def reported(capsys):
    """Return the first word of each progress message."""
    return [line.split()[0] for line in capsys.readouterr().err.splitlines()]


def test_pull_and_build_are_reported(capsys):
    images = FakeImages()
    ensure_image(images)
    assert reported(capsys) == ["Pulling", "Installing", "Building"]
    assert images.tags == {base_image.pin().reference, sandbox_image.REGISTRY_BASE_TAG, *python_tags()}
    ensure_image(images)
    assert reported(capsys) == []


def test_images_are_built_without_a_network():
    """But for the base, which is Python's image with packages of Debian."""
    images = FakeImages()
    ensure_image(images)
    assert images.networks == {sandbox_image.REGISTRY_BASE_TAG: "default"} | dict.fromkeys(python_tags(), "none")
    client = SimpleNamespace(images=images)
    sandbox_image.build_image(client, "data", context=io.BytesIO(), arguments={})  # as data_image.py does
    assert images.networks["data"] == "none"


def test_every_package_of_data_is_pinned_by_hash():
    requirements = data_image.REQUIREMENTS.read_text().replace("\\\n", " ").splitlines()
    packages = [line.split() for line in requirements if line and not line.lstrip().startswith("#")]
    assert len(packages) >= 9
    assert [package[0] for package in packages if "==" not in package[0] or "--hash=sha256:" not in package[1]] == []


def test_debian_base_is_used_without_registry(monkeypatch, capsys):
    images = FakeImages(has_registry=False)

    def import_base(client):
        client.images.tags.add(debian_base.BASE_TAG)
        return debian_base.BASE_TAG

    monkeypatch.setattr(debian_base, "import_base", import_base)
    ensure_image(images)
    assert reported(capsys) == ["Pulling", "Building"]
    assert images.tags == {debian_base.BASE_TAG, *python_tags()}


DIGEST = f"sha256:{'ab' * 32}"


@pytest.fixture
def pin(monkeypatch, tmp_path):
    """Return a function that replaces the pin of the base."""
    monkeypatch.setattr(base_image, "PATH", tmp_path / "base.json")

    def replace(**changes):
        values = {"image": "python:3.13-slim", "digest": "", "refreshed": "2026-11-20", **changes}
        base_image.PATH.write_bytes(msgspec.json.encode(values))

    replace()
    return replace


def test_pinned_base_is_pulled_by_digest(pin):
    pin(digest=DIGEST)
    images = FakeImages()
    ensure_image(images)
    assert f"python:3.13-slim@{DIGEST}" in images.tags


def test_new_pin_renames_every_image(pin):
    def names():
        return [
            *(module.image_tag() for module in (sandbox_image, data_image)),
            *(module.image_tag("arm64") for module in (agent_image, api_image)),
        ]

    before = names()
    pin(refreshed="2026-11-27")
    assert not set(before) & set(names())


def test_refresh_pins_what_the_registry_has(pin, capsys):
    registry = SimpleNamespace(get_registry_data=lambda _: SimpleNamespace(id=DIGEST))
    renewed = base_image.refresh(SimpleNamespace(images=registry), today=date(2026, 11, 27))
    assert (renewed.reference, renewed.refreshed) == (f"python:3.13-slim@{DIGEST}", date(2026, 11, 27))


def test_refresh_without_registry_pins_the_day(pin, capsys):
    def get_registry_data(name):
        raise APIError("no", explanation="no such host")

    client = SimpleNamespace(images=SimpleNamespace(get_registry_data=get_registry_data))
    renewed = base_image.refresh(client, today=date(2026, 11, 27))
    assert (renewed.reference, renewed.refreshed) == ("python:3.13-slim", date(2026, 11, 27))
    assert "no such host" in capsys.readouterr().err


def test_deployment_requires_a_pin_only_for_a_base_of_a_registry(pin):
    client = SimpleNamespace(images=FakeImages())
    sandbox_image.require_pinned_base(client)
    ensure_image(client.images)
    with pytest.raises(CommandError, match="make refresh-base"):
        sandbox_image.require_pinned_base(client)
    pin(digest=DIGEST)
    sandbox_image.require_pinned_base(client)


def test_old_base_is_reported(pin, capsys):
    base_image.report_age(today=date(2026, 11, 28))
    assert capsys.readouterr().err == ""
    base_image.report_age(today=date(2026, 11, 29))
    assert "9 days old" in capsys.readouterr().err


def test_build_error_includes_build_output():
    error = BuildError("exit code 1", iter([{"stream": "Step 1\n"}, {"error": "exit code 1"}]))
    with pytest.raises(CommandError, match=r"^exit code 1\nStep 1\n$"):
        ensure_image(FakeImages(build_error=error))


def test_failed_package_command_is_reported_with_its_output():
    with pytest.raises(CommandError, match=r"^sh -c echo broken; exit 1 failed:\nbroken\n$"):
        debian_base._run("sh", "-c", "echo broken; exit 1")


@pytest.mark.parametrize("module", [runtime_images, agent_image, api_image], ids=lambda module: module.__name__)
def test_command_that_builds_nothing_ends_with_the_reason(monkeypatch, module):
    client = SimpleNamespace(
        version=lambda: {"Arch": "riscv64"}, images=FakeImages(build_error=BuildError("unsupported: riscv64", []))
    )
    monkeypatch.setattr("docker.from_env", lambda: client)
    monkeypatch.delitem(sys.modules, module.__name__)  # runpy warns of a module that is imported
    with pytest.raises(SystemExit, match="riscv64"):
        runpy.run_module(module.__name__, run_name="__main__")
