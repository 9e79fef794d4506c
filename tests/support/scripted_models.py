"""Language models that answer with a script and record what they are sent."""

import json
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel

ANSWER = "The 20th Fibonacci number is 6765."
CODE = "a, b = 0, 1\nfor _ in range(20):\n    a, b = b, a + b\nprint(a)"
TOOL_ARGUMENTS = ('{"code"', json.dumps({"code": "1 / 0"}), json.dumps({"code": CODE}))  # a good one at last


def tool_call(number: int, arguments: str) -> dict[str, Any]:
    """Return a message of a chat API that calls the tool."""
    function = {"name": "run_python", "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": f"c{number}", "function": function}]}


SCRIPT = (
    *(tool_call(number, arguments) for number, arguments in enumerate(TOOL_ARGUMENTS)),
    {"role": "assistant", "content": ANSWER},
)


class ChatServer(ThreadingHTTPServer):
    """An OpenAI-style chat API on this machine."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ChatHandler)
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Return the base URL of the API."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class ChatHandler(BaseHTTPRequestHandler):
    """Answers each request with the next message of the script."""

    server: ChatServer

    def do_POST(self) -> None:
        """Answer one request."""
        self.server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        message = SCRIPT[len(self.server.requests) - 1]
        body = json.dumps({"choices": [{"message": message}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class ScriptedChatModel(FakeMessagesListChatModel):
    """A LangChain model with a script, which does not depend on the tools that it may call."""

    def bind_tools(self, tools: Sequence[Any], **_: object) -> "ScriptedChatModel":  # noqa: ARG002 - the interface
        """Return this model."""
        return self
