"""The Model Context Protocol, as its official client speaks it and as a model uses it."""

import base64

import pytest

from chalicelib.access.api_keys import new_key
from tests.support.mcp_client import McpClient, images_of, text_of

MODES = {"auto": "2026-07-28", "legacy": "2025-11-25"}
SALES = "month,amount\nJanuary,120\nFebruary,95\nMarch,210\n"


@pytest.fixture(params=MODES)
def mcp(request, stack):
    return McpClient(stack.url, stack.api_key, mode=request.param)


@pytest.fixture
def model(stack):
    return McpClient(stack.url, stack.api_key)


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


def test_model_solves_a_computation(model):
    """The first attempt forgets to import, and the model repairs it with what it reads."""
    first = model.run("factorial(20)")
    assert "NameError" in text_of(first)
    assert text_of(model.run("from math import factorial\nfactorial(20)")) == "2432902008176640000"


def test_model_analyzes_a_csv(model):
    """The first attempt reads a file that does not exist, and the hint says where the data goes."""
    program = "import csv, sys\nrows = csv.DictReader({source})\nmax(rows, key=lambda row: int(row['amount']))['month']"
    first = text_of(model.run(program.format(source="open('sales.csv')")))
    assert "Hint: No file is kept" in first
    assert text_of(model.run(program.format(source="sys.stdin"), input=SALES)) == "'March'"


CHART = """\
import struct, zlib

values = {values}
width, height = 10 * len(values), max(values)
blue, white = b"\\x00\\x00\\xff", b"\\xff\\xff\\xff"
rows = [
    b"\\0" + b"".join(blue if values[x // 10] > height - y - 1 else white for x in range(width))
    for y in range(height)
]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
image = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
with open("chart.png", "wb") as file:
    file.write(b"\\x89PNG\\r\\n\\x1a\\n" + image)
"""


def test_model_draws_a_chart(model):
    """The first attempt returns nothing to see, and the model asks for the file."""
    first = model.run(CHART.format(values=[120, 95, 210]))
    assert "without any output" in text_of(first)
    result = model.run(CHART.format(values=[120, 95, 210]), artifacts=["*.png"])
    (image,) = images_of(result)
    assert (image.mime_type, base64.b64decode(image.data)[:8]) == ("image/png", b"\x89PNG\r\n\x1a\n")


def test_files_reach_the_program_and_come_back(mcp):
    files = [{"path": "sales.csv", "content": SALES}]
    code = "text = open('sales.csv').read()\nopen('copy.txt', 'w').write(text.upper())"
    assert "FEBRUARY,95" in text_of(mcp.run(code, files=files, artifacts=["copy.txt"]))
