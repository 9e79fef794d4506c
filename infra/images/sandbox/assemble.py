"""Collect what Python needs to run into /rootfs. Runs in the build stage of the Dockerfile, on the base image's Python.

Uses the standard library only and no fixed version or path: any glibc base with Python 3.11 or later works.
"""

import compileall
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

ROOT: Final = Path("/rootfs")
PYTHON: Final = Path(sys.executable).resolve()
STDLIB: Final = Path(sysconfig.get_path("stdlib"))
LOCALE: Final = Path("/usr/lib/locale/C.utf8")
ZONEINFO: Final = Path("/usr/share/zoneinfo")

MOUNT_POINTS: Final = ("dev", "proc", "sys", "tmp")
EXCLUDED_STDLIB: Final = (  # tests, packaging, Windows, and modules that need files which the image does not have
    "__pycache__", "config-*", "dist-packages", "site-packages", "sitecustomize.py", "EXTERNALLY-MANAGED",
    "test", "_test*", "_xxtestfuzz*", "xxlimited*", "xxsubtype*", "idlelib", "ensurepip", "lib2to3", "tkinter",
    "_tkinter*", "turtle.py", "turtledemo",
)  # fmt: skip
EXCLUDED_ZONEINFO: Final = ("posix", "right", "localtime", "posixrules", "leap*", "*.zi", "*.tab", "*.list")
SYSTEM_DATA: Final = ("mime.types", "os-release", "protocols", "rpc", "services")  # in /etc
# Opened by glibc when it needs them: to cancel a thread, to resolve localhost, to name a user without an account.
# Wheels are linked with the others; most of those are empty in glibc 2.34 and later.
OPENED_LIBRARIES: Final = (
    "libgcc_s.so.1", "libnss_myhostname.so.2", "libnss_unknown.so.2",
    "libstdc++.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1",
)  # fmt: skip
NAME_SERVICE_FILES: Final = {  # in /etc
    "passwd": "root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/tmp:/\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files unknown\ngroup: files\nhosts: files myhostname\n"
    "services: files\nprotocols: files\nrpc: files\n",
}


def rootfs_path(path: Path) -> Path:
    """Return the place of `path` in the new tree and create its directory, links to directories resolved."""
    target = ROOT / (path.parent.resolve() / path.name).relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def shared_libraries(modules: Iterable[Path]) -> set[Path]:
    """Return the loader and each library that Python or one of its extension modules is linked with.

    The loader prints them itself (ld.so(8), LD_TRACE_LOADED_OBJECTS).
    """
    modules = set(modules)
    trace = {"LD_TRACE_LOADED_OBJECTS": "1", "LD_PRELOAD": " ".join([*OPENED_LIBRARIES, *map(str, modules)])}
    listing = subprocess.run([PYTHON], env=trace, stdout=subprocess.PIPE, text=True, check=True).stdout
    libraries = {Path(path) for path in re.findall(r"(/\S+) \(0x", listing)} - modules
    if "not found" in listing or not {library.name for library in libraries}.issuperset(OPENED_LIBRARIES):
        raise SystemExit(f"The base image lacks a library:\n{listing}")
    return libraries


def copy_python() -> None:
    """Copy the interpreter, its standard library and the shared libraries of both."""
    shutil.copytree(STDLIB, rootfs_path(STDLIB), ignore=shutil.ignore_patterns(*EXCLUDED_STDLIB))
    shutil.copyfile(PYTHON, rootfs_path(PYTHON))
    for name in ("python3", "python"):
        rootfs_path(PYTHON.with_name(name)).symlink_to(PYTHON.name)
    modules = (STDLIB / "lib-dynload").glob("*.so")
    for library in shared_libraries(module for module in modules if rootfs_path(module).exists()):
        shutil.copyfile(library, rootfs_path(library))
    cache = Path("/etc/ld.so.cache")  # the loader looks here for libraries outside its default directories
    if cache.exists():
        shutil.copyfile(cache, rootfs_path(cache))
    for link in Path("/").glob("lib*"):  # /lib64 -> usr/lib64: programs name their loader by this path
        if link.is_symlink() and rootfs_path(link.resolve()).is_dir():
            rootfs_path(link).symlink_to(link.readlink())


def copy_system_data() -> None:
    """Copy names of services and media types, the time zones, and C.UTF-8, without which Python's text mode differs."""
    for name in SYSTEM_DATA:
        shutil.copyfile(Path("/etc", name), rootfs_path(Path("/etc", name)))
    if LOCALE.is_dir():
        shutil.copytree(LOCALE, rootfs_path(LOCALE))
    excluded = shutil.ignore_patterns(*EXCLUDED_ZONEINFO)
    shutil.copytree(ZONEINFO, rootfs_path(ZONEINFO), symlinks=True, ignore=excluded)


def write_name_service() -> None:
    """Write the files of the name service, and create the mount points."""
    for name in MOUNT_POINTS:
        (ROOT / name).mkdir()
    for name, text in NAME_SERVICE_FILES.items():
        rootfs_path(Path("/etc", name)).write_text(text)


def compile_sources() -> None:
    """Compile each source to bytecode that Python never checks against it: the image is read-only."""
    if not compileall.compile_dir(
        ROOT / STDLIB.relative_to("/"),
        quiet=1,
        stripdir=str(ROOT),
        prependdir="/",
        workers=0,
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    ):
        raise SystemExit(f"{STDLIB} does not compile")


def set_modes() -> None:
    """Make everything readable by all and writable by root only, and only what the kernel loads executable."""
    programs = {rootfs_path(PYTHON)} | set(ROOT.rglob("ld-*.so*"))
    for directory, _, files in os.walk(ROOT):
        Path(directory).chmod(0o755)
        for file in (Path(directory, name) for name in files):
            if not file.is_symlink():
                file.chmod(0o755 if file in programs else 0o644)
    (ROOT / "tmp").chmod(0o1777)  # runc gives a tmpfs the mode of the directory below it


if __name__ == "__main__":
    copy_python()
    copy_system_data()
    write_name_service()
    compile_sources()
    set_modes()
