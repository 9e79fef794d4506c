"""Create the files of a job in the working directory. Nothing else runs there yet, so any path is safe to open."""

import os
import time

from .connection import receive, receive_into
from .protocol import FILE_HEADER, JOB_HEADER

Fingerprint = tuple[int, int, int]  # inode, bytes, time of the last change


class JobFiles:
    """The files of a job, main.py among them, in memory outside the scratch directory for each of its runs."""

    def __init__(self) -> None:
        """Receive the files."""
        self._content = os.memfd_create("files")
        self._sizes = {}
        (count,) = JOB_HEADER.unpack(receive(JOB_HEADER.size))
        for _ in range(count):
            path_bytes, content_bytes = FILE_HEADER.unpack(receive(FILE_HEADER.size))
            self._sizes[receive(path_bytes).decode()] = content_bytes
            receive_into(self._content, content_bytes)

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths of the files."""
        return tuple(self._sizes)

    def create(self) -> dict[str, Fingerprint]:
        """Create the files and their directories, and return by path what changes if the program changes a file."""
        an_earlier_second_ns = (time.time_ns() // 10**9 - 1) * 10**9  # so that each later write changes the time
        fingerprints, offset = {}, 0
        for path, size in self._sizes.items():
            if directory := os.path.dirname(path):
                os.makedirs(directory, exist_ok=True)
            with open(path, "xb") as file:
                end = offset + size
                while offset < end:
                    offset += os.sendfile(file.fileno(), self._content, offset, end - offset)
            os.utime(path, ns=(an_earlier_second_ns, an_earlier_second_ns))
            fingerprints[path] = fingerprint(os.stat(path))
        return fingerprints


def fingerprint(status: os.stat_result) -> Fingerprint:
    """Return what identifies a version of a file."""
    return status.st_ino, status.st_size, status.st_mtime_ns
