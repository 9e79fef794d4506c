"""The commands `python-exec keys …`, which manage the API keys of customers."""

import functools
import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import boto3
import click
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from chalicelib.access import rate_limits
from chalicelib.access.admission import rfc3339
from chalicelib.access.api_keys import KeyRecord, new_key
from chalicelib.access.plans import PLANS
from infra import env_file
from infra.operator.key_admin import KeyAdmin
from infra.operator.text_table import text_table

CONFIG: Final = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
# Settings that choose an AWS account or endpoint. Without them and without a table, the local stack is meant.
ACCOUNT_SETTINGS: Final = ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB")
UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SECRETS_NOTICE: Final = "Store these secrets now. They are not displayed again."

Connect = Callable[[], KeyAdmin]


class Duration(click.ParamType[int]):
    """A duration such as `90s`, `15m`, `24h` or `30d`, converted to seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds."""
        match = re.fullmatch(r"([0-9]{1,6})([smhd])", str(value))
        if not match:
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 24h or 30d", param, ctx)
        return int(match[1]) * UNIT_S[match[2]]


PLAN: Final = click.Choice(sorted(PLANS))
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


@click.group()
@click.option("--table", envvar="KEYS_TABLE", show_envvar=True, help="Name of the keys table.")
@click.pass_context
def keys(context: click.Context, table: str | None) -> None:
    """Manage API keys.

    The commands use KEYS_TABLE and your AWS settings. Without them, they use the local stack that `make run` started.
    """
    context.obj = functools.partial(_key_admin, table)  # connects after all options are parsed: --help needs no table


def _key_admin(table: str | None) -> KeyAdmin:
    local = env_file.read()
    if table is None and "KEYS_TABLE" in local and not any(name in os.environ for name in ACCOUNT_SETTINGS):
        return _local_key_admin(local)
    if table is None:
        raise click.UsageError("No keys table. Set KEYS_TABLE, or start the local stack with `make run`.")
    try:
        return KeyAdmin(boto3.client("dynamodb", config=CONFIG), table=table)
    except (BotoCoreError, ValueError) as error:
        raise click.ClickException(f"Cannot create a DynamoDB client: {error}") from error


def _local_key_admin(settings: Mapping[str, str]) -> KeyAdmin:
    address = urlsplit(settings["AWS_ENDPOINT_URL"])
    try:
        socket.create_connection((address.hostname, address.port), timeout=CONFIG.connect_timeout).close()
    except OSError as error:
        message = "The local stack is not running. Start it with `make run`, or set KEYS_TABLE."
        raise click.ClickException(message) from error
    click.echo(f"Using the local stack at {settings['URL']}.", err=True)
    return KeyAdmin(env_file.client("dynamodb", settings, config=CONFIG), table=settings["KEYS_TABLE"])


@keys.command()
@click.option("--plan", type=PLAN, required=True, help="Plan of the key, which sets its limits.")
@click.option("--owner", required=True, help="Name of the customer.")
@click.option("--expires-in", type=Duration(), help="Lifetime of the key, such as 30d. Default: unlimited.")
@as_json
@click.pass_obj
def create(connect: Connect, *, plan: str, owner: str, expires_in: int | None, as_json: bool) -> None:
    """Create a key and print it and its signing secret once."""
    now_s = int(time.time())
    key = new_key()
    expires_at = None if expires_in is None else now_s + expires_in
    record = connect().create(key, plan=plan, owner=owner, now_s=now_s, expires_at=expires_at)
    _print(record, api_key=str(key), signing_secret=record.signing_secret, as_json=as_json)


@keys.command(name="list")
@as_json
@click.pass_obj
def list_keys(connect: Connect, *, as_json: bool) -> None:
    """List all keys with their usage this month, oldest first."""
    rows = [_to_row(record) for record in sorted(connect().all(), key=lambda record: record.created_at)]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        names = ("key_id", "owner", "plan", "status", "used", "left", "created", "expires")
        click.echo(text_table([names, *([_cell(row[name]) for name in names] for row in rows)]), nl=False)


@keys.command()
@click.argument("key_id")
@as_json
@click.pass_obj
def show(connect: Connect, *, key_id: str, as_json: bool) -> None:
    """Show one key with its usage this month."""
    _print(connect().get(key_id), as_json=as_json)


@keys.command()
@click.argument("key_id")
@as_json
@click.pass_obj
def revoke(connect: Connect, *, key_id: str, as_json: bool) -> None:
    """Revoke a key permanently, effective immediately."""
    _print(connect().revoke(key_id), as_json=as_json)


@keys.command()
@click.argument("key_id")
@click.option("--grace-period", type=Duration(), required=True, help="How long the old secret works: 24h, or 0s.")
@as_json
@click.pass_obj
def rotate(connect: Connect, *, key_id: str, grace_period: int, as_json: bool) -> None:
    """Create a new secret for a key and print it once.

    The old secret works until the grace period ends. An even older secret stops working immediately.
    """
    key, record = connect().rotate(key_id, grace_s=grace_period, now_s=int(time.time()))
    _print(record, api_key=str(key), as_json=as_json)


@keys.command(name="rotate-signing-secret")
@click.argument("key_id")
@as_json
@click.pass_obj
def rotate_signing_secret(connect: Connect, *, key_id: str, as_json: bool) -> None:
    """Create a new signing secret for webhooks and print it once, effective immediately."""
    record = connect().rotate_signing_secret(key_id)
    _print(record, signing_secret=record.signing_secret, as_json=as_json)


@keys.command(name="set-plan")
@click.argument("key_id")
@click.argument("plan", type=PLAN)
@as_json
@click.pass_obj
def set_plan(connect: Connect, *, key_id: str, plan: str, as_json: bool) -> None:
    """Move a key to another plan. Its usage this month is kept."""
    _print(connect().set_plan(key_id, plan), as_json=as_json)


def _to_row(record: KeyRecord) -> dict[str, str | int | None]:
    now_us = int(time.time() * rate_limits.SECOND_US)
    quota_status = rate_limits.quota_status(record, PLANS[record.plan], now_us=now_us)
    in_grace_period = record.previous_secret_expires_at * rate_limits.SECOND_US > now_us
    return {
        "key_id": record.key_id,
        "owner": record.owner,
        "plan": record.plan,
        "status": record.status.value,
        "used": quota_status.runs,
        "left": quota_status.runs_left,
        "resets": rfc3339(quota_status.month_ends_at),
        "created": rfc3339(record.created_at),
        "expires": None if record.expires_at is None else rfc3339(record.expires_at),
        "previous_secret_expires_at": rfc3339(record.previous_secret_expires_at) if in_grace_period else None,
    }


def _print(record: KeyRecord, *, as_json: bool, **secrets: str) -> None:
    row = _to_row(record)
    if as_json:
        click.echo(json.dumps({**secrets, **row}))
        return
    for name, value in {**row, **secrets}.items():
        click.echo(f"{name:18}{_cell(value)}")
    if secrets:
        click.echo(SECRETS_NOTICE, err=True)


def _cell(value: str | int | None) -> str:
    """Return printable text: an owner's name could otherwise move the cursor or forge a line."""
    return "-" if value is None else "".join(char if char.isprintable() else "?" for char in str(value))
