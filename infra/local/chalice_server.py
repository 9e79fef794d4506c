"""Chalice's own local server for the API, made fast, with code reload. Started by infra/local/stack.py."""

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

ThreadedHTTPServer.request_queue_size = 128  # of 5, clients that connect at once wait a second for their retry


class Handler(ChaliceRequestHandler):
    """Answers at once, and sees every value of a header."""

    disable_nagle_algorithm = True  # 44 ms on each request of a connection that is kept

    def _parse_payload(self) -> tuple[dict[str, str], bytes | None]:
        headers, body = super()._parse_payload()
        # Of one that is sent twice Chalice takes the first; joined as RFC 9110 5.3 has it, two keys are no key.
        return {name: ", ".join(self.headers.get_all(name, ())) for name in headers}, body


class Factory(CLIFactory):
    """Makes Chalice's server with our handler."""

    def create_local_server(self, app_obj: Chalice, config: Config, host: str, port: int) -> LocalDevServer:
        local = super().create_local_server(app_obj, config, host, port)
        handler = functools.partial(Handler, app_object=app_obj, config=config)
        local.server.RequestHandlerClass = handler
        return local


class SourceTree(OSUtils):
    """Only what reloading is for: byte code is written whenever anything imports the sources."""

    def walk(
        self,
        path: str,
        followlinks: bool = False,  # noqa: FBT001, FBT002 - as Chalice has it
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        for directory, subdirectories, files in super().walk(path, followlinks):
            yield directory, subdirectories, [name for name in files if name.endswith((".py", ".json"))]


class Worker(StatWorkerProcess):
    """Serves until a source changes."""

    def _start_file_watcher(self, project_dir: str) -> None:
        StatFileWatcher(SourceTree()).watch_for_file_changes(project_dir, self._on_file_change)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.local.chalice_server", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reload", action="store_true")
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
