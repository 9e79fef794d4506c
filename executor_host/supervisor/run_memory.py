"""Hold the data of runs in memory that the processes of later runs do not have.

A program is a fork of PID 1, so it finds in its own memory whatever PID 1 has on its heap, freed objects included.
What one run reads and writes therefore passes through the memory of this module, from which a fork is excluded.
"""

import ctypes
import mmap

MADV_DONTFORK = 10  # madvise(2)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_MAP_FAILED = ctypes.c_void_p(-1).value


def allocate(size: int) -> memoryview:
    """Return memory that forks do not have, and that is never released. Raise OSError without it.

    It is not an `mmap.mmap`: a fork would unmap that, and with it what it has at the same address by then.
    """
    protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = _libc.mmap(None, size, protection, flags, -1, 0)
    if address == _MAP_FAILED or _libc.madvise(address, size, MADV_DONTFORK) != 0:
        raise OSError(ctypes.get_errno(), "cannot allocate memory for the runs")
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


class RunBuffer:
    """Bytes that grow up to a capacity, in the memory of this module."""

    def __init__(self) -> None:
        """Create a buffer without capacity."""
        self._memory, self._size = memoryview(b""), 0

    def __len__(self) -> int:
        """Return the number of bytes."""
        return self._size

    def reserve(self, capacity: int) -> None:
        """Clear the buffer, and provide room for `capacity` bytes."""
        self.clear()
        if len(self._memory) < capacity:
            self._memory = allocate(capacity)

    def append(self, data: memoryview) -> None:
        """Append bytes."""
        self._memory[self._size : self._size + len(data)] = data
        self._size += len(data)

    def keep_last(self, size: int) -> None:
        """Remove all but the last `size` bytes."""
        if self._size > size:
            self._memory[:size] = self._memory[self._size - size : self._size]
            self._size = size

    def clear(self) -> None:
        """Remove all bytes."""
        self._size = 0

    @property
    def view(self) -> memoryview:
        """Return the bytes, without a copy."""
        return self._memory[: self._size]
