"""Serve the API with Chalice's local server, with less latency and with reload. Only infra/local/stack.py starts it."""

import argparse
import functools
import os
import sys
from typing import Final

from chalice.cli.factory import CLIFactory
from chalice.local import ChaliceRequestHandler, ThreadedHTTPServer, create_local_server

from infra.local.reload import restart_on_change
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


def main(arguments: list[str]) -> None:
    """Serve the API forever."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.chalice_server", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reload", action="store_true", help="restart when a source file changes")
    options = parser.parse_args(arguments)
    if options.reload:
        restart_on_change()
    config = CLIFactory(str(LAMBDA_APP), environ=os.environ).create_config_obj(chalice_stage_name=STAGE)
    local = create_local_server(config.chalice_app, config, options.host, options.port)
    local.server.RequestHandlerClass = functools.partial(Handler, app_object=local.app_object, config=config)
    local.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
