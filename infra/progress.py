"""Progress messages of commands that download, build or deploy."""

import sys


def report(message: str) -> None:
    """Write a message to standard error, which stays apart from a command's result."""
    sys.stderr.write(f"{message}\n")
