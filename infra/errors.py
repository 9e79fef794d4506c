"""The error with which every command of infra/ ends."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class CommandError(Exception):
    """A command cannot do its work; the message says why and, where possible, what to do."""


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the process with the message of a CommandError, and exit code 1."""
    try:
        yield
    except CommandError as error:
        sys.exit(str(error))
