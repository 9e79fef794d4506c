"""The Model Context Protocol, as its official client speaks it and as a model uses it."""

import base64
import json
import struct
import zlib

import pytest
from jsonschema import Draft202012Validator

from chalicelib.access.api_keys import new_key
from tests.support.http_client import JSON
from tests.support.keys import exhaust_quota
from tests.support.mcp_client import McpClient, images_of, text_of

MODES = {"auto": "2026-07-28", "legacy": "2025-11-25"}
SALES = "month,amount\nJanuary,120\nFebruary,95\nMarch,210\n"
ANALYSIS = """\
import pandas as pd

sales = pd.read_csv("sales.csv")
best = sales.loc[sales["amount"].idxmax()]
print(best["month"], best["amount"])
print(f"{sales['amount'].mean():.2f}")
"""
CHART = """\
import matplotlib.pyplot as plt

plt.bar(["January", "February", "March"], [120, 95, 210])
plt.title("Sales")
plt.show()
"""
CHART_PIXELS = (640, 480)  # matplotlib's default
PNG_START = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(params=MODES)
def mcp(request, stack):
    return McpClient(stack.url, stack.api_key, mode=request.param)


@pytest.fixture
def model(stack):
    return McpClient(stack.url, stack.api_key)


def png_chunks(content, kind):
    """Yield the data of each chunk of a kind. Raises AssertionError if a checksum is wrong."""
    position = len(PNG_START)
    while position < len(content):
        (size,) = struct.unpack_from(">I", content, position)
        checked = content[position + 4 : position + 8 + size]
        assert struct.pack(">I", zlib.crc32(checked)) == content[position + 8 + size : position + 12 + size]
        if checked[:4] == kind:
            yield checked[4:]
        position += 12 + size


def test_client_negotiates_and_lists_tools(mcp, request):
    async def use(client):
        return client.session.protocol_version, await client.list_tools()

    version, tools = mcp.with_session(use)
    assert version == MODES[mcp._mode]
    assert [tool.name for tool in tools.tools] == ["run_python", "list_runtimes"]


def test_program_returns_output_and_last_expression(mcp):
    result = mcp.run("print(input())\n6 * 7", input="hello")
    assert (result.is_error, text_of(result)) == (False, "hello\n42")


def test_exception_is_an_error_with_original_traceback(mcp):
    result = mcp.run("x = 1\n\nx / 0")
    assert result.is_error
    assert 'File "/tmp/main.py", line 3, in <module>\n    x / 0\n    ~~^~~\nZeroDivisionError' in text_of(result)


def test_timeout_keeps_output(mcp):
    result = mcp.run("print('before', flush=True)\nwhile True: pass", timeout_s=0.5)
    assert result.is_error
    assert text_of(result).startswith("before\nThe program was ended after 0.5 s.")


def test_unknown_tool_is_a_protocol_error(mcp):
    assert "There is no such tool" in mcp.error_of(lambda client: client.call_tool("shell", {}))


def test_unknown_method_is_a_protocol_error(mcp):
    assert mcp.error_of(lambda client: client.list_resources()) == "There is no such method."


def test_wrong_key_cannot_connect(stack):
    client = McpClient(stack.url, str(new_key()))
    assert client.error_of(lambda session: session.list_tools()) == "Server returned an error response"


def test_exhausted_quota_is_explained_to_the_model(stack, create_key):
    api_key = create_key("free")
    exhaust_quota(stack.environment, api_key, plan="free")
    result = McpClient(stack.url, api_key).run("1")
    assert result.is_error
    assert "Plan free allows 1000 runs per month. Retry after 2099-02-01T00:00:00Z." in text_of(result)


def test_batch_of_messages_is_answered_in_order(client):
    calls = [
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "run_python", "arguments": program}}
        for number, program in enumerate([{"code": "6 * 7"}, {"code": "1 / 0"}])
    ]
    answer = client.send(json.dumps(calls), path="/mcp", headers={**JSON, "Mcp-Protocol-Version": "2025-03-26"})
    assert [(each["id"], each["result"]["isError"]) for each in answer.body] == [(0, False), (1, True)]
    assert answer.body[0]["result"]["content"] == [{"type": "text", "text": "42"}]


def test_model_solves_a_computation(model):
    """The first attempt forgets to import, and the model repairs it with what it reads."""
    first = model.run("factorial(20)")
    assert "NameError" in text_of(first)
    assert text_of(model.run("from math import factorial\nfactorial(20)")) == "2432902008176640000"


def test_model_analyzes_a_csv(model):
    """The first attempt reads a file that does not exist, and the hint says how to send it."""
    first = text_of(model.run(ANALYSIS, runtime="data", timeout_s=10))
    assert "Hint: No file is kept from earlier calls. Send the files" in first
    files = [{"path": "sales.csv", "content": SALES}]
    assert text_of(model.run(ANALYSIS, runtime="data", timeout_s=10, files=files)) == "March 210\n141.67"


def test_model_draws_a_chart(model):
    """The first attempt runs where matplotlib is not installed, and the hint names the other runtime."""
    first = text_of(model.run(CHART))
    assert "need the runtime `data`" in first
    result = model.run(CHART, runtime="data", timeout_s=10)
    (image,) = images_of(result)
    content = base64.b64decode(image.data)
    assert (result.is_error, image.mime_type) == (False, "image/png")
    assert (content[:8], content[12:24]) == (PNG_START, b"IHDR" + struct.pack(">II", *CHART_PIXELS))
    assert zlib.decompress(b"".join(png_chunks(content, b"IDAT")))


def test_model_reads_from_the_tools_what_it_needs(model):
    """A model that sends only what the schema allows, and that has read the descriptions, needs no second attempt."""

    async def use(client):
        return await client.list_tools()

    tool = model.with_session(use).tools[0]
    schema = Draft202012Validator(tool.input_schema)
    schema.validate({"code": CHART, "runtime": "data", "files": [{"path": "sales.csv", "content": SALES}]})
    assert not schema.is_valid({"code": CHART, "files": [{"path": "../sales.csv", "content": SALES}]})
    assert all(text in tool.description for text in ("`data` has numpy", "`plt.show()`", "list_runtimes"))


def test_files_reach_the_program_and_come_back(mcp):
    files = [{"path": "sales.csv", "content": SALES}]
    code = "text = open('sales.csv').read()\nopen('copy.txt', 'w').write(text.upper())"
    assert "FEBRUARY,95" in text_of(mcp.run(code, files=files, artifacts=["copy.txt"]))
