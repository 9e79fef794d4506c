"""Empty the directories that a program can write to, however it left them, once all its processes are dead."""

import contextlib
import ctypes
import os

from .run_memory import allocate

DIRECTORIES = ("/tmp", "/dev/shm")  # noqa: S108 - in the container
EMPTY_LISTING_BYTES = 48  # "." and ".." in the records of getdents64(2)
OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Scratch:
    """The writable directories. File names may say what a run has read, so PID 1 itself never reads them."""

    def __init__(self, libc: ctypes.CDLL) -> None:
        """Open the directories."""
        self._getdents64 = libc.getdents64
        self._directories = [os.open(path, OPEN_FLAGS) for path in DIRECTORIES]
        self._listing = (ctypes.c_ubyte * 4096).from_buffer(allocate(4096))

    def empty(self, *known_files: str) -> None:
        """Remove everything. Exit if that fails; `known_files` in the working directory cost no process."""
        for name in known_files:
            with contextlib.suppress(OSError):
                os.unlink(name)
        if self._is_empty():
            return
        cleaner = os.fork()
        if cleaner == 0:
            try:
                for directory in self._directories:
                    empty_directory(directory)
            finally:
                os._exit(0)
        os.waitpid(cleaner, 0)
        if not self._is_empty():
            os._exit(1)

    def _is_empty(self) -> bool:
        return all(map(self._is_empty_directory, self._directories))

    def _is_empty_directory(self, directory: int) -> bool:
        os.lseek(directory, 0, os.SEEK_SET)
        listing_bytes: int = self._getdents64(directory, self._listing, len(self._listing))
        return 0 <= listing_bytes <= EMPTY_LISTING_BYTES


def empty_directory(root: int) -> None:
    """Remove everything in a directory, which the caller's user owns.

    Directories in a directory are moved up into `root` before it is removed, so depth and paths of any length do not
    matter and each entry is touched once.
    """
    moved_name, moved = os.urandom(16).hex(), 0  # a name that the program cannot have used
    while directories := _remove_files(root):
        for name in directories:
            directory = _open_directory(name, root)
            try:
                for child in _remove_files(directory):
                    os.close(_open_directory(child, directory))
                    os.rename(child, f"{moved_name}-{moved}", src_dir_fd=directory, dst_dir_fd=root)
                    moved += 1
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=root)


def _remove_files(directory: int) -> list[str]:
    """Remove all entries of a directory but directories, whose names are returned."""
    os.lseek(directory, 0, os.SEEK_SET)
    with os.scandir(directory) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in names if is_directory]


def _open_directory(name: str, parent: int) -> int:
    """Open a directory after making it accessible, without which it can neither be read nor moved."""
    os.chmod(name, 0o700, dir_fd=parent)
    return os.open(name, OPEN_FLAGS, dir_fd=parent)
