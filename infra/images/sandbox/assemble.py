"""Collects what Python needs to run into /rootfs. Runs in the Dockerfile's build stage, on its Python.

Standard library only and no fixed version or path: any glibc base with Python 3.11 or later will do.
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
SUPERVISOR: Final = Path("/sandbox/sitecustomize.py")  # on PYTHONPATH, Python imports it as it starts

MOUNT_POINTS: Final = ("dev", "proc", "sys", "tmp")
UNUSED: Final = (  # of the standard library: tests, packaging, windows, what needs a file that is not here
    *("__pycache__", "config-*", "dist-packages", "site-packages", "sitecustomize.py", "EXTERNALLY-MANAGED"),
    *(
        "test",
        "_test*",
        "_xxtestfuzz*",
        "xxlimited*",
        "xxsubtype*",
        "idlelib",
        "ensurepip",
        "lib2to3",
        "pydoc_data",
    ),
    *("tkinter", "_tkinter*", "turtle.py", "turtledemo"),
)
ACCOUNTS: Final = {
    "passwd": "root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/tmp:/\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


def in_root(path: Path) -> Path:
    """Where `path` belongs in the new tree, below a directory and not below a link to it."""
    target = ROOT / (path.parent.resolve() / path.name).relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def shared_libraries(modules: Iterable[Path]) -> set[Path]:
    """The loader and every library that Python or one of its extension modules is linked with.

    The loader itself says so (ld.so(8), LD_TRACE_LOADED_OBJECTS); libgcc_s is asked for by name because glibc
    opens it only when a thread is cancelled.
    """
    preload = " ".join(["libgcc_s.so.1", *map(str, modules)])
    trace = {"LD_TRACE_LOADED_OBJECTS": "1", "LD_PRELOAD": preload}
    listing = subprocess.run([PYTHON], env=trace, stdout=subprocess.PIPE, text=True, check=True).stdout
    if "not found" in listing:
        raise SystemExit(f"a library is missing in the base image:\n{listing}")
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", listing)} - set(modules)


def copy_python() -> None:
    shutil.copytree(STDLIB, in_root(STDLIB), ignore=shutil.ignore_patterns(*UNUSED))
    shutil.copyfile(PYTHON, in_root(PYTHON))
    for name in ("python3", "python"):
        in_root(PYTHON.with_name(name)).symlink_to(PYTHON.name)
    modules = (STDLIB / "lib-dynload").glob("*.so")
    for library in shared_libraries(m for m in modules if in_root(m).exists()):
        shutil.copyfile(library, in_root(library))
    cache = Path("/etc/ld.so.cache")  # how the loader finds libraries outside its default directories
    if cache.exists():
        shutil.copyfile(cache, in_root(cache))
    for link in Path("/").glob("lib*"):  # /lib64 -> usr/lib64, by which programs name their loader
        if link.is_symlink() and in_root(link.resolve()).is_dir():
            in_root(link).symlink_to(link.readlink())


def copy_locale() -> None:
    """C.UTF-8, where it is files: without it Python starts in another mode than on any other machine."""
    if LOCALE.is_dir():
        shutil.copytree(LOCALE, in_root(LOCALE))


def copy_time_zones() -> None:
    unused = shutil.ignore_patterns("posix", "right", "localtime", "posixrules", "leap*", "*.zi", "*.tab", "*.list")
    shutil.copytree(ZONEINFO, in_root(ZONEINFO), symlinks=True, ignore=unused)


def write_the_rest() -> None:
    for name in MOUNT_POINTS:
        (ROOT / name).mkdir()
    for name, text in ACCOUNTS.items():
        in_root(Path("/etc", name)).write_text(text)
    shutil.copyfile("/build/supervisor.py", in_root(SUPERVISOR))


def compile_sources() -> None:
    """Byte code beside every source, never checked against it: nothing in the image can change."""
    for directory in (STDLIB, SUPERVISOR.parent):
        compiled = compileall.compile_dir(
            ROOT / directory.relative_to("/"),
            quiet=1,
            stripdir=str(ROOT),
            prependdir="/",
            workers=0,
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )
        if not compiled:
            raise SystemExit(f"{directory} does not compile")


def set_modes() -> None:
    """Readable by all, writable by root alone; only what the kernel loads as a program is executable."""
    programs = {in_root(PYTHON)} | set(ROOT.rglob("ld-*.so*"))
    for directory, _, files in os.walk(ROOT):
        Path(directory).chmod(0o755)
        for file in (Path(directory, name) for name in files):
            if not file.is_symlink():
                file.chmod(0o755 if file in programs else 0o644)
    (ROOT / "tmp").chmod(0o1777)  # runc gives the scratch that is mounted here the mode of what it hides


if __name__ == "__main__":
    copy_python()
    copy_locale()
    copy_time_zones()
    write_the_rest()
    compile_sources()
    set_modes()
