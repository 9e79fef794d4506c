"""Fake the HTTP client for webhook endpoints."""

from collections.abc import Callable, Mapping

from chalicelib.webhooks.client import DeliveryError


class FakeWebhookClient:
    """Responds with the next of `responses`, a status or an error, and with 204 after them."""

    def __init__(self) -> None:
        self.responses: list[int | DeliveryError] = []
        self.requests: list[tuple[str, bytes, Mapping[str, str]]] = []
        self.before_response: Callable[[], object] = lambda: None

    def post(self, url: str, body: bytes, *, headers: Mapping[str, str]) -> int:
        self.requests.append((url, body, headers))
        self.before_response()
        response = self.responses.pop(0) if self.responses else 204
        if isinstance(response, DeliveryError):
            raise response
        return response
