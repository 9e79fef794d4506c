"""Keep the pages of the warm interpreter shared with the processes of programs, which are forks of it.

The kernel copies a page as soon as one of them writes to it, and CPython writes to most objects that it only looks at
or, at its exit, gives up. The layout of these objects is that of CPython on a little-endian machine.
"""

import ctypes
import gc
import sys
import types
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

IMMORTAL = 0xFFFFFFFF  # as the lower half of a reference count, which the object starts with
MA_KEYS = 32  # offset of the address of the entries in a dict

references: list[Any] = []  # to modules: at its exit, the interpreter uses these instead of writing new ones to them


def share_pages() -> None:
    """Prepare all objects that exist before the first fork."""
    modules = [module for module in sys.modules.values() if type(module) is types.ModuleType]
    references.extend(map(weakref.ref, modules))
    gather_entries([vars(module) for module in modules])
    make_immortal(gc.get_objects())
    make_immortal(module_entries(modules))


def gather_entries(dicts: list[dict[str, Any]]) -> None:
    """Move the entries of dicts next to each other: the interpreter overwrites all variables of modules at its exit."""
    memory = (ctypes.c_uint64 * (sys.maxsize // 8)).from_address(0)
    copies = [dict_.copy() for dict_ in dicts]
    for dict_, copy in zip(dicts, copies, strict=True):
        old, new = (id(dict_) + MA_KEYS) // 8, (id(copy) + MA_KEYS) // 8
        memory[old], memory[new] = memory[new], memory[old]


def module_entries(modules: list[types.ModuleType]) -> Iterator[Any]:
    """Yield the names and values of all variables of modules."""
    for module in modules:
        for entry in vars(module).items():
            yield from entry


def make_immortal(objects: Iterable[Any]) -> None:
    """Let the interpreter neither count references to these objects nor deallocate them.

    https://peps.python.org/pep-0683/
    """
    memory = (ctypes.c_uint32 * (sys.maxsize // 4)).from_address(0)
    # Whatever still refers to these would keep the interpreter from flushing them once the program has replaced them.
    mortal = {id(part) for file in (sys.stdout, sys.stderr) for part in _parts(file)}
    for address in map(id, objects):
        if address not in mortal:
            memory[address // 4] = IMMORTAL


def _parts(file: Any) -> tuple[Any, ...]:  # noqa: ANN401 - the standard streams have no exact types
    return file, file.buffer, file.buffer.raw
