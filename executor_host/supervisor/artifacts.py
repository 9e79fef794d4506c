"""Read the files that a program leaves behind, once all of its processes are dead."""

import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator

from .connection import receive
from .files import Fingerprint, fingerprint
from .patterns import Patterns
from .protocol import (
    ARTIFACTS,
    FILE_HEADER,
    INVALID_PATH,
    NOT_A_FILE,
    NOT_SEARCHED,
    OMISSION_HEADER,
    OMISSIONS,
    SEARCH_HEADER,
    TOO_LARGE,
    TOO_MANY,
    UNCHANGED,
    UNREADABLE,
    frames,
)

SEARCH_TIMEOUT_S = 1.0
_NUMBERS = re.compile("([0-9]+)")
MAX_ENTRIES = 32 * 1024  # to look at; the scratch directory holds half as many
# The program chose the names: no link is followed, no pipe is waited for, and no terminal becomes PID 1's.
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class SearchEndedError(Exception):
    """Raised when a search has looked at too many entries or takes too long."""


class ArtifactSearch:
    """The search for the files of the working directory that match the patterns of a job."""

    def __init__(self) -> None:
        """Receive the limits and the patterns."""
        *limits, patterns_bytes = SEARCH_HEADER.unpack(receive(SEARCH_HEADER.size))
        self._files_left, self._bytes_left, self._max_path_bytes, self._omissions_left = limits
        self._has_patterns = patterns_bytes > 0
        self._patterns = Patterns(receive(patterns_bytes).decode().split("\0")[:-1])
        self.created: dict[str, Fingerprint] = {}  # the files that the program did not create
        self._artifacts, self._omissions = bytearray(), bytearray()
        self._unlisted: Counter[bytes] = Counter()  # omissions, by reason

    def run(self) -> Iterator[bytes]:
        """Yield frames of the artifacts and omissions. No later run may see the names and contents in this memory."""
        if not self._has_patterns:
            return
        self._deadline, self._entries_left = time.monotonic() + SEARCH_TIMEOUT_S, MAX_ENTRIES
        try:
            self._search(os.open(".", os.O_DIRECTORY | OPEN_FLAGS), "", self._patterns.start())
        except SearchEndedError:
            self._add_omission(NOT_SEARCHED)
        for reason, count in self._unlisted.items():
            self._add_omission(reason, count=count)
        yield from frames(ARTIFACTS, self._artifacts)
        yield from frames(OMISSIONS, self._omissions)

    def _search(self, directory: int, prefix: str, states: int) -> None:
        """Search a directory, close its descriptor, and search the directories in it."""
        try:
            with os.scandir(directory) as scan:
                entries = sorted(scan, key=lambda entry: natural_order(entry.name))
            for entry in entries:
                self._entries_left -= 1
                if self._entries_left < 0 or time.monotonic() >= self._deadline:
                    raise SearchEndedError
                if after := self._patterns.after(states, entry.name):
                    try:
                        self._look_at(directory, entry, prefix + entry.name, after)
                    except OSError:
                        self._omit(prefix + entry.name, UNREADABLE)
        finally:
            os.close(directory)

    def _look_at(self, parent: int, entry: "os.DirEntry[str]", path: str, states: int) -> None:
        if not entry.is_dir(follow_symlinks=False):
            if self._patterns.match(states):
                reason = self._check(entry, path) or self._take(parent, entry.name, path)
                if reason:
                    self._omit(path, reason)
            return
        if self._patterns.match(states) and not self._patterns.match_everything_below(states):
            self._omit(path, NOT_A_FILE)
        below = self._patterns.enter(states)
        if below and len(os.fsencode(path)) + len("/x") > self._max_path_bytes:
            self._omit(path, INVALID_PATH)
        elif below:
            self._search(os.open(entry.name, os.O_DIRECTORY | OPEN_FLAGS, dir_fd=parent), path + "/", below)

    def _check(self, entry: "os.DirEntry[str]", path: str) -> bytes:
        """Return the reason for omitting a file without opening it, if there is one."""
        path_bytes = os.fsencode(path)
        if not _is_utf8(path_bytes) or len(path_bytes) > self._max_path_bytes:
            return INVALID_PATH
        if not entry.is_file(follow_symlinks=False):
            return NOT_A_FILE
        if self.created.get(path) == fingerprint(entry.stat(follow_symlinks=False)):
            return UNCHANGED
        return b"" if self._files_left else TOO_MANY

    def _take(self, directory: int, name: str, path: str) -> bytes:
        """Add a file to the artifacts, or return the reason for omitting it. Raise OSError if it cannot be read."""
        descriptor = os.open(name, OPEN_FLAGS, dir_fd=directory)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return NOT_A_FILE
            if status.st_size > self._bytes_left:
                return TOO_LARGE
            content = file.read(status.st_size)
        self._artifacts += FILE_HEADER.pack(len(os.fsencode(path)), len(content)) + os.fsencode(path) + content
        self._files_left -= 1
        self._bytes_left -= len(content)
        return b""

    def _omit(self, path: str, reason: bytes) -> None:
        """List an omission or, if there are too many to list, count it."""
        if self._omissions_left == 0:
            self._unlisted[reason] += 1
            return
        self._omissions_left -= 1
        self._add_omission(reason, path=os.fsencode(path)[: self._max_path_bytes])

    def _add_omission(self, reason: bytes, *, count: int = 1, path: bytes = b"") -> None:
        self._omissions += OMISSION_HEADER.pack(reason, count, len(path)) + path


def natural_order(name: str) -> list[str | int]:
    """Return a key that sorts figure-10.png after figure-9.png."""
    parts: list[str | int] = list(_NUMBERS.split(name))
    parts[1::2] = map(int, parts[1::2])
    return parts


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
