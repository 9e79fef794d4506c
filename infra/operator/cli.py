"""The operator's command line, which `make setup` installs as .venv/bin/python-exec.

Exit codes: 0 success, 1 the operation failed, 2 wrong usage.
"""

import click

from chalicelib.dynamodb import TableError
from infra.errors import CommandError
from infra.operator.keys_cli import keys
from infra.operator.preflight_cli import preflight
from infra.operator.resources_cli import create_resources


@click.group()
def cli() -> None:
    """Operate python-exec."""


cli.add_command(keys)
cli.add_command(preflight)
cli.add_command(create_resources)


def main() -> None:
    """Run the command line and report a failed operation in one line."""
    try:
        cli(prog_name="python-exec")
    except (CommandError, TableError) as error:
        raise SystemExit(f"Error: {error}") from error
