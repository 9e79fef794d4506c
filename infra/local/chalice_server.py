"""Serve the API with Chalice's local server, with less latency and with reload. Only infra/local/stack.py starts it."""

import argparse
import functools
import os
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from typing import Final, cast

from chalice.app import Chalice
from chalice.cli import create_local_server
from chalice.cli.factory import CLIFactory
from chalice.cli.filewatch.stat import StatFileWatcher, StatWorkerProcess
from chalice.cli.reloader import ParentProcess
from chalice.config import Config
from chalice.local import ChaliceRequestHandler, HTTPServerThread, LocalDevServer, ThreadedHTTPServer
from chalice.utils import OSUtils

from infra.local.processes import DIE_WITH_PARENT
from infra.paths import LAMBDA_APP

STAGE: Final = "dev"

ThreadedHTTPServer.request_queue_size = 128  # with the default of 5, simultaneous clients retry after a second


class Handler(ChaliceRequestHandler):
    """A request handler without Nagle's delay that passes on repeated headers."""

    disable_nagle_algorithm = True  # the delay costs 44 ms per request of a kept connection

    def _parse_payload(self) -> tuple[dict[str, str], bytes | None]:
        headers, body = super()._parse_payload()
        # Chalice uses the first of repeated headers. Joined as in RFC 9110 5.3, two keys are not a valid key.
        return {name: ", ".join(self.headers.get_all(name, ())) for name in headers}, body


class Factory(CLIFactory):
    """A factory of Chalice's server with our handler."""

    def create_local_server(self, app_obj: Chalice, config: Config, host: str, port: int) -> LocalDevServer:
        """Return the server."""
        local = super().create_local_server(app_obj, config, host, port)
        handler = functools.partial(Handler, app_object=app_obj, config=config)
        local.server.RequestHandlerClass = handler
        return local


class SourceTree(OSUtils):
    """The files that cause a reload. Python may write byte code next to them at any time."""

    def walk(
        self,
        path: str,
        followlinks: bool = False,  # noqa: FBT001, FBT002 - Chalice's signature
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield each directory with its source files only."""
        for directory, subdirectories, files in super().walk(path, followlinks):
            yield directory, subdirectories, [name for name in files if name.endswith((".py", ".json"))]


class Worker(StatWorkerProcess):
    """A server process that ends when a source file changes."""

    def _start_file_watcher(self, project_dir: str) -> None:
        StatFileWatcher(SourceTree()).watch_for_file_changes(project_dir, self._on_file_change)


def main(arguments: list[str]) -> int:
    """Serve the API and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.chalice_server", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reload", action="store_true", help="restart when a source file changes")
    options = parser.parse_args(arguments)
    factory = Factory(str(LAMBDA_APP), environ=os.environ)
    serve = functools.partial(create_local_server, factory, options.host, options.port, STAGE)
    if not options.reload:
        serve().serve_forever()
    elif "CHALICE_WORKER" in os.environ:  # set by ParentProcess
        return Worker(HTTPServerThread(serve)).main(str(LAMBDA_APP))
    else:
        ParentProcess(os.environ, cast("type[subprocess.Popen[bytes]]", _start_worker)).main()
    return 0


def _start_worker(argv: list[str], env: MutableMapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*DIE_WITH_PARENT, sys.executable, "-m", "infra.local.chalice_server", *argv[1:]], env=env)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
