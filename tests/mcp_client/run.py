"""`make mcp-clients`: call POST /mcp with the official TypeScript SDK.

The tests call it with the Python SDK. This one is not among them, because npm takes longer than they do.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from infra.local.stack import local_stack
from infra.paths import LOCAL
from tests.support.node import NODE, install_packages

SOURCES = Path(__file__).parent
INSTALLED = LOCAL / "mcp-client"
EXPECTED = {
    "server": "python-exec",
    "tools": ["run_python", "list_runtimes"],
    "value": "42",
    "failed": True,
    "images": ["image/png"],
    "unknownTool": -32602,
    "wrongKey": 401,
}


def main():
    """Install the SDK, run client.mjs on a stack of its own, and return what differs, if anything."""
    install_packages(SOURCES, INSTALLED)
    with local_stack(name="mcp-clients", logs=INSTALLED) as stack:
        environment = {**os.environ, "MCP_URL": f"{stack.url}/mcp", "API_KEY": stack.api_key}
        output = subprocess.run(
            [*NODE, "node", "client.mjs"], cwd=INSTALLED, env=environment, stdout=subprocess.PIPE, check=True
        )
    report = json.loads(output.stdout)
    print(json.dumps(report, indent=2))
    differences = {name: report[name] for name, value in EXPECTED.items() if report[name] != value}
    return f"Not as expected: {differences}" if differences else None


if __name__ == "__main__":
    sys.exit(main())
