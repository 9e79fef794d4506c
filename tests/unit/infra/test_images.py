"""Which images are pulled and built, and what is reported meanwhile."""

from types import SimpleNamespace

import pytest
from docker.errors import APIError, BuildError, ImageNotFound

from infra.errors import CommandError
from infra.images import debian_base, sandbox_image


class FakeImages:
    """Docker's images: a pull or a build adds one."""

    def __init__(self, *, has_registry=True, build_error=None):
        self.tags, self.has_registry, self.build_error = set(), has_registry, build_error

    def get(self, tag):
        if tag not in self.tags:
            raise ImageNotFound(tag)

    def pull(self, tag):
        if not self.has_registry:
            raise APIError("no such host")
        self.tags.add(tag)

    def build(self, *, tag, **_):
        if self.build_error:
            raise self.build_error
        self.tags.add(tag)


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
    assert images.tags == {sandbox_image.REGISTRY_IMAGE, sandbox_image.REGISTRY_BASE_TAG, *python_tags()}
    ensure_image(images)
    assert reported(capsys) == []


def test_debian_base_is_used_without_registry(monkeypatch, capsys):
    images = FakeImages(has_registry=False)

    def import_base(client):
        client.images.tags.add(debian_base.BASE_TAG)
        return debian_base.BASE_TAG

    monkeypatch.setattr(debian_base, "import_base", import_base)
    ensure_image(images)
    assert reported(capsys) == ["Pulling", "Building"]
    assert images.tags == {debian_base.BASE_TAG, *python_tags()}


def test_build_error_includes_build_output():
    error = BuildError("exit code 1", iter([{"stream": "Step 1\n"}, {"error": "exit code 1"}]))
    with pytest.raises(CommandError, match=r"^exit code 1\nStep 1\n$"):
        ensure_image(FakeImages(build_error=error))


def test_failed_package_command_is_reported_with_its_output():
    with pytest.raises(CommandError, match=r"^sh -c echo broken; exit 1 failed:\nbroken\n$"):
        debian_base._run("sh", "-c", "echo broken; exit 1")
