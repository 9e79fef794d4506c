"""Restart a process of the local stack when a source file of the API changes: the API or the event sources."""

import os
import sys
from collections.abc import Iterator

from chalice.cli.filewatch.stat import StatFileWatcher
from chalice.utils import OSUtils

from infra.paths import LAMBDA_APP


class SourceTree(OSUtils):
    """The files that cause a restart. Python may write byte code next to them at any time."""

    def walk(
        self,
        path: str,
        followlinks: bool = False,  # noqa: FBT001, FBT002 - Chalice's signature
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield each directory with its source files only."""
        for directory, subdirectories, files in super().walk(path, followlinks):
            yield (
                directory,
                subdirectories,
                [name for name in files if name.endswith((".py", ".json", ".html", ".css", ".js"))],
            )


def restart_on_change() -> None:
    """Watch the files in a thread, and replace this process with a new one of the same command when one changes."""
    StatFileWatcher(SourceTree()).watch_for_file_changes(str(LAMBDA_APP), _restart)


def _restart() -> None:
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell is involved
