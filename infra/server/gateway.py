"""Pass HTTP requests to the API as events of API Gateway. For the local server and for wsgi.py, the API's container."""

import gzip
import importlib
import json
from collections.abc import Mapping
from typing import Any, Final

from chalice.app import Chalice, Request
from chalice.config import Config
from chalice.local import LocalGateway, create_local_server

from chalicelib.problems import ProblemError
from infra.paths import LAMBDA_APP

MAX_BODY_BYTES: Final = 6 * 1024 * 1024  # as in an event of Lambda; the limit of the API is lower
BODY_TIMEOUT_S: Final = 20.0
MIN_COMPRESSED_BYTES: Final = 1024  # as in infra/template.yaml
LOOPBACK: Final = "127.0.0.1"


class Headers(dict[str, str]):
    """The headers of a request as API Gateway passes them on: the last value of each, and all values."""

    def __init__(self, all_values: Mapping[str, list[str]]) -> None:
        super().__init__({name: values[-1] for name, values in all_values.items()})
        self.all_values = {name.lower(): values for name, values in all_values.items()}


class Gateway(LocalGateway):
    """A gateway that passes on every value of a repeated header."""

    def _generate_lambda_event(self, method: str, path: str, headers: Any, body: bytes | None) -> dict[str, Any]:  # noqa: ANN401
        event = super()._generate_lambda_event(method, path, headers, body)
        return {**event, "multiValueHeaders": headers.all_values}

    def is_authenticated(self, method: str, path: str, headers: Headers) -> bool:
        """Return whether a request has a valid key, without its body."""
        try:
            request = Request(self._generate_lambda_event(method, path, headers, None))
            importlib.import_module("app").authenticate(request)
        except (ValueError, ProblemError):  # an unknown path, or no valid key
            return False
        return True

    def cors_headers(self) -> dict[str, str]:
        """Return the headers of every response of the API that let scripts of other origins read it."""
        return dict(self._app_object.routes["/"]["POST"].cors.get_access_control_headers())


def load_app() -> tuple[Chalice, Config]:
    """Return the API, prepared for requests in several threads, and its configuration."""
    config = Config(config_from_disk=json.loads((LAMBDA_APP / ".chalice/config.json").read_text()))
    app = importlib.import_module("app").app
    server = create_local_server(app, config, LOOPBACK, 0)  # prepares the app; its server is not used
    server.server.server_close()
    return server.app_object, config


def compress(body: bytes, *, accepted: str) -> tuple[bytes, dict[str, str]]:
    """Return a body and its headers, compressed as API Gateway does if the client accepts it."""
    if len(body) < MIN_COMPRESSED_BYTES or "gzip" not in accepted:
        return body, {}
    return gzip.compress(body, compresslevel=6, mtime=0), {"Content-Encoding": "gzip"}
