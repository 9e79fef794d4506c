"""The operator's command line for customer keys: `python -m infra.operator.keys_cli --help`.

Which table it works on is told by KEYS_TABLE and the usual AWS settings, so `set -a; . .local/env` points it at the
stack that `make run` started. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
"""

import json
import re
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import boto3
import click
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from chalicelib.access import rate_limits
from chalicelib.access.api_keys import KeyRecord, new_key
from chalicelib.access.key_table import KeyTableError
from chalicelib.access.plans import PLANS
from infra.operator.key_admin import KeyAdmin, KeyAdminError

CONFIG: Final = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SHOWN_ONCE: Final = "This is the only time that secrets are shown."


class Duration(click.ParamType[int]):
    """`90s`, `15m`, `24h` or `30d`, as seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([0-9]{1,6})([smhd])", str(value))
        if not found:
            self.fail(f"{value} is no duration such as 90s, 15m, 24h or 30d", param, ctx)
        return int(found[1]) * UNIT_S[found[2]]


PLAN: Final = click.Choice(sorted(PLANS))
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


@click.group(help="Customer keys of python-exec.")
@click.option("--endpoint", envvar="AWS_ENDPOINT_URL", show_envvar=True, help="Of DynamoDB; AWS itself without it.")
@click.option("--table", envvar="KEYS_TABLE", show_envvar=True, required=True, help="The table of keys.")
@click.pass_context
def cli(context: click.Context, endpoint: str | None, table: str) -> None:
    try:
        dynamodb = boto3.client("dynamodb", endpoint_url=endpoint, config=CONFIG)
    except (BotoCoreError, ValueError) as error:
        raise click.ClickException(f"No client for DynamoDB: {error}") from error
    context.obj = KeyAdmin(dynamodb, table=table)


@cli.command()
@click.option("--plan", type=PLAN, required=True)
@click.option("--owner", required=True, help="Whose it is.")
@click.option("--expires-in", type=Duration(), help="For example 30d; never without it.")
@as_json
@click.pass_obj
def create(store: KeyAdmin, *, plan: str, owner: str, expires_in: int | None, as_json: bool) -> None:
    """Create a key and print it and its signing secret, once."""
    now_s = int(time.time())
    key = new_key()
    expires_at = None if expires_in is None else now_s + expires_in
    record = store.create(key, plan=plan, owner=owner, now_s=now_s, expires_at=expires_at)
    _print_with_secrets(record, api_key=str(key), signing_secret=record.signing_secret, as_json=as_json)


@cli.command(name="list")
@as_json
@click.pass_obj
def list_keys(store: KeyAdmin, *, as_json: bool) -> None:
    """List the keys, oldest first."""
    found = [_shown(record) for record in sorted(store.all(), key=lambda record: record.created_at)]
    if as_json:
        click.echo(json.dumps(found))
    else:
        _print_table(("key_id", "owner", "plan", "status", "used", "left", "created", "expires"), found)


@cli.command()
@click.argument("key_id")
@as_json
@click.pass_obj
def show(store: KeyAdmin, *, key_id: str, as_json: bool) -> None:
    """Show a key, with what it has used of this month."""
    _print(store.get(key_id), as_json=as_json)


@cli.command()
@click.argument("key_id")
@as_json
@click.pass_obj
def revoke(store: KeyAdmin, *, key_id: str, as_json: bool) -> None:
    """Revoke a key for good, from the next request on."""
    _print(store.revoke(key_id), as_json=as_json)


@cli.command()
@click.argument("key_id")
@click.option("--grace", type=Duration(), required=True, help="How long the secret before stays good: 24h, or 0s.")
@as_json
@click.pass_obj
def rotate(store: KeyAdmin, *, key_id: str, grace: int, as_json: bool) -> None:
    """Give a key another secret and print it, once. A secret that was already in its grace ends now."""
    key, record = store.rotate(key_id, grace_s=grace, now_s=int(time.time()))
    _print_with_secrets(record, api_key=str(key), as_json=as_json)


@cli.command(name="rotate-signing-secret")
@click.argument("key_id")
@as_json
@click.pass_obj
def rotate_signing_secret(store: KeyAdmin, *, key_id: str, as_json: bool) -> None:
    """Give a key another signing secret for its webhooks and print it, once. The one before ends now."""
    record = store.rotate_signing_secret(key_id)
    _print_with_secrets(record, signing_secret=record.signing_secret, as_json=as_json)


@cli.command(name="set-plan")
@click.argument("key_id")
@click.argument("plan", type=PLAN)
@as_json
@click.pass_obj
def set_plan(store: KeyAdmin, *, key_id: str, plan: str, as_json: bool) -> None:
    """Move a key to another plan. What it used this month stays used."""
    _print(store.set_plan(key_id, plan), as_json=as_json)


def _shown(record: KeyRecord) -> dict[str, str | int | None]:
    now_us = int(time.time() * rate_limits.SECOND_US)
    quota_status = rate_limits.quota_status(record, PLANS[record.plan], now_us=now_us)
    in_grace = record.previous_secret_expires_at * rate_limits.SECOND_US > now_us
    return {
        "key_id": record.key_id,
        "owner": record.owner,
        "plan": record.plan,
        "status": record.status.value,
        "used": quota_status.runs,
        "left": quota_status.runs_left,
        "resets": _time(quota_status.month_ends_at),
        "created": _time(record.created_at),
        "expires": None if record.expires_at is None else _time(record.expires_at),
        "previous_secret_expires_at": _time(record.previous_secret_expires_at) if in_grace else None,
    }


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print(record: KeyRecord, *, as_json: bool) -> None:
    shown = _shown(record)
    if as_json:
        click.echo(json.dumps(shown))
        return
    for name, value in shown.items():
        click.echo(f"{name:18}{_cell(value)}")


def _print_with_secrets(record: KeyRecord, *, as_json: bool, **secrets: str) -> None:
    if as_json:
        click.echo(json.dumps({**secrets, **_shown(record)}))
        return
    _print(record, as_json=False)
    for name, secret in secrets.items():
        click.echo(f"{name:18}{secret}")
    click.echo(SHOWN_ONCE, err=True)


def _print_table(names: Sequence[str], rows: Iterable[dict[str, str | int | None]]) -> None:
    lines = [list(names), *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: str | int | None) -> str:
    """Without what would move the cursor or forge a line: an owner is free text."""
    return "-" if value is None else "".join(char if char.isprintable() else "?" for char in str(value))


def main() -> None:
    try:
        cli(prog_name="python -m infra.operator.keys_cli")
    except (KeyAdminError, KeyTableError) as error:
        raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
    main()
