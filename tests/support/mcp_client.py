"""Call the tools of POST /mcp with the official Python client."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, ImageContent, TextContent

Mode = Literal["auto", "legacy"]  # with server/discover if the server has it, or with initialize
Answer = TypeVar("Answer")
MAX_CALLS = 5
BUSY = "the service is busy. Call the tool again later."


class McpClient:
    """A client that connects for each call, as a stateless server allows."""

    def __init__(self, url: str, api_key: str, *, mode: Mode = "auto") -> None:
        self._url = f"{url}/mcp"
        self._headers = {"X-Api-Key": api_key}
        self._mode = mode

    def with_session(self, use: Callable[[Client], Awaitable[Answer]]) -> Answer:
        """Connect, and return what `use` returns for the connected client."""

        async def connect() -> Answer:
            async with httpx2.AsyncClient(headers=self._headers, timeout=60) as http_client:
                transport = streamable_http_client(self._url, http_client=http_client)
                async with Client(transport, mode=self._mode) as client:
                    return await use(client)

        # Playwright, if a test of this process has started it, has an event loop in the main thread.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, connect()).result()

    def error_of(self, use: Callable[[Client], Awaitable[object]]) -> str:
        """Connect, and return the message of the protocol error that `use` or connecting raises."""
        try:
            self.with_session(use)
        except BaseExceptionGroup as group:  # of the client's tasks
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            return error.message if isinstance(error, MCPError) else ""
        return ""

    def run(self, code: str, **arguments: Any) -> CallToolResult:
        """Call run_python and return its result. Call it again while the service is busy, as it asks for."""
        for _ in range(MAX_CALLS):
            result = self.with_session(lambda client: client.call_tool("run_python", {"code": code, **arguments}))
            if BUSY not in text_of(result):
                break
        return result


def text_of(result: CallToolResult) -> str:
    """Return the texts of a result."""
    return "\n".join(content.text for content in result.content if isinstance(content, TextContent))


def images_of(result: CallToolResult) -> list[ImageContent]:
    """Return the images of a result."""
    return [content for content in result.content if isinstance(content, ImageContent)]
