"""The content of the sandbox images: a program can read and run all of it."""

import stat
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import docker
import pytest

from infra.images import data_image, sandbox_image

MODULES = [
    *("asyncio", "bz2", "ctypes", "curses", "decimal", "hashlib", "lzma", "multiprocessing.pool", "readline"),
    *("sqlite3", "ssl", "uuid", "xml.etree.ElementTree", "zlib", "zoneinfo"),
]
MIB = 1024 * 1024
SHELLS_AND_TOOLS = {"sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "pip", "perl", "mount", "su"}


@pytest.fixture(scope="module")
def client():
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def image(client):
    return sandbox_image.ensure_image(client)


@pytest.fixture(scope="module", params=[sandbox_image, data_image], ids=["python", "data"])
def files(client, request):
    """Every file of an image as a tarfile.TarInfo."""
    container = client.containers.create(request.param.ensure_image(client), network_mode="none")
    with tempfile.TemporaryFile() as archive:
        try:
            archive.writelines(container.export(chunk_size=MIB))
        finally:
            container.remove()
        archive.seek(0)
        with tarfile.open(fileobj=archive) as tar:
            return tar.getmembers()


def tags():
    return sandbox_image.image_tag(), data_image.image_tag()


def run_python(client, image, code):
    return client.containers.run(
        image,
        ["python3", "-c", code],
        network_mode="none",
        network_disabled=True,
        read_only=True,
        user="65534:65534",
        remove=True,
    ).decode()


def test_image_has_no_setuid_files(files):
    assert [f.name for f in files if f.mode & (stat.S_ISUID | stat.S_ISGID)] == []


def test_image_is_read_only_except_tmp(files):
    assert {(f.uid, f.gid) for f in files} == {(0, 0)}
    assert [f.name for f in files if not f.issym() and f.mode & 0o022] == ["tmp"]


def test_image_files_are_world_readable(files):
    unreadable = [f.name for f in files if not f.issym() and not f.mode & 0o004]
    assert unreadable == []


def test_python_is_the_only_program(files):
    programs = {f.name.rsplit("/", 1)[-1] for f in files if f.isfile() and f.size and f.mode & 0o111}
    assert {name for name in programs if not name.startswith(("python3.", "ld-"))} == set()
    names = {f.name.rsplit("/", 1)[-1] for f in files}
    assert names & SHELLS_AND_TOOLS == set()


def test_image_has_no_devices_or_sockets(files):
    """/dev/console is the engine's, and empty."""
    assert [f.name for f in files if not (f.isfile() or f.isdir() or f.issym() or f.islnk())] == []


@pytest.mark.parametrize("module", MODULES)
def test_module_imports(client, image, module):
    assert run_python(client, image, f"import {module}; print('fine')") == "fine\n"


def test_every_extension_module_imports(client, image):
    """So each finds the libraries that it is linked with."""
    code = """
import importlib, pathlib, sysconfig
directory = pathlib.Path(sysconfig.get_path("platstdlib"), "lib-dynload")
for file in sorted(directory.glob("*.so")):
    importlib.import_module(file.name.split(".")[0])
print(len(list(directory.glob("*.so"))) > 20)
"""
    assert run_python(client, image, code) == "True\n"


def test_time_zones_exist(client, image):
    code = """
import datetime, zoneinfo
print(datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset())
print(len(zoneinfo.available_timezones()) > 400)
"""
    assert run_python(client, image, code) == "2:00:00\nTrue\n"


def test_passwd_entries_exist(client, image):
    code = "import os, pwd, grp; print(pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name)"
    assert run_python(client, image, code) == "nobody nogroup\n"


def test_stdlib_bytecode_is_used(client, image):
    """Without it each start compiles what it imports, and the result cannot be kept."""
    code = """
import argparse, importlib.util, pathlib
print(pathlib.Path(importlib.util.cache_from_source(argparse.__file__)).read_bytes()[4])
"""
    assert run_python(client, image, code) == "1\n"  # hash-based, not checked (PEP 552)


def test_threads_can_be_cancelled(client, image):
    """glibc aborts the process when it cannot load libgcc_s for that."""
    code = """
import ctypes, threading
thread = threading.Thread(target=ctypes.CDLL(None).pthread_exit, args=(None,), daemon=True)
thread.start(); thread.join(0.2); print("alive", flush=True)
import os; os._exit(0)
"""
    assert run_python(client, image, code) == "alive\n"


def test_existing_image_is_not_rebuilt(image):
    lookups = []
    read_only_client = SimpleNamespace(images=SimpleNamespace(get=lookups.append))
    assert sandbox_image.ensure_image(read_only_client) == image
    assert lookups == [image]


def test_concurrent_builds_produce_one_image(image):
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(lambda _: sandbox_image.ensure_image(docker.from_env()), range(3))) == {image}


@pytest.mark.parametrize("context", ["_PYTHON_CONTEXT", "_SUPERVISOR_CONTEXT"])
def test_tags_change_with_every_input(monkeypatch, tmp_path, context):
    before, sources = tags(), getattr(sandbox_image, context)
    for path in sources:
        changed = tmp_path / path.name
        changed.write_text(f"{path.read_text()}\n")
        inputs = {changed if source == path else source: name for source, name in sources.items()}
        monkeypatch.setattr(sandbox_image, context, inputs)
        assert not set(tags()) & set(before)
